"""Write ``docs/results.md`` and the tables of the README from the zoo: ``python scripts/make_results.py``.

Every number of ours is read from a card; the paper's stand in ``paper_tables.py``. The same zoo gives
the same bytes.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from paper_tables import PAPER_ATARI_RL, PAPER_TABLE_1, PAPER_TABLE_2, PAPER_TABLE_4

from gym_taskdistill import zoo
from gym_taskdistill.dataset.card import Card, Score, digits
from gym_taskdistill.dataset.dataset import DistilledDataset, k_min
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import write_text
from gym_taskdistill.learners import NAMED_LEARNERS, TABLE_1, learner_distribution

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS, CONTROLS = DOCS / "results.md", DOCS / "controls"
REFERENCES = DOCS / "references"
README = DOCS.parent / "README.md"

CARTPOLE = "CartPoleND-v0"

#: Heads of Table 1's columns, in the order of `TABLE_1`.
COLUMNS = ("Λ", "Ortho σ=1", "Xe", "Xe σ=1", "Random h", "Random L")

#: Variants of cart-pole in the order of the rows; others follow.
VARIANTS = ("k_min", "k512", "universal", "universal-few")

AXES = sorted({n for n, _ in PAPER_TABLE_1})

#: MuJoCo's tasks without their version.
MUJOCO = {*(task.removesuffix("-v4") for task in PAPER_TABLE_4), "InvertedPendulum", "Pusher", "Swimmer"}

NONE = "–"

#: What stands to the right of the paper's figures.
OWN_COLUMNS = (
    "ours, stochastic",
    "ours, minimum",
    "ours, deterministic",
    "agents × episodes",
    "env steps",
    "wall-clock",
)

INTRODUCTION = """\
# Results

<!-- Written by scripts/make_results.py from the cards of the zoo; do not edit. -->

## Protocol

- Fresh learners are drawn from a learner distribution, never with a seed of training, and trained on
  the dataset for its inner steps, one unless said otherwise. They see no environment before the test.
- Each then plays full episodes, scored by raw rewards. The tables say how many learners and episodes.
- A score is the mean ± standard deviation **over agents** of their mean returns; the minimum is the
  mean return of the worst agent.
- Policies are stochastic as in the paper; deterministic ones, which take their most likely action,
  are given beside them where they were tested.
- The best dataset of a run was chosen with other seeds than the ones that scored it."""

TABLE_1_TEXT = """\
## N-dimensional cart-pole: Table 1 side by side

Rows are datasets, columns the distributions from which the tested learners are drawn; an episode
returns at most 500. Λ is the paper's: two hidden layers of 64, orthogonal initialisation. The other
columns change the initialisation or the architecture. The paper distilled over Λ alone; over what
ours were distilled stands under [Cost](#cost). The paper's numbers are those of its Table 1:
100 learners, 100 episodes, stochastic, one inner step."""

MINIMUM_TEXT = """\
### The worst agent

The mean return of the worst agent in each cell; the paper does not report it."""

COST_TEXT = """\
### Cost

A dataset is the best of its run: env steps are counted up to it, wall-clock is the whole run's. The
card, linked, has the recipe and the versions."""

MUJOCO_TEXT = """\
## MuJoCo: Table 4 side by side

The paper's eight tasks come first, in v4 as there, then those that it does not have, then v5. Its
figures are those of its Table 4: it distilled for 24 hours on 4 GPUs into 64 rows for one inner step, and
tested each dataset by 1000 agents with one episode each. They are left out for v5, which changed most
observations or rewards. Pusher-v4 cannot run on mujoco >= 3.

The two ± differ: the paper's is over 5 distillations, in RL over 5 agents; ours is over the agents trained
on one dataset. Ours are drawn from the distribution over which the dataset was distilled: Λ, two hidden
layers of 64, unless said otherwise; for more than one inner step it may be one of several there.
The minimum is that of the stochastic ones; where agents × episodes stand twice, the stochastic test had
more. Where an entry went on from another, such as the task's `base`, env steps and wall-clock are those of
its last run; its card's notes tell what came before.

Our PPO is the same program with the whole network in the encoder, so that nothing is drawn afresh, with the
recipe and the env steps of the distillation, of `base` where there is one; SB3's has the hyperparameters of
its zoo (tuned for v3), Humanoid's over 1 and HumanoidStandup's over 1.5 of its 10 million steps. Both are
tested stochastically over 100 episodes; `research/run_reference.py ppmo ENV` and `sb3 ENV` make them, the
latter two with `--total-timesteps`. For Ant, Hopper, Walker2d and InvertedDoublePendulum ours took `--set
log_std_init=0 log_std_learning_rate=lin_0.001_0.0001`; Reacher's is of an earlier recipe. The hyperparameters
of each stand in its file in `docs/references/`. With more noise at the start and 10 million steps ours scores
9918 ± 1401 on HalfCheetah-v4 (`--total-timesteps 10000000 --set log_std_init=-1`), in 8 million -3.56 ± 1.53
on Reacher-v4 (`--total-timesteps 8000000 --set learners=alpha_c log_std_init=-1 gamma=0.95 gae_lambda=0.95
learning_rate=lin_0.001_0.00003 batch_size=1024`); they taught `few-steps` what it went on from."""

ATARI_TEXT = """\
## Atari: Table 2 side by side

An encoder of l layers is trained by the outer loop and shared by all learners, which are the remaining
layers of the Nature CNN, drawn afresh; l = 4 is a linear probe, l = 0 full distillation. The paper's figures
are those of its Table 2a, 100 agents with 100 games each; * had not converged, † ran on 6 GPUs. Games are
whole, frames are skipped by fours without sticky actions, and rewards are raw; ours are drawn from the
distribution over which the dataset was distilled. A game's RAM, 128 bytes for a multi-layer perceptron, is
not the paper's setting: there full distillation is affordable on two cores. Env steps and wall-clock are
PPMO's, of the last run where one went on from another; what imitation took comes on top, and the steps
recorded of an expert stand in the card's recipe. Our PPO is the same program with the whole network in the
encoder, tested over 100 games. It made the experts of Ms. Pac-Man and Space Invaders too, by the 1024 bits of
a game's RAM, which it learns from faster than from the bytes; the commands stand in the notes of the cards.

"One action" is what one action, always, scores by itself, but for some random ones: where it was a dataset's
first expert, it says what is left for the dataset to add. `research/run_reference.py one-action` does it."""

COST_OF_AGENTS_TEXT = """\
## What an agent costs: Table 3 for our tasks

The paper times Centipede on one A100: 3.25 s an epoch of PPO, 3.73 s a meta-epoch, 0.18 s for one agent on
its 10 rows. Ours were timed on one core, by the clock; distillation's time is that of its card, tests
included, and may come from a slower or busier machine than the others'. PPO is the same program with the
whole network in the encoder, over the same env steps; an iteration is a rollout with the updates on it.
Imitation, with which Centipede begins in both, is left out.
From the number of agents in the last column on, distilling once and training each on the rows is cheaper
than training each by PPO. `research/run_reference.py` makes both (`ppmo`, `k-shot`)."""

OTHERS_TEXT = """\
## Other tasks

Learners are drawn from the distribution over which the dataset was distilled."""

CONTROL_TEXT = """\
## Control: fewer rows than k_min

Equation 3 of the paper asks for k_min = ⌈c / 2⌉ + 1 rows to tell c actions apart; with one row fewer the
paper's 2D cart-pole fails at 40.6. The same recipe as `k_min`, with fewer rows, gives what stands below.
One step from a last layer near zero makes a learner's logits about Σ yᵢ h(xᵢ)·h(s), and h is odd:
h(−s) = −h(s). A row can therefore serve two actions, one on either side of its hyperplane, where opposite
states want opposite actions, as here: c / 2 rows may be enough, fewer are not."""

REPRODUCE_TEXT = """\
## Reproduce

The first block distils every entry again, with the recipe and the seed of its card, but for those whose
card's notes say what else it takes; the second scores the entries again. `make results` rebuilds this page
from the zoo."""

RECIPE_FUNCTION = """\
recipe() {  # writes the recipe in an entry's card to recipe.yaml
  python -m gym_taskdistill.zoo show "$1" --json | python -c '
import json, sys
recipe = json.load(sys.stdin)["recipe"]
recipe.pop("warm_start", None)
json.dump(recipe, sys.stdout)' > recipe.yaml
}"""

CONTROL_COMMANDS = """\
for k in 1 2; do
  python -m gym_taskdistill.train cartpole --env-kwargs n=2 --set k=$k variant=control \\
    --seed 0 --out runs/control-$k
  mkdir -p docs/controls && cp runs/control-$k/cartpole-n2_1/best.json docs/controls/n=2,k=$k.json
done"""


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
    def size(self) -> str:
        """Rows and inner steps in words."""
        steps = self.dataset.inner_steps
        return f"k = {self.dataset.k}, {steps} inner step{'s' if steps > 1 else ''}"

    @property
    def unusual_learners(self) -> str:
        """The learners over which it was distilled, where they are not the paper's."""
        own = _own_scores(self.card)[0]
        return "" if own is None or own.learners in NAMED_LEARNERS else f", {own.learners}"

    @property
    def label(self) -> str:
        """The variant with what tells it apart."""
        return f"ours, `{self.card.variant}`: {self.size}"


def build(root: Path | None = None, controls: Path | None = None, references: Path | None = None) -> str:
    """Build the page.

    Args:
        root: Folder of a zoo; ``None`` is the one that comes with the library.
        controls: Folder of the controls' cards; ``None`` is ``docs/controls``.
        references: Folder of what `run_reference.py` wrote; ``None`` is ``docs/references``.

    Returns:
        Markdown.
    """
    entries = [Entry(entry, entry.load()) for entry in zoo.entries(root=root)]
    cartpole = sorted((e for e in entries if e.axes is not None), key=_row_order)
    mujoco = sorted((e for e in entries if e.is_mujoco), key=_mujoco_order)
    atari = sorted((e for e in entries if e.game is not None), key=_atari_order)
    placed = {id(entry) for entry in [*cartpole, *mujoco, *atari]}
    others = [entry for entry in entries if id(entry) not in placed]
    parts = [INTRODUCTION, TABLE_1_TEXT, _table_1(cartpole)]
    if cartpole:
        parts += [MINIMUM_TEXT, _minimum_table(cartpole), COST_TEXT, _cost_table(cartpole)]
    if mujoco:
        parts += [MUJOCO_TEXT, _mujoco_table(mujoco, REFERENCES if references is None else references)]
    if atari:
        parts += [ATARI_TEXT, _atari_table(atari, REFERENCES if references is None else references)]
    costs = _cost_of_agents_rows(
        [*cartpole, *mujoco, *atari], REFERENCES if references is None else references
    )
    if costs:
        head = (
            "task",
            "training",
            "time per iteration",
            "iterations",
            "datapoints",
            "in all",
            "pays off from",
        )
        parts += [COST_OF_AGENTS_TEXT, _table(head, costs, 2)]
    if others:
        parts += [OTHERS_TEXT, _others_table(others)]
    cards = sorted((CONTROLS if controls is None else controls).glob("*.json"))
    if cards:
        parts += [CONTROL_TEXT, _control_table(cards, entries)]
    parts += [REPRODUCE_TEXT, *_commands([*cartpole, *mujoco, *atari, *others])]
    return "\n\n".join(parts) + "\n"


def build_mujoco_summary(root: Path | None = None) -> str:
    """Build the README's table of MuJoCo in v4: the paper's figures beside ours, with the worst agent.

    Args:
        root: Folder of a zoo; ``None`` is the one that comes with the library.

    Returns:
        A Markdown table.
    """
    entries = [Entry(entry, entry.load()) for entry in zoo.entries(root=root)]
    by_name = {(entry.card.env_id, entry.card.variant): entry for entry in entries if entry.is_mujoco}
    v4 = {env_id for env_id, _ in by_name if env_id.endswith("-v4")}
    rows = []
    for task in [*PAPER_TABLE_4, *sorted(v4 - set(PAPER_TABLE_4))]:
        found = [by_name.get((task, variant)) for variant in ("one-step", "few-steps")]
        own = []
        for entry in found:
            score = _own_scores(entry.card)[0] if entry else None
            own += [_mean(score), _minimum(score)]
        _, rl, distilled = PAPER_TABLE_4.get(task, (NONE,) * 3)
        rows.append((task, rl, distilled, *own))
    head = ("task", "paper, RL", "paper, distilled", "ours, one step", "worst", "ours, ten steps", "worst")
    return _table(head, rows, 1)


def build_atari_summary(root: Path | None = None) -> str:
    """Build the README's table of Atari: the paper's figures beside ours by level, with the worst agent.

    Args:
        root: Folder of a zoo; ``None`` is the one that comes with the library.

    Returns:
        A Markdown table.
    """
    entries = [Entry(entry, entry.load()) for entry in zoo.entries(root=root)]
    rows = []
    for entry in sorted((e for e in entries if e.game is not None), key=_atari_order):
        score = _own_scores(entry.card)[0]
        name = f"{entry.game}, RAM" if entry.zoo_entry.env_kwargs else str(entry.game)
        rows.append((name, *_atari_papers(entry), _mean(score), _minimum(score), _protocol([score])))
    head = ("game", "level", "paper, RL", "paper, distilled", "ours", "worst", "agents × games")
    return _table(head, rows, 2)


def _atari_papers(entry: Entry) -> tuple[str, str, str]:
    """Return the entry's level, and the paper's RL and distillation there; it has none of a game's RAM."""
    level, game = entry.dataset.encoder_layers, entry.game or ""
    name = f"l = {level}" if level else "full"
    if entry.zoo_entry.env_kwargs:
        return name, NONE, NONE
    return name, PAPER_ATARI_RL[game], PAPER_TABLE_2[game].get(level, NONE)


def build_summary(root: Path | None = None) -> str:
    """Build the README's table of cart-pole: the paper's Λ column beside ours, and our worst column.

    Args:
        root: Folder of a zoo; ``None`` is the one that comes with the library.

    Returns:
        A Markdown table.
    """
    entries = {
        (entry.env_kwargs["n"], entry.variant): entry.card
        for entry in zoo.entries(CARTPOLE, root=root)
        if set(entry.env_kwargs) == {"n"}
    }
    rows = []
    for n in AXES:
        k = next(k for axes, k in PAPER_TABLE_1 if axes == n)
        own = [
            _mean(_scores(card).get(("alpha_c", False))) if card else NONE
            for card in (entries.get((n, variant)) for variant in ("k_min", "k512"))
        ]
        worst = [_worst_column(entries.get((n, variant))) for variant in ("universal", "universal-few")]
        rows.append((f"{n}D", str(k), PAPER_TABLE_1[n, k][0], *own, *worst))
    head = (
        "task",
        "k_min",
        "paper, k_min",
        "ours, k_min",
        "ours, k = 512",
        "universal, one step: worst of six",
        "universal, ten steps: worst of six",
    )
    return _table(head, rows, 1)


def _worst_column(card: Card | None) -> str:
    """Return the lowest of the six columns' means, if all were measured."""
    if card is None:
        return NONE
    scores = [_scores(card).get((name, False)) for name in TABLE_1]
    found = [score.mean for score in scores if score is not None]
    return f"{min(found):.1f}" if len(found) == len(scores) else NONE


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


def _row_order(entry: Entry) -> tuple[int, int, str]:
    variant = entry.card.variant
    place = VARIANTS.index(variant) if variant in VARIANTS else len(VARIANTS)
    return entry.axes or 0, place, variant


def _mujoco_order(entry: Entry) -> tuple[str, str, int, str]:
    version = entry.zoo_entry.env_id.rpartition("-")[2]
    return version, entry.card.task, entry.dataset.inner_steps, entry.card.variant


def _atari_order(entry: Entry) -> tuple[str, str, int, str]:
    return entry.game or "", entry.card.task, -entry.dataset.encoder_layers, entry.card.variant


# -- tables -----------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], n_left: int) -> str:
    """Lay out a Markdown table, its first ``n_left`` columns to the left, the others to the right."""
    marks = ["---"] * n_left + ["---:"] * (len(head) - n_left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows))


def _table_1(entries: Sequence[Entry]) -> str:
    rows = []
    for n in AXES:
        for (axes, k), cells in PAPER_TABLE_1.items():
            if axes == n:
                rows.append((f"{n}D", f"paper, k = {k}", "stochastic", *cells, "100 × 100"))
        for entry in entries:
            if entry.axes == n:
                rows += [
                    (f"{n}D", entry.label, policy, *map(_mean, scores), _protocol(scores))
                    for policy, scores in _by_policy(entry.card)
                ]
    return _table(("task", "dataset", "policy", *COLUMNS, "agents × episodes"), rows, 3)


def _minimum_table(entries: Sequence[Entry]) -> str:
    rows = [
        (f"{entry.axes}D", entry.label, policy, *map(_minimum, scores), _protocol(scores))
        for entry in entries
        for policy, scores in _by_policy(entry.card)
    ]
    return _table(("task", "dataset", "policy", *COLUMNS, "agents × episodes"), rows, 3)


def _cost_table(entries: Sequence[Entry]) -> str:
    head = ("entry", "distilled over", "env steps", "wall-clock", "seed", "k", "inner steps")
    rows = [
        (
            _link(entry),
            f"`{_learners(entry.card)}`",
            *_cost(entry.card),
            NONE if entry.card.seed is None else str(entry.card.seed),
            str(entry.dataset.k),
            str(entry.dataset.inner_steps),
            f"{entry.dataset.inner_lr:.4g}",
        )
        for entry in entries
    ]
    return _table((*head, "inner lr"), rows, 2)


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
    return _table(head, rows, 2)


def _reference(folder: Path, task: str, algorithm: str) -> str:
    """Return what a reference scored, as mean over its seeds."""
    results = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{task},{algorithm},seed=*.json"))]
    if not results:
        return NONE
    mean = sum(result["mean"] for result in results) / len(results)
    steps = max(result["num_timesteps"] for result in results)
    seeds = "1 seed" if len(results) == 1 else f"{len(results)} seeds"
    return f"{_number(mean, digits(mean))} ({seeds}, {steps / 1e6:.1f} M steps)"


def _cost_of_agents_rows(entries: Sequence[Entry], folder: Path) -> list[tuple[str, ...]]:
    """Set PPO, distillation and the training of one agent side by side, of tasks where all were timed."""
    rows = []
    for entry in entries:
        card, recipe = entry.card, entry.card.recipe
        # Only whole distillations: where the default entry went on from its ``base``, that is the one.
        if not (card.default or card.variant == "base") or not recipe or recipe.get("warm_start"):
            continue
        rl, shot = (
            [json.loads(p.read_text()) for p in sorted(folder.glob(f"{card.task},{pattern}.json"))]
            for pattern in ("ppmo,seed=*", "k-shot")
        )
        if not rl or not shot:
            continue
        rollout = recipe["n_envs"] * recipe["ppmo"]["n_steps"]
        iterations = -(-recipe["total_timesteps"] // rollout)
        by_ppo = sum(result["wall_clock_s"] for result in rl) / len(rl)
        seconds, k = shot[0]["seconds"], shot[0]["k"]
        agents = math.ceil(card.wall_clock_s / (by_ppo - seconds))
        for name, total in (("PPO on the env", by_ppo), ("distilling", card.wall_clock_s)):
            times = (f"{1000 * total / iterations:.0f} ms", f"{iterations:,}", f"{iterations * rollout:,}")
            rows.append((card.task, name, *times, f"{total / 60:.1f} min", NONE))
        once = f"{1000 * seconds:.1f} ms"
        steps = shot[0]["inner_steps"]
        rows.append((card.task, f"{k}-shot on the rows", once, str(steps), str(k), once, f"{agents} agents"))
    return rows


def _mujoco_cells(entry: Entry) -> tuple[str, ...]:
    """The dataset, and what stands to the right of the paper's figures."""
    stochastic, deterministic = _own_scores(entry.card)
    return (
        f"{_link(entry, entry.card.variant)}: {entry.size}{entry.unusual_learners}",
        _mean(stochastic),
        _minimum(stochastic),
        _mean(deterministic),
        _protocol([stochastic, deterministic]),
        *_cost(entry.card),
    )


def _one_action(folder: Path, env_id: str) -> str:
    """Return what the best single action of a game scores, as far as it was measured."""
    results = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{env_id},one-action=*,seed=*.json"))]
    if not results:
        return NONE
    best = max(results, key=lambda result: result["mean"])
    return f"{_number(best['mean'])} ± {_number(best['std'])} (action {best['action']})"


def _atari_table(entries: Sequence[Entry], references: Path) -> str:
    rows = []
    for entry in entries:
        dataset, *cells = _mujoco_cells(entry)
        rows.append(
            (
                entry.card.task,
                dataset,
                *_atari_papers(entry),
                _reference(references, entry.card.task, "ppmo"),
                _one_action(references, entry.card.env_id),
                *cells,
            )
        )
    papers = ("paper, RL", "paper, distilled")
    head = ("task", "dataset", "level", *papers, "our PPO", "one action", *OWN_COLUMNS)
    return _table(head, rows, 3)


def _others_table(entries: Sequence[Entry]) -> str:
    head = ("task", "variant", "k", "mean ± std", "min", "deterministic", "agents × episodes")
    rows = []
    for entry in entries:
        stochastic, deterministic = _own_scores(entry.card)
        rows.append(
            (
                entry.card.task,
                _link(entry, entry.card.variant),
                str(entry.dataset.k),
                _mean(stochastic),
                _minimum(stochastic),
                _mean(deterministic),
                _protocol([stochastic, deterministic]),
                *_cost(entry.card),
            )
        )
    return _table((*head, "env steps", "wall-clock"), rows, 2)


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
    return _table(head, rows, 2)


def _control_row(card: Card, k: int, label: str) -> tuple[str, ...]:
    score, _ = _own_scores(card)
    needed, (steps, _) = str(k_min(card.action_space["n"])), _cost(card)
    return card.task, label, str(k), needed, _mean(score), _minimum(score), _protocol([score]), steps


# -- cells ------------------------------------------------------------------------------------------


def _scores(card: Card) -> dict[tuple[str, bool], Score]:
    return {(score.learners, score.deterministic): score for score in card.scores}


def _by_policy(card: Card) -> list[tuple[str, list[Score | None]]]:
    """Table 1's six scores for each kind of policy; the stochastic row stands even if empty."""
    scores = _scores(card)
    rows = []
    for policy, deterministic in (("stochastic", False), ("deterministic", True)):
        cells = [scores.get((name, deterministic)) for name in TABLE_1]
        if any(cells) or not deterministic:
            rows.append((policy, cells))
    return rows


def _own_scores(card: Card) -> tuple[Score | None, Score | None]:
    """Stochastic and deterministic score of the learners over which a dataset was distilled."""
    scores, own = _scores(card), _learners(card)
    if not any(name == own for name, _ in scores):
        own = card.scores[0].learners if card.scores else own
    return scores.get((own, False)), scores.get((own, True))


def _learners(card: Card) -> str:
    """Name the learner distribution over which a dataset was distilled."""
    try:
        distribution = learner_distribution(card.learners)
    except TaskDistillError:
        return "custom"  # a family that somebody registers elsewhere
    return next((name for name, d in NAMED_LEARNERS.items() if d == distribution), "custom")


def _mean(score: Score | None) -> str:
    if score is None:
        return NONE
    mean, std = (_number(value, digits(score.mean)) for value in (score.mean, score.std))
    return f"{mean} ± {std}"


def _minimum(score: Score | None) -> str:
    return NONE if score is None else _number(score.min)


def _number(value: float, n_digits: int = 1) -> str:
    """Write a return, with thousands separators from 10,000 on, as the paper does."""
    return f"{value:,.{n_digits}f}" if abs(value) >= 10_000 else f"{value:.{n_digits}f}"


def _protocol(scores: Iterable[Score | None]) -> str:
    kinds = {(s.n_agents, s.n_episodes) for s in scores if s is not None}
    return ", ".join(f"{agents} × {episodes}" for agents, episodes in sorted(kinds)) or NONE


def _cost(card: Card) -> tuple[str, str]:
    return f"{card.num_timesteps:,}", f"{card.wall_clock_s / 60:.1f} min"


def _link(entry: Entry, text: str = "") -> str:
    """Link to the readable card; the same wherever the zoo lies."""
    folder = "/".join(entry.zoo_entry.path.parts[-3:-1])
    return f"[`{text or entry.zoo_entry.name}`](../zoo/{folder}/dataset.json)"


# -- commands ---------------------------------------------------------------------------------------


def _commands(entries: Sequence[Entry]) -> list[str]:
    train = [RECIPE_FUNCTION, *(_train_command(e) for e in entries if e.card.recipe)]
    test = [command for entry in entries for command in _evaluate_commands(entry)]
    control = f"# The controls with fewer rows than k_min\n{CONTROL_COMMANDS}"
    blocks = [[*train, control], test]
    return ["```sh\n" + "\n".join(lines) + "\n```" for lines in blocks if lines]


def _train_command(entry: Entry) -> str:
    card = entry.card
    seed = "" if card.seed is None else f" --seed {card.seed}"
    start = card.recipe.get("warm_start")
    if start:
        path = Path(start)
        # Of a zoo entry its name is meant, not where it lay on the machine that ran this.
        in_zoo = path.name == entry.zoo_entry.path.name
        start = "/".join(path.parts[-3:-1]).replace("--", "/") if in_zoo else path.name
        seed += f" --warm-start {shlex.quote(start)}"
    name = shlex.quote(entry.zoo_entry.name)
    return f"recipe {name} && python -m gym_taskdistill.train recipe.yaml{seed}"


def _evaluate_commands(entry: Entry) -> list[str]:
    """One command for all scores of an entry that share a protocol."""
    groups: dict[tuple[bool, bool, int, int, int], list[str]] = {}
    for score in entry.card.scores:
        named = score.learners in NAMED_LEARNERS
        key = (named, score.deterministic, score.n_agents, score.n_episodes, score.seed)
        groups.setdefault(key, []).append(score.learners)
    commands = []
    for (named, deterministic, n_agents, n_episodes, seed), names in groups.items():
        parts = ["python -m gym_taskdistill.evaluate", shlex.quote(entry.zoo_entry.name)]
        if named:  # a distribution without a name is the dataset's own, which is the default
            all_six = set(names) == set(TABLE_1)
            parts.append("--learners " + ("table_1" if all_six else " ".join(names)))
        if deterministic:
            parts.append("--deterministic")
        parts.append(f"--agents {n_agents} --episodes {n_episodes} --seed {seed}")
        commands.append(" ".join(parts))
    return commands


def main() -> None:
    """Write the page and the tables in the README."""
    write_text(RESULTS, build())
    write_text(README, with_summaries(README.read_text(encoding="utf-8")))
    print(RESULTS, README, sep="\n")


if __name__ == "__main__":
    main()
