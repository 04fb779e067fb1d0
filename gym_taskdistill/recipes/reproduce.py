"""Making zoo entries again from nothing, with several seeds, and comparing them with their cards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gym_taskdistill import surroundings, zoo
from gym_taskdistill.dataset.card import Card, Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.lineage import Distillation
from gym_taskdistill.errors import TaskDistillError, ZooError
from gym_taskdistill.machine import use_threads
from gym_taskdistill.recipes.file import check, load
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.run import build
from gym_taskdistill.recipes.stages.stage import RESULT


@dataclass(frozen=True)
class Reproduction:
    """An entry made again with one seed.

    Attributes:
        entry: Full name of the entry.
        seed: Seed of the run.
        card: The card of the zoo's entry; ``None`` if there is none, or if it is a legacy one.
        file: What came out; ``None`` if the run failed.
        error: Why it failed.
    """

    entry: str
    seed: int
    card: Card | None
    file: Path | None
    error: str = ""

    @property
    def dataset(self) -> DistilledDataset:
        """What came out."""
        assert self.file is not None
        return DistilledDataset.load(self.file)

    @property
    def told(self) -> Distillation | None:
        """What the card says of this seed."""
        told = () if self.card is None else self.card.distillations
        return next((d for d in told if d.seed == self.seed), None)

    def row(self) -> list[str]:
        """Return a table's row: entry, seed, what the card says, what came out, and whether they agree."""
        told = self.told
        expected = "" if told is None else _figures(told.mean, told.std)
        if self.file is None:
            return [self.entry, str(self.seed), expected, "failed", "", self.error]
        dataset = self.dataset
        score = dataset.card.scores[0]
        agrees = ""
        if told is not None:
            agrees = "equal digest" if told.digest == dataset.digest else "other digest"
            if told.digest != dataset.digest:
                agrees += ", score within its interval" if within(told, score) else ", SCORE DIFFERS"
        seconds = sum(record.seconds for record in dataset.card.lineage)
        return [
            self.entry,
            str(self.seed),
            expected,
            _figures(score.mean, score.std),
            f"{seconds / 60:.1f}",
            agrees,
        ]


def _figures(mean: float, std: float) -> str:
    digits = 2 if abs(mean) < 10 else 1
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def within(told: Distillation, score: Score) -> bool:
    """Tell whether a score lies within the 95 % interval of what a card says, both being means over agents.

    >>> told = Distillation(seed=0, digest="0" * 64, selection_mean=1, mean=500, std=0, min=500)
    >>> figures = {"mean": 500.0, "std": 0.0, "min": 500.0, "n_agents": 100, "n_episodes": 100}
    >>> score = Score(learners="alpha_c", deterministic=False, seed=0, env_id="CartPoleND-v0", **figures)
    >>> within(told, score)
    True
    """
    error = math.sqrt((told.std**2 + score.std**2) / score.n_agents)
    return abs(told.mean - score.mean) <= 1.96 * error + 1e-9


def recipe_of(entry: str) -> tuple[Recipe, Card | None]:
    """Find how an entry is made: as its card says, or by the library's recipe where it has no lineage.

    Args:
        entry: Full name of an entry, or a task, which means its default one.

    Returns:
        The recipe, and the card unless it is a legacy one or there is no such entry.

    Raises:
        TaskDistillError: There is neither an entry with a lineage nor a recipe.
    """
    try:
        card = zoo.find(entry).card
    except ZooError:
        return load(entry), None
    if card.legacy:
        return load(zoo.find(entry).name), None
    return Recipe.from_dict(card.recipe, entry), card


def all_entries() -> list[str]:
    """List the zoo's entries that have a lineage."""
    return [entry.name for entry in zoo.entries() if not entry.card.legacy]


def folder_of(root: Path, entry: str, seed: int) -> Path:
    """Return where an entry is made with a seed: the same folder each time, so that it resumes."""
    return root / entry / f"seed={seed}"


def load_distillation(entry: zoo.ZooEntry, seed: int, root: Path) -> DistilledDataset:
    """Load a distillation of an entry: the zoo's own, or what `reproduce` has made with another seed.

    Args:
        entry: The entry.
        seed: Seed of the distillation.
        root: Folder under which `reproduce` made it.

    Raises:
        TaskDistillError: It has not been made there, or it is another dataset than the card tells of.
    """
    card = entry.card
    if card.seed == seed and not card.legacy:
        return entry.load()
    file = folder_of(root, entry.name, seed) / RESULT
    if not file.is_file():
        raise TaskDistillError(
            f'{entry.name} has no distillation of seed {seed} under "{root}"; make it by '
            f"`taskdistill reproduce {entry.name} --seeds {seed} --out {root}`."
        )
    dataset = DistilledDataset.load(file)
    told = next((d for d in card.distillations if d.seed == seed), None)
    if told is not None and told.digest != dataset.digest:
        raise TaskDistillError(
            f'"{file}" is another dataset than that of seed {seed} on the card of {entry.name}: it was made '
            "by other settings, versions or hardware."
        )
    return dataset


def reproduce(
    entries: Iterable[str], seeds: Sequence[int], root: Path, n_jobs: int = 1, progress_bar: bool = True
) -> Iterator[Reproduction]:
    """Make entries from nothing with several seeds, and yield each as soon as it is done.

    Work that was begun in the same folder is resumed, what is finished there is kept. `joblib` runs the
    (entry, seed) pairs; choose another of its backends by ``joblib.parallel_config``.

    Args:
        entries: Names of entries.
        seeds: Seeds.
        root: Folder under which each pair has a folder of its own.
        n_jobs: Pairs at once, one process each.
        progress_bar: Show a progress bar, if one pair is made at a time.

    Raises:
        TaskDistillError: An entry cannot be made, said before any is begun.
    """
    found = {name: recipe_of(name) for name in entries}
    for recipe, _ in found.values():
        check(recipe)
    pairs = [(recipe, card, seed) for recipe, card in found.values() for seed in seeds]
    shown = progress_bar and n_jobs == 1
    yield from surroundings.each(_reproduce, ((*pair, root, shown) for pair in pairs), n_jobs)


def _reproduce(
    recipe: Recipe,
    card: Card | None,
    seed: int,
    root: Path,
    progress_bar: bool,
) -> Reproduction:
    use_threads(1)

    def made(other: Recipe) -> Path:
        folder = folder_of(root, other.entry, seed)
        return build(other, seed, folder, build=made, progress_bar=progress_bar, device="cpu").result

    try:
        file = made(recipe)
    except TaskDistillError as error:
        return Reproduction(recipe.entry, seed, card, None, str(error))
    return Reproduction(recipe.entry, seed, card, file)


def chosen(reproductions: Sequence[Reproduction]) -> DistilledDataset:
    """Return the dataset to ship: that of the best selection score, with all distillations in its card.

    Args:
        reproductions: One entry made with several seeds.

    Raises:
        TaskDistillError: One of them failed: what is left would be a choice by failure.
    """
    failed = [r.seed for r in reproductions if r.file is None]
    if failed or not reproductions:
        raise TaskDistillError(f"Seeds {failed} failed; an entry needs all of its distillations.")
    datasets = [r.dataset for r in sorted(reproductions, key=lambda r: r.seed)]
    best = max(datasets, key=_selection_mean)
    return best.replace(card=best.card.replace(distillations=tuple(map(distillation, datasets))))


def distillation(dataset: DistilledDataset) -> Distillation:
    """Return what a card tells of a dataset that was made with one of several seeds."""
    card, score = dataset.card, dataset.card.scores[0]
    assert card.seed is not None
    return Distillation(
        seed=card.seed,
        digest=dataset.digest,
        selection_mean=_selection_mean(dataset),
        mean=score.mean,
        std=score.std,
        min=score.min,
        seconds=card.wall_clock_s,
        scores=card.scores,
    )


def _selection_mean(dataset: DistilledDataset) -> float:
    selection = dataset.card.selection
    return -math.inf if selection is None else selection.mean
