"""Multi-layer perceptrons: the paper's learners for cart-pole and MuJoCo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gym_taskdistill.learners.distributions import LearnerDistribution, check_names, draw_params
from gym_taskdistill.learners.inits import gains
from gym_taskdistill.learners.layers import Layer, Linear
from gym_taskdistill.learners.learners import Learners, LearnerStack
from gym_taskdistill.learners.limits import n_parameters

#: Learners whose widths round up to the same multiple share a stack: padding is cheap, small stacks are not.
WIDTH_BUCKET = 64


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
        activation: A name of `ACTIVATIONS`: tanh, relu, gelu, silu, elu, leaky_relu or mish.
        init: Initialisation law of the weights, a name of `INIT_LAWS`; biases start at 0, but for
            ``"torch"``, the law of torch's own layers.
        gain: The law's σ on the hidden layers; ``None`` for √2, or 1 for ``"torch"``.
        last_gain: The law's σ on the output layer; ``None`` for 0.01, or 1 for ``"torch"``.
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
    gain: float | None = None
    last_gain: float | None = None
    per_batch: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            value = getattr(self, name)
            if isinstance(value, list):  # YAML and JSON know no tuples
                object.__setattr__(self, name, tuple(value))
        _as_range(self.width, "width", 1)
        _as_range(self.depth, "depth", 0)
        check_names("MLP", self.activation, self.init)
        for name, value in zip(("gain", "last_gain"), self._gains, strict=True):
            object.__setattr__(self, name, value)

    def layers(self, obs_shape: Sequence[int], n_outputs: int) -> tuple[Layer, ...]:
        """Return the architecture; see the base class."""
        (low_w, high_w), (low_d, high_d) = self._ranges()
        if low_w != high_w or low_d != high_d:
            return super().layers(obs_shape, n_outputs)
        return self._layers(obs_shape, n_outputs, low_w, low_d)

    def max_parameters(self, obs_shape: Sequence[int], n_outputs: int) -> int:
        """Return those of the widest and deepest; see the base class."""
        (_, width), (_, depth) = self._ranges()
        return n_parameters(self._layers(obs_shape, n_outputs, width, depth))

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

    def _usual(self) -> dict[str, Any]:
        return dict(zip(("gain", "last_gain"), gains(self.init, None, None), strict=True))

    @property
    def _gains(self) -> tuple[float, float]:
        return gains(self.init, self.gain, self.last_gain)

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
            params = draw_params(layers, len(widths), generator, self.init, *self._gains)
            return LearnerStack(layers, params, len(widths))
        shapes, columns = [], []
        for width in widths:
            own = self._layers(obs_shape, n_outputs, width, depth)[part]
            shapes.append(tuple(shape for layer in own for shape in layer.shapes))
            columns.append(draw_params(own, 1, generator, self.init, *self._gains))
        padded_shapes = [shape for layer in layers for shape in layer.shapes]
        params = tuple(
            torch.cat([_pad(column[i], shape) for column in columns]) for i, shape in enumerate(padded_shapes)
        )
        return LearnerStack(layers, params, len(widths), tuple(shapes))


def _pad(param: Tensor, shape: tuple[int, ...]) -> Tensor:
    padded = param.new_zeros((param.shape[0], *shape))
    padded[(slice(None), *(slice(n) for n in param.shape[1:]))] = param
    return padded
