"""Figures: what they show is what the data say, and they are saved whole or not at all."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from gym_taskdistill.dataset.card import Card
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import replacing
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.uses.rows import MAX_ROWS, STEEPEST_LEAN, action_names, plot_rows

DISCRETE = {"type": "Discrete", "n": 4}
BOX = {"type": "Box", "shape": [3], "dtype": "float32", "low": [-1.0] * 3, "high": [1.0] * 3}


def dataset(
    env_id: str, obs_shape: tuple[int, ...], actions: dict[str, Any], k: int, **changes: Any
) -> DistilledDataset:
    generator = torch.Generator().manual_seed(0)
    n_outputs = actions["n"] if actions["type"] == "Discrete" else actions["shape"][0]
    fields: dict[str, Any] = {
        "x": 0.2 * torch.randn(k, *obs_shape, generator=generator),
        "y": 2 * torch.randn(k, n_outputs, generator=generator),
        "rule": InnerSGD(lr=1.0),
        "log_std": None if actions["type"] == "Discrete" else torch.zeros(n_outputs),
        "card": Card(
            env_id=env_id,
            observation_space={"type": "Box", "shape": list(obs_shape), "dtype": "float32"},
            action_space=actions,
            learners={"family": "mlp"},
        ),
    }
    return DistilledDataset(**(fields | changes))


def cart_pole(k: int = 3, **changes: Any) -> DistilledDataset:
    return dataset("CartPoleND-v0", (8,), DISCRETE, k, **changes)


def tick_labels(panel: Axes, axis: str) -> list[str]:
    return [label.get_text() for label in getattr(panel, f"get_{axis}ticklabels")()]


def bar_panels(figure: Figure) -> list[Axes]:
    return [panel for panel in figure.axes if panel.containers]


def pole_lean(panel: Axes) -> float:
    """Angle of the pole in a panel, to the right from upright."""
    (pole,) = (line for line in panel.lines if line.get_linewidth() == 4)
    x, y = np.asarray(pole.get_xydata())[1]
    return math.atan2(x, y)


def texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts if text.get_text()]


# --- rows of a cart-pole --------------------------------------------------------------------------


def test_every_row_is_a_column_with_a_panel_for_each_axis_and_its_label() -> None:
    data = cart_pole(3)
    figure = plot_rows(data)
    assert len(figure.axes) == 3 * (2 + 1)
    assert [panel.get_title() for panel in figure.axes if panel.get_title()] == ["row 0", "row 1", "row 2"]
    panels = bar_panels(figure)
    assert len(panels) == 3
    assert tick_labels(panels[0], "y") == ["axis 0 −", "axis 0 +", "axis 1 −", "axis 1 +"]
    assert not tick_labels(panels[1], "y")  # said once
    probabilities = data.y.softmax(1).numpy()
    for panel, expected in zip(panels, probabilities, strict=True):
        widths = [bar.get_width() for bar in panel.patches]
        np.testing.assert_allclose(widths, expected, rtol=1e-6)
        assert panel.yaxis_inverted()  # the first action is on top
    colours = [to_hex(bar.get_facecolor()) for bar in panels[0].patches]
    assert colours[0] == colours[1] != colours[2] == colours[3]  # one for each axis
    title = figure.get_suptitle()
    assert "CartPoleND-v0" in title and "3 rows" in title


def test_poles_lean_in_proportion_to_their_angles() -> None:
    x = torch.zeros(3, 8)
    x[:, 2] = torch.tensor([0.1, -0.2, 0.0])
    x[:, 6] = torch.tensor([-0.05, 0.2, 0.15])
    figure = plot_rows(cart_pole(x=x))
    panels = [panel for panel in figure.axes if not panel.containers]
    leans = np.array([pole_lean(panel) for panel in panels])
    angles = x[:, [2, 6]].flatten().numpy()
    gain = leans[0] / angles[0]
    assert gain > 1  # small angles are exaggerated
    np.testing.assert_allclose(leans, gain * angles, atol=1e-6)
    assert texts(panels[0]) == ["θ = +6°"]
    assert texts(panels[2]) == ["θ = −11°"]
    assert f"{gain:.2g} times" in figure.get_supxlabel()


@pytest.mark.slow
def test_a_pole_far_outside_is_clipped_marked_and_told_apart() -> None:
    x = torch.zeros(3, 8)
    x[:, 2] = torch.tensor([0.1, -0.1, -9.0])
    x[:, 6] = 0.1
    figure = plot_rows(cart_pole(x=x))
    panels = [panel for panel in figure.axes if not panel.containers]
    clipped = panels[4]
    assert pole_lean(clipped) == pytest.approx(-STEEPEST_LEAN)
    assert texts(clipped) == ["θ = −516°"]
    assert clipped.texts[-1].get_color() != panels[0].texts[-1].get_color()
    assert len(clipped.lines) == len(panels[0].lines) + 1  # the arrow head
    assert "even more" in figure.get_supxlabel()


def test_upright_poles_are_drawn() -> None:
    figure = plot_rows(cart_pole(x=torch.zeros(3, 8)))
    assert pole_lean(figure.axes[0]) == 0


def test_arrows_are_as_long_as_pushes_are_likely() -> None:
    y = torch.tensor([[0.9, 0.1, 1e-9, 1e-9], [1e-9, 0.25, 0.75, 1e-9]]).log()
    figure = plot_rows(cart_pole(2, y=y))
    first = figure.axes[0]
    lengths = [text.xy[0] - text.xyann[0] for text in first.texts if not text.get_text()]
    assert lengths[0] < 0 < lengths[1]
    assert lengths[0] / lengths[1] == pytest.approx(-9, rel=1e-5)
    assert not [text for text in figure.axes[1].texts if not text.get_text()]  # axis 1 is not pushed


def test_angles_are_in_the_units_of_the_env() -> None:
    mean, var = torch.full((8,), 0.1), torch.full((8,), 0.25)
    figure = plot_rows(cart_pole(1, x=torch.ones(1, 8), obs_mean=mean, obs_var=var))
    assert texts(figure.axes[0]) == [f"θ = +{math.degrees(0.6):.0f}°"]


def test_of_many_rows_those_with_the_largest_labels_are_drawn() -> None:
    data = cart_pole(20)
    figure = plot_rows(data)
    assert len(figure.axes) == MAX_ROWS * 3
    order = data.y.norm(dim=1).argsort(descending=True)[:MAX_ROWS].tolist()
    assert [panel.get_title() for panel in figure.axes if panel.get_title()] == [f"row {i}" for i in order]
    assert f"{MAX_ROWS} of 20 rows" in figure.get_supxlabel()
    expected = data.y[order].softmax(1).flatten().numpy()
    widths = [bar.get_width() for panel in bar_panels(figure) for bar in panel.patches]
    np.testing.assert_allclose(widths, expected, rtol=1e-6)


def test_gymnasiums_cart_pole_has_one_axis() -> None:
    data = dataset("CartPole-v1", (4,), {"type": "Discrete", "n": 2}, 2)
    assert action_names(data) == ["axis 0 −", "axis 0 +"]
    assert len(plot_rows(data).axes) == 4


# --- rows of other envs ---------------------------------------------------------------------------


def test_other_rows_become_a_heat_map_beside_their_labels() -> None:
    data = dataset("Acrobot-v1", (6,), {"type": "Discrete", "n": 3, "start": -1}, 12)
    figure = plot_rows(data)
    left, right = (panel for panel in figure.axes if panel.get_title())
    np.testing.assert_allclose(left.images[0].get_array(), data.x.numpy())
    np.testing.assert_allclose(right.images[0].get_array(), data.y.softmax(1).numpy())
    assert tick_labels(right, "x") == action_names(data) == ["action -1", "action 0", "action 1"]
    assert right.get_title() == "softmax(y)"


def test_continuous_labels_are_not_softmaxed() -> None:
    data = dataset("Hopper-v5", (11,), BOX, 64, obs_mean=torch.zeros(11), obs_var=torch.ones(11))
    left, right = (panel for panel in plot_rows(data).axes if panel.get_title())
    np.testing.assert_allclose(right.images[0].get_array(), data.y.numpy())
    low, high = right.images[0].get_clim()
    assert low == -high  # white is zero
    assert "normalised" in left.get_title()


def test_a_cart_pole_of_other_shape_is_no_cart_pole() -> None:
    data = dataset("CartPoleND-v0", (6,), DISCRETE, 2)
    assert action_names(data) == ["action 0", "action 1", "action 2", "action 3"]
    assert len([panel for panel in plot_rows(data).axes if panel.get_title()]) == 2


@pytest.mark.parametrize(("shape", "image"), [((4, 7, 7), (7, 7)), ((7, 7, 3), (7, 7, 3))])
def test_images_are_images(shape: tuple[int, ...], image: tuple[int, ...]) -> None:
    data = dataset("ALE/Pong-v5", shape, DISCRETE, 2)
    figure = plot_rows(data)
    assert len(figure.axes) == 4
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None and shown.shape == image
    assert tick_labels(bar_panels(figure)[0], "y") == action_names(data)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "signature"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml")]
)
def test_the_suffix_tells_the_format(tmp_path: Path, name: str, signature: bytes) -> None:
    path = tmp_path / name
    plot_rows(cart_pole(), path)
    assert path.read_bytes().startswith(signature)
    assert [file.name for file in tmp_path.iterdir()] == [name]  # nothing temporary is left


@pytest.mark.slow
def test_a_picture_is_not_blank(tmp_path: Path) -> None:
    plot_rows(cart_pole(), tmp_path / "rows.png")
    assert imread(tmp_path / "rows.png")[..., :3].std() > 0.05


@pytest.mark.parametrize(
    ("name", "message"), [("a.jpg", "saved as .png"), ("a", "saved as .png"), ("no/a.png", "no folder")]
)
def test_a_wrong_file_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        plot_rows(cart_pole(), tmp_path / name)


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    full = "cannot be written: No space left"
    with pytest.raises(TaskDistillError, match=full), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.slow
def test_matplotlib_is_needed_only_for_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, gym_taskdistill.cli.plot, gym_taskdistill.cli.enjoy\n"
        "print(*{'matplotlib', 'imageio', 'imageio_ffmpeg', 'pygame'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(TaskDistillError, match=r'pip install "gym-taskdistill\[plot\]"'):
        plot_rows(cart_pole())


def test_pyplot_is_left_alone(tmp_path: Path) -> None:
    plot_rows(cart_pole(), tmp_path / "rows.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
