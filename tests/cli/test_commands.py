"""The commands do what they say, and a mistake ends in one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gym_taskdistill import __main__, zoo
from gym_taskdistill.cli import evaluate, train
from gym_taskdistill.cli import zoo as zoo_command
from gym_taskdistill.cli.common import key_values
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.critic_file import critic_path
from gym_taskdistill.errors import TaskDistillError

TINY = [
    "n_envs=8",
    "n_learners=4",
    "n_steps=32",
    "batch_size=128",
    "final_agents=3",
    "final_episodes=2",
    "n_agents=2",
    "n_episodes=1",
]


@pytest.fixture
def dataset_file(tmp_path: Path) -> Path:
    return zoo.load("CartPoleND-v0", n=2).save(tmp_path / "dataset")


def fails(main: object, argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as error:
        main(argv)  # type: ignore[operator]
    assert error.value.code not in (0, None)
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_train_writes_a_run_and_prints_its_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "cartpole",
        "--env-kwargs",
        "n=1",
        "--total-timesteps",
        "512",
        "--seed",
        "1",
        "--out",
        str(tmp_path),
    ]
    train.main([*argv, "--set", *TINY])
    output = capsys.readouterr()
    assert "alpha_c" in output.out
    assert "worst agent" in output.out
    assert "fresh agents" in output.err  # the progress bar tells the score so far
    dataset = DistilledDataset.load(tmp_path / "cartpole-n1_1" / "best.safetensors")
    assert dataset.card.scores[0].n_agents == 3
    assert dataset.card.env_kwargs == {"n": 1}


def test_an_encoder_is_rolled_back_by_one_flag(tmp_path: Path) -> None:
    argv = ["cartpole", "--total-timesteps", "256", "--no-progress-bar", "--out", str(tmp_path)]
    few = [*TINY, "final_agents=1", "final_episodes=1", "n_agents=1"]
    train.main([*argv, "--set", *few, "encoder_layers=2"])
    first = DistilledDataset.load(tmp_path / "cartpole-n2_1" / "last.safetensors")
    frozen = ["learning_rate=0.0", "encoder_learning_rate=0.0"]
    source = str(tmp_path / "cartpole-n2_1" / "last.safetensors")
    train.main([*argv, "--roll-back", source, "--set", *few, *frozen])
    second = DistilledDataset.load(tmp_path / "cartpole-n2_2" / "last.safetensors")
    assert (first.encoder_layers, second.encoder_layers) == (2, 1)
    assert torch.equal(first.x, second.x)
    assert set(second.encoder) == {"0.weight", "0.bias"}
    assert all(torch.equal(first.encoder[name], second.encoder[name]) for name in second.encoder)


def test_train_takes_any_env(tmp_path: Path) -> None:
    argv = ["Acrobot-v1", "--total-timesteps", "256", "--no-progress-bar", "--out", str(tmp_path)]
    train.main([*argv, "--set", *TINY, "final_agents=1", "final_episodes=1", "n_agents=1"])
    assert DistilledDataset.load(tmp_path / "Acrobot-v1_1" / "best.safetensors").card.env_id == "Acrobot-v1"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["cartpol"], 'Did you mean "cartpole"'),
        (["--set", "gama=1"], 'Did you mean "gamma"'),
        (["--set", "gamma"], "key=value"),
        (["--env-kwargs", "n=zero"], "cannot be made"),
        (["--set", "batch_size=7"], "batch_size=7 must be a multiple"),
        (["--warm-start", "CartPoleND-v0/n=2,k_mni"], "k_min"),
        (["--resume", "nowhere"], "not the folder of a run"),
        (["--roll-back", "CartPoleND-v0/n=2,k_min"], "has no encoder"),
        (["--roll-back", "CartPoleND-v0/n=2,k_min", "--warm-start", "CartPoleND-v0/n=2,k_min"], "not both"),
    ],
)
def test_mistakes_in_train(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in fails(train.main, argv, capsys)


def test_a_misspelt_flag_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--total-timesteps" in fails(train.main, ["--total-timestep", "3"], capsys)


def test_evaluate_prints_writes_and_records(
    dataset_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(dataset_file), "--agents", "4", "--episodes", "2", "--learners", "xavier", "random_h"]
    evaluate.main([*argv, "--json", str(tmp_path / "scores.json"), "--record"])
    assert "xavier" in capsys.readouterr().out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [(s["learners"], s["n_agents"], s["n_episodes"]) for s in scores] == [
        ("xavier", 4, 2),
        ("random_h", 4, 2),
    ]
    recorded = {s.learners: s for s in DistilledDataset.load(dataset_file).card.scores}
    assert recorded["xavier"].mean == scores[0]["mean"]
    assert recorded["alpha_c"].n_agents == 100  # the entry's own score is kept


def test_evaluate_is_reproducible(dataset_file: Path, tmp_path: Path) -> None:
    results = []
    for name in ("a.json", "b.json"):
        evaluate.main([str(dataset_file), "--agents", "3", "--episodes", "2", "--json", str(tmp_path / name)])
        results.append((tmp_path / name).read_text())
    assert results[0] == results[1]


def test_a_dataset_may_be_tested_on_another_env(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["InvertedPendulum-v4", "--env-id", "InvertedPendulum-v5", "--agents", "2", "--episodes", "1"]
    evaluate.main([*argv, "--json", str(tmp_path / "scores.json")])
    (score,) = json.loads((tmp_path / "scores.json").read_text())
    assert score["env_id"] == "InvertedPendulum-v5"
    assert score["mean"] == 1000
    assert "scores of InvertedPendulum-v4, not of InvertedPendulum-v5" in fails(
        evaluate.main, [*argv, "--record"], capsys
    )


def test_mistakes_in_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.safetensors" in fails(evaluate.main, ["nowhere.safetensors"], capsys)
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    assert "broken.safetensors" in fails(evaluate.main, [str(tmp_path / "broken.safetensors")], capsys)
    assert "CartPoleND-v0" in fails(evaluate.main, ["CartPoleN-v0"], capsys)
    assert "at least 1 agent" in fails(evaluate.main, ["CartPoleND-v0/n=2,k_min", "--agents", "0"], capsys)


def test_zoo_lists_shows_and_finds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    zoo_command.main(["list"])
    assert "CartPoleND-v0/n=2,k_min" in capsys.readouterr().out
    zoo_command.main(["show", "CartPoleND-v0", "--env-kwargs", "n=2"])
    assert "x=(3, 8)" in capsys.readouterr().out
    zoo_command.main(["show", "CartPoleND-v0/n=2,k_min", "--json"])
    assert json.loads(capsys.readouterr().out)["variant"] == "k_min"
    zoo_command.main(["path", "CartPoleND-v0/n=2,k_min"])
    path = Path(capsys.readouterr().out.strip())
    assert DistilledDataset.load(path) == zoo.load("CartPoleND-v0", n=2)


def test_zoo_add_never_makes_an_entry_worse(
    dataset_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "zoo"
    monkeypatch.setattr(zoo, "data_root", lambda name: root)
    source = tmp_path / "source"
    source.mkdir()
    dataset_file = Path(shutil.copy(dataset_file, source))
    critic_path(dataset_file).write_bytes(b"a critic")
    zoo_command.main(["add", str(dataset_file)])
    critic = critic_path(zoo.find("CartPoleND-v0", n=2).path)
    assert critic.read_bytes() == b"a critic"
    worse = DistilledDataset.load(dataset_file)
    worse = worse.replace(y=0 * worse.y)
    worse.save(tmp_path / "worse")
    evaluate.main([str(tmp_path / "worse.safetensors"), "--agents", "3", "--episodes", "2", "--record"])
    capsys.readouterr()
    assert "use --force" in fails(zoo_command.main, ["add", str(tmp_path / "worse.safetensors")], capsys)
    zoo_command.main(["add", str(tmp_path / "worse.safetensors"), "--force"])
    assert not zoo.load("CartPoleND-v0", n=2).y.any()
    assert not critic.exists()  # it was that of the dataset before


def test_the_console_command_dispatches(capsys: pytest.CaptureFixture[str]) -> None:
    __main__.main([])
    assert "evaluate" in capsys.readouterr().out
    __main__.main(["zoo", "path", "CartPoleND-v0/n=2,k_min"])
    assert "n=2,k_min" in capsys.readouterr().out
    with pytest.raises(SystemExit, match='Did you mean "train"'):
        __main__.main(["trian"])


@pytest.mark.parametrize(
    "module", ["gym_taskdistill", *(f"gym_taskdistill.{name}" for name in __main__.COMMANDS)]
)
def test_every_command_has_help(module: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    assert "usage" in result.stdout


def test_key_values_are_plain_data() -> None:
    assert key_values(["n=3", "x-std=0.5", "name=a=b"], "--set") == {"n": 3, "x_std": 0.5, "name": "a=b"}
    with pytest.raises(TaskDistillError, match="plain data"):
        key_values(["a=["], "--set")
