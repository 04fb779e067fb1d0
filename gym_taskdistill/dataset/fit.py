"""Whether a dataset fits an environment: ids, arguments and spaces, compared with its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from gym_taskdistill.dataset.card import Card, as_plain, bare_id, space_to_dict
from gym_taskdistill.envs.same import same_task
from gym_taskdistill.errors import DatasetError

SpacePair = tuple[gym.Space[Any], gym.Space[Any]]


def check_env(card: Card, env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | SpacePair) -> None:
    """Refuse an environment that a card's dataset was not distilled for; see `DistilledDataset.check_env`.

    Raises:
        DatasetError: If it does not fit, saying in which respect.
    """
    if not isinstance(env, tuple):
        _check_spec(card, getattr(env, "spec", None))
    observation_space, action_space = _spaces(env)
    for what, expected, actual in (
        ("observations", card.observation_space, observation_space),
        ("actions", card.action_space, action_space),
    ):
        if not _same_space(expected, actual):
            raise DatasetError(
                f"The dataset of {card.task} has {what} {space_text(expected)}, but the "
                f"environment has {space_text(actual)}; make the environment and its "
                "wrappers as in the card."
            )


def _check_spec(card: Card, spec: Any) -> None:
    # Third-party vector environments carry specs of other classes: compare only what is there.
    env_id, made_with = getattr(spec, "id", None), getattr(spec, "kwargs", None)
    made_with = dict(made_with) if isinstance(made_with, Mapping) else {}
    wanted_id, wanted = bare_id(card.env_id), card.env_kwargs
    if isinstance(env_id, str) and bare_id(env_id) != wanted_id:
        made_id, made_with = same_task(bare_id(env_id), made_with)
        wanted_id, wanted = same_task(wanted_id, wanted)
        if made_id != wanted_id:
            raise DatasetError(f"The dataset was distilled for {card.task}, but the environment is {env_id}.")
    for name, value in wanted.items():
        if name in made_with and as_plain(made_with[name], name) != value:
            raise DatasetError(
                f"The dataset was distilled for {card.task}, but the environment was "
                f"made with {name}={made_with[name]}."
            )


def _spaces(env: Any) -> SpacePair:
    """Return observation and action space of one environment, whatever form it comes in."""
    if isinstance(env, tuple):
        pair = env
    else:
        # Vector environments batch `observation_space`; the single one is what counts.
        prefix = "single_" if hasattr(env, "single_observation_space") else ""
        pair = tuple(getattr(env, f"{prefix}{kind}_space", None) for kind in ("observation", "action"))
    if len(pair) != 2 or not all(isinstance(space, gym.Space) for space in pair):
        raise DatasetError("Give an environment or an (observation, action) space pair.")
    return pair


def space_text(space: Mapping[str, Any] | gym.Space[Any]) -> str:
    """Return a space in a few words; Gymnasium's own text may print whole arrays of bounds."""
    if isinstance(space, gym.Space):
        if not isinstance(space, gym.spaces.Box | gym.spaces.Discrete):
            return type(space).__name__
        space = space_to_dict(space)
    if space["type"] == "Discrete":
        start = f", start={space['start']}" if "start" in space else ""
        return f"Discrete({space['n']}{start})"
    return f"Box({tuple(space['shape'])}, {space['dtype']})"


def _same_space(expected: Mapping[str, Any], actual: gym.Space[Any]) -> bool:
    if not isinstance(actual, gym.spaces.Box | gym.spaces.Discrete):
        return False
    found = space_to_dict(actual)
    if found["type"] != expected["type"]:
        return False
    if found["type"] == "Discrete":
        return (found["n"], found.get("start", 0)) == (expected["n"], expected.get("start", 0))
    same_kind = np.dtype(found["dtype"]).kind == np.dtype(expected["dtype"]).kind
    return bool(found["shape"] == expected["shape"] and same_kind)
