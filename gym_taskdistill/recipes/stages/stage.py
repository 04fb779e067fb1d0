"""What every stage is: settings that can be checked, and work that can be resumed."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.lineage import StageRecord
from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.learners import LearnerDistribution, learner_distribution
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.recipes.settings import EvaluationPlan
from gym_taskdistill.schema import Schema
from gym_taskdistill.tasks import Task

#: Name of the file that a stage leaves behind; it is there when the stage is done.
RESULT = "dataset.safetensors"


class RecipeError(TaskDistillError, ValueError):
    """Raised when a recipe does not exist or says something that cannot be done."""


@dataclass(frozen=True)
class Promise:
    """What is known of a dataset before the stage that makes it has run.

    Attributes:
        k: Number of rows.
        learners: What it is distilled over.
        encoder_layers: l, the layers of its encoder.
        task: What it is distilled for.
    """

    k: int
    learners: LearnerDistribution
    encoder_layers: int
    task: Task

    @classmethod
    def of(cls, dataset: DistilledDataset) -> Promise:
        """Describe a dataset that exists."""
        card = dataset.card
        return cls(
            dataset.k,
            learner_distribution(card.learners),
            dataset.encoder_layers,
            dataset.task,
        )


class Stopwatch:
    """Seconds that a stage took, over all resumptions.

    Args:
        earlier: Seconds before this process.
    """

    def __init__(self, earlier: float = 0.0) -> None:
        self.earlier = earlier
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return self.earlier + time.monotonic() - self._start


@dataclass
class Work:
    """Where a stage works, and with what.

    Attributes:
        task: What is distilled.
        folder: The stage's own folder; what lies there from an earlier attempt is resumed.
        seed: Seed of the stage's training.
        selection_seed: Seed of the tests that choose the best dataset.
        evaluation: How the dataset is tested.
        before: File of the dataset that the stage before made, with its critic beside it; ``None`` at the
            first stage.
        resolve: Finds the dataset file of another variant or of a zoo entry, which is made first if need be.
        device: Torch device.
        progress_bar: Whether to show progress.
        report: Called with the means of all tests so far after each test; may raise to stop the stage.
        stopwatch: Seconds so far; a stage that resumes sets those before.
    """

    task: Task
    folder: Path
    seed: int
    selection_seed: int
    evaluation: EvaluationPlan
    before: Path | None = None
    resolve: Callable[[str], Path] = Path
    device: str = "cpu"
    progress_bar: bool = False
    report: Callable[[list[float]], None] | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def checkpoint(self) -> Path:
        """The stage's newest checkpoint."""
        return self.folder / "checkpoint.safetensors"

    def tested(self, dataset: DistilledDataset) -> DistilledDataset:
        """Test a dataset on the selection seed, and return it with that score in its card."""
        plan = self.evaluation
        result = evaluate(dataset, plan.n_agents, plan.n_episodes, seed=self.selection_seed, env=self.task)
        return dataset.replace(card=dataset.card.replace(selection=result.score))

    def load_before(self) -> DistilledDataset | None:
        """Read the dataset of the stage before, if there was one."""
        return None if self.before is None else DistilledDataset.load(self.before)


@dataclass(frozen=True)
class Outcome:
    """What a stage made.

    Attributes:
        dataset: The dataset; its card has the score on the selection seed (``card.selection``) if the stage
            tested it.
        env_steps: Env steps that it took.
        inputs: What went in, by role, such as ``"before"`` and ``"expert"``: datasets, whose lineages become
            part of this one's, or SHA-256 digests of other files.
        critic: Bytes of the file of the critic that was trained beside it, if any.
        settings: What the machine decided in the place of settings that left it open, by their names.
    """

    dataset: DistilledDataset
    env_steps: int = 0
    inputs: Mapping[str, DistilledDataset | str] = field(default_factory=dict)
    critic: bytes | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """Digests of what went in, by role."""
        return {role: one if isinstance(one, str) else one.digest for role, one in self.inputs.items()}

    @property
    def lineage(self) -> tuple[StageRecord, ...]:
        """The stages that made what went in, each once, first to last."""
        records = [
            record
            for one in self.inputs.values()
            if isinstance(one, DistilledDataset)
            for record in one.card.lineage
        ]
        return tuple(record for i, record in enumerate(records) if record not in records[:i])


class Stage(Schema):
    """The settings of one stage. A kind of stage is a subclass, made known by `register_stage`.

    Everything is checked before a run's folder exists: types and ranges when the settings are read, what
    depends on the task or on the stages before by `check`.
    """

    error: ClassVar[type[TaskDistillError]] = RecipeError
    kind: ClassVar[str] = ""
    #: Whether a source stands in for the dataset before.
    starts_from_source: ClassVar[bool] = False

    @abstractmethod
    def check(self, task: Task, before: Promise | None) -> Promise:
        """Refuse settings that do not fit the task or the dataset before.

        Args:
            task: What is distilled.
            before: What the stage before will have made; ``None`` at the first stage.

        Returns:
            What this stage will make.

        Raises:
            TaskDistillError: They do not fit.
        """

    @abstractmethod
    def run(self, work: Work) -> Outcome:
        """Make the dataset, from the newest checkpoint of an earlier attempt if there is one.

        Killed at any moment and run again, it makes the same dataset, bit for bit.
        """

    def sources(self) -> tuple[str, ...]:
        """Names of the variants or zoo entries that must be there first."""
        return ()

    def described(self) -> dict[str, Any]:
        """Return the stage as a recipe writes it, with all its settings: ``{"ppmo": {…}}``."""
        return {self.kind: self.to_dict()}


#: Kinds of stages by name.
STAGE_KINDS: dict[str, type[Stage]] = {}

S = TypeVar("S", bound=type[Stage])


def register_stage(kind: str) -> Callable[[S], S]:
    """Make a kind of stage known to recipes, as a class decorator.

    Raises:
        ValueError: The name is taken.
    """

    def register(cls: S) -> S:
        if kind in STAGE_KINDS:
            raise ValueError(f'The kind of stage "{kind}" exists already; choose another name.')
        cls.kind = kind
        STAGE_KINDS[kind] = cls
        return cls

    return register


def read_stage(data: Any, source: str) -> Stage:
    """Read a stage as a recipe writes it: a mapping of one kind to its settings.

    Args:
        data: Such as ``{"ppmo": {"k": 64}}``.
        source: Where it stands, for messages.

    Raises:
        RecipeError: There is no such kind, or a setting is wrong.
    """
    if not isinstance(data, Mapping) or len(data) != 1:
        raise RecipeError(f"{source} must be one kind of stage with its settings, such as ppmo: {{k: 64}}.")
    ((kind, settings),) = data.items()
    if kind not in STAGE_KINDS:
        raise RecipeError(
            f'{source}: there is no kind of stage "{str(kind)[:80]}"; known are {", ".join(STAGE_KINDS)}.'
            f"{did_you_mean(str(kind), STAGE_KINDS)}"
        )
    return STAGE_KINDS[kind].read(settings or {}, f"{source}.{kind}")


def refuse_other(name: str, own: object, other: object, kind: str) -> None:
    """Refuse a setting that differs from what the stage before has made.

    Args:
        name: The setting.
        own: Its value.
        other: What the stage before has made.
        kind: Kind of the stage.

    Raises:
        RecipeError: They differ.
    """
    if own != other:
        raise RecipeError(
            f"The stage {kind} has {name}={own}, but the stage before makes a dataset with {other}; "
            "give both the same, best under settings."
        )
