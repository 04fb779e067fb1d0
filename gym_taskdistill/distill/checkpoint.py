"""The checkpoint of a run: all that its future depends on, in one file without code."""

from __future__ import annotations

import pickle
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gym_taskdistill.distill import statistics
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import replacing

if TYPE_CHECKING:
    from gym_taskdistill.distill.ppmo import PPMO


def write(model: PPMO, path: Path) -> None:
    """Write a checkpoint to a temporary name and rename it, so that it is never half there.

    Args:
        model: The run's algorithm, about to begin its next segment.
        path: File to write; an older checkpoint there is replaced.
    """
    state: dict[str, Any] = {
        "policy": model.policy.state_dict(),
        "optimizer": model.optimizer.state_dict(),
        "critic_optimizer": model.critic_optimizer.state_dict(),
        "segment": model.segment + 1,
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "wall_clock_s": model.wall_clock_s,
        "episodes": [[float(e["r"]), int(e["l"])] for e in model.ep_info_buffer or ()],
        "statistics": statistics.state(model.get_vec_normalize_env()),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def read(model: PPMO, path: Path) -> int:
    """Restore what `write` wrote into an algorithm that was made with the same settings.

    Args:
        model: The algorithm.
        path: The checkpoint.

    Returns:
        Number of the segment that the run begins now.

    Raises:
        TaskDistillError: The file cannot be read or belongs to other settings.
    """
    try:
        state = torch.load(path, map_location=model.device, weights_only=True)
        model.policy.load_state_dict(state["policy"])
        model.optimizer.load_state_dict(state["optimizer"])
        model.critic_optimizer.load_state_dict(state["critic_optimizer"])
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
    except (
        OSError,
        EOFError,
        KeyError,
        RuntimeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise TaskDistillError(
            f'The checkpoint "{path}" is damaged or belongs to other settings ({reason}).'
        ) from None
