"""Say what an expert that plans makes of an Atari game: ``play_plans.py GAME EXPERT --seed 2``.

The games are played to their ends, with raw points. ``EXPERT`` is a dataset that plays by the bits of RAM,
such as the variant ``expert`` of ``SpaceInvadersNoFrameskip-v4 obs_type=bits``.
"""

from __future__ import annotations

import argparse
import contextlib

import numpy as np
import torch

from gym_taskdistill.cli.common import key_values
from gym_taskdistill.distill.experts import load_expert, recording_env
from gym_taskdistill.distill.lookahead import Lookahead
from gym_taskdistill.seeds import training
from gym_taskdistill.tasks import Task


def main() -> None:
    """Play the games and print their points."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("game", help="a task, such as SpaceInvadersNoFrameskip-v4")
    parser.add_argument("expert", help="a dataset file or an entry of the zoo")
    parser.add_argument("--n-envs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="seed of the run")
    parser.add_argument("--n-threads", type=int, default=1, help="processes that plan")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the lookahead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = Task(args.game)
    expert, expert_task = load_expert(args.expert, task.action_space)
    look = Lookahead(expert, expert_task, n_processes=args.n_threads, **key_values(args.set, "--set"))
    env, view = recording_env(task, args.n_envs, expert_task, looks_ahead=True)
    assert view is not None
    points, playing = np.zeros(args.n_envs), np.ones(args.n_envs, dtype=bool)
    with contextlib.closing(look), contextlib.closing(env):
        env.seed(training(args.seed))
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
