"""Between the running statistics of SB3's `VecNormalize` and the frozen ones of a dataset or a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from gym_taskdistill.dataset import pixels
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill import distributed
from gym_taskdistill.distill.policy import DistillationPolicy

#: A dataset's statistics count as seen this often, for its rows are meant for them and they should not drift.
FROZEN_COUNT = 1e6


def freeze(normalizer: VecNormalize | None) -> dict[str, Any]:
    """Return the fields of a dataset that freeze a normaliser's observation statistics, if it has any."""
    if normalizer is None or not normalizer.norm_obs:
        return {}
    rms: Any = normalizer.obs_rms
    return {
        "obs_mean": torch.as_tensor(rms.mean, dtype=torch.float32),
        "obs_var": torch.as_tensor(rms.var, dtype=torch.float32),
        "clip_obs": normalizer.clip_obs,
    }


def thaw(dataset: DistilledDataset, normalizer: VecNormalize | None) -> None:
    """Let a normaliser continue from a dataset's statistics, if both have any."""
    if normalizer is None or dataset.obs_mean is None or dataset.obs_var is None:
        return
    rms: Any = normalizer.obs_rms
    rms.mean, rms.var = dataset.obs_mean.cpu().numpy(), dataset.obs_var.cpu().numpy()
    rms.count = FROZEN_COUNT


def freeze_pixels(policy: DistillationPolicy) -> dict[str, Any]:
    """Return the fields of a dataset that freeze a policy's pixel statistics, if it has any."""
    if policy.pixel_mean is None or policy.pixel_std is None:
        return {}
    return {"obs_mean": policy.pixel_mean, "obs_var": policy.pixel_std.square(), "clip_obs": pixels.CLIP}


def thaw_pixels(dataset: DistilledDataset, policy: DistillationPolicy) -> None:
    """Let a policy take over a dataset's pixel statistics, if it has any."""
    if policy.is_image and dataset.obs_mean is not None and dataset.obs_var is not None:
        device = policy.x.device
        policy.pixel_mean, policy.pixel_std = dataset.obs_mean.to(device), dataset.obs_var.sqrt().to(device)


def merge(normalizer: VecNormalize | None) -> None:
    """Make a normaliser's statistics those of all ranks together."""
    for name in ("obs_rms", "ret_rms"):
        rms = getattr(normalizer, name, None)
        if isinstance(rms, RunningMeanStd):
            distributed.merge_moments(rms)


def state(normalizer: VecNormalize | None) -> dict[str, Any]:
    """Return a normaliser's statistics as plain numbers and tensors, for a checkpoint."""
    moments = {name: getattr(normalizer, name, None) for name in ("obs_rms", "ret_rms")}
    return {
        name: [torch.as_tensor(rms.mean), torch.as_tensor(rms.var), float(rms.count)]
        for name, rms in moments.items()
        if isinstance(rms, RunningMeanStd)
    }


def load_state(normalizer: VecNormalize | None, saved: dict[str, Any]) -> None:
    """Restore what `state` returned."""
    for name, (mean, var, count) in saved.items():
        rms = getattr(normalizer, name)
        rms.mean, rms.var, rms.count = mean.cpu().numpy(), var.cpu().numpy(), count
