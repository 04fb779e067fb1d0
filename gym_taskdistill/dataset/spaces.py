"""Spaces as plain data, so that reading a card runs no code of Gymnasium's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from gym_taskdistill.dataset.plain import as_dict, as_int, as_str
from gym_taskdistill.errors import DatasetError
from gym_taskdistill.schema import shown

#: Numbers in one observation or action: more would be no Box that a learner could see.
MAX_SIZE = 2**24

_DTYPES = {np.dtype(code).name for code in "?bhilqBHILQefd"}


def space_to_dict(space: gym.Space[Any], *, bounds: bool = False) -> dict[str, Any]:
    """Describe a space as plain JSON data.

    Args:
        space: A `Box` or a `Discrete` space.
        bounds: Whether to add a Box's ``low`` and ``high`` as nested lists, in which None means
            unbounded. Wanted for actions; for images they would only be bulk.

    Returns:
        The description.

    Raises:
        DatasetError: If the space is of another type.

    >>> space_to_dict(gym.spaces.Discrete(4))
    {'type': 'Discrete', 'n': 4}
    >>> space_to_dict(gym.spaces.Box(-1, 1, (2,)), bounds=True)["low"]
    [-1.0, -1.0]
    """
    if isinstance(space, gym.spaces.Discrete):
        start = int(space.start)
        return {"type": "Discrete", "n": int(space.n)} | ({"start": start} if start else {})
    if isinstance(space, gym.spaces.Box):
        described: dict[str, Any] = {
            "type": "Box",
            "shape": [int(size) for size in space.shape],
            "dtype": str(space.dtype),
        }
        if bounds:
            described["low"] = _bound_to_list(space.low)
            described["high"] = _bound_to_list(space.high)
        return described
    raise DatasetError(
        f"{type(space).__name__} spaces are not supported; wrap the environment so that it has a "
        "Box observation and a Box or Discrete action."
    )


def is_image(space: Mapping[str, Any]) -> bool:
    """Tell whether a described space is one of images: three dimensions of bytes.

    >>> is_image(space_to_dict(gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)))
    True
    """
    return space["type"] == "Box" and len(space["shape"]) == 3 and space["dtype"] == "uint8"


def as_space_dict(value: Any, where: str) -> dict[str, Any]:
    """Check a description made by `space_to_dict`, and return its copy.

    Args:
        value: What should be a description.
        where: Name of the value, for the message.

    Raises:
        DatasetError: If it is not one.
    """
    space = as_dict(value, where)
    if space.get("type") == "Discrete":
        as_int(space.get("n"), f"{where}.n", minimum=1)
        as_int(space.get("start", 0), f"{where}.start")
        return space
    if space.get("type") == "Box":
        shape = space.get("shape")
        if not isinstance(shape, list):
            raise DatasetError(f"{where}.shape must be a list of sizes.")
        for size in shape:
            as_int(size, f"{where}.shape", minimum=1)
        if math.prod(shape) > MAX_SIZE:
            raise DatasetError(
                f"{where}.shape holds {math.prod(shape)} numbers, but at most {MAX_SIZE} are read."
            )
        dtype = as_str(space.get("dtype"), f"{where}.dtype", empty=False)
        # NumPy would read whole programs of types from a text.
        if dtype not in _DTYPES:
            raise DatasetError(f"{where}.dtype is {shown(dtype)}, which is no NumPy type of numbers.")
        return space
    raise DatasetError(f'{where}.type is {shown(space.get("type"))}, but must be "Box" or "Discrete".')


def _bound_to_list(bound: Any) -> Any:
    # JSON has no infinity; None reads naturally as "no bound on this side".
    unbounded = ~np.isfinite(bound)
    listed = bound.astype(object)
    listed[unbounded] = None
    return listed.tolist()
