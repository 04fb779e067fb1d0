"""The supervised warm start: experts, recordings, and that imitation teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from gym_taskdistill import DistilledPolicy
from gym_taskdistill.distill.imitation import (
    CHOSEN_LOGIT,
    Recording,
    as_expert,
    imitate,
    load_expert,
    one_action,
    record,
    recording_env,
)
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.tasks.task import Task

CART_POLE = Task("CartPoleND-v0", {"n": 2})


@pytest.fixture(scope="module")
def zoo_policy() -> DistilledPolicy:
    return DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0)


def cart_pole(n_envs: int = 4) -> VecEnv:
    return CART_POLE.make_vec_env(n_envs, seed=0)


def observations(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, size)).astype(np.float32)


# -- experts ---------------------------------------------------------------------------------------


def test_a_distilled_policy_is_an_expert(zoo_policy: DistilledPolicy) -> None:
    obs = observations(6, 8)
    targets = as_expert(zoo_policy)(obs)
    assert targets.shape == (6, 4)
    assert (targets.argmax(1) == zoo_policy.predict(obs, deterministic=True)[0]).all()


@pytest.mark.parametrize(("env_id", "size", "outputs"), [("CartPole-v1", 4, 2), ("Pendulum-v1", 3, 1)])
def test_an_actor_critic_of_sb3_tells_its_distribution(env_id: str, size: int, outputs: int) -> None:
    model = PPO("MlpPolicy", env_id, seed=0, device="cpu")
    obs = observations(6, size)
    targets = as_expert(model)(obs)
    assert targets.shape == (6, outputs)
    with torch.no_grad():
        latent = model.policy.mlp_extractor.forward_actor(torch.as_tensor(obs))
        raw = model.policy.action_net(latent)
    expected = raw.log_softmax(1) if outputs == 2 else raw
    np.testing.assert_allclose(targets, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_a_model_without_a_distribution_tells_its_action() -> None:
    model = DQN("MlpPolicy", "CartPole-v1", seed=0, device="cpu", buffer_size=100)
    obs = observations(6, 4)
    actions, _ = model.predict(obs, deterministic=True)
    assert (as_expert(model)(obs) == CHOSEN_LOGIT * np.eye(2)[actions]).all()


def test_an_expert_may_be_any_function_but_not_anything() -> None:
    def function(obs: np.ndarray) -> np.ndarray:
        return obs

    assert as_expert(function) is function
    with pytest.raises(TaskDistillError, match="A str is no expert"):
        as_expert("PPO")  # type: ignore[arg-type]


def test_one_action_may_be_the_expert() -> None:
    expert, task = load_expert("action:1", spaces.Discrete(3))
    assert task is None
    assert (expert(np.zeros((4, 2))) == CHOSEN_LOGIT * np.eye(3)[1]).all()
    for space in (spaces.Discrete(1), spaces.Box(-1, 1, (3,))):
        with pytest.raises(TaskDistillError, match='"action:1" does not fit'):
            load_expert("action:1", space)


# -- recordings ------------------------------------------------------------------------------------


def test_a_recording_is_what_was_seen_and_what_the_expert_would_do(zoo_policy: DistilledPolicy) -> None:
    recording = record(as_expert(zoo_policy), cart_pole(), 10, seed=3)
    assert recording.observations.shape == (12, 8) and len(recording) == 12  # 3 steps of 4 envs
    np.testing.assert_allclose(recording.targets, as_expert(zoo_policy)(recording.observations), rtol=1e-4)
    assert len(np.unique(recording.observations, axis=0)) == 12
    again = record(as_expert(zoo_policy), cart_pole(), 10, seed=3)
    other = record(as_expert(zoo_policy), cart_pole(), 10, seed=4)
    assert (again.observations == recording.observations).all()
    assert (other.observations != recording.observations).any()
    assert len(Recording.join([recording, other])) == 24


def test_a_recording_is_written_and_read(tmp_path: Path) -> None:
    recording = Recording(np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.eye(3, dtype=np.float32))
    recording.save(tmp_path / "one.npz")
    read = Recording.load(tmp_path / "one.npz")
    assert read.observations.dtype == np.uint8 and (read.observations == recording.observations).all()
    assert (read.targets == recording.targets).all()
    assert [path.name for path in tmp_path.iterdir()] == ["one.npz"]
    (tmp_path / "two.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:100])
    with pytest.raises(TaskDistillError, match=r"two.npz\" cannot be read"):
        Recording.load(tmp_path / "two.npz")


def test_somebody_else_may_play(zoo_policy: DistilledPolicy) -> None:
    class Stubborn:
        def predict(self, observation: np.ndarray) -> tuple[np.ndarray, Any]:
            return np.full(len(observation), 3), None

    played: list[np.ndarray] = []

    class Spy:
        """Notes the actions on their way to the env."""

        def __init__(self, env: VecEnv) -> None:
            self.env = env

        def __getattr__(self, name: str) -> Any:
            return getattr(self.env, name)

        def step(self, actions: np.ndarray) -> Any:
            played.append(actions.copy())
            return self.env.step(actions)

    expert = as_expert(zoo_policy)
    record(expert, Spy(cart_pole()), 400, behaviour=Stubborn())  # type: ignore[arg-type]
    assert (np.stack(played) == 3).all()
    played.clear()
    record(expert, Spy(cart_pole()), 400, behaviour=Stubborn(), noise=0.4)  # type: ignore[arg-type]
    assert 0.6 < (np.stack(played) == 3).mean() < 0.8  # 0.6 + 0.4 / 4
    played.clear()
    record(expert, Spy(cart_pole()), 400, behaviour=Stubborn(), beta=0.8)  # type: ignore[arg-type]
    assert 0.2 < (np.stack(played) == 3).mean() < 0.6  # 0.2 + 0.8 / 4
    with pytest.raises(TaskDistillError, match="beta must lie between 0 and 1, but is 1.5"):
        record(expert, cart_pole(), 4, beta=1.5)


def test_the_expert_may_see_something_else(zoo_policy: DistilledPolicy) -> None:
    expert = as_expert(zoo_policy)
    recording = record(expert, cart_pole(), 8, view=lambda env, obs: np.zeros_like(obs))
    assert (recording.targets == recording.targets[0]).all()


def test_an_expert_of_a_games_ram_teaches_its_pixels() -> None:
    ram = Task("PongNoFrameskip-v4", {"obs_type": "ram"})
    env, view = recording_env(Task("PongNoFrameskip-v4"), 2, ram)
    assert view is not None
    seen: list[np.ndarray] = []

    def expert(rams: np.ndarray) -> np.ndarray:
        seen.append(rams)
        return np.eye(6, dtype=np.float32)[[2, 3]]

    recording = record(expert, env, 60, view=view, seed=0)
    assert recording.observations.shape == (60, 4, 84, 84) and recording.observations.dtype == np.uint8
    rams = np.stack(seen)
    _, view = recording_env(Task("PongNoFrameskip-v4"), 2, Task("PongNoFrameskip-v4", {"obs_type": "bits"}))
    assert view is not None
    np.testing.assert_array_equal(
        np.packbits(view(env, recording.observations[-2:]), axis=1),
        np.stack([ale.getRAM() for ale in env.get_attr("ale")]),
    )
    assert rams.shape == (30, 2, 128) and rams.dtype == np.uint8
    assert (rams[0] != rams[-1]).any(axis=1).all()
    assert (recording.targets.reshape(30, 2, 6).argmax(-1) == [2, 3]).all()
    with pytest.raises(TaskDistillError, match="An expert of PongNoFrameskip-v4.* cannot play Breakout"):
        recording_env(Task("BreakoutNoFrameskip-v4"), 2, ram)


def test_an_expert_of_another_task_is_refused() -> None:
    with pytest.raises(TaskDistillError, match=r"outputs of shape \(4, 2\).* need \(4, 4\)"):
        record(lambda obs: obs[:, :2], cart_pole(), 8)


# -- imitation -------------------------------------------------------------------------------------


def test_imitation_teaches_cart_pole(zoo_policy: DistilledPolicy) -> None:
    env = cart_pole(16)
    recording = record(as_expert(zoo_policy), env, 8_000, noise=0.2)
    model = PPMO("alpha_c", env, k=8, n_learners=4, learning_rate=2e-2, x_std=0.3, seed=0, device="cpu")
    reports: list[tuple[int, float]] = []
    last = imitate(model, recording, 600, 256, progress=lambda n, loss: reports.append((n, loss)))
    assert [n for n, _ in reports] == [100, 200, 300, 400, 500, 600]
    assert last == reports[-1][1] < reports[0][1]
    assert evaluate(model.dataset(), 20, 4, seed=5, task=CART_POLE).mean > 300  # random: about 20


def test_imitation_teaches_continuous_actions_and_feeds_the_statistics() -> None:
    env = VecNormalize(Task("Pendulum-v1").make_vec_env(4, seed=0))
    recording = record(lambda obs: -obs[:, 2:], env.venv, 2_000, noise=0.5)  # brake: push against the speed
    model = PPMO("alpha_c", env, k=16, batch_size=64, seed=0, device="cpu")
    before = imitate(model, recording, 20, 64)
    after = imitate(model, recording, 500, 64)
    assert after < before / 3
    dataset = model.dataset()
    assert dataset.obs_mean is not None
    np.testing.assert_allclose(dataset.obs_mean, recording.observations.mean(0), atol=0.05)


@pytest.mark.parametrize("size", [0.1, 0.0001])
def test_what_is_missed_is_a_part_of_the_actions_variance(size: float) -> None:
    env = VecNormalize(Task("Pendulum-v1").make_vec_env(4, seed=0))
    recording = record(lambda obs: -size * obs[:, 2:], env.venv, 2_000, noise=0.5)
    learners = {"family": "mlp", "last_gain": 0.1 * size}
    model = PPMO(learners, env, k=16, batch_size=64, y_std=size, seed=0, device="cpu")
    imitate(model, recording, 500, 64)
    model.schedules = {
        name: FloatSchedule(0.0) for name in model.schedules
    }  # the same dataset for both measures
    missed = imitate(model, recording, 100, 64)
    obs = torch.as_tensor(env.normalize_obs(recording.observations)).expand(4, -1, -1)
    residuals = []
    for _ in range(20):
        model.policy.sample_learners(model.generator)
        means = model.policy.train_learners(create_graph=False).act(obs).mean
        residuals.append((means - torch.as_tensor(recording.targets)).square().mean().item())
    residual = np.mean(residuals) / recording.targets.var()
    assert residual < 0.15
    assert missed == pytest.approx(residual, rel=0.2)


def test_an_expert_that_always_does_the_same_is_missed_in_plain_units() -> None:
    env = Task("Pendulum-v1").make_vec_env(4, seed=0)
    recording = Recording(observations(400, 3), np.full((400, 1), 0.3, dtype=np.float32))
    model = PPMO("alpha_c", env, k=8, batch_size=64, y_std=0, seed=0, device="cpu")
    assert imitate(model, recording, 1, 64) == pytest.approx(0.3**2, rel=0.2)


def test_how_far_beyond_the_box_an_expert_aims_changes_nothing() -> None:
    env = Task("Pendulum-v1").make_vec_env(4, seed=0)  # actions from -2 to 2
    obs = observations(400, 3)
    aims = np.where(obs[:, 2:] > 0, -2.0, 2.0).astype(np.float32)
    rows = []
    for factor in (1, 5, 0.5):
        model = PPMO("alpha_c", env, k=8, batch_size=64, seed=1, device="cpu")
        imitate(model, Recording(obs, factor * aims), 5, 64)
        rows.append(model.dataset().x)
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_temperature_makes_learners_surer_than_the_expert_is() -> None:
    env = cart_pole(16)
    expert = one_action(1, CART_POLE.action_space)
    recording = record(expert, env, 320)
    entropies = []
    for temperature in (2.0, 1.0, 0.5):
        model = PPMO("alpha_c", env, k=4, n_learners=4, learning_rate=3e-2, seed=0, device="cpu")
        imitate(model, recording, 300, 64, temperature=temperature)
        obs = torch.as_tensor(recording.observations).expand(4, -1, -1)
        distribution = model.policy.train_learners(create_graph=False).act(obs)
        entropies.append(distribution.entropy().mean().item())
    assert entropies[0] > 2 * entropies[1] > 4 * entropies[2]
    with pytest.raises(TaskDistillError, match="temperature must be > 0, but is 0"):
        imitate(model, recording, 1, 64, temperature=0)


def test_temperature_scales_the_means_of_continuous_actions() -> None:
    env = Task("Pendulum-v1").make_vec_env(4, seed=0)
    obs = observations(400, 3)
    aims = np.sin(obs[:, :1] + obs[:, 1:2])
    datasets = []
    for factor, temperature in ((1.0, 0.5), (2.0, 1.0), (1.0, 1.0)):
        model = PPMO("alpha_c", env, k=8, batch_size=64, seed=1, device="cpu")
        imitate(model, Recording(obs, factor * aims), 5, 64, temperature=temperature)
        datasets.append(model.dataset())
    assert torch.equal(datasets[0].y, datasets[1].y)
    assert not torch.equal(datasets[0].y, datasets[2].y)


def test_learners_are_drawn_as_often_as_asked(
    zoo_policy: DistilledPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = cart_pole()
    recording = record(as_expert(zoo_policy), env, 200)
    model = PPMO("alpha_c", env, batch_size=64, seed=1, device="cpu")
    draws = []
    sample = model.policy.sample_learners
    monkeypatch.setattr(model.policy, "sample_learners", lambda g: (draws.append(1), sample(g)))
    imitate(model, recording, 7, 64, draw_every=3)
    assert len(draws) == 3
    with pytest.raises(TaskDistillError, match="draw_every must be an integer >= 1, but is 0"):
        imitate(model, recording, 1, 64, draw_every=0)


def test_what_is_hard_is_drawn_more_often() -> None:
    env = cart_pole()
    obs = observations(1_000, 8)
    obs[500] = 3  # the only one where another action is right
    targets = np.zeros((1_000, 4), dtype=np.float32)
    targets[:, 0], targets[500] = 9, [0, 9, 0, 0]
    probabilities = []
    for hard_fraction in (0.0, 0.5):
        model = PPMO("alpha_c", env, k=8, batch_size=64, learning_rate=1e-2, seed=0, device="cpu")
        imitate(model, Recording(obs, targets), 300, 64, hard_fraction=hard_fraction)
        distribution = model.policy.train_learners(create_graph=False).act(
            torch.as_tensor(obs).expand(4, -1, -1)
        )
        probabilities.append(distribution.log_probs.exp()[:, 500, 1].mean().item())
        others = distribution.log_probs.exp()[:, :500, 0].mean().item()
        assert others > 0.95
    assert probabilities[1] > 4 * probabilities[0]
    with pytest.raises(TaskDistillError, match="hard_fraction must lie between 0 and 1, but is 2"):
        imitate(model, Recording(obs, targets), 1, 64, hard_fraction=2)


def test_learning_rates_follow_their_schedules(zoo_policy: DistilledPolicy) -> None:
    env = cart_pole()
    recording = record(as_expert(zoo_policy), env, 200)
    model = PPMO("alpha_c", env, batch_size=64, seed=1, device="cpu")
    told: list[float] = []
    schedule = model.schedules["dataset"] = lambda remaining: (told.append(remaining), 0.1 * remaining)[1]  # type: ignore[assignment]
    imitate(model, recording, 2, 64)
    imitate(model, recording, 4, 64, progress_remaining=(0.6, 0.2))
    assert told == pytest.approx([1, 1, 0.6, 0.5, 0.4, 0.3])
    (rate,) = (group["lr"] for group in model.optimizer.param_groups if group["name"] == "dataset")
    assert rate == pytest.approx(schedule(0.3))


def test_imitation_is_reproducible(zoo_policy: DistilledPolicy) -> None:
    env = cart_pole()
    recording = record(as_expert(zoo_policy), env, 200)
    rows = []
    for _ in range(2):
        model = PPMO("alpha_c", env, batch_size=64, seed=1, device="cpu")
        imitate(model, recording, 5, 64)
        rows.append(model.dataset().x)
    assert torch.equal(*rows)
    with pytest.raises(TaskDistillError, match="batch_size=6 must be a multiple of n_learners=4"):
        imitate(model, recording, 1, 6)
