"""M learners as stacked tensors: a batch of networks that computes like one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners.layers import Conv2d, Layer, Linear


class Stack(Protocol):
    """Learners of one architecture, computed at once: of our own layers, or of any module."""

    @property
    def size(self) -> int:
        """M, the number of learners."""
        ...

    @property
    def params(self) -> tuple[Tensor, ...]:
        """What the inner rule trains, each ``(M, …)``; the last layer's come last."""
        ...

    @property
    def n_head(self) -> int:
        """How many of `params` belong to the last layer."""
        ...

    @property
    def has_linear_head(self) -> bool:
        """Whether the last layer is linear and its outputs are the learners'."""
        ...

    def check_linear_head(self) -> None:
        """Refuse learners without such a layer.

        Raises:
            TaskDistillError: It says what is there.
        """
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``x`` of shape ``(M, b, *in)`` to ``(M, b, *out)``."""
        ...

    def features(self, x: Tensor) -> Tensor:
        """Return what a linear last layer sees of ``x``, ``(M, b, n_features)``.

        Raises:
            TaskDistillError: The last layer is not linear.
        """
        ...

    def replace(self, params: Sequence[Tensor]) -> Stack:
        """Return the same learners with other parameters."""
        ...

    def module(self, index: int) -> nn.Sequential:
        """Export learner ``index`` as plain torch modules."""
        ...


@dataclass(frozen=True)
class LearnerStack:
    """Learners that share one sequence of layers, their parameters stacked as ``(M, …)``.

    Learners of different widths may share a stack: the narrower ones are padded with zeros. A padded
    unit outputs ``tanh(0) = relu(0) = 0``, gets a zero gradient on both sides and so stays zero through any
    number of SGD steps: padding changes nothing but the shape.

    Attributes:
        layers: The shared layers, at the padded size.
        params: Weight and bias of each layer in turn, each ``(M, …)``.
        size: M, the number of learners.
        shapes: Each learner's own (unpadded) parameter shapes, or ``None`` when nothing is padded.
    """

    layers: tuple[Layer, ...]
    params: tuple[Tensor, ...]
    size: int
    shapes: tuple[tuple[tuple[int, ...], ...], ...] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``x`` of shape ``(M, b, *in)`` to ``(M, b, *out)``."""
        for i, layer in enumerate(self.layers):
            x = layer.forward(self.params[2 * i : 2 * i + 2], x)
        return x

    def __str__(self) -> str:
        return f"{self.size} × {len(self.layers)} layers"

    @property
    def n_head(self) -> int:
        """How many of `params` belong to the last layer."""
        return min(2, len(self.params))

    @property
    def has_linear_head(self) -> bool:
        """Whether the last layer is linear and its outputs are the learners'."""
        last = self.layers[-1] if self.layers else None
        return isinstance(last, Linear) and last.activation is None

    def check_linear_head(self) -> None:
        """Refuse learners that do not end in a linear layer; see `Stack`."""
        if not self.has_linear_head:
            raise TaskDistillError("The learners do not end in a linear layer.")

    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer sees of ``x``; see `Stack.features`."""
        self.check_linear_head()
        for i, layer in enumerate(self.layers[:-1]):
            x = layer.forward(self.params[2 * i : 2 * i + 2], x)
        return x.flatten(2)

    def replace(self, params: Sequence[Tensor]) -> LearnerStack:
        """Return the same learners with other parameters."""
        return replace(self, params=tuple(params))

    def module(self, index: int) -> nn.Sequential:
        """Export learner ``index`` as a plain `torch.nn.Sequential`, padding removed."""
        params = [p[index].detach() for p in self.params]
        if self.shapes is not None:
            params = [
                p[tuple(slice(n) for n in shape)] for p, shape in zip(params, self.shapes[index], strict=True)
            ]
        modules: list[nn.Module] = []
        for i, layer in enumerate(self.layers):
            if i and isinstance(self.layers[i - 1], Conv2d) and isinstance(layer, Linear):
                modules.append(nn.Flatten())
            modules.append(layer.module(tuple(params[2 * i : 2 * i + 2])))
        return nn.Sequential(*modules)


class Learners:
    """A batch of M learners λ_φ, possibly of several architectures.

    Learners of one depth and similar width are stacked; the batch is the concatenation of its stacks.
    Immutable: training gives a new batch through `replace`.

    Args:
        stacks: The stacks, in the order of the learners.
    """

    def __init__(self, stacks: Sequence[Stack]) -> None:
        self.stacks = tuple(stacks)

    def __len__(self) -> int:
        """Number of learners, M."""
        return sum(stack.size for stack in self.stacks)

    def __repr__(self) -> str:
        return f"Learners({', '.join(map(str, self.stacks))})"

    @property
    def params(self) -> tuple[Tensor, ...]:
        """All parameters of all stacks, in order; each tensor is ``(M_stack, …)``."""
        return tuple(p for stack in self.stacks for p in stack.params)

    def replace(self, params: Sequence[Tensor]) -> Learners:
        """Return the same learners with other parameters (ordered as `params`)."""
        rest: Iterator[Tensor] = iter(params)
        return Learners([stack.replace([next(rest) for _ in stack.params]) for stack in self.stacks])

    @staticmethod
    def join(batches: Sequence[Learners]) -> Learners:
        """Put batches behind one another; if each is one stack of the same layers, they become one stack."""
        stacks = [stack for batch in batches for stack in batch.stacks]
        own = [s for s in stacks if isinstance(s, LearnerStack)]
        own = [stack for stack in own if stack.layers == own[0].layers]
        if len(own) != len(stacks) or any(stack.shapes is not None for stack in own):
            return Learners(stacks)
        params = tuple(torch.cat(column) for column in zip(*(stack.params for stack in own), strict=True))
        return Learners([LearnerStack(own[0].layers, params, sum(stack.size for stack in own))])

    def part(self, part: slice) -> Learners:
        """Return some of the layers, such as ``slice(2, None)``, with their parameters; of a single stack.

        Raises:
            ValueError: There are several stacks, whose layers do not correspond, or modules without layers.
        """
        stack = self.stacks[0]
        if len(self.stacks) != 1 or not isinstance(stack, LearnerStack):
            raise ValueError(f"{self!r} has no single stack of layers.")
        first, last, _ = part.indices(len(stack.layers))
        params = stack.params[2 * first : 2 * max(first, last)]
        return Learners([LearnerStack(stack.layers[part], params, stack.size, stack.shapes)])

    def __call__(self, x: Tensor) -> Tensor:
        """Run every learner.

        Args:
            x: ``(M, b, *in)``, one batch for each learner, or ``(1, b, *in)``, one batch shared by all.

        Returns:
            ``(M, b, *out)``.
        """
        shared = x.shape[0] == 1
        outputs, start = [], 0
        for stack in self.stacks:
            part = x.expand(stack.size, *x.shape[1:]) if shared else x[start : start + stack.size]
            outputs.append(stack(part))
            start += stack.size
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def module(self, index: int = 0) -> nn.Sequential:
        """Export learner ``index`` as a plain `torch.nn.Sequential` of its layers.

        Raises:
            IndexError: There is no such learner.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"There is no learner {index}: this batch holds {len(self)}.")
        for stack in self.stacks:
            if index < stack.size:
                return stack.module(index)
            index -= stack.size
        raise AssertionError("unreachable")


class Network(nn.Module):
    """One network of a learner family that is learned directly, such as an encoder or a critic.

    Args:
        drawn: A batch of one network, whose parameters are its start.
    """

    def __init__(self, drawn: Learners) -> None:
        super().__init__()
        self._drawn = drawn
        self.params = nn.ParameterList(p.detach().clone() for p in drawn.params)

    @property
    def learners(self) -> Learners:
        """The network with its current parameters, as a batch of one."""
        return self._drawn.replace(tuple(self.params))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` of shape ``(b, *in)`` to ``(b, *out)``."""
        return self.learners(x.unsqueeze(0)).squeeze(0)
