"""``python -m gym_taskdistill.reproduce``: make zoo entries again from nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from gym_taskdistill import seeds, zoo
from gym_taskdistill.cli.common import over_text, print_columns, run_command, seed_list
from gym_taskdistill.dataset.aggregates import Aggregates
from gym_taskdistill.distill import critic_file
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.paths import data_root
from gym_taskdistill.recipes.reproduce import Reproduction, all_entries, chosen, reproduce


@dataclass(frozen=True)
class ReproduceArgs:
    """Make entries of the zoo from nothing, and compare what comes out with their cards.

    Interrupted, the same command resumes. On one machine the same seed gives the same dataset, bit for bit.
    """

    entries: tyro.conf.Positional[tuple[str, ...]] = ()
    """Entries, such as CartPoleND-v0/n=2,k_min; a task (Hopper-v4) means its default one."""

    all: bool = False
    """All entries of the zoo that have a lineage."""

    seed: int | None = None
    """Seed of the distillation; by default that of the zoo's dataset, or 0."""

    seeds: str | None = None
    """Several seeds, such as 0-4 or 0,3,7."""

    jobs: int = 1
    """Distillations at once, one process and one thread each."""

    out: Path = Path("runs/reproduce")
    """Folder of the runs; what lies there is resumed."""

    trust: bool = False
    """Run the code that files name: modules of environments and wrappers, functions that make learners, and
    models that SB3 pickled."""

    add: bool = False
    """Put the dataset of the best selection score into the zoo, with the scores of all seeds in its card."""

    shipped: bool = False
    """Into the zoo that comes with the library, not the user's own."""

    progress_bar: bool = True
    """Show progress and time left, if one distillation is made at a time."""


def reproduce_command(args: ReproduceArgs) -> None:
    """Run the command."""
    names = [*args.entries, *(all_entries() if args.all else [])]
    if not names:
        raise TaskDistillError("Name an entry, such as CartPoleND-v0/n=2,k_min, or give --all.")
    chosen_seeds = _seeds(args)
    done: dict[str, list[Reproduction]] = defaultdict(list)
    try:
        for one in reproduce(names, chosen_seeds, args.out, args.jobs, args.progress_bar):
            done[one.entry].append(one)
            print("  ".join(text for text in one.row() if text), flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command resumes.")
        raise SystemExit(130) from None
    rows = [one.row() for group in done.values() for one in sorted(group, key=lambda r: r.seed)]
    print()
    print_columns(["entry", "seed", "card", "this run", "minutes", "agreement"], rows, ["entry", "agreement"])
    for entry, group in done.items():
        if len(group) > 1 and all(one.file is not None for one in group):
            over = Aggregates.of([one.dataset.card.scores[0].mean for one in group])
            print(f"{entry}: {over_text(over, 'distillations')}")
    if args.add:
        for group in done.values():
            _add(group, args.shipped)
    if any(one.file is None for group in done.values() for one in group):
        raise SystemExit(1)


def _add(group: Sequence[Reproduction], shipped: bool) -> None:
    dataset = chosen(group)
    source = next(one.file for one in group if one.dataset.digest == dataset.digest)
    assert source is not None
    root = data_root("zoo") if shipped else None
    print(zoo.add(dataset, critic_file.of_dataset(source, dataset.digest), root=root))


def _seeds(args: ReproduceArgs) -> list[int]:
    if args.seeds is None:
        return [seeds.checked(0 if args.seed is None else args.seed)]
    if args.seed is not None:
        raise TaskDistillError("Give --seed or --seeds, not both.")
    return seed_list(args.seeds)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(ReproduceArgs, reproduce_command, argv)


if __name__ == "__main__":
    main()
