"""The stage ``imitate``: distil what an expert does, without rewards."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from tqdm import tqdm

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.score import Score
from gym_taskdistill.distill import checkpoint, distributed
from gym_taskdistill.distill.buffer import check_shared_out
from gym_taskdistill.distill.experts import (
    Expert,
    Recording,
    load_expert,
    minari_recording,
    record,
    recording_env,
)
from gym_taskdistill.distill.imitation import Imitation
from gym_taskdistill.distill.lookahead import Lookahead
from gym_taskdistill.machine import jobs
from gym_taskdistill.progress import progress
from gym_taskdistill.recipes.settings import Count, Fraction, Positive, Size
from gym_taskdistill.recipes.stages.outer import OuterStage
from gym_taskdistill.recipes.stages.stage import (
    Outcome,
    Promise,
    RecipeError,
    Work,
    register_stage,
)
from gym_taskdistill.schema import Schema
from gym_taskdistill.seeds import training
from gym_taskdistill.tasks import Task

#: The stage before, as an expert.
PREVIOUS = "previous"


def is_dataset(expert: str) -> bool:
    """Tell whether an expert is a dataset, not one action or a model that SB3 saved.

    >>> [is_dataset(name) for name in ("one-step", "action:11", "ppo:model.zip")]
    [True, False, False]
    """
    return not expert.startswith(("action:", "minari:")) and not expert.endswith(".zip")


def is_recorded(expert: str) -> bool:
    """Tell whether an expert is a recording that exists already, a dataset of Minari's."""
    return expert.startswith("minari:")


def nobody(observations: Any) -> Any:
    """Stand in for an expert whose recording is there."""
    raise RecipeError("A recording cannot be asked what to do.")


def say_if_far_behind(mine: Score, expert: Score | None) -> None:
    """Warn if most of the fresh agents score less than most of the expert's own agents.

    Args:
        mine: The imitators' score.
        expert: The score of single agents of the expert's dataset, if it is known.
    """
    if expert is None or mine.mean + mine.std >= expert.mean - expert.std:
        return
    (mean, std, _), (expert_mean, expert_std, _) = mine.figures, expert.figures
    tqdm.write(
        f"Little was learned from the expert: fresh agents score {mean} ± {std}, its own {expert_mean} ± "
        f"{expert_std}. Try more rows (k), more n_updates or n_rounds, wider learners, or more inner steps."
    )


class LookaheadSettings(Schema):
    """How an expert plans; see `Lookahead`."""

    error = RecipeError

    n_futures: Size | None = None
    steps: Count | None = None
    select_every: Count | None = None
    replan_every: Count | None = None
    temperature: Positive | None = None
    margin: Positive | None = None
    clip_reward: bool | None = None

    def kwargs(self) -> dict[str, Any]:
        """Return the arguments of `Lookahead` that are given."""
        return {name: value for name, value in self.to_dict().items() if value is not None}


@register_stage("imitate")
class Imitate(OuterStage):
    """Distil an expert: fresh learners, trained on the dataset, should act as it does (DAgger).

    Attributes:
        expert: Whom to imitate. ``previous``: an ensemble of learners of the dataset before. A variant of the
            same recipe, such as ``one-step``, or a zoo entry: an ensemble of its learners; what no clone has
            is made first. ``ppo:model.zip``: a model that SB3 saved, with its class. ``action:11``: that
            action, always. ``minari:D4RL/pen/human-v2``: what a dataset of Minari holds; one round.
        fine_tune: Start from the dataset before instead of from random rows.
        rows: Where rows start, if not from the dataset before: ``noise``, as ``start`` says, or ``recorded``,
            observations of the first recording with the expert's answers as labels.
        n_envs: Environments that are recorded side by side.
        n_steps: Env steps of a recording.
        n_rounds: Number of recordings; the expert plays in the first, the learners in the later ones.
        n_updates: Updates after each recording, on all recordings so far. The schedules of the learning
            rates run once over all rounds.
        batch_size: Observations in an update.
        beta: Fraction of the learners' actions in which the expert stands in for them, in the second round;
            its square in the third, and so on (DAgger; Ross et al. 2011).
        noise: Fraction of random actions in the recordings.
        draw_every: Updates for which learners are kept before others are drawn.
        temperature: Divides the expert's logits or means: below 1 learners become surer than it is.
        hard_fraction: Fraction of a batch that is drawn where most was missed; see `Imitation.update`.
        lookahead: How the expert plans in copies of the emulator (Atari); left out, it acts as it is.
    """

    n_learners: Size = 8
    expert: Annotated[str, Field(min_length=1, max_length=500)]
    fine_tune: bool = False
    rows: Literal["noise", "recorded"] = "noise"
    n_envs: Size = 16
    n_steps: Size = 50_000
    n_rounds: Count = 1
    n_updates: Count = 2_000
    batch_size: Size = 256
    beta: Fraction = 0.0
    noise: Fraction = 0.1
    draw_every: Count = 1
    temperature: Positive = 1.0
    hard_fraction: Fraction = 0.0
    lookahead: LookaheadSettings | None = None

    def sources(self) -> tuple[str, ...]:
        """Return the expert, if it is a dataset that is not the stage before's."""
        return (self.expert,) if is_dataset(self.expert) and self.expert != PREVIOUS else ()

    def check(self, task: Task, before: Promise | None) -> Promise:
        """Refuse settings that do not fit each other, the task or the dataset before; see the base class."""
        promise = self.promise(task)
        check_shared_out(self.n_learners, batch_size=self.batch_size)
        if before is None and (self.fine_tune or self.expert == PREVIOUS):
            what = "fine_tune is true" if self.fine_tune else "expert is previous"
            raise RecipeError(f"{what}, but no stage before imitate makes a dataset.")
        if self.rows == "recorded":
            self._check_recorded_rows()
        if self.fine_tune and before is not None:
            self.check_start(promise, before)
        if is_recorded(self.expert):
            if self.n_rounds > 1 or self.lookahead is not None:
                raise RecipeError(f"{self.expert} is a recording: use n_rounds=1 and no lookahead.")
            minari_recording(self.expert, task)
        elif not is_dataset(self.expert):
            load_expert(self.expert, task.action_space)
        return promise

    def _check_recorded_rows(self) -> None:
        if self.fine_tune:
            raise RecipeError("rows: recorded does not go with fine_tune, which keeps the rows of before.")
        if isinstance(self.k, int) and self.k > self.n_steps and not is_recorded(self.expert):
            raise RecipeError(
                f"rows: recorded needs n_steps of at least k={self.k}, but it is {self.n_steps}."
            )

    def run(self, work: Work) -> Outcome:
        """Record and imitate in turn; see the base class."""
        arguments = self.arguments(Imitation, work.task)
        model = Imitation(work.task, seed=work.seed, device=work.device, **arguments)
        before = work.load_before()
        inputs: dict[str, DistilledDataset | str] = {}
        if self.fine_tune and before is not None:
            model.load_dataset(before)
            inputs["before"] = before
        name = self._expert_file(work)
        if is_dataset(name):
            inputs["expert"] = DistilledDataset.load(name)
        elif name.endswith(".zip"):
            inputs["expert"] = hashlib.sha256(Path(name.partition(":")[2]).read_bytes()).hexdigest()
        self._all_rounds(model, name, work)
        dataset = model.dataset()
        if distributed.rank() == 0:
            dataset = work.tested(dataset)
            expert = inputs.get("expert")
            if isinstance(expert, DistilledDataset) and dataset.card.selection is not None:
                say_if_far_behind(dataset.card.selection, expert.card.selection)
        steps = 0 if is_recorded(self.expert) else self.n_rounds * self._recorded_steps
        return Outcome(dataset, steps, inputs, settings=self.decided(model.loop))

    @property
    def _recorded_steps(self) -> int:
        """Env steps of a recording, a multiple of the environments."""
        return -(-self.n_steps // self.n_envs) * self.n_envs

    def _expert_file(self, work: Work) -> str:
        if not is_dataset(self.expert):
            return self.expert
        return str(work.before if self.expert == PREVIOUS else work.resolve(self.expert))

    def _all_rounds(self, model: Imitation, name: str, work: Work) -> None:
        """Do all rounds that are left; there is a checkpoint after each."""
        done = 0
        if work.checkpoint.is_file():
            state = checkpoint.read(work.checkpoint)
            done = int(state["rounds"])
            model.load_state(state["model"])
            work.stopwatch.earlier += float(state["seconds"])
        if done == self.n_rounds:
            return
        if is_recorded(name) and not self._recordings(work)[0].is_file():
            minari_recording(name, work.task).save(self._recordings(work)[0])
        # Of a recording nobody is asked what to do.
        expert, expert_task = (
            (nobody, None) if is_recorded(name) else load_expert(name, work.task.action_space)
        )
        shown = work.progress_bar and distributed.rank() == 0
        with contextlib.ExitStack() as stack:
            if self.lookahead is not None:
                look = Lookahead(expert, expert_task, n_processes=jobs(), **self.lookahead.kwargs())
                expert = stack.enter_context(contextlib.closing(look))
            env, view = recording_env(work.task, self.n_envs, expert_task, self.lookahead is not None)
            stack.callback(env.close)
            total = self.n_rounds * self.n_updates
            bar = stack.enter_context(progress(total, "update", shown, initial=done * self.n_updates))
            for i in range(done, self.n_rounds):
                model.begin_segment(i)
                self._one_round(model, i, expert, env, view, work, bar)
                state = {"rounds": i + 1, "model": model.state(), "seconds": work.stopwatch.seconds}
                if distributed.rank() == 0:
                    checkpoint.write(work.checkpoint, state)
        for file in self._recordings(work):
            file.unlink(missing_ok=True)

    def _recordings(self, work: Work) -> list[Path]:
        return [work.folder / f"recording_{distributed.rank()}_{i}.npz" for i in range(self.n_rounds)]

    def _one_round(
        self,
        model: Imitation,
        i: int,
        expert: Expert,
        env: Any,
        view: Callable[..., Any] | None,
        work: Work,
        bar: Any,
    ) -> None:
        """Record round ``i``, unless an earlier attempt did, and imitate all recordings so far."""

        def recorded(n: int) -> None:
            text = f"recorded {n:,} of {self.n_steps:,} steps"
            bar.set_postfix_str(text, refresh=n // self.n_envs % 10 == 0)

        def report(_: int, loss: float) -> None:
            bar.set_postfix_str(f"imitation loss {loss:.3f}", refresh=False)
            bar.update(100)

        files = self._recordings(work)
        if not files[i].is_file():
            record(
                expert,
                env,
                self.n_steps,
                behaviour=model if i else None,
                beta=self.beta**i,
                noise=self.noise,
                view=view,
                seed=training(work.seed, i),
                progress=recorded,
            ).save(files[i])
            # What follows must not depend on whether this process recorded.
        model.begin_segment(self.n_rounds + i)
        recordings = [Recording.load(file) for file in files[: i + 1]]
        if i == 0 and self.rows == "recorded":
            model.start_from(recordings[0])
        model.update(
            Recording.join(recordings),
            self.n_updates,
            self.batch_size,
            draw_every=self.draw_every,
            temperature=self.temperature,
            hard_fraction=self.hard_fraction,
            progress_remaining=(1 - i / self.n_rounds, 1 - (i + 1) / self.n_rounds),
            progress=report,
        )
