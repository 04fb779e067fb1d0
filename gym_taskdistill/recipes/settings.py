"""Settings that several kinds of stages share, each with its type and its range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from stable_baselines3.common.utils import LinearSchedule
from typing_extensions import Self

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import inner_rule
from gym_taskdistill.learners import LEARNER_GROUPS, NAMED_LEARNERS, learner_distribution, without_groups
from gym_taskdistill.policies.evaluation import MAX_EPISODES
from gym_taskdistill.schema import Schema

#: The largest learning rate; beyond it one step leaves nothing finite.
MAX_RATE = 1000


def _rate(value: Any) -> Any:
    """Accept a number, or a linear schedule as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number, or a schedule such as lin_0.01 or lin_0.01_0.001")
    if isinstance(value, str):
        parts = value.removeprefix("lin_").split("_") if value.startswith("lin_") else []
        try:
            ends = [float(part) for part in parts]
        except ValueError:
            ends = []
        if len(ends) not in (1, 2) or not all(0 <= end <= MAX_RATE for end in ends):
            raise ValueError("must be a number, or a schedule such as lin_0.01 or lin_0.01_0.001")
    elif not 0 <= value <= MAX_RATE:
        raise ValueError(f"must be a finite number that is at least 0 and at most {MAX_RATE}")
    return value


def _learners(value: Any) -> Any:
    if not isinstance(value, str | Mapping):
        raise ValueError("must be the name of a learner distribution, or a mapping with its family")
    try:
        learner_distribution(value)
    except TaskDistillError as error:
        raise ValueError(str(error)) from None
    return value


def _columns(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if name not in LEARNER_GROUPS and name not in NAMED_LEARNERS:
            known = ", ".join([*LEARNER_GROUPS, *NAMED_LEARNERS])
            raise ValueError(f'must name learner distributions, but there is no "{name}"; known are {known}')
    return value


def _inner(value: dict[str, Any]) -> dict[str, Any]:
    try:
        inner_rule(value)
    except TaskDistillError as error:
        raise ValueError(str(error)) from None
    return value


#: A number, or a linear schedule: ``lin_0.01`` falls to 0, ``lin_0.01_0.001`` to 0.001.
Rate = Annotated[float | str, BeforeValidator(_rate)]

#: A learner distribution, by name or as a mapping.
LearnersSetting = Annotated[str | dict[str, Any], BeforeValidator(_learners)]

#: How learners are trained on the rows; see `InnerSGD` and `Ridge`.
InnerSetting = Annotated[dict[str, Any], AfterValidator(_inner)]

#: Counts of steps and of updates, and how many of something a machine holds at once.
Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=1, le=2**24)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
#: Factors: beyond this range float32 does not hold what comes of them.
Positive = Annotated[float, Field(ge=1e-9, le=1e9)]
Weight = Annotated[float, Field(ge=0, le=1e9)]


def schedule(rate: float | str) -> Any:
    """Build what SB3 takes from a `Rate`.

    >>> schedule("lin_0.2_0.1")(0.5)
    0.15000000000000002
    """
    if not isinstance(rate, str):
        return rate
    start, *rest = (float(part) for part in rate.removeprefix("lin_").split("_"))
    (end,) = rest or (0.0,)
    return LinearSchedule(start, end, 1.0)


class EvaluationPlan(Schema):
    """How datasets are tested, within a stage and at the end of a run.

    Attributes:
        eval_freq: Env steps between two tests that choose the best dataset; 0 for 20 tests in a stage.
        n_agents: Fresh agents in each of those.
        n_episodes: Episodes for each.
        final_agents: Fresh agents in the final score, which is on the test seed.
        final_episodes: Episodes for each.
        final_learners: Learner distributions of the final score, a row for each; ``table_1`` stands for the
            paper's six, ``any_network`` for twelve that differ more. Empty for the recipe's own.
    """

    error: ClassVar[type[TaskDistillError]] = TaskDistillError

    eval_freq: NonNegative = 0
    n_agents: Size = 32
    n_episodes: Size = 8
    final_agents: Size = 100
    final_episodes: Size = 100
    final_learners: Annotated[tuple[str, ...], AfterValidator(_columns)] = ()

    @model_validator(mode="after")
    def _can_be_held(self) -> Self:
        for name in ("n", "final"):
            agents, episodes = getattr(self, f"{name}_agents"), getattr(self, f"{name}_episodes")
            if agents * episodes > MAX_EPISODES:
                raise ValueError(f"{name}_agents x {name}_episodes must be at most {MAX_EPISODES:,} episodes")
        return self

    @property
    def columns(self) -> tuple[str | None, ...]:
        """Learner distributions of the final score, ``None`` for the recipe's own."""
        return tuple(without_groups(self.final_learners)) or (None,)
