"""Training a network of one's own on a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gym_taskdistill.dataset.encoder import encode, load_encoder
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import Learners, learner_distribution
from gym_taskdistill.learners.module_stack import ModuleStack

if TYPE_CHECKING:
    from gym_taskdistill.dataset.dataset import DistilledDataset


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
    with torch.no_grad():
        for name, value in zip(fresh.skeleton.trained, trained.params, strict=True):
            network.get_parameter(name).copy_(value[0])
    return network
