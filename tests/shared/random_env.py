"""An environment of any spaces, and wrappers of one's own, for the tests that need such."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

#: Steps in an episode of `RandomEnv`.
EPISODE = 6


class RandomEnv(gym.Env[Any, Any]):
    """Shows random observations, refuses actions outside of its space, and pays 1 a step.

    Args:
        observation_space: Any space.
        action_space: Any space.
        never_ends: Whether episodes go on for ever.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any] | None = None,
        action_space: gym.Space[Any] | None = None,
        never_ends: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space = observation_space or spaces.Box(-1, 1, (2,))
        self.action_space = action_space or spaces.Discrete(2)
        self.never_ends, self.render_mode, self._steps = never_ends, render_mode, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self._steps += 1
        is_over = self._steps >= EPISODE and not self.never_ends
        return self.observation_space.sample(), 1.0, False, is_over, {}

    def render(self) -> np.ndarray:
        return np.zeros((16, 16, 3), dtype=np.uint8)


class Scaled(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Scales observations, and tells by what."""

    def __init__(self, env: gym.Env[Any, Any], factor: float = -1.0) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, factor=factor)
        super().__init__(env)
        self.factor = factor

    def observation(self, observation: Any) -> Any:
        return np.asarray(self.factor * observation, dtype=np.float32)


class Negated(gym.ObservationWrapper[Any, Any, Any]):
    """Negates observations, and does not tell its arguments."""

    def observation(self, observation: Any) -> Any:
        return -observation
