"""What a user gets: the wheel, installed into an empty environment far from the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.wheel

FIRST_STEPS = """
from pathlib import Path
import sys
import gym_taskdistill
from gym_taskdistill import DistilledPolicy
from gym_taskdistill import zoo
from gym_taskdistill.recipes.file import load, recipes

package = Path(gym_taskdistill.__file__)
assert package.is_relative_to(sys.prefix), package
assert list(recipes())
assert load("Hopper-v4").stages

entries = zoo.entries()
assert entries
for entry in entries:
    entry.load()

policy = DistilledPolicy.from_zoo(entries[0].name)
action, state = policy.predict(policy.observation_space.sample(), deterministic=True)
assert policy.action_space.contains(action), action
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end; where it fails, the test fails with what it printed."""
    __tracebackhide__ = True
    # The checkout must not be found through the environment of the test run.
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel, which is built from the sdist, not the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of executables of an environment that holds only the wheel and what it needs."""
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", venv, cwd=venv)
    scripts = venv / ("Scripts" if os.name == "nt" else "bin")
    constraints = ROOT / "constraints.txt"
    lines = constraints.read_text(encoding="utf-8").splitlines()
    (torch,) = (line for line in lines if line.startswith("torch=="))
    pip = [scripts / "python", "-m", "pip", "install", "-q"]
    # torch first and at its exact version, so that resolving the rest cannot pull another build.
    run(*pip, torch, cwd=venv)
    run(*pip, wheel, "-c", constraints, cwd=venv)
    return scripts


def test_wheel_holds_the_package_and_its_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "gym_taskdistill/py.typed" in names
    for folder in ("agents", "zoo"):
        shipped = {path for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert shipped
        for path in shipped:
            assert f"gym_taskdistill/_data/{path.relative_to(ROOT).as_posix()}" in names


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"gym_taskdistill"}
    assert not [name for name in names if "test" in name.lower() or name.endswith(".pyc")]


def test_sdist_holds_the_tests_but_no_runs(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        folders = {name.split("/")[1] for name in archive.getnames()}
    assert {"agents", "gym_taskdistill", "tests", "zoo"} <= folders
    assert "runs" not in folders


def test_installed_library_acts_from_the_zoo(scripts: Path, tmp_path: Path) -> None:
    run(scripts / "python", "-I", "-c", FIRST_STEPS, cwd=tmp_path)


def test_console_script_shows_its_help(scripts: Path, tmp_path: Path) -> None:
    assert "usage" in run(scripts / "taskdistill", "--help", cwd=tmp_path).lower()
