"""Train a reference for the results: ``python docs/run_reference.py Hopper-v4 --algorithm ppmo --seed 0``.

``ppmo`` is this library with the whole network in the encoder, that is direct-task PPO, with the recipe and
the env steps of the distillation. ``sb3`` is Stable-Baselines3's PPO with the hyperparameters of its zoo,
which stand in ``references/sb3_ppo.yaml``. The result, a JSON file, lands in ``references``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from gym_taskdistill import recipes
from gym_taskdistill.distill.card import versions
from gym_taskdistill.evaluation import evaluate
from gym_taskdistill.files import write_text
from gym_taskdistill.learners import learner_distribution
from gym_taskdistill.runs import SCORE_SEED, Run, use_threads
from gym_taskdistill.tasks import Task

REFERENCES = Path(__file__).resolve().parent / "references"
N_EPISODES = 100


def train_ppmo(env_id: str, seed: int, total_timesteps: int | None) -> dict[str, Any]:
    """Train direct-task PPO by this library's program and return its result."""
    recipe = recipes.load("mujoco", env_id=env_id)
    learners = learner_distribution(recipe.ppmo["learners"])
    n_layers = len(learners.layers(recipe.task.observation_space.shape or (), 1))
    # Nothing is drawn afresh, so that one agent is all there is to test.
    changes: dict[str, Any] = {"encoder_layers": n_layers, "n_agents": 1, "n_episodes": 16}
    changes["encoder_learning_rate"] = "lin_0.001_0.0001"  # the rows' would be far too high for weights
    if total_timesteps is not None:
        changes["total_timesteps"] = total_timesteps
    recipe = recipe.override(changes)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(recipe, seed, Path(folder), env_id)
        dataset = run.execute()
    score = evaluate(dataset, 1, N_EPISODES, seed=SCORE_SEED + seed)
    return {
        "hyperparameters": recipe.ppmo,
        "num_timesteps": dataset.card.num_timesteps,
        "wall_clock_s": dataset.card.wall_clock_s,
        "mean": score.mean,
        "std": float(score.returns.std()),
    }


def train_sb3(env_id: str, seed: int, total_timesteps: int | None) -> dict[str, Any]:
    """Train SB3's PPO with its zoo's hyperparameters and return its result."""
    table = yaml.safe_load((REFERENCES / "sb3_ppo.yaml").read_text())
    settings = dict(table[env_id.rpartition("-v")[0]])
    total = total_timesteps or settings["n_timesteps"]
    kwargs = {name: value for name, value in settings.items() if name not in ("n_timesteps", "wide")}
    if settings.get("wide"):
        kwargs["policy_kwargs"] = {
            "log_std_init": -2.0,
            "ortho_init": False,
            "activation_fn": torch.nn.ReLU,
            "net_arch": {"pi": [256, 256], "vf": [256, 256]},
        }
    env = VecNormalize(Task(env_id).make_vec_env(1, seed=seed), gamma=float(kwargs.get("gamma", 0.99)))
    start = time.perf_counter()
    model = PPO("MlpPolicy", env, seed=seed, device="cpu", **kwargs)
    model.learn(total, progress_bar=False)
    elapsed = time.perf_counter() - start
    env.training = env.norm_reward = False
    env.seed(SCORE_SEED + seed)
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


def main() -> None:
    """Train one reference and write its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("env_id")
    parser.add_argument("--algorithm", choices=("ppmo", "sb3"), default="ppmo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--total-timesteps", type=int)
    args = parser.parse_args()
    use_threads(1)
    train = train_ppmo if args.algorithm == "ppmo" else train_sb3
    result = {
        "env_id": args.env_id,
        "algorithm": args.algorithm,
        "seed": args.seed,
        "n_episodes": N_EPISODES,
        "deterministic": False,
        **train(args.env_id, args.seed, args.total_timesteps),
        "versions": versions(),
    }
    path = REFERENCES / f"{args.env_id},{args.algorithm},seed={args.seed}.json"
    write_text(path, json.dumps(result, indent=2) + "\n")
    print(f"{args.env_id} {args.algorithm}: {result['mean']:.1f} ± {result['std']:.1f} -> {path.name}")


if __name__ == "__main__":
    main()
