"""Measure what the results set beside distillation: ``run_reference.py sb3 Hopper-v4 --seed 0``.

``sb3`` is Stable-Baselines3's PPO with the hyperparameters of its zoo, which stand in
``docs/references/sb3_ppo.yaml``. ``one-action`` plays one discrete action, as the expert ``action:16`` of a
stage ``imitate`` does: nine times in ten where there are 18. ``k-shot`` times how one agent is
trained on the zoo's dataset. Direct-task PPO by this library's own program is a variant of its recipes:
``python -m gym_taskdistill.train Hopper-v4/expert``. The result, a JSON file, lands in ``docs/references``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from gym_taskdistill import zoo
from gym_taskdistill.cli.common import key_values
from gym_taskdistill.dataset.card import versions
from gym_taskdistill.distill.experts import act, one_action
from gym_taskdistill.files import write_text
from gym_taskdistill.machine import use_threads
from gym_taskdistill.recipes.file import load
from gym_taskdistill.seeds import TEST
from gym_taskdistill.tasks.task import Task
from gym_taskdistill.uses.costs import time_training

REFERENCES = Path(__file__).resolve().parents[1] / "docs" / "references"
SB3_SETTINGS = REFERENCES / "sb3_ppo.yaml"
N_EPISODES = 100

#: Envs that play one action side by side.
N_COLUMNS = 20


def train_sb3(task: Task, seed: int, total_timesteps: int | None) -> dict[str, Any]:
    """Train SB3's PPO with its zoo's hyperparameters and return its result."""
    table = yaml.safe_load(SB3_SETTINGS.read_text())
    settings = dict(table[task.env_id.rpartition("-v")[0]])
    total = total_timesteps or settings["n_timesteps"]
    kwargs = {name: value for name, value in settings.items() if name not in ("n_timesteps", "wide")}
    if settings.get("wide"):
        kwargs["policy_kwargs"] = {
            "log_std_init": -2.0,
            "ortho_init": False,
            "activation_fn": torch.nn.ReLU,
            "net_arch": {"pi": [256, 256], "vf": [256, 256]},
        }
    env = VecNormalize(task.make_vec_env(1, seed=seed), gamma=float(kwargs.get("gamma", 0.99)))
    start = time.perf_counter()
    model = PPO("MlpPolicy", env, seed=seed, device="cpu", **kwargs)
    model.learn(total, progress_bar=False)
    elapsed = time.perf_counter() - start
    env.training = env.norm_reward = False
    env.seed(TEST + seed)
    returns, _ = evaluate_policy(
        model, env, N_EPISODES, deterministic=False, return_episode_rewards=True, warn=False
    )
    return {
        "hyperparameters": settings,
        "num_timesteps": model.num_timesteps,
        "wall_clock_s": round(elapsed, 1),
        "mean": float(np.mean(returns)),
        "std": float(np.std(returns)),
    }


def play_one_action(task: Task, action: int, seed: int) -> dict[str, Any]:
    """Play full games by one action and return what they score."""
    expert = one_action(action, task.action_space)
    env = task.make_vec_env(N_COLUMNS, seed=TEST + seed)
    rng = np.random.default_rng(seed)
    obs = env.reset()
    returns: list[list[float]] = [[] for _ in range(N_COLUMNS)]
    # Every column plays equally many, so that short games are not over-represented.
    while min(map(len, returns)) < N_EPISODES // N_COLUMNS:
        obs, _, dones, infos = env.step(act(expert(np.asarray(obs)), task.action_space, rng))
        for column in np.flatnonzero(dones):
            returns[column].append(infos[column]["episode"]["r"])
    kept = np.array([column[: N_EPISODES // N_COLUMNS] for column in returns])
    return {"action": action, "mean": float(kept.mean()), "std": float(kept.std())}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure one reference and write its result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("algorithm", choices=("sb3", "one-action", "k-shot"))
    parser.add_argument("task", help="a task, such as Hopper-v4")
    parser.add_argument("--env-kwargs", nargs="*", default=[], help="arguments of the env, key=value")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--action", type=int, default=0, help="one-action: which one")
    parser.add_argument("--total-timesteps", type=int)
    args = parser.parse_args(argv)
    use_threads(1)
    task = load(args.task, key_values(args.env_kwargs, "--env-kwargs")).task
    if args.algorithm == "sb3":
        measured = train_sb3(task, args.seed, args.total_timesteps)
    elif args.algorithm == "one-action":
        measured = play_one_action(task, args.action, args.seed)
    else:
        measured = time_training(zoo.load(task.env_id, **task.env_kwargs))
    result: dict[str, Any] = {"task": str(task), "algorithm": args.algorithm}
    if args.algorithm != "k-shot":
        result |= {"seed": args.seed, "n_episodes": N_EPISODES, "deterministic": False}
    seed = "" if args.algorithm == "k-shot" else f",seed={args.seed}"
    action = f"={args.action}" if args.algorithm == "one-action" else ""
    path = REFERENCES / f"{task},{args.algorithm}{action}{seed}.json"
    write_text(path, json.dumps({**result, **measured, "versions": versions()}, indent=2) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
