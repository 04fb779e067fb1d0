"""Spaces as learners have them: observations as one vector or one image, actions counted from 0.

The rules are Gymnasium's (`gymnasium.spaces.flatten`) and, for images, SB3's (`VecTransposeImage`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from gym_taskdistill.errors import DatasetError, TaskDistillError

#: Numbers in one observation: more would be no vector that a learner could see.
MAX_SIZE = 2**24

_OBSERVATIONS = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)


def flat_observation_space(space: gym.Space[Any]) -> spaces.Box:
    """Return the space of what `flatten` makes of observations.

    Vectors, and images of bytes whose channels come first, stay as they are. The channels of other images are
    moved to the front. All else becomes a vector, in which what is discrete is one-hot.

    Raises:
        TaskDistillError: The space has no vectors of a fixed size.

    >>> flat_observation_space(spaces.Dict({"at": spaces.Discrete(3), "speed": spaces.Box(-1, 1, (2, 2))}))
    Box([ 0.  0.  0. -1. -1. -1. -1.], 1.0, (7,), float64)
    >>> flat_observation_space(spaces.Box(0, 255, (36, 36, 3), np.uint8)).shape
    (3, 36, 36)
    """
    _check_observations(space)
    if isinstance(space, spaces.Box):
        if _is_transposed(space):
            low, high = (np.moveaxis(bound, -1, 0) for bound in (space.low, space.high))
            return spaces.Box(low, high, dtype=np.uint8)
        if len(space.shape) == 1 or is_image_space(space):
            return space
    flat = spaces.utils.flatten_space(space)
    assert isinstance(flat, spaces.Box)
    return flat


def flat_action_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space of the actions that `own_actions` translates: flat, and counted from 0.

    Raises:
        TaskDistillError: No distribution has such actions.

    >>> flat_action_space(spaces.Discrete(3, start=-1))
    Discrete(3)
    """
    if isinstance(space, spaces.Discrete):
        return space if space.start == 0 else spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        if space.nvec.ndim == 1 and not space.start.any():
            return space
        return spaces.MultiDiscrete(space.nvec.flatten())
    if isinstance(space, spaces.MultiBinary):
        return space if isinstance(space.n, int) else spaces.MultiBinary(math.prod(space.shape))
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise TaskDistillError(
            f"Actions of the space {_short(space)} are not supported; wrap the environment so that they are "
            "of a Box of floats, or Discrete, MultiDiscrete or MultiBinary."
        )
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise TaskDistillError(
            f"The actions of {_short(space)} have no bounds; give them some, such as by "
            "gymnasium.wrappers.RescaleAction or a wrapper with an action space of its own."
        )
    if not math.prod(space.shape):
        raise TaskDistillError(f"Actions of the space {_short(space)} are empty; there is nothing to learn.")
    if len(space.shape) == 1 and space.dtype in (np.float32, np.float64):
        return space
    dtype = np.float64 if space.dtype.itemsize > 4 else np.float32
    return spaces.Box(space.low.flatten().astype(dtype), space.high.flatten().astype(dtype), dtype=dtype)


def flatten(space: gym.Space[Any], observations: Any) -> np.ndarray:
    """Flatten a batch of observations; each row is what `gymnasium.spaces.flatten` gives, or an image.

    Args:
        space: The space of one observation.
        observations: A batch: an array ``(n, …)``; of Dict and Tuple spaces a mapping or tuple of such, as
            vector environments give it, or a list of single observations.

    Returns:
        An array ``(n, *flat_observation_space(space).shape)``.

    >>> flatten(spaces.Discrete(3, start=1), [1, 3])
    array([[1, 0, 0],
           [0, 0, 1]])
    """
    if isinstance(space, spaces.Box) and (len(space.shape) == 1 or is_image_space(space)):
        images = np.asarray(observations)
        return np.moveaxis(images, -1, 1) if _is_transposed(space) else images
    return _flatten(space, observations)


def _flatten(space: gym.Space[Any], batch: Any) -> np.ndarray:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = zip(_subspaces(space), _columns(space, batch), strict=True)
        return np.concatenate([_flatten(subspace, column) for subspace, column in parts], axis=1)
    array = np.asarray(batch)
    if isinstance(space, spaces.Discrete):
        return _one_hot(array - space.start, np.array([space.n]), space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hot(array - space.start, space.nvec.flatten(), space.dtype)
    return array.astype(space.dtype, copy=False).reshape(len(array), -1)


def _one_hot(indices: np.ndarray, sizes: np.ndarray, dtype: Any) -> np.ndarray:
    n = len(indices)
    indices = indices.reshape(n, len(sizes)).astype(np.int64)
    if ((indices < 0) | (indices >= sizes)).any():
        raise TaskDistillError("An observation lies outside of its space; correct the environment.")
    hot = np.zeros((n, int(sizes.sum())), dtype=dtype)
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    hot[np.arange(n)[:, None], offsets + indices] = 1
    return hot


def _columns(space: spaces.Dict | spaces.Tuple, batch: Any) -> list[Any]:
    """Return a batch's values for each subspace, whether it is one of columns or a list of observations."""
    if isinstance(space, spaces.Dict):
        if isinstance(batch, Mapping):
            return [batch[key] for key in space.spaces]
        return [[row[key] for row in batch] for key in space.spaces]
    if isinstance(batch, tuple):
        return list(batch)
    return [[row[i] for row in batch] for i in range(len(space.spaces))]


def _subspaces(space: spaces.Dict | spaces.Tuple) -> list[gym.Space[Any]]:
    return list(space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces)


def as_batch(space: gym.Space[Any], observation: Any) -> tuple[np.ndarray, bool]:
    """Flatten an observation or a batch of them.

    Args:
        space: The space of one observation.
        observation: One, or a batch as for `flatten`; arrays that are flat already pass.

    Returns:
        The batch, flat, and whether it was a single observation.

    Raises:
        DatasetError: It is neither.
    """
    pair = isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict)
    if pair and not isinstance(space, spaces.Tuple):
        raise DatasetError(
            "The observation is a pair with an info, as reset() of a gymnasium environment returns it; you "
            "may be mixing Gym API with that of SB3's vec-envs: give the first of the two."
        )
    flat = _flat_shape(space)
    try:
        if not isinstance(space, spaces.Dict | spaces.Tuple) or isinstance(observation, np.ndarray):
            array = np.asarray(observation)
            if array.shape == space.shape:
                return flatten(space, array[None]), True
            if array.shape[1:] != space.shape or array.dtype == object:
                if array.shape == flat:
                    return array[None], True
                if array.shape[1:] == flat:
                    return array, False
        single = _is_single(space, observation)
        rows = flatten(space, [observation] if single else observation)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DatasetError(f"The observation is not of {_short(space)}: {reason}.") from None
    if rows.shape[1:] != flat:
        raise DatasetError(
            f"The observation has shape {np.shape(observation)}, but must be of {_short(space)}, or a batch "
            "of such."
        )
    return rows, single


def _flat_shape(space: gym.Space[Any]) -> tuple[int, ...]:
    """Return the shape of `flat_observation_space` without making it."""
    if isinstance(space, spaces.Box) and is_image_space(space):
        return (space.shape[-1], *space.shape[:-1]) if _is_transposed(space) else space.shape
    return (spaces.utils.flatdim(space),)


def _is_single(space: gym.Space[Any], observation: Any) -> bool:
    """Tell one observation of a Dict or Tuple space from a batch, by the shape of its first leaf."""
    while isinstance(space, spaces.Dict | spaces.Tuple) and space.spaces:
        if not isinstance(observation, Mapping | tuple):
            return False
        key = next(iter(space.spaces)) if isinstance(space, spaces.Dict) else 0
        space, observation = _subspaces(space)[0], observation[key]  # type: ignore[index]
    return np.shape(observation) == space.shape


def own_actions(space: gym.Space[Any], actions: np.ndarray) -> np.ndarray:
    """Translate flat actions into those of an environment, within its bounds.

    Args:
        space: The environment's own action space.
        actions: A batch of actions of `flat_action_space`; of a Box they may lie outside.

    Returns:
        The batch, ``(n, *space.shape)``, of the space's own type of number.

    >>> own_actions(spaces.Discrete(3, start=-1), np.array([0, 2]))
    array([-1,  1])
    """
    if isinstance(space, spaces.Box):
        # In the wider type: 0.1 as a float32 lies outside of a box that ends at 0.1 as a float64.
        shaped = actions.reshape(len(actions), *space.shape)
        dtype = np.result_type(shaped.dtype, space.dtype)
        clipped = np.clip(shaped.astype(dtype, copy=False), space.low, space.high)
        return np.asarray(clipped.astype(space.dtype, copy=False))
    if isinstance(space, spaces.Discrete):
        return actions + space.start if space.start else actions
    if isinstance(space, spaces.MultiDiscrete):
        return (actions.reshape(len(actions), *space.shape) + space.start).astype(space.dtype, copy=False)
    return actions.reshape(len(actions), *(space.shape or ())).astype(space.dtype, copy=False)


def _check_observations(space: gym.Space[Any]) -> None:
    for leaf in _leaves(space):
        if not isinstance(leaf, _OBSERVATIONS):
            inside = "" if leaf is space else f", in {type(space).__name__}"
            raise TaskDistillError(
                f"Observations of the space {type(leaf).__name__}{inside} have no fixed size and are not "
                "supported; wrap the environment so that they are of a Box, Discrete, MultiDiscrete or "
                "MultiBinary, or a Dict or Tuple of these."
            )
    size = spaces.utils.flatdim(space)
    if not 0 < size <= MAX_SIZE:
        raise TaskDistillError(
            f"Observations of {_short(space)} are {size} numbers, but must be 1 to {MAX_SIZE}; wrap the "
            "environment so that they are."
        )


def _leaves(space: gym.Space[Any]) -> list[gym.Space[Any]]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return [leaf for subspace in _subspaces(space) for leaf in _leaves(subspace)]
    return [space]


def _is_transposed(space: spaces.Box) -> bool:
    return is_image_space(space) and not is_image_space_channels_first(space)


def _short(space: gym.Space[Any]) -> str:
    """Return a space in a few words; Gymnasium's own text may print whole arrays of bounds."""
    if isinstance(space, spaces.Box):
        return f"Box({space.shape}, {space.dtype})"
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(map(str, space.spaces))})"
    text = str(space)
    return text if len(text) <= 80 else type(space).__name__


def unflatten(space: gym.Space[Any], rows: np.ndarray) -> Any:
    """Undo `flatten`, but for images: a dictionary or tuple of arrays where the space is one of such.

    >>> unflatten(spaces.Discrete(3, start=1), np.array([[0, 1, 0]]))
    array([2])
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = _subspaces(space)
        ends = np.cumsum([spaces.utils.flatdim(part) for part in parts])
        cut = np.split(rows, ends[:-1], axis=1)
        columns = tuple(unflatten(part, own) for part, own in zip(parts, cut, strict=True))
        return dict(zip(space.spaces, columns, strict=True)) if isinstance(space, spaces.Dict) else columns
    if isinstance(space, spaces.Discrete):
        return rows.argmax(axis=1) + space.start
    if isinstance(space, spaces.MultiDiscrete):
        cut = np.split(rows, np.cumsum(space.nvec.flatten())[:-1], axis=1)
        chosen = np.stack([one_hot.argmax(axis=1) for one_hot in cut], axis=1)
        return chosen.reshape(len(rows), *space.shape) + space.start
    return rows.astype(space.dtype, copy=False).reshape(len(rows), *(space.shape or ()))


def random_actions(space: gym.Space[Any], rng: np.random.Generator, size: tuple[int, ...] = ()) -> Any:
    """Draw flat actions evenly.

    Args:
        space: A space of `flat_action_space`.
        rng: Source of randomness.
        size: How many; an empty tuple for one.
    """
    if isinstance(space, spaces.Box):
        return rng.uniform(space.low, space.high, size=(*size, *space.shape))
    if isinstance(space, spaces.Discrete):
        return rng.integers(int(space.n), size=size)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(space.nvec, size=(*size, *space.shape))
    return rng.integers(2, size=(*size, *(space.shape or ())))


def check_finite(step: int, **values: np.ndarray) -> None:
    """Refuse numbers that are not finite, at once and by their place: nothing can be learned from them.

    Args:
        step: Of which step they are.
        **values: What they are, such as ``rewards``, by a column for each environment.

    Raises:
        TaskDistillError: One is NaN or infinite.
    """
    for name, array in values.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            finite = np.isfinite(array).reshape(len(array), -1)
            column = int(np.flatnonzero(~finite.all(axis=1))[0])
            value = array[column].flatten()[~finite[column]][0]
            advice = "try lower learning rates" if name == "actions" else "correct the environment"
            raise TaskDistillError(
                f"The {name} of column {column} at step {step} hold {value}, which teaches nothing; {advice}."
            )


def is_flat(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> bool:
    """Whether an environment's spaces are those of learners already."""
    return (
        flat_observation_space(observation_space) is observation_space
        and flat_action_space(action_space) is action_space
    )
