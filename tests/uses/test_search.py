"""A search ranks architectures by what their fresh networks do, and keeps each result."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats

from gym_taskdistill import seeds, zoo
from gym_taskdistill.cli import plot
from gym_taskdistill.cli import search as command
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import MLP
from gym_taskdistill.uses import search as search_module
from gym_taskdistill.uses.architectures import Architecture, SearchSpace
from gym_taskdistill.uses.correlations import correlation, read_column, read_reference
from gym_taskdistill.uses.rankings import ranked
from gym_taskdistill.uses.search import SearchProtocol, SearchResult, check, search

ENTRY = "CartPoleND-v0/n=1,universal-ten-steps"
SMALL = SearchSpace(
    width=[16, 64], depth=[2], activation=["tanh"], init=["orthogonal"], residual=[False, True]
)


def protocol(entry: str = ENTRY, **changes: Any) -> SearchProtocol:
    quick = {"agents": 2, "episodes": 1, "states": 32, "dataset": zoo.find(entry).load().digest}
    return SearchProtocol(**{**quick, **changes})


@pytest.mark.slow
def test_the_whole_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four architectures, examined, kept, ranked, correlated and drawn."""
    space, out = tmp_path / "space.yaml", tmp_path / "out"
    space.write_text(
        "{width: [16, 64], depth: [2], activation: [tanh], init: [orthogonal], residual: [false, true]}"
    )
    argv = [ENTRY, str(space), "--agents", "2", "--episodes", "1", "--states", "32", "--out", str(out)]
    command.main(argv)
    first = capsys.readouterr().out
    rows = list(csv.DictReader((out / "search.csv").read_text().splitlines()))
    assert {row["architecture"] for row in rows} == {one.name for one in SMALL.architectures()}
    assert len(list(out.glob("*x*.json"))) == 4
    noisy = [float(row["noisy_return"]) for row in rows]
    assert noisy == sorted(noisy, reverse=True)
    assert all(0 <= float(row["distance"]) < 0.5 and float(row["loss"]) > 0 for row in rows)
    assert max(float(row["return"]) for row in rows) > 450
    assert all(float(row["area"]) <= 500 for row in rows)

    real = tmp_path / "real.csv"
    lines = [f'"{row["architecture"]}",{row["width"]}' for row in rows]  # the wide ones do better there
    real.write_text("\n".join(["architecture,score", *lines]))
    monkeypatch.setattr(search_module, "_examine", None)  # nothing is examined again
    command.main([*argv, "--returns", str(real), "--column", "score"])
    again = capsys.readouterr().out
    assert again.startswith(first.rpartition("\n2 fresh")[0])
    assert "Spearman's rho with score" in again and "loss: -" in again
    plot.main(["search", str(out), "--out", str(tmp_path / "search.png")])
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        command.main([*argv, "--noise", "0.5"])
    assert "examined with noise=0.2, not 0.5" in capsys.readouterr().err


@pytest.mark.slow
def test_traits_tell_bad_networks_from_good_ones(tmp_path: Path) -> None:
    """One hidden unit cannot do what 64 can; continuous actions have a distance too."""
    entry = "InvertedPendulum-v4"
    space = SearchSpace(width=[1, 64], depth=[2], activation=["tanh"], init=["orthogonal"])
    found = {r.architecture.width: r for r in search(zoo.load(entry), space, protocol(entry), tmp_path)}
    narrow, wide = found[1].traits, found[64].traits
    assert "area" not in wide, "the rule takes one step"
    assert wide["return"] > 900 and narrow["return"] < wide["return"]
    assert wide["distance"] < narrow["distance"] and wide["loss"] < narrow["loss"]
    assert wide["noisy_return"] <= wide["return"]
    assert [r.architecture.width for r in ranked(list(found.values()), "loss")] == [64, 1]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_propose_what_is_new(sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each architecture is proposed once, and a search that was interrupted ends as one that was not."""
    space = SearchSpace(width=[8, 16, 32, 64], depth=[1, 2], residual=[False, True])

    def examine(_: Any, folder: Path, one: Architecture, number: int) -> SearchResult:
        traits = {"noisy_return": float(one.width)}
        result = SearchResult(architecture=one, number=number, parameters=1, traits=traits)
        (folder / f"{one.name}.json").write_text(json.dumps(result.to_dict()))
        return result

    monkeypatch.setattr(search_module, "_examine", examine)
    monkeypatch.setattr(search_module, "_prepare", lambda *_: None)
    dataset = zoo.load(ENTRY)

    def names(folder: Path, n: int) -> list[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        found = search(dataset, space, protocol(), tmp_path / folder, n, sampler)
        return [result.architecture.name for result in found]

    whole = names(Path("whole"), 9)
    assert len(set(whole)) == 9
    names(Path("parts"), 4 if sampler == "tpe" else 9)
    if sampler == "random":
        (tmp_path / "parts" / f"{whole[-1]}.json").unlink()
    assert sorted(names(Path("parts"), 9)) == sorted(whole)


def test_spaces_are_read_and_refused(tmp_path: Path) -> None:
    assert len(SearchSpace().architectures()) == 36
    assert len(SMALL.architectures()) == 4
    single = SearchSpace(
        depth=[1], residual=[True, False], width=[64, 64], activation=["tanh"], init=["torch"]
    )
    assert [one.name for one in single.architectures()] == ["64x1,tanh,torch"]
    five = SearchSpace().architectures(5, seed=1)
    assert len(set(five)) == 5 and SearchSpace().architectures(9, seed=1)[:5] == five
    for text, message in (
        ("widht: [1]", 'space.*widht.*Did you mean "width"'),
        ("activation: [tanhh]", "must be one of tanh, relu"),
        ("width: []", "width"),
        ("depth: [0]", "depth.*from 1 to 100"),
        ("layer_norm: [1]", "layer_norm"),
    ):
        (tmp_path / "space.yaml").write_text(text)
        with pytest.raises(TaskDistillError, match=message):
            SearchSpace.from_file(tmp_path / "space.yaml")
    many = SearchSpace(width=list(range(1, 1001)), depth=list(range(1, 101)))
    with pytest.raises(TaskDistillError, match="400,000 combinations"):
        many.architectures()


def test_what_would_fail_under_way_is_refused() -> None:
    one_step, ten_steps = zoo.load("CartPoleND-v0/n=1,universal-ridge"), zoo.load(ENTRY)
    with pytest.raises(TaskDistillError, match='no trait "retrun".*Did you mean "return"'):
        check(ten_steps, protocol(), [], "retrun")
    with pytest.raises(TaskDistillError, match="one step"):
        check(one_step, protocol(), [], "area")
    with pytest.raises(TaskDistillError, match="has an encoder"):
        check(zoo.load("PongNoFrameskip-v4", "level-4"), protocol(), [], "return")
    with pytest.raises(TaskDistillError, match="MiB"):
        check(ten_steps, protocol(agents=8), [Architecture(width=8192, depth=2)], "return")
    with pytest.raises(TaskDistillError, match="no sampler"):
        next(search(ten_steps, SMALL, protocol(), Path("nowhere"), sampler="grid"))


@pytest.mark.parametrize("init", ["orthogonal", "torch"])
def test_blocks_draw_by_the_laws_of_perceptrons(init: str) -> None:
    """Without normalisation and shortcuts a block network is drawn as an MLP is."""
    torch.manual_seed(0)
    architecture = Architecture(width=48, init=init)
    space = spaces.Box(-np.inf, np.inf, (8,))
    blocks = [p for p in architecture.network(space, 4).parameters()]
    mlp = MLP(width=48, init=init).sample(1, (8,), 4, torch.Generator().manual_seed(0)).params
    assert [p.shape for p in blocks] == [p[0].shape for p in mlp]
    for one, other in zip(blocks, mlp, strict=True):
        assert float(one.detach().square().mean()) == pytest.approx(float(other.square().mean()), rel=0.4)
    assert sum(p.numel() for p in blocks) == architecture.n_parameters((8,), 4)
    normed = architecture.replace(layer_norm=True)
    assert sum(p.numel() for p in normed.network(space, 4).parameters()) == normed.n_parameters((8,), 4)


def test_correlations_are_scipys(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(5, size=30).astype(float)
    y = x + rng.normal(size=30)
    found = correlation(x, y)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.interval is not None and found.interval[0] < found.rho < found.interval[1]
    constant = correlation(np.ones(5), np.arange(5))
    assert constant.interval is None and "undefined" in str(constant)
    with pytest.raises(TaskDistillError, match="at least 4 architectures"):
        correlation([1, 2], [1, 2])
    table = tmp_path / "t.csv"
    table.write_text('architecture,return\n"a,b",1\n"a,b",3\nc,\n')
    assert read_column(table, "return") == {"a,b": 2.0}
    with pytest.raises(TaskDistillError, match='no column "retrn".*Did you mean "return"'):
        read_column(table, "retrn")
    with pytest.raises(TaskDistillError, match="has 1 of the architectures.*at least 4"):
        read_reference(table, "return", ["a,b", "d"])
    table.write_text("architecture,return\na,x\n")
    with pytest.raises(TaskDistillError, match='"x" in row 1'):
        read_column(table, "return")


def test_seeds_of_a_search_are_its_own() -> None:
    of_search = {seeds.search(s, i) for s in range(50) for i in range(4)}
    others = {
        seeds.TEST,
        *(seeds.selection(s) for s in range(50)),
        *(seeds.training(s, 0) for s in range(50)),
    }
    assert len(of_search) == 200 and not of_search & others
