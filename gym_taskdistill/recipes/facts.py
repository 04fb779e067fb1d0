"""What a case of a recipe file may ask of a task: its id, its arguments, and facts of its spaces."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from gymnasium import spaces

from gym_taskdistill.dataset.card import bare_id
from gym_taskdistill.dataset.spaces import is_image, space_to_dict
from gym_taskdistill.errors import did_you_mean
from gym_taskdistill.recipes.stages.stage import RecipeError
from gym_taskdistill.schema import shown
from gym_taskdistill.tasks import Task

_SPACES = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")


def _observation_space(task: Task) -> str:
    return "image" if _image_side(task) else type(task.observation_space).__name__


def _observation_size(task: Task) -> int:
    return math.prod(task.flat_observation_space.shape)


def _image_side(task: Task) -> int | None:
    if not isinstance(task.observation_space, spaces.Box):
        return None
    space = task.flat_observation_space  # its channels come first
    return min(space.shape[1:]) if is_image(space_to_dict(space)) else None


#: Facts of a task's spaces, which take an environment to tell.
SPACE_FACTS: dict[str, Callable[[Task], str | int | None]] = {
    "action_space": lambda task: type(task.action_space).__name__,
    "observation_space": _observation_space,
    "observation_size": _observation_size,
    "image_side": _image_side,
}

#: What facts that are words may be; the others are integers.
WORDS: dict[str, tuple[str, ...]] = {
    "action_space": _SPACES,
    "observation_space": (*_SPACES, "Dict", "Tuple", "image"),
}


def check_conditions(conditions: Mapping[str, Any], arguments: Collection[str], where: str) -> None:
    """Refuse conditions that no task could ever meet.

    Args:
        conditions: What a case's ``when`` says.
        arguments: Names of the arguments that the file's tasks have.
        where: Where it stands, for messages.

    Raises:
        RecipeError: There is no such fact or argument, or a fact is never so.
    """
    known = ["env_id", *SPACE_FACTS, *arguments]
    for name, wanted in conditions.items():
        if name not in known:
            raise RecipeError(
                f"{where}: a case cannot ask for {shown(name)}; it asks for {', '.join(known)}."
                f"{did_you_mean(str(name), known)} An argument must be one of a task under tasks:."
            )
        if isinstance(wanted, Mapping):
            _check_range(name, wanted, f"{where}.{name}")
        elif name in SPACE_FACTS:
            for value in _listed(wanted):
                _check_value(name, value, f"{where}.{name}")


def _check_range(name: str, wanted: Mapping[str, Any], where: str) -> None:
    numbers = [value for value in wanted.values() if isinstance(value, int | float)]
    if name in WORDS or not wanted or set(wanted) - {"min", "max"} or len(numbers) < len(wanted):
        example = "one of its values, or a list of them" if name in WORDS else "such as {min: 65, max: 512}"
        raise RecipeError(f"{where} is {shown(dict(wanted))}, but must be {example}.")


def _check_value(name: str, value: Any, where: str) -> None:
    words = WORDS.get(name)
    if words is None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise RecipeError(f"{where} is {shown(value)}, but must be an integer or {{min: …, max: …}}.")
    elif value not in words:
        raise RecipeError(
            f"{where} is {shown(value)}, but must be one of {', '.join(words)}."
            f"{did_you_mean(str(value), words)}"
        )


def agrees(conditions: Mapping[str, Any], task: Task) -> bool:
    """Tell whether a task meets all conditions of a case.

    Its spaces are looked at last, for they take an environment.

    Raises:
        TaskDistillError: They are asked for, and the environment cannot be made.

    >>> cart_pole = Task("CartPoleND-v0", {"n": 2})
    >>> agrees({"n": [2, 3], "action_space": "Discrete", "observation_size": {"max": 8}}, cart_pole)
    True
    >>> agrees({"n": {"min": 3}}, cart_pole)
    False
    """
    ordered = sorted(conditions.items(), key=lambda item: item[0] in SPACE_FACTS)
    return all(_is_met(wanted, _fact(task, name)) for name, wanted in ordered)


def _fact(task: Task, name: str) -> Any:
    if name == "env_id":
        return bare_id(task.env_id)
    return SPACE_FACTS[name](task) if name in SPACE_FACTS else task.env_kwargs.get(name)


def _is_met(wanted: Any, fact: Any) -> bool:
    if isinstance(wanted, Mapping):
        if isinstance(fact, bool) or not isinstance(fact, int | float):
            return False
        return bool(wanted.get("min", -math.inf) <= fact <= wanted.get("max", math.inf))
    return fact in _listed(wanted)


def _listed(wanted: Any) -> list[Any]:
    return list(wanted) if isinstance(wanted, list | tuple) else [wanted]
