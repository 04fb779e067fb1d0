"""Gymnasium's wrappers as plain data: what a card can tell of them, and how they are put on again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import WrapperSpec

from gym_taskdistill import trust
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.schema import plain

#: Wrappers that leave observations, actions and rewards as they are.
TRANSPARENT = frozenset(
    {
        "AddWhiteNoise",
        "Autoreset",
        "FlatEnv",
        "HumanRendering",
        "Monitor",
        "ObstructView",
        "OrderEnforcing",
        "PassiveEnvChecker",
        "RecordEpisodeStatistics",
        "RecordVideo",
        "RenderCollection",
    }
)

#: Wrappers that go on learning while they are used, so that no argument tells what they do.
LEARNING = {"NormalizeObservation": "VecNormalize", "NormalizeReward": "VecNormalize(norm_obs=False)"}


class UnrecordedError(Exception):
    """Raised where plain data cannot tell what an env is; its text goes on from "…, for"."""


def describe(spec: WrapperSpec) -> dict[str, Any]:
    """Describe a wrapper as plain data: its ``entry_point`` and ``kwargs``.

    Raises:
        UnrecordedError: It goes on learning, does not tell its arguments, or these are no plain data.
    """
    if spec.name in LEARNING:
        raise UnrecordedError(
            f"the statistics of its wrapper {spec.name} are unknown (use SB3's {LEARNING[spec.name]}, whose "
            "statistics become part of the dataset)"
        )
    if spec.kwargs is None:
        raise UnrecordedError(
            f"its wrapper {spec.name} does not record its arguments (gymnasium.utils.RecordConstructorArgs)"
        )
    try:
        wrapper_class(spec.entry_point)
    except TaskDistillError:
        raise UnrecordedError(
            f"its wrapper {spec.name} is not to be found as {spec.entry_point} (define it at the top of a "
            "module)"
        ) from None
    try:
        kwargs = plain_arguments(spec.kwargs)
    except TaskDistillError as error:
        raise UnrecordedError(f"of its wrapper {spec.name} {str(error).rstrip('.')}") from None
    return {"entry_point": spec.entry_point, "kwargs": kwargs}


def plain_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Copy arguments into plain data.

    Raises:
        TaskDistillError: One of them has no plain form.
    """
    copied: dict[str, Any] = {}
    for name, value in kwargs.items():
        copied[name] = plain(value, f"the argument {name}")
        if any(not math.isfinite(number) for number in _floats(copied[name])):
            raise TaskDistillError(f"the argument {name} is not finite.")
    return copied


def _floats(value: Any) -> Iterable[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _floats(item)
    elif isinstance(value, list):
        for item in value:
            yield from _floats(item)


def wrapper_class(entry_point: str) -> type[gym.Wrapper[Any, Any, Any, Any]]:
    """Find the class of a wrapper that `describe` described.

    Args:
        entry_point: ``"module:Class"``.

    Raises:
        TaskDistillError: There is no such wrapper, or its module may not be imported; see `trust`.
    """
    module, _, name = entry_point.partition(":")
    found = getattr(trust.load(module, f"The wrapper {name}"), name, None)
    # A wrapper and nothing else: a card could name a function of an imported module that does harm.
    if not (isinstance(found, type) and issubclass(found, gym.Wrapper)):
        raise TaskDistillError(f"There is no wrapper {name} in {module}.")
    if name in TRANSPARENT:
        raise TaskDistillError(f"The wrapper {name} is no part of a task.")
    return found
