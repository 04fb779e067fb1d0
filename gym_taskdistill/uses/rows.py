"""Pictures of a dataset's rows, as in Figure 3 of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gym_taskdistill.dataset.card import bare_id
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.envs.cartpole_dynamics import THETA_LIMIT
from gym_taskdistill.envs.rendering import AXIS_COLOURS
from gym_taskdistill.uses.figures import CART_POLES, FAINT, INK, MARK, PathArg, new_figure, plain_text, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Rows of a dataset that are drawn one by one; more would be too small to read.
MAX_ROWS = 8

TYPICAL_LEAN = math.radians(50)  # how far the figure lets an upper quartile of the poles lean
STEEPEST_LEAN = math.radians(80)  # no pole is drawn beyond this
MAX_GAIN = 5.0  # angles are not exaggerated more than this


def plot_rows(dataset: DistilledDataset, path: PathArg | None = None) -> Figure:
    """Draw what a dataset teaches: its rows, each with its label.

    A cart-pole dataset becomes Figure 3 of the paper: a column per row, in which the pole of every axis leans
    as the row says, above the softmaxed label. Rows that are images become images, and all others the lines
    of a heat-map; the heat-map's observations are normalised, where the dataset normalises.

    Args:
        dataset: The dataset. Of more than 8 rows those with the largest labels are drawn one by one; a
            heat-map has them all.
        path: File to save to, ``.png``, ``.pdf`` or ``.svg``; ``None`` only returns the figure.

    Returns:
        The figure.

    Raises:
        TaskDistillError: The file cannot be written.
    """
    if _is_cart_pole(dataset):
        figure = _plot_poles(dataset)
    elif len(dataset.obs_shape) == 3:
        figure = _plot_images(dataset)
    else:
        figure = _plot_heat_map(dataset)
    save(figure, path)
    return figure


def action_names(dataset: DistilledDataset) -> list[str]:
    """Name the columns of a dataset's labels, such as ``axis 0 −`` for a push of the N-D cart-pole.

    Args:
        dataset: The dataset.

    Returns:
        A name for each output.
    """
    if _is_cart_pole(dataset):
        return [f"axis {a // 2} {'−+'[a % 2]}" for a in range(dataset.n_outputs)]
    start = dataset.card.action_space.get("start", 0)
    return [f"action {start + a}" for a in range(dataset.n_outputs)]


def _is_cart_pole(dataset: DistilledDataset) -> bool:
    n_axes = dataset.n_outputs // 2
    shapes_fit = dataset.n_outputs == 2 * n_axes and dataset.obs_shape == (4 * n_axes,)
    return bare_id(dataset.card.env_id) in CART_POLES and shapes_fit


def _observations(dataset: DistilledDataset) -> np.ndarray:
    """Return x in the env's own units."""
    observations: np.ndarray = dataset.view.invert(dataset.x).cpu().numpy()
    return observations


def _labels(dataset: DistilledDataset) -> np.ndarray:
    """Return what the labels mean: action probabilities, or action means."""
    is_discrete = dataset.card.action_space["type"] == "Discrete"
    labels = dataset.y.softmax(dim=1) if is_discrete else dataset.y
    return labels.cpu().numpy()


def _label_heading(dataset: DistilledDataset) -> str:
    return "softmax(y)" if dataset.card.action_space["type"] == "Discrete" else "y (action means)"


def _shown_rows(dataset: DistilledDataset) -> tuple[list[int], str]:
    """Choose the rows to draw one by one, and a remark if these are not all."""
    if dataset.k <= MAX_ROWS:
        return list(range(dataset.k)), ""
    order = torch.argsort(dataset.y.norm(dim=1), descending=True, stable=True)
    return order[:MAX_ROWS].tolist(), f"{MAX_ROWS} of {dataset.k} rows, those with the largest labels"


def _plot_poles(dataset: DistilledDataset) -> Figure:
    rows, remark = _shown_rows(dataset)
    n_axes = dataset.n_outputs // 2
    angles = _observations(dataset).reshape(dataset.k, n_axes, 4)[rows, :, 2]
    labels = _labels(dataset)[rows]
    gain = _angle_gain(angles)

    def draw(panel: Axes, column: int, line: int) -> None:
        pushes = labels[column, 2 * line], labels[column, 2 * line + 1]
        _draw_pole(panel, angles[column, line], gain, pushes, _axis_colour(line))
        if column == 0:
            panel.set_ylabel(f"axis {line}", color=_axis_colour(line), fontweight="bold")

    remarks = [
        *([remark] if remark else []),
        f"poles lean by {gain:.2g} times their angle θ"
        + (", red: by even more" if _is_clipped(angles, gain).any() else ""),
        f"the wedge is the ±{math.degrees(THETA_LIMIT):.0f}° of a running episode",
        "arrows: label",
    ]
    colours = [_axis_colour(a // 2) for a in range(dataset.n_outputs)]
    return _plot_columns(dataset, rows, n_axes, draw, colours, "; ".join(remarks))


def _angle_gain(angles: np.ndarray) -> float:
    """Return the factor between the angles of rows and the angles drawn.

    Synthetic rows are not bound to the state space: a pole of theirs may hang upside down, where a real one
    has failed beyond 12°. One factor for all keeps their proportions, which are what the label answers.
    """
    typical = float(np.quantile(np.abs(angles), 0.75))
    return min(MAX_GAIN, TYPICAL_LEAN / typical) if typical > 0 else MAX_GAIN


def _is_clipped(angles: np.ndarray, gain: float) -> np.ndarray:
    clipped: np.ndarray = np.abs(angles) * gain > STEEPEST_LEAN
    return clipped


def _draw_pole(panel: Axes, angle: float, gain: float, pushes: tuple[float, float], colour: str) -> None:
    """Draw a cart, its pole, and the pushes − and + that the label wants, as long as they are likely."""
    from matplotlib.patches import Rectangle, Wedge

    panel.set(xlim=(-1.3, 1.3), ylim=(-0.75, 1.15), aspect="equal", xticks=[], yticks=[])
    panel.spines[:].set_color(FAINT)
    limit = min(90.0, gain * math.degrees(THETA_LIMIT))
    panel.add_patch(Wedge((0, 0), 1.08, 90 - limit, 90 + limit, color=FAINT, linewidth=0))
    panel.axhline(-0.26, color=INK, linewidth=0.8)
    panel.add_patch(Rectangle((-0.25, -0.26), 0.5, 0.26, color=colour, linewidth=0))
    is_clipped = bool(_is_clipped(np.asarray(angle), gain))
    lean = math.copysign(min(abs(angle) * gain, STEEPEST_LEAN), angle)
    tip = math.sin(lean), math.cos(lean)
    pole_colour = MARK if is_clipped else "#966e46"
    panel.plot([0, tip[0]], [0, tip[1]], color=pole_colour, linewidth=4, solid_capstyle="round")
    if is_clipped:
        # An arrow head on the circle beyond the tip: the pole leans further than it is drawn.
        beyond = lean + math.copysign(math.radians(11), lean)
        turn = -math.degrees(beyond) - math.copysign(90, lean)
        panel.plot(math.sin(beyond), math.cos(beyond), marker=(3, 0, turn), markersize=9, color=MARK)
    panel.plot(0, 0, marker="o", markersize=3.5, color=INK)
    for probability, direction in zip(pushes, (-1, 1), strict=True):
        if probability >= 0.05:  # a shorter arrow is all head, and would hide behind the cart
            panel.annotate(
                "",
                xy=(direction * (0.3 + 0.95 * probability), -0.13),
                xytext=(direction * 0.3, -0.13),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": colour,
                    "linewidth": 1.8,
                    "shrinkA": 0,
                    "shrinkB": 0,
                },
            )
    text = f"θ = {math.degrees(angle):+.0f}°".replace("-", "−")
    panel.text(0, -0.53, text, ha="center", va="center", color=MARK if is_clipped else INK)


def _plot_images(dataset: DistilledDataset) -> Figure:
    rows, remark = _shown_rows(dataset)
    images = _observations(dataset)[rows]
    # The newest frame of a stack, or all colours; frames come first in a stack and colours last.
    images = images if images.shape[-1] == 3 else images[:, -1]
    low, high = images.min(), images.max()
    images = (images - low) / max(high - low, 1e-8)

    def draw(panel: Axes, column: int, line: int) -> None:
        panel.imshow(images[column], cmap="gray", vmin=0, vmax=1)
        panel.set(xticks=[], yticks=[])

    colours = ["C0"] * dataset.n_outputs
    return _plot_columns(dataset, rows, 1, draw, colours, remark)


def _plot_columns(
    dataset: DistilledDataset,
    rows: Sequence[int],
    n_lines: int,
    draw: Callable[[Axes, int, int], None],
    colours: Sequence[str],
    remark: str,
) -> Figure:
    """Draw a column for each row: ``n_lines`` panels, drawn by ``draw(panel, column, line)``, and a label."""
    names, labels = action_names(dataset), _labels(dataset)[list(rows)]
    label_height = 0.5 + 0.22 * len(names)
    width = max(2.0 * len(rows) + 1.0, 7.0)
    figure = new_figure(width, 1.55 * n_lines + label_height + 1.0)
    grid = figure.add_gridspec(n_lines + 1, len(rows), height_ratios=[1.55] * n_lines + [label_height])
    for column, row in enumerate(rows):
        for line in range(n_lines):
            panel = figure.add_subplot(grid[line, column])
            draw(panel, column, line)
            if line == 0:
                panel.set_title(f"row {row}")
        bars = figure.add_subplot(grid[n_lines, column])
        _draw_label(bars, labels[column], names, colours, _label_heading(dataset))
        bars.tick_params(labelleft=column == 0)
    figure.suptitle(f"{plain_text(dataset.card.task)}, distilled to {dataset.k} rows", fontweight="bold")
    if remark:
        figure.supxlabel(remark, fontsize=8, color="#666666")
    return figure


def _draw_label(
    panel: Axes, label: np.ndarray, names: Sequence[str], colours: Sequence[str], heading: str
) -> None:
    """Draw a label as bars, the first action on top."""
    bars = panel.barh(range(len(names)), label, color=colours, height=0.75)
    numbers = [f"{value:.2f}" if abs(value) >= 0.005 else "" for value in label]
    panel.bar_label(bars, numbers, padding=2, fontsize=7, color=INK)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.tick_params(axis="y", length=0)
    panel.invert_yaxis()
    if heading == "softmax(y)":
        panel.set_xlim(0, 1.3)  # room for the number beside a bar of 1
        panel.set_xticks([0, 0.5, 1])
    else:
        panel.axvline(0, color=INK, linewidth=0.8)
        panel.margins(x=0.25)
    panel.tick_params(axis="x", labelsize=7)
    panel.set_xlabel(heading, fontsize=8)
    panel.spines[["top", "right"]].set_visible(False)


def _plot_heat_map(dataset: DistilledDataset) -> Figure:
    # In their own units, features of a large scale would drown the others.
    x = dataset.x.flatten(1).cpu().numpy()
    labels, names, heading = _labels(dataset), action_names(dataset), _label_heading(dataset)
    n_features = x.shape[1]
    widths = [max(3.0, min(9.0, 0.3 * n_features)), max(1.2, min(4.0, 0.35 * len(names)))]
    figure = new_figure(sum(widths) + 2.6, max(3.2, min(10.0, 1.5 + 0.25 * dataset.k)))
    left, right = figure.subplots(1, 2, width_ratios=widths)
    is_probability = heading == "softmax(y)"
    features = [str(i) for i in range(n_features)] if n_features <= 40 else None
    _draw_matrix(left, x, features, "x" if dataset.obs_mean is None else "x (normalised)")
    _draw_matrix(right, labels, names, heading, is_probability)
    left.set_xlabel("feature")
    left.set_ylabel("row")
    right.tick_params(labelleft=False)
    figure.suptitle(f"{plain_text(dataset.card.task)}, distilled to {dataset.k} rows", fontweight="bold")
    return figure


def _draw_matrix(
    panel: Axes,
    values: np.ndarray,
    names: Sequence[str] | None,
    title: str,
    is_probability: bool = False,
) -> None:
    """Draw a matrix in colours, with white for zero."""
    bound = 1.0 if is_probability else max(float(np.abs(values).max()), 1e-8)
    colours, lowest = ("Blues", 0.0) if is_probability else ("RdBu_r", -bound)
    image = panel.imshow(values, cmap=colours, vmin=lowest, vmax=bound, aspect="auto")
    panel.set_title(title)
    if len(values) <= 32:
        panel.set_yticks(range(len(values)))
    if names is not None:
        panel.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    assert panel.figure is not None
    panel.figure.colorbar(image, ax=panel, aspect=50)  # slim enough for a panel of one column


def _axis_colour(axis: int) -> str:
    """Return the colour of an axis, the one it has in the env's own pictures."""
    red, green, blue = AXIS_COLOURS[axis % len(AXIS_COLOURS)]
    return f"#{red:02x}{green:02x}{blue:02x}"
