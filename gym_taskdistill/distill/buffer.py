"""A rollout buffer whose minibatches keep the learners apart."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor

from gym_taskdistill.dataset.card import is_image, space_to_dict
from gym_taskdistill.errors import TaskDistillError


def check_shared_out(n_learners: int, **numbers: int) -> None:
    """Refuse numbers that cannot be shared out evenly to the learners.

    Raises:
        TaskDistillError: One is below 1, or no multiple of ``n_learners``.
    """
    for name, number in numbers.items():
        if number < 1 or number % n_learners:
            raise TaskDistillError(
                f"{name}={number} must be a multiple of n_learners={n_learners}, so that all learners get as "
                "much."
            )


def check_minibatches(n_learners: int, n_envs: int, n_steps: int, batch_size: int) -> None:
    """Refuse minibatches that do not divide a rollout evenly.

    Raises:
        TaskDistillError: Learners would get different numbers of envs or transitions, or some be left over.
    """
    check_shared_out(n_learners, n_envs=n_envs, batch_size=batch_size)
    rollout = n_steps * n_envs
    if rollout % batch_size:
        raise TaskDistillError(
            f"batch_size={batch_size} must divide the rollout of n_steps x n_envs = {rollout} transitions."
        )


class LearnerRolloutBuffer(RolloutBuffer):
    """SB3's rollout buffer for M learners with E envs each.

    Env column i belongs to learner ``i // E``. Storage, GAE and the handling of episode starts are
    SB3's; only the minibatches differ: each holds the same number of transitions of every learner,
    shaped ``(M, b, …)``.

    Args:
        n_learners: M; must divide ``n_envs``.
        generator: Source of the minibatches' order.
        *args: As for SB3's `RolloutBuffer`.
        **kwargs: As for SB3's `RolloutBuffer`.
    """

    def __init__(
        self,
        *args: Any,
        n_learners: int = 1,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        self.n_learners = n_learners
        self.generator = generator
        self._by_learner: list[Tensor] | None = None
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Empty the buffer; images are kept as bytes, all other observations in float32."""
        super().reset()
        self._by_learner = None
        # Bytes that are no images, such as a game's RAM, reach the buffer normalised.
        if not is_image(space_to_dict(self.observation_space)):
            self.observations = self.observations.astype(np.float32, copy=False)
        if isinstance(self.action_space, spaces.Box):
            self.actions = self.actions.astype(np.float32, copy=False)

    def add_step(
        self, obs: np.ndarray, actions: np.ndarray, rewards: np.ndarray, episode_starts: np.ndarray
    ) -> None:
        """Store one step of all columns; values and log-probabilities are filled in after the rollout.

        Args:
            obs: ``(M·E, *obs_shape)``.
            actions: ``(M·E,)`` or ``(M·E, n_actions)``, as sampled.
            rewards: ``(M·E,)``.
            episode_starts: ``(M·E,)``, whether ``obs`` is the first of its episode.
        """
        self.observations[self.pos] = obs
        self.actions[self.pos] = actions.reshape(self.n_envs, self.action_dim)
        self.rewards[self.pos] = rewards
        self.episode_starts[self.pos] = episode_starts
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def by_learner(self, array: np.ndarray) -> Tensor:
        """View one of the buffer's arrays ``(T, M·E, …)`` as a tensor ``(M, T·E, …)``, on the device."""
        tensor = self.to_torch(array, copy=False)
        tensor = tensor.unflatten(1, (self.n_learners, -1)).transpose(0, 1).flatten(1, 2)
        is_discrete_action = array is self.actions and isinstance(self.action_space, spaces.Discrete)
        return tensor.squeeze(-1) if is_discrete_action else tensor

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield the rollout in random minibatches, each transition once.

        Args:
            batch_size: Transitions in a minibatch over all learners, M·b; ``None`` for the whole rollout.

        Yields:
            SB3's samples, each field shaped ``(M, b, …)``; actions are ``(M, b)`` if they are discrete.
        """
        assert self.full, "The rollout buffer must be full before it is sampled."
        per_learner = self.buffer_size * self.n_envs // self.n_learners
        step = per_learner if batch_size is None else batch_size // self.n_learners
        if self._by_learner is None:  # once for all passes: images are many bytes to move to a GPU
            self._by_learner = [
                self.by_learner(array)
                for array in (
                    self.observations,
                    self.actions,
                    self.values,
                    self.log_probs,
                    self.advantages,
                    self.returns,
                )
            ]
        order = torch.stack(
            [
                torch.randperm(per_learner, generator=self.generator, device=self.device)
                for _ in range(self.n_learners)
            ]
        )
        learner = torch.arange(self.n_learners, device=self.device).unsqueeze(1)
        # One gather for the whole pass; the minibatches are views of it.
        shuffled = [tensor[learner, order] for tensor in self._by_learner]
        for start in range(0, per_learner, step):
            yield RolloutBufferSamples(*(tensor[:, start : start + step] for tensor in shuffled))
