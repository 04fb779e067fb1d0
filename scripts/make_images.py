"""Draw the pictures of the README from the zoo into ``docs/images``: ``python scripts/make_images.py``."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg

from gym_taskdistill.cli import enjoy, plot

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
ENTRY = "CartPoleND-v0/n=2,k_min"

#: Every fifth step, so that the file stays below a megabyte; no dithering, which GIF packs badly.
SMALL = (
    "fps=10, scale=480:-1:flags=area, split [a][b]; "
    "[a] palettegen=max_colors=48 [palette]; [b][palette] paletteuse=dither=none"
)


def main() -> None:
    """Draw the rows of cart-pole's dataset, and record two fresh agents that were trained on them."""
    IMAGES.mkdir(exist_ok=True)
    plot.main(["rows", ENTRY, "--out", str(IMAGES / "cartpole-rows.png")])
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "cartpole.mp4"
        enjoy.main([ENTRY, "--episodes", "2", "--seed", "0", "--record", str(video)])
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", str(video)]
        subprocess.run([*command, "-filter_complex", SMALL, str(IMAGES / "cartpole.gif")], check=True)


if __name__ == "__main__":
    main()
