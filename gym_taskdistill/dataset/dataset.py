"""The distilled dataset {X_d, Y_d}; `file` tells how it is stored."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from gym_taskdistill.dataset import checks, file, fit, training
from gym_taskdistill.dataset.card import Card, as_float, as_int, is_image
from gym_taskdistill.dataset.spaces import k_min, space_from_dict
from gym_taskdistill.dataset.tensors import MAX_NUMBER, MAX_OBS, frozen
from gym_taskdistill.dataset.view import ObservationView
from gym_taskdistill.errors import DatasetError, TaskDistillError, did_you_mean
from gym_taskdistill.inner.rule import MIN_RATE
from gym_taskdistill.inner.rules import INNER_RULES, InnerRule, inner_rule
from gym_taskdistill.tasks.task import Task

_ENCODER = "encoder."
_TENSORS = ("x", "y", "log_std", "obs_mean", "obs_var", "obs_scale", "obs_shift")
_BOUNDS = {"obs_mean": MAX_OBS, "obs_var": MAX_OBS**2}


@dataclass(frozen=True, eq=False, repr=False)
class DistilledDataset:
    """A task as a handful of synthetic instances: train on it for one step and act.

    The tensors are detached float32 copies on one device (that of ``x``), so a dataset never
    changes and never holds on to a training graph. Two datasets are equal if their content is
    equal bit by bit, wherever it lies.

    Attributes:
        x: Synthetic observations, shape ``(k, *obs_shape)``, in normalised observation units: where
            observations are images (three dimensions of bytes), those of images scaled to [0, 1].
        y: Soft labels, shape ``(k, n_outputs)``: logits of discrete actions, or action means.
        rule: How learners are trained on the rows.
        card: Provenance, spaces and scores.
        log_std: Label of the learner's log standard deviation, shape ``(n_outputs,)``; only for
            continuous actions.
        obs_mean: Frozen observation mean, shape ``obs_shape``, of scaled images; None for no statistics.
        obs_var: Frozen observation variance, shape ``obs_shape``, at least 0.
        clip_obs: Bound on the magnitude of normalised observations, above 0; None means unbounded.
        obs_scale: Factor on observations, after their statistics and the clip, shape ``obs_shape``, above 0;
            None for 1. Learners see observations as large as it makes them.
        obs_shift: What is added to observations last, shape ``obs_shape``; None for 0.
        encoder: State dict of the shared layers ``[0, encoder_layers)``.
        encoder_layers: Number of those layers (the paper's l); 0 is full distillation.

    Raises:
        DatasetError: If anything is of the wrong type, shape or range, not finite, or so large that learners
            could not be.
    """

    x: Tensor
    y: Tensor
    rule: InnerRule
    card: Card
    log_std: Tensor | None = None
    obs_mean: Tensor | None = None
    obs_var: Tensor | None = None
    clip_obs: float | None = None
    obs_scale: Tensor | None = None
    obs_shift: Tensor | None = None
    encoder: dict[str, Tensor] = field(default_factory=dict)
    encoder_layers: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.card, Card):
            raise DatasetError(f"card must be a Card, not a {type(self.card).__name__}.")
        if not isinstance(self.encoder, Mapping):
            raise DatasetError("encoder must be a state dict of tensors.")
        device = self.x.device if isinstance(self.x, Tensor) else None
        values: dict[str, Any] = {
            "rule": _rule(self.rule),
            "clip_obs": None if self.clip_obs is None else _positive(self.clip_obs, "clip_obs"),
            "encoder_layers": as_int(self.encoder_layers, "encoder_layers", minimum=0),
            "encoder": {
                name: frozen(tensor, _ENCODER + str(name), device) for name, tensor in self.encoder.items()
            },
        }
        for name in _TENSORS:
            tensor = getattr(self, name)
            optional = name not in ("x", "y")
            bound = _BOUNDS.get(name, MAX_NUMBER)
            values[name] = None if tensor is None and optional else frozen(tensor, name, device, bound)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        checks.check_shapes(self)
        checks.check_spaces(self)

    @property
    def k(self) -> int:
        """Number of synthetic instances."""
        return self.x.shape[0]

    @property
    def n_outputs(self) -> int:
        """Number of network outputs: logits of discrete actions, or dimensions of a continuous action."""
        return self.y.shape[1]

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return tuple(self.x.shape[1:])

    @property
    def has_images(self) -> bool:
        """Whether observations are images, which are scaled from bytes to [0, 1]."""
        return is_image(self.card.observation_space)

    @cached_property
    def task(self) -> Task:
        """The task that it was distilled for, as far as its card tells."""
        card = self.card
        return Task(card.env_id, card.env_kwargs, card.wrappers, card.unrecorded)

    @cached_property
    def spaces(self) -> fit.SpacePair:
        """The environment's own spaces; a card keeps no bounds of observations."""
        return space_from_dict(self.card.own_observation_space), space_from_dict(self.card.action_space)

    @property
    def digest(self) -> str:
        """SHA-256 over what a learner trains on and acts with, in hexadecimal.

        Scores, dates and whatever else tells where the dataset came from do not count: a run that is made
        again on the same machine gives the same digest.
        """
        counted = {
            "rule": self.rule.to_dict(),
            "images": self.has_images,
            "clip_obs": self.clip_obs,
            "encoder_layers": self.encoder_layers,
            "learners": self.card.learners,
        }
        return file.checksum(self._tensors(), counted)

    k_min = staticmethod(k_min)

    def __eq__(self, other: object) -> bool:
        """Compare the content bit by bit."""
        if not isinstance(other, DistilledDataset):
            return NotImplemented
        return self._checksum() == other._checksum()

    def __hash__(self) -> int:
        return hash(self.digest)

    def _checksum(self) -> str:
        return file.checksum(self._tensors(), self._content())

    def __repr__(self) -> str:
        parts = [
            self.card.task,
            f"x={tuple(self.x.shape)}",
            f"y={tuple(self.y.shape)}",
            f"rule={self.rule}",
        ]
        if self.log_std is not None:
            parts.append(f"log_std={tuple(self.log_std.shape)}")
        if self.obs_mean is not None:
            parts.append(f"obs_mean={tuple(self.obs_mean.shape)}")
        if self.obs_scale is not None:
            parts.append(f"obs_scale={tuple(self.obs_scale.shape)}")
        if self.obs_shift is not None:
            parts.append(f"obs_shift={tuple(self.obs_shift.shape)}")
        if self.encoder_layers:
            parts.append(f"encoder_layers={self.encoder_layers}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def replace(self, **changes: Any) -> DistilledDataset:
        """Return a checked copy with some fields changed.

        Raises:
            DatasetError: If a field is unknown or the copy would be invalid.
        """
        known = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise DatasetError(f'A dataset has no field "{name}".{did_you_mean(name, known)}')
        return dataclasses.replace(self, **changes)

    def to(self, device: torch.device | str) -> DistilledDataset:
        """Return a copy whose tensors lie on ``device``."""
        return self.replace(x=self.x.to(device))  # the other tensors follow x

    @cached_property
    def view(self) -> ObservationView:
        """What learners see of raw observations, as a module on the dataset's device; do not change it."""
        return ObservationView(
            self.obs_mean,
            self.obs_var,
            clip=self.clip_obs,
            scale=self.obs_scale,
            shift=self.obs_shift,
            images=self.has_images,
        )

    def normalize(self, obs: Tensor) -> Tensor:
        """Show observations as learners see them: see `view`.

        Args:
            obs: Raw observations, shape ``(..., *obs_shape)``, on the dataset's device.

        Returns:
            Normalised observations of the same shape, or ``obs`` itself if there is nothing to do.

        Raises:
            DatasetError: If the last dimensions are not ``obs_shape``.
        """
        # Broadcasting would quietly accept some wrong shapes.
        if obs.shape[max(0, obs.ndim - len(self.obs_shape)) :] != self.obs_shape:
            raise DatasetError(
                f"Observations of shape {tuple(obs.shape)} do not end in the dataset's "
                f"observation shape {self.obs_shape}."
            )
        seen: Tensor = self.view(obs)
        return seen

    def train(self, network: nn.Module) -> nn.Module:
        """Train a network of one's own on the rows, in place, exactly as the card says.

        The network maps what learners see of observations, as `view` shows them (with an encoder: its
        features), ``(n, *obs_shape)``, to action logits or means, ``(n, n_outputs)``. It may have any layers
        but batch normalisation; it is computed in eval mode and stays in the mode it is in. Let it act by
        ``DistilledPolicy(dataset, network=network)``.

        Args:
            network: A fresh network, of any dtype and on any device; it is changed.

        Returns:
            The same network.

        Raises:
            TaskDistillError: It cannot be trained on these rows.
            DatasetError: Its weights came out of it not finite; they are left as they were.

        >>> from gym_taskdistill import zoo
        >>> dataset = zoo.load("CartPoleND-v0", n=2)
        >>> network = dataset.train(nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 4)))
        >>> network(dataset.x).shape
        torch.Size([3, 4])
        """
        return training.train(self, network)

    def check_env(self, env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | fit.SpacePair) -> None:
        """Refuse an environment that this dataset was not distilled for.

        Ids and keyword arguments are compared where the environment tells them (``env.spec``), and
        only the keyword arguments that the card names. Of a Box only shape and kind of number
        count: bounds and precision change between library versions without meaning.

        Args:
            env: The environment, preprocessed as in the card, or vectorised, or only its
                ``(observation_space, action_space)``.

        Raises:
            DatasetError: If it does not fit, saying in which respect.
        """
        fit.check_env(self.card, env)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the dataset, and a readable copy of its card beside it.

        ``<stem>.json`` is for people: it repeats the scalars and the card, and is never read back.
        Each file is written under a temporary name and then renamed, and as `load` reads only the
        ``.safetensors``, a crash at any moment, also between the two renames, leaves a dataset
        that can be read: the old one or the new one.

        Args:
            path: The file; ``.safetensors`` is appended if it is missing. The folder must exist.

        Returns:
            The file written.

        Raises:
            DatasetError: If the file cannot be written.
        """
        # Key order: the checksum first, as the identity, then the scalars, then the long card.
        return file.write_file(path, {"sha256": self._checksum(), **self._content()}, self._tensors())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DistilledDataset:
        """Read a dataset written by `save`. No code in the file is ever run.

        Args:
            path: The ``.safetensors`` file (the suffix may be left out), a folder with a
                ``dataset.safetensors`` inside, or ``hf://user/name`` on the Hub.

        Returns:
            The dataset, on the CPU.

        Raises:
            DatasetError: If the file is missing, damaged, of another format or version, or holds
                values that no dataset may have.
        """
        path = file.find_file(path)
        document, tensors = file.read_file(path)
        try:
            return cls._from_content(document, tensors)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from None

    @classmethod
    def _from_content(cls, document: dict[str, Any], tensors: dict[str, Tensor]) -> DistilledDataset:
        encoder = {
            name.removeprefix(_ENCODER): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(_ENCODER)
        }
        for name in ("x", "y"):
            if name not in tensors:
                raise DatasetError(f'tensor "{name}" is missing.')
        for name in tensors:
            if name not in _TENSORS:
                raise DatasetError(f'tensor "{name}" is unknown.')
        rule = document["rule"]
        kind = INNER_RULES.get(str(rule.get("kind"))) if isinstance(rule, Mapping) else None
        if kind is None or kind.rate not in rule:  # a default in its place would train other learners
            raise DatasetError(f"rule must have a kind, {' or '.join(INNER_RULES)}, and its rate.")
        return cls(
            **tensors,
            rule=rule,
            clip_obs=document["clip_obs"],
            encoder=encoder,
            encoder_layers=document["encoder_layers"],
            card=Card.from_dict(document["card"]),
        )

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors under their names in the file."""
        named = {name: getattr(self, name) for name in _TENSORS}
        named |= {_ENCODER + name: tensor for name, tensor in self.encoder.items()}
        return {name: tensor for name, tensor in sorted(named.items()) if tensor is not None}

    def _content(self) -> dict[str, Any]:
        """Everything but the tensors' values, as plain JSON data."""
        return {
            "format_version": file.VERSION,
            "tensors": {name: list(tensor.shape) for name, tensor in self._tensors().items()},
            "rule": self.rule.to_dict(),
            "clip_obs": self.clip_obs,
            "encoder_layers": self.encoder_layers,
            "card": self.card.to_dict(),
        }


def _rule(spec: Any) -> InnerRule:
    try:
        return inner_rule(spec).detached()
    except TaskDistillError as error:
        raise DatasetError(str(error)) from None


def _positive(value: Any, where: str) -> float:
    number = as_float(value, where)
    if number > torch.finfo(torch.float32).max:
        raise DatasetError(f"{where} is {number}, but must be below 3.4e38; leave it out for no bound.")
    if number < MIN_RATE:
        raise DatasetError(f"{where} is {number}, but must be positive, at least {MIN_RATE}.")
    return number
