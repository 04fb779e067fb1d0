"""The file of an algorithm that SB3's `save` and `load` write and read, without the code that SB3's holds.

A zip, as SB3's habits have it (``best_model.zip``), with one member: a sealed file of the settings, the
spaces, and all that is learned. Schedules that are functions of one's own are left out, and asked for again.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import Tensor

from gym_taskdistill.dataset.spaces import as_space_dict
from gym_taskdistill.distill import checkpoint
from gym_taskdistill.distill.start import Start
from gym_taskdistill.errors import ModelError, TaskDistillError
from gym_taskdistill.files import read_bytes, replacing
from gym_taskdistill.inner.rules import InnerRule
from gym_taskdistill.learners import LearnerDistribution, learner_distribution

#: What SB3 writes and reads: a path, or a file that is open in binary mode.
PathOrFile = str | Path | io.BufferedIOBase

#: The two spaces of an algorithm, by their attributes' names.
SPACES = ("observation_space", "action_space")

#: Settings that follow the number of envs where they are not given.
_OF_ENVS = ("n_learners", "batch_size")

#: Envs of a model, at most.
MAX_ENVS = 2**24

_MEMBER = "model.safetensors"

#: Where zips begin to count years; a fixed date, so that equal models are equal files.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class LostFunction:
    """Stands for a schedule that no file holds; it refuses to be called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, progress_remaining: float) -> float:
        """Refuse.

        Raises:
            TaskDistillError: Always; it says how to give the schedule.
        """
        raise TaskDistillError(
            f"{self.name} was a function when the model was saved, and files hold no code; give it again to "
            f"learn on: load(path, {self.name.partition('.')[0]}=...)."
        )


def write(target: PathOrFile, state: Mapping[str, Any]) -> None:
    """Write a model's state, whole or not at all; folders are made, and a name without suffix gets ``.zip``.

    Raises:
        TaskDistillError: The file cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(_MEMBER, _EPOCH), checkpoint.packed(state))
    if not isinstance(target, str | Path):
        target.write(buffer.getvalue())
        return
    path = _with_suffix(Path(target))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TaskDistillError(f'"{path}" cannot be written: {error.strerror or error}.') from None
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


@dataclass(frozen=True)
class SavedModel:
    """What a file of `write` holds.

    Attributes:
        what: What messages call it.
        settings: The arguments of the algorithm, as `plain_settings` made them.
        spaces: ``observation_space`` and ``action_space``, as `space_to_dict` gives them.
        n_envs: Number of envs that it learned in.
        drawn_from: Where its learners were drawn from, see `OuterLoop.drawn_from`.
        state: All that is learned.
    """

    what: str
    settings: dict[str, Any]
    spaces: dict[str, dict[str, Any]]
    n_envs: int
    drawn_from: Tensor
    state: dict[str, Any]

    def arguments(self, given: Mapping[str, Any], n_envs: int, known: Iterable[str]) -> dict[str, Any]:
        """Return the arguments of the algorithm for a number of envs.

        Args:
            given: Settings in the place of the saved ones.
            n_envs: Number of envs; where it is another one, settings that follow it are left to defaults.
            known: Settings that the algorithm has.

        Raises:
            TaskDistillError: A setting has to be given again, or is none of the algorithm's.
        """
        kept = {
            name: value
            for name, value in self.settings.items()
            if name not in given and (n_envs == self.n_envs or name not in _OF_ENVS)
        }
        foreign = sorted(set(kept) - set(known))
        if foreign:
            raise TaskDistillError(f'{self.what} is of another version: it has a setting "{foreign[0]}".')
        return {name: _unplain(value, name) for name, value in kept.items()} | dict(given)


def read(source: PathOrFile) -> SavedModel:
    """Read what `write` wrote.

    Args:
        source: A path, whose ``.zip`` may be left out, or an open file.

    Raises:
        ModelError: It is damaged or another kind of file, such as one of SB3's own.
        TaskDistillError: It is missing.
    """
    is_path = isinstance(source, str | Path)
    what = f'The model "{source}"' if is_path else "The model"
    state = checkpoint.unpacked(_member(source, what), what)
    with checkpoint.refusing_misfits(what):
        return SavedModel(
            what,
            dict(state["settings"]),
            {kind: as_space_dict(state[kind], kind) for kind in SPACES},
            _n_envs(state["n_envs"]),
            state["drawn_from"],
            state["state"],
        )


def _member(source: PathOrFile, what: str) -> bytes:
    if isinstance(source, str | Path):
        path = Path(source)
        content = read_bytes(path if path.is_file() else _with_suffix(path), what)
    else:
        if source.seekable():
            source.seek(0)  # it may have been written just now
        content = source.read()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.namelist() != [_MEMBER]:
                raise ModelError(
                    f"{what} is none of PPMO's; models of other algorithms are loaded by their own classes."
                )
            # Nothing grows beyond the file's own size.
            if archive.getinfo(_MEMBER).compress_type != zipfile.ZIP_STORED:
                raise zipfile.BadZipFile("it is compressed")
            return archive.read(_MEMBER)
    except ModelError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise ModelError(f"{what} is damaged, or another kind of file ({str(error)[:100]}).") from None


def _n_envs(value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= MAX_ENVS:
        raise ValueError(f"n_envs must be an integer from 1 to {MAX_ENVS}")
    return value


def _with_suffix(path: Path) -> Path:
    return path if path.suffix or not path.name else path.with_name(f"{path.name}.zip")


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return an algorithm's settings as plain data."""
    return {name: _plain(value, name) for name, value in settings.items()}


def _plain(value: Any, name: str) -> Any:
    match value:
        case LearnerDistribution():
            spec = value.spec()
            try:
                known = learner_distribution(spec) == value
            except TaskDistillError:
                known = False
            return spec if known else {"lost": "object"}
        case InnerRule():
            return value.to_dict()
        case Start():
            return asdict(value)
        case np.generic():
            return value.item()
        case FloatSchedule():
            return _plain(value.value_schedule, name)
        case ConstantSchedule():
            return value.val
        case LinearSchedule():
            return {"linear": [value.start, value.end, value.end_fraction]}
        case Mapping():
            return {str(key): _plain(item, f"{name}.{key}") for key, item in value.items()}
        case None | bool() | int() | float() | str():
            return value
    return {"lost": "function" if callable(value) else "object"}


def _unplain(value: Any, name: str) -> Any:
    match value:
        case {"linear": [start, end, end_fraction]}:
            return LinearSchedule(start, end, end_fraction)
        case {"lost": "function"}:
            return LostFunction(name)
        case {"lost": _}:
            raise TaskDistillError(
                f"The model's {name} had no plain description, and files hold no code; give it again: "
                f"load(path, {name}=...)."
            )
        case Mapping() if name == "learning_rates":
            return {key: _unplain(item, f"{name}.{key}") for key, item in value.items()}
    return value


def without(settings: Mapping[str, Any], exclude: Iterable[str], include: Iterable[str]) -> dict[str, Any]:
    """Return the settings to save, by SB3's arguments of `save`.

    Args:
        settings: All of them.
        exclude: Names of settings to leave out; `load` gives them their defaults then.
        include: Names of settings that are saved nevertheless.

    Raises:
        TaskDistillError: Something is to be included that is no setting.
    """
    exclude, include = set(exclude), set(include)
    foreign = sorted(include - set(settings))
    if foreign:
        raise TaskDistillError(
            f'"{foreign[0]}" cannot be included: a saved model holds its settings and what it learned, '
            "no other attributes."
        )
    return {name: value for name, value in settings.items() if name in include or name not in exclude}
