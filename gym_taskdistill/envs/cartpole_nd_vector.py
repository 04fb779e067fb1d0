"""`CartPoleNDVectorEnv`: many N-dimensional cart-poles stepped by the same few NumPy calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import logger
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from gym_taskdistill.envs.cartpole_dynamics import (
    FORCE,
    MAX_N,
    advance,
    is_outside,
    observation_space,
    positive_int,
    start_bounds,
)
from gym_taskdistill.envs.rendering import CartPoleRenderer, checked_render_mode

Observations = npt.NDArray[np.float32]
Actions = npt.NDArray[np.integer[Any]]


class CartPoleNDVectorEnv(VectorEnv[Observations, Actions, npt.NDArray[Any]]):
    """Vectorized `CartPoleND-v0`: `num_envs` environments in one block of arrays.

    With one axis and next-step autoreset it equals Gymnasium's `CartPoleVectorEnv` bit for bit;
    with `num_envs=1` it equals `CartPoleNDEnv` under the same seed. Every array that `step` and
    `reset` return is fresh: it may be kept.

    Under `AutoresetMode.SAME_STEP` the `info` of a step in which an episode ends holds, as
    Gymnasium's `SyncVectorEnv` does, `final_obs` (an object array: the last observation of every
    ended episode, else `None`), `final_info` (empty), and their masks `_final_obs` and
    `_final_info`.

    Example:
        >>> import gymnasium as gym
        >>> import gym_taskdistill.envs
        >>> envs = gym.make_vec("CartPoleND-v0", num_envs=8, n=3, autoreset_mode="SameStep")
        >>> envs
        CartPoleNDVectorEnv(CartPoleND-v0, num_envs=8)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape
        (8, 12)
        >>> envs.close()
    """

    def __init__(
        self,
        num_envs: int = 1,
        n: int = 1,
        max_episode_steps: int = 500,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        """Create the environments.

        Args:
            num_envs: Number of environments, at least 1.
            n: Degrees of freedom of each, from 1 to 1000.
            max_episode_steps: Steps after which an episode is truncated, at least 1.
            autoreset_mode: `NEXT_STEP` or `SAME_STEP`, or the string value of one.
            render_mode: `None` or `"rgb_array"`.

        Raises:
            TypeError: If one of the three numbers is not an integer.
            ValueError: If one of them is out of its range or a mode is not supported.
        """
        self.num_envs = positive_int("num_envs", num_envs)
        self.n = positive_int("n", n, MAX_N)
        self.max_episode_steps = positive_int("max_episode_steps", max_episode_steps)
        self.autoreset_mode = _checked_autoreset_mode(autoreset_mode)
        # Per instance: two environments of one process may reset differently.
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": 50,
            "autoreset_mode": self.autoreset_mode,
        }
        self.render_mode = checked_render_mode(render_mode, self.metadata["render_modes"])

        self.single_action_space = Discrete(2 * self.n)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.single_observation_space = observation_space(self.n)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

        # float64 `(4, n, num_envs)`: x, ẋ, θ, θ̇ of every axis. With the environments last, a step
        # is a fixed number of NumPy calls, each over contiguous memory.
        self.state = np.zeros((4, self.n, self.num_envs))
        self._force = np.zeros((self.n, self.num_envs))
        self._force_of_action = np.zeros((self.n, 2 * self.n))
        axes = np.arange(self.n)
        self._force_of_action[axes, 2 * axes] = -FORCE
        self._force_of_action[axes, 2 * axes + 1] = FORCE

        self._start_bounds = start_bounds(None)
        self._steps = np.zeros(self.num_envs, dtype=np.int32)
        # Environments whose episode ended in the last step (next-step autoreset only), as indices.
        self._ended: npt.NDArray[np.intp] = np.empty(0, dtype=np.intp)
        self._pushes = np.full(self.num_envs, -1)  # last actions, for rendering; -1: none
        self._is_reset = False
        self._renderer: CartPoleRenderer | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start a new episode in every environment.

        Args:
            seed: Seeds the one generator that serves all environments; `None` carries on with it.
            options: `"low"` and `"high"` bound the initial states, here and in the automatic resets
                until the next call.

        Returns:
            The observations, float32 `(num_envs, 4n)`, and an empty info.

        Raises:
            ValueError: If an option is unknown or no number, or `low > high`.
        """
        super().reset(seed=seed)
        self._start_bounds = start_bounds(options)
        self.state[...] = self.np_random.uniform(*self._start_bounds, size=self.state.shape)
        self._steps.fill(0)
        self._ended = self._ended[:0]
        self._pushes.fill(-1)
        self._is_reset = True
        return self._observations(), {}

    def step(
        self, actions: Actions
    ) -> tuple[
        Observations,
        npt.NDArray[np.float32],
        npt.NDArray[np.bool_],
        npt.NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Push one axis of every environment and reset those whose episode ends.

        Args:
            actions: `(num_envs,)` integers in `[0, 2n)`; axis `a // 2`, direction `a % 2`.

        Returns:
            Observations `(num_envs, 4n)` float32, rewards float32, terminated and truncated bool
            (all `(num_envs,)`), and the info described in the class docstring. Under next-step
            autoreset the step after the end of an episode ignores its action, has reward 0 and
            returns the new episode's first observation.

        Raises:
            ResetNeeded: If `reset` was never called.
            InvalidAction: If the actions have a wrong shape or type or are out of range.
        """
        if not self._is_reset:
            raise ResetNeeded("Call `reset` before the first `step`.")
        actions = self._checked_actions(actions)

        # `clip` never acts on checked actions; it spares the copy of `out` that `raise` would make.
        np.take(self._force_of_action, actions, axis=1, out=self._force, mode="clip")
        x, x_dot, theta, theta_dot = self.state
        advance(x, x_dot, theta, theta_dot, np.cos(theta), np.sin(theta), self._force)

        terminated = np.logical_or.reduce(is_outside(x, theta), axis=0)
        self._steps += 1
        truncated = self._steps >= self.max_episode_steps
        rewards = np.ones(self.num_envs, dtype=np.float32)
        if self.render_mode is not None:
            self._pushes[:] = actions

        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            if self._ended.size:
                self._restart(self._ended)
                rewards[self._ended] = 0.0
                terminated[self._ended] = False
                truncated[self._ended] = False
            self._ended = np.flatnonzero(terminated | truncated)
            return self._observations(), rewards, terminated, truncated, {}

        observations, infos = self._restarted(terminated | truncated)
        return observations, rewards, terminated, truncated, infos

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """Return one frame `(height, width, 3)` per environment, or `None` without a render mode.

        Raises:
            ResetNeeded: If `reset` was never called.
            DependencyNotInstalled: If pygame is missing.
        """
        if self.render_mode is None:
            logger.warn(
                "Nothing is rendered without a render mode: pass "
                '`gym.make_vec("CartPoleND-v0", render_mode="rgb_array")`.'
            )
            return None
        if not self._is_reset:
            raise ResetNeeded("Call `reset` before `render`.")
        if self._renderer is None:
            self._renderer = CartPoleRenderer(self.n)
        return tuple(
            self._renderer.frame(self.state[..., i], None if push < 0 else push)
            for i, push in enumerate(self._pushes.tolist())
        )

    def close_extras(self, **kwargs: Any) -> None:
        """Release the renderer; `kwargs` are Gymnasium's and unused."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _observations(self, chosen: npt.NDArray[np.intp] | slice = slice(None)) -> Observations:
        """Return fresh observations `(k, 4n)` of the chosen environments, all by default."""
        state = self.state[..., chosen]
        observations = np.empty(state.shape[::-1], dtype=np.float32)
        observations[...] = state.T
        return observations.reshape(-1, 4 * self.n)

    def _restart(self, ended: npt.NDArray[np.intp]) -> None:
        """Start a new episode in the environments with these indices."""
        self.state[..., ended] = self.np_random.uniform(*self._start_bounds, size=(4, self.n, ended.size))
        self._steps[ended] = 0
        self._pushes[ended] = -1

    def _restarted(self, done: npt.NDArray[np.bool_]) -> tuple[Observations, dict[str, Any]]:
        """Begin new episodes where one is over; return all observations, and the info on those that ended."""
        observations, ended = self._observations(), np.flatnonzero(done)
        if not ended.size:
            return observations, {}
        infos = {
            "final_obs": _rows(observations, ended),
            "_final_obs": done,
            "final_info": {},
            "_final_info": done.copy(),
        }
        self._restart(ended)
        observations[ended] = self._observations(ended)
        return observations, infos

    def _checked_actions(self, actions: Any) -> Actions:
        """Return the actions as an integer array, or raise `InvalidAction`."""
        checked = np.asarray(actions)
        if checked.shape != (self.num_envs,) or checked.dtype.kind not in "iu":
            raise InvalidAction(
                f"The actions must be {self.num_envs} integers, shape ({self.num_envs},), one per "
                f"environment; got shape {checked.shape} of {checked.dtype}."
            )
        # `min` and `max` as ufuncs: the methods cost twice as much on a few dozen actions.
        if np.minimum.reduce(checked) < 0 or np.maximum.reduce(checked) >= 2 * self.n:
            raise InvalidAction(
                f"The actions must be in [0, {2 * self.n}) for n={self.n} axes, "
                f"got values from {checked.min()} to {checked.max()}."
            )
        return checked


def _rows(observations: Observations, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.object_]:
    """Return an object array with a copy of the chosen rows and `None` elsewhere.

    That is the form of Gymnasium's own vector environments.
    """
    result = np.full(len(observations), None, dtype=object)
    for row, observation in zip(rows.tolist(), observations[rows], strict=True):
        result[row] = observation
    return result


def _checked_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """Return the supported `AutoresetMode` that `mode` is or names, or raise `ValueError`."""
    supported = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    for candidate in supported:
        if mode in (candidate, candidate.value):
            return candidate
    raise ValueError(
        f"`autoreset_mode` must be one of {[m.value for m in supported]} (or the `AutoresetMode` "
        f"member), got {mode!r}."
    )
