"""``python -m gym_taskdistill.cost``: what an agent costs on a dataset, and by PPO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from gym_taskdistill import zoo
from gym_taskdistill.cli.common import key_values, load_dataset, print_columns, run_command
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.machine import use_threads
from gym_taskdistill.paths import checkout_root
from gym_taskdistill.uses.costs import COLUMNS, costs, ppo_seconds, time_training


@dataclass(frozen=True)
class CostArgs:
    """Time the training of fresh agents on a dataset, and set it beside distillation and PPO.

    The agents are timed here and now, on one core; distillation's time is that of the dataset's card, and
    PPO's that of a lineage or a reference, which may come from other machines.
    """

    entry: tyro.conf.Positional[str]
    """A dataset file, or a zoo entry: CartPoleND-v0, or in full CartPoleND-v0/n=2,k_min."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the zoo entry's environment, as key=value: --env-kwargs n=3."""

    variant: str | None = None
    """Variant of the zoo entry; by default the one the zoo recommends."""

    agents: int = 100
    """Agents that are trained at once, to time what each costs then."""

    references: Path | None = None
    """Folder of what PPO took, TASK,ppmo,seed=0.json and so on; by default docs/references of a checkout."""

    trust: bool = False
    """Run the code that the card names: functions that make learners."""

    json: bool = False
    """Print the figures, in seconds, as JSON."""


def cost_command(args: CostArgs) -> None:
    """Run the command."""
    if args.agents < 1:
        raise TaskDistillError(f"--agents must be at least 1, not {args.agents}.")
    if args.references is not None and not args.references.is_dir():
        raise TaskDistillError(f'There is no folder "{args.references}" of references.')
    use_threads(1)
    dataset = load_dataset(args.entry, args.variant, key_values(args.env_kwargs, "--env-kwargs"))
    card = dataset.card
    others = (entry.card for entry in zoo.entries(card.env_id))
    ppo = ppo_seconds(card, args.references or _own_references(), others)
    shot, batched = time_training(dataset), time_training(dataset, args.agents)
    found = costs(card, shot, None if ppo is None else ppo[0])
    if args.json:
        agents = {"agents_at_once": batched["n_agents"], "one_agent_at_once": batched["seconds"]}
        source = {"ppo_source": None if ppo is None else ppo[1], "pays_off_from": found.pays_off_from}
        print(json.dumps(asdict(found) | agents | source, indent=2))
        return
    print_columns(COLUMNS, found.rows(), left=COLUMNS[:2])
    n, each = batched["n_agents"], 1000 * batched["seconds"]
    print(f"\n{n} agents at once take {each:.2g} ms each; one by one {1000 * found.one_agent:.2g} ms.")
    if found.distilling is None:
        print("What distilling took is unknown: the card does not tell of all of it.")
    if ppo is None:
        print(f"What PPO takes is unknown: no lineage and no reference has PPO on {card.task}.")
    else:
        print(f"What PPO takes is told by {ppo[1]}.")
    if found.pays_off_from is not None:
        print(f"Distilling once is cheaper than PPO for each from {found.rows()[-1][-1]} on.")


def _own_references() -> Path | None:
    """Return the folder of references of a checkout, if this is one."""
    try:
        folder = checkout_root("zoo").parent / "docs" / "references"
    except TaskDistillError:
        return None
    return folder if folder.is_dir() else None


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(CostArgs, cost_command, argv)


if __name__ == "__main__":
    main()
