"""Run Gymnasium's and Stable-Baselines3's own tests on our classes.

Tests are in no wheel, so it takes the source trees::

    git clone --depth 1 --branch v1.4.0 https://github.com/Farama-Foundation/Gymnasium
    git clone --depth 1 https://github.com/DLR-RM/stable-baselines3
    python scripts/peer_tests.py --gymnasium Gymnasium --sb3 stable-baselines3

Their tests are copied to a temporary folder, where names of their classes become names of ours
(``peer_suites.py``, ``peer_stand_ins.py``). Only tests that make an object of ours are counted. No code of
theirs is kept here.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

import pytest
from peer_suites import SUITES, Suite

#: What both libraries' own settings of pytest ignore.
_INI = """[pytest]
filterwarnings =
    ignore::DeprecationWarning:gymnasium.*:
    ignore::UserWarning:gymnasium
    ignore:You are trying to run
    ignore:rich is experimental
markers =
    expensive: as SB3 marks its own
"""


@dataclass
class Results:
    """What became of the tests of a suite: outcomes of those that met ours, reasons for those left out."""

    outcomes: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def count(self, outcome: str) -> int:
        """Return how many tests had an outcome."""
        return Counter(self.outcomes.values())[outcome]


class Watcher:
    """A plugin of pytest that leaves out what does not apply and keeps what becomes of the rest."""

    def __init__(self, suite: Suite, verbose: bool) -> None:
        self.suite, self.verbose, self.results = suite, verbose, Results()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the tests that the suite names."""
        for item in list(items):
            unrelated = _first(item, dict.fromkeys(self.suite.unrelated, "")) is not None
            reason = _first(item, self.suite.not_ours)
            if reason is not None and not unrelated:
                self.results.left_out[item.nodeid] = reason
            if reason is not None or unrelated:
                items.remove(item)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Count a test if it makes one of ours, or was given one."""
        from peer_stand_ins import is_ours, made

        before = made[0]
        self._outcome = "passed"
        yield
        call = getattr(item, "callspec", None)
        if made[0] > before or any(is_ours(value) for value in (call.params.values() if call else ())):
            self.results.outcomes[item.nodeid] = self._outcome

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst outcome of set-up, test and tear-down."""
        if report.outcome != "passed":
            self._outcome = report.outcome
        if report.failed and self.verbose:
            print(f"\n{report.longreprtext}\n", flush=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported counts as a failed test."""
        if report.failed:
            self.results.outcomes[report.nodeid] = "failed"


def _first(item: pytest.Item, globs: Mapping[str, str]) -> str | None:
    """Return what stands with the first glob that a test's name matches."""
    # In a glob, the brackets of a parametrised test's name would be a set of letters.
    name = item.nodeid.translate(str.maketrans("[]", "()"))
    return next((text for glob, text in globs.items() if fnmatch(name, glob)), None)


def prepare(suite: Suite, source: Path, folder: Path) -> list[str]:
    """Copy a library's tests to a folder, substitute there, and return the suite's files.

    Args:
        suite: What to substitute, and in which files.
        source: The library's source tree.
        folder: Where to copy ``tests/``.

    Raises:
        SystemExit: There are no such tests.
    """
    tests = source / "tests"
    if not tests.is_dir():
        raise SystemExit(f"There is no folder {tests}; give the source tree of {suite.source}.")
    shutil.copytree(tests, folder / "tests")
    (folder / "pytest.ini").write_text(_INI)
    changed: dict[Path, str] = {}
    for file in sorted({file for glob in suite.files for file in (folder / "tests").glob(glob)}):
        text = original = file.read_text()
        for pattern, replacement in suite.substitutions.items():
            text = re.sub(pattern, replacement, text)
        if text != original:
            changed[file] = text
    for file, text in changed.items():
        file.write_text(text)
    return [str(file) for file in changed if file.name.startswith("test_")]


def run(suite: Suite, source: Path, keyword: str, verbose: bool) -> Results:
    """Run a suite, in this process.

    Args:
        suite: The suite.
        source: The library's source tree.
        keyword: pytest's ``-k``.
        verbose: Let pytest print.

    Returns:
        What became of the tests.
    """
    set_start_method(None, force=True)  # the system's own, for the tests' processes
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = prepare(suite, source, folder)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        watcher = Watcher(suite, verbose)
        without = [f"-pno:{plugin}" for plugin in ("cacheprovider", "benchmark", "xdist")]
        arguments = ["-v", "--tb=short", "--durations=10", "--continue-on-collection-errors", *without]
        chosen = ["-m", "not expensive", "-k", keyword, "--rootdir", temporary, *files]
        with contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO()) as said:
            status = pytest.main([*arguments, *chosen], plugins=[watcher])
        if status in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
            raise RuntimeError(f"pytest could not run: {said.getvalue() if said else status}")
        os.chdir(source.anchor)
    return watcher.results


def report(suite: Suite, results: Results) -> str:
    """Return a suite's results as text: numbers, failed tests, and what was left out and why."""
    passed, failed = results.count("passed"), results.count("failed")
    share = f"{passed / (passed + failed):.1%}" if passed + failed else "nothing run"
    skipped, left_out = results.count("skipped"), len(results.left_out)
    lines = [
        f"{suite.name}: {passed} of {passed + failed} passed ({share}), {skipped} skip themselves, "
        f"{left_out} do not apply"
    ]
    lines += [f"    failed: {name}" for name, outcome in results.outcomes.items() if outcome == "failed"]
    reasons = Counter(results.left_out.values())
    lines += [f"    {number} x does not apply: {reason}" for reason, number in reasons.most_common()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the suites and print their results."""
    parser = argparse.ArgumentParser(description="Run Gymnasium's and SB3's own tests on our classes.")
    parser.add_argument("--gymnasium", type=Path, help="source tree of Gymnasium")
    parser.add_argument("--sb3", type=Path, help="source tree of Stable-Baselines3")
    parser.add_argument("--suite", choices=[suite.name for suite in SUITES], help="only this one")
    parser.add_argument("-k", dest="keyword", default="", help="only tests of this name, as pytest's -k")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what pytest prints")
    options: Any = parser.parse_args(argv)
    for suite in SUITES:
        source = getattr(options, suite.source)
        if source is None or options.suite not in (None, suite.name):
            continue
        # A process each: the suites' tests have the same module names.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            results = pool.submit(run, suite, source.resolve(), options.keyword, options.verbose).result()
        print(report(suite, results), flush=True)


if __name__ == "__main__":
    main()
