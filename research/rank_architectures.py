"""Rank architectures by real training: ``rank_architectures.py Hopper-v4 --seeds 0-1 --jobs 2``.

Each architecture of a space is trained by SB3's PPO, with equal steps and equal settings, and several seeds.
Runs are kept one by one in ``--out``, where the same command resumes them. What comes out is ``returns.csv``:
the return of the trained policy, and the mean return of all episodes of its training (``course``), which
tells fast learners from slow ones. ``taskdistill search ENTRY SPACE --returns returns.csv`` correlates a
search with it.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from gym_taskdistill import files, surroundings
from gym_taskdistill.cli.common import seed_list
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners.inits import INIT_LAWS
from gym_taskdistill.machine import use_threads
from gym_taskdistill.seeds import TEST, training
from gym_taskdistill.tasks import Task
from gym_taskdistill.uses.architectures import Architecture, SearchSpace

#: Tasks, with the env steps of each training.
TASKS = {
    "CartPoleND-v0/n=2": (Task("CartPoleND-v0", {"n": 2}), 100_000),
    "Acrobot-v1": (Task("Acrobot-v1"), 100_000),
    "Hopper-v4": (Task("Hopper-v4"), 300_000),
}

#: Settings of PPO, the same for all tasks and architectures; the others are SB3's own.
N_ENVS = 8
SETTINGS: dict[str, Any] = {"n_steps": 256, "batch_size": 256}

#: Full episodes that a trained policy is tested by.
N_EPISODES = 20

#: Gains of the last layers of policy and critic, SB3's own, where a law draws them.
ACTION_GAIN, VALUE_GAIN = 0.01, 1.0


class Outcome(NamedTuple):
    """What became of a training: a line of the table."""

    architecture: str
    seed: int
    total_timesteps: int
    mean: float
    course: float
    seconds: float


class ArchitectureFeatures(BaseFeaturesExtractor):
    """An architecture without its last layer, as SB3's features extractor.

    Args:
        observation_space: Space of the observations, vectors.
        architecture: The architecture as plain data.
    """

    def __init__(self, observation_space: spaces.Box, architecture: dict[str, Any]) -> None:
        one = Architecture(**architecture)
        super().__init__(observation_space, one.width)
        network = one.network(observation_space, 1)
        assert isinstance(network, nn.Sequential)
        self.hidden = network[:-1]

    def forward(self, observations: Tensor) -> Tensor:
        """Map observations ``(n, *shape)`` to features ``(n, width)``."""
        features: Tensor = self.hidden(observations)
        return features


class _Episodes(BaseCallback):
    """Keeps the returns of the episodes of training."""

    def __init__(self) -> None:
        super().__init__()
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True


def make_model(architecture: Architecture, env: VecNormalize, seed: int) -> PPO:
    """Make PPO whose policy and critic are two fresh networks of an architecture."""
    model = PPO(
        "MlpPolicy",
        env,
        seed=seed,
        device="cpu",
        policy_kwargs={
            "features_extractor_class": ArchitectureFeatures,
            "features_extractor_kwargs": {"architecture": architecture.to_dict()},
            "share_features_extractor": False,
            "net_arch": [],
            "ortho_init": False,  # it would draw the extractor's weights anew
        },
        **SETTINGS,
    )
    if architecture.init != "torch":
        last: list[tuple[Any, float]] = [
            (model.policy.action_net, ACTION_GAIN),
            (model.policy.value_net, VALUE_GAIN),
        ]
        with torch.no_grad():
            for layer, gain in last:
                shape = (1, *layer.weight.shape)
                layer.weight.copy_(INIT_LAWS[architecture.init](shape, gain, torch.default_generator)[0])
                layer.bias.zero_()
    return model


def train(name: str, architecture: Architecture, seed: int, total_timesteps: int, folder: Path) -> Outcome:
    """Train an architecture, unless that is done already.

    Raises:
        TaskDistillError: It was done with another number of steps.
    """
    path = folder / f"{architecture.name},seed={seed}.json"
    if path.is_file():
        done = Outcome(**json.loads(path.read_text(encoding="utf-8")))
        if done.total_timesteps != total_timesteps:
            raise TaskDistillError(
                f'"{path}" was trained for {done.total_timesteps} steps, not {total_timesteps}; choose '
                "another --out."
            )
        return done
    use_threads(1)
    start = time.monotonic()
    task, _ = TASKS[name]
    env = VecNormalize(task.make_vec_env(N_ENVS))
    env.seed(training(seed, 0))
    episodes = _Episodes()
    model = make_model(architecture, env, training(seed, 1))
    model.learn(total_timesteps, episodes)
    env.training = env.norm_reward = False
    env.seed(TEST + seed)
    returns, _ = evaluate_policy(
        model, env, N_EPISODES, deterministic=False, return_episode_rewards=True, warn=False
    )
    env.close()
    mean, course = float(np.mean(returns)), float(np.mean(episodes.returns or returns))
    seconds = round(time.monotonic() - start, 1)
    outcome = Outcome(architecture.name, seed, total_timesteps, mean, course, seconds)
    files.write_text(path, json.dumps(outcome._asdict()) + "\n")
    return outcome


def write_table(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes as CSV, sorted by architecture and seed."""
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("architecture", "seed", "total_timesteps", "return", "course", "seconds"))
        writer.writerows(sorted(outcomes))


def main(argv: Sequence[str] | None = None) -> None:
    """Train all architectures and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--space", type=Path, help="YAML file of a space; by default that of a search")
    parser.add_argument("--n-trials", type=int, help="draw so many of its architectures")
    parser.add_argument("--seeds", default="0-1", help="seeds, such as 0-1")
    parser.add_argument("--total-timesteps", type=int, help="env steps of each training")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/rank-architectures"), help="folder of the runs"
    )
    args = parser.parse_args(argv)
    try:
        space = SearchSpace() if args.space is None else SearchSpace.from_file(args.space)
        architectures = space.architectures(args.n_trials)
        seeds = seed_list(args.seeds)
        steps = args.total_timesteps or TASKS[args.task][1]
        folder = args.out / args.task
        outcomes = []
        with files.lock(folder / ".lock", f'Another process trains in "{folder}".'):
            work = ((args.task, one, seed, steps, folder) for seed in seeds for one in architectures)
            for outcome in surroundings.each(train, work, args.jobs):
                outcomes.append(outcome)
                print(f"{outcome.architecture} seed={outcome.seed}: {outcome.mean:.1f}", flush=True)
            write_table(folder / "returns.csv", outcomes)
    except TaskDistillError as error:
        parser.error(str(error))
    print(folder / "returns.csv")


if __name__ == "__main__":
    main()
