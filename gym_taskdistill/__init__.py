"""gym-taskdistill: distil RL environments into datasets that train a fresh network in one step."""

from importlib import metadata
from typing import TYPE_CHECKING, Any

from gym_taskdistill import envs as envs  # registers the environments
from gym_taskdistill.dataset import DistilledDataset
from gym_taskdistill.policies.policy import DistilledPolicy

if TYPE_CHECKING:
    from gym_taskdistill.distill.ppmo import PPMO

__all__ = ["PPMO", "DistilledDataset", "DistilledPolicy"]

try:
    __version__ = metadata.version("gym-taskdistill")
except metadata.PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    # Who only uses datasets need not wait for the trainer.
    if name == "PPMO":
        from gym_taskdistill.distill.ppmo import PPMO

        return PPMO
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
