"""Datasets on the Hugging Face Hub: their addresses, and how their files come to this machine.

An address is ``hf://user/name``, or ``hf://user/name@revision`` for a branch, a tag or a commit. Fetching
brings one file, whose content is checked when it is read; no code comes along.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gym_taskdistill.errors import TaskDistillError, import_extra
from gym_taskdistill.safe_yaml import shortened

#: How an address begins.
SCHEME = "hf://"

#: What huggingface_hub's errors mean, by name, as the end of a sentence.
_REASONS = {
    "RepositoryNotFoundError": "there is none of that name, or it is private: log in by `hf auth login`",
    "GatedRepoError": "its owner must grant you access first",
    "RevisionNotFoundError": "it has no such revision",
    "EntryNotFoundError": "it holds no such file",
    "RemoteEntryNotFoundError": "it holds no such file",
    "LocalEntryNotFoundError": "the Hub cannot be reached, and no copy is on this machine",
    "LocalTokenNotFoundError": "you are not logged in: run `hf auth login`",
}


@dataclass(frozen=True)
class Address:
    """Where a dataset lies on the Hub.

    Attributes:
        repo: Its repository, ``user/name``.
        revision: Branch, tag or commit; ``None`` for the newest.
    """

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address, with ``hf://`` or without.

        Raises:
            TaskDistillError: It is none.

        >>> Address.parse("hf://user/cartpole@v1")
        Address(repo='user/cartpole', revision='v1')
        """
        repo, at, revision = text.removeprefix(SCHEME).partition("@")
        part = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
        is_repo = re.fullmatch(f"{part}/{part}", repo, re.ASCII) and len(repo) <= 96
        is_revision = not at or re.fullmatch(r"[\w.-]+(/[\w.-]+)*", revision, re.ASCII)
        if not is_repo or not is_revision or ".." in text or "--" in repo or repo.endswith(".git"):
            raise TaskDistillError(
                f'"{shortened(text)}" is no dataset of the Hub: write user/name, or user/name@revision.'
            )
        return cls(repo, revision or None)

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"{SCHEME}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_address(name: object) -> bool:
    """Whether a name means a dataset on the Hub."""
    return isinstance(name, str) and name.startswith(SCHEME)


def library() -> Any:
    """Import huggingface_hub.

    Raises:
        TaskDistillError: It is not installed.
    """
    return import_extra("huggingface_hub", "hub", "Datasets of the Hub")


def fetch(address: Address, filename: str) -> Path:
    """Bring a file of the Hub to this machine, or find the copy that is here already.

    Args:
        address: Where it lies.
        filename: Its name there.

    Returns:
        The copy, in huggingface_hub's cache; it must not be changed.

    Raises:
        TaskDistillError: huggingface_hub is not installed, or the file cannot be had.
    """
    hub = library()
    try:
        return Path(hub.hf_hub_download(address.repo, filename, revision=address.revision))
    except Exception as error:  # of the Hub, of its transport, of the disk
        raise refused(f'"{filename}" of {address} cannot be fetched', error) from None


def refused(what: str, error: Exception) -> TaskDistillError:
    """Say in a sentence why the Hub did not do something.

    Args:
        what: What it did not, to begin the sentence.
        error: What huggingface_hub raised.
    """
    lines = str(error).strip().splitlines()
    reason = _REASONS.get(type(error).__name__, shortened(lines[0], 200) if lines else type(error).__name__)
    return TaskDistillError(f"{what}: {reason.rstrip('.')}.")
