"""A run can be killed at any moment and ends as if it had not been."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stable_baselines3.common.vec_env import VecNormalize

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.critic_file import critic_path
from gym_taskdistill.distill.imitation import imitate
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.recipes import recipe as recipes
from gym_taskdistill.recipes import run as runs
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.run import Run
from gym_taskdistill.tasks.atari.vec_env import AtariTraining

#: Ten meta-epochs, a checkpoint after each.
SHORT = {
    "total_timesteps": 20_480,
    "n_envs": 32,
    "n_learners": 4,
    "n_steps": 64,
    "batch_size": 512,
    "n_agents": 4,
    "n_episodes": 2,
    "final_agents": 3,
    "final_episodes": 2,
}


def short_recipe(**changes: object) -> Recipe:
    return recipes.load("cartpole", {"n": 1}).override({**SHORT, **changes})


def assert_same_run(one: Run, other: Run) -> None:
    for name in ("last", "best"):
        mine, theirs = (DistilledDataset.load(r.folder / f"{name}.safetensors") for r in (one, other))
        for field in ("x", "y"):
            assert torch.equal(getattr(mine, field), getattr(theirs, field))
        assert mine.inner_lr == theirs.inner_lr
        assert mine.card.num_timesteps == theirs.card.num_timesteps
    tables = [(run.folder / "evaluations.csv").read_text() for run in (one, other)]
    assert tables[0] == tables[1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    run = Run.create(short_recipe(), 7, tmp_path_factory.mktemp("runs"), "whole")
    run.execute(progress_bar=False)
    return run


def test_a_run_leaves_a_complete_folder(uninterrupted: Run) -> None:
    names = {path.name for path in uninterrupted.folder.iterdir()}
    assert {
        "run.yaml",
        "command.txt",
        "versions.json",
        "checkpoint.pt",
        "evaluations.csv",
        "best.safetensors",
        "best.critic.safetensors",
        "best.json",
        "last.safetensors",
        "last.json",
    } <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any("tmp" in name for name in names)
    card = DistilledDataset.load(uninterrupted.folder / "last.safetensors").card
    assert (card.env_kwargs, card.variant, card.seed) == ({"n": 1}, "k_min", 7)
    assert card.num_timesteps == 20_480
    assert card.wall_clock_s > 0
    assert Recipe.from_dict({k: v for k, v in card.recipe.items() if k != "warm_start"}) == short_recipe()


def test_the_same_seed_gives_the_same_run(uninterrupted: Run, tmp_path: Path) -> None:
    run = Run.create(short_recipe(), 7, tmp_path, "again")
    run.execute(progress_bar=False)
    assert_same_run(uninterrupted, run)


@pytest.mark.parametrize("attempt", range(2))
def test_killed_at_a_random_moment_and_resumed(uninterrupted: Run, tmp_path: Path, attempt: int) -> None:
    run = Run.create(short_recipe(), 7, tmp_path, "killed")
    command = [
        sys.executable,
        "-m",
        "gym_taskdistill.cli.train",
        "--no-progress-bar",
        "--resume",
        str(run.folder),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not run.checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.uniform(0.0, 0.8))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run.checkpoint.exists()
    Run.open(run.folder).execute(progress_bar=False)
    assert_same_run(uninterrupted, run)


def test_a_finished_run_resumes_to_itself(uninterrupted: Run) -> None:
    before = DistilledDataset.load(uninterrupted.folder / "last.safetensors")
    Run.open(uninterrupted.folder).execute(progress_bar=False)
    assert torch.equal(before.x, DistilledDataset.load(uninterrupted.folder / "last.safetensors").x)


def test_a_warm_start_begins_where_the_dataset_is(uninterrupted: Run, tmp_path: Path) -> None:
    start = uninterrupted.folder / "last.safetensors"
    recipe = short_recipe(total_timesteps=2048, learning_rate=0.0, inner_lr_learning_rate=0.0)
    run = Run.create(recipe, 0, tmp_path, "warm", str(start))
    run.execute(progress_bar=False)
    first, last = DistilledDataset.load(start), DistilledDataset.load(run.folder / "last.safetensors")
    assert torch.equal(first.x, last.x)
    assert last.card.recipe["warm_start"] == "last.safetensors"  # no path of this machine
    assert last.inner_lr == pytest.approx(first.inner_lr, rel=1e-6)
    with pytest.raises(TaskDistillError, match=r"x has shape \(2, 4\)"):
        Run.create(short_recipe(k=5), 0, tmp_path, "misfit", str(start)).execute(progress_bar=False)


def test_a_warm_start_takes_the_critic_beside_the_dataset(uninterrupted: Run, tmp_path: Path) -> None:
    start = uninterrupted.folder / "best.safetensors"
    recipe = short_recipe(total_timesteps=2048, critic_learning_rate=0.0, learning_rate=0.0)
    run = Run.create(recipe, 0, tmp_path, "warm", str(start))
    run.execute(progress_bar=False)
    first, last = (load_file(critic_path(r.folder / "best.safetensors")) for r in (uninterrupted, run))
    assert first.keys() == last.keys()
    for name, value in first.items():
        assert torch.equal(last[name], value)


def imitating_recipe() -> Recipe:
    return short_recipe(
        total_timesteps=2048,
        learning_rate=0.02,
        **{
            "imitation.expert": "CartPoleND-v0/n=1,k_min",
            "imitation.n_steps": 1024,
            "imitation.n_rounds": 2,
            "imitation.n_updates": 200,
            "critic_warmup": 2048,  # so that nothing is learned but by imitation
        },
    )


def test_a_run_may_begin_by_imitation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(imitating_recipe(), 0, tmp_path, "imitation")
    dataset = run.execute(progress_bar=False)
    assert dataset.card.recipe["imitation"]["expert"] == "CartPoleND-v0/n=1,k_min"
    assert evaluate(dataset, 20, 4, seed=9).mean > 200  # random rows: about 20
    assert not list(run.folder.glob("recording*"))

    def interrupted(*args: Any, **kwargs: Any) -> float:
        if kwargs["progress_remaining"][0] == 0.5:
            raise KeyboardInterrupt
        return imitate(*args, **kwargs)

    other = Run.create(imitating_recipe(), 0, tmp_path, "again")
    monkeypatch.setattr(runs, "imitate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        other.execute(progress_bar=False)
    assert len(list(other.folder.glob("recording*.npz"))) == 2
    monkeypatch.undo()
    monkeypatch.setattr(runs, "record", None)  # both recordings are there
    Run.open(other.folder).execute(progress_bar=False)
    assert_same_run(run, other)


def test_the_score_uses_other_seeds_and_lands_on_the_card(uninterrupted: Run) -> None:
    dataset = DistilledDataset.load(uninterrupted.folder / "best.safetensors")
    score = uninterrupted.score(dataset).card.scores[0]
    assert (score.learners, score.n_agents, score.n_episodes) == ("alpha_c", 3, 2)
    assert DistilledDataset.load(uninterrupted.folder / "best.safetensors").card.scores == (score,)


@pytest.mark.parametrize("damage", ["cut", "garbage", "other settings"])
def test_an_unusable_checkpoint_is_refused(uninterrupted: Run, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.pt"
    data = uninterrupted.checkpoint.read_bytes()
    path.write_bytes({"cut": data[:2000], "garbage": b"not a checkpoint"}.get(damage, data))
    recipe = short_recipe(k=9) if damage == "other settings" else short_recipe()
    env = recipe.task.make_vec_env(recipe.n_envs)
    model = PPMO(env=env, seed=7, device="cpu", **recipe.ppmo_kwargs())
    with pytest.raises(TaskDistillError, match="damaged or belongs to other settings"):
        model.load_checkpoint(path)
    env.close()


def test_no_run_to_open(tmp_path: Path) -> None:
    with pytest.raises(TaskDistillError, match="not the folder of a run"):
        Run.open(tmp_path)


@pytest.mark.parametrize("clip_reward", [True, False])
def test_a_recipe_says_whether_rewards_are_clipped(clip_reward: bool, tmp_path: Path) -> None:
    recipe = recipes.load("atari-ram").override({"clip_reward": clip_reward})
    env = Run.create(recipe, 0, tmp_path, "raw")._make_env()
    assert isinstance(env, VecNormalize) and isinstance(env.venv, AtariTraining)
    assert env.venv.clip_reward is clip_reward


def test_normalisation_statistics_survive_a_resume(tmp_path: Path) -> None:
    changes = {"total_timesteps": 1024, "n_envs": 4, "n_learners": 2, "n_steps": 32, "batch_size": 64}
    recipe = recipes.load("Pendulum-v1").override({**SHORT, **changes, "k": 4, "normalize": True})
    whole = Run.create(recipe, 3, tmp_path, "whole")
    whole.execute(progress_bar=False)
    halted = Run.create(recipe, 3, tmp_path, "halted")
    command = [
        sys.executable,
        "-m",
        "gym_taskdistill.cli.train",
        "--no-progress-bar",
        "--resume",
        str(halted.folder),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not halted.checkpoint.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    Run.open(halted.folder).execute(progress_bar=False)
    assert_same_run(whole, halted)
    one, other = (DistilledDataset.load(run.folder / "last.safetensors") for run in (whole, halted))
    assert one.obs_mean is not None
    assert other.obs_mean is not None
    assert torch.equal(one.obs_mean, other.obs_mean)
