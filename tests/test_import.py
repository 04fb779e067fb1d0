"""What an import gives and what it does not bring along, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys

import gym_taskdistill
from benchmarks.bench_import import FORBIDDEN


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names() -> None:
    assert gym_taskdistill.__all__ == ["PPMO", "DistilledDataset", "DistilledPolicy"]
    for name in gym_taskdistill.__all__:
        assert getattr(gym_taskdistill, name).__name__ == name


def test_import_brings_no_heavy_modules_along() -> None:
    added = run(f"""
import sys
import stable_baselines3, gymnasium, torch, torchopt
before = set(sys.modules)
import gym_taskdistill
print(*sorted(set({FORBIDDEN!r}) & (set(sys.modules) - before)))
""")
    assert added == ""


def test_import_registers_the_environments() -> None:
    assert "CartPoleND-v0" in run("""
import gymnasium, gym_taskdistill
print(*gymnasium.registry)
""").split(" ")


def test_gymnasium_imports_the_library_by_itself() -> None:
    made = run("""
import gymnasium
env = gymnasium.make("gym_taskdistill:CartPoleND-v0", n=3)
print(env.spec.id, env.observation_space.shape, env.action_space.n)
""")
    assert made == "CartPoleND-v0 (12,) 6"
