"""The method: the dataset, the inner step, and PPMO."""

from gym_taskdistill.distill.card import Card, Score
from gym_taskdistill.distill.dataset import DistilledDataset, k_min
from gym_taskdistill.distill.ppmo import PPMO

__all__ = ["PPMO", "Card", "DistilledDataset", "Score", "k_min"]
