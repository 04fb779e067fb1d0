"""The critic's file beside a dataset's: what another run needs to go on from there without a warm-up.

A plain ``.safetensors`` with the critic's parameters and the running statistics of returns by which rewards
are normalised. A dataset does not need it: agents never see a critic.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import write_all

if TYPE_CHECKING:
    from gym_taskdistill.distill.ppmo import PPMO

#: Mean, variance and count of the returns, where the run normalised rewards.
RETURNS = "returns"


def critic_path(dataset: Path) -> Path:
    """Return where the critic of a dataset's file lies.

    >>> critic_path(Path("best.safetensors")).name
    'best.critic.safetensors'
    """
    return dataset.with_suffix(f".critic{dataset.suffix}")


def write(model: PPMO, path: Path) -> None:
    """Write a run's critic under a temporary name and rename it.

    Args:
        model: The run's algorithm.
        path: File to write.

    Raises:
        TaskDistillError: The file cannot be written.
    """
    tensors = {name: value.detach().cpu() for name, value in model.policy.critic.state_dict().items()}
    returns = _returns(model)
    if returns is not None:
        moments = (float(returns.mean), float(returns.var), float(returns.count))
        tensors[RETURNS] = torch.tensor(moments, dtype=torch.float64)
    try:
        write_all({path: save(tensors)})
    except OSError as error:
        raise TaskDistillError(f'The critic "{path}" cannot be written: {error.strerror}.') from None


def read(model: PPMO, path: Path) -> bool:
    """Let a run go on with a critic that `write` wrote.

    Args:
        model: An algorithm, whose critic starts afresh until now.
        path: The file.

    Returns:
        Whether the critic fits; one of other layers, or of rewards that were normalised otherwise, is left.

    Raises:
        TaskDistillError: The file cannot be read.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path, device=str(model.device))
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise TaskDistillError(f'The critic "{path}" cannot be read ({error}).') from None
    moments, returns = tensors.pop(RETURNS, None), _returns(model)
    shapes = {name: value.shape for name, value in model.policy.critic.state_dict().items()}
    if shapes != {name: value.shape for name, value in tensors.items()}:
        return False
    if (moments is None) != (returns is None):
        return False
    model.policy.critic.load_state_dict(tensors)
    if moments is not None and returns is not None:
        mean, var, count = moments.tolist()
        returns.mean, returns.var, returns.count = np.array(mean), np.array(var), count
    return True


def _returns(model: PPMO) -> RunningMeanStd | None:
    normalizer = model.get_vec_normalize_env()
    if normalizer is None or not normalizer.norm_reward:
        return None
    returns: RunningMeanStd = normalizer.ret_rms
    return returns
