"""Baselines are what they say, chosen without the test seed, and kept one by one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gym_taskdistill import seeds, zoo
from gym_taskdistill.cli import baselines as command
from gym_taskdistill.distill.experts import Recording
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerSGD, Ridge
from gym_taskdistill.learners import ALPHA_C, MLP, Learners
from gym_taskdistill.policies.evaluation import acting
from gym_taskdistill.policies.trained import train_fresh_learners
from gym_taskdistill.uses import baselines, evolution, rivals
from gym_taskdistill.uses.baselines import Measurement, Protocol, Result, run

CARTPOLE_1D, CARTPOLE_2D = "CartPoleND-v0/n=1,k_min", "CartPoleND-v0/n=2,k_min"
QUICK = {"agents": 6, "episodes": 1, "selection_agents": 2, "expert_steps": 512, "n_updates": 50}


def protocol(entry: str, **changes: object) -> Protocol:
    return Protocol(**{**QUICK, "dataset": zoo.find(entry).load().digest, "expert": entry, **changes})


def recording(n: int = 200) -> Recording:
    rng = np.random.default_rng(0)
    return Recording(rng.normal(size=(n, 8)).astype(np.float32), rng.normal(size=(n, 4)).astype(np.float32))


@pytest.mark.slow
def test_distilled_rows_beat_what_is_simpler(tmp_path: Path) -> None:
    names = ["distilled,own", "permuted,one-step", "random-real,one-step", "expert", "random", "one-action"]
    results = {r.baseline: r for r in run(zoo.load(CARTPOLE_2D), protocol(CARTPOLE_2D), tmp_path, names)}
    means = {name: result.score.mean for name, result in results.items() if result.score is not None}
    assert set(means) == set(names)
    assert means["distilled,own"] > 450 and means["expert"] > 450
    for name in ("permuted,one-step", "random-real,one-step", "random", "one-action"):
        assert means[name] < 200, name
    assert results["one-action"].chosen in [f"action {i}" for i in range(4)]
    assert results["permuted,one-step"].chosen.startswith("sgd(lr=")
    rows = list(csv.reader((tmp_path / "baselines.csv").read_text().splitlines()))
    assert [row[0] for row in rows[1:]] == [name for name in baselines.BASELINES if name in names]


@pytest.mark.slow
def test_finished_baselines_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, quick = zoo.load(CARTPOLE_1D), protocol(CARTPOLE_1D)
    (first,) = run(dataset, quick, tmp_path, ["distilled,own"])

    def measured(self: Measurement, name: str) -> Result:
        assert name == "random", "this one is there already"
        return Result(baseline=name, score=None)

    monkeypatch.setattr(Measurement, "result", measured)
    again, other = run(dataset, quick, tmp_path, ["distilled,own", "random"])
    assert again == first and other.score is None
    with pytest.raises(TaskDistillError, match="measured with agents=6, not 7"):
        next(run(dataset, protocol(CARTPOLE_1D, agents=7), tmp_path, ["random"]))


def test_choices_are_made_on_the_selection_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third candidate is best there; what it scores is told once, on the test seed."""
    dataset = zoo.load(CARTPOLE_1D)
    asked: list[tuple[int, float]] = []

    class Answer:
        def __init__(self, mean: float) -> None:
            self.mean, self.score = mean, None

    def evaluate(one: object, *_: object, seed: int, **__: object) -> Answer:
        rate = one.rule.lr  # type: ignore[attr-defined]
        asked.append((seed, rate))
        return Answer(-abs(rate - 0.3))

    monkeypatch.setattr(baselines, "evaluate", evaluate)
    measurement = Measurement(dataset, protocol(CARTPOLE_1D), recording())
    tried = [rivals.with_rule(dataset, InnerSGD(lr=rate)) for rate in (0.03, 0.1, 0.3, 1.0)]
    assert measurement.best(tried, "x").chosen == "sgd(lr=0.3)"
    of_test = [rate for seed, rate in asked if seed == seeds.TEST]
    assert of_test == [0.3] and len(asked) == 5
    assert {seed for seed, _ in asked} == {seeds.TEST, seeds.selection(0)}


@pytest.mark.parametrize("steps", [1, 4])
def test_a_rate_that_breaks_learners_is_no_candidate(steps: int) -> None:
    dataset = zoo.load("Hopper-v4/one-step")
    broken = rivals.with_rule(dataset, InnerSGD(lr=1e8, steps=steps))
    measurement = Measurement(dataset, protocol("Hopper-v4/one-step"), recording())
    result = measurement.best([broken], "x")
    assert result.score is None and result.chosen == "no rate trains"


def test_permuted_labels_leave_no_row_its_own() -> None:
    dataset = zoo.load(CARTPOLE_2D)
    for seed in range(5):
        made = rivals.permuted(dataset, recording(), seed)
        assert torch.equal(made.x, dataset.x)
        assert torch.equal(made.y.sort(0).values, dataset.y.sort(0).values)
        assert not bool((made.y == dataset.y).all(1).any())


def test_real_rows_are_seen_observations_with_their_labels() -> None:
    dataset, recorded = zoo.load(CARTPOLE_2D), recording()
    for rows in ("random-real", "k-means-real"):
        made = rivals.ROWS[rows](dataset, recorded, 0)
        seen = dataset.normalize(torch.as_tensor(recorded.observations))
        found = [int((seen == row).all(1).nonzero().item()) for row in made.x]
        assert len(set(found)) == dataset.k
        wanted = torch.as_tensor(recorded.targets[found])
        torch.testing.assert_close(made.y, wanted - wanted.mean(1, keepdim=True))


def test_clusters_are_found() -> None:
    """Three far clumps of observations give a row each."""
    dataset, base = zoo.load(CARTPOLE_2D), recording(90)
    clump = np.repeat(np.arange(3), 30)
    observations = (base.observations * 0.01 + 5 * np.eye(8, dtype=np.float32)[clump]).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)[clump]
    made = rivals.kmeans_real(dataset, Recording(observations, targets), 0)
    assert sorted(made.y.argmax(1).tolist()) == [0, 1, 2]


def test_another_rule_keeps_the_noise_of_the_actions() -> None:
    dataset = zoo.load("Hopper-v4/one-step")
    assert dataset.log_std is not None
    noise = dataset.log_std * dataset.rule.log_std_pull(3)
    for rule in (InnerSGD(lr=0.3, steps=10), Ridge()):
        made = rivals.with_rule(dataset, rule)
        assert made.log_std is not None
        torch.testing.assert_close(made.log_std * rule.log_std_pull(3), noise)


def test_a_linear_policy_is_least_squares() -> None:
    dataset, recorded = zoo.load(CARTPOLE_2D), recording(500)
    made = rivals.linear(dataset, recorded, 0)
    agents = train_fresh_learners(made, 1, torch.Generator())
    seen = dataset.normalize(torch.as_tensor(recorded.observations)).double().numpy()
    with_one = np.c_[seen, np.ones(len(seen))]
    targets = recorded.targets - recorded.targets.mean(1, keepdims=True)
    expected = with_one @ np.linalg.lstsq(with_one, targets, rcond=None)[0]
    np.testing.assert_allclose(agents.learners(made.x[None])[0].numpy(), expected, atol=1e-3)


def test_a_cloned_network_fits_the_recording() -> None:
    dataset, recorded = zoo.load(CARTPOLE_2D), recording(200)
    targets = np.where(recorded.observations[:, :1] > 0, 3.0, -3.0) * np.array([[1, -1, -1, -1]])
    recorded = Recording(recorded.observations, targets.astype(np.float32))
    made = rivals.cloned(dataset, recorded, 0, 300)
    assert made.encoder_layers == 3
    agents = train_fresh_learners(made, 1, torch.Generator())
    actions = acting(agents, made, True, torch.Generator())(recorded.observations)
    right = recorded.observations[:, 0] > 0
    assert (actions[right] == 0).mean() > 0.9 and (actions[~right] != 0).mean() > 0.9


@pytest.mark.slow
def test_cma_es_gets_better_within_its_budget() -> None:
    dataset, used = zoo.load(CARTPOLE_1D), list[int]()
    centre, best = evolution.evolve(dataset, 4000, 0, used.append)
    assert sum(used[:-1]) < 4000 <= sum(used)
    assert centre.k == best.k == dataset.k and not torch.equal(centre.x, best.x)
    # Steps are what episodes last: the generations' returns.
    assert np.mean(used[-3:]) > np.mean(used[:3])
    assert [d.digest for d in evolution.evolve(dataset, 1, 0)] == [
        d.digest for d in evolution.evolve(dataset, 1, 0)
    ]


def test_learners_are_joined_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    for other, n_stacks in ((ALPHA_C, 1), (MLP(width=8), 2)):
        batches = [one.sample(2, (8,), 4, generator) for one in (ALPHA_C, other)]
        joined, x = Learners.join(batches), torch.randn(4, 3, 8, generator=generator)
        assert len(joined.stacks) == n_stacks
        torch.testing.assert_close(joined(x), torch.cat([batches[0](x[:2]), batches[1](x[2:])]))


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [CARTPOLE_1D, "--only", "distilled,own", "random", "--agents", "2", "--episodes", "1"]
    command.main([*argv, "--expert-steps", "64", "--jobs", "2", "--out", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert "distilled,own" in out and "2 agents x 1 full episodes" in out
    told = json.loads((tmp_path / "out" / "baselines.json").read_text())
    assert [one["baseline"] for one in told] == ["distilled,own", "random"]
    assert told[0]["score"]["seed"] == seeds.TEST


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([CARTPOLE_1D, "--only", "distilled,one"], 'Did you mean "distilled,own"'),
        ([CARTPOLE_1D, "--agents", "-1"], "protocol.agents is -1"),
        ([CARTPOLE_1D, "--expert-steps", "1"], "at least k=2 steps"),
        (["Walker2d-v4/one-step", "--only", "cma-es"], "give --env-steps"),
        (["nowhere-v0"], "nowhere-v0"),
    ],
)
def test_mistakes(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(argv)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error, error
    assert not Path("runs").exists()
