"""What data names runs no code but on the user's word."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO

from gym_taskdistill import trust, zoo
from gym_taskdistill.cli.evaluate import main as evaluate_main
from gym_taskdistill.cli.reproduce import main as reproduce_main
from gym_taskdistill.cli.train import main as train_main
from gym_taskdistill.cli.zoo import main as zoo_main
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.experts import load_expert
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.recipes.file import load
from gym_taskdistill.tasks.task import Task

CODE = """
import pathlib, gymnasium, torch
pathlib.Path(__file__).with_suffix(".ran").touch()
gymnasium.registry.pop("Theirs-v0", None)
gymnasium.register("Theirs-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=9)

class Passing(gymnasium.Wrapper):
    pass

def net(space, n):
    return torch.nn.Sequential(torch.nn.Linear(*space.shape, 8), torch.nn.Tanh(), torch.nn.Linear(8, n))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> str:
    """Make a module that tells when it is imported; its name is each test's own."""
    name = f"theirs_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture(autouse=True)
def forgets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("TASKDISTILL_ZOO", str(tmp_path / "zoo"))
    with trust.scope():
        yield


def with_card(**changes: Any) -> DistilledDataset:
    dataset = zoo.load("CartPoleND-v0", "k_min", n=1)
    return dataset.replace(card=dataset.card.replace(scores=(), **changes))


def named(module: str) -> DistilledDataset:
    return with_card(env_id=f"{module}:Theirs-v0", env_kwargs={})


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
    with pytest.raises(TaskDistillError, match='"no_such_module:CartPole-v1" names .* cannot be imported'):
        Task("no_such_module:CartPole-v1").make_env()


def test_a_function_is_not_trusted_for_its_module_is_imported() -> None:
    with pytest.raises(TaskDistillError, match='"os:system", which is not run unasked'):
        DistilledPolicy(with_card(learners={"family": "module", "factory": "os:system", "kwargs": {}}))
    with pytest.raises(TaskDistillError, match='"os.path", which does not exist|is no function'):
        DistilledPolicy(
            with_card(learners={"family": "module", "factory": "os:path", "kwargs": {}}), trust=True
        )


def test_trust_ends_with_its_block() -> None:
    with trust.scope([trust.EVERYTHING]):
        trust.check("no_such_module", "A card")
        trust.allow("another")
    for name in ("no_such_module", "another"):
        with pytest.raises(TaskDistillError, match="not run unasked"):
            trust.check(name, "A card")


@pytest.mark.slow
def test_all_that_a_card_names_is_trusted_at_once(module: str, tmp_path: Path) -> None:
    """Its environment's module, its wrapper and its learners; other processes trust what this one does."""
    dataset = with_card(
        env_id=f"{module}:Theirs-v0",
        env_kwargs={},
        wrappers=({"entry_point": f"{module}:Passing", "kwargs": {}},),
        learners={"family": "module", "factory": f"{module}:net", "kwargs": {}},
    )
    assert dataset.card.code == (module, module, f"{module}:net")
    with pytest.raises(TaskDistillError, match="not run unasked"):
        DistilledPolicy(dataset)
    with pytest.raises(TaskDistillError, match="not run unasked"):
        evaluate(dataset, 1, 1)
    assert not list(tmp_path.glob("*.ran"))
    returns = [evaluate(dataset, 2, 1, trust=True, n_jobs=jobs).returns for jobs in (1, 2)]
    np.testing.assert_array_equal(*returns)
    assert DistilledPolicy(dataset).predict(np.zeros(4))[0] in (0, 1)  # trusted from now on


def test_a_saved_model_runs_no_function(module: str, tmp_path: Path) -> None:
    settings = {"k": 3, "n_learners": 1, "n_steps": 8, "batch_size": 8, "device": "cpu"}
    with trust.scope([module]):
        PPMO(f"{module}:net", "CartPole-v1", **settings).save(tmp_path / "model")
    with pytest.raises(TaskDistillError, match="not run unasked"):
        PPMO.load(tmp_path / "model", device="cpu")
    model = PPMO.load(tmp_path / "model", device="cpu", trust=True)
    assert model.predict(np.zeros(4, np.float32))[0] in (0, 1)


@pytest.mark.slow
def test_commands_that_run_recipes_take_the_switch(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my.yaml").write_text(
        f"tasks: ['{module}:Theirs-v0']\n"
        "evaluation: {n_agents: 1, n_episodes: 1, final_agents: 1, final_episodes: 1}\n"
        f"settings: {{k: 3, learners: '{module}:net', total_timesteps: 16, n_envs: 2, n_steps: 4, "
        "n_learners: 2, batch_size: 8, n_epochs: 1}\n"
        "variants: {one: {default: true, stages: [ppmo: {}]}}\n"
    )
    argv = ["my.yaml", "--seed", "0", "--no-progress-bar", "--device", "cpu"]
    refused(train_main, argv, capsys)
    train_main([*argv, "--trust"])
    (run,) = Path("runs").iterdir()
    (run / "dataset.safetensors").rename("mine.safetensors")
    refused(train_main, ["--resume", str(run), "--no-progress-bar"], capsys, but=module)
    train_main(["--resume", str(run), "--no-progress-bar", "--trust"])
    assert DistilledDataset.load(run / "dataset.safetensors") == DistilledDataset.load("mine.safetensors")
    zoo_main(["add", str(run / "dataset.safetensors")])  # names code, runs none
    argv = ["Theirs-v0/one", "--seeds", "0", "--no-progress-bar"]
    refused(reproduce_main, argv, capsys, but=module)
    reproduce_main([*argv, "--trust"])
    again = next(Path("runs/reproduce").glob("*/*/*/dataset.safetensors"))
    assert DistilledDataset.load(again).digest == DistilledDataset.load("mine.safetensors").digest


def refused(main: Any, argv: list[str], capsys: pytest.CaptureFixture[str], but: str = "") -> None:
    """Assert that a command refuses code; a module that stays imported from a test before is forgotten."""
    if but:
        sys.modules.pop(but)
    with pytest.raises(SystemExit):
        main(argv)
    captured = capsys.readouterr()
    assert "not run unasked" in captured.err + captured.out


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
