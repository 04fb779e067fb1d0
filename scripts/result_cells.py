"""An entry of the zoo as the tables see it, and how a cell of theirs is written."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from paper_tables import PAPER_ATARI_RL, PAPER_TABLE_1, PAPER_TABLE_2, PAPER_TABLE_4
from result_texts import LEGACY

from gym_taskdistill import zoo
from gym_taskdistill.dataset.card import Card, Score, digits
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import NAMED_LEARNERS, TABLE_1, learner_distribution
from gym_taskdistill.paths import data_root
from gym_taskdistill.uses.costs import distilling_seconds

CARTPOLE = "CartPoleND-v0"

AXES = sorted({n for n, _ in PAPER_TABLE_1})

#: MuJoCo's tasks without their version.
MUJOCO = {*(task.removesuffix("-v4") for task in PAPER_TABLE_4), "InvertedPendulum", "Pusher", "Swimmer"}

NONE = "–"


class Entry(NamedTuple):
    """An entry of the zoo, read."""

    zoo_entry: zoo.ZooEntry
    dataset: DistilledDataset

    @property
    def card(self) -> Card:
        """The card."""
        return self.dataset.card

    @property
    def axes(self) -> int | None:
        """Number of cart-pole axes if the entry belongs into Table 1."""
        n = self.zoo_entry.env_kwargs.get("n")
        known = self.zoo_entry.env_id == CARTPOLE and self.zoo_entry.env_kwargs == {"n": n}
        return n if known and n in AXES else None

    @property
    def is_mujoco(self) -> bool:
        """Whether the entry belongs into the section of Table 4."""
        return self.zoo_entry.env_id.rpartition("-v")[0] in MUJOCO

    @property
    def game(self) -> str | None:
        """The name of the Atari game if the entry belongs into the section of Table 2."""
        name = self.zoo_entry.env_id.rpartition("/")[2].rpartition("-")[0].removesuffix("NoFrameskip")
        return name if name in PAPER_TABLE_2 else None

    @property
    def legacy(self) -> bool:
        """Whether the stages that made it are not on record."""
        return self.card.legacy

    @property
    def mark(self) -> str:
        """What follows the name of a legacy entry."""
        return f" *{LEGACY}*" if self.legacy else ""

    @property
    def inner_steps(self) -> int:
        """Steps that learners take on the rows."""
        return self.dataset.rule.steps

    @property
    def inner_lr(self) -> float:
        """Learning rate of the first of these steps, or a ridge's λ."""
        rule = self.dataset.rule
        return float(getattr(rule, rule.rate))

    @property
    def size(self) -> str:
        """Rows and inner steps in words."""
        steps = self.inner_steps
        return f"k = {self.dataset.k}, {steps} inner step{'s' if steps > 1 else ''}"

    @property
    def unusual_learners(self) -> str:
        """The learners over which it was distilled, where they are not the paper's."""
        own = own_scores(self.card)[0]
        return "" if own is None or own.learners in NAMED_LEARNERS else f", {own.learners}"

    @property
    def label(self) -> str:
        """The variant with what tells it apart."""
        return f"ours, `{self.card.variant}`{self.mark}: {self.size}"


def scores_of(card: Card) -> dict[tuple[str, bool], Score]:
    """Return a card's scores by learners and policy."""
    return {(score.learners, score.deterministic): score for score in card.scores}


def by_policy(card: Card) -> list[tuple[str, list[Score | None]]]:
    """Table 1's six scores for each kind of policy; the stochastic row stands even if empty."""
    scores = scores_of(card)
    rows = []
    for policy, deterministic in (("stochastic", False), ("deterministic", True)):
        cells = [scores.get((name, deterministic)) for name in TABLE_1]
        if any(cells) or not deterministic:
            rows.append((policy, cells))
    return rows


def own_scores(card: Card) -> tuple[Score | None, Score | None]:
    """Stochastic and deterministic score of the learners over which a dataset was distilled."""
    scores, own = scores_of(card), learners_of(card)
    if not any(name == own for name, _ in scores):
        own = card.scores[0].learners if card.scores else own
    return scores.get((own, False)), scores.get((own, True))


def learners_of(card: Card) -> str:
    """Name the learner distribution over which a dataset was distilled."""
    try:
        distribution = learner_distribution(card.learners)
    except TaskDistillError:
        return "custom"  # a family that somebody registers elsewhere
    return next((name for name, d in NAMED_LEARNERS.items() if d == distribution), "custom")


def mean(score: Score | None) -> str:
    """Write mean and standard deviation over agents."""
    if score is None:
        return NONE
    return " ± ".join(number(value, digits(score.mean)) for value in (score.mean, score.std))


def over_distillations(card: Card) -> str | None:
    """Write mean and standard deviation over distillations, and their number, if there are several."""
    means = [one.mean for one in card.distillations]
    if len(means) < 2:
        return None
    middle = statistics.mean(means)
    figures = (number(value, digits(middle)) for value in (middle, statistics.stdev(means)))
    return f"{' ± '.join(figures)} ({len(means)})"


def interval(card: Card) -> str:
    """Write the 95 % interval of the mean over distillations."""
    over = card.over_distillations
    if over is None or over.mean_interval is None:
        return NONE
    low, high = (number(end, digits(over.mean)) for end in over.mean_interval)
    return f"[{low}, {high}]"


def interquartile_mean(card: Card) -> str:
    """Write the interquartile mean over distillations."""
    over = card.over_distillations
    return NONE if over is None else number(over.iqm, digits(over.mean))


def minimum(score: Score | None) -> str:
    """Write the return of the worst agent."""
    return NONE if score is None else number(score.min)


def number(value: float, n_digits: int = 1) -> str:
    """Write a return, with thousands separators from 10,000 on, as the paper does."""
    return f"{value:,.{n_digits}f}" if abs(value) >= 10_000 else f"{value:.{n_digits}f}"


def protocol(scores: Iterable[Score | None]) -> str:
    """Write how many agents played how many episodes, once for each kind of test."""
    kinds = {(s.n_agents, s.n_episodes) for s in scores if s is not None}
    return ", ".join(f"{agents} × {episodes}" for agents, episodes in sorted(kinds)) or NONE


def cost(card: Card) -> tuple[str, str]:
    """Write env steps and time by the clock, over all stages where they are on record."""
    stages = card.lineage
    steps = sum(stage.env_steps for stage in stages) or card.num_timesteps
    return f"{steps:,}", f"{(distilling_seconds(card) or 0) / 60:.1f} min"


def link(entry: Entry, text: str = "") -> str:
    """Link to the readable card; the same wherever the zoo lies."""
    folder = "/".join(entry.zoo_entry.path.parts[-3:-1])
    return f"[`{text or entry.zoo_entry.name}`](../zoo/{folder}/dataset.json)"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], n_left: int) -> str:
    """Lay out a Markdown table, its first ``n_left`` columns to the left, the others to the right."""
    marks = ["---"] * n_left + ["---:"] * (len(head) - n_left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows))


def read_entries(root: Path | None) -> list[Entry]:
    """Read the entries of a zoo, ``None`` for the one that comes with the library."""
    return [Entry(entry, entry.load()) for entry in zoo.entries(root=root or data_root("zoo"))]


def atari_order(entry: Entry) -> tuple[str, str, int, str]:
    """Sort Atari entries by game, observation and level, from the longest encoder down."""
    return entry.game or "", entry.card.task, -entry.dataset.encoder_layers, entry.card.variant


def atari_papers(entry: Entry) -> tuple[str, str, str]:
    """Return the entry's level, and the paper's RL and distillation there; it has none of a game's RAM."""
    level, game = entry.dataset.encoder_layers, entry.game or ""
    name = f"l = {level}" if level else "full"
    if entry.zoo_entry.env_kwargs:
        return name, NONE, NONE
    return name, PAPER_ATARI_RL[game], PAPER_TABLE_2[game].get(level, NONE)
