"""The zoo: entries are found by what a user would type, and errors list what there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

from gym_taskdistill import DistilledPolicy, zoo
from gym_taskdistill import paths as _paths
from gym_taskdistill.dataset.card import Card
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.lineage import StageRecord
from gym_taskdistill.dataset.score import Score
from gym_taskdistill.errors import DatasetError, TaskDistillError, ZooError
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.paths import critic_path


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
    return DistilledDataset(x=torch.ones(2, 4), y=torch.eye(2), rule=InnerSGD(lr=1.0), card=card)


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
    better = dataset("Hopper-v5", "k64").replace(rule=InnerSGD(lr=2.0))
    assert zoo.save(better, root) == root / "Hopper-v5" / "k64" / "dataset.safetensors"
    assert zoo.load("Hopper-v5", root=root) == better


def test_save_refuses(root: Path) -> None:
    for variant in ("", "a/b", "a,b", "a=b", "..", "a b"):
        with pytest.raises(ZooError, match="card.variant"):
            zoo.save(dataset("Hopper-v5", variant), root)
    before = set(root.rglob("*"))
    for env_id in ("..", ".", "a b", "x:..", "C\\x", "-", "a" * 300):
        for write in (zoo.save, zoo.add):
            with pytest.raises(ZooError, match="cannot be the environment"):
                write(dataset(env_id, "k64"), root=root)
    for key in ("../../x", "a/b", "", "a=b", ".."):
        with pytest.raises(ZooError, match="cannot be an argument"):
            zoo.add(dataset("Hopper-v5", "k64", **{key: 1}), root=root)
    with pytest.raises(ZooError, match="longer than 200"):
        zoo.add(dataset("Hopper-v5", "k64", a="x" * 300), root=root)
    assert set(root.rglob("*")) - {root / ".lock"} == before
    assert not list(root.parent.glob("**/x")) + list(root.parent.glob("k64"))
    assert zoo.entries("..", root=root) == []
    with pytest.raises(ZooError, match="already has the default dataset CartPoleND-v0/n=2,k_min"):
        zoo.save(dataset("CartPoleND-v0", "k512", default=True, n=2), root)
    zoo.save(dataset("Hopper-v5", "k64", terrain="a/b"), root)
    with pytest.raises(ZooError, match="other env_kwargs"):
        zoo.save(dataset("Hopper-v5", "k64", terrain="a,b"), root)


def test_damage_elsewhere_does_no_harm(root: Path) -> None:
    file = zoo.find("Hopper-v5", root=root).path
    file.write_bytes(file.read_bytes()[:50])
    assert zoo.load("ALE/Pong-v5", "encoder4", root=root).k == 2
    with pytest.raises(DatasetError, match="Hopper-v5"):
        zoo.load("Hopper-v5", root=root)
    with pytest.warns(zoo.ZooWarning, match="is left out: .*Hopper-v5"):
        assert len(zoo.entries(root=root)) == 6
    file = zoo.find("ALE/Pong-v5", "encoder3", root=root).path
    file.write_bytes(b"")
    with pytest.warns(zoo.ZooWarning, match="encoder3"):
        assert zoo.find("ALE/Pong-v5", "encoder4", root=root).variant == "encoder4"
    with pytest.warns(zoo.ZooWarning, match="encoder3"):
        zoo.add(dataset("ALE/Pong-v5", "encoder3"), root=root)
    assert zoo.load("ALE/Pong-v5", "encoder3", root=root).k == 2


def selected(
    mean: float | None, variant: str = "one-step", rows: float = 1.0, **card: Any
) -> DistilledDataset:
    """A dataset with a lineage, selected with a mean; the better it is tested, the worse it was selected."""
    made = dataset("Hopper-v5", variant)
    fields: dict[str, Any] = {"learners": "alpha_c", "deterministic": False, "n_agents": 2, "n_episodes": 1}
    score = Score(**fields, seed=1, env_id="Hopper-v5", mean=mean or 0.0, std=1.0, min=0.0)
    stage = StageRecord(kind="ppmo", settings={}, task="Hopper-v5", seed=0, output="0" * 64)
    made = made.replace(x=torch.full((2, 4), rows))
    changes = {"lineage": [stage], "selection": None if mean is None else score}
    return made.replace(card=made.card.replace(**changes, scores=[score.replace(mean=-(mean or 0))], **card))


def test_selection_decides_and_the_test_does_not(tmp_path: Path) -> None:
    def kept() -> float:
        return float(zoo.load("Hopper-v5", "one-step", root=tmp_path).x[0, 0])

    zoo.add(dataset("Hopper-v5", "one-step"), b"legacy critic", root=tmp_path)
    critic = critic_path(zoo.find("Hopper-v5", root=tmp_path).path)
    assert critic.read_bytes() == b"legacy critic"
    zoo.add(selected(2.0, rows=2.0), root=tmp_path)  # a legacy one gives way
    assert kept() == 2.0 and not critic.exists()
    for worse in (selected(1.0, rows=3.0), selected(2.0, rows=3.0), selected(None, rows=3.0)):
        with pytest.raises(ZooError, match="--force"):
            zoo.add(worse, b"of the worse", root=tmp_path)
        assert kept() == 2.0 and not critic.exists()
    with pytest.raises(ZooError, match="--force"):
        zoo.add(dataset("Hopper-v5", "one-step"), root=tmp_path)
    zoo.add(selected(5.0, rows=5.0), b"of the better", root=tmp_path)
    assert kept() == 5.0 and critic.read_bytes() == b"of the better"
    zoo.add(selected(5.0, rows=5.0, notes="said again"), root=tmp_path)  # the same rows
    assert zoo.find("Hopper-v5", root=tmp_path).card.notes == "said again"
    zoo.add(selected(1.0, rows=1.0), root=tmp_path, force=True)
    assert kept() == 1.0 and not critic.exists()


def test_a_task_has_one_default(tmp_path: Path) -> None:
    def defaults() -> list[str]:
        return [entry.variant for entry in zoo.entries(root=tmp_path) if entry.default]

    zoo.add(dataset("Hopper-v5", "base"), root=tmp_path)
    assert defaults() == ["base"]  # the first to come
    zoo.add(selected(1.0, "few-steps"), root=tmp_path)
    assert defaults() == ["base"]
    zoo.add(selected(1.0, "one-step", default=True), root=tmp_path)
    assert defaults() == ["one-step"]  # from a legacy one
    with pytest.raises(ZooError, match="already has the default dataset Hopper-v5/one-step"):
        zoo.add(selected(9.0, "few-steps", default=True), b"critic", root=tmp_path)
    assert defaults() == ["one-step"] and zoo.find("Hopper-v5", "few-steps", root=tmp_path).card.selection
    zoo.add(selected(9.0, "few-steps", default=True), root=tmp_path, force=True)
    assert defaults() == ["few-steps"]


def test_wrapped_environments_have_entries_of_their_own(tmp_path: Path) -> None:
    def add(name: str, returns: float, **kwargs: Any) -> Path:
        wrapper = {"entry_point": f"gymnasium.wrappers:{name}", "kwargs": kwargs}
        data = selected(returns, "one-step")
        return zoo.add(data.replace(card=data.card.replace(wrappers=(wrapper,))), root=tmp_path)

    flat = add("FlattenObservation", 1.0)
    assert flat.parent.name == "+FlattenObservation,one-step"
    assert zoo.find("Hopper-v5", root=tmp_path).path == flat
    bare = zoo.add(selected(2.0, "one-step"), root=tmp_path)  # which takes no other's place
    rescaled = add("RescaleAction", 3.0, min_action=-1)
    assert zoo.find("Hopper-v5", root=tmp_path).path == bare
    assert zoo.find("Hopper-v5/+RescaleAction,one-step", root=tmp_path).path == rescaled
    assert [entry.default for entry in zoo.entries(root=tmp_path)] == [True] * 3
    with pytest.raises(ZooError, match="the same wrappers with other arguments"):
        add("RescaleAction", 9.0, min_action=-2)
    bare.unlink()
    with pytest.raises(
        ZooError, match=r'say which of "Hopper-v5" \+FlattenObservation; "Hopper-v5" \+Rescale'
    ):
        zoo.find("Hopper-v5", root=tmp_path)


def test_the_users_own_zoo_comes_first(tmp_path: Path) -> None:
    shipped = zoo.find("CartPoleND-v0", n=2)
    assert shipped.root == _paths.data_root("zoo")
    changed = shipped.load()
    path = zoo.add(changed.replace(y=-changed.y))
    assert path == tmp_path / "own-zoo" / "CartPoleND-v0" / "n=2,k_min" / "dataset.safetensors"
    assert zoo.find("CartPoleND-v0", n=2).path == zoo.find("CartPoleND-v0/n=2,k_min").path == path
    names = [entry.name for entry in zoo.entries("CartPoleND-v0")]
    assert names.count("CartPoleND-v0/n=2,k_min") == 1
    zoo.save(changed.replace(card=changed.card.replace(variant="mine", default=False)))
    assert zoo.find("CartPoleND-v0", n=2).variant == "k_min"


def test_resolve(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKDISTILL_ZOO", str(root))
    run = tmp_path / "work" / "run"
    run.mkdir(parents=True)
    monkeypatch.chdir(run.parent)
    monkeypatch.setattr(zoo, "data_root", lambda name: tmp_path / "none")
    data = dataset("Hopper-v5", "k64")
    entry = zoo.find("Hopper-v5/k64").path
    best = data.save(run / "best")
    assert zoo.resolve("run") == Path("run/best.safetensors")
    whole = data.save(run / "dataset")
    assert zoo.resolve(str(run)) == whole != best
    assert zoo.resolve("Hopper-v5") == zoo.resolve("Hopper-v5", "k64") == entry
    assert zoo.resolve("CartPoleND-v0", n=10).parent.name == "n=10,k_min"
    data.save("cartpole")
    assert zoo.resolve("cartpole") == zoo.resolve("cartpole.safetensors") == Path("cartpole.safetensors")
    Path("Hopper-v5").mkdir()  # a folder of this name that holds no dataset is not meant
    assert zoo.resolve("Hopper-v5") == entry
    Path("empty").mkdir()
    for name, error, message in (
        ("empty", DatasetError, "folder without a dataset"),
        ("none.safetensors", DatasetError, "no dataset file none.safetensors"),
        ("Hoper-v5", ZooError, 'Did you mean "Hopper-v5"'),
    ):
        with pytest.raises(error, match=message):
            zoo.resolve(name)


def test_gymnasiums_cart_pole_is_the_one_with_one_pole() -> None:
    policy = DistilledPolicy.from_zoo("CartPole-v1", seed=0)
    assert policy.dataset == zoo.load("CartPoleND-v0", n=1)
    assert zoo.find("CartPole-v1", "k512").env_kwargs == {"n": 1}
    for env in (gym.make("CartPole-v1"), gym.make_vec("CartPole-v1", 2)):
        policy.dataset.check_env(env)
    with pytest.raises(DatasetError, match="the environment is CartPole-v1"):
        policy.dataset.check_env(gym.make("CartPole-v1", sutton_barto_reward=True))
    with pytest.raises(DatasetError, match="made with n=1"):
        zoo.load("CartPoleND-v0", n=2).check_env(gym.make("CartPole-v1"))
    with pytest.raises(ZooError, match="no dataset for CartPole-v1"):
        zoo.find("CartPole-v1", sutton_barto_reward=True)
    # Datasets that were distilled under that name come first.
    zoo.save(dataset("CartPole-v1", "own"))
    assert zoo.find("CartPole-v1").variant == "own"


ADDS = """
import sys
from pathlib import Path
from gym_taskdistill import zoo
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import ZooError
jobs = [(DistilledDataset.load(file), Path(file).stem.encode()) for file in sys.argv[2:]]
print("ready", flush=True)
for i, (data, critic) in enumerate(jobs):
    sys.stdin.readline()
    try:
        zoo.add(data, critic, root=Path(sys.argv[1], str(i)))
        print("added", flush=True)
    except ZooError:
        print("refused", flush=True)
"""


@pytest.mark.parametrize("n_pairs", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_pairs_of_processes_that_add_at_once(n_pairs: int, tmp_path: Path) -> None:
    files: tuple[list[str], list[str]] = ([], [])
    for i in range(n_pairs):
        rivals = (
            selected(1.0 + i % 2, rows=1.0, default=True),
            selected(2.0 - i % 2, rows=2.0, default=True),
        )
        if i % 3 == 2:  # two variants, each of which would be the default one
            rivals = (rivals[0], selected(1.0, "few-steps", rows=2.0, default=True))
        for j, rival in enumerate(rivals):
            files[j].append(str(rival.save(tmp_path / f"{i}-{j}")))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ADDS, tmp_path / "zoos", *mine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for mine in files
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for i in range(n_pairs):
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.stdout.readline().strip() for process in processes if process.stdout]
        entries = zoo.entries(root=tmp_path / "zoos" / str(i))
        assert sum(entry.default for entry in entries) == len(entries) == 1
        data, critic = entries[0].load(), critic_path(entries[0].path).read_bytes().decode()
        winner = int(data.x[0, 0]) - 1
        assert critic == f"{i}-{winner}" and answers[winner] == "added"
        if i % 3 == 2:
            assert answers[1 - winner] == "refused"
        else:
            assert winner == 1 - i % 2
    for process in processes:
        process.communicate()
        assert process.returncode == 0


@pytest.mark.slow
def test_shipped_zoo_is_readable() -> None:
    for entry in zoo.entries():
        assert zoo.find(entry.name).path == entry.path
        assert entry.load().card.variant == entry.variant


def test_only_a_checkout_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _paths.checkout_root("zoo") == _paths.data_root("zoo")
    package = tmp_path / "gym_taskdistill"
    (package / "_data" / "zoo").mkdir(parents=True)
    monkeypatch.setattr(_paths.resources, "files", lambda name: package)
    with pytest.raises(TaskDistillError, match="no source checkout"):
        _paths.checkout_root("zoo")


def test_the_users_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKDISTILL_ZOO", "/some/where")
    assert _paths.user_zoo() == Path("/some/where")
    monkeypatch.delenv("TASKDISTILL_ZOO")
    assert _paths.user_zoo().parts[-2:] == ("gym-taskdistill", "zoo")


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
