"""Cases may ask for what a task's spaces are."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from random_env import RandomEnv

from gym_taskdistill.recipes.facts import agrees, check_conditions
from gym_taskdistill.recipes.stages.stage import RecipeError
from gym_taskdistill.tasks import Task, as_task


@pytest.mark.parametrize(
    ("env_id", "conditions"),
    [
        ("Acrobot-v1", {"action_space": "Discrete", "observation_space": "Box", "observation_size": 6}),
        ("Pendulum-v1", {"action_space": ["Box", "MultiDiscrete"], "observation_size": {"min": 3, "max": 3}}),
        ("Pendulum-v1", {"env_id": "Pendulum-v1", "g": None, "image_side": None}),
        ("FrozenLake-v1", {"observation_space": "Discrete", "observation_size": 16}),
        ("Blackjack-v1", {"observation_space": "Tuple", "observation_size": 45, "image_side": None}),
        ("ALE/Pong-v5", {"observation_space": "image", "image_side": {"min": 36}}),
    ],
)
def test_a_task_meets_conditions(env_id: str, conditions: dict[str, Any]) -> None:
    assert agrees(conditions, Task(env_id))


@pytest.mark.parametrize(
    ("env_id", "conditions"),
    [
        ("Acrobot-v1", {"action_space": "Box"}),
        ("Acrobot-v1", {"observation_size": {"max": 5}}),
        ("Acrobot-v1", {"image_side": {"min": 1}}),
        ("Pendulum-v1", {"env_id": ["Acrobot-v1"], "action_space": "Box"}),
        ("Pendulum-v1", {"g": 9}),
        ("ALE/Pong-v5", {"observation_space": "Box"}),
    ],
)
def test_a_task_does_not_meet_conditions(env_id: str, conditions: dict[str, Any]) -> None:
    assert not agrees(conditions, Task(env_id))


def test_images_of_both_layouts_are_images() -> None:
    for shape in ((3, 40, 60), (40, 60, 3)):
        space = spaces.Box(0, 255, shape, np.uint8)
        task = as_task(partial(RandomEnv, space, spaces.Discrete(2)))
        assert agrees({"observation_space": "image", "image_side": 40, "observation_size": 7200}, task)


def test_spaces_are_looked_at_only_if_all_else_agrees() -> None:
    nowhere = Task("Nowhere-v0", {"n": 2})
    assert not agrees({"action_space": "Box", "n": 3}, nowhere)
    assert not agrees({"action_space": "Box", "env_id": "Elsewhere-v0"}, nowhere)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"acton_space": "Box"}, 'Did you mean "action_space"'),
        ({"nn": 2}, "one of a task under tasks"),
        ({"action_space": "discrete"}, 'Did you mean "Discrete"'),
        ({"observation_space": "images"}, 'Did you mean "image"'),
        ({"observation_size": "8"}, "must be an integer"),
        ({"observation_size": {"minimum": 8}}, "such as {min: 65"),
        ({"action_space": {"min": 8}}, "one of its values"),
    ],
)
def test_a_condition_that_nothing_meets_is_refused(conditions: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_conditions(conditions, ["n"], "my.yaml: when")
