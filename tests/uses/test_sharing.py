"""Datasets that are pushed to the Hub come back whole, take nobody's place, and lead nowhere else."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from local_hub import stand_in
from PIL import Image

from gym_taskdistill import DistilledDataset, DistilledPolicy, zoo
from gym_taskdistill.cli import evaluate, pull, push, train
from gym_taskdistill.cli import zoo as zoo_command
from gym_taskdistill.errors import DatasetError, TaskDistillError, ZooError
from gym_taskdistill.hub import Address
from gym_taskdistill.uses import sharing
from gym_taskdistill.uses.sharing import model_card

ENTRY = "CartPoleND-v0/n=2,k_min"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in's repositories."""
    root = tmp_path / "hub"
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in(root))
    return root


@pytest.fixture
def mine() -> DistilledDataset:
    """A dataset of a name that no zoo has."""
    dataset = zoo.load(ENTRY)
    return dataset.replace(card=dataset.card.replace(variant="mine"))


def error_of(main: Any, argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match="1"):
        main(argv)
    error: str = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_what_is_pushed_is_pulled(
    hub: Path, mine: DistilledDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = mine.save(tmp_path / "mine")
    push.main([str(file), "user/cartpole", "--no-gif"])
    assert capsys.readouterr().out == "https://huggingface.co/user/cartpole\n"
    names = sorted(path.name for path in (hub / "user" / "cartpole" / "0").iterdir())
    assert names == ["README.md", "dataset.json", "dataset.safetensors"]
    pull.main(["user/cartpole"])
    entry = zoo.find("CartPoleND-v0/n=2,mine")
    assert capsys.readouterr().out == f"{entry.path}\n"
    assert entry.path == tmp_path / "own-zoo" / "CartPoleND-v0" / "n=2,mine" / "dataset.safetensors"
    pulled = entry.load()
    assert pulled.digest == mine.digest and pulled.card.scores == mine.card.scores
    # What no variant is named for stays what it was.
    assert not entry.default and zoo.find("CartPoleND-v0", n=2).name == ENTRY
    obs = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    wanted = DistilledPolicy(mine, seed=3).distribution(obs).mode()
    for policy in (
        DistilledPolicy.from_hub("user/cartpole", seed=3),
        DistilledPolicy.from_file("hf://user/cartpole@0", seed=3),
        DistilledPolicy.from_zoo("hf://user/cartpole", seed=3),
    ):
        assert torch.equal(policy.distribution(obs).mode(), wanted)


def test_an_address_stands_for_a_dataset(
    hub: Path, mine: DistilledDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    sharing.push(mine, "user/cartpole", gif=False)
    sharing.push(mine.replace(y=-mine.y), "user/cartpole", gif=False)
    assert DistilledDataset.load("hf://user/cartpole@0").digest == mine.digest
    assert DistilledDataset.load("hf://user/cartpole").digest != mine.digest
    address = "hf://user/cartpole@0"
    assert zoo.load(address) == mine
    few = ["--agents", "2", "--episodes", "2", "--no-progress-bar"]
    evaluate.main([address, *few])
    assert "2 fresh agents" in capsys.readouterr().out
    assert "pull it into your zoo" in error_of(evaluate.main, [address, *few, "--record"], capsys)
    zoo_command.main(["show", address])
    assert mine.digest in capsys.readouterr().out
    bad = ["--warm-start", "hf://user/nothing"]
    assert "there is none of that name" in error_of(train.main, bad, capsys)


def test_pull_takes_nobodys_place(
    hub: Path, mine: DistilledDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = zoo.find(ENTRY)
    sharing.push(shipped.load(), "user/same", gif=False)
    pull.main(["user/same"])  # equal to what is there: nothing to do
    assert capsys.readouterr().out == f"{shipped.path}\n" and not (tmp_path / "own-zoo").exists()
    other = shipped.load()
    sharing.push(other.replace(y=-other.y), "user/other", gif=False)
    error = error_of(pull.main, ["user/other"], capsys)
    assert f"another {ENTRY} already" in error and "--force" in error and "hf://user/other" in error
    assert zoo.find(ENTRY) == shipped and not (tmp_path / "own-zoo").exists()
    pull.main(["user/other", "--force"])
    assert zoo.find(ENTRY).root == tmp_path / "own-zoo"
    # A damaged entry is not replaced unasked either.
    zoo.save(mine.replace(card=mine.card.replace(default=False))).write_bytes(b"")
    sharing.push(mine, "user/mine", gif=False)
    with pytest.warns(zoo.ZooWarning), pytest.raises(ZooError, match="another .*mine already"):
        sharing.pull("user/mine")


def test_a_card_leads_nowhere_but_into_the_zoo(hub: Path, mine: DistilledDataset, tmp_path: Path) -> None:
    folder = hub / "user" / "evil" / "0"
    folder.mkdir(parents=True)
    before = set(tmp_path.rglob("*"))
    for changes in (
        {"variant": "../../evil"},
        {"variant": ""},
        {"env_id": "../evil"},
        {"env_id": "x:.."},
        {"env_kwargs": {"../../n": 2}},
    ):
        mine.replace(card=mine.card.replace(**changes)).save(folder / "dataset")
        with pytest.raises(ZooError):
            sharing.pull("user/evil")
        with pytest.raises(ZooError):
            sharing.push(DistilledDataset.load(folder), "user/evil", gif=False)
    assert {path for path in tmp_path.rglob("*") if path.parent != folder} == before


def test_damage_is_refused(hub: Path, mine: DistilledDataset) -> None:
    sharing.push(mine, "user/cartpole", gif=False)
    file = hub / "user" / "cartpole" / "0" / "dataset.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for read in (sharing.pull, DistilledPolicy.from_hub):
        with pytest.raises(DatasetError, match="checksum is wrong"):
            read("user/cartpole")
    assert zoo.entries("CartPoleND-v0") == zoo.entries("CartPoleND-v0", root=zoo.find(ENTRY).root)


def test_a_foreign_card_runs_no_code(hub: Path, mine: DistilledDataset, tmp_path: Path) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('it ran')")
    for changes in (
        {"env_id": "evil_module:Evil-v0"},
        {"learners": {"family": "module", "factory": "evil_module:f"}},
    ):
        named = mine.replace(card=mine.card.replace(**changes))
        assert named.card.code
        sharing.push(named, "user/evil")  # records no agent
        assert not (hub / "user" / "evil" / "0" / "agent.gif").exists()
        with pytest.raises(TaskDistillError, match="not run unasked"):
            sharing.push(named, "user/evil", gif=True)
        path = sharing.pull("user/evil")
        assert zoo.resolve(str(path)) == path
        (path.parent / "dataset.safetensors").unlink()
    with pytest.raises(TaskDistillError, match="not run unasked"):
        DistilledPolicy.from_hub("user/evil")
    assert "evil_module" not in sys.modules


def test_the_model_card_tells_what_the_card_does(mine: DistilledDataset) -> None:
    text = model_card(mine, "user/cartpole")
    _, front, body = text.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["library_name"] == "gym-taskdistill"
    assert {"reinforcement-learning", "CartPoleND-v0"} <= set(about["tags"])
    (model,) = about["model-index"]
    stochastic = [score for score in mine.card.scores if not score.deterministic]
    assert [result["metrics"][0]["value"] for result in model["results"]] == [
        f"{score.figures[0]} +/- {score.figures[1]}" for score in stochastic
    ]
    assert 'from_hub("user/cartpole")' in body and mine.digest in body and "agent.gif" not in body
    # What a card says is neither Markdown nor YAML.
    evil = mine.card.scores[0].replace(learners="a`|\n# b: [c]")
    card = mine.card.replace(scores=(evil,))
    _, front, body = model_card(mine.replace(card=card), "user/cartpole").split("---\n", 2)
    assert "a`|\n# b: [c]" in yaml.safe_load(front)["model-index"][0]["results"][0]["metrics"][0]["name"]
    assert "| `a   # b: [c]` |" in body


@pytest.mark.slow
def test_an_agent_is_recorded(hub: Path, mine: DistilledDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "MAX_FRAMES", 12)
    sharing.push(mine, "user/cartpole")
    folder = hub / "user" / "cartpole" / "0"
    with Image.open(folder / "agent.gif") as gif:
        assert gif.n_frames == 12
    assert "](agent.gif)" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "cartpole",
        "a/b/c",
        "../b",
        "a/..",
        "a/b@",
        "a/b@../c",
        "a/b@/c",
        "a b/c",
        "a/b.git",
        "a/b--c",
        "/b",
        "a/é",
    ],
)
def test_what_is_no_address_is_refused(name: str, hub: Path, mine: DistilledDataset) -> None:
    for use in (Address.parse, DistilledPolicy.from_hub, sharing.pull, lambda name: sharing.push(mine, name)):
        with pytest.raises(TaskDistillError, match="is no dataset of the Hub"):
            use(name)
    with pytest.raises(TaskDistillError, match="is no dataset of the Hub"):
        zoo.resolve(f"hf://{name}")
    assert not hub.exists()


def test_what_the_hub_lacks_is_one_sentence(
    hub: Path, mine: DistilledDataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is none of that name" in error_of(pull.main, ["user/nothing"], capsys)
    sharing.push(mine, "user/cartpole", gif=False)
    assert "no such revision" in error_of(pull.main, ["user/cartpole@9"], capsys)
    (hub / "user" / "cartpole" / "0" / "dataset.safetensors").unlink()
    assert "holds no such file" in error_of(evaluate.main, ["hf://user/cartpole"], capsys)
    assert "without the revision" in error_of(push.main, [ENTRY, "user/cartpole@1", "--no-gif"], capsys)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("401 Client Error: Unauthorized\nfor url: …")

    monkeypatch.setattr(sys.modules["huggingface_hub"].HfApi, "create_repo", refuse)
    assert "401 Client Error: Unauthorized." in error_of(push.main, [ENTRY, "user/new", "--no-gif"], capsys)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for main, argv in ((pull.main, ["user/cartpole"]), (push.main, [ENTRY, "user/new"])):
        assert 'pip install "gym-taskdistill[hub]"' in error_of(main, argv, capsys)


def test_the_stand_in_has_huggingface_hubs_signatures(tmp_path: Path) -> None:
    library = pytest.importorskip("huggingface_hub")
    from huggingface_hub import errors

    ours: Any = stand_in(tmp_path)
    for name in ("HfApi.create_repo", "HfApi.upload_folder", "hf_hub_download"):
        theirs, mine = library, ours
        for part in name.split("."):
            theirs, mine = getattr(theirs, part), getattr(mine, part)
        known = inspect.signature(theirs).parameters
        for parameter in inspect.signature(mine).parameters.values():
            real = known[parameter.name]
            assert (real.kind, real.default) == (parameter.kind, parameter.default), f"{name}: {parameter}"
    for name in ("RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError"):
        assert issubclass(getattr(errors, name), Exception)


def test_nobody_imports_huggingface_hub_unasked() -> None:
    code = "import sys, gym_taskdistill.uses.sharing; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
