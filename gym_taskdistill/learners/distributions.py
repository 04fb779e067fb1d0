"""Learner distributions Λ: what a family of networks must offer, and mixtures of families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.learners.activations import ACTIVATIONS
from gym_taskdistill.learners.inits import INIT_LAWS, draw_bias
from gym_taskdistill.learners.layers import Layer
from gym_taskdistill.learners.learners import Learners, LearnerStack, Stack
from gym_taskdistill.learners.limits import n_parameters


class LearnerDistribution(ABC):
    """A distribution Λ over learners.

    To bring your own family, subclass it and write `sample`; give it a `spec` and register it with
    `register_family` if datasets distilled over it should find it again by themselves.
    """

    @abstractmethod
    def sample(
        self,
        n_learners: int,
        obs_shape: Sequence[int],
        n_outputs: int,
        generator: torch.Generator,
        part: slice = slice(None),
    ) -> Learners:
        """Draw a batch of fresh learners.

        Args:
            n_learners: M, how many.
            obs_shape: Shape of one observation.
            n_outputs: Number of outputs: actions of a `Discrete` space, dimensions of a `Box`.
            generator: Source of all randomness; parameters are made on its device.
            part: Which of the layers ``[0, L)`` to draw: an encoder holds ``slice(0, l)``, its learners
                ``slice(l, None)``.

        Returns:
            M learners.
        """

    def layers(self, obs_shape: Sequence[int], n_outputs: int) -> tuple[Layer, ...]:
        """Return the architecture ``[0, L)``, for families that have a single one.

        Raises:
            TaskDistillError: The family varies its architecture, so that no layer can be shared.
        """
        raise TaskDistillError(
            f"{self!r} has no single architecture, so it cannot share an encoder; use encoder_layers=0."
        )

    def check_encoder(self, encoder_layers: int, obs_shape: Sequence[int]) -> None:
        """Refuse an encoder that is longer than the architecture.

        Raises:
            TaskDistillError: It is, or there is no single architecture to share.
        """
        n_layers = len(self.layers(obs_shape, 1)) if encoder_layers else 0
        if not 0 <= encoder_layers <= n_layers:
            raise TaskDistillError(
                f"encoder_layers={encoder_layers}, but the architecture has only {n_layers} layers."
            )

    def check(self, obs_shape: Sequence[int]) -> None:  # noqa: B027  (there may be nothing to check)
        """Refuse what would fail at the first draw, for families where that can be.

        Raises:
            TaskDistillError: No learner can be drawn for such observations.
        """

    def max_parameters(self, obs_shape: Sequence[int], n_outputs: int) -> int:
        """Return the most parameters that a learner may have; 0 where only drawing one would tell.

        Raises:
            TaskDistillError: They are more than any machine should be asked for.
        """
        try:
            layers = self.layers(obs_shape, n_outputs)
        except TaskDistillError:
            return 0
        return n_parameters(layers)

    def spec(self) -> dict[str, Any]:
        """Describe the distribution as plain data, for recipes and cards."""
        return {"family": "custom", "name": repr(self)}

    def __str__(self) -> str:
        """Return the family with the settings that are not its defaults, such as ``mlp(width=256)``."""
        whole: Any = self
        if not is_dataclass(whole):
            return repr(self)
        usual = {f.name: f.default for f in fields(whole)} | self._usual()
        unusual = [f"{name}={v}" for name in usual if (v := getattr(whole, name)) != usual[name]]
        return f"{self.spec()['family']}({', '.join(unusual)})"

    def _usual(self) -> dict[str, Any]:
        """Return defaults that follow from other settings, which `__str__` leaves out too."""
        return {}


def draw_params(
    layers: tuple[Layer, ...], n: int, generator: torch.Generator, init: str, gain: float, last_gain: float
) -> tuple[Tensor, ...]:
    """Draw the parameters of n networks, stacked, by an initialisation law.

    Args:
        layers: The architecture, or a part of it.
        n: How many networks.
        generator: Source of randomness; parameters are made on its device.
        init: A name of `INIT_LAWS`.
        gain: The law's σ on layers with an activation.
        last_gain: The law's σ on the output layer.

    Returns:
        Weight and bias of each layer in turn, each ``(n, …)``.
    """
    law = INIT_LAWS[init]
    params: list[Tensor] = []
    for layer in layers:
        weight_shape, _ = layer.shapes
        factor = gain if layer.activation else last_gain
        params.append(law((n, *weight_shape), factor, generator))
        params.append(draw_bias(init, n, weight_shape, factor, generator))
    return tuple(params)


def check_names(family: str, activation: str, init: str) -> None:
    """Refuse an unknown activation or initialisation law.

    Raises:
        ValueError: It names what is known.
    """
    for name, value, known in (("activation", activation, ACTIVATIONS), ("init", init, INIT_LAWS)):
        if value not in known:
            raise ValueError(
                f'{family} {name} "{value}" is unknown; use one of {", ".join(known)}.'
                f"{did_you_mean(str(value), known)}"
            )


@dataclass(frozen=True)
class Mixture(LearnerDistribution):
    """A mixture of learner distributions, each with its share of every batch.

    A batch of M learners holds ``weight * (M // total)`` of each member; the remainder goes to members
    drawn without replacement: each has its share on average, with less variance than independent draws.

    Attributes:
        members: The distributions.
        weights: Their shares, positive integers; empty for equal shares.

    Raises:
        ValueError: There is no member, or the weights do not fit the members.
    """

    members: tuple[LearnerDistribution, ...] = ()
    weights: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("A mixture of learners needs at least one member.")
        weights = tuple(self.weights) or (1,) * len(self.members)
        if len(weights) != len(self.members) or not all(
            isinstance(weight, int) and weight >= 1 for weight in weights
        ):
            raise ValueError(
                f"A mixture needs one positive integer weight for each of its {len(self.members)} "
                f"members, but has {list(self.weights)}."
            )
        object.__setattr__(self, "weights", weights)

    def sample(
        self,
        n_learners: int,
        obs_shape: Sequence[int],
        n_outputs: int,
        generator: torch.Generator,
        part: slice = slice(None),
    ) -> Learners:
        """Draw M learners, of each member its share; see the base class."""
        slots = [i for i, weight in enumerate(self.weights) for _ in range(weight)]
        counts = [weight * (n_learners // len(slots)) for weight in self.weights]
        order = torch.randperm(len(slots), generator=generator, device=generator.device).tolist()
        for slot in order[: n_learners % len(slots)]:
            counts[slots[slot]] += 1
        stacks: list[Stack] = []
        for member, count in zip(self.members, counts, strict=True):
            if count:
                batch = member.sample(count, obs_shape, n_outputs, generator, part)
                stacks.extend(batch.stacks)
        return Learners(_merge(stacks))

    def check(self, obs_shape: Sequence[int]) -> None:
        """Check every member; see the base class."""
        for member in self.members:
            member.check(obs_shape)

    def layers(self, obs_shape: Sequence[int], n_outputs: int) -> tuple[Layer, ...]:
        """Return the members' common architecture; see the base class."""
        architectures = {member.layers(obs_shape, n_outputs) for member in self.members}
        return architectures.pop() if len(architectures) == 1 else super().layers(obs_shape, n_outputs)

    def max_parameters(self, obs_shape: Sequence[int], n_outputs: int) -> int:
        """Return the most of any member; see the base class."""
        return max(member.max_parameters(obs_shape, n_outputs) for member in self.members)

    def spec(self) -> dict[str, Any]:
        """Describe the mixture as plain data."""
        return {
            "family": "mixture",
            "members": [member.spec() for member in self.members],
            "weights": list(self.weights),
        }


def _merge(stacks: list[Stack]) -> list[Stack]:
    """Join unpadded stacks of equal layers: one large stack is faster than two small ones."""
    merged: dict[tuple[Layer, ...], LearnerStack] = {}
    others: list[Stack] = []
    for stack in stacks:
        if not isinstance(stack, LearnerStack) or stack.shapes is not None:
            others.append(stack)
        elif stack.layers in merged:
            other = merged[stack.layers]
            params = tuple(torch.cat(pair) for pair in zip(other.params, stack.params, strict=True))
            merged[stack.layers] = LearnerStack(stack.layers, params, other.size + stack.size)
        else:
            merged[stack.layers] = stack
    return [*merged.values(), *others]
