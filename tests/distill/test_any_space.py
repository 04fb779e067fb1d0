"""PPMO in environments of any spaces: distilled, tested, exported, and acted in by raw observations."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from random_env import EPISODE, Negated, RandomEnv, Scaled
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecFrameStack,
    VecTransposeImage,
)

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.experts import as_expert, record
from gym_taskdistill.distill.imitation import Imitation
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.learners import MLP
from gym_taskdistill.policies import evaluation
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.tasks import as_task

DICT = spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Box(-1, 1, (2, 2))})
NESTED = spaces.Dict(
    {"n": spaces.Dict({"x": spaces.MultiBinary(2)}), "t": spaces.Tuple((spaces.Discrete(2),))}
)
OBSERVATIONS = {
    "Discrete": spaces.Discrete(4, start=1),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2]),
    "number": spaces.Box(-1, 1, ()),
    "matrix": spaces.Box(-1, 1, (5, 5)),
    "Dict": DICT,
    "nested": NESTED,
    "image": spaces.Box(0, 255, (7, 8, 3), np.uint8),
    "Dict with an image": spaces.Dict(
        {"i": spaces.Box(0, 255, (8, 9, 3), np.uint8), "v": spaces.Box(-1, 1, (2,))}
    ),
}
ACTIONS = {
    "Discrete from -1": spaces.Discrete(3, start=-1),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2]),
    "MultiBinary": spaces.MultiBinary((2, 2)),
    "float64": spaces.Box(-0.1, 0.1, (2,), np.float64),
    "matrix": spaces.Box(-1, 1, (2, 3)),
}
CASES = [
    *((name, obs, spaces.Discrete(3)) for name, obs in OBSERVATIONS.items()),
    *((name, DICT, action) for name, action in ACTIONS.items()),
]


def distil(env: Any, **settings: Any) -> PPMO:
    small = {
        "k": 3,
        "n_learners": 2,
        "n_steps": 8,
        "batch_size": 16,
        "n_epochs": 1,
        "seed": 0,
        "device": "cpu",
    }
    return PPMO(MLP(width=8), env, **{**small, **settings}).learn(32)


@pytest.mark.parametrize(("obs", "action"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("given", ["function", "vec-env"])
def test_any_space_is_distilled_and_acted_in(given: str, obs: gym.Space, action: gym.Space) -> None:
    def make() -> gym.Env:
        return RandomEnv(obs, action)

    if given == "vec-env" and obs is NESTED:
        pytest.skip("SB3's vec-envs know no nested dictionaries")
    model = distil(make if given == "function" else make_vec_env(make, 4))
    dataset = DistilledDataset.load(model.dataset().save("any"))
    assert evaluate(dataset, 2, 2, env=make).lengths.tolist() == [[EPISODE] * 2] * 2
    policy, env = DistilledPolicy(dataset, seed=0), make()
    first, _ = env.reset(seed=0)
    for actor in (policy, model):
        chosen, _ = actor.predict(first)
        assert env.action_space.contains(chosen)
    many = [env.observation_space.sample() for _ in range(4)]
    batch, _ = policy.predict(many, deterministic=True)
    singles = [policy.predict(one, deterministic=True)[0] for one in many]
    np.testing.assert_allclose(batch, np.stack(singles), atol=1e-6)
    with pytest.raises(DatasetError, match="shape|not of"):
        policy.predict(np.zeros((2, 3, 4, 5)))
    with pytest.raises(TaskDistillError, match="cannot be made by its name, for it is not registered"):
        evaluate(dataset, 1, 1)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", ["MultiDiscrete", "matrix", "Dict", "image", "Dict with an image"])
def test_exports_take_raw_observations(name: str) -> None:
    def make() -> gym.Env:
        return RandomEnv(OBSERVATIONS[name], spaces.MultiDiscrete([3, 2]))

    policy = DistilledPolicy(distil(make).dataset(), seed=0)
    env = make()
    env.reset(seed=0)
    observations = [env.observation_space.sample() for _ in range(5)]
    model = policy.to_sb3(make_vec_env(make, 1), device="cpu", n_steps=8, batch_size=8)
    expected = policy.predict(observations, deterministic=True)[0]
    for one, actions in zip(observations, expected, strict=True):
        np.testing.assert_array_equal(model.predict(one, deterministic=True)[0], actions)
    model.learn(8)
    if isinstance(env.observation_space, spaces.Box):
        network = torch.jit.script(policy.to_torch())
        outputs = network(torch.as_tensor(np.stack(observations)).float()).split([3, 2], dim=1)
        np.testing.assert_array_equal(torch.stack([o.argmax(1) for o in outputs], 1).numpy(), expected)


@pytest.mark.parametrize("name", ["Dict with an image", "image"])
def test_exports_see_images_as_wrappers_show_them(name: str) -> None:
    """Frames that are stacked, and images that SB3 is told not to transpose."""
    venv = make_vec_env(lambda: RandomEnv(OBSERVATIONS[name]), 1)
    wrapped = VecTransposeImage(venv, skip=True) if name == "image" else VecFrameStack(venv, 2)
    policy = DistilledPolicy(distil(wrapped, n_learners=1, batch_size=8).dataset(), seed=0)
    model = policy.to_sb3(wrapped, device="cpu", n_steps=8, batch_size=8)
    obs = wrapped.reset()
    for _ in range(3):
        chosen = policy.predict(obs, deterministic=True)[0]
        np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], chosen)
        if isinstance(obs, np.ndarray):  # SB3 transposes a dictionary's image by itself in `predict` alone
            seen = model.policy.obs_to_tensor(obs)[0]
            ours, theirs = policy.distribution(obs), model.policy.get_distribution(seen)
            action = torch.zeros(1, dtype=torch.int64)
            torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action).detach())
        obs = wrapped.step(chosen)[0]


def test_what_sb3_has_no_policy_for_is_exported_to_flat_envs() -> None:
    def make() -> gym.Env:
        return RandomEnv(NESTED, spaces.Discrete(3, start=2))

    policy = DistilledPolicy(distil(make).dataset(), seed=0)
    with pytest.raises(TaskDistillError, match="give it flat ones"):
        policy.to_sb3(make(), device="cpu")
    vec_env = as_task(make).make_vec_env(2)
    model = policy.to_sb3(vec_env, device="cpu", n_steps=8, batch_size=8)
    obs = vec_env.reset()
    np.testing.assert_array_equal(
        model.predict(obs, deterministic=True)[0] + 2, policy.predict(obs, deterministic=True)[0]
    )
    model.learn(16)


@pytest.mark.parametrize("action", [*list(ACTIONS.values())[:3]], ids=str)
def test_imitation_takes_any_space(action: gym.Space) -> None:
    """Learners come to do what an expert, here a trained learner of another seed, does."""

    def make() -> gym.Env:
        return RandomEnv(DICT, action)

    task = as_task(make)
    expert = DistilledPolicy(distil(make).dataset(), seed=1)
    env = task.make_vec_env(4)
    recording = record(as_expert(expert), env, 60, noise=0.5)
    model = Imitation(task, MLP(width=16), k=8, n_learners=2, inner={"lr": 1.0}, seed=0, device="cpu")
    first = model.update(recording, 1, 32)
    assert model.update(recording, 40, 32) < first
    record(as_expert(expert), env, 16, behaviour=model)
    assert evaluate(model.dataset(), 1, 1, env=make).lengths[0, 0] == EPISODE
    sb3 = expert.to_sb3(env, device="cpu", n_steps=8, batch_size=8)
    np.testing.assert_allclose(  # up to constants that no softmax sees
        *(np.diff(as_expert(one)(recording.observations[:9])[:, :2]) for one in (expert, sb3)), atol=1e-3
    )


@pytest.mark.parametrize(
    ("obs", "action", "message"),
    [
        (spaces.Text(4), spaces.Discrete(2), "Observations of the space Text"),
        (DICT, spaces.Box(-np.inf, np.inf, (2,)), "have no bounds"),
        (DICT, spaces.Tuple((spaces.Discrete(2),)), "Actions of the space"),
    ],
)
def test_what_cannot_be_distilled_is_refused_at_once(obs: gym.Space, action: gym.Space, message: str) -> None:
    def make() -> gym.Env:
        return RandomEnv(obs, action)

    with pytest.raises(TaskDistillError, match=message):
        distil(make)
    with pytest.raises(TaskDistillError, match=message):
        distil(make())


# -- the environment is remembered ---------------------------------------------------------------


def test_wrappers_and_time_limits_are_tested_with() -> None:
    def make() -> gym.Env:
        return Scaled(gym.make("CartPole-v1", max_episode_steps=5), factor=-2.0)

    model = distil(make_vec_env(make, 4))
    dataset = DistilledDataset.load(model.dataset().save("wrapped"))
    result = evaluate(dataset, 2, 2)
    assert (result.lengths == 5).all()
    env = dataset.task.make_env()
    np.testing.assert_allclose(env.reset(seed=0)[0], make().reset(seed=0)[0])


@pytest.mark.parametrize(
    "make_envs",
    [
        lambda make: make_vec_env(make, 4),
        lambda make: SubprocVecEnv([make] * 2, start_method="fork"),
        lambda make: make,
    ],
    ids=["DummyVecEnv", "SubprocVecEnv", "function"],
)
def test_nothing_learned_hangs_on_what_the_env_is_called(make_envs: Any) -> None:
    def make() -> gym.Env:
        return gym.wrappers.TransformReward(
            Negated(gym.make("CartPole-v1")), lambda reward: 2 * float(reward)
        )

    env = make_envs(make)
    dataset = distil(env).dataset()
    assert dataset.card.env_id == "CartPole-v1" and dataset.card.unrecorded
    with pytest.raises(TaskDistillError, match="give the environment as a function"):
        evaluate(dataset, 1, 1)
    result = evaluate(dataset, 1, 1, env=make)
    assert result.returns[0, 0] == 2 * result.lengths[0, 0]
    if isinstance(env, VecEnv):
        env.close()


@pytest.mark.parametrize("error", [NotImplementedError, AttributeError, BrokenPipeError])
def test_a_vec_env_that_tells_nothing_is_learned_in(error: type[Exception]) -> None:
    class Silent(DummyVecEnv):
        def get_attr(self, *args: Any, **kwargs: Any) -> Any:
            if args[0] != "render_mode":  # which SB3 asks for
                raise error
            return super().get_attr(*args, **kwargs)

        env_method = has_attr = get_attr

    model = distil(Silent([lambda: RandomEnv()] * 2), n_learners=1, batch_size=8)
    dataset = DistilledDataset.load(model.dataset().save("silent"))
    assert "does not tell its registration" in dataset.card.unrecorded
    assert evaluate(dataset, 1, 1, env=RandomEnv).lengths.tolist() == [[EPISODE]]


def test_an_env_without_an_end_is_cut_off_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "STEP_CAP", 50)

    def make() -> gym.Env:
        return RandomEnv(never_ends=True)

    dataset = distil(make).dataset()
    with pytest.warns(UserWarning, match="did not end and were cut off after"):
        result = evaluate(dataset, 1, 1, env=make)
    assert result.lengths.tolist() == [[50]]


@pytest.mark.parametrize("own_limit", [True, False], ids=["TimeLimit", "of the env's own"])
def test_an_episode_that_ends_just_then_is_not_cut_off(
    own_limit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "STEP_CAP", EPISODE)

    def make() -> gym.Env:
        env = RandomEnv(never_ends=own_limit)
        return gym.wrappers.TimeLimit(env, EPISODE) if own_limit else env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate(distil(make).dataset(), 1, 2, env=make)
    assert (result.lengths == EPISODE).all()


# -- rollouts tolerate what SB3's do, and refuse what teaches nothing ----------------------------


class Learning(RandomEnv):
    """Trains a network of its own in each step."""

    def step(self, action: Any) -> Any:
        weight = torch.nn.Parameter(torch.ones(1))
        (weight * 2.0).sum().backward()
        assert weight.grad == 2
        return super().step(action)


class LearningCallback(BaseCallback):
    def _on_step(self) -> bool:
        weight = torch.nn.Parameter(torch.ones(1))
        (weight * 2.0).sum().backward()
        return True


def test_envs_and_callbacks_may_learn_themselves() -> None:
    model = distil(Learning)
    model.learn(32, LearningCallback())
    evaluate(model.dataset(), 1, 1, env=Learning)


def test_a_truncation_without_its_last_observation_is_no_error() -> None:
    env = make_vec_env(RandomEnv, 4)
    step = env.step_wait

    def forget() -> Any:
        obs, rewards, dones, infos = step()
        for info in infos:
            info.pop("terminal_observation", None)
        return obs, rewards, dones, infos

    env.step_wait = forget  # type: ignore[method-assign]
    assert distil(env).num_timesteps == 32


class Broken(RandomEnv):
    """Shows or pays NaN in the third step."""

    def __init__(self, reward: bool) -> None:
        super().__init__()
        self.reward = reward

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        if self._steps == 3:
            reward, obs = (np.nan, obs) if self.reward else (reward, np.full(2, np.nan, np.float32))
        return obs, reward, *rest


@pytest.mark.parametrize(("reward", "name"), [(True, "rewards"), (False, "observations")])
def test_nan_is_named_at_once(reward: bool, name: str) -> None:
    def make() -> gym.Env:
        return Broken(reward)

    with pytest.raises(TaskDistillError, match=f"The {name} of column 0 at step 6 hold nan"):
        distil(make)
    with pytest.raises(TaskDistillError, match=f"The {name} of column 0 at step 3 hold nan"):
        evaluate(distil(RandomEnv).dataset(), 1, 1, env=make)
    with pytest.raises(DatasetError, match="Observation 1 of 2 is not finite"):
        DistilledPolicy(distil(RandomEnv).dataset()).predict(np.array([[0, 0], [0, np.nan]]))


def test_a_default_type_of_double_precision_changes_nothing() -> None:
    def digest() -> tuple[str, Any]:
        dataset = distil(RandomEnv).dataset()
        policy = DistilledPolicy(dataset, seed=np.int64(0))  # type: ignore[arg-type]
        outputs = policy.to_torch()(torch.zeros(1, 2, dtype=torch.float32)).tolist()
        score = evaluate(dataset, np.int64(2), np.int64(1), seed=np.int32(3), env=RandomEnv).mean  # type: ignore[arg-type]
        return dataset.digest, (outputs, score, policy.predict(np.zeros((3, 2))[::-1])[0].tolist())

    expected = digest()
    torch.set_default_dtype(torch.float64)
    try:
        assert digest() == expected
    finally:
        torch.set_default_dtype(torch.float32)
