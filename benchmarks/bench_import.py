"""Time of ``import gym_taskdistill`` in a fresh process, and what it brings along."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import Report, Row

PEERS = "import stable_baselines3, gymnasium, torch"
OURS = "import gym_taskdistill"

#: For videos, plots, downloads and other simulators: what needs them imports them, when it does.
FORBIDDEN = (
    "matplotlib",
    "pygame",
    "imageio",
    "moviepy",
    "huggingface_hub",
    "optuna",
    "envpool",
    "ale_py",
    "cv2",
    "pandas",
)

CODE = """
import sys, time
start = time.perf_counter()
{statement}
print(time.perf_counter() - start)
print(*(name for name in {names!r} if name in sys.modules))
"""


def import_once(statement: str) -> tuple[float, list[str]]:
    """Run an import in a fresh process; return its seconds and its forbidden modules."""
    code = CODE.format(statement=statement, names=FORBIDDEN)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, modules = done.stdout.split("\n")[:2]
    return float(seconds), modules.split()


def measure(rounds: int = 4) -> Report:
    """Measure imports in turns; the best round counts, as the first only fills the file cache."""
    ours_s = peers_s = float("inf")
    forbidden: list[str] = []
    for _ in range(rounds):
        seconds, ours = import_once(OURS)
        ours_s = min(ours_s, seconds)
        seconds, theirs = import_once(PEERS)
        peers_s = min(peers_s, seconds)
        forbidden = [name for name in ours if name not in theirs]
    name = "import gym_taskdistill / SB3 + gymnasium + torch (time)"
    found = ", ".join(forbidden) or "none"
    return Report(
        [
            Row(name, f"{ours_s:.2f} s", f"{peers_s:.2f} s", ours_s / peers_s),
            Row("modules imported that should not be", found, target="none", ok=not forbidden),
        ],
        ["Modules that the import should not bring along: " + ", ".join(FORBIDDEN)],
    )
