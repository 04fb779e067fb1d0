"""The physics of the N-dimensional cart-pole, shared by the scalar and the vector environment.

Every axis is one classic cart-pole. The functions below take one axis as floats or many as arrays.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

Quantity = TypeVar("Quantity", float, npt.NDArray[np.float64])

GRAVITY = 9.8  # m/s²
CART_MASS = 1.0  # kg
POLE_MASS = 0.1  # kg
TOTAL_MASS = POLE_MASS + CART_MASS
HALF_POLE_LENGTH = 0.5  # m
POLE_MASS_LENGTH = POLE_MASS * HALF_POLE_LENGTH
FORCE = 10.0  # N
TIME_STEP = 0.02  # s
X_LIMIT = 2.4  # m
THETA_LIMIT = 12 * 2 * math.pi / 360  # rad
MAX_N = 1000  # degrees of freedom
START_BOUND = 0.05  # every quantity of the default initial state is within ± this


def advance(
    x: Quantity,
    x_dot: Quantity,
    theta: Quantity,
    theta_dot: Quantity,
    cos: Quantity,
    sin: Quantity,
    force: Quantity,
) -> tuple[Quantity, Quantity, Quantity, Quantity]:
    """Advance one axis, or an array of axes, by one Euler step of `TIME_STEP` seconds.

    Arrays are advanced in place, floats through the returned values: an augmented assignment does
    either. The operations and their order are those of Gymnasium's `CartPole-v1`, so that an axis
    follows it bit for bit; that is why divisions by constants are not turned into multiplications.

    Args:
        x: Cart position in m.
        x_dot: Cart velocity in m/s.
        theta: Pole angle in rad, 0 is upright.
        theta_dot: Pole angular velocity in rad/s.
        cos: Cosine of `theta`, NumPy's in both cases: that of `math` may differ in the last bit.
        sin: Sine of `theta`, likewise.
        force: Force on the cart in N.

    Returns:
        The new `(x, x_dot, theta, theta_dot)`.
    """
    # push = (force + m_p l θ̇² sin θ) / M
    push = theta_dot * theta_dot
    push *= POLE_MASS_LENGTH
    push *= sin
    push += force
    push /= TOTAL_MASS

    # inertia = l (4/3 - m_p cos² θ / M)
    inertia = cos * cos
    inertia *= POLE_MASS
    inertia /= TOTAL_MASS
    inertia = 4.0 / 3.0 - inertia
    inertia *= HALF_POLE_LENGTH

    # θ̈ = (g sin θ - cos θ push) / inertia
    theta_acc = GRAVITY * sin
    theta_acc -= cos * push
    theta_acc /= inertia

    # ẍ = push - m_p l θ̈ cos θ / M
    reaction = POLE_MASS_LENGTH * theta_acc
    reaction *= cos
    reaction /= TOTAL_MASS
    x_acc = push - reaction

    # Explicit Euler: each position moves with the velocity of the old state.
    x += TIME_STEP * x_dot
    x_dot += TIME_STEP * x_acc
    theta += TIME_STEP * theta_dot
    theta_dot += TIME_STEP * theta_acc
    return x, x_dot, theta, theta_dot


def is_outside(x: Any, theta: Any) -> Any:
    """Tell whether an axis, or each of an array of axes, has left the limits.

    Args:
        x: Cart position in m.
        theta: Pole angle in rad.

    Returns:
        A `bool`, or a boolean array of the shape of `x`.
    """
    return (abs(x) > X_LIMIT) | (abs(theta) > THETA_LIMIT)


def observation_space(n: int) -> Box[np.float32]:
    """Return the observation space of `n` axes, bounded at twice the limits as `CartPole-v1` is.

    The velocities have no bound; the largest float stands for that, because Gymnasium's checker warns of
    infinities (and does so for `CartPole-v1`).
    """
    unbounded = np.finfo(np.float32).max
    high = np.array([2 * X_LIMIT, unbounded, 2 * THETA_LIMIT, unbounded], dtype=np.float32)
    high = np.tile(high, n)
    return Box(-high, high, dtype=np.float32)


def positive_int(name: str, value: Any, maximum: int | None = None) -> int:
    """Return `value` as an `int` of at least 1.

    Args:
        name: The argument's name, for the message.
        value: What the user passed.
        maximum: The largest that it may be.

    Raises:
        TypeError: If `value` is not an integer (a `bool` is not).
        ValueError: If `value` is below 1 or above `maximum`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be an integer of at least 1, got {value!r} ({type(value).__name__}).")
    number = int(value)
    if number < 1:
        raise ValueError(f"`{name}` must be at least 1, got {number}.")
    if maximum is not None and number > maximum:
        shown = number if number < 10**20 else f"an integer of {number.bit_length()} bits"
        raise ValueError(f"`{name}` must be at most {maximum}, got {shown}.")
    return number


def start_bounds(options: Mapping[str, Any] | None) -> tuple[float, float]:
    """Read the bounds of the initial state from the `options` of `reset`.

    Args:
        options: May hold `"low"` and `"high"`; what is missing is ∓`START_BOUND`.

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: If an option is unknown, a bound is no finite number (an array of one is) or `low > high`.
    """
    bounds = {"low": -START_BOUND, "high": START_BOUND}
    for key, value in (options or {}).items():
        if key not in bounds:
            raise ValueError(f"`reset` does not know the option {key!r}; the options are 'low' and 'high'.")
        number = value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
        if isinstance(number, bool) or not isinstance(number, numbers.Real):
            raise ValueError(f"The reset option {key!r} must be a number, got {value!r}.")
        if not math.isfinite(number):
            raise ValueError(f"The reset option {key!r} must be finite, got {value!r}.")
        bounds[key] = float(number)
    if bounds["low"] > bounds["high"]:
        raise ValueError(
            f"The reset option 'low' ({bounds['low']}) must not exceed 'high' ({bounds['high']})."
        )
    return bounds["low"], bounds["high"]
