"""The distilled dataset {X_d, Y_d}: what it holds, how observations are shown, its card and its file."""

from gym_taskdistill.dataset.card import Card, Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.spaces import k_min

__all__ = ["Card", "DistilledDataset", "Score", "k_min"]
