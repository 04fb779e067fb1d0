"""Typed data that people and files give: recipes, runs and cards are read through one schema.

A `Schema` is a frozen pydantic model that never guesses: no text is taken for a number, no boolean for an
integer. Whatever is wrong becomes one sentence that names the key, what it is and what it must be.
"""

from __future__ import annotations

import functools
import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import annotated_types
import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from typing_extensions import Self

from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.safe_yaml import MAX_DEPTH, read_yaml, shortened, yaml_value

__all__ = [
    "MAX_DEPTH",
    "Schema",
    "Seconds",
    "located",
    "plain",
    "read_yaml",
    "shortened",
    "shown",
    "yaml_value",
]

_WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}
_MANY = {int: "integers", float: "numbers", str: "texts"}

#: The widest integers that tensors, seeds and counts hold.
_MAX_INT = 2**63

Path = tuple[str | int, ...]


def _clamped(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) and value >= 0 else 0.0
    return value


Seconds = Annotated[float, BeforeValidator(_clamped), Field(ge=0)]
"""A duration that only decorates: where a clock went wrong it is 0, and never in the way of a result."""


class Schema(BaseModel):
    """Base of everything that is read from plain data.

    A class may name the exception that it raises (``error``) and what messages call it (``label``).

    Raises:
        TaskDistillError: A key is unknown or missing, or its value is of another type or out of range. It is
            of the class's own kind, ``error``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    error: ClassVar[type[TaskDistillError]] = TaskDistillError
    label: ClassVar[str] = ""

    def __init__(self, /, **data: Any) -> None:
        with _in_words(type(self), self.label, data):
            super().__init__(**plain(data, self.label, self.error))

    # As in pydantic's own RootModel: schemas within schemas are not made by this, so that messages tell the
    # whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def read(cls, data: Any, source: str = "") -> Self:
        """Check plain data and make an object of it.

        Args:
            data: A mapping, as a YAML or JSON file says it.
            source: Where it stands, to begin a message with; the class's ``label`` if empty.

        Raises:
            TaskDistillError: The data is wrong, in one sentence.
        """
        begin = f"{source}: " if source else cls.label
        with _in_words(cls, begin, data):
            return cls.model_validate(plain(data, begin, cls.error))

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Rebuild an object from `to_dict`; see `read`."""
        return cls.read(data)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, in the order of the fields."""
        return self.model_dump(mode="json")

    def replace(self, **changes: Any) -> Self:
        """Return a checked copy with some fields changed."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})

    @model_validator(mode="before")
    @classmethod
    def _fit(cls, data: Any) -> Any:
        """Give tuples where fields hold tuples, and refuse NaN where a field holds anything."""
        if not isinstance(data, Mapping):
            return data
        tuples, free = _shapes(cls)
        for name in free & data.keys():
            for path, number in _numbers(data[name], (name,)):
                if not math.isfinite(number):
                    raise _WrongError(path, f"is {number}, but must be finite")
        return {k: tuple(v) if k in tuples and isinstance(v, list) else v for k, v in data.items()}


def plain(value: Any, where: str = "", error: type[TaskDistillError] = TaskDistillError) -> Any:
    """Copy a value into plain data: dictionaries, lists, strings, numbers, booleans and None.

    Args:
        value: Any nesting of mappings, sequences and scalars, those of NumPy included; schemas stay as they
            are.
        where: What messages begin with.
        error: What is raised.

    Raises:
        TaskDistillError: Something in it has no plain form, or is nested too deeply.

    >>> plain({"n": np.int64(2), "shape": (1, 2)})
    {'n': 2, 'shape': [1, 2]}
    """

    def copy(value: Any, path: Path) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | str | float | Schema):
            return value
        if isinstance(value, int):
            if abs(value) >= _MAX_INT:
                raise error(f"{located(path, where)} is {shown(value)}, but must be below 2**63.")
            return int(value)
        if len(path) > MAX_DEPTH:
            raise error(f"{located(path[:3], where)}… is nested more than {MAX_DEPTH} deep.")
        if isinstance(value, list | tuple):
            if all(type(item) is float for item in value):  # the thousands of returns of a card
                return list(value)
            return [copy(item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    raise error(
                        f"{located(path, where)} has keys that are not strings, such as {shown(key)}; "
                        "write them in quotes."
                    )
            return {str(key): copy(item, (*path, key)) for key, item in value.items()}
        raise error(
            f"{located(path, where)} is {shown(value)}, but must be plain data: "
            "dictionaries, lists, strings, numbers, booleans and None."
        )

    return copy(value, ())


def shown(value: Any) -> str:
    """Return a value for a message: itself if it is a short scalar, otherwise only its kind.

    >>> shown("0,99"), shown([1])
    ("'0,99'", 'a list')
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return shortened(repr(value[:200]))
    if isinstance(value, Mapping):
        return "a dictionary"
    name = type(value).__name__
    return f"a{'n' if name[:1] in 'aeiouAEIOU' else ''} {name}"


def located(path: Sequence[str | int], where: str = "") -> str:
    """Return a key's place in dots and brackets.

    Args:
        path: Keys and indices from the top.
        where: What it begins with: a name, or a source that ends in ``": "``.

    >>> located(("stages", 0, "gamma"), "a.yaml: "), located(("mean",), "score")
    ('a.yaml: stages[0].gamma', 'score.mean')
    """
    parts = where
    for part in path:
        if isinstance(part, int):
            parts += f"[{part}]"
            continue
        name = part if re.fullmatch(r"[\w/+,=-]{1,60}", part) else shown(part)
        parts += name if not parts or parts.endswith(": ") else f".{name}"
    return parts.removesuffix(": ") or "The data"


class _WrongError(ValueError):
    """What is wrong at a path below the model that a validator checks."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(text)
        self.path = path


class _in_words:
    """Turn pydantic's errors into one sentence of the schema's own kind."""

    def __init__(self, schema: type[Schema], where: str, data: Any) -> None:
        self.schema, self.where, self.data = schema, where, data

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, ValidationError):
            # An unknown key explains why another one is missing.
            errors = sorted(
                error.errors(include_url=False, include_input=True),
                key=lambda e: e["type"] != "extra_forbidden",
            )
            raise self.schema.error(_sentence(self.schema, errors[0], self.where)) from None


def _sentence(schema: type[Schema], error: ErrorDetails, where: str) -> str:
    path, annotation, metadata, parent = _walk(schema, error["loc"])
    key = located(path, where)
    match error["type"]:
        case "extra_forbidden":
            known = list(parent.model_fields)
            return f"{key} is unknown: known are {shortened(', '.join(known), 400)}." + did_you_mean(
                str(error["loc"][-1]), known
            )
        case "missing":
            return f'{located(path[:-1], where)} has no field "{path[-1]}"; it must be ' + (
                f"{_expected(annotation, metadata)}."
            )
        case "value_error":
            cause = error["ctx"]["error"]
            if isinstance(cause, _WrongError):
                return f"{located((*path, *cause.path), where)} {cause}."
            text = str(cause)
            if isinstance(cause, TaskDistillError):
                return f"{where}{text}" if where.endswith(": ") else text
            if text.startswith("must "):
                return f"{key} is {shown(error['input'])}, but {text}."
            return f"{key}: {text}."
    finite = "finite" if error["type"] == "finite_number" else _expected(annotation, metadata)
    return f"{key} is {shown(error['input'])}, but must be {finite}."


def _walk(schema: type[Schema], loc: Path) -> tuple[Path, Any, list[Any], type[Schema]]:
    """Follow an error's place to the field, without the names pydantic gives to members of a union."""
    path: list[str | int] = []
    annotation: Any = schema
    metadata: list[Any] = []
    parent = schema
    for part in loc:
        if get_origin(annotation) in (Union, types.UnionType):
            members = [a for a in get_args(annotation) if a is not type(None)]
            if len(members) > 1:
                # pydantic has named the member: go on in it if it is a schema, else stop.
                inner = [m for m in members if isinstance(m, type) and m.__name__ == part]
                if not (inner and issubclass(inner[0], Schema)):
                    break
                annotation = inner[0]
                continue
            annotation = members[0]
        annotation, more = _unwrapped(annotation)
        if isinstance(annotation, type) and issubclass(annotation, Schema):
            parent = annotation
            field = annotation.model_fields.get(str(part))
            annotation, metadata = (None, []) if field is None else (field.annotation, list(field.metadata))
        else:
            arguments = [a for a in get_args(annotation) if a is not Ellipsis]
            annotation, metadata = _unwrapped(arguments[-1] if arguments else Any)
        metadata = [*metadata, *more] if more else metadata
        path.append(part)
    annotation, more = _unwrapped(annotation)
    return tuple(path), annotation, [*metadata, *more], parent


def _unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """Take ``Annotated`` apart."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    inner, *metadata = get_args(annotation)
    flat: list[Any] = []
    for item in metadata:
        flat += item.metadata if isinstance(item, FieldInfo) else [item]
    return inner, flat


def _expected(annotation: Any, metadata: Sequence[Any]) -> str:
    """Say in words what a field holds, with its range."""
    annotation, more = _unwrapped(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(a, metadata if a is not type(None) else []) for a in arguments)
    if origin is Literal:
        return shortened(" or ".join(str(a) for a in arguments), 400)
    if annotation in (tuple, list) or origin in (tuple, list):
        kind = _unwrapped(arguments[0])[0] if arguments else Any
        return f"a list of {_MANY[kind]}" if kind in _MANY else "a list"
    if dict in (annotation, origin) or (isinstance(annotation, type) and issubclass(annotation, Schema)):
        return "a dictionary"
    words = _WORDS.get(annotation, "plain data")
    bounds = [*metadata, *more]
    ge, le, gt, lt = (
        next((getattr(b, key) for b in bounds if isinstance(b, kind)), None)
        for kind, key in (
            (annotated_types.Ge, "ge"),
            (annotated_types.Le, "le"),
            (annotated_types.Gt, "gt"),
            (annotated_types.Lt, "lt"),
        )
    )
    if any(isinstance(b, annotated_types.MinLen) for b in bounds) and annotation is str:
        words = "non-empty text"
    if ge is not None and le is not None:
        return f"{words} from {ge} to {le}"
    limits = [(ge, "of at least"), (gt, "above"), (le, "of at most"), (lt, "below")]
    told = " and ".join(f"{word} {bound}" for bound, word in limits if bound is not None)
    return f"{words} {told}" if told else words


@functools.cache
def _shapes(schema: type[Schema]) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the fields that hold tuples, and of those that may hold anything."""

    def parts(annotation: Any) -> Iterator[Any]:
        yield get_origin(annotation) or annotation
        for argument in get_args(annotation):
            yield from parts(argument)

    tuples, free = set(), set()
    for name, field in schema.model_fields.items():
        outer = field.annotation
        members = get_args(outer) if get_origin(outer) in (Union, types.UnionType) else (outer,)
        if any((get_origin(m) or m) is tuple for m in members):
            tuples.add(name)
        if Any in parts(outer):
            free.add(name)
    return frozenset(tuples), frozenset(free)


def _numbers(value: Any, path: Path) -> Iterator[tuple[Path, float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, (*path, key))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _numbers(item, (*path, i))
