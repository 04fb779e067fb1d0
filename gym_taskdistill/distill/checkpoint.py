"""The checkpoint of a run: all that its future depends on, in one sealed file without code."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gym_taskdistill.distill import statistics
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import read_sealed, write_sealed

if TYPE_CHECKING:
    from gym_taskdistill.distill.ppmo import PPMO

#: What goes wrong where a state is of other settings than those it is loaded into.
_MISFITS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state under a temporary name and rename it, so that it is never half there.

    Args:
        path: File to write; an older checkpoint there is replaced.
        state: Dictionaries, lists and tuples, nested, of tensors, NumPy arrays (which become tensors),
            numbers, strings, booleans and None. Keys are strings or integers, as in an optimiser's state.

    Raises:
        TaskDistillError: The file cannot be written, or something in the state has no such form.
    """
    tensors: dict[str, Tensor] = {}
    write_sealed(path, tensors, {"state": _flat(state, tensors)})


def read(path: Path) -> dict[str, Any]:
    """Read a state that `write` wrote, with tensors on the CPU.

    Raises:
        TaskDistillError: The file is missing or damaged.
    """
    tensors, meta = read_sealed(path, f'The checkpoint "{path}"')
    try:
        state: dict[str, Any] = _nested(meta["state"], tensors)
    except (*_MISFITS, RecursionError):
        raise TaskDistillError(f'The checkpoint "{path}" is damaged, or of another version.') from None
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


def write_model(model: PPMO, path: Path) -> None:
    """Write a run's checkpoint.

    Args:
        model: The run's algorithm, about to begin its next segment.
        path: File to write.
    """
    state = {
        "loop": model.loop.state(),
        "critic": model.policy.critic.state_dict(),
        "segment": model.segment + 1,
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "wall_clock_s": model.wall_clock_s,
        "episodes": [[float(e["r"]), int(e["l"])] for e in model.ep_info_buffer or ()],
        "statistics": statistics.state(model.get_vec_normalize_env()),
    }
    write(path, state)


def read_model(model: PPMO, path: Path) -> int:
    """Restore what `write_model` wrote into an algorithm that was made with the same settings.

    Args:
        model: The algorithm.
        path: The checkpoint.

    Returns:
        Number of the segment that the run begins now.

    Raises:
        TaskDistillError: The file cannot be read or belongs to other settings.
    """
    state = read(path)
    try:
        model.loop.load_state(state["loop"])
        model.policy.critic.load_state_dict(state["critic"])
        model.num_timesteps = state["num_timesteps"]
        model._n_updates = state["n_updates"]
        model.earlier_s = state["wall_clock_s"]
        window = model._stats_window_size
        model.ep_info_buffer = deque(
            ({"r": r, "l": length} for r, length in state["episodes"]), maxlen=window
        )
        model.ep_success_buffer = deque(maxlen=window)
        statistics.load_state(model.get_vec_normalize_env(), state["statistics"])
        return int(state["segment"])
    except _MISFITS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TaskDistillError(f'The checkpoint "{path}" belongs to other settings ({reason}).') from None
