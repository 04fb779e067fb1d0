"""The checkpoint of a run: all that its future depends on, in one sealed file without code."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import read_bytes, replacing, sealed, unsealed

#: What goes wrong where a state is of other settings than those it is loaded into.
_MISFITS = (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError)


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state under a temporary name and rename it, so that it is never half there.

    Args:
        path: File to write; an older checkpoint there is replaced.
        state: See `packed`.

    Raises:
        TaskDistillError: The file cannot be written, or something in the state has no such form.
    """
    content = packed(state)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read(path: Path) -> dict[str, Any]:
    """Read a state that `write` wrote, with tensors on the CPU.

    Raises:
        TaskDistillError: The file is missing or damaged.
    """
    what = f'The checkpoint "{path}"'
    return unpacked(read_bytes(path, what), what)


def packed(state: Mapping[str, Any]) -> bytes:
    """Return a state as the bytes of a sealed file.

    Args:
        state: Dictionaries, lists and tuples, nested, of tensors, NumPy arrays (which become tensors),
            numbers, strings, booleans and None. Keys are strings or integers, as in an optimiser's state.

    Raises:
        TaskDistillError: Something in the state has no such form.
    """
    tensors: dict[str, Tensor] = {}
    flat = _flat(state, tensors)
    return sealed(tensors, {"state": flat})


def unpacked(content: bytes, what: str) -> dict[str, Any]:
    """Read what `packed` made, with tensors on the CPU.

    Args:
        content: The bytes.
        what: What messages call it, such as ``The checkpoint "a/b"``.

    Raises:
        TaskDistillError: It is damaged, or something else.
    """
    tensors, meta = unsealed(content, what)
    try:
        state: dict[str, Any] = _nested(meta["state"], tensors)
    except (*_MISFITS, RecursionError):
        raise TaskDistillError(f"{what} is damaged, or of another version.") from None
    return state


def _flat(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the JSON data of a state, in which objects of one key stand for what JSON has not."""
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [_flat(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_flat(item, tensors) for item in value]}
    if isinstance(value, Mapping) and all(type(key) in (str, int) for key in value):
        return {"dict": [[key, _flat(item, tensors)] for key, item in value.items()]}
    raise TaskDistillError(f"A checkpoint cannot hold a {type(value).__name__}.")


def _nested(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_nested(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "float":
            return float(content)
        case "tuple":
            return tuple(_nested(item, tensors) for item in content)
        case "dict":
            return {key: _nested(item, tensors) for key, item in content}
    raise KeyError(kind)


@contextlib.contextmanager
def refusing_misfits(what: str) -> Iterator[None]:
    """Say in one sentence that a state does not fit, where restoring it fails.

    Args:
        what: What messages call it, such as ``The checkpoint "a/b"``.

    Raises:
        TaskDistillError: It belongs to other settings than those of what it was loaded into.
    """
    try:
        yield
    except _MISFITS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TaskDistillError(f"{what} belongs to other settings ({reason}).") from None
