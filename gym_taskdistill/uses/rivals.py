"""What might do as well as distilled rows: real rows, permuted labels, other inner rules, single networks.

Each is a dataset too, so that it is trained on and tested as a distilled one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.experts import Recording
from gym_taskdistill.distill.imitation import Imitation
from gym_taskdistill.errors import TaskDistillError, import_extra
from gym_taskdistill.inner.rules import InnerRule, InnerSGD, Ridge
from gym_taskdistill.learners import MLP, LearnerDistribution, learner_distribution

#: Learning rates that are tried where rows were not learned together with one.
RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

#: Regularisations of ridge regression that are tried.
REGULARIZATIONS = (1e-4, 1e-3, 1e-2, 1e-1)

#: The inner rules that rows are tried with, by their names.
RULES = ("one-step", "ten-steps", "ridge")

#: Numbers of observations that clustering and linear regression look at.
MAX_NUMBERS = 2**25


def clustering() -> Any:
    """Return the module that clusters, so that who needs it is told before work begins.

    Raises:
        TaskDistillError: SciPy is not installed.
    """
    return import_extra("scipy.cluster.vq", "baselines", "Clusters (k-means-real)")


def candidates(dataset: DistilledDataset, rule: str) -> list[InnerRule]:
    """Return the inner rules of a name, each with another rate, the dataset's own among them if it is one."""
    own = dataset.rule
    rules: list[InnerRule]
    if rule == "ridge":
        rules = [Ridge(regularization=number) for number in REGULARIZATIONS]
        is_own = isinstance(own, Ridge)
    else:
        steps = {"one-step": 1, "ten-steps": 10}[rule]
        rules = [InnerSGD(lr=rate, steps=steps) for rate in RATES]
        is_own = isinstance(own, InnerSGD) and own.steps == steps
    return [own, *rules] if is_own else rules


def with_rule(dataset: DistilledDataset, rule: InnerRule) -> DistilledDataset:
    """Return a dataset with another inner rule, under which agents' actions have the same noise."""
    label = dataset.log_std
    if label is not None:
        pull = rule.log_std_pull(dataset.n_outputs)
        if abs(pull) > 1e-6:
            label = label * dataset.rule.log_std_pull(dataset.n_outputs) / pull
    return dataset.replace(rule=rule, log_std=label)


def permuted(dataset: DistilledDataset, recording: Recording, seed: int) -> DistilledDataset:
    """Return a dataset in which every row has another row's label."""
    order = torch.randperm(dataset.k, generator=torch.Generator().manual_seed(seed))
    labels = torch.empty_like(dataset.y)
    labels[order] = dataset.y[order.roll(1)]  # one cycle, which leaves no row its own
    return dataset.replace(y=labels)


def random_real(dataset: DistilledDataset, recording: Recording, seed: int) -> DistilledDataset:
    """Return a dataset of k random observations of a recording, with the expert's answers as labels."""
    chosen = np.random.default_rng(seed).choice(len(recording), dataset.k, replace=False)
    return real(dataset, recording, chosen)


def kmeans_real(dataset: DistilledDataset, recording: Recording, seed: int) -> DistilledDataset:
    """Return a dataset of the observations nearest to k centres of clusters, with the expert's answers."""
    kmeans2 = clustering().kmeans2
    some = _some(recording, seed)
    seen = _seen(dataset, recording.observations[some]).flatten(1).double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cluster keeps its centre, and so a row
        centres, _ = kmeans2(seen, dataset.k, minit="++", seed=np.random.default_rng(seed))
    chosen: list[int] = []
    for centre in centres:
        distances = np.square(seen - centre).sum(axis=1)
        distances[chosen] = math.inf
        chosen.append(int(distances.argmin()))
    return real(dataset, recording, some[chosen])


def real(dataset: DistilledDataset, recording: Recording, chosen: np.ndarray) -> DistilledDataset:
    """Return a dataset whose rows are some of a recording's observations, labelled by the expert."""
    targets = torch.as_tensor(recording.targets[chosen])
    space = dataset.spaces[1]
    if isinstance(space, spaces.Box):
        low, high = (torch.as_tensor(end.reshape(-1)) for end in (space.low, space.high))
        targets = targets.clamp(low, high)
    elif isinstance(space, spaces.Discrete):
        targets = targets - targets.mean(-1, keepdim=True)  # what all actions have in common says nothing
    return dataset.replace(x=_seen(dataset, recording.observations[chosen]), y=targets)


#: What rows may be, by their names.
ROWS: dict[str, Callable[[DistilledDataset, Recording, int], DistilledDataset]] = {
    "distilled": lambda dataset, recording, seed: dataset,
    "permuted": permuted,
    "random-real": random_real,
    "k-means-real": kmeans_real,
}


def linear(dataset: DistilledDataset, recording: Recording, seed: int) -> DistilledDataset:
    """Return a linear policy, by least squares on all of a recording: a network without hidden layers."""
    whole = real(_without_encoder(dataset), recording, _some(recording, seed))
    card = dataset.card.replace(learners=MLP(depth=0).spec())
    return with_rule(whole.replace(card=card), Ridge(regularization=1e-6))


def cloned(dataset: DistilledDataset, recording: Recording, seed: int, n_updates: int) -> DistilledDataset:
    """Return one network that was trained on all of a recording: behaviour cloning.

    It is imitation with every layer in the encoder, so that no layer is drawn afresh.
    """
    learners = one_network(dataset)
    n_layers = len(learners.layers(dataset.obs_shape, dataset.n_outputs))
    model = Imitation(
        dataset.task,
        learners,
        k=1,
        n_learners=1,
        learning_rates={"encoder": lambda remaining: 1e-3 * max(remaining, 0.01)},
        encoder_layers=n_layers,
        normalize=not dataset.has_images,
        pixel_statistics=2000 if dataset.has_images else 0,
        seed=seed,
        device="cpu",
    )
    model.update(recording, n_updates, progress_remaining=(1.0, 0.0))
    made = model.dataset()
    if dataset.log_std is None:
        return made
    # Nothing trains the noise of the actions: the label is it.
    return made.replace(log_std=dataset.log_std * dataset.rule.log_std_pull(dataset.n_outputs))


def one_network(dataset: DistilledDataset) -> LearnerDistribution:
    """Return what a single network is drawn from: the dataset's learners, or the paper's if those vary."""
    learners = learner_distribution(dataset.card.learners)
    try:
        learners.layers(dataset.obs_shape, dataset.n_outputs)
    except TaskDistillError:
        return MLP()
    return learners


def _without_encoder(dataset: DistilledDataset) -> DistilledDataset:
    return dataset.replace(encoder={}, encoder_layers=0)


def _seen(dataset: DistilledDataset, observations: np.ndarray) -> Tensor:
    return dataset.normalize(torch.as_tensor(observations, dtype=torch.float32))


def _some(recording: Recording, seed: int) -> np.ndarray:
    """Return which observations are looked at where all of them are too many to hold: images."""
    n = max(1, MAX_NUMBERS // math.prod(recording.observations.shape[1:]))
    if n >= len(recording):
        return np.arange(len(recording))
    return np.sort(np.random.default_rng(seed).choice(len(recording), n, replace=False))
