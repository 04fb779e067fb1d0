"""What the pages show is true: Python runs, commands parse, and what they name is there."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import tyro
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from benchmarks.__main__ import BENCHMARKS
from gym_taskdistill import __main__, zoo

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "agents" / "README.md",
    ROOT / "zoo" / "README.md",
    ROOT / "research" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

#: Files that a reader makes.
READERS_OWN = ("my.yaml", "runs/")

#: How a command of ours begins.
OURS = re.compile(r"(make|taskdistill|python (-m (gym_taskdistill|benchmarks)|scripts/|research/))\b")

#: Programs whose command lines are their own affair.
OTHERS = ("bash", "cd", "git", "hf", "pre-commit")

#: Words that a page has a plainer one for.
AVOIDED = ("committee", "by heart", "went on from", "go on from", "taught by", "worst of six")


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands_in(text: str) -> Iterator[str]:
    """Commands of a block, one by one: without comments, with continued lines joined."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in re.sub(r"(^|\s)#.*", "", line).split("&&"):
            if command.strip():
                yield command.strip()


def commands_between_ticks(text: str) -> Iterator[str]:
    """Commands within a sentence; one with a placeholder, in capitals or with dots, is none yet."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for command in re.findall(r"`([^`]+)`", prose):
        if OURS.match(command) and not re.search(r"\.\.\.|…|\b[A-Z]{3,}\b(?!=)", command):
            yield " ".join(command.split())


def all_commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
        found += [(name, command) for block in blocks(page, "sh") for command in commands_in(block)]
        found += [(name, command) for command in commands_between_ticks(text)]
    for entry in zoo.entries():
        if not entry.card.legacy:
            found += [(entry.name, command) for command in commands_between_ticks(entry.card.notes)]
    return list(dict.fromkeys(found))


def parsed(command: str, argv: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parse one of the library's command lines, and run nothing."""
    assert command in __main__.COMMANDS, f"there is no command {command}"
    module = importlib.import_module(f"gym_taskdistill.cli.{command}")
    arguments: list[Any] = []
    monkeypatch.setattr(
        module, "run_command", lambda cls, _, argv: arguments.append(tyro.cli(cls, args=argv))
    )
    module.main(list(argv))
    return arguments[0]


def check_names(arguments: Any) -> None:
    """Resolve the recipes, entries and datasets that a command line names."""
    values = vars(arguments)
    names = [values.get(key) for key in ("dataset", "entry", "warm_start", "file", "resume")]
    names += values.get("entries", ()) + values.get("runs", ())
    if values.get("recipe") and not str(values["recipe"]).startswith(READERS_OWN):
        from gym_taskdistill.recipes.file import load

        changes = dict(pair.split("=", 1) for pair in values["set"])
        load(values["recipe"], changes={key: _number(value) for key, value in changes.items()})
    for name in names:
        if name is not None and not str(name).startswith(READERS_OWN):
            zoo.resolve(str(name))


def _number(text: str) -> Any:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


@pytest.mark.slow
@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("page", "command"), all_commands())
def test_commands_parse_and_resolve(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    program = words[0].removeprefix(".venv/bin/")
    if program == "torchrun":
        words = ["python", *words[words.index("-m") :]]
        program = "python"
    if program == "taskdistill":
        check_names(parsed(words[1], words[2:], monkeypatch))
    elif program == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif program == "python" and words[1] == "-m" and words[2].startswith("gym_taskdistill."):
        name = words[2].partition(".")[2]
        assert importlib.util.find_spec(f"gym_taskdistill.{name}"), f"there is no module {words[2]}"
        check_names(parsed(name, words[3:], monkeypatch))
    elif program == "python" and words[1] == "-m" and words[2] == "benchmarks":
        assert set(words[3:]) <= set(BENCHMARKS)
    elif program == "python" and words[1] == "-m":
        assert words[2] in ("pip", "pytest"), command
    elif program == "python":
        parse_script(ROOT / words[1], words[2:], monkeypatch)
    else:
        assert program in OTHERS, f"{page}: {command}"


def parse_script(path: Path, argv: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse the command line of a program of the checkout; one without arguments is not started."""
    assert path.is_file(), f"there is no {path.relative_to(ROOT)}"
    if not argv:
        return
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *_: Any) -> None:
        parse_args(self, list(argv))
        raise InterruptedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.syspath_prepend(str(path.parent))
    with pytest.raises(InterruptedError):
        importlib.import_module(path.stem).main()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the Hub, with the dataset that the pages name, and a place for Minari's."""
    from local_hub import stand_in

    from gym_taskdistill.uses.sharing import push

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in(tmp_path / "hub"))
    push(zoo.load("CartPoleND-v0", n=2), "user/cartpole", gif=False)


@pytest.mark.slow
@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("page", "number"),
    [(page, n) for page in PAGES for n in range(len(blocks(page, "python")))],
    ids=lambda value: value.stem if isinstance(value, Path) else str(value),
)
def test_python_blocks_run(page: Path, number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(page, "python")[number], f"{page.name} block {number}", "exec"), {"__name__": "page"})


def test_the_readme_network_hops() -> None:
    block = next(b for b in blocks(ROOT / "README.md", "python") if "class Residual" in b)
    names: dict[str, Any] = {"__name__": "page"}
    torch.manual_seed(0)
    exec(compile(block, "README.md's network", "exec"), names)
    env = Monitor(gym.make("Hopper-v4"))
    assert np.mean(evaluate_policy(names["policy"], env, n_eval_episodes=1)[0]) > 3000


def test_the_readme_shows_every_command() -> None:
    shown = re.findall(r"python -m gym_taskdistill\.(\w+)", README.read_text(encoding="utf-8"))
    assert set(shown) == set(__main__.COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_plain_words_are_used_everywhere() -> None:
    folders = ("gym_taskdistill", "agents", "docs", "research", "scripts", "benchmarks", "tests")
    found = [path for name in folders for path in (ROOT / name).rglob("*")]
    files = [*ROOT.glob("*.md"), *(p for p in found if p.suffix in (".md", ".py", ".yaml"))]
    for file in files:
        text = " ".join(file.read_text(encoding="utf-8").lower().split())
        words = [words for words in AVOIDED if words in text]
        assert file == Path(__file__) or not words, f"{file.relative_to(ROOT)}: {words}"


def test_the_example_recipe_can_be_read(tmp_path: Path) -> None:
    from gym_taskdistill.recipes.file import RecipeFile, check

    example, *_ = blocks(ROOT / "agents" / "README.md", "yaml")
    (tmp_path / "my.yaml").write_text(example, encoding="utf-8")
    file = RecipeFile.read(tmp_path / "my.yaml")
    recipes = [file.recipe(task, variant) for task in file.tasks for variant in file.variants(task)]
    for recipe in recipes:
        check(recipe)
    assert [recipe.entry for recipe in recipes] == [
        f"CartPoleND-v0/n={n},{variant}" for n in (2, 3) for variant in ("k_min", "surer")
    ]


@pytest.mark.parametrize("kind", ["ppmo", "ppo", "imitate", "adapt", "roll_back"])
def test_recipes_are_explained_key_by_key(kind: str) -> None:
    from gym_taskdistill.recipes.stages import STAGE_KINDS

    explained = set(re.findall(r"`(\w+)", (ROOT / "agents" / "README.md").read_text(encoding="utf-8")))
    assert set(STAGE_KINDS[kind].model_fields) <= explained


def test_stages_that_exist_are_explained() -> None:
    from gym_taskdistill.recipes.stages import STAGE_KINDS

    text = (ROOT / "agents" / "README.md").read_text(encoding="utf-8")
    assert all(f"**`{kind}`**" in text for kind in STAGE_KINDS)
