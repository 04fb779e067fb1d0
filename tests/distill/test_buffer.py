"""The rollout buffer: SB3's storage and advantages, minibatches by learner."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from gym_taskdistill.distill.buffer import LearnerRolloutBuffer

T, M, E = 6, 3, 4
GAMMA, LAMBDA = 0.97, 0.9

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (2,), dtype=np.float64)
ACTIONS: dict[str, gym.Space] = {
    "discrete": spaces.Discrete(500),
    "box": spaces.Box(-1, 1, (3,)),
}
kinds = pytest.mark.parametrize("kind", ACTIONS)


def make(kind: str = "discrete", n_learners: int = M, seed: int = 0) -> LearnerRolloutBuffer:
    return LearnerRolloutBuffer(
        T,
        OBSERVATIONS,
        ACTIONS[kind],
        device="cpu",
        gae_lambda=LAMBDA,
        gamma=GAMMA,
        n_envs=M * E,
        n_learners=n_learners,
        generator=torch.Generator().manual_seed(seed),
    )


def fill(buffer: RolloutBuffer) -> dict[str, np.ndarray]:
    """Fill a buffer; step t of column i is number ``1 + t·M·E + i`` in every field."""
    rng = np.random.default_rng(0)
    columns = np.arange(M * E)
    record: dict[str, list[np.ndarray]] = {name: [] for name in ("reward", "start", "value")}
    start = np.ones(M * E, dtype=bool)
    for t in range(T):
        number = 1.0 + t * M * E + columns
        reward, value = rng.normal(size=M * E), rng.normal(size=M * E).astype(np.float32)
        discrete = isinstance(buffer.action_space, spaces.Discrete)
        action = number[:, None].astype(int) if discrete else number[:, None] * [1, 2, 3]
        buffer.add(
            np.stack([number, columns // E], axis=1),
            action,
            reward,
            start,
            torch.as_tensor(value),
            torch.as_tensor(-number),
        )
        for name, array in (("reward", reward), ("start", start), ("value", value)):
            record[name].append(array)
        start = rng.random(M * E) < 0.3
    last_value = rng.normal(size=M * E).astype(np.float32)
    buffer.compute_returns_and_advantage(torch.as_tensor(last_value), start)
    arrays = {name: np.stack(rows) for name, rows in record.items()}
    return {**arrays, "last_value": last_value, "last_done": start}


def numbers(data: RolloutBufferSamples) -> torch.Tensor:
    return data.observations[..., 0]


@kinds
@pytest.mark.parametrize("batch_size", [M, 4 * M, 24, None])
def test_each_transition_comes_once_and_to_its_own_learner(kind: str, batch_size: int | None) -> None:
    buffer = make(kind)
    fill(buffer)
    for _ in range(2):  # epochs
        batches = list(buffer.get(batch_size))
        per_learner = (batch_size or T * M * E) // M
        assert len(batches) == T * E // per_learner
        for data in batches:
            assert numbers(data).shape == (M, per_learner)
            assert torch.equal(
                data.observations[..., 1],
                torch.arange(M).float().unsqueeze(1).expand(M, per_learner),
            )
        seen = torch.cat([numbers(data) for data in batches], dim=1)
        assert sorted(seen.flatten().tolist()) == list(range(1, T * M * E + 1))
        columns = (seen.long() - 1) % (M * E)
        assert torch.equal(columns // E, torch.arange(M).unsqueeze(1).expand_as(columns))


@kinds
def test_the_fields_of_a_transition_stay_together(kind: str) -> None:
    buffer = make(kind)
    fill(buffer)
    for data in buffer.get(12):
        number = numbers(data)
        step, column = (number.long() - 1) // (M * E), (number.long() - 1) % (M * E)
        if kind == "discrete":
            assert data.actions.shape == (M, 4)
            assert torch.equal(data.actions.long(), number.long())
        else:
            assert data.actions.shape == (M, 4, 3)
            assert torch.equal(data.actions, number.unsqueeze(-1) * torch.tensor([1.0, 2.0, 3.0]))
        assert torch.equal(data.old_log_prob, -number)
        for samples, stored in (
            (data.old_values, buffer.values),
            (data.advantages, buffer.advantages),
            (data.returns, buffer.returns),
        ):
            assert samples.shape == (M, 4)
            assert torch.equal(samples, torch.as_tensor(stored[step, column]))


def test_minibatches_are_shuffled_for_each_learner_by_the_generator() -> None:
    def order(buffer: LearnerRolloutBuffer) -> torch.Tensor:
        return torch.cat([numbers(data) for data in buffer.get(12)], dim=1)

    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    for buffer in (first, again, other):
        fill(buffer)
    np.random.seed(1)
    torch.manual_seed(1)
    epochs = [order(first), order(first)]
    np.random.seed(2)
    torch.manual_seed(2)
    assert torch.equal(order(again), epochs[0])
    assert torch.equal(order(again), epochs[1])
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(order(other), epochs[0])
    # Relative to its own columns, every learner has an order of its own.
    relative = epochs[0] - E * torch.arange(M).unsqueeze(1)
    assert not torch.equal(relative[0], relative[1])


@kinds
def test_one_learner_sees_the_transitions_of_sb3s_buffer(kind: str) -> None:
    ours = make(kind, n_learners=1)
    theirs = RolloutBuffer(
        T, OBSERVATIONS, ACTIONS[kind], "cpu", gae_lambda=LAMBDA, gamma=GAMMA, n_envs=M * E
    )
    fill(ours)
    fill(theirs)

    def rows(buffer: RolloutBuffer, **settings: Any) -> np.ndarray:
        table = []
        for data in buffer.get(**settings):
            fields = [field.flatten(0, 1) if buffer is ours else field for field in data if field is not None]
            table.append(np.column_stack([f.numpy().reshape(len(fields[0]), -1) for f in fields]))
        joined = np.concatenate(table).astype(np.float32)
        return joined[np.lexsort(joined.T[::-1])]

    np.testing.assert_array_equal(rows(ours, batch_size=8), rows(theirs, batch_size=8))


def test_advantages_equal_their_definition() -> None:
    """A_t = Σ_l (γλ)^l δ_{t+l} up to the end of the episode, δ_t = r_t + γ V_{t+1} - V_t."""
    buffer = make()
    record = fill(buffer)
    values = np.vstack([record["value"], record["last_value"]]).astype(np.float64)
    starts = np.vstack([record["start"], record["last_done"]])
    assert starts[1:].any()
    assert not starts[1:].all()
    for column in range(M * E):
        for t in range(T):
            advantage, weight = 0.0, 1.0
            for s in range(t, T):
                ends = starts[s + 1, column]
                following = 0.0 if ends else values[s + 1, column]
                advantage += weight * (record["reward"][s, column] + GAMMA * following - values[s, column])
                if ends:
                    break
                weight *= GAMMA * LAMBDA
            assert buffer.advantages[t, column] == pytest.approx(advantage, abs=1e-5)
            assert buffer.returns[t, column] == pytest.approx(advantage + values[t, column], abs=1e-5)


def test_observations_are_kept_in_float32_and_images_as_they_are() -> None:
    buffer = make()
    fill(buffer)
    assert buffer.observations.dtype == np.float32
    assert next(iter(buffer.get(12))).observations.dtype == torch.float32
    buffer.reset()
    assert buffer.observations.dtype == np.float32
    assert not buffer.full
    images = LearnerRolloutBuffer(
        2, spaces.Box(0, 255, (1, 4, 4), dtype=np.uint8), spaces.Discrete(2), "cpu", n_envs=2
    )
    assert images.observations.dtype == np.uint8
    ram = LearnerRolloutBuffer(
        2, spaces.Box(0, 255, (128,), dtype=np.uint8), spaces.Discrete(2), "cpu", n_envs=2
    )
    assert ram.observations.dtype == np.float32  # it comes normalised


def test_a_rollout_must_be_complete() -> None:
    with pytest.raises(AssertionError, match="must be full"):
        next(make().get(12))


def test_a_second_rollout_replaces_the_first() -> None:
    buffer = make()
    fill(buffer)
    list(buffer.get(12))
    buffer.reset()
    fill(buffer)
    buffer.rewards[:] = 0
    seen = torch.cat([numbers(data) for data in buffer.get(12)], dim=1)
    assert sorted(seen.flatten().tolist()) == list(range(1, T * M * E + 1))
