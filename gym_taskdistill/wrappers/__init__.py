"""Raw envs as the learners of a dataset see them."""

from gym_taskdistill.tasks.atari.env import make_atari_env
from gym_taskdistill.wrappers.encode import EncodeObservation
from gym_taskdistill.wrappers.normalize import FrozenNormalizeObservation

__all__ = ["EncodeObservation", "FrozenNormalizeObservation", "make_atari_env"]
