"""Tasks T_0: environments, how to make them, and their adapters to SB3's `VecEnv`."""

from gym_taskdistill.tasks.record import EnvArg, as_task, task_in
from gym_taskdistill.tasks.task import Task

__all__ = ["EnvArg", "Task", "as_task", "task_in"]
