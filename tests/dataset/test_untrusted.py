"""Files whose checksum is right and whose content is hostile end in one short sentence, at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
