"""Files whose checksum is right and whose content is hostile end in one short sentence, at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch

from gym_taskdistill import zoo
from gym_taskdistill.dataset import file
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.files import canonical
from gym_taskdistill.learners import MLP, Mixture, learner_distribution
from gym_taskdistill.policies import evaluation
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.tasks.task import Task
from gym_taskdistill.uses.rows import plot_rows

Edit = Callable[[dict[str, Any]], object]


def resealed(path: Path, edit: Edit, env_id: str = "CartPoleND-v0") -> Path:
    """Write an entry of the zoo with other content, and the checksum of that."""
    source = zoo.resolve(env_id, **({"n": 2, "variant": "k_min"} if env_id == "CartPoleND-v0" else {}))
    document, tensors = copy.deepcopy(file.read_file(source))
    edit(document)
    sealed = {"sha256": file.checksum(tensors, document), **document}
    path.write_bytes(safetensors.torch.save(tensors, {file.FORMAT: canonical(sealed)}))
    return path


def learners(**spec: Any) -> Edit:
    return lambda document: document["card"].update(learners=spec)


def actions(**changes: Any) -> Edit:
    return lambda document: document["card"]["action_space"].update(changes)


def rule(**changes: Any) -> Edit:
    return lambda document: document["rule"].update(changes)


MEMBER = {"family": "mlp"}


@pytest.mark.parametrize(
    "edit",
    [
        rule(steps=10**9),
        rule(lr=10**400),
        learners(family="mlp", width=10**9),
        learners(family="mlp", width=[1, 10**8]),
        learners(family="mlp", depth=10**9),
        learners(family="mlp", depth="2"),
        learners(family="mlp", gain="1e400"),
        learners(family="mlp", gain=1e300),
        learners(family="mlp", gain=[]),
        learners(family="mlp", per_batch=1e300),
        lambda document: document.update(rule={}),
        lambda document: document.update(rule={"kind": "ridge"}),
        learners(family="cnn", channels=[10**9], kernel_sizes=[3], strides=[1]),
        learners(family="mixture", members=[MEMBER], weights=[10**9]),
        learners(family="mixture", members=[MEMBER] * 2, weights=[9_999, 2]),
        learners(family="mixture", members=[MEMBER] * 2000),
        learners(family="mixture", members=[{"family": "mixture", "members": [{**MEMBER, "width": 2**40}]}]),
        actions(low=[1.0, 2.0, 3.0]),
        actions(low=["a"]),
        actions(low=[3.0], high=[-3.0]),
        actions(high=[10**400]),
        actions(dtype="(2,"),
        lambda document: document["card"].update(notes="x" * 2**21),
    ],
)
def test_they_are_refused_when_they_are_read(edit: Edit, tmp_path: Path) -> None:
    env_id = "InvertedPendulum-v4" if edit.__qualname__.startswith("actions") else "CartPoleND-v0"
    path = resealed(tmp_path / "x.safetensors", edit, env_id)
    with pytest.raises(DatasetError) as raised:
        DistilledDataset.load(path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.parametrize("bounds", [{"low": None, "high": None}, {"low": [None], "high": [None]}, None])
def test_a_box_without_bounds_is_unbounded(bounds: dict[str, Any] | None, tmp_path: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        space = document["card"]["action_space"]
        del space["low"], space["high"]
        space.update(bounds or {})

    path = resealed(tmp_path / "x.safetensors", edit, "InvertedPendulum-v4")
    policy = DistilledPolicy.from_file(path, seed=0)
    action, _ = policy.predict(np.full(4, 1e3, np.float32), deterministic=True)
    assert np.isfinite(action).all()


def test_giants_are_refused_before_they_are_drawn(tmp_path: Path) -> None:
    wide = {"family": "mlp", "width": 2**16}
    path = resealed(tmp_path / "x.safetensors", learners(**wide))
    for spec in (wide, {"family": "mixture", "members": [MEMBER, wide]}, {**wide, "width": [1, 2**16]}):
        with pytest.raises(TaskDistillError, match="parameters"):
            DistilledPolicy(DistilledDataset.load(path), spec)


def test_unknown_families_are_named_shortly() -> None:
    for family in ("x" * 10_000, ["x"], {"a": 1}):
        with pytest.raises(TaskDistillError, match="unknown") as raised:
            learner_distribution({"family": family})
        assert len(str(raised.value)) < 300


def test_parameters_are_counted() -> None:
    shape = (8,)
    small = 8 * 64 + 64 + 64 * 64 + 64 + 64 * 4 + 4
    assert MLP().max_parameters(shape, 4) == small
    assert MLP(width=(1, 64), depth=(0, 2)).max_parameters(shape, 4) == small
    assert Mixture((MLP(), MLP(width=8))).max_parameters(shape, 4) == small
    fresh = MLP().sample(3, shape, 4, torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in fresh.params) == 3 * small


def test_wide_agents_are_tested_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = zoo.load("CartPoleND-v0", "k_min", n=2)
    sizes: list[int] = []
    train = evaluation.train_fresh_learners

    def spy(dataset: Any, n: int, *args: Any) -> Any:
        sizes.append(n)
        return train(dataset, n, *args)

    monkeypatch.setattr(evaluation, "train_fresh_learners", spy)
    monkeypatch.setattr(evaluation, "MAX_BYTES", 4 * 3 * (MLP().max_parameters((8,), 4) + 1))
    result = evaluate(dataset, 8, 1)
    assert sizes == [3, 3, 2] and result.returns.shape == (8, 1)


def test_messages_are_short_and_safe_to_print() -> None:
    message = str(DatasetError("begin \x1b[31m" + "x" * 300_000 + " end"))
    assert len(message) < 1000 and message.isprintable()
    assert message.startswith("begin \\x1b[31m") and message.endswith(" end")


def test_dollars_in_a_card_are_drawn_as_they_are(tmp_path: Path) -> None:
    dataset = zoo.load("CartPoleND-v0", "k_min", n=2)
    card = dataset.card.replace(env_id="Acrobot-v1", env_kwargs={"a": "$x_{", "b": "$"})
    plot_rows(dataset.replace(card=card), tmp_path / "rows.svg")
    assert (tmp_path / "rows.svg").is_file()


#: Numbers that a file may not hold: the tensor or the setting, the number, and what the message names.
NUMBERS: list[tuple[str, float, str]] = [
    ("x", 1e30, "x holds 1e.30"),
    ("y", -1e30, "y holds -1e.30"),
    ("y", np.nan, "y holds NaN"),
    ("obs_mean", 1e30, "obs_mean holds"),
    ("obs_var", 1e37, "obs_var holds"),
    ("obs_var", -1.0, "obs_var has negative"),
    ("obs_scale", 1e30, "obs_scale holds"),
    ("obs_scale", 1e-30, "obs_scale has values that are not above 0"),
    ("log_std", 1e6, "log standard deviation of .* from -60 to 60"),
    ("rule.lr", 1e300, "lr must be a number from"),
    ("rule.lr", 1e-300, "lr must be a number from"),
    ("rule.lr", -1.0, "lr must be a number from"),
    ("rule.lr_hidden", 1e300, "lr_hidden must be a number at least 0 and at most"),
    ("rule.momentum", 1.5, r"momentum must be a number in \[0, 1\)"),
    ("rule.lr_decay", 1e300, r"lr_decay must be a number in \(0, 1\]"),
    ("clip_obs", 1e-300, "clip_obs is 1e-300, but must be positive"),
    ("clip_obs", 1e300, r"clip_obs is 1e\+300, but must be below"),
]


@pytest.mark.parametrize(("name", "value", "message"), NUMBERS)
def test_numbers_that_leave_no_learner_finite_are_refused(
    name: str, value: float, message: str, tmp_path: Path
) -> None:
    document, tensors = copy.deepcopy(file.read_file(zoo.resolve("Hopper-v4", "one-step")))
    tensors.setdefault("obs_scale", torch.ones(11))
    document["tensors"] = {key: list(t.shape) for key, t in sorted(tensors.items())}
    if name in tensors:
        tensors[name].view(-1)[0] = value
    elif name.startswith("rule."):
        document["rule"][name[5:]] = value
    else:
        document[name] = value
    path = tmp_path / "x.safetensors"
    sealed = {"sha256": file.checksum(tensors, document), **document}
    path.write_bytes(safetensors.torch.save(tensors, {file.FORMAT: canonical(sealed)}))
    with pytest.raises(DatasetError, match=message) as raised:
        DistilledDataset.load(path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"family": "mlp", "activation": "relu", "gain": 1e6, "depth": 8},
        {"family": "mlp", "gain": 1e6, "last_gain": 1e6, "depth": 8, "activation": "relu", "width": [8, 16]},
    ],
)
def test_learners_that_do_not_stay_finite_never_act(spec: dict[str, Any]) -> None:
    dataset = zoo.load("CartPoleND-v0", "k_min", n=2)
    with pytest.raises(DatasetError, match="came out with numbers that are not finite"):
        DistilledPolicy(dataset, spec, seed=0)
    with pytest.raises(DatasetError, match="came out with numbers that are not finite"):
        evaluate(dataset, 2, 1, learners=spec)


def test_a_network_of_ones_own_stays_as_it_was_where_training_fails() -> None:
    dataset = zoo.load("CartPoleND-v0", "k_min", n=2).replace(rule={"lr": 1e12, "steps": 9})
    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(DatasetError, match="not finite"):
        dataset.train(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network[0].weight.data[0, 0] = torch.inf
    with pytest.raises(TaskDistillError, match="not finite|other outputs each time"):
        DistilledPolicy(dataset, network=network)


@pytest.mark.parametrize("n", [1001, 10**9, 10**30])
def test_envs_that_no_machine_holds_are_refused(n: int) -> None:
    task = Task("CartPoleND-v0", {"n": n})
    for make in (task.make_env, lambda: task.make_vec_env(1), lambda: task.observation_space):
        with pytest.raises(TaskDistillError, match="must be at most 1000"):
            make()
    with pytest.raises(TaskDistillError, match="too large for this machine"):
        Task("CartPoleND-v0", {"n": 1000}).make_vec_env(10**12)


def test_an_env_that_asks_for_too_much_memory_is_one_sentence() -> None:
    gym.register("Greedy-v0", entry_point=Greedy)
    with pytest.raises(TaskDistillError, match=r"Greedy-v0 size=\d+ is too large for this machine"):
        Task("Greedy-v0", {"size": 10**16}).make_env()
    del gym.registry["Greedy-v0"]


class Greedy(gym.Env[Any, Any]):
    def __init__(self, size: int) -> None:
        self.observation_space = gym.spaces.Box(-1, 1, (size,))
