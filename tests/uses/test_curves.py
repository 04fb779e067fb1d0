"""Learning curves show what the tests of a run found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.recipes import evaluations
from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.run import Run
from gym_taskdistill.uses.curves import plot_learning_curves


def run_folder(root: Path, rows: list[tuple[float, ...]], name: str = "cartpole", **settings: Any) -> Path:
    seed = settings.pop("seed", 1)
    recipe = load(settings.pop("env_id", "CartPoleND-v0/n=2,k_min"), None, settings)
    number = 1
    while (root / f"{name}_{number}").exists():
        number += 1
    run = Run.create(recipe, seed, root, f"{name}_{number}")
    run.stage_folder(1).mkdir()
    evaluations.write(run.stage_folder(1) / evaluations.TABLE, rows)  # type: ignore[arg-type]
    return run.folder


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_a_curve_is_the_mean_with_a_band_that_stays_possible(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, [(1000, 20, 5, 9), (2000, 300, 100, 250), (3000, 490, 30, 400)])
    axes = plot_learning_curves([folder]).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("environment steps", "mean return of fresh agents")
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [(1000, 20), (2000, 300), (3000, 490)])
    band = axes.collections[0].get_paths()[0].vertices
    assert isinstance(band, np.ndarray)
    edges = {x: (band[band[:, 0] == x, 1].min(), band[band[:, 0] == x, 1].max()) for x in (1000, 2000, 3000)}
    # The deviation, cut at the worst agent (second) and at the 500 steps of an episode (third).
    assert edges == {1000: (15, 25), 2000: (250, 400), 3000: (460, 500)}


def test_elsewhere_nobody_knows_the_best_return(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, [(1000, 490, 30, 400)], env_id="Pendulum-v1")
    band = plot_learning_curves([folder]).axes[0].collections[0].get_paths()[0].vertices
    assert isinstance(band, np.ndarray) and band[:, 1].max() == 520


def test_runs_are_told_apart(tmp_path: Path) -> None:
    rows = [(1000, 20, 5, 9), (2000, 300, 100, 250)]
    (tmp_path / "other").mkdir()
    folders = [
        run_folder(tmp_path, rows, seed=1),
        run_folder(tmp_path, rows, seed=2),
        run_folder(tmp_path, rows, "wide", k=64),
    ]
    figure = plot_learning_curves([*folders, folders[0]])  # named twice, drawn once
    assert legend(figure) == ["cartpole_1 (seed 1)", "cartpole_2 (seed 2)", "wide_1"]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 3
    elsewhere = run_folder(tmp_path / "other", rows, seed=3)
    labels = legend(plot_learning_curves([folders[0], elsewhere]))
    assert labels == [f"{tmp_path.name}/cartpole_1 (seed 1)", "other/cartpole_1 (seed 3)"]


@pytest.mark.slow
def test_the_eleventh_curve_has_other_dashes(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path, [(1, 2, 3, 1)]) for _ in range(11)]
    lines = plot_learning_curves(folders).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 11


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskDistillError, match="at least one run"):
        plot_learning_curves([])
    with pytest.raises(TaskDistillError, match="is not the folder of a run"):
        plot_learning_curves([tmp_path / "nowhere"])
    with pytest.raises(TaskDistillError, match="no evaluation yet"):
        plot_learning_curves([run_folder(tmp_path, [])])
    folder = run_folder(tmp_path, [(1, 2, 3, 1)])
    table = folder / "1-ppmo" / evaluations.TABLE
    table.unlink()
    with pytest.raises(TaskDistillError, match="no evaluation yet"):
        plot_learning_curves([folder])
    header = ",".join(evaluations.FIELDS)
    rows = ("1,2", "1,2,x,1", "inf,1,1,1", "1e999,1,1,1", "9" * 200_000 + ",1,1,1")
    for damage in ("steps,score\n1,2\n", *(f"{header}\n{row}\n" for row in rows)):
        table.write_text(damage)
        with pytest.raises(TaskDistillError, match="not the table of evaluations"):
            plot_learning_curves([folder])


def test_the_curve_of_a_run_continues_over_its_stages(tmp_path: Path) -> None:
    text = "tasks: [CartPoleND-v0 n=2]\nvariants: {twice: {stages: [ppmo, ppmo]}}"
    (tmp_path / "my.yaml").write_text(text)
    rows = [(10, 1, 0, 1), (20, 2, 0, 2)]
    folder = run_folder(tmp_path, rows, env_id=str(tmp_path / "my.yaml"))
    (folder / "2-ppmo").mkdir()
    evaluations.write(folder / "2-ppmo" / evaluations.TABLE, [(0, 3, 0, 3), (5, 4, 0, 4)])
    (line,) = plot_learning_curves([folder]).axes[0].lines
    np.testing.assert_array_equal(line.get_xydata(), [(10, 1), (20, 2), (20, 3), (25, 4)])


def test_runs_of_several_seeds_become_one_curve(tmp_path: Path) -> None:
    """At the tests that all have had; the band is the interval over seeds."""
    folders = [
        run_folder(tmp_path, [(1000, 100.0 * seed, 5, 1), (2000, 300, 5, 1), (3000, 1, 1, 1)][: 3 - seed % 2])
        for seed in (1, 2, 3)
    ]
    for seed, folder in zip((1, 2, 3), folders, strict=True):
        text = (folder / "run.yaml").read_text()
        (folder / "run.yaml").write_text(text.replace("seed: 1\n", f"seed: {seed}\n", 1))
    other = run_folder(tmp_path, [(1000, 7, 5, 1)], "wide", k=64)
    axes = plot_learning_curves([*folders, other], over_seeds=True).axes[0]
    assert len(axes.lines) == 2
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [(1000, 200), (2000, 300)])
    band = axes.collections[0].get_paths()[0].vertices
    assert isinstance(band, np.ndarray)
    first, second = (band[band[:, 0] == x, 1] for x in (1000, 2000))
    assert 100 <= first.min() < 150 and 250 < first.max() <= 300
    assert second.min() == second.max() == 300
    with pytest.raises(TaskDistillError, match="one seed"):
        again = run_folder(tmp_path, [(1000, 7, 5, 1)])
        plot_learning_curves([*folders, again], over_seeds=True)
