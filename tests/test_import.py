"""What an import gives and what it does not bring along, each in a fresh process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

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
from pathlib import Path
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


def test_who_uses_a_dataset_needs_no_trainer() -> None:
    assert (
        run("""
import sys
from pathlib import Path
import gym_taskdistill.policies.evaluation, gym_taskdistill.policies.policy
import gym_taskdistill.wrappers, gym_taskdistill.zoo
print(*(m for m in sys.modules if m.startswith(("gym_taskdistill.distill", "gym_taskdistill.recipes"))))
""")
        == ""
    )


#: Packages and modules from the ground up; a module imports from its own floor and from those below.
FLOORS = (
    {"errors", "safe_yaml", "schema", "files", "paths", "seeds", "progress", "machine", "trust", "hub"},
    {"envs"},
    {"tasks"},
    {"learners"},
    {"inner"},
    {"dataset"},
    {"zoo"},
    {"policies"},
    {"wrappers"},
    {"distill"},
    {"recipes"},
    {"uses"},
    {"cli"},
)


def imports(path: Path) -> set[str]:
    """Return the floors' names that a module imports from, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "gym_taskdistill":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gym_taskdistill."):
            found.add((node.module or "").split(".")[1])
    return found


def test_imports_run_downwards_only() -> None:
    root = Path(gym_taskdistill.__file__).parent
    height = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    upwards = [
        f"{path.relative_to(root)} -> {name}"
        for path in root.rglob("*.py")
        if (own := path.relative_to(root).parts[0].removesuffix(".py")) in height
        for name in imports(path)
        if name in height and height[name] > height[own]
    ]
    # `python -m` needs a module where the command's name is a noun's.
    assert set(upwards) <= {"zoo/__main__.py -> cli", "recipes/__main__.py -> cli"}
