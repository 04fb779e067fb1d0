"""The zoo: entries are found by what a user would type, and errors list what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gym_taskdistill import paths as _paths
from gym_taskdistill import zoo
from gym_taskdistill.dataset.card import Card
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import DatasetError, TaskDistillError, ZooError


def dataset(env_id: str, variant: str, *, default: bool = False, **kwargs: Any) -> DistilledDataset:
    card = Card(
        env_id=env_id,
        env_kwargs=kwargs,
        observation_space={"type": "Box", "shape": [4], "dtype": "float32"},
        action_space={"type": "Discrete", "n": 2},
        learners={"alpha_c": {}},
        variant=variant,
        default=default,
    )
    return DistilledDataset(x=torch.ones(2, 4), y=torch.eye(2), inner_lr=1.0, card=card)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for data in (
        dataset("CartPoleND-v0", "k_min", default=True, n=10),
        dataset("CartPoleND-v0", "k_min", default=True, n=2),
        dataset("CartPoleND-v0", "k512", n=2),
        dataset("gym_taskdistill:CartPoleND-v0", "k_min", n=1),
        dataset("ALE/Pong-v5", "encoder4"),
        dataset("ALE/Pong-v5", "encoder3"),
        dataset("Hopper-v5", "k64"),
    ):
        zoo.save(data, tmp_path)
    return tmp_path


def test_layout(root: Path) -> None:
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*.*") if path.is_file())
    folders = [
        "ALE--Pong-v5/encoder3",
        "ALE--Pong-v5/encoder4",
        "CartPoleND-v0/n=1,k_min",
        "CartPoleND-v0/n=10,k_min",
        "CartPoleND-v0/n=2,k512",
        "CartPoleND-v0/n=2,k_min",
        "Hopper-v5/k64",
    ]
    wanted = [f"{folder}/dataset.{suffix}" for folder in folders for suffix in ("json", "safetensors")]
    assert files == sorted(wanted)


def test_entries_are_sorted(root: Path) -> None:
    assert [entry.name for entry in zoo.entries(root=root)] == [
        "ALE/Pong-v5/encoder3",
        "ALE/Pong-v5/encoder4",
        "CartPoleND-v0/n=1,k_min",
        "CartPoleND-v0/n=2,k512",
        "CartPoleND-v0/n=2,k_min",
        "CartPoleND-v0/n=10,k_min",
        "Hopper-v5/k64",
    ]
    assert [e.variant for e in zoo.entries("ALE/Pong-v5", root=root)] == ["encoder3", "encoder4"]
    assert zoo.entries("*", root=root) == zoo.entries(root=root / "nowhere") == []


@pytest.mark.parametrize(
    ("args", "kwargs", "name"),
    [
        (["CartPoleND-v0"], {"n": 2}, "CartPoleND-v0/n=2,k_min"),  # the default of two
        (["gym_taskdistill:CartPoleND-v0"], {"n": 1}, "CartPoleND-v0/n=1,k_min"),  # the only one
        (["CartPoleND-v0", "k512"], {"n": 2}, "CartPoleND-v0/n=2,k512"),
        (["CartPoleND-v0", "k512"], {}, "CartPoleND-v0/n=2,k512"),  # only n=2 has that variant
        (["CartPoleND-v0/n=2,k512"], {}, "CartPoleND-v0/n=2,k512"),
        (["gym_taskdistill:CartPoleND-v0/n=2,k_min"], {}, "CartPoleND-v0/n=2,k_min"),
        (["Hopper-v5"], {}, "Hopper-v5/k64"),
        (["ALE/Pong-v5", "encoder4"], {}, "ALE/Pong-v5/encoder4"),
        (["ALE/Pong-v5/encoder4"], {}, "ALE/Pong-v5/encoder4"),
    ],
)
def test_find(root: Path, args: list[str], kwargs: dict[str, Any], name: str) -> None:
    entry = zoo.find(*args, root=root, **kwargs)
    assert entry.name == name
    assert entry.card.variant == entry.variant
    assert zoo.load(*args, root=root, **kwargs) == entry.load()


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (["CartPole-v0"], {}, 'it has ALE/Pong-v5; CartPoleND-v0; .*Did you mean "CartPoleND-v0"'),
        (["CartPoleND-v0/n=2,k_mni"], {}, 'Did you mean "CartPoleND-v0/n=2,k_min"'),
        (["CartPoleND-v0"], {}, 'ambiguous: say which of "CartPoleND-v0", n=1; .*n=2; .*n=10'),
        (["CartPoleND-v0", "k_min"], {}, "ambiguous"),
        (["CartPoleND-v0"], {"n": 3}, "with n=3: it has .*n=1; .*n=2"),
        (["CartPoleND-v0"], {"num": 2}, "with num=2"),
        (["CartPoleND-v0", "k_mim"], {"n": 2}, 'it has k512; k_min. Did you mean "k_min"'),
        (["CartPoleND-v0/n=2,k_min"], {"n": 1}, "with n=1"),
        (["ALE/Pong-v5"], {}, "no default datasets; .* encoder3; encoder4"),
    ],
)
def test_find_lists_what_there_is(root: Path, args: list[str], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message) as raised:
        zoo.find(*args, root=root, **kwargs)
    assert "\n" not in str(raised.value)


def test_find_prefers_exact_kwargs(root: Path) -> None:
    zoo.save(dataset("Hopper-v5", "k64", gravity=1.0, shape=[1, 2]), root)
    assert zoo.find("Hopper-v5", root=root).env_kwargs == {}
    assert zoo.find("Hopper-v5", root=root, gravity=1).env_kwargs["gravity"] == 1.0
    assert zoo.find("Hopper-v5", root=root, shape=(1, 2)).env_kwargs["gravity"] == 1.0


def test_empty_zoo(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="CartPoleND-v0: it is empty"):
        zoo.find("CartPoleND-v0", root=tmp_path)


def test_save_replaces_its_own_entry(root: Path) -> None:
    better = dataset("Hopper-v5", "k64").replace(inner_lr=2.0)
    assert zoo.save(better, root) == root / "Hopper-v5" / "k64" / "dataset.safetensors"
    assert zoo.load("Hopper-v5", root=root) == better


def test_save_refuses(root: Path) -> None:
    for variant in ("", "a/b", "a,b", "a=b", "..", "a b"):
        with pytest.raises(ZooError, match="card.variant"):
            zoo.save(dataset("Hopper-v5", variant), root)
    with pytest.raises(ZooError, match="already has the default dataset CartPoleND-v0/n=2,k_min"):
        zoo.save(dataset("CartPoleND-v0", "k512", default=True, n=2), root)
    zoo.save(dataset("Hopper-v5", "k64", terrain="a/b"), root)
    with pytest.raises(ZooError, match="other env_kwargs"):
        zoo.save(dataset("Hopper-v5", "k64", terrain="a,b"), root)


def test_damage_elsewhere_does_no_harm(root: Path) -> None:
    file = zoo.find("Hopper-v5", root=root).path
    file.write_bytes(file.read_bytes()[:50])
    assert zoo.load("ALE/Pong-v5", "encoder4", root=root).k == 2
    for call in (lambda: zoo.load("Hopper-v5", root=root), lambda: zoo.entries(root=root)):
        with pytest.raises(DatasetError, match="Hopper-v5"):
            call()


def test_shipped_zoo_is_readable() -> None:
    for entry in zoo.entries():
        assert zoo.find(entry.name).path == entry.path
        assert entry.load().card.variant == entry.variant


def test_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gym_taskdistill"
    package.mkdir()
    monkeypatch.setattr(_paths.resources, "files", lambda name: package)
    with pytest.raises(TaskDistillError, match='has no "zoo" folder'):
        _paths.data_root("zoo")  # neither installed nor a checkout
    (tmp_path / "pyproject.toml").touch()
    assert _paths.data_root("zoo") == tmp_path / "zoo"
    (package / "_data" / "zoo").mkdir(parents=True)
    assert _paths.data_root("zoo") == package / "_data" / "zoo"
    assert _paths.data_root("agents") == tmp_path / "agents"
