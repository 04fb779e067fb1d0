"""gym-taskdistill: distil RL environments into datasets that train a fresh network in one step."""

from gym_taskdistill import envs as envs  # registers the environments
from gym_taskdistill.distill import PPMO, DistilledDataset
from gym_taskdistill.policy import DistilledPolicy

__all__ = ["PPMO", "DistilledDataset", "DistilledPolicy"]
