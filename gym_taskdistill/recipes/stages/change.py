"""The stages that change a dataset by arithmetic: ``adapt`` and ``roll_back``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from gym_taskdistill.dataset.adapt import adapt, check_adapt, roll_back
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.inner.rule import MAX_RATE
from gym_taskdistill.learners import MLP
from gym_taskdistill.recipes.settings import Size
from gym_taskdistill.recipes.stages.stage import Outcome, Promise, RecipeError, Stage, Work, register_stage
from gym_taskdistill.tasks import Task


@register_stage("adapt")
class Adapt(Stage):
    """Change what a dataset is for: another version of its task, wider learners, more or less noise.

    Attributes:
        source: A variant or a zoo entry to change in place of the dataset before, such as
            ``Ant-v4/one-step``; what no clone has is made first.
        width: Width of the learners' hidden layers.
        log_std: Log standard deviation of the agents' actions.
        lr_hidden: Factor on the inner learning rate in all layers but the last; 0 trains the last alone.
    """

    starts_from_source: ClassVar[bool] = True

    source: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    width: Size | None = None
    log_std: Annotated[float, Field(ge=-20, le=2)] | None = None
    lr_hidden: Annotated[float, Field(ge=0, le=MAX_RATE)] | None = None

    def sources(self) -> tuple[str, ...]:
        """Return the dataset to change, if it is not the stage before's."""
        return () if self.source is None else (self.source,)

    def check(self, task: Task, before: Promise | None) -> Promise:
        """Refuse a change that the dataset before cannot undergo; see the base class."""
        if before is None:
            raise RecipeError("A stage adapt needs a dataset: name a source, or put a stage before it.")
        check_adapt(before.learners, before.task, task, self.width)
        learners = before.learners
        if self.width is not None and isinstance(learners, MLP):
            learners = replace(learners, width=self.width)
        return Promise(before.k, learners, before.encoder_layers, task)

    def run(self, work: Work) -> Outcome:
        """Change the dataset; see the base class."""
        file = work.before if self.source is None else work.resolve(self.source)
        assert file is not None
        dataset = DistilledDataset.load(file)
        changed = adapt(dataset, work.task, self.width, self.log_std, self.lr_hidden)
        return Outcome(work.tested(changed), inputs={"before": dataset})


@register_stage("roll_back")
class RollBack(Stage):
    """Take the last layer from a dataset's encoder: it becomes the learners' (paper, section 5.1)."""

    def check(self, task: Task, before: Promise | None) -> Promise:
        """Refuse a dataset without an encoder; see the base class."""
        if before is None or not before.encoder_layers:
            raise RecipeError(
                "A stage roll_back needs a stage before it that makes a dataset with an encoder."
            )
        return replace(before, encoder_layers=before.encoder_layers - 1)

    def run(self, work: Work) -> Outcome:
        """Take the layer; see the base class."""
        dataset = work.load_before()
        assert dataset is not None
        return Outcome(work.tested(roll_back(dataset)), inputs={"before": dataset})
