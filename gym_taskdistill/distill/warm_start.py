"""The start of an outer loop from a dataset."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.outer import OuterLoop
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.trained import encoder_state


def load(loop: OuterLoop, dataset: DistilledDataset) -> None:
    """Let a loop start from a dataset instead of random rows; images are seen by its statistics from now on.

    Of a longer encoder the first layers are taken: rolling it back (paper, section 5.1) keeps what is left of
    it, and the rows.

    Args:
        loop: What starts.
        dataset: Where.

    Raises:
        TaskDistillError: The dataset's rows, labels or encoder have other shapes, or its inner rule has
            another rate of the hidden layers.
    """
    dataset = dataset.to(loop.x.device)
    own, other = _own(loop), _theirs(loop, dataset)
    for name in {**own, **other}:
        mine, theirs = (_shape(tensors.get(name)) for tensors in (own, other))
        if mine != theirs:
            raise TaskDistillError(
                f"The run cannot start from {dataset!r}: its {name} has shape {theirs}, but the "
                f"settings ask for {mine}."
            )
    rule = dataset.rule
    if rule.kind != loop.inner.kind:
        raise TaskDistillError(
            f"The run cannot start from {dataset!r}: give it an inner rule of the kind {rule.kind}, not "
            f"{loop.inner.kind}."
        )
    given, learned = float(getattr(rule, "lr_hidden", 0)), loop.log_lr_hidden is not None
    if (learned and not given) or (not learned and given != getattr(loop.inner, "lr_hidden", 0)):
        raise TaskDistillError(
            f"The run cannot start from {dataset!r}: give the inner rule its lr_hidden={given:g}, or set "
            f"learn_lr_hidden={not learned}."
        )
    with torch.no_grad():
        loop.log_inner_lr.fill_(math.log(getattr(rule, rule.rate)))
        if loop.log_lr_hidden is not None:
            loop.log_lr_hidden.fill_(math.log(given))
        for name, param in own.items():
            value = other[name]
            if param is not None and value is not None:
                param.copy_(value)
        if loop.obs_shift is not None:
            loop.x.sub_(loop.obs_shift)
        if loop.log_obs_scale is not None:
            loop.x.div_(loop.log_obs_scale)
            loop.log_obs_scale.log_()
        if loop.log_std is not None:
            loop.log_std.mul_(loop.log_std_pull(replace(loop.inner, **{rule.rate: getattr(rule, rule.rate)})))
    if loop.is_image and dataset.obs_mean is not None:
        loop.view = dataset.replace(obs_scale=None, obs_shift=None).view


def _own(loop: OuterLoop) -> dict[str, Tensor | None]:
    own: dict[str, Tensor | None] = {
        "x": loop.x,
        "y": loop.y,
        "log_std": loop.log_std,
        "obs_scale": loop.log_obs_scale,
        "obs_shift": loop.obs_shift,
    }
    parameters = loop.encoder_network.parameters()
    names = encoder_state(loop.encoder)
    return own | {f"encoder.{n}": p for n, p in zip(names, parameters, strict=True)}


def _theirs(loop: OuterLoop, dataset: DistilledDataset) -> dict[str, Tensor | None]:
    scale = dataset.obs_scale
    if loop.log_obs_scale is not None and scale is None:
        scale = torch.ones_like(loop.log_obs_scale)
    shift = dataset.obs_shift
    if loop.obs_shift is not None and shift is None:
        shift = torch.zeros_like(loop.obs_shift)
    other = {
        "x": dataset.x,
        "y": dataset.y,
        "log_std": dataset.log_std,
        "obs_scale": scale,
        "obs_shift": shift,
    }
    kept = {
        f"encoder.{name}": param.unsqueeze(0)
        for name, param in dataset.encoder.items()
        if int(name.partition(".")[0]) < loop.encoder_layers
    }
    return other | kept


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
