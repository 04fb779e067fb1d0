"""Networks, initialisation laws and the learner distribution Λ."""

from gym_taskdistill.learners.cnn import CNN
from gym_taskdistill.learners.distributions import LearnerDistribution, Mixture
from gym_taskdistill.learners.learners import Learners, LearnerStack, Network
from gym_taskdistill.learners.mlp import MLP
from gym_taskdistill.learners.module import ModuleFamily
from gym_taskdistill.learners.named import (
    ALPHA_A,
    ALPHA_C,
    ANY_NETWORK,
    LEARNER_GROUPS,
    NAMED_LEARNERS,
    TABLE_1,
    LearnersArg,
    learner_distribution,
    register_family,
    without_groups,
)

__all__ = [
    "ALPHA_A",
    "ALPHA_C",
    "ANY_NETWORK",
    "CNN",
    "LEARNER_GROUPS",
    "MLP",
    "NAMED_LEARNERS",
    "TABLE_1",
    "LearnerDistribution",
    "LearnerStack",
    "Learners",
    "LearnersArg",
    "Mixture",
    "ModuleFamily",
    "Network",
    "learner_distribution",
    "register_family",
    "without_groups",
]
