"""`CartPoleNDEnv`: the N-dimensional cart-pole as a single Gymnasium environment."""

from __future__ import annotations

import operator
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import logger
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.spaces import Discrete

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


class CartPoleNDEnv(gym.Env[npt.NDArray[np.float32], int | np.integer[Any]]):
    """Balance N poles at once, pushing one axis at a time.

    ## Description

    The cart-pole of Barto, Sutton and Anderson [1], extended to N degrees of freedom by Wilhelm
    and Ventura [2]. Every axis is a classic cart-pole of its own: a pole hinged on a cart that
    moves along a frictionless track. At each step the agent pushes the cart of one axis; the others
    coast. The task gets harder with N: the policy must see which axis needs the push most. With
    `n=1` the environment equals Gymnasium's `CartPole-v1` bit for bit.

    ## Action Space

    The action is an integer in `[0, 2n)`, `Discrete(2n)`. Action `a` acts on axis `a // 2`:

    - `a % 2 == 0`: push that axis in the negative direction with 10 N
    - `a % 2 == 1`: push that axis in the positive direction with 10 N

    The force on every other axis is zero.

    ## Observation Space

    The observation is a float32 `ndarray` of shape `(4n,)`: the quadruple of each axis in turn.
    Axis `i` fills the entries `4i` to `4i + 3`:

    | Num    | Observation           | Min                 | Max               |
    |--------|-----------------------|---------------------|-------------------|
    | 4i     | Cart position         | -4.8 m              | 4.8 m             |
    | 4i + 1 | Cart velocity         | -3.4e38 (no bound)  | 3.4e38 (no bound) |
    | 4i + 2 | Pole angle            | ~ -0.418 rad (-24°) | ~ 0.418 rad (24°) |
    | 4i + 3 | Pole angular velocity | -3.4e38 (no bound)  | 3.4e38 (no bound) |

    **Note:** the ranges are those of the space; an episode terminates earlier, at ±2.4 m or ±12°.

    ## Rewards

    Every step is rewarded with 1, the one that fails included. The best return is 500; the reward
    threshold is 475.

    ## Starting State

    Every quantity of every axis is drawn uniformly from (-0.05, 0.05), in m, m/s, rad and rad/s.
    `reset(options={"low": ..., "high": ...})` sets other bounds.

    ## Episode End

    The episode ends when one of these happens:

    1. Termination: the position of a cart is outside ±2.4 m on any axis.
    2. Termination: the angle of a pole is outside ±12° on any axis.
    3. Truncation: the episode is 500 steps long.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import gym_taskdistill.envs
    >>> env = gym.make("CartPoleND-v0", n=3, render_mode="rgb_array")
    >>> env.action_space
    Discrete(6)
    >>> env.observation_space.shape
    (12,)
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(5)  # push axis 2 forwards
    >>> reward, terminated, truncated
    (1.0, False, False)
    >>> env.close()

    ```

    | Parameter     | Type  | Default | Description                                    |
    |---------------|-------|---------|------------------------------------------------|
    | `n`           | `int` | `1`     | Degrees of freedom, from 1 to 1000             |
    | `render_mode` | `str` | `None`  | `"human"`, `"rgb_array"` or `None`: no picture |

    ## Vectorized environment

    `gym.make_vec` uses `CartPoleNDVectorEnv`, which steps all environments with the same few NumPy
    calls, in next-step or same-step autoreset mode.

    ```python
    >>> envs = gym.make_vec("CartPoleND-v0", num_envs=8, n=3)
    >>> envs
    CartPoleNDVectorEnv(CartPoleND-v0, num_envs=8)
    >>> envs.close()

    ```

    ## Version History

    * v0: Initial version.

    ## References

    [1] A. G. Barto, R. S. Sutton and C. W. Anderson, "Neuronlike adaptive elements that can solve
    difficult learning control problems", IEEE Transactions on Systems, Man, and Cybernetics,
    SMC-13(5), 1983, <https://doi.org/10.1109/TSMC.1983.6313077>.

    [2] C. Wilhelm and D. Ventura, "Distilling Reinforcement Learning into Single-Batch Datasets",
    2025, <https://arxiv.org/abs/2508.09283>.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, n: int = 1, render_mode: str | None = None) -> None:
        """Create the environment.

        Args:
            n: Degrees of freedom, from 1 to 1000.
            render_mode: `None`, `"human"` or `"rgb_array"`.

        Raises:
            TypeError: If `n` is not an integer.
            ValueError: If `n` is out of its range or the render mode does not exist.
        """
        self.n = positive_int("n", n, MAX_N)
        self.render_mode = checked_render_mode(render_mode, self.metadata["render_modes"])
        self.action_space = Discrete(2 * self.n)
        self.observation_space = observation_space(self.n)

        # float64 `(4, n)`: x, ẋ, θ, θ̇ of every axis; `None` before the first reset.
        self.state: npt.NDArray[np.float64] | None = None
        self._has_failed = False
        self._has_warned = False
        self._push: int | None = None  # the last action, for rendering
        self._renderer: CartPoleRenderer | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Start a new episode.

        Args:
            seed: Seeds the generator; `None` carries on with it.
            options: `"low"` and `"high"` bound every quantity of the initial state.

        Returns:
            The observation, float32 `(4n,)`, and an empty info.

        Raises:
            ValueError: If an option is unknown or no number, or `low > high`.
        """
        super().reset(seed=seed)
        low, high = start_bounds(options)
        self.state = self.np_random.uniform(low, high, size=(4, self.n))
        self._has_failed = self._has_warned = False
        self._push = None
        if self.render_mode == "human":
            self.render()
        return self.state.T.astype(np.float32).reshape(-1), {}

    def step(
        self, action: int | np.integer[Any]
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push one axis for one time step of 0.02 s.

        Args:
            action: Integer in `[0, 2n)`; axis `action // 2`, direction `action % 2`.

        Returns:
            The observation, float32 `(4n,)`; the reward, 1 until the episode has failed and 0
            after; whether an axis is out of its limits; `False`, as the time limit is a wrapper's;
            an empty info.

        Raises:
            ResetNeeded: If `reset` was never called.
            InvalidAction: If the action is not an integer in range.
        """
        if self.state is None:
            raise ResetNeeded("Call `reset` before the first `step`.")
        action = self._checked_action(action)
        forces = [0.0] * self.n
        forces[action // 2] = FORCE if action % 2 else -FORCE
        # A handful of axes is advanced faster as floats than as arrays.
        quadruples, angles = self.state.T.tolist(), self.state[2]
        cosines, sines = np.cos(angles).tolist(), np.sin(angles).tolist()
        axes = [
            advance(x, x_dot, theta, theta_dot, cos, sin, force)
            for (x, x_dot, theta, theta_dot), cos, sin, force in zip(
                quadruples, cosines, sines, forces, strict=True
            )
        ]
        state = np.array(axes)
        self.state = state.T
        terminated = any(is_outside(x, theta) for x, _, theta, _ in axes)

        reward = 0.0 if terminated and self._has_failed else 1.0
        if self._has_failed and terminated and not self._has_warned:
            logger.warn(
                "`step` was called on an episode that had terminated; call `reset` first. "
                "Steps after the end have no meaning and earn no reward."
            )
            self._has_warned = True
        self._has_failed |= terminated
        self._push = action
        if self.render_mode == "human":
            self.render()
        return state.astype(np.float32).reshape(-1), reward, terminated, False, {}

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the current state.

        Returns:
            The frame, uint8 `(height, width, 3)`, in mode `"rgb_array"`; otherwise `None`.

        Raises:
            ResetNeeded: If `reset` was never called.
            DependencyNotInstalled: If pygame is missing.
        """
        if self.render_mode is None:
            logger.warn(
                "Nothing is rendered without a render mode: pass "
                '`gym.make("CartPoleND-v0", render_mode="rgb_array")` or "human".'
            )
            return None
        if self.state is None:
            raise ResetNeeded("Call `reset` before `render`.")
        if self._renderer is None:
            self._renderer = CartPoleRenderer(self.n)
        if self.render_mode == "human":
            self._renderer.show(self.state, self._push, fps=self.metadata["render_fps"])
            return None
        return self._renderer.frame(self.state, self._push)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _checked_action(self, action: Any) -> int:
        """Return the action as an `int`, or raise `InvalidAction`."""
        # Faster than `action_space.contains`, which would be a third of the step.
        try:
            index = operator.index(action)
        except TypeError:
            index = -1
        if not 0 <= index < 2 * self.n:
            raise InvalidAction(
                f"The action must be an integer in [0, {2 * self.n}) for n={self.n} axes, "
                f"got {action!r} ({type(action).__name__})."
            )
        return index
