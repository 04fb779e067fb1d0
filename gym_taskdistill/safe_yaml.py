"""Small YAML files that hold plain data: no anchors, no surprises among numbers, nothing that grows."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from gym_taskdistill.errors import TaskDistillError

MAX_BYTES = 2**16
"""Size of a YAML file."""

MAX_DEPTH = 20
"""How deep its mappings and lists may be nested."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with the numbers of YAML 1.2 and without aliases, dates and repeated keys."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self.refuse("has an anchor or an alias (& or *), which are not allowed", event)
        self.depth += 1  # of node within node
        if self.depth > MAX_DEPTH:
            self.refuse(f"is nested more than {MAX_DEPTH} deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.refuse("has a list or a mapping as a key", key)
            if key.value in seen:
                self.refuse(f'names "{shortened(key.value)}" twice', key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def number(self, node: Any) -> int | float:
        text = node.value.replace("_", "").lower()
        if re.fullmatch(r"[-+]?\d{1,4000}", text):
            return int(text)
        if text.startswith(("0x", "0o")):
            return int(text, 0)
        number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        # 1e6 is a count to everybody but YAML.
        return int(number) if "e" in text and "." not in text and number.is_integer() else number

    def refuse(self, what: str, at: Any) -> None:
        raise yaml.MarkedYAMLError(None, None, what, at.start_mark)


_KEPT = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")
_NUMBER = re.compile(
    r"""(?:[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][-+]?\d+)?|0x[\da-fA-F]+|0o[0-7]+
    |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z""",
    re.VERBOSE,
)
_Loader.yaml_implicit_resolvers = {
    first: [resolver for resolver in resolvers if resolver[0] in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("!number", _NUMBER, list("-+.0123456789"))
_Loader.add_constructor("!number", _Loader.number)


def shortened(text: str, length: int = 80) -> str:
    r"""Return text that is safe to print in a message: cut, and without control characters.

    >>> print(shortened("a\x1b[31m" + "b" * 9, 12))
    a\x1b[31mbb…
    """
    safe = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: 2 * length])
    return safe if len(safe) <= length else f"{safe[: length - 1]}…"


def yaml_value(text: str, source: str) -> Any:
    """Read one YAML value.

    Args:
        text: At most 64 KiB of YAML.
        source: Where it stands, for messages.

    Raises:
        TaskDistillError: It is no YAML, too large, nested too deeply, or has anchors or repeated keys.

    >>> yaml_value("{lr: 1e-3, steps: 1e6, day: 2026-01-31}", "here")
    {'lr': 0.001, 'steps': 1000000, 'day': '2026-01-31'}
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise TaskDistillError(f"{source} is larger than the {MAX_BYTES // 1024} KiB that are read.")
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = "" if mark is None else f" in line {mark.line + 1}"
        problem = str(error.problem or "is no YAML")
        text = problem if problem.startswith(("has ", "is ", "names ")) else f"is no valid YAML ({problem})"
        raise TaskDistillError(f"{source} {shortened(text, 200)}{line}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise TaskDistillError(f"{source} is no valid YAML ({shortened(reason, 200)}).") from None


def read_yaml(path_or_text: Path | str, source: str) -> dict[str, Any]:
    """Read a mapping.

    Args:
        path_or_text: A file, as a `Path`, or the text itself.
        source: What messages call it.

    Raises:
        TaskDistillError: As for `yaml_value`; or there is no such file, or it holds no mapping.
    """
    text = path_or_text if isinstance(path_or_text, str) else _text(path_or_text, source)
    data = yaml_value(text, source)
    if not isinstance(data, dict):
        raise TaskDistillError(f"{source} must hold a mapping of settings, such as env_id: CartPole-v1.")
    return data


def _text(path: Path, source: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1).decode("utf-8")
    except UnicodeDecodeError:
        raise TaskDistillError(f"{source} is no text in UTF-8.") from None
    except OSError as error:
        raise TaskDistillError(f"{source} cannot be read: {error.strerror}.") from None
