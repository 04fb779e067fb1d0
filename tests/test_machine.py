"""How the machine is used: cores, and number formats."""

from __future__ import annotations

from collections.abc import Iterator

import joblib
import pytest
import torch

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.machine import has_bfloat16, in_bfloat16, jobs, use_threads


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    use_threads(1)


def test_what_is_asked_for_counts_before_what_is_set() -> None:
    assert jobs() == 1
    use_threads(3)
    assert (jobs(), jobs(2), jobs(-1)) == (3, 2, joblib.cpu_count())
    assert torch.get_num_threads() == 1  # small learners are fastest on one


@pytest.mark.parametrize("n_jobs", [0, -2])
def test_fewer_than_one_core_is_refused(n_jobs: int) -> None:
    with pytest.raises(TaskDistillError, match=f"At least 1 core must simulate, not {n_jobs}"):
        use_threads(n_jobs)
    with pytest.raises(TaskDistillError, match="torch needs at least 1 thread, not 0"):
        use_threads(1, 0)
    assert jobs() == 1


@pytest.mark.parametrize(
    ("units", "has"), [({}, False), ({"avx512_bf16": False}, False), ({"avx512_bf16": True}, True)]
)
def test_a_processor_tells_its_units(
    units: dict[str, bool], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    assert has_bfloat16(torch.device("cpu")) is has
    # Versions of torch without that function have one for each unit.
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(
            torch.cpu, f"_is_{name}_supported", lambda name=name: units.get(name, False), raising=False
        )
    assert has_bfloat16(torch.device("cpu")) is has


def test_other_precisions_are_refused() -> None:
    with pytest.raises(TaskDistillError, match='mixed_precision must be True, False or "auto", but is 16'):
        in_bfloat16(16, torch.device("cpu"))  # type: ignore[arg-type]


def test_a_gpu_must_not_emulate_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert not has_bfloat16(torch.device("cuda"))
    assert asked == [False]
    assert not has_bfloat16(torch.device("meta"))
