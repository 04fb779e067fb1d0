"""How many rows cart-pole needs (paper, section 4.2): ``sweep_k.py --axes 1 2 3 4 --seeds 0-2 --jobs 2``.

The recipe ``k_min`` of n axes, which has c = 2n actions, is carried out with k = 1 to c rows and several
seeds. Runs lie in ``--out``, where the same command resumes them. What comes out is a figure
(``sweep_k.png``) and a table (``sweep_k.md``, ``sweep_k.json``), beside the paper's k_min = ceil(c / 2) + 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from joblib import Parallel, delayed

from gym_taskdistill.cli.common import key_values, seed_list
from gym_taskdistill.dataset import DistilledDataset, k_min
from gym_taskdistill.dataset.aggregates import band
from gym_taskdistill.files import write_text
from gym_taskdistill.machine import use_threads
from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.run import build
from gym_taskdistill.uses.figures import FAINT, new_figure, save


class Point(NamedTuple):
    """A distillation of the sweep, and what fresh agents score on the test seed."""

    n: int
    k: int
    seed: int
    mean: float
    std: float
    min: float


def measure(n: int, k: int, seed: int, root: Path, changes: Mapping[str, Any]) -> Point:
    """Distil cart-pole of n axes into k rows, unless it is done already."""
    use_threads(1)
    recipe = load(f"CartPoleND-v0/n={n},k_min", None, {**changes, "k": k})
    recipe = recipe.replace(variant=f"k{k}", default=False)
    folder = root / f"n={n},k={k}" / f"seed={seed}"
    file = build(recipe, seed, folder, progress_bar=False, device="cpu").result
    score = DistilledDataset.load(file).card.scores[0]
    return Point(n, k, seed, score.mean, score.std, score.min)


def sweep(
    axes: Iterable[int], seeds: Sequence[int], root: Path, jobs: int, changes: Mapping[str, Any]
) -> list[Point]:
    """Carry out all distillations, the smallest tasks first."""
    wanted = [(n, k, seed) for n in axes for k in range(1, 2 * n + 1) for seed in seeds]
    work = (delayed(measure)(n, k, seed, root, changes) for n, k, seed in wanted)
    points = []
    for point in Parallel(n_jobs=jobs, return_as="generator")(work):
        points.append(point)
        print(f"n={point.n} k={point.k} seed={point.seed}: {point.mean:.1f} ± {point.std:.1f}", flush=True)
    return points


def means(points: Sequence[Point]) -> dict[int, dict[int, list[float]]]:
    """Return the mean returns of the seeds, by n and k."""
    found: dict[int, dict[int, list[float]]] = {}
    for point in points:
        found.setdefault(point.n, {}).setdefault(point.k, []).append(point.mean)
    return found


def table(points: Sequence[Point]) -> str:
    """Return a Markdown table: mean and standard deviation over seeds, k_min in bold and c / 2 marked."""
    of_axes = means(points)
    largest = max(k for of_k in of_axes.values() for k in of_k)
    lines = [
        ["task", *(f"k = {k}" for k in range(1, largest + 1))],
        ["---", *["---:"] * largest],
    ]
    for n, of_k in of_axes.items():
        cells = []
        for k in range(1, largest + 1):
            seeds = of_k.get(k, [])
            spread = f" ± {statistics.stdev(seeds):.1f}" if len(seeds) > 1 else ""
            text = f"{statistics.mean(seeds):.1f}{spread}{' †' if k == n else ''}" if seeds else ""
            cells.append(f"**{text}**" if text and k == k_min(2 * n) else text)
        lines.append([f"{n}D", *cells])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{rows}\n\nBold: the paper's k_min = ⌈c / 2⌉ + 1. †: k = c / 2. ± is over seeds.\n"


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw the mean return over k, a curve for each n, with a band of the 95 % interval over seeds."""
    figure = new_figure(7.2, 4.4)
    axes = figure.add_subplot()
    for i, (n, of_k) in enumerate(means(points).items()):
        ks = sorted(of_k)
        curves = [list(run) for run in zip(*(of_k[k] for k in ks), strict=True)]
        middle = [statistics.mean(of_k[k]) for k in ks]
        axes.plot(ks, middle, marker=".", color=f"C{i}", label=f"{n}D")
        axes.fill_between(ks, *band(curves), color=f"C{i}", alpha=0.18, linewidth=0)
        needed = k_min(2 * n)
        axes.plot([needed], [middle[ks.index(needed)]], marker="o", color=f"C{i}", fillstyle="none", ms=10)
    axes.set_xlabel("rows, k (ring: the paper's k_min)")
    axes.set_ylabel("mean return of fresh agents")
    axes.grid(color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Carry out the sweep and write what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", type=int, nargs="+", default=[1, 2, 3, 4], help="numbers of axes, n")
    parser.add_argument("--seeds", default="0-2", help="seeds, such as 0-2")
    parser.add_argument("--jobs", type=int, default=1, help="distillations at once")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep-k"), help="folder of the runs")
    parser.add_argument("--set", nargs="*", default=[], help="other settings of the recipe, key=value")
    args = parser.parse_args(argv)
    points = sweep(args.axes, seed_list(args.seeds), args.out, args.jobs, key_values(args.set, "--set"))
    text = json.dumps([point._asdict() for point in points], indent=2)
    write_text(args.out / "sweep_k.json", text + "\n")
    write_text(args.out / "sweep_k.md", table(points))
    draw(points, args.out / "sweep_k.png")
    print(table(points))


if __name__ == "__main__":
    main()
