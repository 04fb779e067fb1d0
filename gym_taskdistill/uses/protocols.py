"""Folders of results that share one protocol, so that what is there already can be kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gym_taskdistill import files
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.schema import Schema


def claim(folder: Path, protocol: Schema, what: str) -> None:
    """Write a folder's protocol, or refuse a folder that has another.

    Args:
        folder: The folder.
        protocol: What all results in it share.
        what: What the folder holds, for the message, such as "baselines that were measured".

    Raises:
        TaskDistillError: It names the first setting that differs.
    """
    path = folder / "protocol.json"
    if not path.is_file():
        files.write_text(path, json.dumps(protocol.to_dict(), indent=2) + "\n")
        return
    found = document(path)
    for name, value in protocol.to_dict().items():
        if found.get(name) != value:
            raise TaskDistillError(
                f'"{folder}" holds {what} with {name}={found.get(name)}, not {value}; choose another folder '
                "by --out."
            )


def document(path: Path) -> dict[str, Any]:
    """Read a JSON object; whatever else the file holds counts as an empty one.

    Raises:
        TaskDistillError: The file cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise TaskDistillError(f'"{path}" cannot be read; remove it.') from None
    return found if isinstance(found, dict) else {}
