"""What data names runs no code but on the user's word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO

from gym_taskdistill import trust, zoo
from gym_taskdistill.cli.evaluate import main as evaluate_main
from gym_taskdistill.cli.train import main as train_main
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.experts import load_expert
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.recipes.file import load
from gym_taskdistill.tasks.task import Task

CODE = """
import pathlib, gymnasium
pathlib.Path(__file__).with_suffix(".ran").touch()
gymnasium.registry.pop("Theirs-v0", None)
gymnasium.register("Theirs-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=9)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> str:
    """Make a module that tells when it is imported; its name is each test's own."""
    name = f"theirs_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def named(module: str) -> DistilledDataset:
    dataset = zoo.load("CartPoleND-v0", "k_min", n=1)
    card = dataset.card.replace(env_id=f"{module}:Theirs-v0", env_kwargs={}, scores=())
    return dataset.replace(card=card)


def test_a_card_runs_no_module(module: str, tmp_path: Path) -> None:
    named(module).save("dataset")
    with pytest.raises(TaskDistillError, match="--trust"):
        evaluate(named(module), 1, 1)
    _, task = load_expert("dataset", Task("CartPole-v1").action_space)
    assert task is not None
    with pytest.raises(TaskDistillError, match="--trust"):
        task.make_env()
    with pytest.raises(SystemExit):
        evaluate_main(["dataset", "--agents", "1", "--episodes", "1"])
    assert not list(tmp_path.glob("*.ran"))
    evaluate_main(["dataset", "--agents", "1", "--episodes", "1", "--trust", "--no-progress-bar"])
    assert list(tmp_path.glob("*.ran"))


def test_a_recipe_runs_no_module(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = f"tasks: ['{module}:Theirs-v0']\nvariants: {{one: {{stages: [ppmo: {{k: 3}}]}}}}\n"
    Path("my.yaml").write_text(recipe)
    with pytest.raises(SystemExit):
        train_main(["my.yaml"])
    assert "--trust" in capsys.readouterr().err
    with pytest.raises(TaskDistillError, match="trust"):
        load(f"{module}:Theirs-v0")
    assert not list(tmp_path.glob("*.ran")) and not Path("runs").exists()
    trust.allow(module)
    assert load(f"{module}:Theirs-v0").task.spec.max_episode_steps == 9


def test_what_is_imported_is_trusted() -> None:
    assert Task("gymnasium:CartPole-v1").spec.id == "CartPole-v1"


def test_a_module_that_is_allowed_has_to_be_there() -> None:
    trust.allow("no_such_module")
    with pytest.raises(TaskDistillError, match='module before the colon of "no_such_module:CartPole-v1"'):
        Task("no_such_module:CartPole-v1").make_env()
    trust._ALLOWED.discard("no_such_module")


def test_an_experts_pickle_is_not_read(tmp_path: Path) -> None:
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "model")
    name = f"ppo:{tmp_path / 'model.zip'}"
    space = Task("CartPole-v1").action_space
    with pytest.raises(TaskDistillError, match="--trust"):
        load_expert(name, space)
    trust.allow(name)
    load_expert(name, space)


def test_the_users_own_word_on_the_command_line(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An env that is typed is meant: what is refused later is its settings."""
    with pytest.raises(SystemExit):
        train_main([f"{module}:Theirs-v0", "--set", "k=x"])
    assert "trust" not in capsys.readouterr().err
    assert list(tmp_path.glob("*.ran"))
