"""The file of a distilled dataset: one ``.safetensors`` that needs nothing beside it.

File format, version 2. The tensors are ``x``, ``y``, and where used ``log_std``, ``obs_mean``,
``obs_var``, ``obs_scale``, ``obs_shift`` and ``encoder.<name>``, all float32. The metadata has the single key
``gym-taskdistill`` (safetensors does not keep the order of several keys, and equal content should give equal
bytes), which holds one canonical JSON document: the format version, the inner rule, the clip of observations,
the number of encoder layers, the tensors' shapes, the card, and a SHA-256 over all of it and over the
tensors' bytes. Version 1 spelled out the inner rule in scalars of the document; it is read too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gym_taskdistill import hub
from gym_taskdistill.dataset.card import Card
from gym_taskdistill.errors import DatasetError
from gym_taskdistill.files import canonical, write_all

FORMAT = "gym-taskdistill"

MAX_DOCUMENT = 2**20
"""Characters of a document; a thousand agents' scores are some ten thousand."""

VERSION = 2
"""Version of the file format that this library writes, and the newest it can read."""

DATASET_FILE = "dataset.safetensors"
"""Name of the file inside a folder that stands for one dataset."""

_DOCUMENT = {"format_version", "sha256", "tensors", "rule", "clip_obs", "encoder_layers", "card"}


def readable(document: Mapping[str, Any]) -> str:
    """The document for people: indented, with each list of plain values on one line."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # JSON strings hold no raw line breaks, so the pattern never reaches into one.
    return re.sub(r"\[\n[^\[\]{}]*\n *\]", _on_one_line, text) + "\n"


def _on_one_line(match: re.Match[str]) -> str:
    items = [line.strip() for line in match[0].splitlines()[1:-1]]
    return f"[{' '.join(items)}]"


def checksum(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, over a document and the tensors' names, shapes and bytes."""
    sha256 = hashlib.sha256(canonical(content).encode())
    for name, tensor in sorted(tensors.items()):
        # The shape tells how many bytes follow, so that no two contents hash the same stream.
        sha256.update(canonical({"name": name, "shape": list(tensor.shape)}).encode())
        sha256.update(tensor.cpu().numpy().astype("<f4").tobytes())
    return sha256.hexdigest()


def find_file(path: str | os.PathLike[str]) -> Path:
    """Find the file that a path means: itself, with the suffix added, inside a folder, or on the Hub.

    Raises:
        DatasetError: There is none.
        TaskDistillError: It cannot be fetched from the Hub.
    """
    if hub.is_address(path):
        return hub.fetch(hub.Address.parse(str(path)), DATASET_FILE)
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


def write_file(
    path: str | os.PathLike[str], document: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write a dataset's file, and its document for people beside it; see `DistilledDataset.save`.

    Args:
        path: The file; ``.safetensors`` is appended if it is missing. The folder must exist.
        document: All but the tensors' values, with the checksum over it and them.
        tensors: The tensors by name.

    Returns:
        The file written.

    Raises:
        DatasetError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        path = path.with_name(path.name + ".safetensors")
    if not path.parent.is_dir():
        raise DatasetError(f"Cannot save to {path}: create the folder {path.parent} first.")
    text = canonical(document)
    if len(text) > MAX_DOCUMENT:
        raise DatasetError(
            f"Cannot save to {path}: of the card's {len(text):,} characters only {MAX_DOCUMENT:,} are read."
        )
    on_cpu = {name: tensor.cpu() for name, tensor in tensors.items()}
    files = {
        path: safetensors.torch.save(on_cpu, {FORMAT: text}),
        path.with_suffix(".json"): readable(document).encode("utf-8", "backslashreplace"),
    }
    try:
        write_all(files)
    except OSError as error:
        raise DatasetError(f"Cannot save to {path}: {error}.") from None
    return path


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read only the card of a dataset file: fast, but the tensors stay unchecked.

    Args:
        path: As for `DistilledDataset.load`.

    Raises:
        DatasetError: If the file is missing, not a dataset, or its card is damaged.
    """
    path = find_file(path)
    document = _upgraded(_read(path, with_tensors=False)[0])
    try:
        return Card.from_dict(document["card"])
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file and check that it is whole.

    Args:
        path: The file.

    Returns:
        Its document, as the newest version has it, and its tensors.

    Raises:
        DatasetError: The file is damaged, of another format or of a newer version.
    """
    document, tensors = _read(path, with_tensors=True)
    claimed = document.pop("sha256")
    shapes = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
    if document["tensors"] != shapes:
        declared = document["tensors"] if isinstance(document["tensors"], dict) else {}
        wrong = [n for n in declared | shapes if declared.get(n) != shapes.get(n)]
        raise DatasetError(
            f"{path}: the file is damaged: it lacks, or should not hold, or holds in another shape, "
            f"the tensors {', '.join(wrong)}."
        )
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise DatasetError(f'{path}: tensor "{name}" is stored as {tensor.dtype}, not float32.')
    if claimed != checksum(tensors, document):
        raise DatasetError(f"{path}: the file is damaged: its checksum is wrong; fetch it again.")
    return _upgraded(document), tensors


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(FORMAT)
            # get_tensor maps the file: copies stay right when somebody rewrites it in place.
            names = file.keys() if with_tensors else ()
            found = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DatasetError(
            f"{path} is not a safetensors file, or is damaged or truncated ({str(error)[:200]})."
        ) from None
    if text is not None and len(text) > MAX_DOCUMENT:
        raise DatasetError(f"{path} has a card of {len(text):,} characters; {MAX_DOCUMENT:,} are read.")
    if text is None:
        raise DatasetError(f"{path} is a safetensors file, but not a {FORMAT} dataset.")
    damaged = DatasetError(f"{path} is damaged: its metadata is not valid; fetch it again.")
    try:
        document = json.loads(text)
        version = document["format_version"]
        expected = canonical(document)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise damaged from None
    if isinstance(version, int) and version > VERSION:
        raise DatasetError(
            f"{path} was written by a newer gym-taskdistill (format version {version}); upgrade "
            f"gym-taskdistill to read it."
        )
    if version not in (1, VERSION) or isinstance(version, bool) or text != expected:
        raise damaged
    if set(_upgraded(document)) != _DOCUMENT:
        raise damaged
    return document, found


#: Scalars of version 1's documents, and the inner rule's settings that they became; the later ones were left
#: out where they are the default.
_RULE_IN_VERSION_1 = {
    "inner_lr": "lr",
    "inner_lr_hidden": "lr_hidden",
    "inner_steps": "steps",
    "inner_momentum": "momentum",
    "inner_lr_decay": "lr_decay",
    "inner_step_size": "step_size",
}


def _upgraded(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document as the newest version has it; what it lacks stays missing."""
    if document["format_version"] != 1:
        return dict(document)
    rest = {name: value for name, value in document.items() if name not in (*_RULE_IN_VERSION_1, "rule")}
    rule = {new: document[old] for old, new in _RULE_IN_VERSION_1.items() if old in document}
    complete = {"lr", "steps"} <= set(rule)
    return {**rest, "format_version": VERSION, **({"rule": {"kind": "sgd", **rule}} if complete else {})}
