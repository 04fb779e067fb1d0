"""An entry of the zoo: one distilled dataset, its name and its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gym_taskdistill.dataset.card import Card, bare_id
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.file import read_card
from gym_taskdistill.errors import ZooError
from gym_taskdistill.tasks.task import wrapper_names


@dataclass(frozen=True)
class ZooEntry:
    """One distilled dataset of the zoo, not yet read.

    Attributes:
        env_id: Gymnasium id of its task, without module prefix.
        env_kwargs: Keyword arguments of its environment.
        variant: Which of the task's datasets it is, such as ``"k_min"``.
        path: Its ``dataset.safetensors``.
        default: Whether it is meant when no variant is named.
        wrappers: What is put around its environment; see `Task`.
    """

    env_id: str
    env_kwargs: dict[str, Any]
    variant: str
    path: Path
    default: bool = False
    wrappers: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Full name, such as ``CartPoleND-v0/n=2,k_min``; `find` accepts it."""
        return f"{self.env_id}/{entry_name(self.env_kwargs, self.variant, self.wrappers)}"

    def is_of(self, card: Card) -> bool:
        """Whether it is of the same task as a card of the same env id."""
        return self.env_kwargs == card.env_kwargs and self.wrappers == card.wrappers

    @property
    def root(self) -> Path:
        """Folder of the zoo in which it lies."""
        return self.path.parents[2]

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


def entry_name(
    env_kwargs: Mapping[str, Any], variant: str, wrappers: Iterable[Mapping[str, Any]] = ()
) -> str:
    """Name of an entry within its environment, and of its folder.

    Args:
        env_kwargs: Keyword arguments of the environment, plain values.
        variant: Letters, digits, ``_``, ``.``, ``+`` and ``-``, starting with a letter or digit.
        wrappers: What is put around the environment; see `Task`.

    Returns:
        The name, safe as a folder name on every system.

    Raises:
        ZooError: If the variant is empty or has other characters, a key is no name, or all is too long.

    >>> entry_name({"n": 2}, "k_min")
    'n=2,k_min'
    >>> entry_name({}, "k64", [{"entry_point": "gymnasium.wrappers:FlattenObservation", "kwargs": {}}])
    '+FlattenObservation,k64'
    """
    if not is_safe(variant):
        raise ZooError(
            f"{variant[:80]!r} cannot be the variant of a zoo entry: set card.variant to a short name "
            'of letters, digits, "_", ".", "+" and "-".'
        )
    for key in env_kwargs:
        if not re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII):
            raise ZooError(f"{key[:80]!r} cannot be an argument of a zoo entry's environment: it is no name.")
    arguments = (f"{k}={slug(v)}" for k, v in sorted(env_kwargs.items()))
    name = ",".join([*arguments, *wrapper_names(wrappers), variant])
    if len(name) > 200:
        raise ZooError(f"The name of the zoo entry, {name[:80]}…, is longer than 200 characters.")
    return name


def entry_folder(card: Card) -> Path:
    """Return where a card's dataset belongs, from the zoo's folder on.

    Raises:
        ZooError: If its id, arguments or variant cannot be the name of a folder.
    """
    if card.unrecorded:
        raise ZooError(
            f"The zoo takes datasets whose environment anyone can make, but not this one of {card.task}, for "
            f"{card.unrecorded}; register the environment with Gymnasium, and distil it by its id."
        )
    environment = env_folder(card.env_id)
    if not is_safe(environment):
        raise ZooError(
            f"{card.env_id[:80]!r} cannot be the environment of a zoo entry: it is no Gymnasium id."
        )
    return Path(environment) / entry_name(card.env_kwargs, card.variant, card.wrappers)


def env_folder(env_id: str) -> str:
    """Return the name of the folder of an environment's entries.

    >>> env_folder("ALE/Pong-v5")
    'ALE--Pong-v5'
    """
    return bare_id(env_id).replace("/", "--")


def is_safe(part: str) -> bool:
    """Whether a part of an entry's path stays within its folder, on every system."""
    return re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,200}", part, re.ASCII) is not None


def slug(value: Any) -> str:
    """Return an argument's value as a part of a folder's name."""
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+-]", "-", text, flags=re.ASCII)
