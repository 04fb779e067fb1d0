"""Atari games: their ids, and what their single and vector envs are made with alike."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from gym_taskdistill import trust
from gym_taskdistill.errors import TaskDistillError, did_you_mean

#: What an agent may see of a game.
OBS_TYPES = ("pixels", "ram", "bits")

#: Emulator frames in one step of an agent.
FRAME_SKIP = 4

#: Emulator frames in a second.
FRAME_RATE = 60

#: Emulator frames after which a game is cut off: half an hour.
MAX_FRAMES = 108_000

#: Frames at most between the start of a game and the first observation.
NOOP_MAX = 30

_ENTRY_POINT = "ale_py.env:AtariEnv"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


#: The arguments of a game besides what is seen of it: a check of each, and what it must be.
_ARGUMENTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "repeat_action_probability": (lambda p: isinstance(p, int | float) and 0 <= p <= 1, "from 0 to 1"),
    "full_action_space": (lambda full: isinstance(full, bool), "true or false"),
    "max_num_frames_per_episode": (lambda n: _is_count(n) and n > 0, "a whole number, at least 1"),
    "noop_max": (_is_count, "a whole number, at least 0"),
}


def registered(env_id: str) -> EnvSpec:
    """Find the registration of an env, with ale_py's games among the ids.

    Raises:
        TaskDistillError: No env has this id, or its module cannot be imported, or may not be; see `trust`.
    """
    module, colon, _ = env_id.rpartition(":")
    if colon:
        trust.load(module, f'The env "{env_id}"')
    try:
        with warnings.catch_warnings():
            # Who names a version means it: the paper's tasks are in v4.
            warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
            try:
                return gym.envs.registration._find_spec(env_id)
            except gym.error.Error:
                import ale_py  # late: it registers hundreds of ids, and few need them

                gym.register_envs(ale_py)
                return gym.envs.registration._find_spec(env_id)
    except gym.error.Error as error:
        hint = did_you_mean(env_id, gym.registry)
        raise TaskDistillError(f'There is no env "{env_id}": {error}{hint}') from None


def is_atari(spec: EnvSpec) -> bool:
    """Whether a registration is that of an Atari game."""
    return spec.entry_point == _ENTRY_POINT


def atari_spec(env_id: str) -> EnvSpec:
    """Find the registration of a game whose frame skip is fixed.

    Raises:
        TaskDistillError: There is none with this id.
    """
    spec = registered(env_id)
    if not is_atari(spec):
        raise TaskDistillError(f"{env_id} is not an Atari game.")
    if not isinstance(spec.kwargs["frameskip"], int):
        name, _, version = spec.id.rpartition("-")
        raise TaskDistillError(
            f"{env_id} skips a random number of frames, which is not supported; "
            f'use "{name}NoFrameskip-{version}" or "ALE/{name}-v5".'
        )
    return spec


def checked_obs_type(obs_type: Any) -> str:
    """Return what is seen of a game if it is one of `OBS_TYPES`.

    Raises:
        TaskDistillError: It is not.
    """
    if obs_type not in OBS_TYPES:
        hint = did_you_mean(str(obs_type), OBS_TYPES)
        known = f"{', '.join(OBS_TYPES[:-1])} or {OBS_TYPES[-1]}"
        raise TaskDistillError(f'There is no obs_type "{obs_type}"; use {known}.{hint}')
    return str(obs_type)


def game_arguments(spec: EnvSpec, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the arguments of a task with its registration's and the defaults, and check them.

    Args:
        spec: Registration of the game.
        kwargs: Arguments given, without ``obs_type``.

    Returns:
        ``game``, ``repeat_action_probability``, ``full_action_space``, ``max_num_frames_per_episode`` and
        ``noop_max``.

    Raises:
        TaskDistillError: An argument is unknown or out of range.
    """
    for name, value in kwargs.items():
        if name not in _ARGUMENTS:
            raise TaskDistillError(
                f'{spec.id} has no argument "{name}"; known are obs_type, {", ".join(_ARGUMENTS)}.'
                f"{did_you_mean(name, _ARGUMENTS)}"
            )
        is_right, wanted = _ARGUMENTS[name]
        if not is_right(value):
            raise TaskDistillError(f"{name} of {spec.id} must be {wanted}, not {value!r}.")
    defaults = {"max_num_frames_per_episode": MAX_FRAMES, "noop_max": NOOP_MAX}
    merged = {**defaults, **spec.kwargs, **kwargs}
    return {name: merged[name] for name in ("game", *_ARGUMENTS)}


def made_spec(spec: EnvSpec, kwargs: Mapping[str, Any]) -> EnvSpec:
    """Return the spec that an env made with some arguments carries.

    It has a game's id and holds only what was given, not the arguments of ale_py's own env, so that id and
    arguments make the same task again.
    """
    spec = copy.deepcopy(spec)
    spec.kwargs = {name: value for name, value in kwargs.items() if (name, value) != ("obs_type", "pixels")}
    return spec


@contextlib.contextmanager
def rom_errors(spec: EnvSpec) -> Iterator[None]:
    """Turn the errors of a ROM that is not there, or is another, into one of ours."""
    try:
        yield
    except OSError as error:
        raise TaskDistillError(
            f"The ROM of {spec.id} cannot be read: {error}; leave ALE_ROMS_DIR unset to use those of ale-py, "
            "or install ale-py again."
        ) from None
