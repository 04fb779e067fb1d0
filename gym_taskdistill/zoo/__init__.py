"""The zoo: distilled datasets that can be found by task.

An entry is the folder ``<env id, "/" written as "--">/<entry name>/``, which holds ``dataset.safetensors``,
``dataset.json``, and ``dataset.critic.safetensors`` where its run kept the critic. The user's own zoo is
searched before the one that comes with the library. Finding and reading entries runs no code from them and
needs no network.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gym_taskdistill.dataset.card import Card, as_dict, bare_id
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.file import DATASET_FILE, find_file, read_card
from gym_taskdistill.envs.same import same_task
from gym_taskdistill.errors import DatasetError, ZooError, did_you_mean
from gym_taskdistill.files import lock, replacing, sweep
from gym_taskdistill.hub import is_address
from gym_taskdistill.paths import critic_path, data_root, user_zoo
from gym_taskdistill.tasks.task import wrapper_names
from gym_taskdistill.zoo.entry import ZooEntry, entry_folder, entry_name, env_folder, is_safe, slug

__all__ = ["ZooEntry", "ZooWarning", "add", "entries", "entry_name", "find", "load", "resolve", "save"]

#: Names of datasets in the folder of a run, the first that is there.
RUN_FILES = (DATASET_FILE, "best.safetensors")


#: Characters of a path; systems raise errors of their own for names that are too long.
MAX_PATH = 1000


class ZooWarning(UserWarning):
    """Says that an entry is damaged and was left out."""


def entries(env_id: str | None = None, *, root: Path | None = None) -> list[ZooEntry]:
    """List the zoo, reading only the cards; a damaged entry is left out, with a warning.

    Args:
        env_id: Only entries of this environment; None lists all.
        root: Folder of another zoo; None is the user's own and the one that comes with the library, of whose
            entries of one name only the user's is listed.

    Returns:
        The entries, sorted by environment, keyword arguments and variant. Empty if there are none.
    """
    return _sound(*_read(_files(env_id, root)))


def find(
    env_id: str,
    variant: str | None = None,
    *,
    root: Path | None = None,
    **env_kwargs: Any,
) -> ZooEntry:
    """Find the one entry that is meant.

    Args:
        env_id: Gymnasium id, with or without its module prefix, or the full name of an entry. An id of
            Gymnasium's own stands for the same task here: ``"CartPole-v1"`` is ``CartPoleND-v0`` with n=1.
        variant: Which of the task's datasets; None takes the default one, or the only one.
        root: Folder of another zoo; None is the user's own and the one that comes with the library.
        **env_kwargs: Keyword arguments of the environment. Those that all candidates share may be
            left out.

    Returns:
        The entry.

    Raises:
        ZooError: If no entry or more than one fits; the message lists what there is.
        DatasetError: If the only entries that fit are damaged.
    """
    asked = as_dict(env_kwargs, "env_kwargs")
    env_id = bare_id(env_id)
    if not _files(env_id, root):
        env_id, asked = same_task(env_id, asked)
    candidates = _with_kwargs(_candidates(env_id, root, asked), asked)
    # An id means the environment as it is, where there is a dataset of that.
    candidates = [entry for entry in candidates if not entry.wrappers] or candidates
    if variant is not None:
        candidates = _with_variant(candidates, variant)
    tasks = _unique(_task(entry) for entry in candidates)
    if len(tasks) > 1:
        raise ZooError(f"{env_id} is ambiguous: say which of {_listed(tasks)}.")
    chosen = [entry for entry in candidates if entry.default]
    if len(candidates) == 1:
        chosen = candidates
    # The user's own default comes before the shipped one.
    chosen = [entry for entry in chosen if entry.root == user_zoo()] or chosen
    if len(chosen) != 1:
        variants = _unique(entry.variant for entry in candidates)
        raise ZooError(
            f"{tasks[0]} has {len(chosen) or 'no'} default datasets; name one of the variants "
            f"{_listed(variants)}."
        )
    return chosen[0]


def load(
    env_id: str,
    variant: str | None = None,
    *,
    root: Path | None = None,
    **env_kwargs: Any,
) -> DistilledDataset:
    """Find an entry and read its dataset.

    Args:
        env_id: As for `find`; or the address of a dataset on the Hub, ``hf://user/name``.
        variant: As for `find`.
        root: As for `find`.
        **env_kwargs: As for `find`.

    Returns:
        The dataset, on the CPU.

    Raises:
        ZooError: If no entry or more than one fits.
        DatasetError: If the file is damaged.
        TaskDistillError: If it cannot be fetched from the Hub.
    """
    if is_address(env_id):
        return DistilledDataset.load(env_id)
    return find(env_id, variant, root=root, **env_kwargs).load()


def resolve(name: str, variant: str | None = None, **env_kwargs: Any) -> Path:
    """Find the file of a dataset by whatever a user may call it.

    Args:
        name: A file, with or without its suffix; the folder of a run or an entry; the address of a dataset
            on the Hub, ``hf://user/name`` or ``hf://user/name@revision``; or what `find` takes.
        variant: As for `find`.
        **env_kwargs: As for `find`.

    Returns:
        The file.

    Raises:
        ZooError: It is no file, and no entry or more than one fits.
        DatasetError: A file or folder is named that has no dataset.
        TaskDistillError: It cannot be fetched from the Hub.
    """
    if len(name) > MAX_PATH:
        raise ZooError(f"There is no dataset of a name of {len(name)} characters.")
    if is_address(name):
        return find_file(name)
    path = Path(name)
    if path.is_dir():
        for file in RUN_FILES:
            if (path / file).is_file():
                return path / file
    if path.suffix == ".safetensors" or path.is_file() or Path(f"{name}.safetensors").is_file():
        return find_file(path)
    try:
        return find(name, variant, **env_kwargs).path
    except ZooError:
        if path.is_dir():
            return find_file(path)  # says what is missing in the folder
        raise


def save(dataset: DistilledDataset, root: Path | None = None) -> Path:
    """Write a dataset into the zoo, where its card says, whatever lies there; see `add`.

    Args:
        dataset: The dataset. Its card needs a variant.
        root: Folder of another zoo; None is the user's own.

    Returns:
        The file written.

    Raises:
        ZooError: If the card has no variant, or if the entry would clash with another one.
        DatasetError: If the file cannot be written.
    """
    return _write(dataset, None, _place(dataset.card, user_zoo() if root is None else Path(root)))


def _place(card: Card, root: Path) -> Path:
    """Return the folder of a card's entry, if its name and its being the default one clash with no other."""
    folder = root / entry_folder(card)
    for other in entries(card.env_id, root=root):
        if other.path.parent == folder:
            # Only values that a folder name cannot hold make two tasks share a name.
            if not other.is_of(card):
                raise ZooError(
                    f"{folder} already holds a dataset of other env_kwargs, {other.env_kwargs}, or of the "
                    "same wrappers with other arguments; choose another variant name."
                )
        elif card.default and other.default and other.is_of(card):
            raise ZooError(
                f"{card.task} already has the default dataset {other.name}; only one may have "
                "card.default set."
            )
    return folder


def _write(dataset: DistilledDataset, critic: bytes | None, folder: Path) -> Path:
    """Write all files of an entry; the old critic goes before its dataset does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        critic_path(folder / DATASET_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise ZooError(f"Cannot make the folder of the zoo entry: {error}.") from None
    sweep(folder)
    path = dataset.save(folder / DATASET_FILE)
    if critic is not None:
        with replacing(critic_path(path)) as temporary:
            temporary.write_bytes(critic)
    return path


def add(
    dataset: DistilledDataset, critic: bytes | None = None, *, root: Path | None = None, force: bool = False
) -> Path:
    """Put a dataset into the zoo, if it was selected with a higher score than the one that it would replace.

    Scores of the test decide nothing. A legacy entry is replaced by any other. One dataset of each task is
    the default one: the first to come, or one whose card says so where the default one was legacy.

    Args:
        dataset: The dataset. Its card needs a variant.
        critic: What lies beside its file in ``*.critic.safetensors``; that of the entry before is removed.
        root: Folder of another zoo; None is the user's own.
        force: Replace the entry, and the default one, in any case.

    Returns:
        The file written.

    Raises:
        ZooError: The entry that is there stays, or the card cannot name an entry.
        TaskDistillError: A file cannot be written.
    """
    home = user_zoo() if root is None else Path(root)
    folder = home / entry_folder(dataset.card)
    with lock(home / ".lock", "", wait=True):
        if not force:
            _refuse_worse(dataset, folder)
        card = dataset.card
        siblings = [
            entry
            for entry in entries(card.env_id, root=root)
            if entry.is_of(card) and entry.path.parent.name != folder.name
        ]
        defaults = [entry for entry in siblings if entry.default]
        if card.default:
            for entry in defaults:
                if entry.root == home and (force or entry.card.legacy):
                    old = entry.load()
                    old.replace(card=old.card.replace(default=False)).save(entry.path)
        else:
            dataset = dataset.replace(card=card.replace(default=not defaults))
        return _write(dataset, critic, _place(dataset.card, home))


def _refuse_worse(dataset: DistilledDataset, folder: Path) -> None:
    try:
        old = DistilledDataset.load(folder)
    except DatasetError:
        return  # there is none, or none that could be read
    if old.card.legacy or old.digest == dataset.digest:
        return
    name = f"{folder.parent.name}/{folder.name}"
    new, before = dataset.card.selection, old.card.selection
    if new is None:
        raise ZooError(
            f"The zoo has {name}, and this dataset has no selection score to compare with its; "
            "use --force to replace it all the same."
        )
    if before is not None and new.mean <= before.mean:
        raise ZooError(
            f"{name} was selected with {before.figures[0]}, and this dataset with no more than "
            f"{new.figures[0]}; use --force to replace it all the same."
        )


def _files(env_id: str | None, root: Path | None) -> list[Path]:
    """The files of entries; of those of one name only the one of the first zoo."""
    if env_id is not None and not is_safe(env_folder(env_id)):
        return []
    found: dict[tuple[str, ...], Path] = {}
    for zoo in (user_zoo(), data_root("zoo")) if root is None else (Path(root),):
        pattern = f"*/*/{DATASET_FILE}" if env_id is None else f"{env_folder(env_id)}/*/{DATASET_FILE}"
        for file in zoo.glob(pattern):
            found.setdefault(file.parts[-3:-1], file)
    return list(found.values())


def _read(files: Iterable[Path]) -> tuple[list[ZooEntry], list[DatasetError]]:
    found, damaged = [], []
    for file in files:
        try:
            card = read_card(file)
            entry_folder(card)
        except DatasetError as error:
            damaged.append(error)
        except ZooError as error:
            damaged.append(DatasetError(f"{file}: {error}"))
        else:
            said = bare_id(card.env_id), card.env_kwargs, card.variant
            found.append(ZooEntry(*said, file, card.default, card.wrappers))
    return sorted(found, key=lambda e: (e.env_id, _natural(e.name))), damaged


def _sound(found: list[ZooEntry], damaged: Sequence[DatasetError]) -> list[ZooEntry]:
    """Return the entries that were read, and warn of the others."""
    for error in damaged:
        warnings.warn(f"An entry of the zoo is left out: {error}", ZooWarning, stacklevel=3)
    return found


def _candidates(env_id: str, root: Path | None, asked: Mapping[str, Any]) -> list[ZooEntry]:
    """Entries whose name is what was asked, or that have all its arguments, or of its environment.

    Cards take a while to read: what folders' names tell comes first.
    """
    environment, _, name = env_id.rpartition("/")
    of_environment = _files(env_id, root)
    wanted = {f"{key}={slug(value)}" for key, value in asked.items()}
    for files in (
        [file for file in _files(environment, root) if file.parts[-2] == name],
        [file for file in of_environment if wanted <= set(file.parts[-2].split(","))],
        of_environment,
    ):
        found, damaged = _read(files)
        if found:
            return _sound(found, damaged)
        if damaged:
            raise damaged[0]
    everything, _ = _read(_files(None, root))
    ids = _unique(entry.env_id for entry in everything)
    there_is = f"it has {_listed(ids)}" if ids else "it is empty"
    # An id can only be near ids, and a full name near full names.
    names = [entry.name for entry in everything] if environment in ids else ids
    raise ZooError(f"The zoo has no dataset for {env_id}: {there_is}.{did_you_mean(env_id, names)}")


def _with_kwargs(candidates: Sequence[ZooEntry], asked: Mapping[str, Any]) -> list[ZooEntry]:
    exact = [entry for entry in candidates if entry.env_kwargs == asked]
    if exact:
        return exact
    missing = object()
    found = [
        entry
        for entry in candidates
        if all(entry.env_kwargs.get(name, missing) == value for name, value in asked.items())
    ]
    if found:
        return found
    known = _unique(name for entry in candidates for name in entry.env_kwargs)
    hints = "".join(did_you_mean(name, known) for name in asked if name not in known)
    wanted = ", ".join(f"{name}={value!r}" for name, value in asked.items())
    raise ZooError(
        f"The zoo has no {candidates[0].env_id} dataset with {wanted}: it has "
        f"{_listed(_unique(_task(entry) for entry in candidates))}.{hints}"
    )


def _with_variant(candidates: Sequence[ZooEntry], variant: str) -> list[ZooEntry]:
    found = [entry for entry in candidates if entry.variant == variant]
    if found:
        return found
    variants = _unique(entry.variant for entry in candidates)
    raise ZooError(
        f'{candidates[0].env_id} has no variant "{variant}": it has {_listed(variants)}.'
        f"{did_you_mean(variant, variants)}"
    )


def _task(entry: ZooEntry) -> str:
    """The task, as a person would write it in a call."""
    kwargs = "".join(f", {name}={value!r}" for name, value in entry.env_kwargs.items())
    wrapped = "".join(f" {name}" for name in wrapper_names(entry.wrappers))
    return f'"{entry.env_id}"{kwargs}{wrapped}'


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _listed(names: Iterable[str]) -> str:
    return "; ".join(names)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts n=2 before n=10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
