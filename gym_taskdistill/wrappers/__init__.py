"""Wrappers that show a raw env as the learners of a dataset see it."""

from gym_taskdistill.wrappers.encode import EncodeObservation
from gym_taskdistill.wrappers.normalize import FrozenNormalizeObservation

__all__ = ["EncodeObservation", "FrozenNormalizeObservation"]
