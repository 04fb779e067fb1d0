"""Between the running statistics of SB3's `VecNormalize` and the frozen ones of a dataset or a checkpoint."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.view import EPSILON, ObservationView
from gym_taskdistill.distill import distributed
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.spaces import flat_observation_space, random_actions

#: A dataset's statistics count as seen this often, for its rows are meant for them and they should not drift.
FROZEN_COUNT = 1e6


def freeze(normalizer: VecNormalize | None) -> ObservationView | None:
    """Return the view that freezes a normaliser's observation statistics, if it has any."""
    if normalizer is None or not normalizer.norm_obs:
        return None
    return view_of(_flat_moments(normalizer), normalizer.clip_obs, normalizer.epsilon)


def _parts(normalizer: VecNormalize) -> list[tuple[str | None, int, RunningMeanStd | None]]:
    """Return key, size and statistics of each part of flat observations; one without key if there is one."""
    moments, space = getattr(normalizer, "obs_rms", None), normalizer.observation_space
    if not isinstance(moments, dict):
        return [(None, gym.spaces.utils.flatdim(space), moments)]
    assert isinstance(space, gym.spaces.Dict)
    return [(key, gym.spaces.utils.flatdim(part), moments.get(key)) for key, part in space.spaces.items()]


def _flat_moments(normalizer: VecNormalize) -> RunningMeanStd:
    """Return the statistics of flat observations; what is not normalised has mean 0, std 1."""
    own: Any = normalizer.obs_rms
    if not isinstance(own, dict) and own.mean.ndim == 1:
        return own
    parts = _parts(normalizer)
    flat = RunningMeanStd(shape=(sum(size for _, size, _ in parts),))
    one = 1 - normalizer.epsilon
    flat.mean = np.concatenate([np.zeros(n) if rms is None else rms.mean.flatten() for _, n, rms in parts])
    flat.var = np.concatenate([np.full(n, one) if rms is None else rms.var.flatten() for _, n, rms in parts])
    return flat


def view_of(moments: Any, clip: float, epsilon: float = EPSILON) -> ObservationView:
    """Return the view that freezes SB3's `RunningMeanStd`.

    Args:
        moments: The statistics.
        clip: Bound after them.
        epsilon: What was added to variances before the root; the view's own is made up for.
    """
    # Bit for bit as it is where both add the same.
    var = moments.var if epsilon == EPSILON else np.maximum(moments.var + (epsilon - EPSILON), 0.0)
    return ObservationView(
        *(torch.as_tensor(array, dtype=torch.float32) for array in (moments.mean, var)), clip=clip
    )


def thaw(dataset: DistilledDataset, normalizer: VecNormalize | None) -> None:
    """Let a normaliser continue from a dataset's statistics, if both have any."""
    if normalizer is None or not normalizer.norm_obs or dataset.obs_mean is None or dataset.obs_var is None:
        return
    mean, var = dataset.obs_mean.cpu().numpy(), dataset.obs_var.cpu().numpy()
    if normalizer.epsilon != EPSILON:
        var = np.maximum(var - (normalizer.epsilon - EPSILON), 0.0)
    ends = np.cumsum([size for _, size, _ in _parts(normalizer)])
    columns = (np.split(array.flatten(), ends[:-1]) for array in (mean, var))
    for (_, _, moments), *values in zip(_parts(normalizer), *columns, strict=True):
        if moments is not None:
            moments.mean, moments.var = (value.reshape(moments.mean.shape) for value in values)
            moments.count = FROZEN_COUNT


def thaw_moments(dataset: DistilledDataset, moments: Any) -> None:
    """Let SB3's `RunningMeanStd` continue from a dataset's statistics, if it has any."""
    if dataset.obs_mean is None or dataset.obs_var is None:
        return
    moments.mean, moments.var = dataset.obs_mean.cpu().numpy(), dataset.obs_var.cpu().numpy()
    moments.count = FROZEN_COUNT


def random_play(env: VecEnv, n_steps: int, action_seed: int, env_seed: int) -> np.ndarray:
    """Return what random actions show.

    Args:
        env: Freely used; it is reset first.
        n_steps: Env steps, rounded up to a multiple of the number of envs.
        action_seed: Seed of the actions.
        env_seed: Seed of the envs.

    Returns:
        Observations, ``(n, *obs_shape)``.
    """
    env.seed(env_seed)
    env.reset()
    rng = np.random.default_rng(action_seed)
    seen = []
    for _ in range(-(-n_steps // env.num_envs)):
        actions = random_actions(env.action_space, rng, (env.num_envs,))
        seen.append(np.array(env.step(actions)[0]))
    return np.concatenate(seen)


def check(normalizer: VecNormalize | None, space: gym.Space[Any]) -> None:
    """Refuse a normaliser whose statistics no dataset can freeze, before anything is learned by it.

    Args:
        normalizer: The vec-env's, if it has one.
        space: Space of the observations that the vec-env shows.

    Raises:
        TaskDistillError: Another wrapper changes what it shows, or not all of a dictionary is normalised.
    """
    if normalizer is None or not normalizer.norm_obs:
        return
    own = normalizer.observation_space
    if is_image_space(normalizer.venv.observation_space):
        raise TaskDistillError(
            "VecNormalize keeps no statistics of images that a dataset can freeze: use pixel_statistics, and "
            "norm_obs=False."
        )
    if flat_observation_space(own).shape != space.shape:
        raise TaskDistillError(
            f"VecNormalize shows observations of shape {own.shape}, but the env around it shows "
            f"{space.shape}: make VecNormalize the outermost wrapper."
        )
    if not isinstance(own, gym.spaces.Dict):
        return
    bound = normalizer.clip_obs
    for key, part in own.spaces.items():
        flat = flat_observation_space(part)
        if key not in normalizer.obs_rms and max(abs(flat.low.min()), abs(flat.high.max())) > bound:
            raise TaskDistillError(
                f'VecNormalize clips at {bound:g} what it normalises, but not "{key}", which may be larger: '
                "normalise it too, or raise clip_obs; a dataset has one clip for all."
            )


def moments_of(normalizer: VecNormalize | None) -> dict[str, RunningMeanStd]:
    """Return all running statistics of a normaliser by name."""
    if normalizer is None:
        return {}
    named = {
        "obs_rms" if key is None else f"obs_rms.{key}": rms
        for key, _, rms in _parts(normalizer)
        if rms is not None
    }
    return {**named, "ret_rms": normalizer.ret_rms}


def merge(normalizer: VecNormalize | None) -> None:
    """Make a normaliser's statistics those of all ranks together."""
    for rms in moments_of(normalizer).values():
        distributed.merge_moments(rms)


def state(normalizer: VecNormalize | None) -> dict[str, Any]:
    """Return a normaliser's statistics as plain numbers and tensors, for a checkpoint."""
    return {name: moments_state(rms) for name, rms in moments_of(normalizer).items()}


def load_state(normalizer: VecNormalize | None, saved: dict[str, Any]) -> None:
    """Restore what `state` returned.

    Raises:
        TaskDistillError: There is nothing that normalises so.
    """
    moments = moments_of(normalizer)
    for name, values in saved.items():
        if name not in moments:
            what = "rewards" if name == "ret_rms" else "observations"
            raise TaskDistillError(f"It was saved with normalised {what}: wrap the env in VecNormalize too.")
        load_moments(moments[name], values)


def moments_state(moments: RunningMeanStd) -> list[Any]:
    """Return mean, variance and count as plain numbers and tensors."""
    return [torch.as_tensor(moments.mean), torch.as_tensor(moments.var), float(moments.count)]


def load_moments(moments: RunningMeanStd, values: list[Any]) -> None:
    """Restore what `moments_state` returned."""
    mean, var, moments.count = values
    moments.mean, moments.var = mean.cpu().numpy(), var.cpu().numpy()
