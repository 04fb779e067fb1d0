"""Bounds on descriptions of learners, so that a file cannot ask for more than a machine can give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners.layers import Layer

#: Units and channels of a layer.
MAX_SIZE = 2**20

#: Members of a mixture, and layers.
MAX_PARTS = 1000

#: All weights of a mixture together.
MAX_SHARES = 10_000

#: Parameters of one learner: half a gigabyte.
MAX_PARAMETERS = 2**27

#: Integers, or lists of them, by their name.
_SIZES = ("width", "depth", "channels", "kernel_sizes", "strides", "hidden")

#: Numbers that may have a fraction, by their name; and what is true or false.
_FRACTIONS = ("gain", "last_gain")
_SWITCHES = ("per_batch",)


def check_description(spec: Any) -> None:
    """Refuse sizes that no machine holds in the description of a built-in family; others are not looked at.

    Args:
        spec: The description; mixtures hold others.

    Raises:
        ValueError: A size is out of range.
    """
    if not isinstance(spec, Mapping):
        return
    match spec.get("family"):
        case "mixture":
            members, weights = spec.get("members", ()), spec.get("weights", ())
            for name, parts in (("members", members), ("weights", weights)):
                if not isinstance(parts, list | tuple) or len(parts) > MAX_PARTS:
                    raise ValueError(f"A mixture's {name} must be a list of at most {MAX_PARTS}.")
            for weight in weights:
                _check_number("weights", weight, MAX_SHARES)
            if sum(weights) > MAX_SHARES:
                raise ValueError(f"A mixture's weights must add up to at most {MAX_SHARES}.")
            for member in members:
                check_description(member)
        case "mlp" | "cnn":
            for name, value in spec.items():
                if name in _SWITCHES and not isinstance(value, bool):
                    raise ValueError(f"Learners' {name} must be true or false.")
                values = value if isinstance(value, list | tuple) and name not in _FRACTIONS else [value]
                if len(values) > MAX_PARTS:
                    raise ValueError(f"Learners' {name} must be a list of at most {MAX_PARTS}.")
                for part in values:
                    if name in _FRACTIONS + _SIZES:
                        maximum = MAX_PARTS if name == "depth" else MAX_SIZE
                        _check_number(name, part, maximum, fraction=name in _FRACTIONS)


def n_parameters(layers: Sequence[Layer]) -> int:
    """Return how many parameters a network of some layers has.

    Raises:
        TaskDistillError: They are more than `MAX_PARAMETERS`.
    """
    total = 0
    for layer in layers:
        for shape in layer.shapes:
            size = 1
            for side in shape:
                size *= side
            total += size
    if total > MAX_PARAMETERS:
        raise TaskDistillError(
            f"A learner would have {total:,} parameters, but {MAX_PARAMETERS:,} are the most; use narrower "
            "or fewer layers."
        )
    return total


def _check_number(name: str, value: Any, maximum: int, fraction: bool = False) -> None:
    if fraction and value is None:
        return
    kinds = (int, float) if fraction else int
    if isinstance(value, bool) or not isinstance(value, kinds) or not -maximum <= value <= maximum:
        kind = "a number" if fraction else "an integer"
        raise ValueError(f"Learners' {name} must be {kind} of at most {maximum}.")
