"""A run can be killed at any moment and ends as if it had not been."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from gym_taskdistill import seeds, zoo
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.paths import critic_path
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.recipes.file import check, load
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.run import Run, build
from gym_taskdistill.recipes.stages import Distil
from gym_taskdistill.tasks import Task

TRAIN = [sys.executable, "-m", "gym_taskdistill.train", "--no-progress-bar"]

#: Three stages: ten meta-epochs with a checkpoint after each, two rounds of imitation, and two changes.
CHAIN = """
tasks: [{task}]
settings:
  learners: alpha_c
  k: 4
  n_envs: 16
  n_learners: 4
  normalize: {normalize}
  inner: {{lr: 0.1}}
  {more}
evaluation: {{eval_freq: 1024, n_agents: 2, n_episodes: 1, final_agents: 3, final_episodes: 2}}
variants:
  chain:
    stages:
      - ppmo: {{total_timesteps: 5120, n_steps: 32, batch_size: 256, n_epochs: 2}}
      - imitate:
          {{expert: previous, fine_tune: true, n_steps: 512, n_rounds: 2, n_updates: 20, batch_size: 64}}
      - adapt: {{width: 32}}
  other:
    stages:
      - imitate: {{expert: chain, n_steps: 256, n_updates: 5, batch_size: 64}}
"""


def chain(folder: Path, variant: str = "chain", discrete: bool = True) -> Recipe:
    task, more = ("CartPoleND-v0 n=1", "") if discrete else ("Pendulum-v1", "start: {log_std: -0.5}")
    path = folder / "chain.yaml"
    path.write_text(CHAIN.format(task=task, normalize=str(not discrete).lower(), more=more))
    return load(f"{path}:{variant}")


@pytest.fixture(scope="module", params=[True, False], ids=["discrete", "continuous"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    run = Run.create(chain(folder, discrete=request.param), 7, folder, "whole")
    run.execute(progress_bar=False)
    return run


def assert_same(one: Run, other: Run) -> None:
    for number in range(1, len(one.recipe.stages) + 1):
        mine, theirs = (
            DistilledDataset.load(run.stage_folder(number) / "dataset.safetensors") for run in (one, other)
        )
        assert mine.digest == theirs.digest
        assert mine.card.selection == theirs.card.selection
    tables = [(run.stage_folder(1) / "evaluations.csv").read_text() for run in (one, other)]
    assert tables[0] == tables[1]
    assert one.execute(progress_bar=False).card.scores == other.execute(progress_bar=False).card.scores


@pytest.mark.slow
def test_a_run_leaves_a_complete_folder(whole: Run) -> None:
    names = {path.name for path in whole.folder.iterdir()}
    assert {"run.yaml", "command.txt", "1-ppmo", "2-imitate", "3-adapt", "dataset.safetensors"} <= names
    inside = {path.name for path in whole.stage_folder(1).iterdir()}
    assert {"checkpoint.safetensors", "evaluations.csv", "best.safetensors", "dataset.safetensors"} <= inside
    assert any(name.startswith("events.out.tfevents") for name in inside)
    assert not [path for path in whole.folder.rglob("*") if ".tmp" in path.name]
    assert not list(whole.folder.rglob("recording*"))
    assert critic_path(whole.stage_folder(1) / "dataset.safetensors").is_file()


@pytest.mark.slow
def test_the_card_tells_the_lineage(whole: Run) -> None:
    card = DistilledDataset.load(whole.result).card
    stages = [DistilledDataset.load(whole.stage_folder(i) / "dataset.safetensors") for i in (1, 2, 3)]
    assert [record.kind for record in card.lineage] == ["ppmo", "imitate", "adapt"]  # each once
    assert [record.output for record in card.lineage] == [stage.digest for stage in stages]
    assert card.lineage[1].inputs == {"before": stages[0].digest, "expert": stages[0].digest}
    assert card.lineage[2].inputs == {"before": stages[1].digest}
    assert [record.env_steps for record in card.lineage] == [5120, 1024, 0]
    assert card.lineage[0].settings["total_timesteps"] == 5120
    assert all(record.seconds > 0 for record in card.lineage[:2])
    assert (card.seed, card.variant, card.num_timesteps, card.legacy) == (7, "chain", 6144, False)
    assert Recipe.from_dict(card.recipe) == whole.recipe
    assert card.learners["width"] == 32


def test_training_selection_and_test_use_disjoint_seeds(whole: Run) -> None:
    card = DistilledDataset.load(whole.result).card
    assert card.selection is not None
    assert card.selection.seed == seeds.selection(7)
    assert {score.seed for score in card.scores} == {seeds.TEST}
    assert (card.scores[0].n_agents, card.scores[0].n_episodes) == (3, 2)
    assert len({seeds.selection(7), seeds.TEST, *(record.seed for record in card.lineage)}) == 5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_in_a_folder_that_resumes(whole: Run, tmp_path: Path) -> None:
    folder = tmp_path / "entry" / "seed=7"
    first = build(whole.recipe, 7, folder, progress_bar=False)
    assert_same(whole, first)
    written = first.result.stat().st_mtime_ns
    assert build(whole.recipe, 7, folder, progress_bar=False).result.stat().st_mtime_ns == written
    with pytest.raises(TaskDistillError, match="other settings or another seed"):
        build(whole.recipe, 8, folder, progress_bar=False)
    stage = whole.recipe.stages[0].replace(total_timesteps=512)
    short = [Run.create(whole.recipe.replace(stages=(stage,)), seed, tmp_path) for seed in (7, 8)]
    assert len({run.execute(progress_bar=False).digest for run in short}) == 2


@pytest.mark.slow
def test_killed_at_a_random_moment_and_resumed(whole: Run, tmp_path: Path) -> None:
    run = Run.create(whole.recipe, 7, tmp_path, "killed")
    command = [*TRAIN, "--resume", str(run.folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not run.stage_folder(1).is_dir() and process.poll() is None:
            time.sleep(0.005)
        with pytest.raises(TaskDistillError, match="Another process works in"):
            run.execute(progress_bar=False)
        time.sleep(random.uniform(0.0, 4.0))
    finally:
        process.kill()
        process.communicate()
    Run.open(run.folder).execute(progress_bar=False)
    assert_same(whole, run)


def test_a_finished_run_resumes_to_itself(whole: Run) -> None:
    before = whole.result.read_bytes()
    dataset = Run.open(whole.folder).execute(progress_bar=False)
    assert dataset.digest == DistilledDataset.load(whole.result).digest
    assert whole.result.read_bytes() == before


def test_runs_that_begin_together_get_folders_of_their_own(tmp_path: Path) -> None:
    recipe = chain(tmp_path)
    folders = [Run.create(recipe, 0, tmp_path / "runs").folder.name for _ in range(3)]
    assert folders == [f"CartPoleND-v0,n=1,chain_{i}" for i in (1, 2, 3)]


def test_a_variant_that_a_stage_needs_is_made_first(whole: Run, tmp_path: Path) -> None:
    if whole.recipe.env_id != "CartPoleND-v0":
        pytest.skip("one task is enough")
    needed: list[Recipe] = []
    other = chain(tmp_path, "other")
    stage = other.stages[0].replace(expert="CartPoleND-v0/n=1,k_min")
    run = Run.create(other.replace(stages=(stage,)), 7, tmp_path, "needs")

    def made(recipe: Recipe) -> Path:
        needed.append(recipe)
        return whole.result

    dataset = run.execute(progress_bar=False, build=made)
    assert [recipe.entry for recipe in needed] == ["CartPoleND-v0/n=1,k_min"]
    # The lineage of the one becomes part of the other's.
    assert [record.kind for record in dataset.card.lineage] == ["ppmo", "imitate", "adapt", "imitate"]
    assert dataset.card.lineage[-1].inputs == {"expert": DistilledDataset.load(whole.result).digest}


@pytest.mark.slow
def test_a_warm_start_begins_where_the_dataset_is(whole: Run, tmp_path: Path) -> None:
    first = whole.stage_folder(1) / "dataset.safetensors"
    still = {"learning_rate": 0.0, "learning_rates": {"inner_lr": 0.0}, "critic_learning_rate": 0.0}
    stage = whole.recipe.stages[0].replace(total_timesteps=512, **still)
    recipe = whole.recipe.replace(stages=(stage,))
    run = Run.create(recipe, 0, tmp_path, "warm", first)
    dataset = run.execute(progress_bar=False)
    start = DistilledDataset.load(first)
    torch.testing.assert_close(dataset.x, start.x)
    assert dataset.rule.lr == pytest.approx(start.rule.lr, rel=1e-6)
    assert [record.kind for record in dataset.card.lineage] == ["ppmo", "ppmo"]
    assert dataset.card.lineage[1].inputs == {"before": start.digest}
    misfit = recipe.replace(stages=(stage.replace(k=5),))
    with pytest.raises(TaskDistillError, match="k=5, but the stage before makes a dataset with 4"):
        Run.create(misfit, 0, tmp_path, "misfit", first)
    assert not (tmp_path / "misfit").exists()


@pytest.mark.slow
def test_a_stage_learns_by_imitation_alone(tmp_path: Path) -> None:
    settings = {"n_steps": 1024, "n_rounds": 2, "n_updates": 200, "learning_rate": 0.02, "k": 4}
    other = chain(tmp_path, "other")
    stage = other.stages[0].replace(expert="CartPoleND-v0/n=1,k_min", **settings)
    run = Run.create(other.replace(stages=(stage,)), 0, tmp_path, "imitation")
    from gym_taskdistill import zoo

    dataset = run.execute(progress_bar=False, build=lambda recipe: zoo.find(recipe.entry).path)
    assert evaluate(dataset, 20, 4, seed=9).mean > 200  # random rows: about 20


@pytest.mark.slow
def test_direct_task_learning_makes_one_agent(tmp_path: Path) -> None:
    changes = {"k": 2, "total_timesteps": 512, "n_envs": 8, "n_steps": 32, "batch_size": 128, "n_learners": 4}
    changes |= {"final_agents": 2, "final_episodes": 1, "n_agents": 1, "n_episodes": 1}
    recipe = load("Hopper-v4/expert", None, changes)
    dataset = Run.create(recipe, 0, tmp_path).execute(progress_bar=False)
    assert dataset.encoder_layers == 3  # nothing of the network is drawn afresh
    assert check(recipe).encoder_layers == 3


def test_unusable_folders_are_refused(whole: Run, tmp_path: Path) -> None:
    with pytest.raises(TaskDistillError, match="not the folder of a run"):
        Run.open(tmp_path)
    (tmp_path / "run.yaml").write_text("seed: 3\nrecipe: {env_id: CartPoleND-v0, stages: [ppm: {}]}\n")
    with pytest.raises(TaskDistillError, match='no kind of stage "ppm"'):
        Run.open(tmp_path)
    run = Run.create(whole.recipe, 7, tmp_path, "damaged")
    run.stage_folder(1).mkdir()
    data = (whole.stage_folder(1) / "checkpoint.safetensors").read_bytes()
    (run.stage_folder(1) / "checkpoint.safetensors").write_bytes(data[:-100])
    with pytest.raises(TaskDistillError, match=r"checkpoint.*damaged"):
        run.execute(progress_bar=False)


DAMAGES = [
    (name, damage)
    for name in ("checkpoint.safetensors", "best.safetensors", "dataset.safetensors")
    for damage in ("empty", "half", "garbage", "folder", "gone")
    if (name, damage) != ("checkpoint.safetensors", "gone")  # which trains the whole stage again
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_file_of_a_run_is_named(whole: Run, tmp_path: Path, name: str, damage: str) -> None:
    folder, number = tmp_path / "damaged", 3 if name.startswith("dataset") else 1
    shutil.copytree(whole.folder, folder)
    (folder / whole.result.name).unlink()
    for later in range(number, 3):
        (folder / whole.stage_folder(later).name / "dataset.safetensors").unlink()
    file = folder / whole.stage_folder(number).name / name
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage != "gone":
        file.write_bytes(
            {"empty": b"", "half": content[: len(content) // 2], "garbage": b"\xff" * 99}[damage]
        )
    if damage == "gone" and number == 3:  # the stage is carried out again
        result = Run.open(folder).execute(progress_bar=False)
        assert result.digest == DistilledDataset.load(whole.result).digest
        return
    with pytest.raises(TaskDistillError, match=re.escape(str(file))):
        Run.open(folder).execute(progress_bar=False)
    assert not (folder / whole.result.name).exists()


def test_what_is_in_the_way_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without training: a stage that changes a dataset of the zoo's."""
    recipe = tmp_path / "adapt.yaml"
    recipe.write_text(
        "tasks: [CartPoleND-v0 n=2]\nevaluation: {final_agents: 1, final_episodes: 1}\n"
        "variants: {wide: {stages: [{adapt: {width: 32}}]}}\n"
    )
    start = zoo.find("CartPoleND-v0", n=2).path
    run = Run.create(load(f"{recipe}:wide"), 0, tmp_path / "runs", warm_start=start)
    run.stage_folder(1).write_text("in the way")
    with pytest.raises(TaskDistillError, match=r'^".*1-adapt" cannot be written: File exists\.$'):
        run.execute(progress_bar=False)
    run.stage_folder(1).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(TaskDistillError, match="No space left on device"):
            run.execute(progress_bar=False)
    assert [path.name for path in run.stage_folder(1).iterdir()] == []
    run.execute(progress_bar=False)
    run.result.unlink()
    shutil.rmtree(run.folder)
    with pytest.raises(TaskDistillError, match=r"cannot be (written|locked)|not the folder of a run"):
        Run.open(run.folder).execute(progress_bar=False)


def test_a_checkpoint_of_other_settings_is_refused(whole: Run) -> None:
    stage = whole.recipe.stages[0]
    assert isinstance(stage, Distil)
    other = stage.replace(k=9)
    task = Task(whole.recipe.env_id, whole.recipe.env_kwargs)
    env = other.make_env(task)
    model = PPMO(env=env, seed=7, device="cpu", **other.arguments(PPMO, task))
    with pytest.raises(TaskDistillError, match="belongs to other settings"):
        model.load_checkpoint(whole.stage_folder(1) / "checkpoint.safetensors")
    env.close()
