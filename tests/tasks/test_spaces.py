"""Spaces as learners have them, against Gymnasium's and SB3's own rules."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from stable_baselines3.common.vec_env import VecTransposeImage

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.spaces import (
    as_batch,
    check_finite,
    flat_action_space,
    flat_observation_space,
    flatten,
    own_actions,
    random_actions,
    unflatten,
)

OBSERVATIONS = [
    spaces.Discrete(4, start=2),
    spaces.MultiDiscrete([2, 3], start=[1, -1]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 2]])),
    spaces.MultiBinary(3),
    spaces.MultiBinary((2, 2)),
    spaces.Box(-1, 1, ()),
    spaces.Box(-1, 1, (5, 5)),
    spaces.Box(0, 255, (4, 4), np.uint8),
    spaces.Dict(
        {
            "b": spaces.Discrete(3),
            "a": spaces.Box(-1, 1, (2, 2)),
            "nested": spaces.Dict({"t": spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, ())))}),
        }
    ),
    spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (3,)))),
]


@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_observations_are_flattened_as_gymnasium_does(space: gym.Space) -> None:
    space.seed(0)
    singles = [space.sample() for _ in range(5)]
    expected = np.stack([spaces.utils.flatten(space, single) for single in singles])
    columns: Any = concatenate(space, singles, create_empty_array(space, 5))  # as vector envs give them
    for batch in (singles, columns):
        rows = flatten(space, batch)
        np.testing.assert_array_equal(rows, expected)
        assert rows.dtype == expected.dtype
        rows, single = as_batch(space, batch)
        assert not single
        np.testing.assert_array_equal(rows, expected)
    row, single = as_batch(space, singles[0])
    assert single
    np.testing.assert_array_equal(row, expected[:1])
    flat = flat_observation_space(space)
    assert flat == spaces.utils.flatten_space(space)
    np.testing.assert_array_equal(as_batch(space, expected)[0], expected)  # what is flat already
    again = flatten(space, unflatten(space, expected))
    np.testing.assert_array_equal(again, expected)


def test_images_are_transposed_as_sb3_does() -> None:
    space = spaces.Box(0, 255, (36, 40, 3), np.uint8)
    images = np.random.default_rng(0).integers(0, 256, (2, 36, 40, 3)).astype(np.uint8)
    assert flat_observation_space(space) == VecTransposeImage.transpose_space(space)
    np.testing.assert_array_equal(flatten(space, images), VecTransposeImage.transpose_image(images))
    row, single = as_batch(space, images[0])
    assert single and row.shape == (1, 3, 36, 40)
    first = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert flat_observation_space(first) is first


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(-1, 1, (2,)), None),
        spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Text(5)}),
        spaces.Tuple((spaces.Sequence(spaces.Discrete(2)),)),
    ],
    ids=lambda space: type(space).__name__,
)
def test_what_has_no_fixed_size_is_refused(space: gym.Space) -> None:
    with pytest.raises(TaskDistillError, match=r"have no fixed size and are not supported; wrap"):
        flat_observation_space(space)
    with pytest.raises(TaskDistillError, match=r"^Actions of the space .*are not supported; wrap"):
        flat_action_space(space)


def test_unbounded_and_empty_spaces_are_refused() -> None:
    with pytest.raises(TaskDistillError, match="have no bounds; give them some"):
        flat_action_space(spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(TaskDistillError, match="are empty"):
        flat_action_space(spaces.Box(-1, 1, (0,)))
    with pytest.raises(TaskDistillError, match="are 0 numbers"):
        flat_observation_space(spaces.Box(-1, 1, (0,)))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete(np.array([[3, 2]]), start=np.array([[1, 0]])),
        spaces.MultiBinary((2, 2)),
        spaces.Box(-0.1, 0.1, (2,), np.float64),
        spaces.Box(-0.1, 0.1, (2,), np.float16),
        spaces.Box(-1, 1, (2, 3)),
        spaces.Box(-1, 1, ()),
    ],
    ids=str,
)
def test_flat_actions_become_the_envs_own(space: gym.Space) -> None:
    flat = flat_action_space(space)
    actions = random_actions(flat, np.random.default_rng(0), (50,)).astype(np.float32)
    if not isinstance(flat, spaces.Box):
        actions = actions.astype(np.int64)
    own = own_actions(space, 3 * actions if isinstance(flat, spaces.Box) else actions)
    whole = np.asarray if isinstance(space, spaces.Box) else lambda action: action
    assert all(space.contains(whole(action)) for action in own)
    seen = {tuple(np.ravel(action).tolist()) for action in own}
    assert len(seen) >= 3
    assert flat_action_space(flat) is flat


def test_other_observations_are_refused_in_one_sentence() -> None:
    space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(2)})
    outside = {"a": np.zeros(2), "b": 5}
    wrongs: list[Any] = [{"a": np.zeros(2)}, {"a": np.zeros(3), "b": 1}, np.zeros(7), 3, [], outside]
    for wrong in wrongs:
        with pytest.raises(TaskDistillError, match=r"observation"):
            as_batch(space, wrong)


def test_what_is_not_finite_is_named_by_its_place() -> None:
    check_finite(3, rewards=np.zeros(4), observations=np.zeros((4, 2), dtype=np.uint8))
    observations = np.zeros((4, 2))
    observations[2, 1] = np.nan
    with pytest.raises(TaskDistillError, match="observations of column 2 at step 7 hold nan"):
        check_finite(7, rewards=np.zeros(4), observations=observations)
