"""The card of a distilled dataset: where it came from and what it scored, as plain JSON data."""

from __future__ import annotations

import dataclasses
import math
import numbers
import platform
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from datetime import datetime
from importlib import metadata
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np

from gym_taskdistill.errors import DatasetError, did_you_mean

FORMAT_VERSION = 1
"""Version of the file format that this library writes, and the newest it can read."""

_PACKAGES = (
    "gym_taskdistill",
    "gymnasium",
    "stable_baselines3",
    "torch",
    "torchopt",
    "numpy",
    "mujoco",
    "ale_py",
    "envpool",
)

T = TypeVar("T", "Card", "Score")


def digits(mean: float) -> int:
    """Return how many decimals of returns to print: 2 of small ones such as Reacher's, else 1."""
    return 2 if abs(mean) < 10 else 1


@dataclass(frozen=True)
class Score:
    """What fresh learners scored after their inner steps on the dataset.

    Attributes:
        learners: Name of the learner distribution that was tested, such as ``"alpha_c"``.
        deterministic: Whether the policies took their mode instead of sampling.
        n_agents: Number of fresh learners, at least 1.
        n_episodes: Full episodes played by each learner, at least 1.
        seed: Seed of the evaluation.
        env_id: Environment that was played.
        mean: Mean raw episode return over agents.
        std: Standard deviation over agents, at least 0.
        min: Worst agent's mean return.
        agent_means: Mean return of every agent, rounded to 2 decimals; may be left empty.

    Raises:
        DatasetError: If a value is not of its type or range.
    """

    learners: str
    deterministic: bool
    n_agents: int
    n_episodes: int
    seed: int
    env_id: str
    mean: float
    std: float
    min: float
    agent_means: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        values = {
            "learners": as_str(self.learners, "score.learners"),
            "deterministic": as_bool(self.deterministic, "score.deterministic"),
            "n_agents": as_int(self.n_agents, "score.n_agents", minimum=1),
            "n_episodes": as_int(self.n_episodes, "score.n_episodes", minimum=1),
            "seed": as_int(self.seed, "score.seed"),
            "env_id": as_str(self.env_id, "score.env_id", empty=False),
            "mean": as_float(self.mean, "score.mean"),
            "std": as_float(self.std, "score.std", minimum=0.0),
            "min": as_float(self.min, "score.min"),
            "agent_means": tuple(round(m, 2) for m in _floats(self.agent_means, "score.agent_means")),
        }
        _set(self, values)
        if self.agent_means and len(self.agent_means) != self.n_agents:
            raise DatasetError(
                f"score.agent_means has {len(self.agent_means)} values for {self.n_agents} agents."
            )

    @property
    def figures(self) -> tuple[str, str, str]:
        """Mean, std and min as they are printed."""
        mean, std, worst = (f"{value:.{digits(self.mean)}f}" for value in (self.mean, self.std, self.min))
        return mean, std, worst

    @property
    def protocol(self) -> str:
        """How the numbers were made, in one line to print beside them."""
        policy = "deterministic" if self.deterministic else "stochastic"
        return (
            f"{self.n_agents} fresh {self.learners} learners x {self.n_episodes} full episodes of "
            f"{self.env_id}, no environment interaction before the test, {policy} policy, "
            f"raw rewards, seed {self.seed}; mean, std and min over agents"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the score as plain JSON data."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Score:
        """Rebuild a score from `to_dict`.

        Raises:
            DatasetError: If a field is missing, unknown or wrong.
        """
        return _from_dict(cls, data, "score")


@dataclass(frozen=True)
class Card:
    """Everything about a dataset that is not a number the learner trains on.

    All fields hold plain JSON data (tuples become lists, NumPy scalars become Python numbers), so
    that reading a card never runs code and never depends on another library's version.

    Attributes:
        env_id: Gymnasium id of the task, with or without its ``"module:"`` prefix.
        observation_space: The space as `space_to_dict` gives it, after the task's preprocessing.
        action_space: The space as `space_to_dict` gives it.
        learners: Plain specification of the learner distribution.
        env_kwargs: Keyword arguments of the environment; a missing key means its default.
        variant: Short name that tells apart the datasets of one task, such as ``"k_min"``.
        default: Whether this is the variant to use when none is named.
        recipe: All hyperparameters of the run.
        seed: Seed of the run, or None if it was not fixed.
        num_timesteps: Environment steps used, at least 0.
        wall_clock_s: Seconds that the run spent in PPMO, its tests included but imitation not; at least 0.
        versions: Versions of the libraries involved, see `versions`.
        created: ISO 8601 date, or empty.
        notes: Free text.
        scores: Evaluations of this dataset.
        format_version: Version of the file format.

    Raises:
        DatasetError: If a value is not of its type or range.
    """

    env_id: str
    observation_space: dict[str, Any]
    action_space: dict[str, Any]
    learners: dict[str, Any]
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    default: bool = False
    recipe: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    num_timesteps: int = 0
    wall_clock_s: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    notes: str = ""
    scores: tuple[Score, ...] = ()
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION or isinstance(self.format_version, bool):
            raise DatasetError(
                f"card.format_version is {self.format_version!r}, but must be {FORMAT_VERSION}."
            )
        scores = self.scores
        if not isinstance(scores, list | tuple) or not all(isinstance(s, Score) for s in scores):
            raise DatasetError("card.scores must be a sequence of Score objects.")
        versions = as_dict(self.versions, "card.versions")
        values = {
            "env_id": as_str(self.env_id, "card.env_id", empty=False),
            "observation_space": as_space_dict(self.observation_space, "card.observation_space"),
            "action_space": as_space_dict(self.action_space, "card.action_space"),
            "learners": as_dict(self.learners, "card.learners"),
            "env_kwargs": as_dict(self.env_kwargs, "card.env_kwargs"),
            "variant": as_str(self.variant, "card.variant"),
            "default": as_bool(self.default, "card.default"),
            "recipe": as_dict(self.recipe, "card.recipe"),
            "seed": None if self.seed is None else as_int(self.seed, "card.seed"),
            "num_timesteps": as_int(self.num_timesteps, "card.num_timesteps", minimum=0),
            "wall_clock_s": as_float(self.wall_clock_s, "card.wall_clock_s", minimum=0.0),
            "versions": {k: as_str(v, f"card.versions.{k}") for k, v in versions.items()},
            "created": as_str(self.created, "card.created"),
            "notes": as_str(self.notes, "card.notes"),
            "scores": tuple(scores),
        }
        _set(self, values)
        if self.created:
            try:
                datetime.fromisoformat(self.created)
            except ValueError:
                raise DatasetError(
                    f"card.created is {self.created!r}, which is not an ISO 8601 date; "
                    'write it like "2026-01-31".'
                ) from None

    @property
    def task(self) -> str:
        """The task in one line, such as ``CartPoleND-v0 n=2``."""
        kwargs = [f"{key}={value}" for key, value in self.env_kwargs.items()]
        return " ".join([bare_id(self.env_id), *kwargs])

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain JSON data, in the order of its fields."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Card:
        """Rebuild a card from `to_dict`.

        Raises:
            DatasetError: If a field is missing, unknown or wrong.
        """
        if isinstance(data, Mapping) and isinstance(data.get("scores"), list | tuple):
            data = {**data, "scores": tuple(Score.from_dict(score) for score in data["scores"])}
        return _from_dict(cls, data, "card")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries a result depends on.

    Only package metadata is read, nothing is imported; packages that are not installed are left
    out.
    """
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def bare_id(env_id: str) -> str:
    """Return a Gymnasium id without its module prefix.

    >>> bare_id("gym_taskdistill:CartPoleND-v0")
    'CartPoleND-v0'
    """
    return env_id.rpartition(":")[2]


def space_to_dict(space: gym.Space[Any], *, bounds: bool = False) -> dict[str, Any]:
    """Describe a space as plain JSON data.

    Args:
        space: A `Box` or a `Discrete` space.
        bounds: Whether to add a Box's ``low`` and ``high`` as nested lists, in which None means
            unbounded. Wanted for actions; for images they would only be bulk.

    Returns:
        The description.

    Raises:
        DatasetError: If the space is of another type.

    >>> space_to_dict(gym.spaces.Discrete(4))
    {'type': 'Discrete', 'n': 4}
    >>> space_to_dict(gym.spaces.Box(-1, 1, (2,)), bounds=True)["low"]
    [-1.0, -1.0]
    """
    if isinstance(space, gym.spaces.Discrete):
        start = int(space.start)
        return {"type": "Discrete", "n": int(space.n)} | ({"start": start} if start else {})
    if isinstance(space, gym.spaces.Box):
        described: dict[str, Any] = {
            "type": "Box",
            "shape": [int(size) for size in space.shape],
            "dtype": str(space.dtype),
        }
        if bounds:
            described["low"] = _bound_to_list(space.low)
            described["high"] = _bound_to_list(space.high)
        return described
    raise DatasetError(
        f"{type(space).__name__} spaces are not supported; wrap the environment so that it has a "
        "Box observation and a Box or Discrete action."
    )


def is_image(space: Mapping[str, Any]) -> bool:
    """Tell whether a described space is one of images: three dimensions of bytes.

    >>> is_image(space_to_dict(gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)))
    True
    """
    return space["type"] == "Box" and len(space["shape"]) == 3 and space["dtype"] == "uint8"


def as_space_dict(value: Any, where: str) -> dict[str, Any]:
    """Check a description made by `space_to_dict`, and return its copy.

    Args:
        value: What should be a description.
        where: Name of the value, for the message.

    Raises:
        DatasetError: If it is not one.
    """
    space = as_dict(value, where)
    if space.get("type") == "Discrete":
        as_int(space.get("n"), f"{where}.n", minimum=1)
        as_int(space.get("start", 0), f"{where}.start")
        return space
    if space.get("type") == "Box":
        shape = space.get("shape")
        if not isinstance(shape, list):
            raise DatasetError(f"{where}.shape must be a list of sizes.")
        for size in shape:
            as_int(size, f"{where}.shape", minimum=1)
        try:
            np.dtype(as_str(space.get("dtype"), f"{where}.dtype", empty=False))
        except TypeError:
            raise DatasetError(f"{where}.dtype is {space['dtype']!r}, which is no NumPy type.") from None
        return space
    raise DatasetError(f'{where}.type is {space.get("type")!r}, but must be "Box" or "Discrete".')


def as_plain(value: Any, where: str) -> Any:
    """Copy a value into plain JSON data, with sorted keys.

    Sorted keys make the readable card the same however the dictionary was filled.

    Args:
        value: Any nesting of mappings, sequences, strings, finite numbers, booleans and None.
        where: Name of the value, for the message.

    Raises:
        DatasetError: If something in it has no plain form.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return as_float(value, where)
    if isinstance(value, list | tuple):
        return [as_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise DatasetError(f"{where} has keys that are not strings.")
        return {key: as_plain(value[key], f"{where}.{key}") for key in sorted(value)}
    raise DatasetError(
        f"{where} is a {type(value).__name__}, but a card holds only plain data: "
        "dictionaries, lists, strings, numbers, booleans and None."
    )


def as_dict(value: Any, where: str) -> dict[str, Any]:
    """Return a plain copy of a dictionary, or raise `DatasetError`."""
    if not isinstance(value, Mapping):
        raise DatasetError(f"{where} must be a dictionary, not {_shown(value)}.")
    plain: dict[str, Any] = as_plain(value, where)
    return plain


def as_str(value: Any, where: str, *, empty: bool = True) -> str:
    """Return a string, non-empty unless ``empty``, or raise `DatasetError`."""
    if not isinstance(value, str) or not (value or empty):
        raise DatasetError(f"{where} must be a {'' if empty else 'non-empty '}string, not {_shown(value)}.")
    return value


def as_bool(value: Any, where: str) -> bool:
    """Return a boolean, or raise `DatasetError`."""
    if not isinstance(value, bool | np.bool_):
        raise DatasetError(f"{where} must be true or false, not {_shown(value)}.")
    return bool(value)


def as_int(value: Any, where: str, *, minimum: int | None = None) -> int:
    """Return a Python integer of at least ``minimum``, or raise `DatasetError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise DatasetError(f"{where} must be an integer, not {_shown(value)}.")
    if minimum is not None and value < minimum:
        raise DatasetError(f"{where} is {value}, but must be at least {minimum}.")
    return int(value)


def as_float(value: Any, where: str, *, minimum: float | None = None) -> float:
    """Return a finite Python float of at least ``minimum``, or raise `DatasetError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise DatasetError(f"{where} must be a number, not {_shown(value)}.")
    if not math.isfinite(value):
        raise DatasetError(f"{where} is {float(value)}, but must be finite.")
    if minimum is not None and value < minimum:
        raise DatasetError(f"{where} is {float(value)}, but must be at least {minimum}.")
    return float(value)


def _floats(value: Any, where: str) -> Sequence[float]:
    """Return finite numbers, or raise `DatasetError`; quick for the thousands that a zoo's cards hold."""
    if not isinstance(value, list | tuple):
        raise DatasetError(f"{where} must be a list of numbers.")
    if all(type(number) is float for number in value) and math.isfinite(math.fsum(map(abs, value))):
        return value
    return [as_float(number, where) for number in value]


def _shown(value: Any) -> str:
    """A value for a message: itself if it is a scalar, otherwise only its type."""
    if value is None or isinstance(value, bool | str | numbers.Number):
        return repr(value)
    return f"a {type(value).__name__}"


def _bound_to_list(bound: Any) -> Any:
    # JSON has no infinity; None reads naturally as "no bound on this side".
    unbounded = ~np.isfinite(bound)
    listed = bound.astype(object)
    listed[unbounded] = None
    return listed.tolist()


def _set(instance: object, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _to_dict(instance: Card | Score) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [item.to_dict() if isinstance(item, Score) else item for item in value]
        return as_plain(value, "card")

    return {f.name: plain(getattr(instance, f.name)) for f in dataclasses.fields(instance)}


def _from_dict(cls: type[T], data: Any, where: str) -> T:
    if not isinstance(data, Mapping):
        raise DatasetError(f"The {where} must be a dictionary, not {_shown(data)}.")
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in data:
        if name not in known:
            raise DatasetError(f'The {where} has an unknown field "{name}".{did_you_mean(str(name), known)}')
    for name, f in known.items():
        if name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise DatasetError(f'The {where} has no field "{name}".')
    return cls(**data)
