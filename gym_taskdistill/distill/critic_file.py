"""The critic's file beside a dataset's: what another run needs to start there without a warm-up.

A sealed file with the critic's parameters, the running statistics of returns by which rewards are
normalised, and the digest of the dataset whose critic it is. A dataset does not need it: agents never see a
critic. Files of the first version are plain ``.safetensors`` without a seal and without a digest.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor

from gym_taskdistill.distill.segments import SegmentedAlgorithm
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import unsealed, write_sealed
from gym_taskdistill.paths import critic_path

#: Mean, variance and count of the returns, where the run normalised rewards.
RETURNS = "returns"


def write(model: SegmentedAlgorithm, path: Path, digest: str) -> None:
    """Write a run's critic under a temporary name and rename it.

    Args:
        model: The run's algorithm.
        path: File to write.
        digest: Digest of the dataset beside which it lies.

    Raises:
        TaskDistillError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = dict(model.policy.critic.state_dict())
    returns = _returns(model)
    if returns is not None:
        moments = (float(returns.mean), float(returns.var), float(returns.count))
        tensors[RETURNS] = torch.tensor(moments, dtype=torch.float64)
    write_sealed(path, tensors, {"dataset": digest})


def read(model: SegmentedAlgorithm, path: Path, digest: str) -> bool:
    """Let a run go on with a critic that `write` wrote.

    Args:
        model: An algorithm, whose critic starts afresh until now.
        path: The file.
        digest: Digest of the dataset beside which it lies.

    Returns:
        Whether the critic fits; one of another dataset, of other layers, or of rewards that were normalised
        otherwise, is left.

    Raises:
        TaskDistillError: The file cannot be read.
    """
    tensors, of_dataset = load(path)
    if of_dataset not in (None, digest):
        return False
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


def of_dataset(dataset: Path, digest: str) -> bytes | None:
    """Return the bytes of the critic beside a dataset's file, to be copied along with it.

    Args:
        dataset: The dataset's file.
        digest: The dataset's digest.

    Returns:
        The bytes; None if there is no critic, or only a damaged one or one of another dataset.
    """
    path = critic_path(dataset)
    try:
        return path.read_bytes() if path.is_file() and load(path)[1] in (None, digest) else None
    except (OSError, TaskDistillError):
        return None


def load(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read a critic's tensors, and the digest of its dataset; None in a file of the first version.

    Raises:
        TaskDistillError: The file cannot be read or is damaged.
    """
    what = f'The critic "{path}"'
    try:
        content = path.read_bytes()
        # A sealed file has metadata, however damaged; one of the first version has none.
        if b"__metadata__" not in content[:64]:
            return safetensors.torch.load(content), None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise TaskDistillError(f"{what} cannot be read ({reason}).") from None
    tensors, meta = unsealed(content, what)
    return tensors, str(meta.get("dataset"))


def _returns(model: SegmentedAlgorithm) -> RunningMeanStd | None:
    normalizer = model.get_vec_normalize_env()
    if normalizer is None or not normalizer.norm_reward:
        return None
    returns: RunningMeanStd = normalizer.ret_rms
    return returns
