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
    own = card.own_observation_space
    for what, expected, actual in (
        # Images may have been transposed on the way, as by SB3.
        ("observations", (own, card.observation_space), observation_space),
        ("actions", (card.action_space,), action_space),
    ):
        if not any(same_space(space, actual) for space in expected):
            raise DatasetError(
                f"The dataset of {card.task} has {what} {space_text(expected[0])}, but the "
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
    if hasattr(spec, "max_episode_steps"):
        made_with.setdefault("max_episode_steps", spec.max_episode_steps or -1)
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
        try:
            space = space_to_dict(space)
        except DatasetError:
            return type(space).__name__
    start = f", start={space['start']}" if "start" in space else ""
    match space["type"]:
        case "Discrete":
            return f"Discrete({space['n']}{start})"
        case "MultiDiscrete":
            return f"MultiDiscrete({space['nvec']}{start})"
        case "MultiBinary":
            return f"MultiBinary({space['n']})"
        case "Dict":
            return f"Dict({', '.join(f'{key}: {space_text(part)}' for key, part in space['spaces'])})"
        case "Tuple":
            return f"Tuple({', '.join(map(space_text, space['spaces']))})"
    return f"Box({tuple(space['shape'])}, {space['dtype']})"


def same_space(expected: Mapping[str, Any], actual: gym.Space[Any]) -> bool:
    """Whether a space is the described one, but for bounds and precision."""
    try:
        return _compared(expected) == _compared(space_to_dict(actual))
    except DatasetError:
        return False


def _compared(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a space counts: not the bounds of its boxes, nor the precision of their numbers."""
    if space["type"] == "Box":
        return {"type": "Box", "shape": list(space["shape"]), "kind": np.dtype(space["dtype"]).kind}
    if space["type"] == "Dict":
        return {"type": "Dict", "spaces": [[key, _compared(part)] for key, part in space["spaces"]]}
    if space["type"] == "Tuple":
        return {"type": "Tuple", "spaces": [_compared(part) for part in space["spaces"]]}
    return dict(space)
