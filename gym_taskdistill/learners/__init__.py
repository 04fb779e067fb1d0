"""Networks, initialisation laws and the learner distribution Λ."""

from gym_taskdistill.learners.distributions import (
    ALPHA_C,
    MLP,
    NAMED_LEARNERS,
    TABLE_1,
    LearnerDistribution,
    Mixture,
    learner_distribution,
    register_family,
)
from gym_taskdistill.learners.learners import Learners, LearnerStack

__all__ = [
    "ALPHA_C",
    "MLP",
    "NAMED_LEARNERS",
    "TABLE_1",
    "LearnerDistribution",
    "LearnerStack",
    "Learners",
    "Mixture",
    "learner_distribution",
    "register_family",
]
