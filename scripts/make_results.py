"""Write ``docs/results.md`` and the tables of the README from the zoo: ``python scripts/make_results.py``.

Every number of ours is read from a card; the paper's stand in ``paper_tables.py``. The same zoo gives
the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from paper_tables import PAPER_TABLE_1, PAPER_TABLE_4
from readme_tables import with_summaries
from result_cells import (
    AXES,
    NONE,
    Entry,
    atari_order,
    atari_papers,
    by_policy,
    cost,
    interquartile_mean,
    interval,
    learners_of,
    link,
    mean,
    minimum,
    number,
    over_distillations,
    own_scores,
    protocol,
    read_entries,
    scores_of,
    table,
)
from result_texts import (
    ATARI_TEXT,
    CONTROL_TEXT,
    COST_OF_AGENTS_TEXT,
    COST_TEXT,
    DISTILLATIONS_TEXT,
    INTRODUCTION,
    LEGACY_TEXT,
    MINIMUM_TEXT,
    MUJOCO_TEXT,
    NETWORKS_TEXT,
    OTHERS_TEXT,
    REPRODUCE_TEXT,
    TABLE_1_TEXT,
)

from gym_taskdistill.dataset.card import Card, digits
from gym_taskdistill.dataset.spaces import k_min
from gym_taskdistill.files import write_text
from gym_taskdistill.learners import ANY_NETWORK
from gym_taskdistill.uses.costs import COLUMNS as COST_COLUMNS
from gym_taskdistill.uses.costs import costs, ppo_seconds, rollouts

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS, CONTROLS = DOCS / "results.md", DOCS / "controls"
REFERENCES = DOCS / "references"
README = DOCS.parent / "README.md"

#: Heads of Table 1's columns, in the order of `TABLE_1`.
COLUMNS = ("Λ", "Ortho σ=1", "Xe", "Xe σ=1", "Random h", "Random L")

#: Variants of cart-pole in the order of the rows; others follow.
VARIANTS = ("k_min", "k512", "universal", "universal-ten-steps")

#: What stands to the right of the paper's figures.
OWN_COLUMNS = (
    "ours, stochastic",
    "ours, minimum",
    "ours, deterministic",
    "agents × episodes",
    "env steps",
    "wall-clock",
)


def build(root: Path | None = None, controls: Path | None = None, references: Path | None = None) -> str:
    """Build the page.

    Args:
        root: Folder of a zoo; ``None`` is the one that comes with the library.
        controls: Folder of the controls' cards; ``None`` is ``docs/controls``.
        references: Folder of what `run_reference.py` wrote; ``None`` is ``docs/references``.

    Returns:
        Markdown.
    """
    references = REFERENCES if references is None else references
    entries = read_entries(root)
    cartpole = sorted((e for e in entries if e.axes is not None), key=_row_order)
    mujoco = sorted((e for e in entries if e.is_mujoco), key=_mujoco_order)
    atari = sorted((e for e in entries if e.game is not None), key=atari_order)
    placed = {id(entry) for entry in [*cartpole, *mujoco, *atari]}
    others = [entry for entry in entries if id(entry) not in placed]
    parts = [INTRODUCTION]
    if any(entry.legacy for entry in entries):
        parts += [LEGACY_TEXT]
    repeated = [entry for entry in entries if len(entry.card.distillations) > 1]
    if repeated:
        parts += [DISTILLATIONS_TEXT, _distillations_table(repeated)]
    parts += [TABLE_1_TEXT, _table_1(cartpole)]
    if cartpole:
        parts += [MINIMUM_TEXT, _minimum_table(cartpole), COST_TEXT, _cost_table(cartpole)]
    if mujoco:
        parts += [MUJOCO_TEXT, _mujoco_table(mujoco, references)]
    networks = _networks_rows([*cartpole, *mujoco])
    if networks:
        parts += [NETWORKS_TEXT, table(("dataset", "inner rule", *ANY_NETWORK), networks, 2)]
    if atari:
        parts += [ATARI_TEXT, _atari_table(atari, references)]
    agents = _cost_of_agents_rows([*cartpole, *mujoco, *atari], references)
    if agents:
        parts += [COST_OF_AGENTS_TEXT, table(COST_COLUMNS, agents, 2)]
    if others:
        parts += [OTHERS_TEXT, _others_table(others)]
    cards = sorted((CONTROLS if controls is None else controls).glob("*.json"))
    if cards:
        parts += [CONTROL_TEXT, _control_table(cards, entries)]
    return "\n\n".join([*parts, REPRODUCE_TEXT]) + "\n"


def _distillations_table(entries: Sequence[Entry]) -> str:
    """Set the distillations of each entry side by side."""
    rows = []
    for entry in entries:
        card = entry.card
        seeds = ", ".join(
            f"{one.seed}: {number(one.mean, digits(one.mean))}{' *' if one.seed == card.seed else ''}"
            for one in card.distillations
        )
        worst = min(one.min for one in card.distillations)
        minutes = sum(one.seconds for one in card.distillations) / 60 / len(card.distillations)
        over = over_distillations(card) or NONE
        spread = interval(card), interquartile_mean(card)
        rows.append((link(entry), over, *spread, seeds, number(worst), f"{minutes:.1f}"))
    head = ("entry", "mean ± std (distillations)", "95 % interval", "IQM", "seed: mean", "worst agent")
    return table((*head, "minutes each"), rows, 1)


def _row_order(entry: Entry) -> tuple[int, int, str]:
    variant = entry.card.variant
    place = VARIANTS.index(variant) if variant in VARIANTS else len(VARIANTS)
    return entry.axes or 0, place, variant


def _mujoco_order(entry: Entry) -> tuple[str, str, int, str]:
    version = entry.zoo_entry.env_id.rpartition("-")[2]
    return version, entry.card.task, entry.inner_steps, entry.card.variant


def _table_1(entries: Sequence[Entry]) -> str:
    rows: list[tuple[str, ...]] = []
    for n in AXES:
        for (axes, k), cells in PAPER_TABLE_1.items():
            if axes == n:
                rows.append((f"{n}D", f"paper, k = {k}", "stochastic", *cells, "100 × 100"))
        for entry in entries:
            if entry.axes == n:
                rows += [
                    (f"{n}D", entry.label, policy, *map(mean, scores), protocol(scores))
                    for policy, scores in by_policy(entry.card)
                ]
    return table(("task", "dataset", "policy", *COLUMNS, "agents × episodes"), rows, 3)


def _minimum_table(entries: Sequence[Entry]) -> str:
    rows = [
        (f"{entry.axes}D", entry.label, policy, *map(minimum, scores), protocol(scores))
        for entry in entries
        for policy, scores in by_policy(entry.card)
    ]
    return table(("task", "dataset", "policy", *COLUMNS, "agents × episodes"), rows, 3)


def _cost_table(entries: Sequence[Entry]) -> str:
    head = ("entry", "distilled over", "env steps", "wall-clock", "seed", "k", "inner steps")
    rows = [
        (
            link(entry) + entry.mark,
            f"`{learners_of(entry.card)}`",
            *cost(entry.card),
            NONE if entry.card.seed is None else str(entry.card.seed),
            str(entry.dataset.k),
            str(entry.inner_steps),
            f"{entry.inner_lr:.4g}",
        )
        for entry in entries
    ]
    return table((*head, "inner lr"), rows, 2)


def _mujoco_table(entries: Sequence[Entry], references: Path) -> str:
    by_task: dict[str, list[Entry]] = {task: [] for task in PAPER_TABLE_4}
    for entry in entries:
        by_task.setdefault(entry.card.task, []).append(entry)
    rows = []
    for task, found in by_task.items():
        paper = PAPER_TABLE_4.get(task, (NONE,) * 3)
        rl = [_reference(references, task, algorithm) for algorithm in ("ppmo", "sb3")]
        own = [_mujoco_cells(entry) for entry in found] or [(NONE,) * 7]
        rows += [(task, dataset, *paper, *rl, *cells) for dataset, *cells in own]
    head = (
        "task",
        "dataset",
        "paper, random",
        "paper, RL",
        "paper, distilled",
        "our PPO",
        "SB3's PPO",
        *OWN_COLUMNS,
    )
    return table(head, rows, 2)


def _networks_rows(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Set the scores of `ANY_NETWORK` side by side, of datasets that were tested with all of them."""
    rows = []
    for entry in entries:
        scores = scores_of(entry.card)
        tested = [scores.get((name, False)) for name in ANY_NETWORK]
        if None not in tested:
            name, rule = link(entry) + entry.mark, entry.dataset.rule.kind
            steps = f"{entry.inner_steps} × SGD" if rule == "sgd" else rule
            cells = (f"{number(s.mean, digits(s.mean))} ({minimum(s)})" for s in tested if s is not None)
            rows.append((name, steps, *cells))
    return rows


def _reference(folder: Path, task: str, algorithm: str) -> str:
    """Return what a reference scored, as mean over its seeds."""
    results = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{task},{algorithm},seed=*.json"))]
    if not results:
        return NONE
    average = sum(result["mean"] for result in results) / len(results)
    steps = max(result["num_timesteps"] for result in results)
    seeds = "1 seed" if len(results) == 1 else f"{len(results)} seeds"
    return f"{number(average, digits(average))} ({seeds}, {steps / 1e6:.1f} M steps)"


def _cost_of_agents_rows(entries: Sequence[Entry], folder: Path) -> list[tuple[str, ...]]:
    """Set PPO, distillation and the training of one agent side by side, of tasks where all were timed."""
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        card = entry.card
        if rollouts(card) is None or not card.default:
            continue
        ppo = ppo_seconds(card, folder)
        shot = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{card.task},k-shot.json"))]
        if ppo is not None and shot:
            rows += costs(card, shot[0], ppo[0]).rows()
    return rows


def _mujoco_cells(entry: Entry) -> tuple[str, ...]:
    """The dataset, and what stands to the right of the paper's figures."""
    stochastic, deterministic = own_scores(entry.card)
    return (
        f"{link(entry, entry.card.variant)}{entry.mark}: {entry.size}{entry.unusual_learners}",
        mean(stochastic),
        minimum(stochastic),
        mean(deterministic),
        protocol([stochastic, deterministic]),
        *cost(entry.card),
    )


def _one_action(folder: Path, env_id: str) -> str:
    """Return what the best single action of a game scores, as far as it was measured."""
    results = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{env_id},one-action=*,seed=*.json"))]
    if not results:
        return NONE
    best = max(results, key=lambda result: result["mean"])
    return f"{number(best['mean'])} ± {number(best['std'])} (action {best['action']})"


def _atari_table(entries: Sequence[Entry], references: Path) -> str:
    rows = []
    for entry in entries:
        dataset, *cells = _mujoco_cells(entry)
        rows.append(
            (
                entry.card.task,
                dataset,
                *atari_papers(entry),
                _reference(references, entry.card.task, "ppmo"),
                _one_action(references, entry.card.env_id),
                *cells,
            )
        )
    papers = ("paper, RL", "paper, distilled")
    head = ("task", "dataset", "level", *papers, "our PPO", "one action", *OWN_COLUMNS)
    return table(head, rows, 3)


def _others_table(entries: Sequence[Entry]) -> str:
    head = ("task", "variant", "k", "mean ± std", "min", "deterministic", "agents × episodes")
    rows = []
    for entry in entries:
        stochastic, deterministic = own_scores(entry.card)
        rows.append(
            (
                entry.card.task,
                link(entry, entry.card.variant) + entry.mark,
                str(entry.dataset.k),
                mean(stochastic),
                minimum(stochastic),
                mean(deterministic),
                protocol([stochastic, deterministic]),
                *cost(entry.card),
            )
        )
    return table((*head, "env steps", "wall-clock"), rows, 2)


def _control_table(paths: Sequence[Path], entries: Sequence[Entry]) -> str:
    """Set controls beside the entries of the same task that have k_min rows."""
    rows = []
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        card, k = Card.from_dict(document["card"]), document["tensors"]["x"][0]
        needed = k_min(card.action_space["n"])
        rows.append(_control_row(card, k, "control"))
        rows += [
            _control_row(entry.card, needed, f"`{entry.card.variant}`")
            for entry in entries
            if entry.card.task == card.task
            and entry.dataset.k == needed
            and entry.card.learners == card.learners
        ]
    head = ("task", "dataset", "k", "k_min", "mean ± std", "min", "agents × episodes", "env steps")
    return table(head, rows, 2)


def _control_row(card: Card, k: int, label: str) -> tuple[str, ...]:
    score, _ = own_scores(card)
    needed, (steps, _) = str(k_min(card.action_space["n"])), cost(card)
    return card.task, label, str(k), needed, mean(score), minimum(score), protocol([score]), steps


def main() -> None:
    """Write the page and the tables in the README."""
    write_text(RESULTS, build())
    write_text(README, with_summaries(README.read_text(encoding="utf-8")))
    print(RESULTS, README, sep="\n")


if __name__ == "__main__":
    main()
