"""Between the running statistics of SB3's `VecNormalize` and the frozen ones of a dataset or a checkpoint."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.view import EPSILON, ObservationView
from gym_taskdistill.distill import distributed
from gym_taskdistill.errors import TaskDistillError

#: A dataset's statistics count as seen this often, for its rows are meant for them and they should not drift.
FROZEN_COUNT = 1e6


def freeze(normalizer: VecNormalize | None) -> ObservationView | None:
    """Return the view that freezes a normaliser's observation statistics, if it has any."""
    if normalizer is None or not normalizer.norm_obs:
        return None
    return view_of(normalizer.obs_rms, normalizer.clip_obs)


def view_of(moments: Any, clip: float) -> ObservationView:
    """Return the view that freezes SB3's `RunningMeanStd`."""
    mean, var = (torch.as_tensor(array, dtype=torch.float32) for array in (moments.mean, moments.var))
    return ObservationView(mean, var, clip=clip)


def thaw(dataset: DistilledDataset, normalizer: VecNormalize | None) -> None:
    """Let a normaliser continue from a dataset's statistics, if both have any."""
    if normalizer is not None:
        thaw_moments(dataset, normalizer.obs_rms)


def thaw_moments(dataset: DistilledDataset, moments: Any) -> None:
    """Let SB3's `RunningMeanStd` continue from a dataset's statistics, if it has any."""
    if dataset.obs_mean is None or dataset.obs_var is None:
        return
    moments.mean, moments.var = dataset.obs_mean.cpu().numpy(), dataset.obs_var.cpu().numpy()
    moments.count = FROZEN_COUNT


def random_play(env: VecEnv, n_steps: int, action_seed: int, env_seed: int) -> np.ndarray:
    """Return what random discrete actions show.

    Args:
        env: Freely used; it is reset first.
        n_steps: Env steps, rounded up to a multiple of the number of envs.
        action_seed: Seed of the actions.
        env_seed: Seed of the envs.

    Returns:
        Observations, ``(n, *obs_shape)``.
    """
    assert isinstance(env.action_space, spaces.Discrete)
    env.seed(env_seed)
    env.reset()
    rng = np.random.default_rng(action_seed)
    seen = []
    for _ in range(-(-n_steps // env.num_envs)):
        actions = rng.integers(int(env.action_space.n), size=env.num_envs)
        seen.append(np.array(env.step(actions)[0]))
    return np.concatenate(seen)


def check(normalizer: VecNormalize | None, space: gym.Space[Any]) -> None:
    """Refuse a normaliser whose statistics no dataset can freeze, before anything is learned by it.

    Args:
        normalizer: The vec-env's, if it has one.
        space: Space of the observations that the vec-env shows.

    Raises:
        TaskDistillError: Another wrapper changes what it shows, or it divides by other roots than datasets.
    """
    if normalizer is None or not normalizer.norm_obs:
        return
    if normalizer.observation_space.shape != space.shape:
        raise TaskDistillError(
            f"VecNormalize shows observations of shape {normalizer.observation_space.shape}, but the env "
            f"around it shows {space.shape}: make VecNormalize the outermost wrapper."
        )
    if normalizer.epsilon != EPSILON:
        raise TaskDistillError(
            f"VecNormalize has epsilon={normalizer.epsilon}, but datasets normalise with {EPSILON}: leave "
            "epsilon at its default."
        )


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
