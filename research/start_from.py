"""Make a start for a run from an entry: ``python research/start_from.py Ant-v4 Ant-v5 start.safetensors``.

The new task may show other observations than the entry's: columns that v5 left out of those of Humanoid and
Reacher are taken out of the rows, those that it added to Ant's are 0 in them. ``--width`` changes the
learners: where a first layer is narrower than the observations, each learner sees a projection of its own,
and learners disagree; an orthogonal first layer that is at least as wide keeps all of them. Rows are scaled
by the part of them that the narrow learners saw, so that wide learners do what narrow ones did on average.
``--log-std -2`` lets agents explore less, or more, than the entry's. ``--inner-lr-hidden 0`` has learners
train their last layer alone, which changes little where they were drawn with a small one, and costs less.

The result has no scores; give it to ``python -m gym_taskdistill.train --warm-start``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gym_taskdistill import zoo
from gym_taskdistill.dataset.card import Card, space_to_dict
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.learners import MLP, learner_distribution
from gym_taskdistill.policies.trained import train_fresh_learners
from gym_taskdistill.tasks.task import Task

#: Column of v4 for each column of v5; None where v4 has none.
_HUMANOID = [
    *range(45),  # positions and velocities
    *range(55, 185),  # inertias without the world's
    *range(191, 269),  # velocities of the bodies without the world's
    *range(275, 292),  # actuator forces without those of the free joint, which has none
    *range(298, 376),  # contact forces without the world's
]
COLUMNS: dict[tuple[str, str], list[int | None]] = {
    ("Ant-v4", "Ant-v5"): [*range(27), *[None] * 78],
    ("Humanoid-v4", "Humanoid-v5"): list(_HUMANOID),
    ("HumanoidStandup-v4", "HumanoidStandup-v5"): list(_HUMANOID),
    ("Reacher-v4", "Reacher-v5"): [*range(10)],  # without the height of the target above the finger, always 0
}

#: What a column that the entry does not have starts with.
_NEW = {"x": 0.0, "obs_mean": 0.0, "obs_var": 1.0, "obs_scale": 0.1}


def pick(tensor: Tensor | None, columns: list[int | None], new: float) -> Tensor | None:
    """Return some columns of a tensor, and ``new`` for those that are None."""
    if tensor is None:
        return None
    parts = [torch.full_like(tensor[..., :1], new) if c is None else tensor[..., c : c + 1] for c in columns]
    return torch.cat(parts, dim=-1)


def seen(width: int, n_dims: int) -> float:
    """Return the part of ``|x|²`` that an orthogonal first layer keeps on average."""
    return min(1.0, width / n_dims)


def with_log_std(dataset: DistilledDataset, log_std: float) -> DistilledDataset:
    """Return the dataset with a label that brings learners to this log standard deviation on average."""
    trained = train_fresh_learners(dataset, 1, torch.Generator().manual_seed(0))
    if dataset.log_std is None or trained.log_std is None:
        raise SystemExit("Discrete actions have no standard deviation.")
    # A fresh learner's is 0 and the loss is quadratic, so that the trained one is the label times a factor.
    return dataset.replace(log_std=dataset.log_std * log_std / trained.log_std.mean())


def start_from(dataset: DistilledDataset, env_id: str, width: int | None = None) -> DistilledDataset:
    """Return the dataset as the start of a run of another task, or with learners of another width."""
    columns = COLUMNS.get((dataset.card.env_id, env_id))
    learners = learner_distribution(dataset.card.learners)
    changed: dict[str, Any] = {}
    if width is not None or columns is not None:
        if not isinstance(learners, MLP) or not isinstance(learners.width, int):
            raise SystemExit(f"{learners} has no single width to change; leave --width out.")
        columns = columns or list(range(dataset.obs_shape[0]))
        new_width = width or learners.width
        changed = {name: pick(getattr(dataset, name), columns, new) for name, new in _NEW.items()}
        changed["x"] *= seen(learners.width, dataset.obs_shape[0]) / seen(new_width, len(columns))
        learners = replace(learners, width=new_width)
    env = Task(env_id, dataset.card.env_kwargs).make_env()
    card = Card(
        env_id=env_id,
        env_kwargs=dataset.card.env_kwargs,
        observation_space=space_to_dict(env.observation_space),
        action_space=space_to_dict(env.action_space, bounds=True),
        learners=learners.spec(),
        seed=dataset.card.seed,
        num_timesteps=0,
        versions=dataset.card.versions,
    )
    return dataset.replace(**changed, card=card)


def main() -> None:
    """Write the start."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entry", help="an entry of the zoo, or a dataset file")
    parser.add_argument("env_id", help="the task of the run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, help="width of the learners' hidden layers")
    parser.add_argument("--log-std", type=float, help="log standard deviation of the agents' actions")
    parser.add_argument(
        "--inner-lr-hidden", type=float, help="factor on the inner learning rate in all layers but the last"
    )
    args = parser.parse_args()
    file = Path(args.entry)
    dataset = DistilledDataset.load(file if file.suffix == ".safetensors" else zoo.find(args.entry).path)
    start = start_from(dataset, args.env_id, args.width)
    if args.log_std is not None:
        start = with_log_std(start, args.log_std)
    if args.inner_lr_hidden is not None:
        start = start.replace(inner_lr_hidden=args.inner_lr_hidden)
    start.save(args.out)


if __name__ == "__main__":
    main()
