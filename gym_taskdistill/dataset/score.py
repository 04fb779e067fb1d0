"""What fresh learners scored after their inner steps on a dataset."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from gym_taskdistill.dataset.aggregates import Aggregates
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.schema import Schema


def digits(mean: float) -> int:
    """Return how many decimals of returns to print: 2 of small ones such as Reacher's, else 1."""
    return 2 if abs(mean) < 10 else 1


def _rounded(means: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(mean, 2) for mean in means)


class Score(Schema):
    """What fresh learners scored after their inner steps on the dataset.

    Attributes:
        learners: Name of the learner distribution that was tested, such as ``"alpha_c"``.
        deterministic: Whether the policies took their mode instead of sampling.
        n_agents: Number of fresh learners, at least 1.
        n_episodes: Full episodes played by each learner, at least 1.
        seed: Seed of the evaluation.
        env_id: Environment that was played.
        mean: Mean raw episode return over agents.
        std: Standard deviation over agents, at least 0.
        min: Worst agent's mean return.
        agent_means: Mean return of every agent, rounded to 2 decimals; may be left empty.

    Raises:
        DatasetError: If a value is not of its type or range.
    """

    error: ClassVar[type[TaskDistillError]] = DatasetError
    label: ClassVar[str] = "score"

    learners: str
    deterministic: bool
    n_agents: Annotated[int, Field(ge=1)]
    n_episodes: Annotated[int, Field(ge=1)]
    seed: int
    env_id: Annotated[str, Field(min_length=1)]
    mean: float
    std: Annotated[float, Field(ge=0)]
    min: float
    agent_means: Annotated[tuple[float, ...], AfterValidator(_rounded)] = ()

    @model_validator(mode="after")
    def _one_mean_for_each_agent(self) -> Self:
        if self.agent_means and len(self.agent_means) != self.n_agents:
            raise ValueError(f"agent_means has {len(self.agent_means)} values for {self.n_agents} agents")
        return self

    @property
    def aggregates(self) -> Aggregates | None:
        """What the agents' means come to; ``None`` where the card does not keep them."""
        return Aggregates.of(self.agent_means) if self.agent_means else None

    @property
    def figures(self) -> tuple[str, str, str]:
        """Mean, std and min as they are printed."""
        mean, std, worst = (f"{value:.{digits(self.mean)}f}" for value in (self.mean, self.std, self.min))
        return mean, std, worst

    @property
    def protocol(self) -> str:
        """How the numbers were made, in one line to print beside them."""
        policy = "deterministic" if self.deterministic else "stochastic"
        return (
            f"{self.n_agents} fresh {self.learners} learners x {self.n_episodes} full episodes of "
            f"{self.env_id}, no environment interaction before the test, {policy} policy, "
            f"raw rewards, seed {self.seed}; mean, std and min over agents"
        )
