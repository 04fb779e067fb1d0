"""Architectures are trained by SB3's PPO as they are, kept one by one, and what comes out fits a search."""

from __future__ import annotations

from pathlib import Path

import pytest
import rank_architectures
import torch
from stable_baselines3.common.vec_env import VecNormalize

from gym_taskdistill.uses.architectures import Architecture
from gym_taskdistill.uses.correlations import read_column


@pytest.mark.slow
@pytest.mark.parametrize("task", ["CartPoleND-v0/n=2", "Acrobot-v1", "Hopper-v4"])
def test_a_short_ranking(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_architectures, "N_EPISODES", 1)
    monkeypatch.setattr(rank_architectures, "SETTINGS", {"n_steps": 16, "batch_size": 64})
    space = tmp_path / "space.yaml"
    space.write_text("{width: [8], depth: [1, 2], activation: [tanh], init: [orthogonal]}")
    seeds = "0,3" if task == "Acrobot-v1" else "0"
    argv = [task, "--space", str(space), "--seeds", seeds, "--total-timesteps", "128", "--out", str(tmp_path)]
    rank_architectures.main(argv)
    first = capsys.readouterr().out
    table = tmp_path / task / "returns.csv"
    assert len(table.read_text().splitlines()) == 1 + 2 * len(seeds.split(","))
    for column in ("return", "course"):
        assert set(read_column(table, column)) == {"8x1,tanh,orthogonal", "8x2,tanh,orthogonal"}
    monkeypatch.setattr(rank_architectures, "make_model", None)  # nothing is trained again
    rank_architectures.main(argv)
    assert capsys.readouterr().out == first
    argv[argv.index("128")] = "256"
    with pytest.raises(SystemExit):
        rank_architectures.main(argv)
    assert "trained for 128 steps, not 256" in " ".join(capsys.readouterr().err.split())


def test_policies_are_of_the_architecture() -> None:
    task, _ = rank_architectures.TASKS["CartPoleND-v0/n=2"]
    env = VecNormalize(task.make_vec_env(2))
    one = Architecture(width=24, depth=3, layer_norm=True, residual=True)
    policy = rank_architectures.make_model(one, env, 0).policy
    actor = sum(p.numel() for p in policy.pi_features_extractor.parameters())
    assert actor + sum(p.numel() for p in policy.action_net.parameters()) == one.n_parameters((8,), 4)
    pairs = zip(
        policy.pi_features_extractor.parameters(), policy.vf_features_extractor.parameters(), strict=True
    )
    assert any(not torch.equal(actors, critics) for actors, critics in pairs)
    weight = policy.action_net.weight.detach()
    torch.testing.assert_close(weight @ weight.T, 1e-4 * torch.eye(4), rtol=0, atol=1e-7)
    env.close()
