"""Where the shipped data folders (``zoo``, ``agents``) lie."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

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
    package = Path(str(resources.files("gym_taskdistill").joinpath("errors.py"))).parent
    installed = package / "_data" / name
    if installed.is_dir():
        return installed
    # Without this test a broken installation would read any site-packages/zoo it happened to find.
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout / name
    raise TaskDistillError(
        f'This installation of gym-taskdistill has no "{name}" folder ({installed}); '
        "reinstall the package, or name a folder yourself."
    )
