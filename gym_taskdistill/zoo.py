"""The zoo: distilled datasets that can be found by task.

An entry is the folder ``<env id, "/" written as "--">/<entry name>/``, which holds
``dataset.safetensors`` and ``dataset.json``. Finding and reading entries runs no code from them and
needs no network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gym_taskdistill.dataset.card import Card, as_dict, bare_id
from gym_taskdistill.dataset.dataset import DistilledDataset, read_card
from gym_taskdistill.dataset.file import DATASET_FILE
from gym_taskdistill.errors import ZooError, did_you_mean
from gym_taskdistill.paths import data_root


@dataclass(frozen=True)
class ZooEntry:
    """One distilled dataset of the zoo, not yet read.

    Attributes:
        env_id: Gymnasium id of its task, without module prefix.
        env_kwargs: Keyword arguments of its environment.
        variant: Which of the task's datasets it is, such as ``"k_min"``.
        path: Its ``dataset.safetensors``.
        default: Whether it is meant when no variant is named.
    """

    env_id: str
    env_kwargs: dict[str, Any]
    variant: str
    path: Path
    default: bool = False

    @property
    def name(self) -> str:
        """Full name, such as ``CartPoleND-v0/n=2,k_min``; `find` accepts it."""
        return f"{self.env_id}/{entry_name(self.env_kwargs, self.variant)}"

    @property
    def card(self) -> Card:
        """The card, read now and without the tensors."""
        return read_card(self.path)

    def load(self) -> DistilledDataset:
        """Read and check the whole dataset.

        Raises:
            DatasetError: If the file is damaged.
        """
        return DistilledDataset.load(self.path)


def entry_name(env_kwargs: Mapping[str, Any], variant: str) -> str:
    """Name of an entry within its environment, and of its folder.

    Args:
        env_kwargs: Keyword arguments of the environment, plain values.
        variant: Letters, digits, ``_``, ``.``, ``+`` and ``-``, starting with a letter or digit.

    Returns:
        The name, safe as a folder name on every system.

    Raises:
        ZooError: If the variant is empty or has other characters.

    >>> entry_name({"n": 2}, "k_min")
    'n=2,k_min'
    >>> entry_name({}, "k64")
    'k64'
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", variant, re.ASCII):
        raise ZooError(
            f'"{variant}" cannot be the variant of a zoo entry: set card.variant to a short name '
            'of letters, digits, "_", ".", "+" and "-".'
        )
    return ",".join([*(f"{k}={_slug(v)}" for k, v in sorted(env_kwargs.items())), variant])


def entries(env_id: str | None = None, *, root: Path | None = None) -> list[ZooEntry]:
    """List the zoo, reading only the cards.

    Args:
        env_id: Only entries of this environment; None lists all.
        root: Folder of another zoo; None is the one that comes with the library.

    Returns:
        The entries, sorted by environment, keyword arguments and variant. Empty if there are none.

    Raises:
        DatasetError: If the header of an entry's file is damaged.
    """
    return _read(_files(env_id, root))


def _files(env_id: str | None, root: Path | None) -> list[Path]:
    root = data_root("zoo") if root is None else Path(root)
    if env_id is None:
        return list(root.glob(f"*/*/{DATASET_FILE}"))
    return list((root / _env_folder(env_id)).glob(f"*/{DATASET_FILE}")) if env_id else []


def _read(files: Iterable[Path]) -> list[ZooEntry]:
    found = []
    for file in files:
        card = read_card(file)
        found.append(ZooEntry(bare_id(card.env_id), card.env_kwargs, card.variant, file, card.default))
    return sorted(found, key=lambda e: (e.env_id, _natural(e.name)))


def find(
    env_id: str,
    variant: str | None = None,
    *,
    root: Path | None = None,
    **env_kwargs: Any,
) -> ZooEntry:
    """Find the one entry that is meant.

    Args:
        env_id: Gymnasium id, with or without its module prefix, or the full name of an entry.
        variant: Which of the task's datasets; None takes the default one, or the only one.
        root: Folder of another zoo; None is the one that comes with the library.
        **env_kwargs: Keyword arguments of the environment. Those that all candidates share may be
            left out.

    Returns:
        The entry.

    Raises:
        ZooError: If no entry or more than one fits; the message lists what there is.
        DatasetError: If the header of an entry's file is damaged.
    """
    asked = as_dict(env_kwargs, "env_kwargs")
    candidates = _with_kwargs(_of_task(env_id, root, asked) or _of_environment(env_id, root), asked)
    if variant is not None:
        candidates = _with_variant(candidates, variant)
    tasks = _unique(_task(entry) for entry in candidates)
    if len(tasks) > 1:
        raise ZooError(f"{env_id} is ambiguous: say which of {_listed(tasks)}.")
    chosen = [entry for entry in candidates if entry.default]
    if len(candidates) == 1:
        chosen = candidates
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
        env_id: As for `find`.
        variant: As for `find`.
        root: As for `find`.
        **env_kwargs: As for `find`.

    Returns:
        The dataset, on the CPU.

    Raises:
        ZooError: If no entry or more than one fits.
        DatasetError: If the file is damaged.
    """
    return find(env_id, variant, root=root, **env_kwargs).load()


def save(dataset: DistilledDataset, root: Path | None = None) -> Path:
    """Write a dataset into the zoo, where its card says; an entry of the same name is replaced.

    Args:
        dataset: The dataset. Its card needs a variant.
        root: Folder of another zoo; None is the one that comes with the library.

    Returns:
        The file written.

    Raises:
        ZooError: If the card has no variant, or if the entry would clash with another one.
        DatasetError: If the file cannot be written.
    """
    card = dataset.card
    root = data_root("zoo") if root is None else Path(root)
    name = entry_name(card.env_kwargs, card.variant)
    folder = root / _env_folder(card.env_id) / name
    for other in entries(card.env_id, root=root):
        if other.path.parent == folder:
            # Only values that a folder name cannot hold make two tasks share a name.
            if other.env_kwargs != card.env_kwargs:
                raise ZooError(
                    f"{folder} already holds a dataset of other env_kwargs, {other.env_kwargs}; "
                    "choose another variant name."
                )
        elif card.default and other.default and other.env_kwargs == card.env_kwargs:
            raise ZooError(
                f"{card.task} already has the default dataset {other.name}; only one may have "
                "card.default set."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"Cannot make the folder of the zoo entry: {error}.") from None
    return dataset.save(folder / DATASET_FILE)


def _of_task(env_id: str, root: Path | None, asked: Mapping[str, Any]) -> list[ZooEntry]:
    """Entries whose folder's name is what was asked, or has all its arguments: cards take a while to read."""
    environment, _, name = env_id.rpartition("/")
    named = [file for file in _files(environment, root) if file.parts[-2] == name]
    if named:
        return _read(named)
    wanted = {f"{name}={_slug(value)}" for name, value in asked.items()}
    return _read(file for file in _files(env_id, root) if wanted <= set(file.parts[-2].split(",")))


def _of_environment(asked: str, root: Path | None) -> list[ZooEntry]:
    """Entries whose environment id, or whose full name, is what was asked."""
    asked = bare_id(asked)
    # Only this environment's folder is read, so that damage elsewhere does no harm.
    of_env_id = entries(asked, root=root)
    named = [e for e in entries(asked.rpartition("/")[0], root=root) if e.name == asked]
    if of_env_id or named:
        return of_env_id or named
    everything = entries(root=root)
    ids = _unique(entry.env_id for entry in everything)
    there_is = f"it has {_listed(ids)}" if ids else "it is empty"
    # An id can only be near ids, and a full name near full names.
    names = [entry.name for entry in everything] if asked.rpartition("/")[0] in ids else ids
    raise ZooError(f"The zoo has no dataset for {asked}: {there_is}.{did_you_mean(asked, names)}")


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


def _env_folder(env_id: str) -> str:
    return bare_id(env_id).replace("/", "--")


def _slug(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+-]", "-", text, flags=re.ASCII)


def _task(entry: ZooEntry) -> str:
    """The task, as a person would write it in a call."""
    kwargs = "".join(f", {name}={value!r}" for name, value in entry.env_kwargs.items())
    return f'"{entry.env_id}"{kwargs}'


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _listed(names: Iterable[str]) -> str:
    return "; ".join(names)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts n=2 before n=10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


if __name__ == "__main__":
    from gym_taskdistill.cli.zoo import main

    main()
