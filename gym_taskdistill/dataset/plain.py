"""Checks of single values; each returns a plain copy or raises `DatasetError` in one sentence."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from gym_taskdistill.errors import DatasetError
from gym_taskdistill.schema import plain, shown


def as_plain(value: Any, where: str) -> Any:
    """Copy a value into plain JSON data, with sorted keys.

    Sorted keys make the readable card the same however the dictionary was filled.

    Args:
        value: Any nesting of mappings, sequences, strings, finite numbers, booleans and None.
        where: Name of the value, for the message.

    Raises:
        DatasetError: If something in it has no plain form.
    """
    return ordered(plain(value, where, DatasetError), where)


def ordered(value: Any, where: str) -> Any:
    """Sort the keys of plain data, and refuse numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: ordered(value[key], f"{where}.{key}") for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [ordered(item, f"{where}[{i}]") for i, item in enumerate(value)]
    return as_float(value, where) if isinstance(value, float) else value


def as_dict(value: Any, where: str) -> dict[str, Any]:
    """Return a plain copy of a dictionary, or raise `DatasetError`."""
    if not isinstance(value, Mapping):
        raise DatasetError(f"{where} must be a dictionary, not {shown(value)}.")
    copy: dict[str, Any] = as_plain(value, where)
    return copy


def as_str(value: Any, where: str, *, empty: bool = True) -> str:
    """Return a string, non-empty unless ``empty``, or raise `DatasetError`."""
    if not isinstance(value, str) or not (value or empty):
        raise DatasetError(f"{where} must be a {'' if empty else 'non-empty '}string, not {shown(value)}.")
    return value


def as_bool(value: Any, where: str) -> bool:
    """Return a boolean, or raise `DatasetError`."""
    if not isinstance(value, bool | np.bool_):
        raise DatasetError(f"{where} must be true or false, not {shown(value)}.")
    return bool(value)


def as_int(value: Any, where: str, *, minimum: int | None = None) -> int:
    """Return a Python integer of at least ``minimum``, or raise `DatasetError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise DatasetError(f"{where} must be an integer, not {shown(value)}.")
    if minimum is not None and value < minimum:
        raise DatasetError(f"{where} is {value}, but must be at least {minimum}.")
    return int(value)


def as_float(value: Any, where: str, *, minimum: float | None = None) -> float:
    """Return a finite Python float of at least ``minimum``, or raise `DatasetError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise DatasetError(f"{where} must be a number, not {shown(value)}.")
    try:
        number = float(value)
    except OverflowError:  # 10**400 is an integer that no float can hold
        number = math.inf
    if not math.isfinite(number):
        raise DatasetError(f"{where} is {number}, but must be finite.")
    if minimum is not None and number < minimum:
        raise DatasetError(f"{where} is {number}, but must be at least {minimum}.")
    return number
