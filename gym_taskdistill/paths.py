"""Where things lie: the shipped folders ``zoo`` and ``agents``, a user's own zoo, and a dataset's critic."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import platformdirs

from gym_taskdistill.errors import TaskDistillError


def data_root(name: str) -> Path:
    """Find a data folder that belongs to the library.

    An installed wheel carries it inside the package, at ``gym_taskdistill/_data/<name>``; in a
    source checkout it lies beside the package, at ``<name>``.

    Args:
        name: Name of the folder, ``"zoo"`` or ``"agents"``.

    Returns:
        Its path. In a checkout the folder need not exist yet.

    Raises:
        TaskDistillError: If this is neither an installation with data nor a checkout.
    """
    package = _package()
    installed = package / "_data" / name
    if installed.is_dir():
        return installed
    # Without this test a broken installation would read any site-packages/zoo it happened to find.
    if (package.parent / "pyproject.toml").is_file():
        return package.parent / name
    raise TaskDistillError(
        f'This installation of gym-taskdistill has no "{name}" folder ({installed}); '
        "reinstall the package, or name a folder yourself."
    )


def checkout_root(name: str) -> Path:
    """Return a data folder of a source checkout, which may be written.

    Raises:
        TaskDistillError: The package is installed: its own folders are no place to write.
    """
    root = data_root(name)
    if root.parent != _package().parent:
        raise TaskDistillError(
            f'This is no source checkout of gym-taskdistill, whose "{name}" folder could be written.'
        )
    return root


def user_zoo() -> Path:
    """Return the folder of the user's own zoo; it need not exist yet.

    It is what the environment variable ``TASKDISTILL_ZOO`` says, or lies in the user's data directory.
    """
    named = os.environ.get("TASKDISTILL_ZOO")
    return Path(named) if named else platformdirs.user_data_path("gym-taskdistill", appauthor=False) / "zoo"


def critic_path(dataset: Path) -> Path:
    """Return where the critic of a dataset's file lies.

    >>> critic_path(Path("best.safetensors")).name
    'best.critic.safetensors'
    """
    return dataset.with_suffix(f".critic{dataset.suffix}")


def _package() -> Path:
    return Path(str(resources.files("gym_taskdistill").joinpath("errors.py"))).parent
