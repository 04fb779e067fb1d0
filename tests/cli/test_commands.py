"""The commands do what they say, and a mistake ends in one sentence."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import gym_taskdistill
from gym_taskdistill import __main__, trust, zoo
from gym_taskdistill.cli import evaluate, train
from gym_taskdistill.cli import zoo as zoo_command
from gym_taskdistill.cli.common import key_values, run_command
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.lineage import StageRecord
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import write_sealed
from gym_taskdistill.paths import critic_path

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
    """A dataset of unknown making, which any other may replace."""
    dataset = zoo.load("CartPoleND-v0", n=2)
    card = dataset.card.replace(lineage=(), selection=None, distillations=())
    return dataset.replace(card=card).save(tmp_path / "dataset")


def fails(main: object, argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as error:
        main(argv)  # type: ignore[operator]
    assert error.value.code not in (0, None)
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.mark.slow
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
    dataset = DistilledDataset.load(tmp_path / "CartPoleND-v0,n=1,k_min_1")
    assert dataset.card.scores[0].n_agents == 3
    assert dataset.card.env_kwargs == {"n": 1}


@pytest.mark.slow
def test_a_stage_rolls_an_encoder_back(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "tasks: [CartPoleND-v0 n=2]\n"
        "variants:\n"
        "  level-1:\n"
        "    settings: {k: 3, total_timesteps: 256}\n"
        "    stages:\n"
        "      - ppmo: {encoder_layers: 2}\n"
        "      - roll_back\n"
        "      - ppmo: {encoder_layers: 1, learning_rate: 0.0, learning_rates: {encoder: 0.0}}\n"
    )
    argv = [str(tmp_path / "mine.yaml"), "--no-progress-bar", "--out", str(tmp_path)]
    train.main([*argv, "--set", *TINY, "final_agents=1", "final_episodes=1", "n_agents=1"])
    run = tmp_path / "CartPoleND-v0,n=2,level-1_1"
    first, second = DistilledDataset.load(run / "1-ppmo"), DistilledDataset.load(run)
    assert (first.encoder_layers, second.encoder_layers) == (2, 1)
    assert torch.equal(first.x, second.x)
    assert set(second.encoder) == {"0.weight", "0.bias"}
    assert all(torch.equal(first.encoder[name], second.encoder[name]) for name in second.encoder)


@pytest.mark.slow
def test_train_takes_any_env(tmp_path: Path) -> None:
    argv = ["Acrobot-v1", "--total-timesteps", "256", "--no-progress-bar", "--out", str(tmp_path)]
    train.main([*argv, "--set", *TINY, "final_agents=1", "final_episodes=1", "n_agents=1"])
    assert DistilledDataset.load(tmp_path / "Acrobot-v1,ridge_1").card.env_id == "Acrobot-v1"


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
        (["Hopper-v4/ten-step"], 'Did you mean "ten-steps"'),
        (["--seed", "-1"], "A seed must be"),
        (["--seed", str(2**32)], "A seed must be"),
        (["--out", __file__], "cannot be made"),
        (["--warm-start", "CartPoleND-v0/n=3,k_min"], "k=3, but the stage before makes a dataset with 4"),
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


@pytest.mark.slow
def test_functions_that_a_file_names_run_on_trust_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    Path("nets_of_mine.py").write_text(
        "from torch import nn\n"
        "def net(space, n, width):\n"
        "    first = nn.Sequential(nn.Linear(*space.shape, width), nn.LayerNorm(width), nn.SiLU())\n"
        "    return nn.Sequential(*first, nn.Linear(width, n))\n"
    )
    Path("my.yaml").write_text(
        "tasks: [CartPoleND-v0 n=1]\nsettings: {learners: {family: module, factory: nets_of_mine:net}}\n"
        "variants: {mine: {stages: [{ppmo: {}}]}}\n"
    )
    argv = ["my.yaml", "--out", "runs", "--seed", "0", "--total-timesteps", "256", "--no-progress-bar"]
    argv += [
        "--set",
        *TINY,
        "k=4",
        "learners.kwargs.width=24",
        "inner.kind=ridge",
        "inner.regularization=0.01",
    ]
    assert 'names code, "nets_of_mine:net", which is not run unasked' in fails(train.main, argv, capsys)
    assert not Path("runs").exists() and "nets_of_mine" not in sys.modules
    train.main([*argv, "--trust"])
    file = next(Path("runs").glob("*/dataset.safetensors"))
    dataset = DistilledDataset.load(file)
    assert dataset.rule.kind == "ridge" and dataset.card.learners["kwargs"] == {"width": 24}
    assert "module(nets_of_mine:net, width=24)" in capsys.readouterr().out
    argv = [str(file), "--agents", "2", "--episodes", "1", "--no-progress-bar"]
    assert "--trust" in fails(evaluate.main, argv, capsys)
    evaluate.main([*argv, "--learners", "alpha_c"])  # no code of the card's
    evaluate.main([*argv, "--trust"])
    assert not trust.is_allowed("nets_of_mine:net")  # once the command has ended


def test_mistakes_in_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.safetensors" in fails(evaluate.main, ["nowhere.safetensors"], capsys)
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    assert "broken.safetensors" in fails(evaluate.main, [str(tmp_path / "broken.safetensors")], capsys)
    assert "CartPoleND-v0" in fails(evaluate.main, ["CartPoleN-v0"], capsys)
    assert "at least 1 agent" in fails(evaluate.main, ["CartPoleND-v0/n=2,k_min", "--agents", "0"], capsys)


def test_zoo_shows_and_finds(capsys: pytest.CaptureFixture[str]) -> None:
    zoo_command.main(["show", "CartPoleND-v0", "--env-kwargs", "n=2"])
    assert "x=(3, 8)" in capsys.readouterr().out
    zoo_command.main(["show", "CartPoleND-v0/n=2,k_min", "--json"])
    assert json.loads(capsys.readouterr().out)["variant"] == "k_min"
    zoo_command.main(["path", "CartPoleND-v0/n=2,k_min"])
    path = Path(capsys.readouterr().out.strip())
    assert DistilledDataset.load(path) == zoo.load("CartPoleND-v0", n=2)


@pytest.mark.slow
def test_zoo_lists_whole_names(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    zoo_command.main(["list"])
    text = capsys.readouterr().out
    names = [entry.name for entry in zoo.entries()]
    assert [line.split()[0] for line in text.splitlines()[1 : len(names) + 1]] == names
    zoo_command.main(["list", "CartPoleND-v0", "--json"])
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    entry = listed["CartPoleND-v0/n=2,k_min"]
    assert (entry["k"], entry["inner_steps"], entry["default"]) == (3, 1, True)
    card = zoo.find("CartPoleND-v0/n=2,k_min").card
    assert entry["score"]["mean"] == card.scores[0].mean and entry["legacy"] is card.legacy
    assert DistilledDataset.load(entry["path"]).card == card


@pytest.mark.slow
def test_the_zoo_in_a_pipe_that_is_closed() -> None:
    command = f'"{sys.executable}" -m gym_taskdistill zoo show CartPoleND-v0/n=2,k_min --json | head -n 1'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize("command", ["list", "show"])
def test_the_zoo_on_an_old_terminal(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    zoo_command.main([command, "Hopper-v4"])
    assert b"Hopper-v4" in printed.getvalue()


def test_hostile_text_is_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = zoo.load("CartPoleND-v0", n=2)
    text = "[/red]\x1b[31m\n"
    score = entry.card.scores[0].replace(learners=text)
    zoo.add(entry.replace(card=entry.card.replace(scores=[score], notes=text, created="2026-01-31")))
    zoo_command.main(["list", "CartPoleND-v0"])
    zoo_command.main(["show", "CartPoleND-v0/n=2,k_min"])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and printed.count(r"[/red]\x1b[31m") == 3


def test_a_damaged_entry_is_told_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    entry = zoo.load("CartPoleND-v0", n=2)
    cards = [entry.card.replace(variant=variant, default=False) for variant in ("broken", "flipped")]
    broken, flipped = [zoo.save(entry.replace(card=card)) for card in cards]
    broken.write_bytes(broken.read_bytes()[:50])
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    zoo_command.main(["list", "CartPoleND-v0"])
    output = capsys.readouterr()
    assert "CartPoleND-v0/n=2,k_min" in output.out and "broken" not in output.out
    lines = output.err.splitlines()
    assert len(lines) == 2 and all(
        line.startswith("warning: An entry of the zoo is left out") for line in lines
    )


def test_zoo_add_takes_the_critic_along(dataset_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = zoo.find("CartPoleND-v0", n=2)
    dataset = DistilledDataset.load(dataset_file)
    write_sealed(critic_path(dataset_file), {"0.weight": torch.ones(1)}, {"dataset": dataset.digest})
    zoo_command.main(["add", str(dataset_file.with_suffix(""))])
    added = zoo.find("CartPoleND-v0", n=2)
    assert Path(capsys.readouterr().out.strip()) == added.path != shipped.path
    assert critic_path(added.path).read_bytes() == critic_path(dataset_file).read_bytes()
    # One of another dataset stays where it is, and the old one goes.
    other = dataset.replace(y=0 * dataset.y)
    other.save(dataset_file)
    zoo_command.main(["add", str(dataset_file)])
    assert not added.load().y.any() and not critic_path(added.path).exists()


def test_zoo_add_compares_selection_scores(
    dataset_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = DistilledDataset.load(dataset_file)
    stage = StageRecord(kind="ppmo", settings={}, task="CartPoleND-v0 n=2", seed=0, output=dataset.digest)
    score = dataset.card.scores[0]
    for mean in (400.0, 300.0):
        card = dataset.card.replace(lineage=[stage], selection=score.replace(mean=mean))
        dataset.replace(card=card, y=mean * dataset.y).save(tmp_path / f"{mean:.0f}")
    zoo_command.main(["add", "400"])
    message = fails(zoo_command.main, ["add", "300.safetensors"], capsys)
    assert "was selected with 400.0" in message and "use --force" in message
    zoo_command.main(["add", "300", "--force"])
    assert zoo.find("CartPoleND-v0", n=2).card.selection == score.replace(mean=300.0)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(KeyboardInterrupt(), 130, "interrupted\n"), (TaskDistillError("so \x1b"), 1, "error: so \\x1b\n")],
)
def test_how_commands_end(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(args: object) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(zoo_command.ListArgs, command, [])
    assert ended.value.code == status and capsys.readouterr().err == message


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    __main__.main(["--version"])
    assert capsys.readouterr().out == f"gym-taskdistill {gym_taskdistill.__version__}\n"
    assert gym_taskdistill.__version__ == metadata.version("gym-taskdistill")


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
def test_every_command_has_help(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (module, f"{module}.__main__"):  # as in a process that has not imported it
        if name != "gym_taskdistill":
            monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert "usage" in capsys.readouterr().out


def test_key_values_are_plain_data() -> None:
    assert key_values(["n=3", "x-std=0.5", "name=a=b"], "--set") == {"n": 3, "x_std": 0.5, "name": "a=b"}
    with pytest.raises(TaskDistillError, match="no valid YAML"):
        key_values(["a=["], "--set")
