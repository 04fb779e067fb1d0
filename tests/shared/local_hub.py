"""A stand-in for huggingface_hub that keeps its repositories in a folder, with its signatures and errors.

`test_the_stand_in_has_huggingface_hubs_signatures` compares it with the library where that is installed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any


class RepositoryNotFoundError(Exception):
    """As huggingface_hub's."""


class RevisionNotFoundError(Exception):
    """As huggingface_hub's."""


class RemoteEntryNotFoundError(Exception):
    """As huggingface_hub's."""


def stand_in(root: Path) -> ModuleType:
    """Make the module; each upload is a revision, ``0``, ``1`` and so on, and ``main`` is the newest.

    Args:
        root: Folder of the repositories: ``<root>/<user>/<name>/<revision>/<file>``.
    """

    class HfApi:
        def create_repo(
            self,
            repo_id: str,
            *,
            token: str | bool | None = None,
            private: bool | None = None,
            repo_type: str | None = None,
            exist_ok: bool = False,
        ) -> str:
            if (root / repo_id).exists() and not exist_ok:
                raise ValueError("409 Client Error: you already created this repo")
            (root / repo_id).mkdir(parents=True, exist_ok=True)
            return f"https://huggingface.co/{repo_id}"

        def upload_folder(
            self,
            *,
            repo_id: str,
            folder_path: str | Path,
            path_in_repo: str | None = None,
            commit_message: str | None = None,
            token: str | bool | None = None,
            repo_type: str | None = None,
            revision: str | None = None,
        ) -> None:
            repo = root / repo_id
            if not repo.is_dir():
                raise RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found for url: …")
            shutil.copytree(folder_path, repo / str(len(list(repo.iterdir()))))

    def hf_hub_download(
        repo_id: str,
        filename: str,
        *,
        subfolder: str | None = None,
        repo_type: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_dir: str | Path | None = None,
        token: str | bool | None = None,
    ) -> str:
        if not (root / repo_id).is_dir():
            raise RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found for url: …")
        newest = max((root / repo_id).iterdir(), key=lambda path: int(path.name), default=root)
        folder = newest if revision in (None, "main") else root / repo_id / str(revision)
        if not folder.is_dir():
            raise RevisionNotFoundError("404 Client Error.\n\nRevision Not Found for url: …")
        if not (folder / filename).is_file():
            raise RemoteEntryNotFoundError("404 Client Error.\n\nEntry Not Found for url: …")
        return str(folder / filename)

    module: Any = ModuleType("huggingface_hub")
    module.HfApi, module.hf_hub_download = HfApi, hf_hub_download
    return module
