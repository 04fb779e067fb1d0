"""Pictures of the N-dimensional cart-pole: a side view per axis, a top-down view per pair of axes.

pygame is imported when the first picture is asked for, so that training does not need it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.error import DependencyNotInstalled

from gym_taskdistill.envs.cartpole_dynamics import HALF_POLE_LENGTH, THETA_LIMIT, X_LIMIT

Colour = tuple[int, int, int]
Point = tuple[float, float]

# After Okabe and Ito, so that the axes stay apart for colour-blind eyes; more axes repeat them.
AXIS_COLOURS: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (170, 68, 153),
    (200, 140, 0),
    (60, 150, 205),
)
BACKGROUND: Colour = (244, 244, 242)
PANEL: Colour = (255, 255, 255)
PUSHED_PANEL: Colour = (255, 248, 220)
INK: Colour = (40, 40, 40)
FAINT: Colour = (205, 205, 205)
LIMIT: Colour = (200, 60, 60)
POLE: Colour = (150, 110, 70)

SIDE_SIZE = (380, 210)  # of a side view, pixels
SINGLE_SIZE = (600, 360)  # of the only side view when n = 1
TOP_SIZE = (210, 210)  # of a top-down view
GAP = 10
LEGEND_HEIGHT = 35
ROWS = 3  # of pairs of axes, before a new column is opened
OVERSAMPLING = 2  # everything is drawn larger and scaled down, which smooths the edges
LEAN_GAIN = 4.0  # seen from above, 12° of a 1 m pole is only 0.2 m: exaggerated


def checked_render_mode(mode: str | None, supported: Sequence[str]) -> str | None:
    """Return `mode` if it is `None` or supported.

    Raises:
        ValueError: If it is neither.
    """
    if mode is not None and mode not in supported:
        raise ValueError(f"`render_mode` must be None or one of {list(supported)}, got {mode!r}.")
    return mode


def import_pygame() -> Any:
    """Import pygame.

    Raises:
        DependencyNotInstalled: If it is missing.
    """
    try:
        import pygame
    except ImportError as error:
        raise DependencyNotInstalled(
            'Rendering needs pygame: run `pip install "gym-taskdistill[video]"`.'
        ) from error
    return pygame


class CartPoleRenderer:
    """Draws the state of one N-dimensional cart-pole at a time, into an array or a window."""

    def __init__(self, n: int) -> None:
        """Lay out the panels.

        Args:
            n: Degrees of freedom, at least 1.

        Raises:
            DependencyNotInstalled: If pygame is missing.
        """
        self.n = n
        self._pygame = import_pygame()
        self._side_boxes, self._top_boxes, self.size = _layout(n)
        width, height = self.size
        self._canvas = _Canvas(self._pygame, width, height)
        self._window: Any = None
        self._clock: Any = None

    def frame(self, state: npt.NDArray[np.float64], push: int | None) -> npt.NDArray[np.uint8]:
        """Draw a state into an array; no display is needed.

        Args:
            state: `(4, n)`: x, ẋ, θ, θ̇ of every axis, in m and rad.
            push: The last action, whose axis is highlighted; `None` before the first.

        Returns:
            A fresh uint8 array of shape `(height, width, 3)`.
        """
        width, height = self.size
        pixels = self._pygame.image.tobytes(self._draw(state, push), "RGB")
        return np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, 3).copy()

    def show(self, state: npt.NDArray[np.float64], push: int | None, fps: int) -> None:
        """Draw a state into the window, opened on first use, and wait for the next frame.

        Args:
            state: As in `frame`.
            push: As in `frame`.
            fps: Frames per second of the window.
        """
        pygame = self._pygame
        if self._window is None:
            pygame.display.init()
            self._window = pygame.display.set_mode(self.size)
            pygame.display.set_caption(f"CartPoleND, n = {self.n}")
            self._clock = pygame.time.Clock()
        self._window.blit(self._draw(state, push), (0, 0))
        pygame.event.pump()
        self._clock.tick(fps)
        pygame.display.flip()

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._pygame.display.quit()
            self._window = None

    def _draw(self, state: npt.NDArray[np.float64], push: int | None) -> Any:
        """Return a pygame surface of `self.size` that shows the state."""
        canvas = self._canvas
        canvas.clear()
        x, theta = state[0].tolist(), state[2].tolist()
        pushed, direction = (None, 0) if push is None else (push // 2, 2 * (push % 2) - 1)
        self._draw_legend(pushed, direction)
        for axis, box in enumerate(self._side_boxes):
            _draw_side(canvas, box, axis, x[axis], theta[axis], direction * (axis == pushed))
        for pair, box in enumerate(self._top_boxes):
            axes = (2 * pair, 2 * pair + 1)
            _draw_top(
                canvas,
                box,
                axes,
                (x[axes[0]], x[axes[1]]),
                (theta[axes[0]], theta[axes[1]]),
                (direction * (axes[0] == pushed), direction * (axes[1] == pushed)),
            )
        return canvas.finished()

    def _draw_legend(self, pushed: int | None, direction: int) -> None:
        """Name the axes in their colours, and the last push."""
        left, middle = 2.0 * GAP, GAP / 2 + LEGEND_HEIGHT / 2
        for axis in range(self.n):
            self._canvas.rectangle((left, middle - 6, 12, 12), _colour(axis))
            left += 18 + self._canvas.text(f"axis {axis}", (left + 18, middle), INK) + 16
        if pushed is not None:
            label = f"push: axis {pushed} {'+' if direction > 0 else '−'}"
            right = self.size[0] - 2.0 * GAP
            # With many axes the names fill the line; the highlighted panel still tells the push.
            if left + 120 < right:
                self._canvas.text(label, (right, middle), _colour(pushed), align="right")


class _Box:
    """A rectangle of the picture, in pixels."""

    def __init__(self, left: float, top: float, size: tuple[int, int]) -> None:
        self.left, self.top = left, top
        self.width, self.height = size

    @property
    def rectangle(self) -> tuple[float, float, float, float]:
        return self.left, self.top, self.width, self.height


class _Canvas:
    """A pygame surface addressed in pixels of the final picture, drawn enlarged."""

    def __init__(self, pygame: Any, width: int, height: int) -> None:
        self._pygame = pygame
        self._size = (width, height)
        self._surface = pygame.Surface((width * OVERSAMPLING, height * OVERSAMPLING), depth=32)
        self._fonts: dict[int, Any] = {}

    def clear(self) -> None:
        """Wipe the picture."""
        # Whoever else uses pygame may have quit its font module since the last picture; a font of
        # before is unusable then, and loading it anew costs little.
        self._pygame.font.init()
        self._fonts.clear()
        self._surface.fill(BACKGROUND)

    def finished(self) -> Any:
        """Return the picture in its final size, as a fresh surface."""
        return self._pygame.transform.smoothscale(self._surface, self._size)

    def clip(self, box: _Box | None) -> None:
        """Draw only inside `box` from now on; `None` lifts the limit."""
        self._surface.set_clip(None if box is None else _scaled(box.rectangle))

    def rectangle(
        self, rectangle: tuple[float, float, float, float], colour: Colour, line: float = 0
    ) -> None:
        """Draw a rectangle (left, top, width, height); filled where `line`, its width, is 0."""
        self._pygame.draw.rect(
            self._surface,
            colour,
            _scaled(rectangle),
            round(line * OVERSAMPLING),
            border_radius=3 * OVERSAMPLING,
        )

    def line(self, start: Point, end: Point, colour: Colour, width: float = 1) -> None:
        """Draw a straight line as a polygon, so that thick slanted lines keep square ends."""
        across, along = end[1] - start[1], end[0] - start[0]
        length = math.hypot(across, along)
        if length == 0:
            return
        dx, dy = width / 2 * across / length, -width / 2 * along / length
        self.polygon(
            [
                (start[0] + dx, start[1] + dy),
                (end[0] + dx, end[1] + dy),
                (end[0] - dx, end[1] - dy),
                (start[0] - dx, start[1] - dy),
            ],
            colour,
        )

    def arrow(self, start: Point, end: Point, colour: Colour, width: float) -> None:
        """Draw an arrow whose head is three times as wide as its shaft."""
        length = math.hypot(end[0] - start[0], end[1] - start[1])
        along = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)
        head = 2.4 * width
        neck = (end[0] - head * along[0], end[1] - head * along[1])
        self.line(start, neck, colour, width)
        side = (1.5 * width * along[1], -1.5 * width * along[0])
        self.polygon(
            [end, (neck[0] + side[0], neck[1] + side[1]), (neck[0] - side[0], neck[1] - side[1])],
            colour,
        )

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Draw a filled polygon."""
        scaled = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        self._pygame.draw.polygon(self._surface, colour, scaled)

    def circle(self, centre: Point, radius: float, colour: Colour) -> None:
        """Draw a filled circle."""
        scaled = (centre[0] * OVERSAMPLING, centre[1] * OVERSAMPLING)
        self._pygame.draw.circle(self._surface, colour, scaled, radius * OVERSAMPLING)

    def text(self, text: str, position: Point, colour: Colour, size: int = 20, align: str = "left") -> float:
        """Write a line, vertically centred at `position`, and return its width in pixels."""
        if size not in self._fonts:
            self._fonts[size] = self._pygame.font.Font(None, size * OVERSAMPLING)
        image = self._fonts[size].render(text, True, colour)
        x, y = position[0] * OVERSAMPLING, position[1] * OVERSAMPLING
        offset = {"left": 0.0, "centre": 0.5, "right": 1.0}[align] * image.get_width()
        self._surface.blit(image, (x - offset, y - image.get_height() / 2))
        return float(image.get_width() / OVERSAMPLING)


def _layout(n: int) -> tuple[list[_Box], list[_Box], tuple[int, int]]:
    """Place the panels of `n` axes.

    Every pair of axes has a line: its two side views and its top-down view. The last axis of an odd
    number has a line of its own.

    Returns:
        The boxes of the side views, those of the top-down views, and the size of the picture.
    """
    top = GAP // 2 + LEGEND_HEIGHT
    if n == 1:
        width, height = SINGLE_SIZE
        return [_Box(GAP, top, SINGLE_SIZE)], [], (width + 2 * GAP, top + height + GAP)
    lines = math.ceil(n / 2)
    columns = math.ceil(lines / ROWS)
    rows = math.ceil(lines / columns)
    line_width, line_height = 2 * (SIDE_SIZE[0] + GAP) + TOP_SIZE[0] + GAP, SIDE_SIZE[1] + GAP
    sides, tops = [], []
    for line in range(lines):
        left = GAP + (line // rows) * line_width
        y = top + (line % rows) * line_height
        sides.append(_Box(left, y, SIDE_SIZE))
        if 2 * line + 1 < n:
            sides.append(_Box(left + SIDE_SIZE[0] + GAP, y, SIDE_SIZE))
            tops.append(_Box(left + 2 * (SIDE_SIZE[0] + GAP), y, TOP_SIZE))
    return sides, tops, (GAP + columns * line_width, top + rows * line_height)


def _draw_side(canvas: _Canvas, box: _Box, axis: int, x: float, theta: float, direction: int) -> None:
    """Draw one axis from the side: track, cart, pole, and the push (-1, 0 or +1)."""
    colour = _colour(axis)
    scale = box.width / (2 * X_LIMIT + 0.9)  # pixels per metre, with room for the cart at its limit
    middle, track = box.left + box.width / 2, box.top + box.height * 0.80
    canvas.rectangle(box.rectangle, PUSHED_PANEL if direction else PANEL)
    canvas.clip(box)

    canvas.line((box.left, track), (box.left + box.width, track), INK, 1.5)
    for limit in (-X_LIMIT, X_LIMIT):
        at = middle + limit * scale
        canvas.line((at, track - 12), (at, track + 12), LIMIT, 2)
    canvas.line((middle, track), (middle, track + 6), FAINT, 2)

    cart_x = middle + x * scale
    cart_width, cart_height = 0.5 * scale, 0.26 * scale
    pivot = (cart_x, track - cart_height)
    length = 2 * HALF_POLE_LENGTH * scale

    def tip(angle: float, reach: float) -> Point:
        return pivot[0] + reach * math.sin(angle), pivot[1] - reach * math.cos(angle)

    for limit in (-THETA_LIMIT, THETA_LIMIT):
        canvas.line(pivot, tip(limit, 1.08 * length), FAINT, 1)
    canvas.rectangle((cart_x - cart_width / 2, pivot[1], cart_width, cart_height), colour)
    canvas.line(pivot, tip(theta, length), POLE, 0.1 * scale)
    canvas.circle(pivot, 0.06 * scale, INK)
    if direction:
        start = cart_x + direction * (cart_width / 2 + 4)
        y = pivot[1] + cart_height / 2
        canvas.arrow((start, y), (start + direction * 0.5 * scale, y), LIMIT, 5)

    canvas.text(f"axis {axis}", (box.left + 10, box.top + 16), colour, 22)
    numbers = f"x {x:+.2f} m    θ {math.degrees(theta):+.1f}°"
    canvas.text(numbers, (middle, box.top + box.height - 16), INK, 20, align="centre")
    canvas.clip(None)
    canvas.rectangle(box.rectangle, colour if direction else FAINT, 2 if direction else 1)


def _draw_top(
    canvas: _Canvas,
    box: _Box,
    axes: tuple[int, int],
    x: tuple[float, float],
    theta: tuple[float, float],
    direction: tuple[int, int],
) -> None:
    """Draw two axes from above: the cart on their plane, and the way the pole leans."""
    scale = box.width / (2 * X_LIMIT + 0.9)
    middle = (box.left + box.width / 2, box.top + box.height / 2)

    def at(first: float, second: float) -> Point:
        return middle[0] + first * scale, middle[1] - second * scale

    canvas.rectangle(box.rectangle, PUSHED_PANEL if any(direction) else PANEL)
    canvas.clip(box)
    left, top = at(-X_LIMIT, X_LIMIT)
    canvas.rectangle((left, top, 2 * X_LIMIT * scale, 2 * X_LIMIT * scale), LIMIT, 1.5)
    # The tracks cross where the cart stands.
    canvas.line(at(-X_LIMIT, x[1]), at(X_LIMIT, x[1]), _colour(axes[0]), 2)
    canvas.line(at(x[0], -X_LIMIT), at(x[0], X_LIMIT), _colour(axes[1]), 2)

    cart = 0.5 * scale
    centre = at(*x)
    canvas.rectangle((centre[0] - cart / 2, centre[1] - cart / 2, cart, cart), INK)
    for axis, sign in enumerate(direction):
        if sign:
            unit = (1 - axis, axis)
            start = at(x[0] + 0.3 * sign * unit[0], x[1] + 0.3 * sign * unit[1])
            end = at(x[0] + 0.9 * sign * unit[0], x[1] + 0.9 * sign * unit[1])
            canvas.arrow(start, end, LIMIT, 5)
    reach = LEAN_GAIN * 2 * HALF_POLE_LENGTH
    tip = at(x[0] + reach * math.sin(theta[0]), x[1] + reach * math.sin(theta[1]))
    canvas.line(centre, tip, POLE, 0.12 * scale)
    canvas.circle(centre, 0.08 * scale, PANEL)
    canvas.circle(tip, 0.11 * scale, POLE)

    top_text, bottom_text = box.top + 10, box.top + box.height - 9
    canvas.text(f"axes {axes[0]} and {axes[1]} from above", (middle[0], top_text), INK, 18, align="centre")
    canvas.text(f"pole lean ×{LEAN_GAIN:g}", (middle[0], bottom_text), INK, 18, align="centre")
    canvas.clip(None)
    canvas.rectangle(box.rectangle, FAINT, 1)


def _colour(axis: int) -> Colour:
    """Return the colour of an axis."""
    return AXIS_COLOURS[axis % len(AXIS_COLOURS)]


def _scaled(rectangle: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """Return a rectangle in the pixels of the enlarged surface."""
    left, top, width, height = (round(value * OVERSAMPLING) for value in rectangle)
    return left, top, width, height
