"""Agents' episodes as datasets of Minari: what is read back is what was played, and teaches what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gym_taskdistill import DistilledPolicy
from gym_taskdistill.cli import export
from gym_taskdistill.distill.experts import minari_recording
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.run import Run

minari = pytest.importorskip("minari")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Minari keeps its datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@pytest.mark.parametrize("task", ["CartPoleND-v0/n=2,k_min", "InvertedPendulum-v4"])
def test_what_is_read_back_is_what_was_played(task: str, folder: Path) -> None:
    policy = DistilledPolicy.from_zoo(task, seed=5)
    assert policy.to_minari("group/played-v0", 2) == folder / "group" / "played-v0"
    dataset = minari.load_dataset("group/played-v0")
    first, second = dataset.iterate_episodes()
    assert len(first) == len(second) == len(first.rewards) == len(first.observations) - 1
    # Played again in the environment that the dataset names: the same observations and rewards.
    env = dataset.recover_environment()
    obs, _ = env.reset(seed=5)
    for step, action in enumerate(first.actions):
        np.testing.assert_array_equal(obs, first.observations[step])
        obs, reward, terminated, truncated, _ = env.step(action)
        assert reward == first.rewards[step]
        assert (terminated, truncated) == (first.terminations[step], first.truncations[step])
    np.testing.assert_array_equal(obs, first.observations[-1])
    env.close()
    # The actions are those of the agent, each as it answers to its observation.
    again = DistilledPolicy.from_zoo(task, seed=5)
    for episode in (first, second):
        for obs, action in zip(episode.observations[:20], episode.actions[:20], strict=True):
            np.testing.assert_array_equal(again.predict(obs)[0], action)
        for obs in episode.observations[20:-1]:  # which draws as many numbers
            again.predict(obs)


def test_each_episode_may_have_a_fresh_agent() -> None:
    DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=5).to_minari(
        "fresh-v0", 3, fresh=True, deterministic=True
    )
    episodes = list(minari.load_dataset("fresh-v0").iterate_episodes())
    for number, episode in enumerate(episodes):
        agent = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=5 + number)
        wanted, _ = agent.predict(episode.observations[:-1], deterministic=True)
        np.testing.assert_array_equal(wanted, episode.actions)
    other = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=5)
    answers, _ = other.predict(episodes[2].observations[:-1], deterministic=True)
    assert (answers != episodes[2].actions).any()


@pytest.mark.slow
def test_what_the_command_records_is_imitated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["CartPoleND-v0/n=1,k_min", "--minari", "cartpole/agents-v0", "--episodes", "4", "--seed", "0"]
    export.main([*argv, "--no-progress-bar"])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "minari" / "cartpole" / "agents-v0")
    (tmp_path / "mine.yaml").write_text(
        "tasks: [CartPoleND-v0 n=1]\n"
        "settings: {k: 4, learning_rate: 0.02, n_updates: 300}\n"
        "evaluation: {n_agents: 8, n_episodes: 2, final_agents: 8, final_episodes: 2}\n"
        "variants: {mine: {stages: [imitate: {expert: 'minari:cartpole/agents-v0'}]}}\n"
    )
    recipe = load(str(tmp_path / "mine.yaml"))
    recording = minari_recording("minari:cartpole/agents-v0", recipe.task)
    assert len(recording.observations) == sum(
        map(len, minari.load_dataset("cartpole/agents-v0").iterate_episodes())
    )
    dataset = Run.create(recipe, 0, tmp_path).execute(progress_bar=False)
    assert dataset.card.scores[0].mean > 200  # random rows: about 20


def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def error_of(*argv: str) -> str:
        with pytest.raises(SystemExit, match="1"):
            export.main(["CartPoleND-v0/n=1,k_min", *argv, "--no-progress-bar"])
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    assert "Say what to export" in error_of()
    assert "--episodes must be at least 1" in error_of("--minari", "a-v0", "--episodes", "0")
    for name in ("cartpole", "a/../../b-v0", "/elsewhere/b-v0", "..-v0"):
        assert "is no id of a Minari dataset" in error_of("--minari", name)
    policy = DistilledPolicy.from_zoo("CartPoleND-v0", n=1, seed=0)
    policy.to_minari("taken-v0", 1)
    assert "already" in error_of("--minari", "taken-v0")

    def half(*_: Any, **__: Any) -> None:
        (folder / "new-v0" / "data").mkdir(parents=True)
        raise OSError("No space left on device\nat all")

    monkeypatch.setattr(minari, "create_dataset_from_buffers", half)
    assert "No space left on device" in error_of("--minari", "new-v0", "--episodes", "1")
    assert not (folder / "new-v0").exists()
    network = policy.dataset.train(
        torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 2))
    )
    with pytest.raises(TaskDistillError, match="no fresh agents"):
        DistilledPolicy(policy.dataset, network=network).to_minari("net-v0", 1, fresh=True)
