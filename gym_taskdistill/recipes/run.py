"""A run: a folder in which a recipe's stages are carried out, one after the other."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gym_taskdistill import files, seeds, zoo
from gym_taskdistill.dataset.card import Card, versions
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.lineage import StageRecord
from gym_taskdistill.distill import critic_file, distributed
from gym_taskdistill.paths import critic_path
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.progress import progress
from gym_taskdistill.recipes import evaluations
from gym_taskdistill.recipes.file import check, load_source
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.settings import NonNegative
from gym_taskdistill.recipes.stages import Outcome, Promise, Stage, Work
from gym_taskdistill.recipes.stages.stage import RESULT, RecipeError
from gym_taskdistill.recipes.tracking import tracked
from gym_taskdistill.recipes.tune import Tuning
from gym_taskdistill.schema import Schema, read_yaml
from gym_taskdistill.tasks import EnvArg, Task

#: Makes the dataset of another recipe and returns its file.
Build = Callable[[Recipe], Path]


class RunSettings(Schema):
    """What ``run.yaml`` says.

    Attributes:
        seed: Seed of the run.
        warm_start: Dataset that the first stage starts from, in place of nothing.
        recipe: The recipe, with every setting of every stage.
        env_given: Whether the environment was given as a function, which no file can hold.
        tune: Trials that are to choose settings before the first stage; 0 when they have.
        notes: How they were chosen.
    """

    error = RecipeError

    seed: int
    warm_start: str | None = None
    recipe: dict[str, Any]
    env_given: bool = False
    tune: NonNegative = 0
    notes: str = ""


@dataclass(frozen=True)
class Run:
    """A recipe, a seed, and the folder in which the one is carried out with the other.

    The folder holds ``run.yaml`` (recipe and seed), ``command.txt``, the trials of a run that was tuned
    (``trials.jsonl``), a folder for each stage (``1-ppmo``, …) with its checkpoint, its tests and what it
    made, and at last ``dataset.safetensors``, the result. A run that is interrupted resumes in the stage
    where it was, and ends with the same dataset, bit for bit.

    Attributes:
        folder: The folder.
        recipe: All settings.
        seed: Seed of the run.
        warm_start: Dataset that the first stage starts from, in place of nothing.
        tune: Trials that are to choose settings before the first stage; see `Tuning`.
        notes: How they were chosen.
    """

    folder: Path
    recipe: Recipe
    seed: int
    warm_start: Path | None = None
    tune: int = 0
    notes: str = ""

    @classmethod
    def create(
        cls,
        recipe: Recipe,
        seed: int,
        root: Path,
        name: str | None = None,
        warm_start: Path | None = None,
        tune: int = 0,
    ) -> Run:
        """Check everything, then make the folder of a new run.

        Args:
            recipe: All settings.
            seed: Seed of the run.
            root: Where runs lie.
            name: Name of the folder, which must be free; ``None`` numbers them: ``<root>/<entry>_1``.
            warm_start: Dataset file to start from.
            tune: Trials that are to choose settings before the first stage, 0 for none; see `Tuning`.

        Raises:
            TaskDistillError: The recipe cannot be carried out or tuned, or the folder cannot be made.
        """
        seeds.checked(seed)
        check(recipe, None if warm_start is None else Promise.of(DistilledDataset.load(warm_start)))
        if tune:
            Tuning(recipe, tune, seed, root).check()
        folder = _new_folder(root, recipe.entry.replace("/", ",") if name is None else name, name is None)
        start = None if warm_start is None else warm_start.resolve()
        run = cls(folder, recipe, seed, start, tune)
        files.write_text(folder / "command.txt", shlex.join(sys.argv) + "\n")
        run._write_settings()
        return run

    def _write_settings(self) -> None:
        """Write ``run.yaml``."""
        settings: dict[str, Any] = {
            "seed": self.seed,
            "warm_start": None if self.warm_start is None else str(self.warm_start),
            "recipe": self.recipe.to_dict(),
        }
        task = self.recipe.task
        settings |= {name: value for name in ("tune", "notes") if (value := getattr(self, name))}
        if task.factory is not None or task.wrappers:
            settings["env_given"] = True
        plain = json.loads(json.dumps(settings))  # without the aliases of equal parts
        files.write_text(self.folder / "run.yaml", yaml.safe_dump(plain, sort_keys=False))

    @classmethod
    def open(cls, folder: Path, env: EnvArg | None = None) -> Run:
        """Open the folder of a run that was begun.

        Args:
            folder: The folder.
            env: The function that makes the environment, if the run was created with one.

        Raises:
            TaskDistillError: It is not a run's folder, or its ``run.yaml`` is damaged.
        """
        path = folder / "run.yaml"
        if not path.is_file():
            raise RecipeError(f'"{folder}" is not the folder of a run: it has no run.yaml.')
        settings = RunSettings.read(read_yaml(path, str(path)), str(path))
        start = None if settings.warm_start is None else Path(settings.warm_start)
        recipe = Recipe.from_dict(settings.recipe, str(path))
        if env is not None:
            recipe = recipe.with_env(env)
        elif settings.env_given:
            lost = "this run was created with a function that makes it (Run.open(folder, env=make_env))"
            recipe = recipe.with_env(Task(recipe.env_id, recipe.env_kwargs, unrecorded=lost))
        seed = seeds.checked(settings.seed)
        return cls(folder, recipe, seed, start, settings.tune, settings.notes)

    @property
    def result(self) -> Path:
        """The dataset that the run makes; the file is there when it is done."""
        return self.folder / RESULT

    def evaluations(self) -> list[evaluations.Row]:
        """Return the tests of all stages, env steps counted from the first stage's start."""
        rows: list[evaluations.Row] = []
        before = 0
        for number in range(1, len(self.recipe.stages) + 1):
            of_stage = evaluations.read(self.stage_folder(number) / evaluations.TABLE)
            rows += [(before + steps, *figures) for steps, *figures in of_stage]  # type: ignore[misc]
            before = rows[-1][0] if rows else 0
        return rows

    def stage_folder(self, number: int) -> Path:
        """Folder of a stage, counted from 1."""
        return self.folder / f"{number}-{self.recipe.stages[number - 1].kind}"

    def execute(
        self,
        progress_bar: bool = True,
        device: str = "auto",
        build: Build | None = None,
        wait: bool = False,
        track: bool = False,
    ) -> DistilledDataset:
        """Carry out the stages that are left, and test the result on the test seed.

        A run that is to be tuned is tuned first, and goes on with the settings that were chosen. Of several
        ranks all learn, and the first one tests and writes.

        Args:
            progress_bar: Show progress.
            device: Torch device.
            build: Makes the dataset of another variant that a stage needs; by default in a folder of this
                run's own, with this run's seed.
            wait: Wait while another process works in the folder, instead of refusing.
            track: Track the run on Weights & Biases.

        Returns:
            The dataset, its card complete.

        Raises:
            TaskDistillError: Another process works in the folder, or a stage cannot be carried out.
        """
        if self.tune and distributed.world_size() > 1:
            self._tuning.check()  # which every rank refuses
        if distributed.rank():
            return self._execute(False, device, build or self._build)
        message = f'Another process works in "{self.folder}"; wait for it, or stop it first.'
        with files.refusing_broken(self.folder), files.lock(self.folder / ".lock", message, wait=wait):
            files.sweep(self.folder)
            run = self._tuned(progress_bar, device) if self.tune else self
            if not track or run.result.is_file():
                return run._execute(progress_bar, device, build or run._build)
            with tracked(run.folder, run.recipe.entry, run.seed, run.recipe.to_dict()) as tell:
                dataset = run._execute(progress_bar, device, build or run._build)
                tell(dataset.card.scores)
                return dataset

    @property
    def _tuning(self) -> Tuning:
        return Tuning(self.recipe, self.tune, self.seed, self.folder, self.warm_start)

    def _tuned(self, progress_bar: bool, device: str) -> Run:
        """Choose settings, and return the run with them, as its ``run.yaml`` has it from now on."""
        recipe, notes = self._tuning.run(device, progress_bar)
        run = dataclasses.replace(self, recipe=recipe, tune=0, notes=notes)
        run._write_settings()
        print(notes, flush=True)
        return run

    def _execute(self, progress_bar: bool, device: str, build: Build) -> DistilledDataset:
        if distributed.from_first(self.result.is_file()):
            return DistilledDataset.load(self.result)
        before = self.warm_start
        for number, stage in enumerate(self.recipe.stages, start=1):
            folder = self.stage_folder(number)
            done = folder / RESULT
            if not distributed.from_first(done.is_file()):
                work = Work(
                    self.recipe.task,
                    folder,
                    seeds.training(self.seed, number),
                    seeds.selection(self.seed),
                    self.recipe.evaluation,
                    before,
                    lambda name: build(load_source(name, self.recipe)),
                    device,
                    progress_bar,
                )
                self._carry_out(stage, number, work)
            before = done
        dataset = DistilledDataset.load(distributed.from_first(str(before)))
        return dataset if distributed.rank() else self._finish(dataset, before, progress_bar)

    def _carry_out(self, stage: Stage, number: int, work: Work) -> None:
        """Run a stage and write what it made; its folder then holds `RESULT`."""
        if distributed.rank() == 0:
            work.folder.mkdir(exist_ok=True)
            files.sweep(work.folder)
            if work.progress_bar and len(self.recipe.stages) > 1:
                print(f"stage {number} of {len(self.recipe.stages)}: {stage.kind}", flush=True)
        outcome = stage.run(work)
        if distributed.rank() == 0:
            self._record(stage, number, work, outcome)
        distributed.from_first(None)  # the others wait for the file

    def _record(self, stage: Stage, number: int, work: Work, outcome: Outcome) -> None:
        """Write a stage's dataset with its lineage; the critic first, so that the dataset is the last."""
        record = StageRecord(
            kind=stage.kind,
            settings={**stage.to_dict(), **outcome.settings},
            task=str(self.recipe.task),
            seed=work.seed,
            env_steps=outcome.env_steps,
            seconds=round(work.stopwatch.seconds, 1),
            inputs=outcome.digests,
            output=outcome.dataset.digest,
            versions=versions(),
        )
        card = outcome.dataset.card.replace(
            variant=self.recipe.variant,
            default=self.recipe.default,
            seed=self.seed,
            recipe=self.recipe.to_dict(),
            lineage=(*outcome.lineage, record),
            num_timesteps=outcome.env_steps,
            wall_clock_s=record.seconds,
            versions=versions(),
            created=datetime.date.today().isoformat(),
        )
        target = work.folder / RESULT
        if outcome.critic is not None:
            files.write_all({critic_path(target): outcome.critic})
        outcome.dataset.replace(card=card).save(target)

    def _finish(self, dataset: DistilledDataset, file: Path | None, progress_bar: bool) -> DistilledDataset:
        """Test the last stage's dataset on the test seed, once, and write the result."""
        plan = self.recipe.evaluation
        n_agents, n_episodes = plan.final_agents, plan.final_episodes
        with progress(len(plan.columns) * n_agents * n_episodes, "episode", progress_bar) as bar:
            scores = tuple(
                evaluate(
                    dataset,
                    n_agents,
                    n_episodes,
                    learners=learners,
                    seed=seeds.TEST,
                    env=self.recipe.task,
                    progress=bar.update,
                ).score
                for learners in plan.columns
            )
        card: Card = dataset.card
        card = card.replace(
            scores=scores,
            notes=self.notes or card.notes,
            num_timesteps=sum(record.env_steps for record in card.lineage),
            wall_clock_s=round(sum(record.seconds for record in card.lineage), 1),
        )
        dataset = dataset.replace(card=card)
        assert file is not None
        critic = critic_file.of_dataset(file, dataset.digest)
        if critic is not None:
            files.write_all({critic_path(self.result): critic})
        dataset.save(self.result)
        return dataset

    def _build(self, recipe: Recipe) -> Path:
        """Find or make the dataset of a variant that a stage needs, with this run's seed.

        The zoo's is taken only if it is what would be made: the same recipe with the same seed.
        """
        entry = next((entry for entry in zoo.entries(recipe.env_id) if entry.name == recipe.entry), None)
        if entry is not None:
            card = entry.card
            if not card.legacy and card.seed == self.seed and card.recipe == recipe.to_dict():
                return entry.path
        folder = self.folder / "needs" / recipe.entry.replace("/", ",")
        return build(recipe, self.seed, folder).result


def build(recipe: Recipe, seed: int, folder: Path, warm_start: Path | None = None, **options: Any) -> Run:
    """Carry out a recipe in a folder that is the same each time: begun runs resume, finished ones are kept.

    Args:
        recipe: All settings.
        seed: Seed of the run.
        folder: The folder.
        warm_start: Dataset file that the first stage starts from.
        **options: Arguments of `Run.execute`.

    Returns:
        The run, which is done.

    Raises:
        RecipeError: The folder holds the run of another recipe or seed.
    """
    with files.refusing_broken(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with files.lock(folder.parent / f".{folder.name}.lock", "", wait=True):
        if (folder / "run.yaml").is_file():
            run = Run.open(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # killed before its settings were written
            run = Run.create(recipe, seed, folder.parent, folder.name, warm_start)
        refuse_other(run, recipe, seed, warm_start)
        run.execute(wait=True, **options)
    return run


def refuse_other(run: Run, recipe: Recipe, seed: int, warm_start: Path | None = None) -> None:
    """Raise a RecipeError if a run has another recipe or seed, or starts from something else."""
    start = None if warm_start is None else warm_start.resolve()
    if (run.recipe, run.seed, run.warm_start) != (recipe, seed, start):
        what = "holds a run of other settings or another seed"
        raise RecipeError(f'"{run.folder}" {what}; move it away, or choose another folder.')


def _new_folder(root: Path, name: str, numbered: bool) -> Path:
    """Make a folder that no other process has; `mkdir` is the test."""
    number = 1
    while True:
        folder = root / (f"{name}_{number}" if numbered else name)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not numbered or root.is_file():
                raise RecipeError(f'The folder "{folder}" cannot be made: it exists already.') from None
            number += 1
        except OSError as error:
            raise RecipeError(f'The folder "{folder}" cannot be made: {error.strerror}.') from None
        else:
            return folder
