"""Training a network of one's own on a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gym_taskdistill.dataset.encoder import encode, load_encoder
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.learners import Learners, learner_distribution
from gym_taskdistill.learners.module_stack import ModuleStack

if TYPE_CHECKING:
    from gym_taskdistill.dataset.dataset import DistilledDataset


def log_std_pull(dataset: DistilledDataset) -> float:
    """Return which fraction of its label an agent's log standard deviation reaches.

    A fresh learner's is 0 and the loss is quadratic, so that it is a factor, the rule's; the label itself
    acts where the encoder holds all layers and nothing is trained.

    Raises:
        TaskDistillError: There is an encoder, but the card's learners are unknown or have no one
            architecture.
    """
    if dataset.encoder_layers:
        layers = learner_distribution(dataset.card.learners).layers(dataset.obs_shape, dataset.n_outputs)
        if dataset.encoder_layers == len(layers):
            return 1.0
    return float(dataset.rule.log_std_pull(dataset.n_outputs))


def check_trained(dataset: DistilledDataset, trained: Learners, rows: Tensor) -> None:
    """Refuse trained learners that could not act: their actions would mean nothing.

    Args:
        dataset: What they were trained on.
        trained: The learners.
        rows: What they saw of the rows, ``(k, *in)``.

    Raises:
        DatasetError: A weight, or what they say of the rows, is not finite.
    """
    with torch.no_grad():
        # A sum is finite only if all in it are; of large numbers that need not hold the other way round.
        finite = all(bool(p.sum().isfinite()) or bool(p.isfinite().all()) for p in trained.params)
        if finite and trained.params:
            finite = bool(trained(rows.expand(len(trained), *rows.shape)).isfinite().all())
    if not finite:
        raise DatasetError(
            f"Learners trained on {dataset!r} came out with numbers that are not finite: its rows, labels or "
            "inner rule do not suit such learners."
        )


def train(dataset: DistilledDataset, network: nn.Module) -> nn.Module:
    """Train a network in place; see `DistilledDataset.train`."""
    if not isinstance(network, nn.Module):
        raise TaskDistillError(f"What is trained must be a torch.nn.Module, but is {network!r}.")
    first = next((p for p in network.parameters() if p.is_floating_point()), None)
    if first is None:
        raise TaskDistillError(f"{type(network).__name__} has no parameters that could be trained.")
    encoder = load_encoder(dataset, learner_distribution(dataset.card.learners))
    with torch.no_grad():
        rows = encode(encoder, dataset.x.unsqueeze(0)).squeeze(0).to(first.device, first.dtype)
    labels = dataset.y.to(first.device, first.dtype)
    fresh = ModuleStack.of_one(network, rows, dataset.n_outputs)
    trained, _ = dataset.rule.train(Learners([fresh]), rows, labels)
    check_trained(dataset, trained, rows)
    with torch.no_grad():
        for name, value in zip(fresh.skeleton.trained, trained.params, strict=True):
            network.get_parameter(name).copy_(value[0])
    return network
