"""Learners that have taken their inner step and act: λ trained on T_d."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.encoder import encode, encoder_state, load_encoder
from gym_taskdistill.dataset.training import check_trained, log_std_pull
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerRule
from gym_taskdistill.learners import (
    LearnerDistribution,
    Learners,
    LearnerStack,
    learner_distribution,
)
from gym_taskdistill.learners.module_stack import ModuleStack
from gym_taskdistill.machine import single_precision
from gym_taskdistill.policies.action_distributions import (
    ActionDistribution,
    Head,
    by_log_std,
    head,
)

__all__ = [
    "TrainedLearners",
    "encode",
    "encoder_state",
    "load_encoder",
    "network_as_trained",
    "train_fresh_learners",
    "train_learners",
]


@dataclass(frozen=True)
class TrainedLearners:
    """M learners after Train(λ, X, Y), with the encoder before them.

    Attributes:
        learners: The trained layers ``[l, L)``.
        encoder: The shared layers ``[0, l)``, a batch of one network (without layers when l = 0).
        log_std: Log standard deviations, ``(M, n_outputs)`` or ``(1, n_outputs)``; ``None`` if actions are
            discrete.
        head: Makes action distributions of their outputs.
    """

    learners: Learners
    encoder: Learners
    log_std: Tensor | None
    head: Head = by_log_std

    def action_distribution(self, obs: Tensor) -> ActionDistribution:
        """Return each learner's policy at its own observations.

        Args:
            obs: Normalised observations, ``(M, b, *obs_shape)``.

        Returns:
            A distribution of batch shape ``(M, b)``.
        """
        return self.act(obs)

    def module(self, index: int = 0) -> nn.Sequential:
        """Export learner ``index``, with the encoder before it, as a plain `torch.nn.Sequential`.

        Raises:
            IndexError: There is no such learner.
        """
        if not self.encoder.params:
            return self.learners.module(index)
        (encoder,), (stack,) = self.encoder.stacks, self.learners.stacks
        if not isinstance(encoder, LearnerStack) or not isinstance(stack, LearnerStack):
            return nn.Sequential(*self.encoder.module(0), *self.learners.module(index))
        if not 0 <= index < stack.size:
            raise IndexError(f"There is no learner {index}: this batch holds {stack.size}.")
        params = (*encoder.params, *(p[index : index + 1] for p in stack.params))
        return LearnerStack(encoder.layers + stack.layers, params, 1).module(0)

    def act(self, features: Tensor, layer: int = 0) -> ActionDistribution:
        """Return each learner's policy at features that the encoder has computed already.

        Args:
            features: Outputs of the encoder's layers ``[0, layer)``, ``(M, b, *features)``.
            layer: How many of its layers that is.

        Returns:
            A distribution of batch shape ``(M, b)``.
        """
        return self.head(*self.outputs(features, layer))

    def outputs(self, features: Tensor, layer: int = 0) -> tuple[Tensor, Tensor | None]:
        """Return what `act` makes policies of.

        Args:
            features: As for `act`.
            layer: Likewise.

        Returns:
            Outputs, ``(M, b, n_outputs)``, and log standard deviations that broadcast to them, or ``None``.
        """
        if self.encoder.params:
            features = encode(self.encoder.part(slice(layer, None)), features)
        return self.learners(features), None if self.log_std is None else self.log_std.unsqueeze(1)


def train_learners(
    fresh: Learners,
    encoder: Learners,
    x: Tensor,
    y: Tensor,
    rule: InnerRule,
    *,
    log_std_label: Tensor | None = None,
    create_graph: bool = False,
    head: Head = by_log_std,
) -> TrainedLearners:
    """Train learners on a synthetic batch behind an encoder (Algorithm 2, lines 3 and 4).

    Args:
        fresh: M fresh learners, the layers ``[l, L)``.
        encoder: The layers ``[0, l)``, a batch of one network.
        x: Synthetic rows, ``(k, *obs_shape)``, encoded like observations.
        y: Soft labels, ``(k, n_outputs)``.
        rule: How each learner is trained.
        log_std_label: Label of the log standard deviation, ``(n_outputs,)``; ``None`` for discrete actions.
        create_graph: Keep the graph back to the rows, the labels, the rule's learned rates and the encoder.
        head: Makes action distributions of the learners' outputs.

    Returns:
        The trained learners. With l = L nothing is left to train: they are the encoder, and the label itself
        is the log standard deviation, as in SB3's PPO.
    """
    if not fresh.params:
        log_std = None if log_std_label is None else log_std_label.unsqueeze(0)
        return TrainedLearners(fresh, encoder, log_std, head)
    with torch.set_grad_enabled(create_graph):
        rows = encode(encoder, x.unsqueeze(0)).squeeze(0)
    # A fresh learner's log-std is 0.
    log_std = None if log_std_label is None else y.new_zeros(len(fresh), y.shape[1])
    learners, log_std = rule.train(
        fresh, rows, y, log_std=log_std, log_std_label=log_std_label, create_graph=create_graph
    )
    return TrainedLearners(learners, encoder, log_std, head)


@single_precision()
def train_fresh_learners(
    dataset: DistilledDataset,
    n_learners: int,
    generator: torch.Generator,
    learners: LearnerDistribution | None = None,
) -> TrainedLearners:
    """Sample fresh learners and train each on a dataset: k-shot learning (paper, section 4.1).

    Args:
        dataset: What to train on; its rule says how.
        n_learners: M, how many.
        generator: Source of the initialisations, on the dataset's device.
        learners: Another learner distribution than the one the dataset was distilled over.

    Returns:
        The M trained learners, ready to act on normalised observations.

    Raises:
        DatasetError: The learners do not fit the dataset's encoder, or training left them with numbers that
            are not finite.
        TaskDistillError: A learner has more parameters than any machine should be asked for.
    """
    distribution = learners or learner_distribution(dataset.card.learners)
    n_layers = dataset.encoder_layers
    distribution.max_parameters(dataset.obs_shape, dataset.n_outputs)  # refuses giants
    fresh = distribution.sample(
        n_learners, dataset.obs_shape, dataset.n_outputs, generator, slice(n_layers, None)
    )
    encoder = load_encoder(dataset, distribution)
    trained = train_learners(
        fresh,
        encoder,
        dataset.x,
        dataset.y,
        dataset.rule,
        log_std_label=dataset.log_std,
        head=head(dataset.spaces[1]),
    )
    with torch.no_grad():
        rows = encode(encoder, dataset.x.unsqueeze(0)).squeeze(0)
    check_trained(dataset, trained.learners, rows)
    return trained


def network_as_trained(dataset: DistilledDataset, network: nn.Module) -> TrainedLearners:
    """Return a network that `DistilledDataset.train` has trained as a batch of one learner, to let it act.

    Args:
        dataset: What it was trained on.
        network: The network, in float32 on the dataset's device; the learner goes on to use its parameters.

    Raises:
        TaskDistillError: It does not fit the dataset, or is of another dtype or on another device.
        DatasetError: Its weights are not finite.
    """
    encoder = load_encoder(dataset, learner_distribution(dataset.card.learners))
    with torch.no_grad():
        rows = encode(encoder, dataset.x.unsqueeze(0)).squeeze(0)
    other = [t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]
    if any(t.dtype != rows.dtype or t.device != rows.device for t in other):
        raise TaskDistillError(
            f"The network {type(network).__name__} must be of float32 on {rows.device}, as the dataset is: "
            f'network.to("{rows.device}", torch.float32).'
        )
    learners = Learners([ModuleStack.of_one(network, rows, dataset.n_outputs)])
    check_trained(dataset, learners, rows)
    log_std = dataset.log_std
    if log_std is not None:
        log_std = (log_std * log_std_pull(dataset)).unsqueeze(0)
    return TrainedLearners(
        learners,
        encoder,
        log_std,
        head(dataset.spaces[1]),
    )
