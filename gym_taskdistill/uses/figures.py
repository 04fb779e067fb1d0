"""What all figures share: their look, and the files they are saved to.

matplotlib is imported when the first figure is asked for. Figures are made without pyplot, so that drawing
needs no display and leaves no global state.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gym_taskdistill.errors import TaskDistillError, import_extra
from gym_taskdistill.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Suffixes a figure can be saved under.
FIGURE_SUFFIXES = (".png", ".pdf", ".svg")

#: Envs whose observation is a quadruple (x, ẋ, θ, θ̇) for every axis and whose reward is 1 for every step.
CART_POLES = ("CartPoleND-v0", "CartPole-v0", "CartPole-v1")

INK, FAINT, MARK = "#282828", "#e4e4e0", "#c83c3c"

PathArg = str | os.PathLike[str]


def checked_suffix(path: Path, suffixes: Sequence[str], what: str) -> None:
    """Refuse a file name whose suffix does not tell a known format.

    Args:
        path: The file's name.
        suffixes: The known ones.
        what: What would be written, for the message.

    Raises:
        TaskDistillError: The suffix is another.
    """
    if path.suffix.lower() not in suffixes:
        raise TaskDistillError(f'{what} is saved as {", ".join(suffixes)}, not as "{path.name}".')


def plain_text(text: str) -> str:
    r"""Return text that matplotlib draws as it is, without taking dollars for formulas.

    >>> print(plain_text("$x"))
    \$x
    """
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches.

    Raises:
        TaskDistillError: matplotlib is not installed.
    """
    figure: Figure = import_extra("matplotlib.figure", "plot", "Figures").Figure(
        figsize=(width, height), layout="constrained", facecolor="white"
    )
    return figure


def save(figure: Figure, path: PathArg | None) -> None:
    """Save a figure, if there is a path to save it to."""
    if path is None:
        return
    path = Path(path)
    checked_suffix(path, FIGURE_SUFFIXES, "A figure")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
