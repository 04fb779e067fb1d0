"""Tuning: short trials of a recipe's first stage with other settings, before it is carried out with the best.

Optuna proposes settings and stops trials that fall behind. What came of each trial stands in the run's
folder as a line of JSON. Each proposal is made from those lines and a seed alone, so that tuning that was
killed goes on as if it had not been.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gym_taskdistill import files, seeds
from gym_taskdistill.distill import distributed
from gym_taskdistill.errors import TaskDistillError, import_extra
from gym_taskdistill.recipes import evaluations
from gym_taskdistill.recipes.changes import Changes
from gym_taskdistill.recipes.facts import SPACE_FACTS
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.stages import Distil, Work, read_stage
from gym_taskdistill.recipes.stages.outer import merged
from gym_taskdistill.recipes.stages.stage import RecipeError
from gym_taskdistill.schema import Schema
from gym_taskdistill.tasks import Task

if TYPE_CHECKING:
    import optuna

#: Length of a trial, as a fraction of the env steps of the stage.
FRACTION = 0.2

#: Tests in a trial, after each of which it may be stopped.
N_TESTS = 5

#: Trials before the first that Optuna chooses by those before, or stops.
N_STARTUP = 5

#: Name of the file of trials in a run's folder.
TABLE = "trials.jsonl"


class Trial(Schema):
    """What came of one trial, a line of `TABLE`.

    Attributes:
        settings: What it tried, by name, as ``--set`` takes it.
        state: ``complete``; ``pruned``, stopped because it fell behind; or ``failed``, with a message.
        tests: Means of its tests on the selection seed, one after the other.
        env_steps: Env steps that it took.
        message: Why it failed.
    """

    error = RecipeError

    settings: dict[str, Any]
    state: Literal["complete", "pruned", "failed"]
    tests: list[float]
    env_steps: int
    message: str = ""

    @property
    def score(self) -> float | None:
        """Its best test; ``None`` if it did not come to its end."""
        return max(self.tests) if self.state == "complete" else None


class _Pruned(Exception):
    """Raised in a stage that falls behind."""


@dataclass(frozen=True)
class Tuning:
    """The search for better settings of a recipe's first stage.

    Attributes:
        recipe: What is tuned: its first stage, or that of the variant which its first stage needs.
        n_trials: Number of trials; the first has the recipe's own settings.
        seed: Seed of the run. Trials train on seeds of their own, and are all tested on the run's selection
            seed; the test seed is not touched.
        folder: Folder of the run.
        before: Dataset that the first stage starts from, if any.
    """

    recipe: Recipe
    n_trials: int
    seed: int
    folder: Path
    before: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be tuned, before a folder exists.

        Raises:
            TaskDistillError: Optuna is missing, several processes take part, or the recipe has no stage that
                learns by rewards first.
        """
        if self.n_trials < 1:
            raise RecipeError(f"tune={self.n_trials} must be the number of trials, at least 1.")
        if distributed.world_size() > 1:
            raise RecipeError("Tuning takes one process; start this run without torchrun.")
        _optuna()
        stage, task = self._stage, self._task
        for name, choices in self.space.items():
            for choice in choices:
                changed(stage, {name: choice}).check(task, None)

    @cached_property
    def space(self) -> dict[str, list[Any]]:
        """What may be chosen for each setting, the stage's own value among it."""
        stage, task = self._stage, self._task
        n_steps = [
            n for n in _times(stage.n_steps, (0.5, 1, 2, 4)) if n * stage.n_envs % stage.batch_size == 0
        ]
        batches = [
            size
            for size in _times(stage.batch_size, (0.5, 1, 2))
            if size % stage.n_learners == 0 and all(n * stage.n_envs % size == 0 for n in n_steps)
        ]
        space: dict[str, list[Any]] = {
            "gamma": sorted({0.9, 0.95, 0.98, 0.99, 0.995, 0.999, stage.gamma}),
            "gae_lambda": sorted({0.8, 0.9, 0.95, 0.98, 1.0, stage.gae_lambda}),
            "learning_rate": [_scaled(stage.learning_rate, factor) for factor in (0.1, 0.3, 1, 3)],
            "ent_coef": sorted({0.0, 0.001, 0.01, 0.03, stage.ent_coef}),
            "n_steps": n_steps,
            "batch_size": batches,
        }
        if SPACE_FACTS["action_space"](task) == "Box":
            space["start.log_std"] = sorted({-1.5, -1.0, -0.5, 0.0, stage.start.log_std})
        if stage.start.obs_scale is not None:
            space["start.obs_scale"] = [_scaled(stage.start.obs_scale, factor) for factor in (0.3, 1, 3)]
        if SPACE_FACTS["observation_space"](task) != "image":
            space["normalize"] = [False, True]
        return {name: choices for name, choices in space.items() if len(choices) > 1}

    def run(self, device: str = "auto", progress_bar: bool = True) -> tuple[Recipe, str]:
        """Carry out the trials that are left.

        Returns:
            The recipe with the best settings, and a sentence on how they were found.

        Raises:
            TaskDistillError: No trial came to its end, or the file of trials is damaged.
        """
        self.check()
        while len(trials := self.trials()) < self.n_trials:
            number = len(trials) + 1
            trial = self._trial(number, trials, device, progress_bar)
            lines = [json.dumps(one.to_dict()) + "\n" for one in (*trials, trial)]
            files.write_text(self._table, "".join(lines))
            if progress_bar:
                print(_told(number, self.n_trials, trial, trials), flush=True)
        shutil.rmtree(self._work, ignore_errors=True)
        best = max((trial for trial in trials if trial.score is not None), key=_score, default=None)
        if best is None:
            said = next((trial.message for trial in trials if trial.message), "")
            raise RecipeError(f"None of the {len(trials)} trials came to its end. {said}".rstrip())
        steps = sum(trial.env_steps for trial in trials)
        note = (
            f"Settings chosen by {len(trials)} trials, {steps:,} env steps in all: {_shown(best.settings)}. "
            f"Their best test scored {_score(best):.4g}, the recipe's own {_own(trials[0])}."
        )
        return _replaced(self.recipe, best.settings), note

    def trials(self) -> list[Trial]:
        """Read the trials that are done.

        Raises:
            RecipeError: The file is damaged.
        """
        try:
            lines = self._table.read_text(encoding="utf-8").splitlines() if self._table.is_file() else []
            return [
                Trial.read(json.loads(line), f"{self._table}, line {i + 1}") for i, line in enumerate(lines)
            ]
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, TaskDistillError):
                raise
            raise RecipeError(f'"{self._table}" is not the file of trials of a run.') from None

    def _trial(self, number: int, done: list[Trial], device: str, progress_bar: bool) -> Trial:
        """Carry out one trial, from its newest checkpoint if there is one."""
        study = self._study(number, done)
        asked = study.ask(_distributions(self.space))
        stage = changed(self._stage, asked.params)
        steps = max(1, int(stage.total_timesteps * FRACTION))
        stage = stage.replace(total_timesteps=steps, critic_warmup=int(stage.critic_warmup * FRACTION))
        folder = self._work / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder)
        if progress_bar:
            print(f"trial {number} of {self.n_trials}: {_shown(asked.params)}", flush=True)

        told = 0

        def report(means: list[float]) -> None:
            nonlocal told  # a trial that resumes tells those of the process before too
            for i in range(told, len(means)):
                asked.report(means[i], i)
            told = len(means)
            if asked.should_prune() and len(means) < N_TESTS:
                raise _Pruned

        work = Work(
            self._task,
            folder,
            seeds.training(self.seed, 0, number),
            seeds.selection(self.seed),
            self._target.evaluation.replace(eval_freq=max(1, steps // N_TESTS)),
            self.before if self._target is self.recipe else None,
            device=device,
            progress_bar=progress_bar,
            report=report,
        )
        state: Literal["complete", "pruned", "failed"] = "complete"
        message = ""
        try:
            stage.run(work)
        except _Pruned:
            state = "pruned"
        except TaskDistillError as error:
            state, message = "failed", str(error)
        rows = evaluations.read(folder / evaluations.TABLE)
        return Trial(
            settings=asked.params,
            state=state,
            tests=[row[1] for row in rows],
            env_steps=rows[-1][0] if rows else 0,
            message=message,
        )

    def _study(self, number: int, done: list[Trial]) -> optuna.Study:
        """Build Optuna's view of the trials before one, from nothing but their lines and the seed."""
        optuna = _optuna()
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(
                n_startup_trials=N_STARTUP, seed=seeds.training(self.seed, 0, 0, number)
            ),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=N_STARTUP - 1, n_warmup_steps=1),
        )
        states = {
            "complete": optuna.trial.TrialState.COMPLETE,
            "pruned": optuna.trial.TrialState.PRUNED,
            "failed": optuna.trial.TrialState.FAIL,
        }
        for trial in done:
            study.add_trial(
                optuna.trial.create_trial(
                    state=states[trial.state],
                    params=trial.settings,
                    distributions=_distributions(self.space),
                    value=trial.score,
                    intermediate_values=dict(enumerate(trial.tests)),
                )
            )
        if not done:
            study.enqueue_trial(self._own_settings)
        return study

    @cached_property
    def _target(self) -> Recipe:
        """The recipe whose first stage is tuned: this one, or the variant that its first stage needs."""
        recipe = self.recipe
        while not isinstance(recipe.stages[0], Distil):
            needed = [recipe.needs[name] for name in recipe.stages[0].sources() if name in recipe.needs]
            if not needed:
                raise RecipeError(
                    f"{recipe.entry} begins with the stage {recipe.stages[0].kind}, which has no settings to "
                    "tune; tune a variant that begins with ppmo or ppo."
                )
            recipe = needed[0]
        return recipe

    @cached_property
    def _task(self) -> Task:
        return self.recipe.task

    @property
    def _stage(self) -> Distil:
        stage = self._target.stages[0]
        assert isinstance(stage, Distil)
        return stage

    @property
    def _own_settings(self) -> dict[str, Any]:
        plain = self._stage.to_dict()
        nested = {f"start.{name}": value for name, value in plain["start"].items()}
        return {name: {**plain, **nested}[name] for name in self.space}

    @property
    def _table(self) -> Path:
        return self.folder / TABLE

    @property
    def _work(self) -> Path:
        return self.folder / "trials"


def changed(stage: Distil, settings: Mapping[str, Any]) -> Distil:
    """Return a stage with other settings, named as ``--set`` takes them."""
    plain = merged(stage.to_dict(), Changes(settings).of_stage(1, stage.kind))
    result = read_stage({stage.kind: plain}, "tune")
    assert isinstance(result, Distil)
    return result


def _replaced(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe with the settings in the stage that was tuned."""
    first = recipe.stages[0]
    if isinstance(first, Distil):
        return recipe.replace(stages=(changed(first, settings), *recipe.stages[1:]))
    name = next(name for name in first.sources() if name in recipe.needs)
    return recipe.replace(needs={**recipe.needs, name: _replaced(recipe.needs[name], settings)})


def _optuna() -> Any:
    optuna = import_extra("optuna", "tune", "Trials of settings")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distributions(space: Mapping[str, list[Any]]) -> dict[str, Any]:
    categorical = _optuna().distributions.CategoricalDistribution
    return {name: categorical(choices) for name, choices in space.items()}


def _times(own: int, factors: tuple[float, ...]) -> list[int]:
    """Return the multiples of a number that are whole."""
    return [int(own * factor) for factor in factors if own * factor == int(own * factor)]


def _scaled(rate: float | str, factor: float) -> float | str:
    """Return a rate or both ends of a schedule, times a factor.

    >>> _scaled("lin_0.01_0.0005", 3), _scaled(0.01, 1)
    ('lin_0.03_0.0015', 0.01)
    """
    if factor == 1:
        return rate
    if not isinstance(rate, str):
        return float(f"{rate * factor:.4g}")
    ends = rate.removeprefix("lin_").split("_")
    return "_".join(["lin", *(f"{float(end) * factor:.4g}" for end in ends)])


def _score(trial: Trial) -> float:
    return float("-inf") if trial.score is None else trial.score


def _own(trial: Trial) -> str:
    return f"{trial.score:.4g}" if trial.score is not None else f"{trial.state}"


def _shown(settings: Mapping[str, Any]) -> str:
    """Write settings as ``--set`` takes them."""
    return " ".join(f"{name}={json.dumps(value).strip(chr(34))}" for name, value in settings.items())


def _told(number: int, n_trials: int, trial: Trial, before: list[Trial]) -> str:
    if trial.state == "failed":
        said = f"failed: {trial.message}"
    else:
        said = f"{'best test' if trial.state == 'complete' else 'stopped at'} {max(trial.tests):.4g}"
    best = max(map(_score, [*before, trial]))
    return f"trial {number} of {n_trials}: {said} (best so far {best:.4g})"
