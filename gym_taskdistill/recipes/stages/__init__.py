"""The kinds of stages; a stage maps a task, Λ, and the dataset before it to a dataset."""

from gym_taskdistill.recipes.stages.change import Adapt, RollBack
from gym_taskdistill.recipes.stages.imitate import Imitate
from gym_taskdistill.recipes.stages.ppmo import DirectTask, Distil
from gym_taskdistill.recipes.stages.stage import (
    STAGE_KINDS,
    Outcome,
    Promise,
    Stage,
    Work,
    read_stage,
    register_stage,
)

__all__ = [
    "STAGE_KINDS",
    "Adapt",
    "DirectTask",
    "Distil",
    "Imitate",
    "Outcome",
    "Promise",
    "RollBack",
    "Stage",
    "Work",
    "read_stage",
    "register_stage",
]
