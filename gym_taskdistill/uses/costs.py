"""What an agent costs: distilling once and training each agent on the rows, beside PPO for each (Table 3)."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gym_taskdistill.dataset.card import Card
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import read_bytes
from gym_taskdistill.policies.evaluation import MAX_BYTES
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.schema import shown

#: Times that a training is repeated to time it; the median counts.
N_TIMED = 21

#: Heads of the table of `Costs.rows`.
COLUMNS = ("task", "training", "time per iteration", "iterations", "datapoints", "in all", "pays off from")

NONE = "–"


@dataclass(frozen=True)
class Costs:
    """What distilling a dataset costs, one agent on it, and one agent by PPO.

    Attributes:
        task: The task in one line.
        k: Number of rows.
        inner_steps: Steps that an agent takes on them.
        distilling: Seconds that all stages of the distillation took; ``None`` if the card does not tell.
        one_agent: Seconds of the drawing and training of one agent.
        ppo: Seconds that PPO takes for one agent; ``None`` if nobody has measured it.
        rollouts: Transitions in a rollout and number of rollouts, of a dataset that PPMO alone made.
    """

    task: str
    k: int
    inner_steps: int
    distilling: float | None
    one_agent: float
    ppo: float | None
    rollouts: tuple[int, int] | None = None

    @property
    def pays_off_from(self) -> int | None:
        """Number of agents from which on distilling is cheaper than PPO.

        ``None`` if something is unknown, or if an agent on the rows costs as much as one by PPO.
        """
        if self.distilling is None or self.ppo is None or self.ppo <= self.one_agent:
            return None
        return max(1, math.ceil(self.distilling / (self.ppo - self.one_agent)))

    def rows(self) -> list[tuple[str, ...]]:
        """Return the rows of a table below `COLUMNS`; what is unknown is a dash."""
        rows = []
        for name, total in (("PPO on the env", self.ppo), ("distilling", self.distilling)):
            times = NONE, NONE, NONE
            if self.rollouts is not None:
                size, number = self.rollouts
                each = NONE if total is None else f"{1000 * total / number:.0f} ms"
                times = each, f"{number:,}", f"{size * number:,}"
            in_all = NONE if total is None else f"{total / 60:.1f} min"
            rows.append((self.task, name, *times, in_all, NONE))
        once, agents = f"{1000 * self.one_agent:.1f} ms", self.pays_off_from
        pays_off = NONE if agents is None else f"{agents} agent{'' if agents == 1 else 's'}"
        steps, k = str(self.inner_steps), str(self.k)
        return [*rows, (self.task, f"{k}-shot on the rows", once, steps, k, once, pays_off)]


def costs(card: Card, shot: dict[str, Any], ppo: float | None) -> Costs:
    """Set side by side what a card tells and what was measured.

    Args:
        card: The dataset's card.
        shot: As `time_training` gives it.
        ppo: Seconds that PPO takes for one agent; see `ppo_seconds`.
    """
    size = rollouts(card)
    # A legacy dataset's card tells of its last run alone, which is all of it only if it began from nothing.
    distilling = None if card.legacy and size is None else distilling_seconds(card)
    return Costs(card.task, shot["k"], shot["inner_steps"], distilling, shot["seconds"], ppo, size)


def time_training(
    dataset: DistilledDataset, n_agents: int = 1, n_timed: int = N_TIMED, *, trust: bool = False
) -> dict[str, Any]:
    """Time the drawing and training of fresh agents, on this machine.

    Args:
        dataset: What they are trained on.
        n_agents: Agents that are trained at once, at least 1; fewer where memory does not hold so many.
        n_timed: Times that it is repeated.
        trust: As for `DistilledPolicy`.

    Returns:
        ``k``, ``inner_steps``, ``n_agents`` at once, and ``seconds`` for each agent: the median.

    Raises:
        TaskDistillError: There is no agent to train, or the learners cannot be made.
    """
    if n_agents < 1 or n_timed < 1:
        raise TaskDistillError(f"At least 1 agent must be trained, not {min(n_agents, n_timed)}.")
    # The first training is not timed: it may compile, or look for memory.
    warm = DistilledPolicy(dataset, seed=n_timed, trust=trust)
    size = warm.learners.max_parameters(dataset.obs_shape, dataset.n_outputs)
    n_agents = min(n_agents, max(1, MAX_BYTES // (4 * size + 1)))
    seconds = []
    for seed in range(n_timed):
        start = time.perf_counter()
        DistilledPolicy(dataset, seed=seed, n_learners=n_agents)
        seconds.append(time.perf_counter() - start)
    each = statistics.median(seconds) / n_agents
    return {"k": dataset.k, "inner_steps": dataset.rule.steps, "n_agents": n_agents, "seconds": each}


def distilling_seconds(card: Card) -> float | None:
    """Return what all stages of a distillation took by the clock, tests included.

    Of a legacy dataset it is what its last run took; ``None`` if the card does not tell.
    """
    return sum(stage.seconds for stage in card.lineage) or card.wall_clock_s or None


def ppo_seconds(card: Card, folder: Path | None, others: Iterable[Card] = ()) -> tuple[float, str] | None:
    """Return what direct PPO takes on a dataset's task, and who says so.

    The dataset's own lineage comes first, then the references that were measured, then the lineages of other
    datasets of the task.

    Args:
        card: The dataset's card.
        folder: Folder of references, as ``docs/references`` has them; ``None`` for none.
        others: Cards of other datasets.

    Returns:
        Seconds, and their source; ``None`` if nobody has measured it.

    Raises:
        TaskDistillError: A reference is damaged.
    """
    own = _of_lineage(card)
    if own is not None:
        return own, "the stage ppo of its own lineage"
    files = [] if folder is None else sorted(folder.glob(f"{card.task},ppmo,seed=*.json"))
    times = [seconds for file in files if (seconds := _of_reference(file)) is not None]
    if times:
        return statistics.mean(times), f"{len(times)} reference{'s' if len(times) > 1 else ''} in {folder}"
    for other in others:
        theirs = _of_lineage(other) if other.task == card.task else None
        if theirs is not None:
            return theirs, f"the stage ppo of {other.task}, {other.variant}"
    return None


def _of_lineage(card: Card) -> float | None:
    return next((stage.seconds for stage in card.lineage if stage.kind == "ppo" and stage.seconds), None)


def _of_reference(file: Path) -> float | None:
    what = f'The reference "{file}"'
    try:
        seconds = json.loads(read_bytes(file, what)).get("wall_clock_s")
    except (ValueError, AttributeError, RecursionError):
        raise TaskDistillError(f"{what} is damaged: it is no JSON object.") from None
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise TaskDistillError(f"{what} is damaged: its wall_clock_s is {shown(seconds)}.")
    return float(seconds)


def rollouts(card: Card) -> tuple[int, int] | None:
    """Return the transitions in a rollout and the number of rollouts of a dataset that PPMO alone made."""
    stages: Sequence[Any] = card.lineage
    if len(stages) == 1 and stages[0].kind == "ppmo":
        settings = stages[0].settings
        rollout, total = settings["n_envs"] * settings["n_steps"], settings["total_timesteps"]
    elif not stages and card.recipe and not card.recipe.get("warm_start"):
        settings = card.recipe
        try:
            rollout, total = settings["n_envs"] * settings["ppmo"]["n_steps"], settings["total_timesteps"]
        except (KeyError, TypeError):  # a legacy recipe of another kind
            return None
    else:
        return None
    return rollout, -(-total // rollout)
