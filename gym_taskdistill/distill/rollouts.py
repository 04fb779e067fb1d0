"""PPMO's rollouts: fresh learners act, and what they saw is made ready for PPO's loss."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from gym_taskdistill.distill import distributed, statistics
from gym_taskdistill.distill.buffer import LearnerRolloutBuffer
from gym_taskdistill.distill.segments import SegmentedAlgorithm
from gym_taskdistill.policies.trained import TrainedLearners
from gym_taskdistill.tasks.spaces import check_finite


def collect(
    model: SegmentedAlgorithm, env: VecEnv, callback: BaseCallback, buffer: LearnerRolloutBuffer, n_steps: int
) -> bool:
    """Fill a rollout; see `PPMO.collect_rollouts`.

    Args:
        model: Whose learners are drawn, trained and act.
        env: Its envs.
        callback: Told of every step, with this function's local variables.
        buffer: What to fill.
        n_steps: Steps of each env.

    Returns:
        Whether the rollout is complete; ``False`` if a callback asked to stop.
    """
    callback.on_rollout_start()
    statistics.merge(model._vec_normalize_env)
    loop = model.loop
    loop.draw()
    trained = loop.trained(create_graph=False)
    buffer.reset()
    box = model.action_space if isinstance(model.action_space, spaces.Box) else None
    truncations: list[tuple[int, int, np.ndarray]] = []
    evaluations: list[tuple[Tensor, Tensor]] = []
    for step in range(n_steps):
        assert isinstance(model._last_obs, np.ndarray) and model._last_episode_starts is not None
        # Envs and callbacks run outside: they may have networks of their own to train.
        with torch.inference_mode():
            obs = model.to_tensor(model._last_obs).unflatten(0, (loop.n_learners, -1))
            seen = loop.see(obs)
            features = loop.features(seen)
            distribution = trained.act(features, loop.trunk)
            sampled = distribution.sample(loop.generator)
            if loop.is_image:  # too much to look at twice
                evaluations.append((distribution.log_prob(sampled), model.policy.values(seen, features)))
            actions = sampled.flatten(0, 1).cpu().numpy()
        env_actions = actions if box is None else np.clip(actions, box.low, box.high)
        check_finite(model.num_timesteps, actions=env_actions)
        new_obs, rewards, dones, infos = env.step(env_actions)
        model.num_timesteps += env.num_envs * distributed.world_size()
        check_finite(model.num_timesteps, observations=new_obs, rewards=rewards)  # type: ignore[arg-type]
        callback.update_locals(locals())
        if not callback.on_step():
            return False
        buffer.add_step(model._last_obs, actions, rewards, model._last_episode_starts)
        if dones.any():
            model._update_info_buffer(infos, dones)
            for i in np.flatnonzero(dones):
                last = infos[i].get("terminal_observation")
                if last is not None and infos[i].get("TimeLimit.truncated", False):
                    truncations.append((step, int(i), last))
        model._last_obs = new_obs  # type: ignore[assignment]
        model._last_episode_starts = dones
    with torch.inference_mode():
        _complete(model, buffer, trained, truncations, evaluations)
    callback.update_locals(locals())
    callback.on_rollout_end()
    return True


def _complete(
    model: SegmentedAlgorithm,
    buffer: LearnerRolloutBuffer,
    trained: TrainedLearners,
    truncations: list[tuple[int, int, np.ndarray]],
    evaluations: list[tuple[Tensor, Tensor]],
) -> None:
    """Fill in log-probabilities and values, bootstrap truncated episodes, and compute advantages."""
    if evaluations:
        log_probs, values = (torch.stack(results, dim=1) for results in zip(*evaluations, strict=True))
    else:  # of small observations all at once
        obs = buffer.by_learner(buffer.observations)
        features = model.loop.features(obs)
        actions = buffer.by_learner(buffer.actions)
        log_probs, values = (
            result.unflatten(1, (buffer.buffer_size, -1))
            for result in (
                trained.act(features, model.loop.trunk).log_prob(actions),
                model.policy.values(obs, features),
            )
        )
    for array, result in ((buffer.log_probs, log_probs), (buffer.values, values)):
        array[:] = result.transpose(0, 1).flatten(1, 2).cpu().numpy()
    if truncations:
        steps, columns, observations = zip(*truncations, strict=True)
        terminal = model.policy.predict_values(model.to_tensor(np.stack(observations)))
        buffer.rewards[list(steps), list(columns)] += model.gamma * terminal.cpu().numpy()
    last_values = model.policy.predict_values(model.to_tensor(model._last_obs))
    assert model._last_episode_starts is not None
    buffer.compute_returns_and_advantage(last_values=last_values, dones=model._last_episode_starts)
