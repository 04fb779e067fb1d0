"""``python -m benchmarks``: run benchmarks and print one table."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks import Report, Row
from gym_taskdistill.dataset.card import versions
from gym_taskdistill.machine import use_threads

#: Benchmarks by name, in the order in which they run.
BENCHMARKS = {
    "env": "env steps of CartPoleND beside Gymnasium's cart-poles",
    "ppmo": "training steps of PPMO beside SB3's PPO",
    "mujoco": "the same on MuJoCo, with observation statistics",
    "atari": "the same on Pong, by a linear probe on a trained encoder",
    "cores": "simulation and training on two cores beside one",
    "evaluate": "testing 1000 fresh agents on Hopper",
    "inner_step": "training fresh agents in one step",
    "import": "importing the library",
    "demo": "the default training job, to its end",
    "demo5": "the same for 5D cart-pole, minutes long: only when named",
}
ONLY_WHEN_NAMED = {"demo5"}

WIDTHS = (58, 18, 18, 8, 10)


def run(name: str) -> Report:
    """Run a benchmark by its name."""
    if name == "env":
        return _env_report()
    if name in ("mujoco", "atari"):
        return getattr(importlib.import_module("benchmarks.bench_ppmo"), f"measure_{name}")()
    if name.startswith("demo"):
        n = name.removeprefix("demo")
        return importlib.import_module("benchmarks.bench_demo").measure(int(n) if n else None)
    return importlib.import_module(f"benchmarks.bench_{name}").measure()


def _env_report() -> Report:
    """Hold the env's ratios against 1: as fast as the peer, or linear in the number of axes."""
    from benchmarks import bench_cartpole_env

    rows = []
    for name, ratio in bench_cartpole_env.measure().items():
        if name.startswith("time per axis"):
            rows.append(Row(name, "", "", ratio, "≤ 1", ratio <= 1))
        else:
            rows.append(Row(name, "", "", ratio, "≥ 1", ratio >= 1))
    return Report(rows)


def machine() -> str:
    """Describe the machine and the versions in three lines."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    packages = ", ".join(f"{package} {version}" for package, version in versions().items())
    return f"{_cpu()}, {cores} cores{load}\n{platform.system()}; {packages}"


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def line(*cells: str) -> str:
    """Lay out a line of the table: the name to the left, figures to the right."""
    name, *figures, ok = cells
    columns = [f"{name:<{WIDTHS[0]}}"]
    columns += [f"{cell:>{width}}" for cell, width in zip(figures, WIDTHS[1:], strict=True)]
    return "  ".join([*columns, ok]).rstrip()


def print_row(row: Row) -> None:
    """Print a line of the table."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    verdict = {True: "yes", False: "NO", None: ""}[row.ok]
    print(line(row.name, row.ours, row.peer, ratio, row.target, verdict), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmarks that the command line names, by default all but the long ones."""
    names = "\n".join(f"  {name:<12}{what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Measure speed beside other libraries. Benchmarks:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; by default all but demo5")
    chosen = parser.parse_args(argv).names or [n for n in BENCHMARKS if n not in ONLY_WHEN_NAMED]
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}; use {', '.join(BENCHMARKS)}")
    use_threads(1)
    print(machine())
    print("Ratios compare two sides timed in turns within this run, one thread each; best rounds.")
    print("Training and the meta-gradient are compared by CPU time.\n")
    print(line("", "ours", "peer", "ratio", "target", "ok"))
    notes = []
    for name in chosen:
        report = run(name)
        for row in report.rows:
            print_row(row)
        notes += report.notes
    for note in notes:
        print(f"\n{note}")


if __name__ == "__main__":
    main()
