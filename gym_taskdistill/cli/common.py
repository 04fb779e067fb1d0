"""What the command lines share: reading ``key=value``, finding datasets, printing scores and errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from gym_taskdistill import zoo
from gym_taskdistill.dataset.card import Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError

T = TypeVar("T")


def run_command(arguments: Any, command: Callable[[Any], None], argv: Sequence[str] | None) -> None:
    """Parse a command line and run it; a mistake of the user ends it with one sentence and status 1.

    Args:
        arguments: Dataclass of the flags, each documented.
        command: What to run.
        argv: The command line without the program's name; ``None`` for the process's own.
    """
    parsed = tyro.cli(arguments, args=argv)
    try:
        command(parsed)
    except TaskDistillError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def key_values(pairs: Iterable[str], flag: str) -> dict[str, Any]:
    """Read ``key=value`` pairs, values as YAML.

    Raises:
        TaskDistillError: A pair has no ``=`` or its value is not YAML.

    >>> key_values(["n=3", "learning_rate=lin_0.01"], "--set")
    {'n': 3, 'learning_rate': 'lin_0.01'}
    """
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise TaskDistillError(f'{flag} takes key=value, such as n=3, but got "{pair}".')
        try:
            values[key.replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise TaskDistillError(f'{flag}: the value in "{pair}" is not plain data.') from None
    return values


def dataset_path(name: str, variant: str | None, env_kwargs: dict[str, Any]) -> Path:
    """Find a dataset by a file's path or a zoo entry's name.

    Raises:
        TaskDistillError: There is neither.
    """
    path = Path(name)
    if path.suffix == ".safetensors" or path.is_dir():
        return path
    return zoo.find(name, variant, **env_kwargs).path


def progress_over(n_episodes: int, shown: bool) -> tqdm[Any]:
    """Return a progress bar over episodes, with the time left."""
    return tqdm(total=n_episodes, unit="episode", dynamic_ncols=True, disable=not shown)


def load_dataset(name: str, variant: str | None, env_kwargs: dict[str, Any]) -> DistilledDataset:
    """Load a dataset by a file's path or a zoo entry's name; see `dataset_path`."""
    return DistilledDataset.load(dataset_path(name, variant, env_kwargs))


def print_scores(title: str, scores: Iterable[Score]) -> None:
    """Print scores as a table, with the protocol beneath."""
    scores = list(scores)
    table = Table(title=title, title_justify="left")
    for heading in ("learners", "policy", "mean", "std", "worst agent"):
        table.add_column(heading, justify="left" if heading in ("learners", "policy") else "right")
    for score in scores:
        table.add_row(
            score.learners,
            "deterministic" if score.deterministic else "stochastic",
            *score.figures,
        )
    console = Console()
    console.print(table)
    protocols = {(s.n_agents, s.n_episodes) for s in scores}
    for n_agents, n_episodes in sorted(protocols):
        console.print(
            f"{n_agents} fresh agents x {n_episodes} full episodes each, raw rewards; "
            "mean, standard deviation and minimum over agents."
        )
