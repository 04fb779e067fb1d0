"""The three tables of the README, from the zoo's cards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from paper_tables import PAPER_TABLE_1, PAPER_TABLE_4
from result_cells import (
    AXES,
    NONE,
    Entry,
    atari_order,
    atari_papers,
    mean,
    minimum,
    over_distillations,
    own_scores,
    protocol,
    read_entries,
    scores_of,
    table,
)

from gym_taskdistill.dataset.card import Score
from gym_taskdistill.learners import ANY_NETWORK, TABLE_1


def build_mujoco_summary(root: Path | None = None) -> str:
    """Build the README's table of MuJoCo in v4: the paper's figures beside ours, with the worst agent.

    Args:
        root: Folder of a zoo; ``None`` is the one that comes with the library.

    Returns:
        A Markdown table.
    """
    entries = read_entries(root)
    by_name = {(entry.card.env_id, entry.card.variant): entry for entry in entries if entry.is_mujoco}
    v4 = {env_id for env_id, _ in by_name if env_id.endswith("-v4")}
    rows = []
    for task in [*PAPER_TABLE_4, *sorted(v4 - set(PAPER_TABLE_4))]:
        own = []
        for name in ("one-step", "ten-steps"):
            entry = by_name.get((task, name))
            score = own_scores(entry.card)[0] if entry else None
            own += [_headline(entry, score) if entry else NONE, minimum(score)]
        _, rl, distilled = PAPER_TABLE_4.get(task, (NONE,) * 3)
        rows.append((task, rl, distilled, *own))
    head = ("task", "paper, RL", "paper, distilled", "ours, one step", "worst", "ours, ten steps", "worst")
    return table(head, rows, 1)


def build_atari_summary(root: Path | None = None) -> str:
    """Build the README's table of Atari: the paper's figures beside ours by level, with the worst agent.

    Args:
        root: Folder of a zoo; ``None`` is the one that comes with the library.

    Returns:
        A Markdown table.
    """
    entries = read_entries(root)
    rows = []
    for entry in sorted((e for e in entries if e.game is not None), key=atari_order):
        score = own_scores(entry.card)[0]
        name = f"{entry.game}, RAM" if entry.zoo_entry.env_kwargs else str(entry.game)
        own = _marked(entry, mean(score))
        rows.append((name, *atari_papers(entry), own, minimum(score), protocol([score])))
    head = ("game", "level", "paper, RL", "paper, distilled", "ours", "worst", "agents × games")
    return table(head, rows, 2)


def build_summary(root: Path | None = None) -> str:
    """Build the README's table of cart-pole: the paper's Λ column beside ours, and our lowest column.

    Args:
        root: Folder of a zoo; ``None`` is the one that comes with the library.

    Returns:
        A Markdown table.
    """
    entries = {(entry.axes, entry.card.variant): entry for entry in read_entries(root) if entry.axes}
    rows = []
    for n in AXES:
        k = next(k for axes, k in PAPER_TABLE_1 if axes == n)
        own = [
            _headline(entry, scores_of(entry.card).get(("alpha_c", False))) if entry else NONE
            for entry in (entries.get((n, variant)) for variant in ("k_min", "k512"))
        ]
        lowest = [
            _lowest_column(entries.get((n, "universal-ten-steps")), TABLE_1),
            _lowest_column(entries.get((n, "universal-ridge")), ANY_NETWORK),
        ]
        rows.append((f"{n}D", str(k), PAPER_TABLE_1[n, k][0], *own, *lowest))
    head = (
        "task",
        "k_min",
        "paper, k_min",
        "ours, k_min",
        "ours, k = 512",
        "universal, ten steps: lowest of six",
        "universal, ridge: lowest of twelve",
    )
    return table(head, rows, 1)


def _lowest_column(entry: Entry | None, names: Iterable[str]) -> str:
    """Return the lowest mean of these learners, if all were measured."""
    if entry is None:
        return NONE
    scores = [scores_of(entry.card).get((name, False)) for name in names]
    found = [score.mean for score in scores if score is not None]
    return _marked(entry, f"{min(found):.1f}" if len(found) == len(scores) else NONE)


def _headline(entry: Entry, score: Score | None) -> str:
    """Write an entry's score, over distillations where its card has several."""
    return over_distillations(entry.card) or _marked(entry, mean(score))


def _marked(entry: Entry | None, figure: str) -> str:
    """Mark the README's figure of a legacy entry."""
    return f"{figure} ᴸ" if entry is not None and entry.legacy and figure != NONE else figure


def with_summaries(readme: str) -> str:
    """Put the tables of the zoo that comes with the library between their markers in the README."""
    for marker, build_one in (
        ("results", build_summary),
        ("mujoco", build_mujoco_summary),
        ("atari", build_atari_summary),
    ):
        readme = with_summary(readme, build_one(), marker)
    return readme


def with_summary(readme: str, summary: str, marker: str) -> str:
    """Put a table between the README's two markers of that name."""
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, _, rest = readme.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{summary}\n{end}{after}"
