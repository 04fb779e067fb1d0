"""Evaluation: every agent plays its episodes, and they are what a plain loop would play."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from torch import nn

from gym_taskdistill.dataset.card import Card, space_to_dict
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.learners import ALPHA_C, MLP, LearnerDistribution, Learners, LearnerStack
from gym_taskdistill.policies import evaluation as evaluation_module
from gym_taskdistill.policies.evaluation import Evaluation, evaluate
from gym_taskdistill.tasks.processes import ProcessVecEnv
from gym_taskdistill.tasks.task import Task
from gym_taskdistill.tasks.vec_env import ColumnsVecEnv

CARTPOLE_ND = Task("CartPoleND-v0", {"n": 1})
CARTPOLE = Task("CartPole-v1")
PENDULUM = Task("Pendulum-v1")


def dataset(task: Task, **changes: Any) -> DistilledDataset:
    """Make a dataset by hand: push towards the side to which the pole falls."""
    falling = torch.tensor([[0.0, 0.0, 0.1, 0.5], [0.0, 0.0, -0.1, -0.5]])
    fields: dict[str, Any] = {
        "x": falling,
        "y": torch.tensor([[-4.0, 4.0], [4.0, -4.0]]),
        "rule": InnerSGD(lr=1.0),
        "card": Card(
            env_id=task.env_id,
            env_kwargs=task.env_kwargs,
            observation_space=space_to_dict(task.observation_space),
            action_space=space_to_dict(task.action_space),
            learners=ALPHA_C.spec(),
        ),
    }
    return DistilledDataset(**(fields | changes))


def pendulum() -> DistilledDataset:
    return dataset(
        PENDULUM,
        x=torch.eye(3),
        y=torch.tensor([[0.5], [-1.0], [2.0]]),
        log_std=torch.tensor([-0.2]),
        obs_mean=torch.tensor([0.1, 0.0, -0.1]),
        obs_var=torch.tensor([0.5, 0.5, 4.0]),
        clip_obs=10.0,
    )


def test_the_table_has_one_row_per_agent() -> None:
    finished: list[int] = []
    evaluation = evaluate(dataset(CARTPOLE_ND), 7, 6, progress=finished.append)
    assert evaluation.returns.shape == evaluation.lengths.shape == (7, 6)
    assert sum(finished) == 42
    # Every step is rewarded with 1.
    np.testing.assert_array_equal(evaluation.returns, evaluation.lengths)
    assert evaluation.lengths.min() >= 8
    assert evaluation.lengths.max() <= 500
    assert (evaluation.task, evaluation.seed, evaluation.deterministic) == (CARTPOLE_ND, 0, False)


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_columns_that_rest_change_nothing(n_jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are stepped no more, and all others step as they would have, in the batches after it too."""
    monkeypatch.setitem(evaluation_module.MAX_COLUMNS, False, 4)
    steps: list[int] = []
    step = CartPoleEnv.step
    monkeypatch.setattr(CartPoleEnv, "step", lambda *args: steps.append(1) or step(*args))
    distilled = dataset(CARTPOLE)
    rested = evaluate(distilled, 10, 2, seed=3, n_jobs=n_jobs)
    if n_jobs == 1:
        assert len(steps) == rested.lengths.sum()  # not one in vain
    for vec_env in (ColumnsVecEnv, ProcessVecEnv):
        monkeypatch.setattr(vec_env, "rest", lambda *_: None)
    all_stepped = evaluate(distilled, 10, 2, seed=3, n_jobs=n_jobs)
    np.testing.assert_array_equal(rested.returns, all_stepped.returns)
    assert len(set(rested.lengths.flatten())) > 5


def test_processes_change_nothing() -> None:
    """The last tile has fewer columns than the first, and more processes than one share of either."""
    one, three = (evaluate(dataset(CARTPOLE), n_agents=70, n_episodes=1, seed=5, n_jobs=n) for n in (1, 3))
    np.testing.assert_array_equal(three.returns, one.returns)
    np.testing.assert_array_equal(three.lengths, one.lengths)
    assert len(set(one.returns.ravel())) > 5


@pytest.mark.slow
@pytest.mark.parametrize("n_agents", [1, 70])
def test_envs_that_are_not_vectorised_play_in_chunks(n_agents: int) -> None:
    """70 agents do not fit the 64 columns that run side by side, nor do they divide them."""
    assert not CARTPOLE.is_vectorised
    finished: list[int] = []
    evaluation = evaluate(dataset(CARTPOLE), n_agents, 1, progress=finished.append)
    assert evaluation.returns.shape == (n_agents, 1)
    assert sum(finished) == n_agents
    np.testing.assert_array_equal(evaluation.returns, evaluation.lengths)
    assert evaluation.lengths.min() >= 8
    if n_agents == 70:
        # The agents of the second chunk are new ones in new episodes.
        assert not np.array_equal(evaluation.returns[64:], evaluation.returns[:6])


def test_continuous_actions_and_frozen_statistics() -> None:
    evaluation = evaluate(pendulum(), 3, 2)
    assert evaluation.returns.shape == (3, 2)
    assert (evaluation.lengths == 200).all()
    assert (evaluation.returns < 0).all()
    assert len(np.unique(evaluation.returns)) == 6


def test_agents_see_normalised_observations() -> None:
    """Statistics under which all observations look alike leave nothing but a constant push."""
    sees = evaluate(dataset(CARTPOLE_ND), 5, 4, deterministic=True)
    blind = dataset(CARTPOLE_ND, obs_mean=torch.full((4,), 100.0), obs_var=torch.ones(4), clip_obs=1.0)
    lengths = evaluate(blind, 5, 4, deterministic=True).lengths
    assert lengths.max() <= 11
    assert sees.lengths.min() > 11


class Clones(LearnerDistribution):
    """Learners without any variety."""

    def sample(
        self,
        n_learners: int,
        obs_shape: Sequence[int],
        n_outputs: int,
        generator: torch.Generator,
        part: slice = slice(None),
    ) -> Learners:
        same = torch.Generator().manual_seed(0)
        (one,) = ALPHA_C.sample(1, obs_shape, n_outputs, same, part).stacks
        params = tuple(p.repeat(n_learners, *[1] * (p.dim() - 1)) for p in one.params)
        return Learners([LearnerStack(one.layers, params, n_learners)])


def test_every_episode_has_its_own_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clones that always take the mode differ in nothing but their envs."""
    monkeypatch.setattr(evaluation_module, "MAX_COLUMNS", {True: 2, False: 2})
    evaluation = evaluate(pendulum(), 4, 2, learners=Clones(), deterministic=True)
    assert len(np.unique(evaluation.returns)) == 8


@pytest.mark.slow
@pytest.mark.parametrize("task", [CARTPOLE_ND, CARTPOLE], ids=str)
@pytest.mark.parametrize("deterministic", [False, True])
def test_the_seed_decides_the_result(task: Task, deterministic: bool) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = evaluate(dataset(task), 5, 4, seed=3, deterministic=deterministic)
    torch.manual_seed(2)
    np.random.seed(2)
    again = evaluate(dataset(task), 5, 4, seed=3, deterministic=deterministic)
    other = evaluate(dataset(task), 5, 4, seed=4, deterministic=deterministic)
    np.testing.assert_array_equal(first.returns, again.returns)
    assert not np.array_equal(first.returns, other.returns)


def test_the_mode_differs_from_sampling() -> None:
    sampled = evaluate(dataset(CARTPOLE_ND), 10, 5)
    mode = evaluate(dataset(CARTPOLE_ND), 10, 5, deterministic=True)
    assert not np.array_equal(sampled.returns, mode.returns)
    assert mode.mean > sampled.mean  # this dataset is right but timid
    assert mode.score.deterministic
    assert "deterministic" in str(mode)
    assert "stochastic" in str(sampled)


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [False, True])
def test_it_agrees_with_a_plain_loop_over_single_envs(deterministic: bool) -> None:
    """The oracle: one agent, one env, one step at a time; torch's own modules, SGD and sampling."""
    data = dataset(CARTPOLE_ND)
    evaluation = evaluate(data, 100, 3, deterministic=deterministic, seed=1)
    torch.manual_seed(0)
    means = []
    env = gym.make("CartPoleND-v0", n=1)
    for agent in range(12):
        policy = _train_plainly(data)
        returns = [
            _play_plainly(env, policy, deterministic, seed=1000 + 2 * agent + episode) for episode in range(2)
        ]
        means.append(np.mean(returns))
    ours, theirs = evaluation.agent_means, np.array(means)
    error = np.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs))
    assert abs(ours.mean() - theirs.mean()) < 4 * error
    assert error < 0.15 * theirs.mean()  # so that the comparison means something
    assert theirs.mean() > 35  # and is not about agents that learned nothing


def _play_plainly(env: gym.Env, policy: nn.Module, deterministic: bool, seed: int) -> float:
    obs, _ = env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        with torch.no_grad():
            probabilities = policy(torch.as_tensor(obs)).softmax(-1)
        sampled = torch.multinomial(probabilities, 1)
        action = probabilities.argmax() if deterministic else sampled
        obs, reward, terminated, truncated, _ = env.step(int(action))
        total += float(reward)
        done = terminated or truncated
    return total


def _train_plainly(data: DistilledDataset) -> nn.Sequential:
    """Train a fresh alpha_c network with torch's own tools."""
    layers = [nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2)]
    for layer, gain in zip(layers[::2], (2**0.5, 2**0.5, 0.01), strict=True):
        assert isinstance(layer, nn.Linear)
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    policy = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(policy.parameters(), lr=data.rule.lr)
    nn.functional.mse_loss(policy(data.x), data.y).backward()
    optimizer.step()
    return policy


@pytest.mark.slow
def test_short_episodes_are_not_over_represented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping at the first n episodes that end, over all columns, would bias returns downwards."""
    all_at_once = evaluate(dataset(CARTPOLE_ND), 64, 6, seed=1)
    monkeypatch.setattr(evaluation_module, "MAX_COLUMNS", {True: 3 * 64, False: 1})
    in_turns = evaluate(dataset(CARTPOLE_ND), 64, 6, seed=2)  # 3 columns for each agent
    error = np.hypot(all_at_once.std, in_turns.std) / np.sqrt(64)
    assert abs(all_at_once.mean - in_turns.mean) < 4 * error
    # Each column's first and second episode alike.
    first, second = in_turns.returns[:, ::2].mean(), in_turns.returns[:, 1::2].mean()
    assert abs(first - second) < 4 * np.hypot(*in_turns.returns.std(axis=0)[:2]) / np.sqrt(3 * 64)


def test_the_summary_is_over_agents() -> None:
    returns = np.array([[1.0, 3.0], [10.0, 30.0], [5.0, 5.0]])
    evaluation = Evaluation(returns, returns.astype(np.int64), CARTPOLE_ND, "alpha_c", False, 9)
    np.testing.assert_array_equal(evaluation.agent_means, [2.0, 20.0, 5.0])
    assert evaluation.mean == 9.0
    assert evaluation.std == pytest.approx(np.sqrt((49 + 121 + 16) / 3))
    assert evaluation.min == 2.0
    score = evaluation.score
    assert (score.mean, score.std, score.min) == (evaluation.mean, evaluation.std, evaluation.min)
    assert (score.n_agents, score.n_episodes, score.seed) == (3, 2, 9)
    assert score.agent_means == (2.0, 20.0, 5.0)
    assert score.env_id == "CartPoleND-v0"
    assert str(evaluation) == f"9.00 ± 7.87 (worst agent 2.00; {score.protocol})"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learners", "name"),
    [
        (None, "alpha_c"),
        ("xavier", "xavier"),
        ("random_L", "random_L"),
        (MLP(), "alpha_c"),
        ({"family": "mlp", "gain": 1.0, "last_gain": 1.0}, "ortho_1"),
        (MLP(width=8), "mlp(width=8)"),
    ],
    ids=str,
)
def test_other_learners_can_be_tested_and_are_named(learners: Any, name: str) -> None:
    evaluation = evaluate(dataset(CARTPOLE_ND), 4, 2, learners=learners)
    assert evaluation.learners == evaluation.score.learners == name
    same = evaluate(dataset(CARTPOLE_ND), 4, 2)
    assert np.array_equal(evaluation.returns, same.returns) == (name == "alpha_c")


def test_the_cards_learners_are_the_default() -> None:
    card = dataset(CARTPOLE_ND).card.replace(learners=MLP(width=8).spec())
    small = evaluate(dataset(CARTPOLE_ND, card=card), 4, 2)
    named = evaluate(dataset(CARTPOLE_ND), 4, 2, learners=MLP(width=8))
    np.testing.assert_array_equal(small.returns, named.returns)


def test_another_env_with_the_same_spaces_may_be_the_task() -> None:
    evaluation = evaluate(dataset(CARTPOLE_ND), 2, 2, env=CARTPOLE)
    assert evaluation.score.env_id == "CartPole-v1"


@pytest.mark.parametrize("task", [Task("CartPoleND-v0", {"n": 2}), PENDULUM, Task("Acrobot-v1")], ids=str)
def test_a_task_that_does_not_fit_is_refused(task: Task) -> None:
    with pytest.raises(DatasetError, match="CartPoleND-v0"):
        evaluate(dataset(CARTPOLE_ND), 1, 1, env=task)


def test_a_task_that_cannot_be_made_is_refused() -> None:
    card = dataset(CARTPOLE_ND).card.replace(env_id="CartPoleNX-v0")
    with pytest.raises(TaskDistillError, match=r'no env "CartPoleNX-v0".*Did you mean'):
        evaluate(dataset(CARTPOLE_ND, card=card), 1, 1)


def test_unknown_learners_are_refused() -> None:
    with pytest.raises(TaskDistillError, match=r'Did you mean "xavier"\?'):
        evaluate(dataset(CARTPOLE_ND), 1, 1, learners="xavie")


def test_learners_that_do_not_fit_the_encoder_are_refused() -> None:
    encoder = {"0.weight": torch.zeros(64, 4), "0.bias": torch.zeros(64)}
    shared = dataset(CARTPOLE_ND, x=torch.randn(2, 4), encoder=encoder, encoder_layers=1)
    assert evaluate(shared, 2, 1).returns.shape == (2, 1)
    with pytest.raises(DatasetError, match="encoder does not fit"):
        evaluate(shared, 2, 1, learners=MLP(width=8))


@pytest.mark.parametrize(("n_agents", "n_episodes"), [(0, 1), (1, 0), (-1, 5)])
def test_an_empty_evaluation_is_refused(n_agents: int, n_episodes: int) -> None:
    with pytest.raises(TaskDistillError, match="at least 1 agent and 1 episode"):
        evaluate(dataset(CARTPOLE_ND), n_agents, n_episodes)
