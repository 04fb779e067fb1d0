"""Imitation teaches, and goes on from a checkpoint bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from gym_taskdistill import DistilledPolicy
from gym_taskdistill.distill.experts import Recording, as_expert, one_action, record
from gym_taskdistill.distill.imitation import Imitation
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.tasks.task import Task

CART_POLE, PENDULUM = Task("CartPoleND-v0", {"n": 2}), Task("Pendulum-v1")


@pytest.fixture(scope="module")
def zoo_policy() -> DistilledPolicy:
    return DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0)


def cart_pole(n_envs: int = 4) -> VecEnv:
    return CART_POLE.make_vec_env(n_envs, seed=0)


def cart_pole_imitation(**settings: Any) -> Imitation:
    defaults = {"k": 3, "n_learners": 4, "seed": 1, "device": "cpu"}
    return Imitation(CART_POLE, "alpha_c", **{**defaults, **settings})


def pendulum_imitation(learners: Any = "alpha_c", **settings: Any) -> Imitation:
    defaults = {"k": 4, "n_learners": 4, "seed": 0, "device": "cpu"}
    return Imitation(PENDULUM, learners, **{**defaults, **settings})


def observations(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, size)).astype(np.float32)


@pytest.mark.slow
def test_imitation_teaches_cart_pole(zoo_policy: DistilledPolicy) -> None:
    env = cart_pole(16)
    recording = record(as_expert(zoo_policy), env, 8_000, noise=0.2)
    imitation = cart_pole_imitation(k=8, learning_rate=2e-2, start={"x_std": 0.3}, seed=0)
    reports: list[tuple[int, float]] = []
    last = imitation.update(recording, 600, 256, progress=lambda n, loss: reports.append((n, loss)))
    assert [n for n, _ in reports] == [100, 200, 300, 400, 500, 600]
    assert last == reports[-1][1] < reports[0][1]
    assert evaluate(imitation.dataset(), 20, 4, seed=5, env=CART_POLE).mean > 300  # random: about 20


def test_rows_may_start_where_the_expert_goes(zoo_policy: DistilledPolicy) -> None:
    recording = record(as_expert(zoo_policy), cart_pole(16), 1_600, noise=0.05)
    ridge = {"kind": "ridge", "regularization": 1e-3}
    imitation = cart_pole_imitation(k=64, inner=ridge, normalize=True, seed=0)
    before = evaluate(imitation.dataset(), 8, 1, seed=5, env=CART_POLE).mean
    imitation.start_from(recording)
    dataset = imitation.dataset()
    raw = dataset.view.invert(dataset.x).numpy()
    nearest = np.abs(raw[:, None] - recording.observations[None]).max(-1).min(1)
    assert nearest.max() < 1e-4
    assert torch.allclose(dataset.y.mean(-1), torch.zeros(64), atol=1e-5)
    assert evaluate(dataset, 8, 1, seed=5, env=CART_POLE).mean > 250 > 60 > before


def test_rows_cannot_start_from_fewer_observations(zoo_policy: DistilledPolicy) -> None:
    recording = record(as_expert(zoo_policy), cart_pole(4), 40)
    with pytest.raises(TaskDistillError, match="40 observations, but the dataset has 64 rows"):
        cart_pole_imitation(k=64).start_from(recording)


@pytest.mark.slow
def test_imitation_teaches_continuous_actions_and_feeds_the_statistics() -> None:
    env = PENDULUM.make_vec_env(4, seed=0)
    recording = record(lambda obs: -obs[:, 2:], env, 2_000, noise=0.5)  # brake: push against the speed
    imitation = pendulum_imitation(k=16, normalize=True)
    before = imitation.update(recording, 20, 64)
    after = imitation.update(recording, 500, 64)
    assert after < before / 3
    dataset = imitation.dataset()
    assert dataset.obs_mean is not None and dataset.clip_obs == 10
    np.testing.assert_allclose(dataset.obs_mean, recording.observations.mean(0), atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.1, 0.0001])
def test_what_is_missed_is_a_part_of_the_actions_variance(size: float) -> None:
    recording = record(lambda obs: -size * obs[:, 2:], PENDULUM.make_vec_env(4, seed=0), 2_000, noise=0.5)
    learners = {"family": "mlp", "last_gain": 0.1 * size}
    imitation = pendulum_imitation(learners, k=16, start={"y_std": size}, normalize=True)
    imitation.update(recording, 500, 64)
    loop = imitation.loop
    loop.optimizer.schedules = {
        name: FloatSchedule(0.0) for name in loop.optimizer.schedules
    }  # one dataset for both measures
    missed = imitation.update(recording, 100, 64)
    obs = loop.see(torch.as_tensor(recording.observations)).expand(4, -1, -1)
    residuals = []
    for _ in range(20):
        loop.draw()
        means = loop.trained(create_graph=False).act(obs).mean
        residuals.append((means - torch.as_tensor(recording.targets)).square().mean().item())
    residual = np.mean(residuals) / recording.targets.var()
    assert residual < 0.15
    assert missed == pytest.approx(residual, rel=0.2)


def test_an_expert_that_always_does_the_same_is_missed_in_plain_units() -> None:
    recording = Recording(observations(400, 3), np.full((400, 1), 0.3, dtype=np.float32))
    imitation = pendulum_imitation(k=8, start={"y_std": 0})
    assert imitation.update(recording, 1, 64) == pytest.approx(0.3**2, rel=0.2)


def test_how_far_beyond_the_box_an_expert_aims_changes_nothing() -> None:
    obs = observations(400, 3)  # actions from -2 to 2
    aims = np.where(obs[:, 2:] > 0, -2.0, 2.0).astype(np.float32)
    rows = []
    for factor in (1, 5, 0.5):
        imitation = pendulum_imitation(k=8, seed=1)
        imitation.update(Recording(obs, factor * aims), 5, 64)
        rows.append(imitation.dataset().x)
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


@pytest.mark.slow
def test_temperature_makes_learners_surer_than_the_expert_is() -> None:
    env = cart_pole(16)
    expert = one_action(1, CART_POLE.action_space)
    recording = record(expert, env, 320)
    entropies = []
    for temperature in (2.0, 1.0, 0.5):
        imitation = cart_pole_imitation(k=4, learning_rate=3e-2, seed=0)
        imitation.update(recording, 300, 64, temperature=temperature)
        obs = torch.as_tensor(recording.observations).expand(4, -1, -1)
        distribution = imitation.loop.trained(create_graph=False).act(obs)
        entropies.append(distribution.entropy().mean().item())
    assert entropies[0] > 2 * entropies[1] > 4 * entropies[2]
    with pytest.raises(TaskDistillError, match="temperature must be > 0, but is 0"):
        imitation.update(recording, 1, 64, temperature=0)


def test_temperature_scales_the_means_of_continuous_actions() -> None:
    obs = observations(400, 3)
    aims = np.sin(obs[:, :1] + obs[:, 1:2])
    datasets = []
    for factor, temperature in ((1.0, 0.5), (2.0, 1.0), (1.0, 1.0)):
        imitation = pendulum_imitation(k=8, seed=1)
        imitation.update(Recording(obs, factor * aims), 5, 64, temperature=temperature)
        datasets.append(imitation.dataset())
    assert torch.equal(datasets[0].y, datasets[1].y)
    assert not torch.equal(datasets[0].y, datasets[2].y)


def test_learners_are_drawn_as_often_as_asked(
    zoo_policy: DistilledPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = cart_pole()
    recording = record(as_expert(zoo_policy), env, 200)
    imitation = cart_pole_imitation()
    draws = []
    draw = imitation.loop.draw
    monkeypatch.setattr(imitation.loop, "draw", lambda: (draws.append(1), draw()))
    imitation.update(recording, 7, 64, draw_every=3)
    assert len(draws) == 3
    with pytest.raises(TaskDistillError, match="draw_every must be an integer >= 1, but is 0"):
        imitation.update(recording, 1, 64, draw_every=0)


@pytest.mark.slow
def test_what_is_hard_is_drawn_more_often() -> None:
    obs = observations(1_000, 8)
    obs[500] = 3  # the only one where another action is right
    targets = np.zeros((1_000, 4), dtype=np.float32)
    targets[:, 0], targets[500] = 9, [0, 9, 0, 0]
    probabilities = []
    for hard_fraction in (0.0, 0.5):
        imitation = cart_pole_imitation(k=8, seed=0)
        imitation.update(Recording(obs, targets), 300, 64, hard_fraction=hard_fraction)
        trained = imitation.loop.trained(create_graph=False)
        distribution = trained.act(torch.as_tensor(obs).expand(4, -1, -1))
        probabilities.append(distribution.log_probs.exp()[:, 500, 1].mean().item())
        others = distribution.log_probs.exp()[:, :500, 0].mean().item()
        assert others > 0.95
    assert probabilities[1] > 4 * probabilities[0]
    with pytest.raises(TaskDistillError, match="hard_fraction must lie between 0 and 1, but is 2"):
        imitation.update(Recording(obs, targets), 1, 64, hard_fraction=2)


def test_learning_rates_follow_their_schedules(zoo_policy: DistilledPolicy) -> None:
    env = cart_pole()
    recording = record(as_expert(zoo_policy), env, 200)
    imitation = cart_pole_imitation()
    told: list[float] = []
    schedule = imitation.loop.optimizer.schedules["dataset"] = lambda remaining: (
        told.append(remaining),
        0.1 * remaining,
    )[1]  # type: ignore[assignment]
    imitation.update(recording, 2, 64)
    imitation.update(recording, 4, 64, progress_remaining=(0.6, 0.2))
    assert told == pytest.approx([1, 1, 0.6, 0.5, 0.4, 0.3])
    (rate,) = (g["lr"] for g in imitation.loop.optimizer.param_groups if g["name"] == "dataset")
    assert rate == pytest.approx(schedule(0.3))


def test_imitation_is_reproducible(zoo_policy: DistilledPolicy) -> None:
    env = cart_pole()
    recording = record(as_expert(zoo_policy), env, 200)
    rows = []
    for _ in range(2):
        imitation = cart_pole_imitation()
        imitation.update(recording, 5, 64)
        rows.append(imitation.dataset().x)
    assert torch.equal(*rows)
    with pytest.raises(TaskDistillError, match="batch_size=6 must be a multiple of n_learners=4"):
        imitation.update(recording, 1, 6)


# -- rounds, and their resumption ------------------------------------------------------------------


def brake(obs: np.ndarray) -> np.ndarray:
    return -obs[:, 2:]


def play(imitation: Imitation, folder: Path, first: int = 0, stop: tuple[int, int] = (9, 0)) -> None:
    """Play three rounds as a run does, keeping recordings and a checkpoint; stop in a round after a stage."""
    files = [folder / f"{i}.npz" for i in range(3)]
    for i in range(first, 3):
        imitation.begin_segment(i)
        if not files[i].exists():
            behaviour = imitation if i else None
            recording = record(brake, PENDULUM.make_vec_env(4), 80, behaviour=behaviour, beta=0.5**i, seed=i)
            if stop == (i, 0):
                return
            recording.save(files[i])
        if stop == (i, 1):
            return
        imitation.update(
            Recording.join([Recording.load(file) for file in files[: i + 1]]), 6, 64, draw_every=4
        )
        if stop == (i, 2):
            return
        torch.save({"round": i, "imitation": imitation.state()}, folder / "checkpoint.pt")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [(i, stage) for i in (1, 2) for stage in (0, 1, 2)], ids=str)
def test_a_killed_run_goes_on_bit_for_bit(stop: tuple[int, int], tmp_path: Path) -> None:
    settings = {
        "normalize": True,
        "encoder_layers": 1,
        "start": {"obs_scale": 0.5, "obs_shift": 0.3},
        "seed": 3,
    }
    (tmp_path / "whole").mkdir()
    whole = pendulum_imitation(**settings)
    play(whole, tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    play(pendulum_imitation(**settings), tmp_path / "killed", stop=stop)
    torch.manual_seed(stop[0])  # what other programs draw does not matter
    resumed = pendulum_imitation(**settings)
    state = torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)
    resumed.load_state(state["imitation"])
    play(resumed, tmp_path / "killed", state["round"] + 1)
    assert resumed.dataset() == whole.dataset() and resumed.n_updates == whole.n_updates == 18


def test_acting_draws_nothing_from_training_nor_from_torch() -> None:
    obs = observations(8, 3)
    one, other = pendulum_imitation(), pendulum_imitation()
    before = torch.get_rng_state()
    actions, state = one.predict(obs)
    assert state is None and actions.shape == (8, 1) and np.abs(actions).max() <= 2
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(other.predict(obs)[0], actions)
    assert not np.array_equal(one.predict(obs)[0], actions)
    recording = Recording(obs, obs[:, :1])
    assert one.update(recording, 3, 8) == other.update(recording, 3, 8)
    one.begin_segment(0), other.begin_segment(0)
    np.testing.assert_array_equal(one.predict(obs)[0], other.predict(obs)[0])
    mode = one.predict(obs, deterministic=True)[0]
    np.testing.assert_array_equal(one.predict(obs, deterministic=True)[0], mode)


def test_its_statistics_are_those_of_vec_normalize_and_go_on_from_a_dataset() -> None:
    imitation = pendulum_imitation(normalize=True)
    recording = Recording(observations(400, 3) * 3 + 1, observations(400, 1))
    imitation.update(recording, 2, 64)
    reference = VecNormalize(PENDULUM.make_vec_env(1))
    reference.obs_rms.update(recording.observations)
    seen = imitation.loop.see(torch.as_tensor(recording.observations))
    np.testing.assert_allclose(seen, reference.normalize_obs(recording.observations), atol=1e-5)
    dataset = imitation.dataset()
    assert torch.equal(dataset.normalize(torch.as_tensor(recording.observations)), seen)
    other = pendulum_imitation(normalize=True, seed=7)
    other.load_dataset(dataset)
    assert other.dataset().digest == dataset.digest
    other.update(recording, 1, 64)
    np.testing.assert_allclose(other.dataset().obs_mean, dataset.obs_mean, rtol=1e-2)
    with pytest.raises(TaskDistillError, match="use normalize=True"):
        pendulum_imitation().load_dataset(dataset)


def test_ppmo_goes_on_from_its_dataset() -> None:
    imitation = pendulum_imitation(normalize=True)
    imitation.update(Recording(observations(100, 3), observations(100, 1)), 3, 64)
    env = VecNormalize(PENDULUM.make_vec_env(4))
    model = PPMO("alpha_c", env, k=4, n_steps=16, batch_size=64, seed=0, device="cpu")
    model.load_dataset(imitation.dataset())
    torch.testing.assert_close(model.dataset().x, imitation.dataset().x)
    assert model.learn(64).num_timesteps == 64
