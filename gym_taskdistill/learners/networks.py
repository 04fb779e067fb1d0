"""Networks beyond plain perceptrons: normalised layers and residual blocks, for tests and searches."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn

from gym_taskdistill.learners.activations import ACTIVATIONS
from gym_taskdistill.learners.distributions import check_names
from gym_taskdistill.learners.inits import INIT_LAWS, gains


class _Residual(nn.Module):
    """A block whose input is added to its output."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def block_mlp(
    obs_space: spaces.Box,
    n_outputs: int,
    width: int = 64,
    depth: int = 2,
    activation: str = "gelu",
    norm: bool = True,
    residual: bool = False,
    init: str = "torch",
) -> nn.Module:
    """Build a perceptron of blocks; a factory of a `ModuleFamily`.

    Args:
        obs_space: What the network sees, of any shape; it is flattened.
        n_outputs: Outputs.
        width: Units in each hidden layer.
        depth: Hidden layers, at least 1.
        activation: tanh, relu, gelu, silu, elu, leaky_relu or mish.
        norm: Put a `LayerNorm` before each activation.
        residual: Add each hidden layer's input to its output, from the second on.
        init: A name of `INIT_LAWS`, with its usual gains; ``"torch"`` is torch's own initialisation.

    Returns:
        The network, from ``(b, *obs_space.shape)`` to ``(b, n_outputs)``.

    Raises:
        ValueError: The depth is below 1, or the activation or the law is unknown.

    >>> import numpy as np, torch
    >>> network = block_mlp(spaces.Box(-np.inf, np.inf, (4,)), 2, residual=True)
    >>> network(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, but is {depth}.")
    check_names("Block", activation, init)

    def layer(n_inputs: int) -> nn.Module:
        normalised = [nn.LayerNorm(width)] if norm else []
        return nn.Sequential(nn.Linear(n_inputs, width), *normalised, ACTIVATIONS[activation]())

    hidden = [layer(width) for _ in range(depth - 1)]
    network = nn.Sequential(
        nn.Flatten(),
        layer(spaces.flatdim(obs_space)),
        *(map(_Residual, hidden) if residual else hidden),
        nn.Linear(width, n_outputs),
    )
    if init != "torch":
        _draw(network, init)
    return network


def _draw(network: nn.Module, init: str) -> None:
    """Draw the weights of all linear layers by a law, from torch's own generator; biases are 0."""
    gain, last_gain = gains(init, None, None)
    linears = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for linear in linears:
            shape = (1, *linear.weight.shape)
            of_layer = last_gain if linear is linears[-1] else gain
            linear.weight.copy_(INIT_LAWS[init](shape, of_layer, torch.default_generator)[0])
            linear.bias.zero_()
