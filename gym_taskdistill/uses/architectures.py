"""Architectures of learners, and the space of those that a search looks at."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from gymnasium import spaces
from pydantic import AfterValidator, Field
from torch import nn
from typing_extensions import Self

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import MLP, LearnerDistribution, ModuleFamily
from gym_taskdistill.learners.activations import ACTIVATIONS
from gym_taskdistill.learners.inits import INIT_LAWS
from gym_taskdistill.learners.networks import block_mlp
from gym_taskdistill.schema import Schema, read_yaml

#: Combinations of choices that are looked through; of a larger space one never sees the whole.
MAX_COMBINATIONS = 100_000


def _one_of(known: Sequence[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return name

    return AfterValidator(check)


Width = Annotated[int, Field(ge=1, le=2**16)]
Depth = Annotated[int, Field(ge=1, le=100)]
Activation = Annotated[str, _one_of(tuple(ACTIVATIONS))]
Init = Annotated[str, _one_of(tuple(INIT_LAWS))]


class Architecture(Schema):
    """A perceptron: what its fresh networks are drawn from.

    Attributes:
        width: Units in each hidden layer.
        depth: Hidden layers.
        activation: A name of `ACTIVATIONS`.
        init: Law of the weights, a name of `INIT_LAWS`, with its usual gains.
        layer_norm: Normalise what each activation sees.
        residual: Add each hidden layer's input to its output, from the second on.
    """

    label: ClassVar[str] = "architecture"

    width: Width = 64
    depth: Depth = 2
    activation: Activation = "tanh"
    init: Init = "orthogonal"
    layer_norm: bool = False
    residual: bool = False

    @property
    def name(self) -> str:
        """All that it is, as text that a file may be named by.

        >>> Architecture(width=32, activation="relu", residual=True).name
        '32x2,relu,orthogonal,residual'
        """
        switches = [name for name in ("layer_norm", "residual") if getattr(self, name)]
        return ",".join([f"{self.width}x{self.depth}", self.activation, self.init, *switches])

    @property
    def learners(self) -> LearnerDistribution:
        """The distribution of its fresh networks."""
        if not self.layer_norm and not self.residual:  # the same networks, several times faster
            return MLP(self.width, self.depth, self.activation, self.init)
        return ModuleFamily(block_mlp, self._blocks)

    def network(self, obs_space: spaces.Box, n_outputs: int) -> nn.Module:
        """Make one fresh network, ``(b, *obs_space.shape)`` to ``(b, n_outputs)``, from torch's generator."""
        return block_mlp(obs_space, n_outputs, **self._blocks)

    def n_parameters(self, obs_shape: Sequence[int], n_outputs: int) -> int:
        """Return how many parameters a network has.

        Raises:
            TaskDistillError: They are more than any machine should be asked for.
        """
        plain = MLP(self.width, self.depth).max_parameters(obs_shape, n_outputs)
        return plain + (2 * self.width * self.depth if self.layer_norm else 0)

    @property
    def _blocks(self) -> dict[str, Any]:
        settings = self.to_dict()
        settings["norm"] = settings.pop("layer_norm")
        return settings


class SearchSpace(Schema):
    """Choices for each setting of an `Architecture`; the space is every combination.

    A residual network of one hidden layer is one without, and does not count twice.

    Attributes:
        width: Choices of the width, at least one; likewise for the other settings.
        depth: Choices of the depth.
        activation: Choices of the activation.
        init: Choices of the law of the weights.
        layer_norm: Whether layers are normalised: ``[false, true]`` tries both.
        residual: Whether layers are residual, likewise.

    >>> len(SearchSpace(width=[32, 64], depth=[1, 2], residual=[False, True]).architectures())
    24
    """

    label: ClassVar[str] = "space"

    width: Annotated[tuple[Width, ...], Field(min_length=1)] = (32, 64, 256)
    depth: Annotated[tuple[Depth, ...], Field(min_length=1)] = (1, 2, 4)
    activation: Annotated[tuple[Activation, ...], Field(min_length=1)] = ("tanh", "relu")
    init: Annotated[tuple[Init, ...], Field(min_length=1)] = ("orthogonal", "torch")
    layer_norm: Annotated[tuple[bool, ...], Field(min_length=1)] = (False,)
    residual: Annotated[tuple[bool, ...], Field(min_length=1)] = (False,)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a space from a YAML file.

        Raises:
            TaskDistillError: It cannot be read, or a choice is unknown or out of its range.
        """
        return cls.read(read_yaml(path, f'The space "{path}"'), str(path))

    @property
    def choices(self) -> dict[str, list[Any]]:
        """The choices of each setting, each once, in the order of the fields."""
        return {name: list(dict.fromkeys(getattr(self, name))) for name in type(self).model_fields}

    def architectures(self, n: int | None = None, seed: int = 0) -> list[Architecture]:
        """Return the architectures of the space.

        Args:
            n: Draw so many without replacement; ``None`` for all, and all if there are no more.
            seed: Seed of the draw.

        Raises:
            TaskDistillError: The space has more combinations than are looked through, or n is below 1.
        """
        if n is not None and n < 1:
            raise TaskDistillError(f"A search needs at least 1 trial, not {n}.")
        size = math.prod(map(len, self.choices.values()))
        if size > MAX_COMBINATIONS:
            raise TaskDistillError(
                f"The space has {size:,} combinations, but {MAX_COMBINATIONS:,} are the most; leave some "
                "choices out."
            )
        found = [
            dict(zip(self.choices, one, strict=True)) for one in itertools.product(*self.choices.values())
        ]
        found = [one for one in found if self._counts(one)]
        if n is not None and n < len(found):
            random.Random(seed).shuffle(found)  # whose first few are among the first few more
            found = found[:n]
        return [Architecture(**one) for one in found]

    def _counts(self, settings: dict[str, Any]) -> bool:
        """Tell a combination from one that makes the same networks and is counted in its place."""
        return not settings["residual"] or settings["depth"] > 1 or False not in self.residual
