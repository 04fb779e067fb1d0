"""Ensembles act by their rule, whatever datasets and architectures their members are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from gym_taskdistill import DistilledPolicy, zoo
from gym_taskdistill.cli import evaluate as command
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.ensemble import EnsembleRule
from gym_taskdistill.policies.evaluation import acting, evaluate
from gym_taskdistill.policies.trained import train_fresh_learners

CARTPOLE, HOPPER = "CartPoleND-v0/n=2,k_min", "Hopper-v4/one-step"


def observations(entry: str, n: int = 40) -> np.ndarray:
    shape = zoo.load(entry).obs_shape
    return np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)


def members(policy: DistilledPolicy, obs: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([policy.to_torch(i)(torch.from_numpy(obs)) for i in range(len(policy))])


def test_a_majority_is_counted_and_ties_go_to_the_likelier() -> None:
    votes = EnsembleRule(spaces.Discrete(3), "majority")
    sure, unsure = [0.0, 9.0, 0.0], [1.0, 0.0, 0.0]
    assert votes(torch.tensor([sure, unsure, unsure])).argmax() == 0
    assert votes(torch.tensor([sure, unsure])).argmax() == 1
    choices = EnsembleRule(spaces.MultiDiscrete([3, 2]), "majority")
    outputs = choices(torch.tensor([[*sure, 1.0, 0.0], [*unsure, 0.0, 1.0], [*unsure, 0.0, 1.0]]))
    assert [part.argmax().item() for part in outputs.split([3, 2])] == [0, 1]
    coins = EnsembleRule(spaces.MultiBinary(2), "majority")
    assert (coins(torch.tensor([[9.0, -1.0], [-1.0, -1.0], [-1.0, 9.0]])) > 0).tolist() == [False, False]
    sampled = votes.distribution(torch.tensor([sure, unsure, unsure]).unsqueeze(1).expand(3, 999, 3), None)
    assert (sampled.sample(torch.Generator().manual_seed(0)) == 0).all()


@pytest.mark.parametrize("n", [4, 5])
def test_a_median_is_numpys(n: int) -> None:
    outputs = torch.randn(n, 7, 2, generator=torch.Generator().manual_seed(0))
    rule = EnsembleRule(spaces.Box(-1, 1, (2,)), "median")
    np.testing.assert_allclose(rule(outputs), np.median(outputs.numpy(), axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("space", "rule", "message"),
    [
        (spaces.Discrete(2), "median", 'discrete actions.*cannot act by the rule "median".*"majority"'),
        (spaces.MultiBinary(2), "median", "discrete actions"),
        (spaces.Box(-1, 1, (2,)), "majority", 'continuous actions.*"median"'),
        (spaces.Discrete(2), "majorty", 'Did you mean "majority"'),
    ],
)
def test_rules_that_do_not_fit_are_refused(space: spaces.Space, rule: str, message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        EnsembleRule(space, rule)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(
    ("entry", "rule"), [(CARTPOLE, "majority"), (HOPPER, "mean"), (HOPPER, "median")], ids=str
)
def test_policies_act_and_are_exported_by_their_rule(entry: str, rule: str) -> None:
    """Two architectures, two members of each on each of two datasets."""
    dataset = zoo.load(entry)
    other = dataset.replace(y=0.9 * dataset.y)
    learners = ["alpha_c", {"family": "mlp", "width": 48}]
    policy = DistilledPolicy([dataset, other], learners, 0, 4, rule=rule)
    obs = observations(entry)
    of_members = members(policy, obs)
    assert len(of_members) == len(policy) == 8
    assert [stack.size for stack, _ in policy.members._stacks] == [4, 4]  # an architecture, a pass
    expected = policy.members.rule(of_members)
    module = policy.to_torch()
    with torch.no_grad():
        outputs = module(torch.from_numpy(obs))
        torch.testing.assert_close(torch.jit.script(module)(torch.from_numpy(obs)), outputs)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    distribution = policy.distribution(obs)
    mode = expected.argmax(-1) if entry == CARTPOLE else expected
    torch.testing.assert_close(distribution.mode(), mode, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("entry", "rule"), [(CARTPOLE, "majority"), (HOPPER, "median")], ids=str)
def test_onnx_files_act_by_their_rule(entry: str, rule: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    policy = DistilledPolicy(zoo.load(entry), seed=0, n_learners=4, rule=rule)
    obs = observations(entry)
    outputs, *log_std = runtime.InferenceSession(policy.to_onnx(tmp_path / "p")).run(
        None, {"observation": obs}
    )
    np.testing.assert_allclose(outputs, policy.members.rule(members(policy, obs)), rtol=1e-3, atol=1e-4)
    assert len(log_std) == (entry == HOPPER)


def test_datasets_of_other_tasks_are_refused() -> None:
    two, three = zoo.load(CARTPOLE), zoo.load("CartPoleND-v0/n=3,k_min")
    with pytest.raises(TaskDistillError, match="one environment.*n=2.*n=3"):
        DistilledPolicy([two, three])
    variants = [zoo.load("Hopper-v4", variant) for variant in ("one-step", "ten-steps")]
    assert len(DistilledPolicy(variants, n_learners=2)) == 4  # of one task, whatever rule they have
    for nothing in ([], [CARTPOLE]):
        with pytest.raises(TaskDistillError, match="needs a DistilledDataset"):
            DistilledPolicy(nothing)


def test_ensembles_are_agents_of_an_evaluation() -> None:
    """Each agent's members answer its own observations, and are of both architectures."""
    dataset = zoo.load(CARTPOLE)
    learners = DistilledPolicy(dataset, ["alpha_c", "tanh_32"]).learners
    trained = train_fresh_learners(dataset, 6, torch.Generator().manual_seed(0), learners)
    rule = EnsembleRule(dataset.spaces[1], "majority")
    obs = observations(CARTPOLE, 9)
    act = acting(trained, dataset, True, torch.Generator(), rule, 2)
    actions = act(obs).reshape(3, -1)
    seen = dataset.normalize(torch.from_numpy(obs)).reshape(3, -1, *dataset.obs_shape)
    for agent in range(3):
        outputs = torch.stack([trained.module(i)(seen[agent]) for i in (agent, agent + 3)])
        assert rule(outputs).argmax(-1).tolist() == actions[agent].tolist()
    result = evaluate(dataset, 3, 1, learners=["alpha_c", "tanh_32"], ensemble=2, seed=1)
    assert result.returns.shape == (3, 1) and result.mean > 400
    assert result.learners.startswith("ensembles of 2 mixture(")
    assert (result.returns == evaluate(dataset, 3, 1, learners=learners, ensemble=2, seed=1).returns).all()


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--agents", "2", "--episodes", "1", "--no-progress-bar", "--ensemble", "3"]
    command.main([CARTPOLE, *quick, "--ensemble-rule", "majority"])
    assert "ensembles of 3 alpha_c by majority" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main([CARTPOLE, *quick, "--ensemble-rule", "median"])
    assert "cannot act by the rule" in capsys.readouterr().err
