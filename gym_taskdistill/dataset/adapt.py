"""Changes of a dataset by arithmetic: another version of its task, wider learners, other noise.

The new task may show other observations than the dataset's: columns that v5 left out of those of Humanoid and
Reacher are taken out of the rows, those that it added to Ant's are 0 in them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gym_taskdistill.dataset.card import Card, described
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.training import log_std_pull
from gym_taskdistill.errors import DatasetError
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.learners import MLP, LearnerDistribution, learner_distribution
from gym_taskdistill.tasks import Task

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

#: What a column that the dataset does not have starts with.
_NEW = {"x": 0.0, "obs_mean": 0.0, "obs_var": 1.0, "obs_scale": 0.1, "obs_shift": 0.0}


def check_adapt(learners: LearnerDistribution, source: Task, target: Task, width: int | None = None) -> None:
    """Refuse a change that `adapt` cannot make.

    Args:
        learners: What the dataset was distilled over.
        source: The dataset's task.
        target: The task it shall be for.
        width: Width of its learners, if that shall change.

    Raises:
        DatasetError: The tasks' spaces differ in a way that is not known, or the learners have no one width.
    """
    known = (source.spec.id, target.spec.id) in COLUMNS
    same = source.observation_space.shape == target.observation_space.shape
    if not (known or same) or source.action_space != target.action_space:
        raise DatasetError(
            f"A dataset of {source} cannot be adapted to {target}: their observations or actions differ, and "
            "which correspond is not known."
        )
    if (width is not None or known) and not (isinstance(learners, MLP) and isinstance(learners.width, int)):
        raise DatasetError(f"{learners} has no single width to change; leave width out.")


def adapt(
    dataset: DistilledDataset,
    task: Task,
    width: int | None = None,
    log_std: float | None = None,
    lr_hidden: float | None = None,
) -> DistilledDataset:
    """Return a dataset for another version of its task, or for learners of another width or noise.

    Where a first layer is narrower than the observations each learner sees a projection of its own, and
    learners disagree; an orthogonal first layer that is at least as wide keeps all of them. Rows are scaled
    by the part of them that the narrow learners saw, so that wide learners do on average what narrow ones
    did.

    Args:
        dataset: What to change; it stays as it is.
        task: What it shall be for.
        width: Width of the learners' hidden layers; ``None`` keeps it.
        log_std: Log standard deviation that trained agents' actions have, on average over the actions;
            ``None`` keeps it.
        lr_hidden: Factor on the inner learning rate in all layers but the last; ``None`` keeps it.

    Returns:
        The changed dataset. Its card has no scores and no lineage.

    Raises:
        DatasetError: The change cannot be made; see `check_adapt`.
    """
    source = dataset.task
    learners = learner_distribution(dataset.card.learners)
    check_adapt(learners, source, task, width)
    columns = COLUMNS.get((source.spec.id, task.spec.id))
    changed: dict[str, Any] = {}
    if width is not None or columns is not None:
        assert isinstance(learners, MLP) and isinstance(learners.width, int)
        columns = columns or list(range(dataset.obs_shape[0]))
        new_width = width or learners.width
        changed = {name: _pick(getattr(dataset, name), columns, new) for name, new in _NEW.items()}
        changed["x"] *= _seen(learners.width, dataset.obs_shape[0]) / _seen(new_width, len(columns))
        learners = replace(learners, width=new_width)
    if log_std is not None:
        changed["log_std"] = _label(dataset, log_std)
    if lr_hidden is not None:
        if not isinstance(dataset.rule, InnerSGD):
            raise DatasetError(
                f"The inner rule {dataset.rule} has no lr_hidden to change; leave lr_hidden out."
            )
        changed["rule"] = replace(dataset.rule, lr_hidden=lr_hidden)
    card = Card(
        **described(task, task.observation_space, task.action_space),
        learners=learners.spec(),
        versions=dataset.card.versions,
    )
    return dataset.replace(**changed, card=card)


def roll_back(dataset: DistilledDataset) -> DistilledDataset:
    """Return a dataset without the last layer of its encoder, which becomes the learners'.

    Raises:
        DatasetError: There is no encoder.
    """
    if not dataset.encoder_layers:
        raise DatasetError(f"{dataset!r} has no encoder that could be rolled back.")
    left = dataset.encoder_layers - 1
    encoder = {n: p for n, p in dataset.encoder.items() if int(n.partition(".")[0]) < left}
    return dataset.replace(encoder=encoder, encoder_layers=left, card=dataset.card.replace(scores=()))


def _pick(tensor: Tensor | None, columns: list[int | None], new: float) -> Tensor | None:
    """Return some columns of a tensor, and ``new`` for those that are None."""
    if tensor is None:
        return None
    parts = [torch.full_like(tensor[..., :1], new) if c is None else tensor[..., c : c + 1] for c in columns]
    return torch.cat(parts, dim=-1)


def _seen(width: int, n_dims: int) -> float:
    """Return the part of ``|x|²`` that an orthogonal first layer keeps on average."""
    return min(1.0, width / n_dims)


def _label(dataset: DistilledDataset, log_std: float) -> Tensor:
    """Return the label that brings learners to this log standard deviation on average."""
    if dataset.log_std is None:
        raise DatasetError(f"{dataset.card.task} has discrete actions, which have no standard deviation.")
    pull = log_std_pull(dataset)
    label: Tensor = dataset.log_std + (log_std - (dataset.log_std * pull).mean()) / pull
    return label
