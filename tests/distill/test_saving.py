"""PPMO by the habits of SB3: files, callbacks, envs and numbers as SB3's algorithms take them."""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import MLP

SMALL: dict[str, Any] = {"n_steps": 16, "seed": 0, "device": "cpu"}


def small(env: Any = None, **settings: Any) -> PPMO:
    env = gym.make("CartPole-v1") if env is None else env
    return PPMO("alpha_c", env, **{"k": 3, **SMALL, **settings})


def normalized(n_envs: int = 4) -> VecNormalize:
    return VecNormalize(make_vec_env("Pendulum-v1", n_envs=n_envs))


def observations(model: PPMO, n: int = 8) -> np.ndarray:
    shape = model.observation_space.shape or ()
    return np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)


def acts(model: PPMO) -> np.ndarray:
    return model.predict(observations(model), deterministic=True)[0]


def learned(model: PPMO) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Toggles(gym.Env[Any, Any]):
    """Two switches to set as a dictionary shows them."""

    observation_space = gym.spaces.Dict(
        {"wanted": gym.spaces.MultiBinary(2), "level": gym.spaces.Box(-1, 1, (3,))}
    )
    action_space = gym.spaces.MultiBinary(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.obs, self.steps = self.observation_space.sample(), 0
        return self.obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float((action == self.obs["wanted"]).mean())
        self.obs, self.steps = self.observation_space.sample(), self.steps + 1
        return self.obs, reward, self.steps == 8, False, {}


# -- save and load ---------------------------------------------------------------------------------


@pytest.mark.parametrize("with_env", [True, False])
@pytest.mark.parametrize("env", ["CartPole-v1", "normalized"])
def test_a_loaded_model_predicts_as_it_did(env: str, with_env: bool, tmp_path: Path) -> None:
    model = small(normalized() if env == "normalized" else env)
    model.learn(128)
    before = learned(model)
    model.save(tmp_path / "some" / "model")
    assert same(learned(model), before), "to save is to leave alone"
    again: Any = None
    if with_env:
        again = normalized() if env == "normalized" else env
    loaded = PPMO.load(tmp_path / "some" / "model", env=again, device="cpu")
    assert (tmp_path / "some" / "model.zip").is_file()
    assert same(learned(loaded), before)
    np.testing.assert_array_equal(acts(loaded), acts(model))
    obs = observations(model)
    model.set_random_seed(3), loaded.set_random_seed(3)
    np.testing.assert_array_equal(loaded.predict(obs)[0], model.predict(obs)[0])
    assert loaded.num_timesteps == model.num_timesteps
    assert loaded.settings().keys() == model.settings().keys()
    if with_env:
        assert loaded.dataset().digest == model.dataset().digest
        loaded.learn(128, reset_num_timesteps=False)
        assert loaded.num_timesteps == model.num_timesteps + 128
        assert not same(learned(loaded), before)
    else:
        with pytest.raises(TaskDistillError, match="set_env"):
            loaded.dataset()
        loaded.set_env(normalized() if env == "normalized" else make_vec_env(env, n_envs=model.n_envs))
        loaded.learn(16 * loaded.n_envs, reset_num_timesteps=False)


def test_statistics_of_observations_come_back(tmp_path: Path) -> None:
    model = small(normalized())
    model.learn(256)
    model.save(tmp_path / "model")
    env = normalized()
    loaded = PPMO.load(tmp_path / "model", env=env)
    ours = model.get_vec_normalize_env()
    assert ours is not None
    raw = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_array_equal(env.normalize_obs(raw), ours.normalize_obs(raw))
    assert env.obs_rms.count > 256 and loaded.get_vec_normalize_env() is env
    with pytest.raises(TaskDistillError, match="VecNormalize"):
        PPMO.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", n_envs=4))
    later, other = PPMO.load(tmp_path / "model"), normalized()
    later.save(tmp_path / "again")
    later.set_env(other)
    np.testing.assert_array_equal(other.normalize_obs(raw), ours.normalize_obs(raw))
    assert (tmp_path / "again.zip").stat().st_size == (tmp_path / "model.zip").stat().st_size


def test_a_model_fits_another_number_of_envs(tmp_path: Path) -> None:
    small(make_vec_env("CartPole-v1", n_envs=8)).save(tmp_path / "model")
    loaded = PPMO.load(tmp_path / "model", env=gym.make("CartPole-v1"))
    assert (loaded.n_envs, loaded.n_learners, loaded.batch_size) == (1, 1, 16)
    loaded.learn(16)
    evaluate_policy(loaded, loaded.get_env(), n_eval_episodes=1)
    with pytest.raises(TaskDistillError, match="n_learners=3"):
        PPMO.load(tmp_path / "model", env=gym.make("CartPole-v1"), n_learners=3)


def test_settings_may_be_changed_left_out_and_given_again(tmp_path: Path) -> None:
    model = small(gamma=0.9, ent_coef=0.2, learning_rate=LinearSchedule(0.01, 0.001, 0.5))
    model.vf_coef = 0.25
    model.save(tmp_path / "model", exclude=["ent_coef", "gamma"], include=["gamma"])
    loaded = PPMO.load(tmp_path / "model", gae_lambda=0.7, custom_objects={"n_epochs": 2, "lr_schedule": 0})
    assert (loaded.gamma, loaded.ent_coef, loaded.vf_coef) == (0.9, 0.01, 0.25)
    assert (loaded.gae_lambda, loaded.n_epochs) == (0.7, 2)
    assert loaded.loop.optimizer.schedules["dataset"](0.75) == pytest.approx(0.0055)
    with pytest.raises(TaskDistillError, match='no setting "gama". Did you mean "gamma"'):
        PPMO.load(tmp_path / "model", gama=1)
    with pytest.raises(TaskDistillError, match='"env" cannot be included'):
        model.save(tmp_path / "other", include=["env"])
    assert [file.name for file in tmp_path.iterdir()] == ["model.zip"]


def test_functions_are_asked_for_again_before_anything_is_learned(tmp_path: Path) -> None:
    rates = {"inner_lr": lambda progress: 0.01 * progress}
    model = small(learning_rate=lambda progress: 0.02 * progress, learning_rates=rates)
    model.learn(16)
    model.save(tmp_path / "model")
    loaded = PPMO.load(tmp_path / "model", env="CartPole-v1")
    np.testing.assert_array_equal(acts(loaded), acts(model))
    with pytest.raises(TaskDistillError, match=r"learning_rate was a function .* learning_rate=\.\.\."):
        loaded.learn(16)
    assert loaded.num_timesteps == 16
    loaded = PPMO.load(tmp_path / "model", env="CartPole-v1", learning_rate=0.01, learning_rates=rates)
    loaded.learn(16)


def test_a_saved_model_holds_no_code(tmp_path: Path) -> None:
    model = small(critic=MLP(width=8))
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        (name,) = archive.namelist()
        content = archive.read(name)
    with pytest.raises(ValueError):
        list(pickletools.genops(content))
    assert PPMO.load(tmp_path / "model.zip").settings()["critic"] == MLP(width=8)


def test_an_open_file_will_do() -> None:
    model, file = small(), io.BytesIO()
    model.save(file)
    np.testing.assert_array_equal(acts(PPMO.load(file)), acts(model))


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "one"), model.save(tmp_path / "two")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_spaces_of_other_kinds_come_back(tmp_path: Path) -> None:
    model = PPMO("alpha_c", Toggles, k=4, n_steps=16, n_learners=2, seed=0, device="cpu")
    model.save(tmp_path / "model")
    obs = model.own_spaces[0].sample()
    for loaded in (PPMO.load(tmp_path / "model"), PPMO.load(tmp_path / "model", env=Toggles)):
        assert loaded.own_spaces == model.own_spaces
        expected = model.predict(obs, deterministic=True)[0]
        np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], expected)


def test_other_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo")
    small().save(tmp_path / "good")
    content = bytearray((tmp_path / "good.zip").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.zip").write_bytes(content)
    (tmp_path / "text").write_text("hello")
    for name, reason in (
        ("ppo", "none of PPMO's"),
        ("bad", "damaged"),
        ("text", "damaged"),
        ("no", "No such"),
    ):
        with pytest.raises(TaskDistillError, match=reason) as raised:
            PPMO.load(tmp_path / name)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
        assert isinstance(raised.value, ValueError) or name == "no"  # as SB3's, of what is no model
    with pytest.raises(TaskDistillError, match="observation space"):
        PPMO.load(tmp_path / "good", env="Acrobot-v1")
    with pytest.raises(TaskDistillError, match="other settings"):
        PPMO.load(tmp_path / "good", k=5)
    with pytest.raises(TaskDistillError, match=r"save the model \(model\.save\)"):
        small().policy.save(str(tmp_path / "policy"))


def test_parameters_go_back_and_forth(tmp_path: Path) -> None:
    model, other = small(), small(seed=1)
    model.learn(16)
    parameters = model.get_parameters()
    assert set(parameters) == {"policy", "policy.optimizer"}
    other.set_parameters(parameters)
    assert same(learned(other), learned(model))
    with pytest.raises(ValueError):
        other.set_parameters({"policy": parameters["policy"]})
    other.set_parameters({"policy": parameters["policy"]}, exact_match=False)
    model.learn(16)
    model.save(tmp_path / "model")
    other.set_parameters(str(tmp_path / "model"))
    assert same(learned(other), learned(model))


# -- SB3's callbacks and evaluation ----------------------------------------------------------------


def test_callbacks_that_save_work(tmp_path: Path) -> None:
    env = make_vec_env("CartPole-v1", n_envs=2)
    checkpoints = CheckpointCallback(16, str(tmp_path / "checkpoints"))
    tests = EvalCallback(
        make_vec_env("CartPole-v1"),
        best_model_save_path=str(tmp_path),
        eval_freq=16,
        n_eval_episodes=2,
        verbose=0,
    )
    small(env).learn(64, callback=[checkpoints, tests])
    files = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert files == ["rl_model_32_steps.zip", "rl_model_64_steps.zip"]
    assert PPMO.load(tmp_path / "checkpoints" / files[0]).num_timesteps == 32
    best = PPMO.load(tmp_path / "best_model", env=env)
    assert best.num_timesteps in (32, 64)
    best.learn(32, reset_num_timesteps=False)


def test_it_can_be_evaluated_on_observations_of_another_precision() -> None:
    env = VecNormalize(make_vec_env("InvertedPendulum-v4", n_envs=2))
    assert env.observation_space.dtype == np.float64
    model = small(env, k=4)
    evaluate_policy(model, env, n_eval_episodes=2)
    obs = np.ones((3, 4))
    exact, _ = model.predict(obs.astype(np.float32), deterministic=True)
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], exact)
    np.testing.assert_array_equal(model.predict(obs[::-1], deterministic=True)[0], exact)
    assert model.predict(obs[0])[0].shape == (1,)
    action, _ = small().predict(np.zeros(4))
    assert isinstance(action, np.ndarray) and action.shape == ()  # as SB3's of a Discrete space
    with pytest.raises(ValueError, match="mixing Gym API"):
        model.predict((obs[0], {}))  # type: ignore[arg-type]


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_envs", "n_learners", "batch_size"),
    [(1, 1, 128), (2, 2, 256), (6, 3, 768), (8, 4, 1024), (16, 4, 1024)],
)
def test_the_defaults_fit_any_number_of_envs(n_envs: int, n_learners: int, batch_size: int) -> None:
    model = PPMO("alpha_c", make_vec_env("CartPole-v1", n_envs=n_envs), device="cpu")
    assert (model.n_learners, model.batch_size) == (n_learners, batch_size)


def test_one_env_with_the_default_settings_learns() -> None:
    assert PPMO("alpha_c", "Acrobot-v1", k=8, device="cpu").n_envs == 4
    assert PPMO("alpha_c", "Acrobot-v1", k=8, n_learners=np.int64(1), device="cpu").n_envs == 1
    model = PPMO("alpha_c", gym.make("Acrobot-v1"), k=8, device="cpu", seed=0)
    before = model.dataset()
    model.learn(256)
    assert model.num_timesteps == 256 and not torch.equal(model.dataset().x, before.x)


def test_numpys_numbers_are_numbers() -> None:
    def run(number: Any) -> str:
        env: VecEnv = make_vec_env("CartPole-v1", n_envs=4)
        model = PPMO(
            "alpha_c",
            env,
            k=number(3),
            seed=number(3),
            n_steps=number(8),
            batch_size=number(16),
            n_epochs=number(2),
            n_learners=number(2),
            learning_rate=np.float32(0.5) if number is np.int64 else 0.5,
            inner={"steps": number(2), "lr": number(1)},
            start={"x_std": number(1)},
            device="cpu",
        )
        model.learn(number(32))
        return model.dataset().digest

    assert run(np.int64) == run(int)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": np.int64(2**32)}, "seed must be an integer"),
        ({"gamma": float("nan")}, "gamma must be a finite number"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number"),
        ({"clip_range": "0.2"}, "clip_range must be a finite number"),
        ({"n_epochs": 1.5}, "n_epochs must be an integer"),
        ({"batch_size": True}, "batch_size must be an integer"),
        ({"n_learners": 0}, "n_learners must be an integer"),
        ({"n_learners": 3}, "must be a multiple of n_learners=3"),
    ],
)
def test_settings_are_refused_before_anything_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        small(**settings)


def test_schedules_are_tried_before_the_first_step() -> None:
    def broken(progress: float) -> float:
        raise ZeroDivisionError

    env = gym.make("CartPole-v1")
    model = small(env, clip_range=broken)
    with pytest.raises(ZeroDivisionError):
        model.learn(16)
    assert model.num_timesteps == 0
