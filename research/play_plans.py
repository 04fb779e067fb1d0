"""Say what an expert that plans makes of an Atari game: ``research/play_plans.py recipe.yaml --seed 2``.

The games are the first that the run of a recipe with ``imitation.lookahead`` records with this seed, to their
ends; points are raw. ``--set clip_reward=false`` plans otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import numpy as np
import torch
import yaml

from gym_taskdistill.distill.imitation import load_expert, recording_env
from gym_taskdistill.distill.lookahead import Lookahead
from gym_taskdistill.recipes import recipe as recipes
from gym_taskdistill.recipes.run import RECORDING_SEED


def main() -> None:
    """Play the games and print their points."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="seed of the run")
    parser.add_argument("--n-threads", type=int, default=1, help="processes that plan")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the lookahead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = recipes.load(str(args.recipe))
    plan = recipe.imitation
    if plan is None or plan.lookahead is None:
        parser.error(f"{args.recipe} has no imitation.lookahead")
    changes = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in args.set)}
    expert, expert_task = load_expert(plan.expert, recipe.task.action_space)
    settings = {**plan.lookahead, **changes}
    look = Lookahead(expert, expert_task, n_processes=args.n_threads, **settings)
    env, view = recording_env(recipe.task, plan.n_envs, expert_task, looks_ahead=True)
    assert view is not None
    points, playing = np.zeros(plan.n_envs), np.ones(plan.n_envs, dtype=bool)
    with contextlib.closing(look), contextlib.closing(env):
        env.seed(RECORDING_SEED + args.seed)
        obs = env.reset()
        assert isinstance(obs, np.ndarray)
        while playing.any():
            new_obs, rewards, dones, _ = env.step(look(view(env, obs)).argmax(axis=1))
            assert isinstance(new_obs, np.ndarray)
            obs = new_obs
            points += rewards * playing
            playing &= ~dones
    print(*points.astype(int).tolist())


if __name__ == "__main__":
    main()
