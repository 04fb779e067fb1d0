"""PPMO against SB3's PPO, against Algorithm 1, and on cart-pole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from random_env import RandomEnv
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize
from torch import Tensor, nn

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill import statistics
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import MLP
from gym_taskdistill.policies.action_distributions import Categorical
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.tasks.spaces import as_batch
from gym_taskdistill.tasks.task import Task

N_ENVS, N_STEPS, M = 8, 16, 2
ROLLOUT = N_ENVS * N_STEPS

SMALL: dict[str, Any] = {
    "n_learners": M,
    "n_steps": N_STEPS,
    "batch_size": 32,
    "n_epochs": 2,
    "device": "cpu",
    "seed": 0,
}


def vec_env(env_id: str = "CartPole-v1", n_envs: int = N_ENVS, **kwargs: Any) -> VecEnv:
    return make_vec_env(lambda: gym.make(env_id, **kwargs), n_envs=n_envs)


def small(env: VecEnv | None = None, learners: Any = "alpha_c", **settings: Any) -> PPMO:
    env = vec_env() if env is None else env
    if isinstance(env.action_space, spaces.Box):
        settings.setdefault("k", 4)
    settings["inner"] = {"lr": 0.5, **settings.get("inner", {})}
    return PPMO(learners, env, **{**SMALL, **settings})


class AtRolloutEnd(BaseCallback):
    """Calls a function with the algorithm between collecting a rollout and training on it."""

    def __init__(self, look: Callable[[PPMO], None]) -> None:
        super().__init__()
        self.look = look

    def _on_rollout_end(self) -> None:
        assert isinstance(self.model, PPMO)
        self.look(self.model)

    def _on_step(self) -> bool:
        return True


# -- (a) with the whole network as encoder, PPMO is PPO --------------------------------------------


def weighted(module: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def same_ppo(model: PPMO) -> tuple[PPO, dict[str, tuple[list[Tensor], list[Tensor]]]]:
    """Make SB3's PPO with PPMO's weights, and pair their parameters."""
    assert model.env is not None
    if model.loop.is_image:
        shared = model.policy.share_features_extractor
        kwargs = {"share_features_extractor": shared, "net_arch": []}
        ppo = PPO("CnnPolicy", model.env, policy_kwargs=kwargs, device="cpu", seed=1)
        policy = ppo.policy
        actor = [*weighted(policy.pi_features_extractor), policy.action_net]
        critic = [*([] if shared else weighted(policy.vf_features_extractor)), policy.value_net]
    else:
        ppo = PPO("MlpPolicy", model.env, policy_kwargs={"net_arch": [64, 64]}, device="cpu", seed=1)
        policy = ppo.policy
        actor = [*weighted(policy.mlp_extractor.policy_net), policy.action_net]
        critic = [*weighted(policy.mlp_extractor.value_net), policy.value_net]
    pairs = {
        "actor": (
            list(model.loop.encoder_network.parameters()),
            [p for layer in actor for p in (layer.weight, layer.bias)],
        ),
        "critic": (
            list(model.policy.critic.parameters()),
            [p for layer in critic for p in (layer.weight, layer.bias)],
        ),
    }
    if model.loop.log_std is not None:
        pairs["log_std"] = ([model.loop.log_std], [policy.log_std])
    with torch.no_grad():
        for ours, theirs in pairs.values():
            for p, q in zip(ours, theirs, strict=True):
                q.copy_(p.view_as(q))
    return ppo, pairs


def sb3_loss(ppo: PPO, data: RolloutBufferSamples, clip_range: float) -> Tensor:
    """Return the loss of `stable_baselines3.PPO.train` on one minibatch."""
    actions = data.actions
    if isinstance(ppo.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    values, log_prob, entropy = ppo.policy.evaluate_actions(data.observations, actions)
    assert entropy is not None
    advantages = data.advantages
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    ratio = torch.exp(log_prob - data.old_log_prob)
    clipped = advantages * torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
    policy_loss = -torch.min(advantages * ratio, clipped).mean()
    value_loss = nn.functional.mse_loss(data.returns, values.flatten())
    return policy_loss + ppo.ent_coef * -torch.mean(entropy) + ppo.vf_coef * value_loss


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_with_all_layers_in_the_encoder_it_is_ppo(env_id: str) -> None:
    model = small(vec_env(env_id), encoder_layers=3, ent_coef=0.03, vf_coef=0.7, start={"log_std": -0.3})
    model.learn(ROLLOUT)
    with torch.no_grad():  # so that some ratios are clipped
        for p in model.loop.encoder_network.params:
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    ppo, pairs = same_ppo(model)
    ppo.ent_coef, ppo.vf_coef = model.ent_coef, model.vf_coef
    for data in model.rollout_buffer.get(32):
        flat = RolloutBufferSamples(*(None if f is None else f.flatten(0, 1) for f in data))
        loss, parts = model.loss(data, clip_range=0.2)
        expected = sb3_loss(ppo, flat, clip_range=0.2)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
        assert parts["loss"] == loss.item()
        assert 0 < parts["clip_fraction"] < 1
        for name, (ours, theirs) in pairs.items():
            gradients = torch.autograd.grad(loss, ours, retain_graph=True)
            references = torch.autograd.grad(expected, theirs, retain_graph=True)
            for g, r in zip(gradients, references, strict=True):
                assert r.abs().max() > 1e-5, name
                torch.testing.assert_close(g.view_as(r), r, atol=1e-6, rtol=1e-4)
    assert ("log_std" in pairs) == (env_id == "Pendulum-v1")


class Stripes(gym.Env[np.ndarray, int]):
    """Images in which a bright column tells the action that pays; the cheapest task for a CNN."""

    observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        self.spec = gym.envs.registration.EnvSpec("Stripes-v0", entry_point="tests:Stripes")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._draw(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.wanted)
        self.steps += 1
        return self._draw(), reward, self.steps == 8, False, {}

    def _draw(self) -> np.ndarray:
        self.wanted = int(self.np_random.integers(3))
        image = self.np_random.integers(0, 60, (4, 84, 84), dtype=np.uint8)
        image[:, :, 28 * self.wanted : 28 * (self.wanted + 1)] += 150
        return image


def stripes(n_envs: int = 4) -> VecEnv:
    return make_vec_env(Stripes, n_envs=n_envs)


def image_model(n_envs: int = 4, **settings: Any) -> PPMO:
    return small(stripes(n_envs), "alpha_a", **{"n_steps": 8, "batch_size": 16, "k": 3, **settings})


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_with_the_whole_nature_cnn_in_the_encoder_it_is_sb3s_cnn_policy(shared: bool) -> None:
    model = image_model(encoder_layers=5, share_features_extractor=shared)
    model.learn(32)
    with torch.no_grad():
        for p in model.loop.encoder_network.params:
            p += 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    ppo, pairs = same_ppo(model)
    ppo.ent_coef, ppo.vf_coef = model.ent_coef, model.vf_coef
    data = next(model.rollout_buffer.get(16))
    assert data.observations.dtype == torch.uint8
    flat = RolloutBufferSamples(*(None if f is None else f.flatten(0, 1) for f in data))
    loss, _ = model.loss(data, clip_range=0.2)
    expected = sb3_loss(ppo, flat, clip_range=0.2)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    for name, (ours, theirs) in pairs.items():
        gradients = torch.autograd.grad(loss, ours, retain_graph=True)
        references = torch.autograd.grad(expected, theirs, retain_graph=True)
        for g, r in zip(gradients, references, strict=True):
            assert r.abs().max() > 1e-5, name
            torch.testing.assert_close(g.view_as(r), r, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "shared"), [(0, False), (3, True), (4, True), (4, False), (5, True)])
def test_a_rollout_of_images_holds_what_the_policy_says_of_them(layers: int, shared: bool) -> None:
    def look(model: PPMO) -> None:
        data = next(model.rollout_buffer.get())
        with torch.no_grad():
            values, log_prob, _ = model.policy.evaluate_actions(data.observations, data.actions)
        torch.testing.assert_close(values, data.old_values, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(log_prob, data.old_log_prob, atol=1e-4, rtol=1e-4)

    model = image_model(encoder_layers=layers, share_features_extractor=shared)
    model.learn(32, callback=AtRolloutEnd(look))
    before = [p.clone() for p in model.loop.encoder_network.params]
    model.learn(32)
    changed = [not torch.equal(p, q) for p, q in zip(before, model.loop.encoder_network.params, strict=True)]
    assert changed == [True] * 2 * layers


@pytest.mark.slow
@pytest.mark.parametrize("mixed_precision", [False, True])
def test_a_linear_probe_learns_images(mixed_precision: bool) -> None:
    family = {"family": "cnn", "channels": [8, 8], "kernel_sizes": [8, 4], "strides": [4, 4], "hidden": 32}
    model = small(
        stripes(8),
        family,
        k=3,
        encoder_layers=3,
        share_features_extractor=True,
        mixed_precision=mixed_precision,
        learning_rate=1e-2,
        learning_rates={"encoder": 1e-3},
        gamma=0.5,
        n_steps=16,
        batch_size=32,
        n_epochs=4,
    )
    model.learn(8 * 16 * 20)
    assert model.ep_info_buffer is not None
    returns = [episode["r"] for episode in list(model.ep_info_buffer)[-16:]]
    assert np.mean(returns) > 6  # of 8; chance is 2.7


@pytest.mark.parametrize("has_units", [False, True])
def test_auto_computes_in_bfloat16_where_there_are_units(
    has_units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gym_taskdistill.machine.has_bfloat16", lambda device: has_units)
    auto, fixed = (
        image_model(encoder_layers=4, share_features_extractor=True, mixed_precision=setting)
        for setting in ("auto", has_units)
    )
    assert auto.loop.mixed_precision is fixed.loop.mixed_precision is has_units
    images = torch.randint(0, 256, (4, 2, 4, 84, 84), dtype=torch.uint8)
    ours, theirs = (model.loop.features(model.loop.see(images)) for model in (auto, fixed))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_dataset_of_images_scales_them_itself() -> None:
    model = image_model(encoder_layers=4, share_features_extractor=True)
    model.learn(32)
    dataset = model.dataset()
    assert dataset.has_images
    policy = DistilledPolicy(dataset, seed=3)
    images = torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8)
    torch.testing.assert_close(dataset.normalize(images), images / 255)
    with torch.no_grad():
        expected = policy.trained.action_distribution(images.unsqueeze(0) / 255)
        assert isinstance(expected, Categorical)
        exported = policy.to_torch()(images.float())
        torch.testing.assert_close(exported.log_softmax(1), expected.log_probs[0], atol=1e-4, rtol=1e-4)
    assert (policy.predict(images.numpy(), deterministic=True)[0] == exported.argmax(1).numpy()).all()


@pytest.mark.slow
def test_pixel_statistics_are_measured_once_and_belong_to_the_dataset(tmp_path: Path) -> None:
    model = image_model(encoder_layers=4, share_features_extractor=True, pixel_statistics=40)
    model.learn(32)
    dataset = model.dataset()
    images = torch.as_tensor(model.rollout_buffer.observations[:, 0])
    expected = model.loop.see(images)
    assert torch.equal(dataset.normalize(images), expected)
    assert expected.mean().abs() < 0.5 and 0.5 < expected.std() < 1.5 and expected.abs().max() <= 5
    model.save_checkpoint(tmp_path / "checkpoint.pt")
    settings = {"encoder_layers": 4, "share_features_extractor": True, "pixel_statistics": 40}
    resumed = image_model(**settings, seed=9)
    resumed.load_checkpoint(tmp_path / "checkpoint.pt")
    assert torch.equal(resumed.loop.see(images), expected)
    other = image_model(**settings, seed=9)
    other.load_dataset(dataset)
    assert torch.equal(other.loop.see(images), expected)
    assert other.dataset().obs_var is not None and torch.equal(other.dataset().obs_var, dataset.obs_var)


def test_a_critic_cannot_read_features_that_nobody_computes() -> None:
    with pytest.raises(TaskDistillError, match="share_features_extractor needs an encoder"):
        image_model(share_features_extractor=True)
    with pytest.raises(TaskDistillError, match="cannot read the encoder's features"):
        small(encoder_layers=1, share_features_extractor=True, critic={"family": "mlp", "width": 8})


def test_with_all_layers_in_the_encoder_the_rows_are_left_alone() -> None:
    model = small(encoder_layers=3)
    before = model.loop.x.clone()
    weights = model.loop.encoder_network.params[0].clone()
    model.learn(2 * ROLLOUT)
    assert torch.equal(model.loop.x, before)
    assert not torch.equal(model.loop.encoder_network.params[0], weights)


# -- (b) Algorithm 1 -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("learners", ["alpha_c", "universal"])
def test_initialisations_stay_fixed_within_a_meta_epoch(env_id: str, learners: str) -> None:
    drawn: list[tuple[Any, list[Tensor]]] = []

    def look(model: PPMO) -> None:
        """Check the trust region's centre: right after the rollout, π^0 is the acting policy."""
        fresh = model.loop.fresh
        drawn.append((fresh, [p.clone() for p in fresh.params]))
        data = next(iter(model.rollout_buffer.get(model.batch_size)))
        _, log_prob, _ = model.policy.evaluate_actions(data.observations, data.actions)
        torch.testing.assert_close(log_prob, data.old_log_prob, atol=1e-5, rtol=1e-5)

    model = small(vec_env(env_id), learners, n_learners=4, inner={"steps": 2})
    for i in range(3):
        model.learn(ROLLOUT, callback=AtRolloutEnd(look), reset_num_timesteps=False)
        fresh, params = drawn[i]
        assert model.loop.fresh is fresh
        assert all(torch.equal(p, q) for p, q in zip(fresh.params, params, strict=True))
    first, second, _ = (params for _, params in drawn)
    shapes = [[p.shape for p in params] for params in (first, second)]
    assert shapes[0] != shapes[1] or not torch.equal(first[0], second[0])


def test_training_moves_the_policy_away_from_the_behaviour_policy() -> None:
    model = small()
    model.learn(ROLLOUT)
    data = next(iter(model.rollout_buffer.get(None)))
    _, log_prob, _ = model.policy.evaluate_actions(data.observations, data.actions)
    assert (log_prob - data.old_log_prob).abs().max() > 1e-3


def test_env_columns_belong_to_learners_in_blocks() -> None:
    """Column i is played by learner i // E: only then do the stored log-probabilities fit."""

    def look(model: PPMO) -> None:
        buffer, trained = model.rollout_buffer, model.loop.trained(create_graph=False)
        for column in range(N_ENVS):
            module = trained.learners.module(column // (N_ENVS // M))
            logits = module(torch.as_tensor(buffer.observations[:, column]))
            actions = torch.as_tensor(buffer.actions[:, column]).long()
            log_prob = logits.log_softmax(-1).gather(-1, actions).squeeze(-1)
            stored = torch.as_tensor(buffer.log_probs[:, column])
            torch.testing.assert_close(log_prob, stored, atol=1e-5, rtol=1e-5)

    small().learn(ROLLOUT, callback=AtRolloutEnd(look))


def test_the_rate_of_the_hidden_layers_learns_where_it_is_asked_for() -> None:
    model = small(inner={"lr_hidden": 0.5}, learn_lr_hidden=True)
    model.learn(ROLLOUT)
    learned = model.dataset().rule.lr_hidden
    assert learned != 0.5
    other = small(learn_lr_hidden=True)
    other.load_dataset(model.dataset())
    assert other.dataset().rule.lr_hidden == pytest.approx(learned)
    with pytest.raises(TaskDistillError, match="give the inner rule its lr_hidden=.*learn_lr_hidden=True"):
        small().load_dataset(model.dataset())
    fixed = small(inner={"lr_hidden": 0.5})
    fixed.learn(ROLLOUT)
    assert fixed.dataset().rule.lr_hidden == 0.5
    with pytest.raises(TaskDistillError, match="learn_lr_hidden=False"):
        other.load_dataset(small(inner={"lr_hidden": 0}).dataset())


def test_rows_labels_and_learning_rate_all_learn() -> None:
    model = small(vec_env("Pendulum-v1"), encoder_layers=1, start={"obs_scale": 1.0, "obs_shift": 0.0})
    groups = model.loop.groups
    before = {name: [p.clone() for p in params] for name, params in groups.items()}
    critic = [p.clone() for p in model.policy.critic.parameters()]
    model.learn(2 * ROLLOUT)
    for name, params in groups.items():
        assert params, name
        for p, old in zip(params, before[name], strict=True):
            assert not torch.equal(p, old), name
            assert torch.isfinite(p).all(), name
    for p, old in zip(model.policy.critic.parameters(), critic, strict=True):
        assert not torch.equal(p, old)


# -- (c) time limits -------------------------------------------------------------------------------


class Recorder(BaseCallback):
    """Keeps what the env gave; compares it with the buffer before training changes the critic."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: set[str] = set()

    def _on_rollout_start(self) -> None:
        self.steps: list[tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]] = []

    def _on_step(self) -> bool:
        rewards, dones = self.locals["rewards"].copy(), self.locals["dones"].copy()
        self.steps.append((rewards, dones, [dict(info) for info in self.locals["infos"]]))
        return True

    def _on_rollout_end(self) -> None:
        model = self.model
        assert isinstance(model, PPMO)
        buffer, critic = model.rollout_buffer, model.policy.critic
        with torch.no_grad():
            values = critic(torch.as_tensor(buffer.observations).flatten(0, 1)).view(buffer.values.shape)
            np.testing.assert_allclose(buffer.values, values, atol=1e-5)
            for t, (rewards, dones, infos) in enumerate(self.steps):
                for i in range(N_ENVS):
                    expected = float(rewards[i])
                    truncated = dones[i] and infos[i]["TimeLimit.truncated"]
                    if truncated:
                        last = torch.as_tensor(infos[i]["terminal_observation"])
                        expected += model.gamma * critic(last.unsqueeze(0)).item()
                    if dones[i]:
                        self.kinds.add("truncated" if truncated else "terminated")
                    assert buffer.rewards[t, i] == pytest.approx(expected, abs=1e-5)
                    if t + 1 < len(self.steps):
                        assert bool(buffer.episode_starts[t + 1, i]) == bool(dones[i])


@pytest.mark.parametrize(
    ("env_id", "limit", "kinds"),
    [("CartPole-v1", 10, {"truncated", "terminated"}), ("Pendulum-v1", 5, {"truncated"})],
)
def test_truncated_episodes_are_bootstrapped(env_id: str, limit: int, kinds: set[str]) -> None:
    recorder = Recorder()
    small(vec_env(env_id, max_episode_steps=limit)).learn(3 * ROLLOUT, callback=recorder)
    assert recorder.kinds == kinds


# -- (d) reproducibility ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_seed_decides_the_run() -> None:
    """Runs that take turns in one process do not disturb each other: no global random numbers."""
    runs = [small(seed=1), small(seed=1), small(seed=2)]
    assert runs[0].dataset() == runs[1].dataset()
    for run in runs:  # one after the other
        run.learn(2 * ROLLOUT)
    for _ in range(2):  # in turns
        for run in runs:
            run.learn(ROLLOUT, reset_num_timesteps=False)
    first, again, other = (run.dataset() for run in runs)
    assert first == again
    assert not torch.equal(first.x, other.x)
    for p, q in zip(runs[0].policy.parameters(), runs[1].policy.parameters(), strict=True):
        assert torch.equal(p, q)


def test_without_a_seed_runs_differ_and_say_their_seed() -> None:
    one, two = small(seed=None), small(seed=None)
    assert one.seed != two.seed
    assert one.dataset().card.seed == one.seed
    repeated = small(seed=one.seed)
    assert repeated.dataset() == one.dataset()


# -- (e) learning ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_distils_cart_pole() -> None:
    """Fresh learners, one step on 8 rows, go from about 25 to several hundred steps of balance."""
    task = Task("CartPoleND-v0", {"n": 1})
    model = PPMO(
        "alpha_c",
        task.make_vec_env(64),
        k=8,
        n_learners=8,
        learning_rate=3e-2,
        critic_learning_rate=3e-3,
        n_steps=64,
        batch_size=512,
        n_epochs=8,
        gamma=0.98,
        gae_lambda=0.9,
        inner={"lr": 0.5},
        seed=0,
        device="cpu",
    )
    before = evaluate(model.dataset(), 20, 5, seed=99)
    model.learn(10 * 64 * 64)
    after = evaluate(model.dataset(), 20, 5, seed=99)
    assert before.mean < 60
    assert after.mean > 150
    assert after.min > before.mean


# -- (f) settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_learners": 3}, "n_envs=8 must be a multiple of n_learners=3"),
        ({"n_learners": 0}, "n_learners must be an integer >= 1, but is 0"),
        ({"batch_size": 48}, "batch_size=48 must divide the rollout .* = 128"),
        ({"n_learners": 8, "batch_size": 4}, "batch_size=4 must be a multiple of n_learners=8"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"n_epochs": 0}, "n_epochs must be an integer >= 1"),
        ({"n_steps": 1.5}, "n_steps must be an integer >= 1, but is 1.5"),
        ({"inner": {"steps": 0}}, "inner rule's steps must be an integer"),
        ({"inner": {"momentum": 1.0}}, "inner rule's momentum must be a number in"),
        ({"inner": {"decay": 0.5}}, 'inner rule "sgd" has no setting "decay".*Did you mean "lr_decay"'),
        ({"start": {"x_std": -1}}, "start.x_std must be >= 0, but is -1"),
        ({"start": {"obs_scale": 0}}, "start.obs_scale must be > 0 or None, but is 0"),
        ({"start": {"log_std": "low"}}, "start.log_std must be a number, but is 'low'"),
        ({"start": {"std": 1}}, 'start has no "std"; it has x_std'),
        ({"learning_rates": {"x": 1}}, 'learning_rates has no "x"; it has inner_lr'),
        ({"learning_rates": 0.1}, "learning_rates must be a mapping, but is 0.1"),
        ({"inner": {"lr_hidden": 0}, "learn_lr_hidden": True}, "learn_lr_hidden needs .* above 0"),
        ({"k": 0}, 'k must be an integer >= 1 or "k_min", but is 0'),
        ({"k": "k_max"}, "k must be an integer >= 1 or \"k_min\", but is 'k_max'"),
        ({"inner": {"lr": 0.0}}, "inner rule's lr must be a number from 1e-12 to 1e.12"),
        ({"encoder_layers": 4}, "encoder_layers=4, but the architecture has only 3 layers"),
        ({"encoder_layers": -1}, "encoder_layers=-1"),
        ({"learners": "random_h", "encoder_layers": 1}, "has no single architecture"),
        ({"learners": "universal", "encoder_layers": 3}, "has no single architecture"),
        ({"learners": "alfa_c"}, r'no learners named "alfa_c".*Did you mean "alpha_c"\?'),
        ({"critic": "alfa_c"}, r'no learners named "alfa_c".*Did you mean "alpha_c"\?'),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskDistillError, match=message) as caught:
        small(**settings)
    assert "\n" not in str(caught.value)


def test_k_min_is_for_discrete_actions() -> None:
    with pytest.raises(TaskDistillError, match='"k_min" needs discrete actions'):
        small(vec_env("Pendulum-v1"), k="k_min")


@pytest.mark.parametrize(("n", "rows"), [(1, 2), (2, 3), (5, 6)])
def test_k_min_follows_equation_3(n: int, rows: int) -> None:
    model = small(Task("CartPoleND-v0", {"n": n}).make_vec_env(N_ENVS), k="k_min")
    assert model.dataset().x.shape == (rows, 4 * n)
    assert model.dataset().y.shape == (rows, 2 * n)


# -- (g) continuous actions and schedules ----------------------------------------------------------


def test_it_runs_on_continuous_actions() -> None:
    model = small(vec_env("Pendulum-v1"), start={"log_std": -0.5})
    initial = model.loop.trained(create_graph=False).log_std
    assert initial is not None
    torch.testing.assert_close(initial, torch.full((M, 1), -0.5))
    model.learn(3 * ROLLOUT)
    assert model.num_timesteps == 3 * ROLLOUT
    dataset = model.dataset()
    assert dataset.k == 4
    assert dataset.log_std is not None
    assert model.loop.log_std is not None
    # One step from 0 on the label: 2 · lr · label / A.
    reached = 2 * dataset.rule.lr * dataset.log_std / 1
    torch.testing.assert_close(reached, model.loop.log_std.detach())
    logged = model.logger.name_to_value
    std = torch.exp(reached).item()
    assert logged["train/std"] == pytest.approx(std, rel=1e-5)
    assert logged["train/std"] != pytest.approx(np.exp(-0.5), rel=1e-4)
    assert logged["train/inner_lr"] == pytest.approx(dataset.rule.lr)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("lr", [0.02, 0.5, 1.0])
@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_trained_learners_start_from_the_log_std_of_the_start(steps: int, lr: float, momentum: float) -> None:
    """Also at a learning rate of one, where two steps lead a log-std of one dimension back to 0."""
    env = vec_env("Pendulum-v1")
    try:
        inner = {"steps": steps, "lr": lr, "momentum": momentum}
        model = small(env, inner=inner, start={"log_std": -0.7})
    except TaskDistillError as error:
        assert lr == 1.0 and steps == 2 and not momentum
        assert "use a smaller lr" in str(error)
        return
    log_std = model.loop.trained(create_graph=False).log_std
    torch.testing.assert_close(log_std, torch.full((M, 1), -0.7), atol=1e-5, rtol=0)


def test_actions_sent_to_the_env_are_clipped_and_stored_unclipped() -> None:
    seen: list[np.ndarray] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(self.locals["env_actions"].copy())
            return True

    model = small(vec_env("Pendulum-v1"), start={"log_std": 1.5})
    model.learn(ROLLOUT, callback=Watch())
    stored = model.rollout_buffer.actions
    assert stored.shape == (N_STEPS, N_ENVS, 1)
    assert np.abs(stored).max() > 2.0
    np.testing.assert_array_equal(np.stack(seen), stored.clip(-2.0, 2.0))


def test_learning_rates_follow_their_schedules() -> None:
    rates: list[dict[str, float]] = []

    class Watch(BaseCallback):
        def _on_rollout_start(self) -> None:
            groups = self.model.loop.optimizer.param_groups  # type: ignore[attr-defined]
            rates.append({g["name"]: g["lr"] for g in groups})

        def _on_step(self) -> bool:
            return True

    model = small(
        vec_env("Pendulum-v1"),
        encoder_layers=1,
        learning_rate=lambda progress: 0.01 * progress,
        learning_rates={"inner_lr": 0.5, "log_std": lambda progress: 0.2 * progress, "encoder": None},
        critic_learning_rate=lambda progress: 0.1 * progress**2,
    )
    model.learn(5 * ROLLOUT, callback=Watch())
    for i, rate in enumerate(rates[1:], start=1):  # seen after the i-th training
        progress = 1 - i / 5
        assert rate == pytest.approx(
            {
                "dataset": 0.01 * progress,
                "encoder": 0.01 * progress,
                "inner_lr": 0.5,
                "log_std": 0.2 * progress,
                "critic": 0.1 * progress**2,
            }
        )
    assert len(rates) == 5
    assert model.loop.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_clip_range_follows_its_schedule() -> None:
    model = small(clip_range=lambda progress: 0.1 + 0.2 * progress)
    model.learn(2 * ROLLOUT)
    assert model.logger.name_to_value["train/clip_range"] == pytest.approx(0.1)


def test_dataset_and_critic_have_their_own_gradient_clips() -> None:
    """A huge value loss must not shrink the dataset's step."""
    norms: list[tuple[float, float]] = []
    model = small(vf_coef=1e6, max_grad_norm=1e-3)

    def norm(is_critic: bool) -> float:
        groups = [g for g in model.loop.optimizer.param_groups if (g["name"] == "critic") == is_critic]
        return torch.cat([p.grad.flatten() for g in groups for p in g["params"]]).norm().item()

    def hook(*_: Any) -> None:
        norms.append((norm(False), norm(True)))

    model.loop.optimizer.register_step_pre_hook(hook)
    model.learn(ROLLOUT)
    assert len(norms) == 8
    for dataset_norm, critic_norm in norms:
        assert dataset_norm == pytest.approx(1e-3, rel=1e-2)
        assert critic_norm == pytest.approx(1e-3, rel=1e-2)


# -- (h) the KL limit ------------------------------------------------------------------------------


def count_steps(model: PPMO) -> list[int]:
    steps: list[int] = []
    model.loop.optimizer.register_step_post_hook(lambda *_: steps.append(model.num_timesteps))
    return steps


def test_a_tiny_kl_limit_stops_the_epochs_after_the_first_minibatch() -> None:
    """The first minibatch has a KL of 0: the policy is still the one that acted."""
    free, limited = small(learning_rate=0.1), small(learning_rate=0.1, target_kl=1e-5)
    free_steps, limited_steps = count_steps(free), count_steps(limited)
    free.learn(2 * ROLLOUT)
    limited.learn(2 * ROLLOUT)
    n_minibatches = ROLLOUT // 32
    assert free_steps == [ROLLOUT] * 2 * n_minibatches + [2 * ROLLOUT] * 2 * n_minibatches
    assert limited_steps == [ROLLOUT, 2 * ROLLOUT]
    assert free._n_updates == 4
    assert limited._n_updates <= 2
    assert limited.logger.name_to_value["train/approx_kl"] > 0


def test_a_loose_kl_limit_changes_nothing() -> None:
    free, limited = small(), small(target_kl=1e3)
    free.learn(2 * ROLLOUT)
    limited.learn(2 * ROLLOUT)
    assert free.dataset() == limited.dataset()


# -- (i) the snapshot ------------------------------------------------------------------------------


def test_the_snapshot_holds_the_normalisers_statistics() -> None:
    env = VecNormalize(vec_env("Pendulum-v1"), clip_obs=1.5)
    model = small(env, gamma=0.99)
    model.learn(3 * ROLLOUT)
    dataset = model.dataset()
    assert dataset.obs_mean is not None
    assert dataset.obs_var is not None
    mean, var = env.obs_rms.mean, env.obs_rms.var
    assert np.abs(mean).max() > 1e-3
    np.testing.assert_allclose(dataset.obs_mean.numpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(dataset.obs_var.numpy(), var, rtol=1e-6)
    assert dataset.clip_obs == 1.5
    raw = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) * 3
    ours = dataset.normalize(torch.as_tensor(raw)).numpy()
    np.testing.assert_allclose(ours, env.normalize_obs(raw), atol=1e-5)
    assert np.abs(ours).max() == 1.5
    model.learn(ROLLOUT, reset_num_timesteps=False)
    np.testing.assert_allclose(dataset.obs_mean.numpy(), mean, rtol=1e-6)  # frozen


def test_the_place_of_observations_is_learned_and_frozen() -> None:
    model = small(
        VecNormalize(vec_env("Pendulum-v1")), gamma=0.99, start={"obs_scale": 0.5, "obs_shift": 0.7}
    )
    start = model.dataset()
    model.learn(3 * ROLLOUT)
    dataset = model.dataset()
    for name, value in (("obs_scale", 0.5), ("obs_shift", 0.7)):
        first, learned = getattr(start, name), getattr(dataset, name)
        torch.testing.assert_close(first, torch.full((3,), value))
        assert not torch.allclose(learned, first, rtol=1e-3)
    # Learners that the dataset trains see in its own env what the current ones see in training.
    raw = torch.randn(model.n_learners, 5, 3, generator=torch.Generator().manual_seed(0))
    loop, env = model.loop, model.get_vec_normalize_env()
    assert env is not None
    trained = loop.trained(create_graph=False)
    seen = loop.features(torch.as_tensor(env.normalize_obs(raw.numpy())))
    own = trained.action_distribution(dataset.normalize(raw))
    torch.testing.assert_close(own.mode(), trained.act(seen, loop.trunk).mode(), atol=1e-5, rtol=1e-5)


def test_a_warm_start_takes_over_the_place_of_observations() -> None:
    env = VecNormalize(vec_env("Pendulum-v1"))
    placed = small(env, gamma=0.99, start={"obs_scale": 0.5, "obs_shift": -1.0}).dataset()
    other = small(env, gamma=0.99, start={"obs_scale": 0.1, "obs_shift": 2.0})
    other.load_dataset(placed)
    for name in ("obs_scale", "obs_shift", "x"):
        torch.testing.assert_close(getattr(other.dataset(), name), getattr(placed, name))
    other.load_dataset(placed.replace(obs_scale=None, obs_shift=None))  # learners saw them as they are
    torch.testing.assert_close(other.dataset().obs_scale, torch.ones(3))
    torch.testing.assert_close(other.dataset().obs_shift, torch.zeros(3))
    with pytest.raises(TaskDistillError, match="obs_scale"):
        small(env, gamma=0.99).load_dataset(placed)
    with pytest.raises(TaskDistillError, match="obs_shift"):
        small(env, gamma=0.99, start={"obs_scale": 1}).load_dataset(placed)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda: VecFrameStack(VecNormalize(vec_env("Pendulum-v1")), 2), "make VecNormalize the outermost"),
        (lambda: VecNormalize(image_envs()), "no statistics of images"),
        (lambda: VecNormalize(dict_envs(1000.0), norm_obs_keys=["small"]), 'normalises, but not "other"'),
    ],
)
def test_statistics_that_no_dataset_can_freeze_are_refused_at_once(wrap: Any, message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        small(wrap())


def image_envs() -> VecEnv:
    return make_vec_env(lambda: RandomEnv(spaces.Box(0, 255, (36, 36, 3), np.uint8)), N_ENVS)


def dict_envs(bound: float = 1.0) -> VecEnv:
    parts = {"small": spaces.Box(-1, 1, (2,)), "other": spaces.Box(-bound, bound, (2, 2))}
    return make_vec_env(lambda: RandomEnv(spaces.Dict(parts)), N_ENVS)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: VecNormalize(vec_env("Pendulum-v1"), epsilon=0.1),
        lambda: VecNormalize(dict_envs(), clip_obs=1.5),
        lambda: VecNormalize(dict_envs(), norm_obs_keys=["other"]),
    ],
    ids=["epsilon", "all of a dictionary", "a part of it"],
)
def test_statistics_are_frozen_as_the_vec_env_applied_them(wrap: Any) -> None:
    env = wrap()
    model = small(env, gamma=0.99, learners=MLP(width=8))
    model.learn(ROLLOUT)
    dataset = model.dataset()
    raw = env.venv.reset()
    shown = as_batch(env.observation_space, env.normalize_obs(raw))[0]
    ours = dataset.normalize(torch.as_tensor(as_batch(env.venv.observation_space, raw)[0]).float())
    np.testing.assert_allclose(ours, shown, atol=1e-5)
    # A run that starts from the dataset goes on with them, and a checkpoint keeps all of them.
    other = wrap()
    small(other, gamma=0.99, learners=MLP(width=8)).load_dataset(dataset)
    np.testing.assert_allclose(
        as_batch(env.observation_space, other.normalize_obs(raw))[0], shown, rtol=1e-4, atol=1e-4
    )
    fresh = wrap()
    statistics.load_state(fresh, statistics.state(env))
    np.testing.assert_array_equal(as_batch(env.observation_space, fresh.normalize_obs(raw))[0], shown)


@pytest.mark.parametrize("wrap", [False, True])
def test_without_observation_normalisation_there_are_no_statistics(wrap: bool) -> None:
    env = vec_env()
    dataset = small(VecNormalize(env, norm_obs=False) if wrap else env).dataset()
    assert dataset.obs_mean is None
    assert dataset.obs_var is None
    assert dataset.clip_obs is None


def test_the_snapshot_is_what_was_learned_and_does_not_change() -> None:
    model = small(learners=MLP(width=16), inner={"steps": 2}, encoder_layers=1)
    model.learn(ROLLOUT)
    loop, dataset = model.loop, model.dataset()
    assert torch.equal(dataset.x, loop.x.detach())
    assert torch.equal(dataset.y, loop.y.detach())
    assert dataset.rule == loop.rule.detached() and dataset.rule.steps == 2
    assert dataset.log_std is None
    assert {name: tuple(t.shape) for name, t in dataset.encoder.items()} == {
        "0.weight": (16, 4),
        "0.bias": (16,),
    }
    assert torch.equal(dataset.encoder["0.weight"], loop.encoder_network.params[0][0].detach())
    card = dataset.card
    assert (card.env_id, card.seed, card.num_timesteps) == ("CartPole-v1", 0, ROLLOUT)
    assert card.learners == MLP(width=16).spec()
    digest = dataset.digest
    model.learn(ROLLOUT, reset_num_timesteps=False)
    assert dataset.digest == digest
    assert model.dataset().digest != digest


def test_the_snapshot_names_the_env_with_its_arguments() -> None:
    task = Task("CartPoleND-v0", {"n": 2})
    card = small(task.make_vec_env(N_ENVS)).dataset().card
    assert (card.env_id, card.env_kwargs) == ("CartPoleND-v0", {"n": 2})


@pytest.mark.parametrize("make", [lambda t: t.make_vec_env(N_ENVS), lambda t: sb3_vec_env(t)])
@pytest.mark.parametrize("task", [Task("Pendulum-v1", {"g": 5.0}), Task("CartPole-v1")], ids=str)
def test_the_card_alone_makes_the_task_again(task: Task, make: Callable[[Task], VecEnv]) -> None:
    """A render mode belongs to the run, not to the task."""
    dataset = small(make(task)).dataset()
    assert dataset.card.env_kwargs == task.env_kwargs
    assert evaluate(dataset, 1, 1).task == task


def sb3_vec_env(task: Task) -> VecEnv:
    """Make the env as SB3's users do; SB3 asks for frames on its own."""
    return make_vec_env(task.env_id, N_ENVS, env_kwargs=dict(task.env_kwargs))


def test_a_snapshot_survives_its_file() -> None:
    model = small(VecNormalize(vec_env("Pendulum-v1")), encoder_layers=2)
    model.learn(ROLLOUT)
    dataset = model.dataset()
    assert DistilledDataset.load(dataset.save("snapshot")) == dataset


def test_predict_acts_like_the_learners_of_the_meta_epoch() -> None:
    model = small()
    model.learn(ROLLOUT)
    obs = np.random.default_rng(0).normal(size=(N_ENVS, 4)).astype(np.float32)
    actions, _ = model.predict(obs, deterministic=True)
    trained = model.loop.trained(create_graph=False)
    expected = trained.learners(torch.as_tensor(obs).unflatten(0, (M, -1))).argmax(-1).flatten()
    np.testing.assert_array_equal(actions, expected)
    single, _ = model.predict(obs[0], deterministic=True)
    assert single == actions[0]
    sampled, _ = model.predict(obs)
    assert set(np.unique(sampled)) <= {0, 1}


def test_learning_on_needs_no_new_object() -> None:
    model = small()
    model.learn(ROLLOUT)
    model.learn(ROLLOUT, reset_num_timesteps=False)
    assert model.num_timesteps == 2 * ROLLOUT
    assert model.dataset().card.num_timesteps == 2 * ROLLOUT


def test_the_critic_may_warm_up_first() -> None:
    model = small(critic_warmup=2 * ROLLOUT)
    start, critic = model.dataset(), [p.detach().clone() for p in model.policy.critic.parameters()]
    model.learn(2 * ROLLOUT)
    warm = model.dataset()
    assert torch.equal(warm.x, start.x) and torch.equal(warm.y, start.y) and warm.rule == start.rule
    assert not any(torch.equal(p, q) for p, q in zip(model.policy.critic.parameters(), critic, strict=True))
    model.learn(ROLLOUT, reset_num_timesteps=False)
    assert not torch.equal(model.dataset().x, start.x)


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_a_growing_inner_learning_rate_leaves_exploration_alone(inner_steps: int) -> None:
    """The log standard deviation that acts is learned, not the label it comes from."""
    env = vec_env("Pendulum-v1")
    inner = {"steps": inner_steps, "momentum": 0.5}
    model = small(env, inner={**inner, "lr": 0.02}, start={"log_std": -0.7})
    with torch.no_grad():
        model.loop.log_inner_lr += 1.0
    trained = model.loop.trained(create_graph=True).log_std
    assert trained is not None
    torch.testing.assert_close(trained.detach(), torch.full((M, 1), -0.7))
    (slope,) = torch.autograd.grad(trained.sum(), model.loop.log_inner_lr)
    assert abs(slope.item()) < 1e-5
    # A run that starts from the dataset has the same exploration.
    other = small(env, inner=inner, start={"log_std": -0.1})
    other.load_dataset(model.dataset())
    assert other.loop.log_std is not None
    torch.testing.assert_close(other.loop.log_std.detach(), torch.tensor([-0.7]))
