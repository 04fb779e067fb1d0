"""Spaces as plain data, so that reading a card runs no code of Gymnasium's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gym_taskdistill.dataset.plain import as_dict, as_int, as_str
from gym_taskdistill.errors import DatasetError
from gym_taskdistill.schema import shown

#: Numbers in one observation or action: more would be no Box that a learner could see.
MAX_SIZE = 2**24

_DTYPES = {np.dtype(code).name for code in "?bhilqBHILQefd"}


def space_to_dict(space: gym.Space[Any], *, bounds: bool = False) -> dict[str, Any]:
    """Describe a space as plain JSON data.

    Args:
        space: A `Box`, `Discrete`, `MultiDiscrete` or `MultiBinary` space, or a `Dict` or `Tuple` of such.
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
    >>> space_to_dict(gym.spaces.Dict({"on": gym.spaces.MultiBinary(2)}))["spaces"]
    [['on', {'type': 'MultiBinary', 'n': 2}]]
    """
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return {"type": "Discrete", "n": int(space.n)} | ({"start": start} if start else {})
    if isinstance(space, spaces.MultiDiscrete):
        described = {"type": "MultiDiscrete", "nvec": space.nvec.tolist()}
        return described | ({"start": space.start.tolist()} if space.start.any() else {})
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(map(int, space.n))}
    if isinstance(space, spaces.Dict):  # a list of pairs: their order counts, and cards sort keys
        parts = [[key, space_to_dict(part, bounds=bounds)] for key, part in space.spaces.items()]
        return {"type": "Dict", "spaces": parts}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [space_to_dict(part, bounds=bounds) for part in space.spaces]}
    if isinstance(space, spaces.Box):
        described = {
            "type": "Box",
            "shape": [int(size) for size in space.shape],
            "dtype": str(space.dtype),
        }
        if bounds:
            described["low"] = _bound_to_list(space.low)
            described["high"] = _bound_to_list(space.high)
        return described
    raise DatasetError(
        f"{type(space).__name__} spaces are not supported; wrap the environment so that it has Box, "
        "Discrete, MultiDiscrete or MultiBinary spaces, or a Dict or Tuple of these."
    )


def space_from_dict(described: Mapping[str, Any]) -> gym.Space[Any]:
    """Build a space from its description in a card; a Box without bounds is unbounded, but for bytes.

    >>> space_from_dict({"type": "Discrete", "n": 3, "start": -1})
    Discrete(3, start=-1)
    """
    match described["type"]:
        case "Discrete":
            return spaces.Discrete(described["n"], start=described.get("start", 0))
        case "MultiDiscrete":
            return spaces.MultiDiscrete(
                np.array(described["nvec"]),
                start=np.array(described.get("start", np.zeros_like(described["nvec"]))),
            )
        case "MultiBinary":
            return spaces.MultiBinary(described["n"])
        case "Dict":
            # A list of pairs keeps its order.
            return spaces.Dict([(key, space_from_dict(part)) for key, part in described["spaces"]])
        case "Tuple":
            return spaces.Tuple([space_from_dict(part) for part in described["spaces"]])
    dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
    low, high = (
        _bound_from_list(described.get(key), default, shape, dtype)
        for key, default in (("low", -np.inf), ("high", np.inf))
    )
    return spaces.Box(low, high, shape, dtype.type)


def is_image(space: Mapping[str, Any]) -> bool:
    """Tell whether a described space is one of images: three dimensions of bytes.

    >>> is_image(space_to_dict(gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)))
    True
    """
    return space["type"] == "Box" and len(space["shape"]) == 3 and space["dtype"] == "uint8"


def n_logits(space: Mapping[str, Any]) -> int:
    """Return how many outputs a learner needs to act in a described space: one for each logit or mean.

    >>> n_logits({"type": "MultiDiscrete", "nvec": [3, 2]})
    5
    """
    match space["type"]:
        case "Discrete":
            return int(space["n"])
        case "MultiDiscrete":
            return int(np.sum(space["nvec"]))
        case "MultiBinary":
            return int(np.prod(space["n"]))
    return int(np.prod(space["shape"]))


def k_min(n_actions: int) -> int:
    """Smallest number of soft-labelled instances that can tell all actions apart.

    Equation 3 of the paper: ``ceil(c / 2) + 1`` for c actions.

    Args:
        n_actions: Number of discrete actions, at least 2.

    Returns:
        The number of instances.

    Raises:
        DatasetError: If ``n_actions`` is not an integer of at least 2.

    >>> k_min(4)
    3
    """
    return (as_int(n_actions, "n_actions", minimum=2) + 1) // 2 + 1


def n_rows(k: int | str, action_space: gym.Space[Any]) -> int:
    """Return the number of rows that a setting k means: ``"k_min"`` follows the flat actions.

    Raises:
        DatasetError: k is ``"k_min"``, but the actions are not discrete.

    >>> n_rows("k_min", spaces.Discrete(4)), n_rows(64, spaces.Discrete(4))
    (3, 64)
    """
    if k != "k_min":
        return int(k)
    if not isinstance(action_space, spaces.Discrete):
        raise DatasetError(
            f'k="k_min" needs discrete actions (Equation 3), but these are of a '
            f"{type(action_space).__name__}; give k as a number, such as 64."
        )
    return k_min(int(action_space.n))


def as_space_dict(value: Any, where: str) -> dict[str, Any]:
    """Check a description made by `space_to_dict`, and return its copy.

    Args:
        value: What should be a description.
        where: Name of the value, for the message.

    Raises:
        DatasetError: If it is not one.
    """
    space = as_dict(value, where)
    kind = space.get("type")
    if kind == "Discrete":
        as_int(space.get("n"), f"{where}.n", minimum=1)
        as_int(space.get("start", 0), f"{where}.start")
    elif kind == "MultiDiscrete":
        sizes = _integers(space.get("nvec"), f"{where}.nvec", minimum=1)
        if "start" in space and _integers(space["start"], f"{where}.start").shape != sizes.shape:
            raise DatasetError(f"{where}.start must have the shape of {where}.nvec.")
        _check_size(int(sizes.sum()), f"{where}.nvec")
    elif kind == "MultiBinary":
        sizes = _integers(space.get("n"), f"{where}.n", minimum=1)
        _check_size(math.prod(sizes.flatten().tolist()), f"{where}.n")
    elif kind in ("Dict", "Tuple"):
        _check_parts(space.get("spaces"), kind == "Dict", f"{where}.spaces")
    elif kind == "Box":
        _check_box(space, where)
    else:
        raise DatasetError(
            f'{where}.type is {shown(kind)}, but must be "Box", "Discrete", "MultiDiscrete", "MultiBinary", '
            '"Dict" or "Tuple".'
        )
    return space


def _check_box(space: Mapping[str, Any], where: str) -> None:
    shape = space.get("shape")
    if not isinstance(shape, list):
        raise DatasetError(f"{where}.shape must be a list of sizes.")
    for size in shape:
        as_int(size, f"{where}.shape", minimum=1)
    _check_size(math.prod(shape), f"{where}.shape")
    dtype = as_str(space.get("dtype"), f"{where}.dtype", empty=False)
    # NumPy would read whole programs of types from a text.
    if dtype not in _DTYPES:
        raise DatasetError(f"{where}.dtype is {shown(dtype)}, which is no NumPy type of numbers.")
    _check_bounds(space, where)


def _check_parts(parts: Any, named: bool, where: str) -> None:
    if not isinstance(parts, list) or not parts:
        raise DatasetError(f"{where} must be a list of at least one space.")
    for i, part in enumerate(parts):
        if named:
            if not (isinstance(part, list) and len(part) == 2 and isinstance(part[0], str)):
                raise DatasetError(f"{where}[{i}] must be a key with its space.")
            part = part[1]
        as_space_dict(part, f"{where}[{i}]")


def _integers(value: Any, where: str, minimum: int | None = None) -> np.ndarray:
    """Return integers, one or lists of them of one shape, as an array."""
    try:
        array = np.array(value)
    except ValueError:  # lists of several lengths
        array = np.array(None)
    if array.dtype.kind not in "iu" or not array.size:
        raise DatasetError(f"{where} must be an integer, or lists of integers of one length.")
    for number in array.flatten().tolist():
        as_int(number, where, minimum=minimum)
    return array


def _check_size(size: int, where: str) -> None:
    if size > MAX_SIZE:
        raise DatasetError(f"{where} holds {size} numbers, but at most {MAX_SIZE} are read.")


def _check_bounds(space: Mapping[str, Any], where: str) -> None:
    """Refuse bounds of a Box that are no numbers, of another shape, or the wrong way round; None is no bound.

    Raises:
        DatasetError: If they are.
    """
    ends = {}
    for name, unbounded in (("low", -math.inf), ("high", math.inf)):
        bound = space.get(name)
        try:
            end = np.array(unbounded if bound is None else bound, dtype=object)
        except ValueError:  # lists of several lengths
            end = np.array("")
        flat = [unbounded if value is None else value for value in end.flatten().tolist()]
        if not all(isinstance(value, int | float) and not math.isnan(value) for value in flat):
            raise DatasetError(f"{where}.{name} must hold numbers, or null for no bound.")
        if bound is not None and end.shape != tuple(space["shape"]):
            raise DatasetError(f"{where}.{name} has shape {end.shape}, but must be {tuple(space['shape'])}.")
        ends[name] = np.array(flat, dtype=float)
    if (ends["low"] > ends["high"]).any():
        raise DatasetError(f"{where}.low is above {where}.high.")


def _bound_to_list(bound: Any) -> Any:
    # JSON has no infinity; None reads naturally as "no bound on this side".
    unbounded = ~np.isfinite(bound)
    listed = bound.astype(object)
    listed[unbounded] = None
    return listed.tolist()


def _bound_from_list(listed: Any, default: float, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if listed is not None:
        bound = np.array(listed, dtype=object)
        bound[bound == None] = default  # noqa: E711  (elementwise)
        return bound.astype(dtype)
    if dtype.kind == "f":
        return np.full(shape, default, dtype)
    limits = np.array([False, True]) if dtype.kind == "b" else np.iinfo(dtype)
    low, high = limits if isinstance(limits, np.ndarray) else (limits.min, limits.max)
    return np.full(shape, low if default < 0 else high, dtype)
