"""Trained learners as SB3 models: they act alike, and they can be fine-tuned, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from gym_taskdistill import DistilledPolicy
from gym_taskdistill.dataset.card import Card
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.spaces import space_to_dict
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.policies.action_distributions import head
from gym_taskdistill.tasks.task import Task


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "learners"),
    [
        (Task("CartPoleND-v0", {"n": 2}), None),
        (Task("CartPoleND-v0", {"n": 2}), {"family": "mlp", "depth": 4, "width": 48}),
        (Task("InvertedPendulum-v4"), None),
        (Task("PongNoFrameskip-v4"), None),
    ],
    ids=str,
)
def test_the_model_acts_as_the_learner(task: Task, learners: dict | None) -> None:
    policy = DistilledPolicy.from_zoo(task.env_id, learners=learners, seed=0, **task.env_kwargs)
    env = task.make_vec_env(2, seed=0)
    model = policy.to_sb3(env, device="cpu")
    obs = env.reset()
    for _ in range(20):
        actions = policy.predict(obs, deterministic=True)[0]
        np.testing.assert_allclose(model.predict(obs, deterministic=True)[0], actions, rtol=1e-4, atol=1e-5)
        obs = env.step(actions)[0]
    if policy.trained.log_std is not None:
        torch.testing.assert_close(model.policy.log_std.detach(), policy.trained.log_std[0])
    env.close()


@pytest.mark.slow
def test_fine_tuning_trains_all_and_survives_a_file(tmp_path: Path) -> None:
    env = gym.make("CartPoleND-v0", n=2)
    policy = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0)
    model = policy.to_sb3(env, n_steps=256, learning_rate=1e-4, device="cpu", seed=0)
    before = {name: p.clone() for name, p in model.policy.named_parameters()}
    model.learn(512)
    changed = {name for name, p in model.policy.named_parameters() if not torch.equal(p, before[name])}
    assert changed == set(before)
    model.save(tmp_path / "tuned.zip")
    loaded = PPO.load(tmp_path / "tuned.zip", device="cpu")
    obs = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    np.testing.assert_array_equal(*(m.predict(obs, deterministic=True)[0] for m in (model, loaded)))
    assert evaluate_policy(loaded, Monitor(env), 5, deterministic=False)[0] > 450


def test_the_policy_alone_survives_a_file(tmp_path: Path) -> None:
    policy = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0)
    env = gym.make("CartPoleND-v0", n=2)
    model = policy.to_sb3(env, n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0)
    model.learn(16)  # so that actor and critic no longer have the same features
    model.policy.save(str(tmp_path / "policy"))
    loaded = type(model.policy).load(str(tmp_path / "policy"))
    obs = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    probabilities = [
        p.get_distribution(torch.as_tensor(obs)).distribution.probs for p in (model.policy, loaded)
    ]
    torch.testing.assert_close(*probabilities, rtol=0, atol=0)


def test_members_of_an_ensemble_are_chosen_by_index() -> None:
    ensemble = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0).ensemble(3)
    model = ensemble.to_sb3(gym.make("CartPoleND-v0", n=2), index=2, device="cpu")
    obs = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = ensemble.to_torch(2)(obs).argmax(1)
    np.testing.assert_array_equal(model.predict(obs.numpy(), deterministic=True)[0], expected.numpy())


def test_a_wrong_env_is_refused() -> None:
    policy = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0)
    with pytest.raises(DatasetError, match=r"n=2.*n=3"):
        policy.to_sb3(gym.make("CartPoleND-v0", n=3), device="cpu")
    with pytest.raises(DatasetError, match=r"\(8,\)"):
        policy.to_sb3(Task("CartPoleND-v0", {"n": 3}).make_vec_env(1), device="cpu")
    hopper = DistilledPolicy.from_zoo("Hopper-v4", seed=0)
    with pytest.raises(DatasetError, match="Hopper-v5"):  # of the same spaces
        hopper.to_sb3(gym.make("Hopper-v5"), device="cpu")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"use_sde": True}, "use_sde=False"),
        ({"policy_kwargs": {"net_arch": [32]}}, "cannot have net_arch"),
        ({"policy_kwargs": {"log_std_init": -2}}, "cannot have log_std_init"),
        ({"policy": "CnnPolicy"}, 'no argument "policy"'),
        ({"learning_rte": 1}, 'Did you mean "learning_rate"'),
    ],
)
def test_arguments_that_the_learner_decides_are_refused(kwargs: dict[str, Any], message: str) -> None:
    policy = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0)
    with pytest.raises(TaskDistillError, match=message):
        policy.to_sb3(gym.make("CartPoleND-v0", n=2), device="cpu", **kwargs)


def test_other_arguments_of_the_policy_reach_sb3() -> None:
    policy, env = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0), gym.make("CartPoleND-v0", n=2)
    policy.to_sb3(env, device="cpu", policy_kwargs=None)
    model = policy.to_sb3(env, device="cpu", policy_kwargs={"optimizer_class": torch.optim.SGD})
    assert isinstance(model.policy.optimizer, torch.optim.SGD)


ACTIONS = {
    "Discrete": (spaces.Discrete(4), 4),
    "MultiDiscrete": (spaces.MultiDiscrete([3, 2]), 5),
    "MultiBinary": (spaces.MultiBinary(3), 3),
    "Box": (spaces.Box(-1, 1, (2,)), 2),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", ACTIONS)
def test_an_ensemble_is_exported_whole(name: str) -> None:
    """Its module's policy is the mean of its members' policies, in the probabilities that it acts by."""
    space, n_outputs = ACTIONS[name]
    ensemble = DistilledPolicy(dataset_for(space, n_outputs), seed=0).ensemble(3)
    obs = 3 * np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    module = ensemble.to_torch()
    with torch.no_grad():
        outputs = module(torch.from_numpy(obs))
        torch.testing.assert_close(torch.jit.script(module)(torch.from_numpy(obs)), outputs)
        members = torch.stack([ensemble.to_torch(i)(torch.from_numpy(obs)) for i in range(3)])
    distribution = head(space)(outputs, None if name != "Box" else torch.zeros(2))
    np.testing.assert_allclose(
        np.clip(distribution.mode().numpy(), space.low, space.high) if name == "Box" else distribution.mode(),
        ensemble.predict(obs, deterministic=True)[0],
        atol=1e-5,
    )
    if name == "MultiBinary":
        torch.testing.assert_close(outputs.sigmoid(), members.sigmoid().mean(0))
    elif name == "MultiDiscrete":
        for part, of_members in zip(outputs.split([3, 2], -1), members.split([3, 2], -1), strict=True):
            torch.testing.assert_close(part.softmax(-1), of_members.softmax(-1).mean(0))
    elif name == "Discrete":
        torch.testing.assert_close(outputs.softmax(-1), members.softmax(-1).mean(0))
    with pytest.raises(TaskDistillError, match=r"ensemble of 3; choose a member.*to_torch"):
        ensemble.to_sb3(Task("CartPole-v1").make_vec_env(1), device="cpu")
    with pytest.raises(IndexError):
        ensemble.to_torch(3)


@pytest.mark.parametrize("name", ACTIONS)
def test_onnx_files_act_alike(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    space, n_outputs = ACTIONS[name]
    ensemble = DistilledPolicy(dataset_for(space, n_outputs), seed=0).ensemble(3)
    obs = 3 * np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    for index in (None, 1):
        path = ensemble.to_onnx(tmp_path / "policy", index)
        assert path.name == "policy.onnx"
        outputs, *log_std = runtime.InferenceSession(path).run(None, {"observation": obs})
        with torch.no_grad():
            expected = ensemble.to_torch(index)(torch.from_numpy(obs))
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    assert len(log_std) == (name == "Box")


def test_what_onnx_does_not_know_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnx")

    def factory(obs_space: spaces.Box, n_outputs: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(6, n_outputs), Odd())

    dataset = dataset_for(*ACTIONS["Discrete"])
    with pytest.raises(TaskDistillError, match="cannot be written as ONNX"):
        DistilledPolicy(dataset, learners=factory, seed=0).to_onnx(tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(TaskDistillError, match="there is no folder"):
        DistilledPolicy(dataset, seed=0).to_onnx(tmp_path / "nowhere" / "policy.onnx")


class Odd(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0 * torch.special.bessel_j0(x)


def dataset_for(space: spaces.Space[Any], n_outputs: int) -> DistilledDataset:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(8, n, generator=generator) for n in (6, n_outputs))
    return DistilledDataset(
        x=x,
        y=3 * y,
        rule=InnerSGD(lr=1.0),
        card=Card(
            env_id="Any-v0",
            observation_space=space_to_dict(spaces.Box(-np.inf, np.inf, (6,))),
            action_space=space_to_dict(space, bounds=True),
            learners={"family": "mlp", "width": 16, "last_gain": 1.0},
        ),
        log_std=torch.zeros(n_outputs) if isinstance(space, spaces.Box) else None,
        obs_mean=torch.ones(6),
        obs_var=torch.full((6,), 4.0),
        clip_obs=10.0,
    )
