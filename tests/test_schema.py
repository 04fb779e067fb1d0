"""The schema: good data comes back as it was, bad data in one sentence that names the key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import Field, field_validator

from gym_taskdistill.dataset.card import Card
from gym_taskdistill.dataset.lineage import Distillation, StageRecord
from gym_taskdistill.dataset.score import Score
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.schema import Schema, Seconds, read_yaml, yaml_value


class WrongError(TaskDistillError, ValueError):
    pass


class Step(Schema):
    error: ClassVar[type[TaskDistillError]] = WrongError

    gamma: float = Field(default=0.9, ge=0, le=1)
    k: Annotated[int, Field(ge=1)] | Literal["k_min"] = "k_min"
    widths: tuple[int, ...] = ()


class Stage(Schema):
    ppmo: Step | None = None


class Variant(Schema):
    stages: tuple[Stage, ...]


class Plan(Schema):
    error: ClassVar[type[TaskDistillError]] = WrongError
    label: ClassVar[str] = "plan"

    variants: dict[str, Variant]
    rate: float | str = 1.0
    free: dict[str, Any] = Field(default_factory=dict)
    mixed: Step | dict[str, int] | None = None
    seconds: Seconds = 0.0
    even: int = 0

    @field_validator("even")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


STEP = "variants: {one-step: {stages: [{ppmo: {%s}}]}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            STEP % "gamma: '0,99'",
            "variants.one-step.stages[0].ppmo.gamma is '0,99', but must be a number from 0 to 1.",
        ),
        (
            STEP % "gamma: 1.5",
            "variants.one-step.stages[0].ppmo.gamma is 1.5, but must be a number from 0 to 1.",
        ),
        (
            STEP % "gamma: true",
            "variants.one-step.stages[0].ppmo.gamma is true, but must be a number from 0 to 1.",
        ),
        (STEP % "gamma: .nan", "variants.one-step.stages[0].ppmo.gamma is nan, but must be finite."),
        (
            STEP % "gama: 1",
            "variants.one-step.stages[0].ppmo.gama is unknown: known are gamma, k, widths. "
            'Did you mean "gamma"?',
        ),
        (
            STEP % "k: 0",
            "variants.one-step.stages[0].ppmo.k is 0, but must be an integer of at least 1 or k_min.",
        ),
        (
            STEP % "k: no",
            "variants.one-step.stages[0].ppmo.k is false, but must be an integer of at least 1 or k_min.",
        ),
        (
            STEP % "widths: [1, x]",
            "variants.one-step.stages[0].ppmo.widths[1] is 'x', but must be an integer.",
        ),
        (STEP % "widths: 3", "variants.one-step.stages[0].ppmo.widths is 3, but must be a list of integers."),
        ("variants: {a: {}}", 'variants.a has no field "stages"; it must be a list.'),
        ("variants: {a: {stages: [null]}}", "variants.a.stages[0] is null, but must be a dictionary."),
        ("variants: 3", "variants is 3, but must be a dictionary."),
        ("variants: {}\nrate: null", "rate is null, but must be a number or text."),
        ("variants: {}\nfree: {a: [1, .inf]}", "free.a[1] is inf, but must be finite."),
        ("variants: {}\nmixed: {gamma: x}", "mixed.gamma is 'x', but must be a number from 0 to 1."),
        ("variants: {}\neven: 3", "even is 3, but must be even."),
        (
            "variants: {}\nfree: {1: x}",
            "free has keys that are not strings, such as 1; write them in quotes.",
        ),
        ('variants: {"\\e[31m": 3}', "variants.'\\x1b[31m' is 3, but must be a dictionary."),
        (
            "variants: {}\neven: 99999999999999999999",
            "even is 99999999999999999999, but must be below 2**63.",
        ),
    ],
)
def test_one_sentence_names_the_key(text: str, message: str) -> None:
    with pytest.raises(WrongError) as raised:
        Plan.read(read_yaml(text, "x.yaml"), "agents/x.yaml")
    assert str(raised.value) == f"agents/x.yaml: {message}"


@pytest.mark.parametrize("data", [[], None, 3, "text", [("variants", {})]])
def test_no_mapping(data: Any) -> None:
    with pytest.raises(WrongError, match=r"^x\.yaml is .*, but must be a dictionary\.$"):
        Plan.read(data, "x.yaml")


def test_direct_construction_raises_the_same() -> None:
    with pytest.raises(WrongError, match=r'plan.varants is unknown: .* Did you mean "variants"'):
        Plan(varants={})  # type: ignore[call-arg]
    with pytest.raises(WrongError, match=r"plan.variants.a.stages\[0\].ppmo.gamma is 2"):
        Plan(variants={"a": {"stages": [{"ppmo": {"gamma": 2}}]}})  # type: ignore[dict-item]
    with pytest.raises(WrongError, match="is an integer of .* bits"):
        Step(k=10**400)
    with pytest.raises(WrongError, match="ndarray, but must be plain data"):
        Plan(variants={}, free={"a": np.zeros(3)})
    with pytest.raises(WrongError, match="gama is unknown"):
        Step().replace(gama=1)


def test_numpy_scalars_are_numbers() -> None:
    step = Step(gamma=np.float32(0.5), k=np.int64(3), widths=[np.int8(1)])  # type: ignore[arg-type]
    assert step == Step(gamma=0.5, k=3, widths=(1,))
    assert type(step.gamma) is float and type(step.k) is int and type(step.widths[0]) is int
    with pytest.raises(WrongError, match="k is true"):
        Step(k=np.bool_(True))  # type: ignore[arg-type]


def test_round_trip() -> None:
    plan = Plan(
        variants={"b": Variant(stages=(Stage(ppmo=Step(widths=(1, 2))), Stage())), "a": Variant(stages=())},
        free={"z": [1, {"y": (2.5, None)}], "a": True},
    )
    data = plan.to_dict()
    assert data["variants"]["b"]["stages"][0]["ppmo"]["widths"] == [1, 2]
    assert list(data["variants"]) == ["b", "a"]
    assert Plan.read(data) == plan == Plan.from_dict(data)
    assert plan.replace(even=2).even == 2 and plan.even == 0


@pytest.mark.parametrize(("given", "seconds"), [(-3593.4, 0.0), (math.nan, 0.0), (math.inf, 0.0), (2, 2.0)])
def test_a_clock_that_jumped_is_no_error(given: float, seconds: float) -> None:
    assert Plan(variants={}, seconds=given).seconds == seconds
    with pytest.raises(WrongError, match="seconds is 'x', but must be a number"):
        Plan(variants={}, seconds="x")  # type: ignore[arg-type]


def test_yaml_numbers() -> None:
    numbers = "a: 1e3, b: 1e-3, c: 3_000_000, d: 1.0e3, e: 010, h: -.5, i: 0x10"
    value = yaml_value(f"{{{numbers}, f: 12:30, g: 2026-01-31, j: '1', k: ~}}", "here")
    assert value == {
        "a": 1000,
        "b": 0.001,
        "c": 3_000_000,
        "d": 1000.0,
        "e": 10,
        "f": "12:30",
        "g": "2026-01-31",
        "h": -0.5,
        "i": 16,
        "j": "1",
        "k": None,
    }
    assert type(value["a"]) is int and type(value["d"]) is float


LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "has an anchor or an alias .* in line 1"),
        ("a: 1\nb: 2\na: 3", 'names "a" twice in line 3'),
        ("a: " + "[" * 30, "is nested more than 20 deep in line 1"),
        ("{" * 5000, "is nested more than 20 deep"),
        ("a: [1, 2", "is no valid YAML .* in line 1"),
        ("a: !!python/object/apply:os.system [ls]", "is no valid YAML"),
        ("a: \x07", "is no valid YAML"),
        ("? [a]\n: 1", "has a list or a mapping as a key in line 1"),
        ("- 1", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("a: " + "x" * 70_000, "is larger than the 64 KiB"),
    ],
    ids=["aliases", "twice", "deep", "deeper", "open", "code", "control", "key", "list", "empty", "large"],
)
def test_yaml_refuses(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    for given in (text, file):
        with pytest.raises(TaskDistillError, match=f"^recipe.yaml {message}") as raised:
            read_yaml(given, "recipe.yaml")
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_yaml_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TaskDistillError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml", "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskDistillError, match="no text in UTF-8"):
        read_yaml(tmp_path / "bytes.yaml", "bytes.yaml")


# --- lineage ------------------------------------------------------------------------------------

DIGEST = "0123456789abcdef" * 4


def record(**changes: Any) -> StageRecord:
    fields: dict[str, Any] = {
        "kind": "ppmo",
        "settings": {"k": "k_min", "ppmo": {"gamma": 0.99}},
        "task": "CartPoleND-v0 n=2",
        "seed": 3,
        "env_steps": 1000,
        "seconds": 12.5,
        "inputs": {"previous": DIGEST},
        "output": DIGEST,
    }
    return StageRecord(**(fields | changes))


def card(**changes: Any) -> Card:
    fields: dict[str, Any] = {
        "env_id": "CartPole-v1",
        "observation_space": {"type": "Box", "shape": [4], "dtype": "float32"},
        "action_space": {"type": "Discrete", "n": 2},
        "learners": {"family": "mlp"},
    }
    return Card(**(fields | changes))


def test_a_card_with_a_lineage() -> None:
    score = Score(
        learners="alpha_c",
        deterministic=False,
        n_agents=2,
        n_episodes=1,
        seed=1,
        env_id="CartPole-v1",
        mean=2.0,
        std=1.0,
        min=1.0,
    )
    runs = [
        Distillation(seed=i, digest=DIGEST, selection_mean=i, mean=2.0, std=1, min=1, seconds=-1)
        for i in (0, 1)
    ]
    full = card(lineage=[record(), record(kind="adapt", seconds=-5.0)], selection=score, distillations=runs)
    assert card().legacy and not full.legacy
    assert Card.read(full.to_dict()) == full
    assert full.lineage[1].seconds == 0.0 and full.distillations[0].seconds == 0.0
    assert full.lineage[0].versions["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "abc"}, r"card.lineage\[0\].output is 'abc', but must be a SHA-256"),
        ({"seed": -1}, r"card.lineage\[0\].seed is -1, but must be an integer of at least 0"),
        ({"kind": ""}, r"card.lineage\[0\].kind is '', but must be non-empty text"),
        ({"settings": {"lr": math.nan}}, r"card.lineage\[0\].settings.lr is nan"),
        ({"inputs": {"expert": 3}}, r"card.lineage\[0\].inputs.expert is 3, but must be text"),
    ],
)
def test_a_lineage_is_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        card(lineage=[record().to_dict() | changes])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"type": "Box", "shape": [2**13, 2**13], "dtype": "float32"}, "at most 16777216"),
        ({"type": "Box", "shape": [4], "dtype": "(2,"}, "no NumPy type"),
        ({"type": "Box", "shape": [4], "dtype": "O"}, "no NumPy type"),
        ({"type": "Box", "shape": [0], "dtype": "float32"}, "at least 1"),
    ],
)
def test_spaces_are_bounded(space: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        card(observation_space=space)


def test_a_specification_nested_without_end() -> None:
    nested: dict[str, Any] = {}
    for _ in range(400):
        nested = {"mixture": [nested]}
    with pytest.raises(DatasetError, match="nested more than 20 deep"):
        card(learners=nested)
