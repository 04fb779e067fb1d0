"""The layers a learner is made of, applied to M learners at once.

A layer is plain data (sizes and activation); its parameters live outside, stacked as ``(M, …)``, so that
one call serves a whole batch of learners and the inner step stays a pure function of the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners.activations import ACTIVATIONS, activate_

#: Numbers of so many bytes, to move several small ones at once.
_WORDS = {4: torch.int32, 8: torch.int64, 16: torch.complex128}


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
        if len(weight) == 1:  # one network's product takes its bias along
            out = nn.functional.linear(x.squeeze(0), weight.squeeze(0), bias.squeeze(0))
            return activate_(out, self.activation).unsqueeze(0)
        return activate_(torch.baddbmm(bias.unsqueeze(1), x, weight.mT), self.activation)

    def module(self, params: tuple[Tensor, ...]) -> nn.Module:
        """Export one learner's layer (unstacked ``params``) as a plain torch module."""
        weight, bias = params
        linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
        return _export(linear, weight, bias, self.activation)


@dataclass(frozen=True)
class Conv2d:
    """A convolution without padding, and its activation.

    Attributes:
        in_shape: Shape ``(channels, height, width)`` of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel, in pixels.
        stride: Stride in both directions, in pixels.
        activation: A name of `ACTIVATIONS`, or ``None`` for a linear output.

    Raises:
        TaskDistillError: The input is no image, or smaller than the kernel.
    """

    in_shape: tuple[int, ...]
    out_channels: int
    kernel_size: int
    stride: int
    activation: str | None = None

    def __post_init__(self) -> None:
        if len(self.in_shape) != 3:
            raise TaskDistillError(
                f"A convolution needs images (channels, height, width), but observations have shape "
                f"{tuple(self.in_shape)}; use learners of the mlp family."
            )
        if min(self.in_shape[1:]) < self.kernel_size:
            raise TaskDistillError(
                f"Images of {self.in_shape[1]} x {self.in_shape[2]} pixels are smaller than the "
                f"convolution's kernel of {self.kernel_size} x {self.kernel_size}."
            )

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """Shape ``(channels, height, width)`` of the output."""
        height, width = ((size - self.kernel_size) // self.stride + 1 for size in self.in_shape[1:])
        return self.out_channels, height, width

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weight ``(out, in, kernel, kernel)`` and the bias, as in `torch.nn.Conv2d`."""
        kernel = (self.kernel_size, self.kernel_size)
        return (self.out_channels, self.in_shape[0], *kernel), (self.out_channels,)

    def forward(self, params: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """Apply M stacked convolutions to ``x``, ``(M, b, C, H, W)``; returns ``(M, b, *out_shape)``."""
        weight, bias = params
        n = weight.shape[0]
        if n == 1:
            out = self._forward_blocks(weight[0], bias[0], x[0])
            if out is not None:
                return activate_(out, self.activation).unsqueeze(0)
        shared = n == 1 or x.stride(0) == 0
        # Learners become channels: side by side on images that all of them share, else in groups.
        images = x[0] if shared else x.transpose(0, 1).flatten(1, 2)
        out = torch.conv2d(
            images, weight.flatten(0, 1), bias.flatten(), stride=self.stride, groups=1 if shared else n
        )
        return activate_(out, self.activation).unflatten(1, (n, -1)).transpose(0, 1)

    def _forward_blocks(self, weight: Tensor, bias: Tensor, images: Tensor) -> Tensor | None:
        """Convolve blocks of stride x stride pixels as if each were one pixel of many channels.

        That is the same convolution. Few channels are what a CPU's kernels are slow at, above all at the
        gradient of the weights, and a first layer has few.

        Returns:
            The outputs, or ``None`` where the images cannot be cut so or are to be differentiated.
        """
        s = self.stride
        word = _WORDS.get(images.element_size() * s)
        sides = (*self.in_shape[1:], self.kernel_size)
        if s == 1 or any(side % s for side in sides) or images.requires_grad or word is None:
            return None
        images = images.contiguous()
        if images.device.type != "cpu" or images.storage_offset() % s:
            return None
        channels, height, width = self.in_shape
        # A block's row is moved as one word.
        rows = images.view(word).view(-1, channels, height // s, s, width // s)
        blocks = rows.permute(0, 2, 4, 1, 3).contiguous().flatten(3).view(images.dtype).permute(0, 3, 1, 2)
        q = self.kernel_size // s
        kernels = (
            weight.view(-1, channels, q, s, q, s)
            .permute(0, 1, 3, 5, 2, 4)
            .reshape(-1, channels * s * s, q, q)
        )
        return torch.conv2d(blocks, kernels, bias)

    def module(self, params: tuple[Tensor, ...]) -> nn.Module:
        """Export one learner's layer (unstacked ``params``) as a plain torch module."""
        weight, bias = params
        convolution = nn.Conv2d(
            weight.shape[1], weight.shape[0], self.kernel_size, self.stride, device=weight.device
        )
        return _export(convolution, weight, bias, self.activation)


def _export(module: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor, activation: str | None) -> nn.Module:
    """Fill in a module's parameters and add the activation."""
    with torch.no_grad():
        module.weight.copy_(weight)
        assert module.bias is not None
        module.bias.copy_(bias)
    return module if activation is None else nn.Sequential(module, ACTIVATIONS[activation]())
