"""Learner distributions Λ: an architecture family and an initialisation law."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.learners.inits import INIT_LAWS
from gym_taskdistill.learners.layers import ACTIVATIONS, Layer, Linear
from gym_taskdistill.learners.learners import Learners, LearnerStack

#: Learners whose widths round up to the same multiple share a stack: padding is cheap, small stacks are not.
WIDTH_BUCKET = 64


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

    def spec(self) -> dict[str, Any]:
        """Describe the distribution as plain data, for recipes and cards."""
        return {"family": "custom", "name": repr(self)}


def _as_range(value: int | Sequence[int], name: str, lowest: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    valid = len(pair) == 2 and all(isinstance(v, int) and not isinstance(v, bool) for v in pair)
    if not valid or not lowest <= pair[0] <= pair[1]:
        raise ValueError(
            f"MLP {name} must be an integer >= {lowest} or a pair (low, high) of such, but is {value!r}."
        )
    low, high = pair
    return low, high


@dataclass(frozen=True)
class MLP(LearnerDistribution):
    """Multi-layer perceptrons with a random initialisation.

    Attributes:
        width: Units in each hidden layer; a pair ``(low, high)`` draws one width per learner, uniformly.
        depth: Number of hidden layers; a pair draws one depth per learner, uniformly.
        activation: ``"tanh"`` or ``"relu"``.
        init: Initialisation law of the weights, ``"orthogonal"`` or ``"xavier_uniform"``; biases start at 0.
        gain: The law's σ on the hidden layers.
        last_gain: The law's σ on the output layer.
        per_batch: Draw one width and one depth for the whole batch instead of for each learner. A batch is
            then one stack, which is several times faster; the variety comes over the batches.

    Raises:
        ValueError: A value is out of range or names an unknown activation or law.
    """

    family: ClassVar[str] = "mlp"

    width: int | tuple[int, int] = 64
    depth: int | tuple[int, int] = 2
    activation: str = "tanh"
    init: str = "orthogonal"
    gain: float = math.sqrt(2)
    last_gain: float = 0.01
    per_batch: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            value = getattr(self, name)
            if isinstance(value, list):  # YAML and JSON know no tuples
                object.__setattr__(self, name, tuple(value))
        _as_range(self.width, "width", 1)
        _as_range(self.depth, "depth", 0)
        for name, known in (("activation", ACTIVATIONS), ("init", INIT_LAWS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(
                    f'MLP {name} "{value}" is unknown; use one of {", ".join(known)}.'
                    f"{did_you_mean(str(value), known)}"
                )

    def layers(self, obs_shape: Sequence[int], n_outputs: int) -> tuple[Layer, ...]:
        """Return the architecture; see the base class."""
        (low_w, high_w), (low_d, high_d) = self._ranges()
        if low_w != high_w or low_d != high_d:
            return super().layers(obs_shape, n_outputs)
        return self._layers(obs_shape, n_outputs, low_w, low_d)

    def sample(
        self,
        n_learners: int,
        obs_shape: Sequence[int],
        n_outputs: int,
        generator: torch.Generator,
        part: slice = slice(None),
    ) -> Learners:
        """Draw M perceptrons; see the base class."""
        widths, depths = (self._draw(low, high, n_learners, generator) for low, high in self._ranges())
        # Learners of one depth and similar width share a stack.
        groups: dict[tuple[int, int], list[int]] = {}
        for width, depth in zip(widths, depths, strict=True):
            groups.setdefault((depth, -(-width // WIDTH_BUCKET)), []).append(width)
        return Learners(
            [
                self._sample_stack(group, depth, obs_shape, n_outputs, generator, part)
                for (depth, _), group in sorted(groups.items())
            ]
        )

    def spec(self) -> dict[str, Any]:
        """Describe the family as plain data."""
        return {"family": self.family, **asdict(self)}

    def _ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return _as_range(self.width, "width", 1), _as_range(self.depth, "depth", 0)

    def _draw(self, low: int, high: int, n: int, generator: torch.Generator) -> list[int]:
        if low == high:
            return [low] * n
        n_draws = 1 if self.per_batch else n
        draws: list[int] = torch.randint(
            low, high + 1, (n_draws,), generator=generator, device=generator.device
        ).tolist()
        return draws * (n // n_draws)

    def _layers(self, obs_shape: Sequence[int], n_outputs: int, width: int, depth: int) -> tuple[Layer, ...]:
        sizes = [math.prod(obs_shape), *([width] * depth), n_outputs]
        last = len(sizes) - 2
        return tuple(
            Linear(sizes[i], sizes[i + 1], self.activation if i < last else None) for i in range(last + 1)
        )

    def _sample_stack(
        self,
        widths: list[int],
        depth: int,
        obs_shape: Sequence[int],
        n_outputs: int,
        generator: torch.Generator,
        part: slice,
    ) -> LearnerStack:
        layers = self._layers(obs_shape, n_outputs, max(widths), depth)[part]
        if len(set(widths)) == 1:
            params = self._draw_params(layers, len(widths), generator)
            return LearnerStack(layers, params, len(widths))
        shapes, columns = [], []
        for width in widths:
            own = self._layers(obs_shape, n_outputs, width, depth)[part]
            shapes.append(tuple(shape for layer in own for shape in layer.shapes))
            columns.append(self._draw_params(own, 1, generator))
        padded_shapes = [shape for layer in layers for shape in layer.shapes]
        params = tuple(
            torch.cat([_pad(column[i], shape) for column in columns]) for i, shape in enumerate(padded_shapes)
        )
        return LearnerStack(layers, params, len(widths), tuple(shapes))

    def _draw_params(
        self, layers: tuple[Layer, ...], n: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        law = INIT_LAWS[self.init]
        params: list[Tensor] = []
        for layer in layers:
            weight_shape, bias_shape = layer.shapes
            gain = self.gain if layer.activation else self.last_gain
            params.append(law((n, *weight_shape), gain, generator))
            params.append(torch.zeros((n, *bias_shape), device=generator.device))
        return tuple(params)


def _pad(param: Tensor, shape: tuple[int, ...]) -> Tensor:
    padded = param.new_zeros((param.shape[0], *shape))
    padded[(slice(None), *(slice(n) for n in param.shape[1:]))] = param
    return padded


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
        stacks: list[LearnerStack] = []
        for member, count in zip(self.members, counts, strict=True):
            if count:
                batch = member.sample(count, obs_shape, n_outputs, generator, part)
                stacks.extend(batch.stacks)
        return Learners(_merge(stacks))

    def layers(self, obs_shape: Sequence[int], n_outputs: int) -> tuple[Layer, ...]:
        """Return the members' common architecture; see the base class."""
        architectures = {member.layers(obs_shape, n_outputs) for member in self.members}
        return architectures.pop() if len(architectures) == 1 else super().layers(obs_shape, n_outputs)

    def spec(self) -> dict[str, Any]:
        """Describe the mixture as plain data."""
        return {
            "family": "mixture",
            "members": [member.spec() for member in self.members],
            "weights": list(self.weights),
        }


def _merge(stacks: list[LearnerStack]) -> list[LearnerStack]:
    """Join unpadded stacks of equal layers: one large stack is faster than two small ones."""
    merged: dict[tuple[Layer, ...], LearnerStack] = {}
    padded = []
    for stack in stacks:
        if stack.shapes is not None:
            padded.append(stack)
        elif stack.layers in merged:
            other = merged[stack.layers]
            params = tuple(torch.cat(pair) for pair in zip(other.params, stack.params, strict=True))
            merged[stack.layers] = LearnerStack(stack.layers, params, other.size + stack.size)
        else:
            merged[stack.layers] = stack
    return [*merged.values(), *padded]


#: The paper's Λ for cart-pole and MuJoCo: 64-64 tanh, orthogonal √2, last layer 0.01.
ALPHA_C = MLP()

#: The six columns of the paper's Table 1, in its order.
TABLE_1: dict[str, LearnerDistribution] = {
    "alpha_c": ALPHA_C,
    "ortho_1": MLP(gain=1.0, last_gain=1.0),
    "xavier": MLP(init="xavier_uniform"),
    "xavier_1": MLP(init="xavier_uniform", gain=1.0, last_gain=1.0),
    "random_h": MLP(width=(32, 256)),
    "random_L": MLP(depth=(1, 6)),
}

#: Distributions a recipe, a command line or `DistilledPolicy` may name.
NAMED_LEARNERS: dict[str, LearnerDistribution] = {
    **TABLE_1,
    # What the universal datasets are distilled over. One step: the initialisations of Table 1, the hard
    # ones more often; its widths and depths keep Λ's initialisation and come for free. A few steps: these
    # too, and in every batch the extremes, which are the last to be learned; what lies between follows.
    "inits": Mixture(
        tuple(TABLE_1[name] for name in ("alpha_c", "ortho_1", "xavier", "xavier_1")),
        weights=(1, 2, 2, 3),
    ),
    "universal": Mixture(
        (
            *(TABLE_1[name] for name in ("xavier", "xavier_1", "random_h", "random_L")),
            MLP(width=256),
            MLP(depth=1),
            MLP(depth=6),
        ),
        weights=(1, 1, 1, 1, 1, 2, 1),
    ),
}

_FAMILIES: dict[str, type[LearnerDistribution]] = {"mlp": MLP, "mixture": Mixture}


def register_family(name: str, family: type[LearnerDistribution]) -> None:
    """Make a family known by name, so that its `spec` (a dict with ``family: name``) can be read back.

    Args:
        name: The value of ``family`` in the spec.
        family: A class whose keyword arguments are the other entries of the spec.

    Raises:
        ValueError: The name is taken.
    """
    if name in _FAMILIES or name == "custom":
        raise ValueError(f'The learner family "{name}" exists already; choose another name.')
    _FAMILIES[name] = family


def learner_distribution(
    spec: str | Mapping[str, Any] | LearnerDistribution,
) -> LearnerDistribution:
    """Build a learner distribution from its name or its plain description.

    Args:
        spec: A name of `NAMED_LEARNERS`, a mapping as `LearnerDistribution.spec` gives it (members of a
            mixture may be names), or a distribution, which is returned as it is.

    Returns:
        The distribution.

    Raises:
        TaskDistillError: The name or the family is unknown, or its settings are wrong.

    >>> learner_distribution({"family": "mlp", "width": 64, "depth": 2}) == learner_distribution("alpha_c")
    True
    """
    if isinstance(spec, LearnerDistribution):
        return spec
    if isinstance(spec, str):
        if spec not in NAMED_LEARNERS:
            raise TaskDistillError(
                f'There are no learners named "{spec}"; known are {", ".join(NAMED_LEARNERS)}.'
                f"{did_you_mean(spec, NAMED_LEARNERS)}"
            )
        return NAMED_LEARNERS[spec]
    settings = dict(spec)
    family = settings.pop("family", None)
    if family not in _FAMILIES:
        raise TaskDistillError(
            f'The learner family "{family}" is unknown; known are {", ".join(_FAMILIES)}. '
            "Register your own with register_family, or pass learners=."
        )
    try:
        if family == "mixture" and "members" in settings:
            settings["members"] = tuple(learner_distribution(m) for m in settings["members"])
        return _FAMILIES[family](**settings)
    except (TypeError, ValueError) as error:
        raise TaskDistillError(f'The learner family "{family}" was given wrong settings: {error}') from None
