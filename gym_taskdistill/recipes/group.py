"""A group: the runs of one recipe with several seeds, in one folder, and what their scores come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gym_taskdistill import surroundings
from gym_taskdistill.dataset.aggregates import Aggregates
from gym_taskdistill.dataset.card import Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.file import read_card
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.machine import use_threads
from gym_taskdistill.recipes.file import check
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.run import Run, build, refuse_other
from gym_taskdistill.recipes.stages import Promise
from gym_taskdistill.recipes.stages.stage import RESULT, RecipeError


@dataclass(frozen=True)
class Member:
    """One run of a group.

    Attributes:
        folder: Its folder.
        seed: Its seed.
        error: Why it ended early; empty if it did not.
    """

    folder: Path
    seed: int
    error: str = ""

    @property
    def score(self) -> Score | None:
        """The first score of its result; ``None`` if it has none."""
        scores = () if self.error else read_card(self.folder / RESULT).scores
        return scores[0] if scores else None


@dataclass(frozen=True)
class Column:
    """What the agents of one learner distribution scored in the runs of a group.

    Attributes:
        learners: Name of the learner distribution.
        deterministic: Whether the policies took their mode instead of sampling.
        scores: Seed and score of each run, at least one.
    """

    learners: str
    deterministic: bool
    scores: tuple[tuple[int, Score], ...]

    @property
    def over_seeds(self) -> Aggregates:
        """What the runs' mean returns come to."""
        return Aggregates.of([score.mean for _, score in self.scores])


@dataclass(frozen=True)
class Summary:
    """What the runs of one recipe that lie in a folder have come to so far.

    Attributes:
        entry: Full name of the entry that they make.
        columns: Their final scores, a column for each learner distribution that was tested.
        unfinished: Seeds of the runs that have no result yet.
    """

    entry: str
    columns: tuple[Column, ...]
    unfinished: tuple[int, ...]


def group_folder(root: Path, recipe: Recipe) -> Path:
    """Return where the group of a recipe lies: the same folder each time, so that it resumes."""
    return root / recipe.entry.replace("/", ",")


def train_group(
    recipe: Recipe,
    seeds: Sequence[int],
    folder: Path,
    n_jobs: int = 1,
    *,
    warm_start: Path | None = None,
    device: str = "auto",
    threads: tuple[int, int] = (1, 1),
    progress_bar: bool = True,
    track: bool = False,
) -> Iterator[Member]:
    """Carry out a recipe with several seeds, and yield each run as soon as it is done.

    Runs that were begun in the folder resume, finished ones are kept; more seeds join the group. `joblib`
    carries them out; choose another of its backends by ``joblib.parallel_config``.

    Args:
        recipe: All settings.
        seeds: Seeds, each once.
        folder: The group's folder; each run has a folder in it.
        n_jobs: Runs at once, one process each; -1 for as many as there are cores.
        warm_start: Dataset file that the first stage of each run starts from.
        device: Torch device.
        threads: Cores that simulate, and threads of torch, of each run; see `use_threads`.
        progress_bar: Show progress, if one run is made at a time.
        track: Track each run on Weights & Biases.

    Raises:
        TaskDistillError: The recipe cannot be carried out, or the folder holds runs of another one; said
            before any run is begun.
    """
    if n_jobs < 1 and n_jobs != -1:
        raise TaskDistillError(f"At least 1 run must be made at a time, not {n_jobs}; use -1 for all cores.")
    check(recipe, None if warm_start is None else Promise.of(DistilledDataset.load(warm_start)))
    for seed in seeds:
        member = _seed_folder(folder, seed)
        if (member / "run.yaml").is_file():
            refuse_other(Run.open(member), recipe, seed, warm_start)
    options = {"device": device, "progress_bar": progress_bar and n_jobs == 1, "track": track}
    calls = ((recipe, seed, folder, warm_start, threads, options) for seed in seeds)
    yield from surroundings.each(_train, calls, n_jobs)


def _train(
    recipe: Recipe,
    seed: int,
    folder: Path,
    warm_start: Path | None,
    threads: tuple[int, int],
    options: dict[str, Any],
) -> Member:
    use_threads(*threads)
    member = _seed_folder(folder, seed)
    try:
        build(recipe, seed, member, warm_start, **options)
    except TaskDistillError as error:
        return Member(member, seed, str(error))
    return Member(member, seed)


def _seed_folder(folder: Path, seed: int) -> Path:
    return folder / f"seed={seed}"


def summaries(folder: Path) -> list[Summary]:
    """Read the final scores of all runs in a folder, those of each recipe together.

    Args:
        folder: The folder of a group, or any other in which folders of runs lie.

    Returns:
        A summary for each recipe, sorted by entry. Runs differ in their seeds, or are of different recipes.

    Raises:
        TaskDistillError: There is no run in the folder, a run is damaged, or two of one recipe have one seed.
    """
    runs = [Run.open(path.parent) for path in sorted(folder.glob("*/run.yaml"))]
    if not runs:
        raise RecipeError(f'"{folder}" holds no folders of runs; `train --seeds 0-4` makes such a folder.')
    groups: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: (run.recipe.entry, run.seed)):
        same = [g for g in groups if (g[0].recipe, g[0].warm_start) == (run.recipe, run.warm_start)]
        if not same:
            groups.append([run])
        elif same[0][-1].seed == run.seed:
            raise RecipeError(
                f'"{same[0][-1].folder}" and "{run.folder}" are the same run, made twice with seed '
                f"{run.seed}; move one of them away."
            )
        else:
            same[0].append(run)
    return [_summary(group) for group in groups]


def _summary(runs: Sequence[Run]) -> Summary:
    columns: dict[tuple[str, bool], list[tuple[int, Score]]] = {}
    unfinished = []
    for run in runs:
        if not run.result.is_file():
            unfinished.append(run.seed)
            continue
        for score in read_card(run.result).scores:
            columns.setdefault((score.learners, score.deterministic), []).append((run.seed, score))
    told = tuple(Column(*key, tuple(scores)) for key, scores in columns.items())
    return Summary(runs[0].recipe.entry, told, tuple(unfinished))
