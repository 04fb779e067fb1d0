"""The file of a distilled dataset: one ``.safetensors`` that needs nothing beside it.

File format, version 1. The tensors are ``x``, ``y``, and where used ``log_std``, ``obs_mean``,
``obs_var``, ``obs_scale`` and ``encoder.<name>``, all float32. The metadata has the single key
``gym-taskdistill`` (safetensors does not keep the order of several keys, and equal content should give equal
bytes), which holds one canonical JSON document: the format version, the scalars, the tensors' shapes, the
card, and a SHA-256 over all of it and over the tensors' bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from gym_taskdistill.dataset.card import FORMAT_VERSION
from gym_taskdistill.errors import DatasetError

FORMAT = "gym-taskdistill"
SCALARS = ("inner_lr", "inner_steps", "clip_obs", "encoder_layers")
OPTIONAL_SCALARS = {
    "inner_momentum": 0.0,
    "inner_lr_decay": 1.0,
    "inner_step_size": "constant",
    "inner_lr_hidden": 1.0,
}
"""Scalars that a file names only where they differ from these; older files do not know them."""

DATASET_FILE = "dataset.safetensors"
"""Name of the file inside a folder that stands for one dataset."""

_DOCUMENT = {"format_version", "sha256", "tensors", *SCALARS, "card"}


def canonical(document: Mapping[str, Any]) -> str:
    """The one JSON text of a document: equal content, equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def readable(document: Mapping[str, Any]) -> str:
    """The document for people: indented, with each list of plain values on one line."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # JSON strings hold no raw line breaks, so the pattern never reaches into one.
    return re.sub(r"\[\n[^\[\]{}]*\n *\]", _on_one_line, text) + "\n"


def _on_one_line(match: re.Match[str]) -> str:
    items = [line.strip() for line in match[0].splitlines()[1:-1]]
    return f"[{' '.join(items)}]"


def digest(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, over a document and the tensors' names, shapes and bytes."""
    sha256 = hashlib.sha256(canonical(content).encode())
    for name, tensor in sorted(tensors.items()):
        # The shape tells how many bytes follow, so that no two contents hash the same stream.
        sha256.update(canonical({"name": name, "shape": list(tensor.shape)}).encode())
        sha256.update(tensor.cpu().numpy().astype("<f4").tobytes())
    return sha256.hexdigest()


def find_file(path: str | os.PathLike[str]) -> Path:
    """Find the file that a path means: itself, with the suffix added, or inside a folder.

    Raises:
        DatasetError: There is none.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / DATASET_FILE).is_file():
            raise DatasetError(f"{path} is a folder without a {DATASET_FILE}; name the file.")
        return path / DATASET_FILE
    suffixed = path.with_name(path.name + ".safetensors") if path.name else path
    if not path.exists() and suffixed.is_file():
        return suffixed
    if not path.is_file():
        raise DatasetError(f"There is no dataset file {path}.")
    return path


def read_file(path: Path, *, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the document and, if wanted, the tensors; the checksum is the caller's."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(FORMAT)
            # get_tensor maps the file: copies stay right when somebody rewrites it in place.
            names = file.keys() if tensors else ()
            found = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DatasetError(
            f"{path} is not a safetensors file, or is damaged or truncated ({error})."
        ) from None
    if text is None:
        raise DatasetError(f"{path} is a safetensors file, but not a {FORMAT} dataset.")
    damaged = DatasetError(f"{path} is damaged: its metadata is not valid; fetch it again.")
    try:
        document = json.loads(text)
        version = document["format_version"]
        expected = canonical(document)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise damaged from None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DatasetError(
            f"{path} was written by a newer gym-taskdistill (format version {version}); upgrade "
            f"gym-taskdistill to read it."
        )
    if version != FORMAT_VERSION or set(document) - set(OPTIONAL_SCALARS) != _DOCUMENT or text != expected:
        raise damaged
    return document, found
