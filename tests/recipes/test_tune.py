"""Tuning chooses settings by short trials, goes on where it was killed, and is told by the card."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from gym_taskdistill import seeds
from gym_taskdistill.cli import train
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.recipes import callbacks, tune
from gym_taskdistill.recipes.facts import SPACE_FACTS
from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.run import Run
from gym_taskdistill.recipes.stages import Distil
from gym_taskdistill.recipes.tune import Trial, Tuning, changed

pytest.importorskip("optuna")

QUICK = {"k": 2, "total_timesteps": 1280, "n_envs": 4, "n_learners": 2, "n_steps": 8, "batch_size": 32}
QUICK |= {"n_epochs": 1, "n_agents": 2, "n_episodes": 1, "final_agents": 2, "final_episodes": 1}


def tiny() -> Recipe:
    return load("CartPoleND-v0/n=1,k_min", None, QUICK)


def stage_of(recipe: Recipe) -> Distil:
    stage = recipe.stages[0]
    assert isinstance(stage, Distil)
    return stage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    given = [f"{name}={value}" for name, value in QUICK.items()]
    argv = ["CartPoleND-v0/n=1,k_min", "--tune", "6", "--seed", "5", "--out", str(folder), "--device", "cpu"]
    train.main([*argv, "--no-progress-bar", "--set", *given])
    return Run.open(folder / "CartPoleND-v0,n=1,k_min_1")


def test_the_best_trial_s_settings_are_the_run_s(whole: Run) -> None:
    trials = Tuning(tiny(), 6, 5, whole.folder).trials()
    assert len(trials) == 6
    own = stage_of(tiny())
    assert changed(own, trials[0].settings) == own  # the first trial is of the recipe itself
    assert len({json.dumps(trial.settings) for trial in trials}) > 3
    best = max((t for t in trials if t.state == "complete"), key=lambda trial: trial.score or 0)
    after = Run.open(whole.folder)
    assert after.recipe == tiny().replace(stages=(changed(own, best.settings),))
    assert stage_of(after.recipe).total_timesteps == 1280
    card = DistilledDataset.load(whole.result).card
    assert card.recipe == after.recipe.to_dict()
    assert card.lineage[0].settings == after.recipe.stages[0].to_dict()
    assert "6 trials" in card.notes and f"gamma={best.settings['gamma']}" in card.notes
    assert card.selection is not None and card.selection.seed == seeds.selection(5)
    assert not (whole.folder / "trials").exists()


class Killed(BaseException):
    """Ends a process as a signal would, without a word to what runs."""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["within a trial", "between trials"])
def test_killed_tuning_goes_on_as_if_it_had_not_been(
    whole: Run, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tiny(), 5, tmp_path, "killed", tune=6)
    counted = {"tests": 0, "trials": 0}

    def killing(original: Any, what: str, limit: int) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            counted[what] += 1
            if counted[what] > limit:
                raise Killed
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        if when == "within a trial":
            patch.setattr(callbacks, "evaluate", killing(callbacks.evaluate, "tests", 8))
        else:
            patch.setattr(tune.files, "write_text", killing(tune.files.write_text, "trials", 3))
        with pytest.raises(Killed):
            run.execute(progress_bar=False, device="cpu")
    Run.open(run.folder).execute(progress_bar=False, device="cpu")
    assert (run.folder / tune.TABLE).read_text() == (whole.folder / tune.TABLE).read_text()
    assert DistilledDataset.load(run.result).digest == DistilledDataset.load(whole.result).digest
    assert Run.open(run.folder).recipe == Run.open(whole.folder).recipe


def test_without_tuning_nothing_changes(tmp_path: Path) -> None:
    text = (Run.create(tiny(), 5, tmp_path).folder / "run.yaml").read_text()
    assert "tune" not in text and "notes" not in text


def trial(tests: list[float], state: str = "complete", **settings: Any) -> Trial:
    return Trial(settings=settings, state=state, tests=tests, env_steps=256, message="")


def test_a_trial_that_falls_behind_is_stopped(tmp_path: Path) -> None:
    tuning = Tuning(tiny(), 6, 5, tmp_path)
    own = {name: choices[0] for name, choices in tuning.space.items()}
    done = [trial([400.0, 450.0, 500.0, 500.0, 500.0], **own) for _ in range(5)]
    last = tuning._trial(6, done, "cpu", progress_bar=False)  # a few updates reach no 450
    assert (last.state, len(last.tests), last.score) == ("pruned", 2, None)


def test_a_trial_that_fails_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn, failures = Distil.run, 1

    def failing(stage: Distil, work: Any) -> Any:
        if int(work.folder.name) <= failures:
            raise TaskDistillError("The actions hold nan.")
        return learn(stage, work)

    monkeypatch.setattr(Distil, "run", failing)
    recipe, note = Tuning(tiny(), 2, 5, tmp_path).run("cpu", progress_bar=False)
    assert [one.state for one in Tuning(tiny(), 2, 5, tmp_path).trials()] == ["failed", "complete"]
    assert stage_of(recipe) != stage_of(tiny()) and "the recipe's own failed" in note
    (tmp_path / "other").mkdir()
    failures = 2
    with pytest.raises(
        TaskDistillError, match=r"None of the 2 trials came to its end\. The actions hold nan"
    ):
        Tuning(tiny(), 2, 5, tmp_path / "other").run("cpu", progress_bar=False)


def test_settings_that_a_task_lacks_are_not_tried() -> None:
    acrobot, pendulum = Tuning(load("Acrobot-v1"), 1, 0, Path()), Tuning(load("Pendulum-v1"), 1, 0, Path())
    assert set(pendulum.space) - set(acrobot.space) == {"start.log_std"}
    assert "normalize" in acrobot.space and "start.obs_scale" not in acrobot.space
    breakout = load("ALE/Breakout-v5")
    assert SPACE_FACTS["observation_space"](breakout.task) == "image"
    assert "normalize" not in Tuning(breakout, 1, 0, Path()).space


def test_the_variant_that_is_imitated_is_tuned(tmp_path: Path) -> None:
    recipe = load("Pendulum-v1/one-step", None, {"evaluation.n_agents": 1})
    tuned = tune._replaced(recipe, {"gamma": 0.9, "start.log_std": -1.5})
    stage = stage_of(tuned.needs["ridge"])
    assert (stage.gamma, stage.start.log_std, stage.start.y_std) == (0.9, -1.5, 0.5)
    assert tuned.stages == recipe.stages
    Tuning(recipe, 3, 0, tmp_path).check()


def test_a_function_that_makes_the_environment_is_kept() -> None:
    recipe = load(partial(gym.make, "Pendulum-v1", g=3.0))
    tuned = tune._replaced(recipe, {"gamma": 0.9})
    assert (stage_of(tuned).gamma, tuned.task) == (0.9, recipe.task)
    assert tuned.task.factory is recipe.task.factory is not None


def test_what_cannot_be_tuned_is_refused_before_there_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitates = load("CentipedeNoFrameskip-v4/obs_type=ram,one-step")
    with pytest.raises(TaskDistillError, match="begins with the stage imitate"):
        Run.create(imitates, 0, tmp_path / "runs", tune=3)
    with pytest.raises(TaskDistillError, match="tune=-3 must be"):
        Run.create(tiny(), 0, tmp_path / "runs", tune=-3)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(TaskDistillError, match=r"pip install .gym-taskdistill\[tune\]"):
        Run.create(tiny(), 0, tmp_path / "runs", tune=3)
    assert not (tmp_path / "runs").exists()


def test_a_damaged_file_of_trials_is_refused(tmp_path: Path) -> None:
    (tmp_path / tune.TABLE).write_text('{"settings": {}')
    with pytest.raises(TaskDistillError, match="not the file of trials"):
        Tuning(tiny(), 2, 5, tmp_path).trials()
    (tmp_path / tune.TABLE).write_text('{"settings": {}, "state": "lost", "tests": [], "env_steps": 3}\n')
    with pytest.raises(TaskDistillError, match=r"line 1: state"):
        Tuning(tiny(), 2, 5, tmp_path).trials()
