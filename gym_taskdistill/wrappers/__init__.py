"""Wrappers that show a raw env as a dataset sees it."""

from gym_taskdistill.wrappers.normalize import FrozenNormalizeObservation

__all__ = ["FrozenNormalizeObservation"]
