"""The layers a learner is made of, applied to M learners at once.

A layer is plain data (sizes and activation); its parameters live outside, stacked as ``(M, …)``, so that
one call serves a whole batch of learners and the inner step stays a pure function of the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

#: Activations a layer may end with, each with its module for export.
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class Layer(Protocol):
    """One layer of an architecture: the unit in which an encoder is rolled back (paper, section 5.1)."""

    @property
    def activation(self) -> str | None:
        """A name of `ACTIVATIONS`, or ``None`` for the output layer."""
        ...

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weight and the bias of one learner."""
        ...

    def forward(self, params: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """Apply M stacked layers to ``x`` of shape ``(M, b, *in)`` and return ``(M, b, *out)``."""
        ...

    def module(self, params: tuple[Tensor, ...]) -> nn.Module:
        """Export one learner's layer (unstacked ``params``) as a plain torch module."""
        ...


@dataclass(frozen=True)
class Linear:
    """A fully connected layer and its activation.

    Attributes:
        in_features: Size of the input.
        out_features: Size of the output.
        activation: A name of `ACTIVATIONS`, or ``None`` for a linear output.
    """

    in_features: int
    out_features: int
    activation: str | None = None

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weight ``(out, in)`` and the bias ``(out,)``, as in `torch.nn.Linear`."""
        return (self.out_features, self.in_features), (self.out_features,)

    def forward(self, params: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """Apply M stacked layers to ``x`` of shape ``(M, b, *in)``, flattened, and return ``(M, b, out)``."""
        weight, bias = params
        if x.dim() > 3:
            x = x.flatten(2)
        out = torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
        if self.activation == "tanh":
            return torch.tanh(out)
        if self.activation == "relu":
            return torch.relu(out)
        return out

    def module(self, params: tuple[Tensor, ...]) -> nn.Module:
        """Export one learner's layer (unstacked ``params``) as a plain torch module."""
        weight, bias = params
        linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        if self.activation is None:
            return linear
        return nn.Sequential(linear, ACTIVATIONS[self.activation]())
