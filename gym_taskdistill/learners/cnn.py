"""Convolutional networks: the paper's learners for Atari."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch

from gym_taskdistill.learners.distributions import LearnerDistribution, check_names, draw_params
from gym_taskdistill.learners.inits import gains
from gym_taskdistill.learners.layers import Conv2d, Layer, Linear
from gym_taskdistill.learners.learners import Learners, LearnerStack


@dataclass(frozen=True)
class CNN(LearnerDistribution):
    """Convolutional networks with a random initialisation; by default the Nature CNN (Mnih et al. 2015).

    Convolutions, one fully connected hidden layer and the output layer; five layers by default, which an
    encoder can share from the front (paper, section 5.1).

    Attributes:
        channels: Output channels of the convolutions.
        kernel_sizes: Their kernel sizes in pixels, square.
        strides: Their strides in pixels.
        hidden: Units of the fully connected layer.
        activation: A name of `ACTIVATIONS`: tanh, relu, gelu, silu, elu, leaky_relu or mish.
        init: Initialisation law of the weights, a name of `INIT_LAWS`; biases start at 0, but for
            ``"torch"``, the law of torch's own layers.
        gain: The law's σ on the hidden layers; ``None`` for √2, or 1 for ``"torch"``.
        last_gain: The law's σ on the output layer; ``None`` for 0.01, or 1 for ``"torch"``.

    Raises:
        ValueError: A value is out of range or names an unknown activation or law.
    """

    family: ClassVar[str] = "cnn"

    channels: tuple[int, ...] = (32, 64, 64)
    kernel_sizes: tuple[int, ...] = (8, 4, 3)
    strides: tuple[int, ...] = (4, 2, 1)
    hidden: int = 512
    activation: str = "relu"
    init: str = "orthogonal"
    gain: float | None = None
    last_gain: float | None = None

    def __post_init__(self) -> None:
        for name in ("channels", "kernel_sizes", "strides"):
            value = tuple(getattr(self, name))  # YAML and JSON know no tuples
            object.__setattr__(self, name, value)
            if len(value) != len(self.channels) or not all(isinstance(v, int) and v >= 1 for v in value):
                raise ValueError(
                    f"CNN {name} must hold an integer >= 1 for each of the {len(self.channels)} "
                    f"convolutions, but is {list(value)}."
                )
        if not isinstance(self.hidden, int) or self.hidden < 1:
            raise ValueError(f"CNN hidden must be an integer >= 1, but is {self.hidden!r}.")
        check_names("CNN", self.activation, self.init)
        for name, gain in zip(("gain", "last_gain"), self._gains, strict=True):
            object.__setattr__(self, name, gain)

    def layers(self, obs_shape: Sequence[int], n_outputs: int) -> tuple[Layer, ...]:
        """Return the architecture; see the base class.

        Raises:
            TaskDistillError: Observations are no images ``(channels, height, width)`` or too small.
        """
        layers: list[Layer] = []
        shape = tuple(obs_shape)
        for channels, kernel, stride in zip(self.channels, self.kernel_sizes, self.strides, strict=True):
            convolution = Conv2d(shape, channels, kernel, stride, self.activation)
            layers.append(convolution)
            shape = convolution.out_shape
        layers.append(Linear(math.prod(shape), self.hidden, self.activation))
        layers.append(Linear(self.hidden, n_outputs))
        return tuple(layers)

    def sample(
        self,
        n_learners: int,
        obs_shape: Sequence[int],
        n_outputs: int,
        generator: torch.Generator,
        part: slice = slice(None),
    ) -> Learners:
        """Draw M networks; see the base class."""
        layers = self.layers(obs_shape, n_outputs)[part]
        params = draw_params(layers, n_learners, generator, self.init, *self._gains)
        return Learners([LearnerStack(layers, params, n_learners)])

    def _usual(self) -> dict[str, Any]:
        return dict(zip(("gain", "last_gain"), gains(self.init, None, None), strict=True))

    @property
    def _gains(self) -> tuple[float, float]:
        return gains(self.init, self.gain, self.last_gain)

    def spec(self) -> dict[str, Any]:
        """Describe the family as plain data."""
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {"family": self.family, **plain}
