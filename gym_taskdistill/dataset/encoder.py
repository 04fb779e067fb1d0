"""The encoder ε_ξ of a dataset: first layers that all learners share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from gym_taskdistill.errors import DatasetError
from gym_taskdistill.learners import LearnerDistribution, Learners, LearnerStack

if TYPE_CHECKING:
    from gym_taskdistill.dataset.dataset import DistilledDataset


def encode(encoder: Learners, obs: Tensor) -> Tensor:
    """Run the shared encoder ε_ξ over observations ``(M, b, *obs_shape)``, giving ``(M, b, *features)``."""
    if not encoder.params:
        return obs
    features: Tensor = encoder(obs.flatten(0, 1).unsqueeze(0)).squeeze(0)
    return features.unflatten(0, obs.shape[:2])


def encoder_state(encoder: Learners) -> dict[str, Tensor]:
    """Return an encoder's parameters by name (``"0.weight"``, ``"0.bias"``, …), detached."""
    names = ("weight", "bias")
    return {
        f"{i // 2}.{names[i % 2]}": param.detach().squeeze(0).clone()
        for i, param in enumerate(encoder.params)
    }


def load_encoder(dataset: DistilledDataset, distribution: LearnerDistribution) -> Learners:
    """Rebuild the encoder that a dataset carries, as layers ``[0, l)`` of a family's architecture.

    Raises:
        DatasetError: The encoder's parameters are not those of the architecture.
    """
    if not dataset.encoder_layers:
        return Learners([LearnerStack((), (), 1)])
    layers = distribution.layers(dataset.obs_shape, dataset.n_outputs)[: dataset.encoder_layers]
    shapes = [shape for layer in layers for shape in layer.shapes]
    names = [f"{i}.{name}" for i in range(len(layers)) for name in ("weight", "bias")]
    state: Mapping[str, Tensor] = dataset.encoder
    found = [tuple(state[name].shape) if name in state else None for name in names]
    if found != shapes or len(state) != len(names):
        raise DatasetError(
            f"The dataset's encoder does not fit {distribution!r}: layers [0, {dataset.encoder_layers}) of "
            f"that family have parameters of shapes {shapes}, but the dataset has {found}."
        )
    return Learners([LearnerStack(layers, tuple(state[name].unsqueeze(0) for name in names), 1)])
