"""What the command lines share: reading ``key=value``, finding datasets, printing scores and errors."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tyro

from gym_taskdistill import seeds, trust, zoo
from gym_taskdistill.dataset.aggregates import Aggregates, Interval
from gym_taskdistill.dataset.card import Score, digits
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError, ZooError
from gym_taskdistill.progress import progress
from gym_taskdistill.safe_yaml import shortened
from gym_taskdistill.schema import yaml_value
from gym_taskdistill.zoo.entry import entry_folder

__all__ = [
    "allow_typed",
    "dataset_path",
    "key_values",
    "load_dataset",
    "over_text",
    "print_columns",
    "print_scores",
    "printable",
    "progress",
    "run_command",
    "seed_list",
]


def run_command(arguments: Any, command: Callable[[Any], None], argv: Sequence[str] | None) -> None:
    """Parse a command line and run it; a mistake of the user ends it with one sentence and status 1.

    An interrupt ends it with status 130, a reader that has seen enough (``| head``) with 141, as in a shell.
    With a flag ``trust`` the command runs whatever code files name, from the folder the user is in too.

    Args:
        arguments: Dataclass of the flags, each documented.
        command: What to run.
        argv: The command line without the program's name; ``None`` for the process's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that has no "±" gets "?"
    try:
        with _plain_warnings():
            parsed = tyro.cli(arguments, args=argv)
            with trust.scope():
                if getattr(parsed, "trust", False):
                    _allow(trust.EVERYTHING)
                command(parsed)
            sys.stdout.flush()
    except TaskDistillError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(1) from None
    except MemoryError as error:
        reason = str(TaskDistillError(str(error).rstrip(".") or "none is left"))
        print(f"error: Not enough memory ({reason}); ask for fewer or smaller things.", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:
        # Python would flush again when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:  # the disk is full, a folder was deleted, …
        reason = str(TaskDistillError(f"{error.filename or 'A file'}: {error.strerror or error}."))
        print(f"error: {reason}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print the zoo's warnings as one line each, without the place in the code."""
    show = warnings.showwarning

    def plain(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
        if issubclass(category, zoo.ZooWarning):
            print(f"warning: {printable(str(message))}", file=sys.stderr)
        else:
            show(message, category, *place, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("always", zoo.ZooWarning)
        warnings.showwarning = plain
        yield


def printable(text: str) -> str:
    r"""Return text without control characters, which a terminal would obey; line breaks stay.

    >>> print(printable("a\x1b[31m"))
    a\x1b[31m
    """
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def key_values(pairs: Iterable[str], flag: str) -> dict[str, Any]:
    """Read ``key=value`` pairs, values as YAML.

    Raises:
        TaskDistillError: A pair has no ``=`` or its value is not YAML.

    >>> key_values(["n=3", "learning_rate=lin_0.01", "steps=1e6"], "--set")
    {'n': 3, 'learning_rate': 'lin_0.01', 'steps': 1000000}
    """
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise TaskDistillError(f'{flag} takes key=value, such as n=3, but got "{pair}".')
        values[key.replace("-", "_")] = yaml_value(value, f'{flag}: the value in "{pair[:80]}"')
    return values


def seed_list(text: str) -> list[int]:
    """Read several seeds, each once.

    Raises:
        TaskDistillError: They are written otherwise.

    >>> seed_list("0-2,7")
    [0, 1, 2, 7]
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) - int(match[1]) > 1000:
            raise TaskDistillError(f"--seeds must be seeds such as 0-4 or 0,3,7, but is {text[:80]!r}.")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if not found or len(set(found)) != len(found):
        raise TaskDistillError(f"--seeds must name each seed once, but is {text[:80]!r}.")
    return [seeds.checked(seed) for seed in found]


def allow_typed(name: str | None) -> None:
    """Trust the module or the function that the user has typed himself, such as ``my_module:MyEnv-v0``."""
    if name is not None and ":" in name:
        _allow(name, name.partition(":")[0])


def _allow(*names: str) -> None:
    if os.getcwd() not in sys.path:  # as for `python -m`
        sys.path.insert(0, os.getcwd())
    trust.allow(*names)


def dataset_path(name: str, variant: str | None, env_kwargs: dict[str, Any]) -> Path:
    """Find a dataset by whatever a user may call it; see `zoo.resolve`."""
    return zoo.resolve(name, variant, **env_kwargs)


def load_dataset(name: str, variant: str | None, env_kwargs: dict[str, Any]) -> DistilledDataset:
    """Load a dataset by whatever a user may call it; see `zoo.resolve`."""
    return DistilledDataset.load(zoo.resolve(name, variant, **env_kwargs))


def print_columns(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Iterable[str]) -> None:
    """Print rows in columns as wide as their widest text, whole at any width and in pipes.

    Args:
        headings: A heading for each column.
        rows: Texts, as many in each row as there are headings.
        left: Headings of the columns that begin at the left.
    """
    lines = [headings, *([printable(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, headings, strict=True)
        text = "  ".join(cell.ljust(w) if heading in left else cell.rjust(w) for cell, w, heading in cells)
        print(text.rstrip())


def results_name(dataset: DistilledDataset) -> Path:
    """Return the folder of a dataset's results below that of all."""
    try:
        return entry_folder(dataset.card)
    except ZooError:
        return Path(dataset.digest[:12])


def print_scores(title: str, scores: Iterable[Score]) -> None:
    """Print scores as a table, with the protocol beneath."""
    scores = list(scores)
    print(printable(title))
    rows = []
    for score in scores:
        mean, std, worst = score.figures
        policy = "deterministic" if score.deterministic else "stochastic"
        rows.append((shortened(score.learners, 40), policy, mean, std, *_spread(score.aggregates), worst))
    head = ("learners", "policy", "mean", "std", "95 % interval", "IQM", "5 % quantile", "far below")
    print_columns((*head, "worst agent"), rows, left=("learners", "policy"))
    for n_agents, n_episodes in sorted({(s.n_agents, s.n_episodes) for s in scores}):
        print(
            f"{n_agents} fresh agents x {n_episodes} full episodes each, raw rewards; all figures over "
            "agents' mean returns.\nThe interval is the mean's, IQM the mean of the middle half, far below "
            "the share under half of the median."
        )


def _spread(over: Aggregates | None) -> tuple[str, str, str, str]:
    if over is None:
        return "", "", "", ""
    n = digits(over.mean)
    return interval_text(over), f"{over.iqm:.{n}f}", f"{over.quantile:.{n}f}", f"{over.far_below:.1%}"


def interval_text(over: Aggregates) -> str:
    """Write the interval of a mean; empty if there is none.

    >>> interval_text(Aggregates.of([1.0, 2.0, 3.0, 4.0, 5.0]))
    '[1.80, 4.20]'
    """
    return ends_text(over.mean_interval, digits(over.mean))


def ends_text(interval: Interval | None, n_digits: int) -> str:
    """Write the ends of an interval with so many decimals; empty if there is none."""
    if interval is None:
        return ""
    low, high = (f"{end:.{n_digits}f}" for end in interval)
    return f"[{low}, {high}]"


def over_text(over: Aggregates, of_what: str) -> str:
    """Write in a sentence what several scores come to.

    >>> over_text(Aggregates.of([1.0, 2.0, 3.0, 4.0, 5.0]), "distillations")
    'mean 3.00, 95 % interval [1.80, 4.20], interquartile mean 3.00, worst 1.00 over 5 distillations'
    """
    mean, iqm, worst = (f"{value:.{digits(over.mean)}f}" for value in (over.mean, over.iqm, over.worst))
    interval = interval_text(over)
    told = [f"mean {mean}", *([f"95 % interval {interval}"] if interval else [])]
    return f"{', '.join(told)}, interquartile mean {iqm}, worst {worst} over {over.n} {of_what}"
