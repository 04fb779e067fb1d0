"""Two processes that distil one dataset, and the arithmetic they share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill import distributed

PROGRAM = """
import sys
import numpy as np
import torch
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.distill import distributed
from gym_taskdistill.tasks.task import Task
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

torch.set_num_threads(1)
distributed.start()
rank = distributed.rank()
samples = np.random.default_rng(0).normal(3, 2, size=(2, 500, 4))
moments = RunningMeanStd(epsilon=0.0, shape=(4,))
moments.update(samples[rank])
distributed.merge_moments(moments)
together = samples.reshape(-1, 4)
np.testing.assert_allclose(moments.mean, together.mean(0))
np.testing.assert_allclose(moments.var, together.var(0))

env = VecNormalize(Task("Pendulum-v1").make_vec_env(4))
model = PPMO("alpha_c", env, k=4, n_learners=2, n_steps=32, batch_size=64, seed=0, device="cpu")
start = model.loop.x.clone()
model.learn(512)
assert model.num_timesteps == 512  # of both together
assert not torch.equal(start, model.loop.x)
torch.save(
    {
        "params": [p.detach() for p in model.policy.parameters()],
        "obs": torch.as_tensor(model.rollout_buffer.observations),
    },
    f"{sys.argv[1]}/{rank}.pt",
)

from gym_taskdistill.cli import train

settings = ["n_envs=8", "n_steps=32", "batch_size=64", "n_agents=2", "n_episodes=1"]
final = ["final_agents=2", "final_episodes=1"]
command = ["cartpole", "--total-timesteps", "2048", "--no-progress-bar", "--seed", "3"]
train.main([*command, "--out", f"{sys.argv[1]}/runs", "--set", *settings, *final])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks leave behind that torchrun has started."""
    folder = tmp_path_factory.mktemp("ranks")
    program = folder / "program.py"
    program.write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, str(program), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_two_ranks_learn_one_dataset_from_rollouts_of_their_own(folder: Path) -> None:
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for p, q in zip(first["params"], second["params"], strict=True):
        assert torch.equal(p, q)
    assert not torch.equal(first["obs"], second["obs"])


@pytest.mark.slow
def test_the_command_runs_under_torchrun(folder: Path) -> None:
    (run,) = (folder / "runs").iterdir()  # only the first rank writes
    dataset = DistilledDataset.load(run)
    assert dataset.card.num_timesteps == 2048
    assert [record.env_steps for record in dataset.card.lineage] == [2048]
    assert len(dataset.card.scores) == 1
    assert len(list(run.glob("1-ppmo/events.out.tfevents*"))) == 1


def test_a_single_process_needs_none_of_it() -> None:
    distributed.start()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.from_first("mine") == "mine"
    tensor = torch.ones(2, requires_grad=True)
    tensor.sum().backward()
    distributed.average_gradients([tensor])
    assert distributed.average(tensor) is tensor
    moments = RunningMeanStd(shape=(2,))
    moments.update(np.ones((3, 2)))
    before = moments.mean.copy()
    distributed.merge_moments(moments)
    assert (moments.mean == before).all()
