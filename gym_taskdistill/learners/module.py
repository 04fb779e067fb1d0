"""Learners that are modules of one's own: any function that makes a `torch.nn.Module` is a family of them."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from gym_taskdistill import trust
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners.distributions import LearnerDistribution
from gym_taskdistill.learners.learners import Learners, LearnerStack
from gym_taskdistill.learners.module_stack import ModuleStack, Skeleton, probe_of, run_eagerly

#: Makes one fresh network: ``factory(obs_space, n_outputs, **kwargs)``.
Factory = Callable[..., nn.Module]

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class ModuleFamily(LearnerDistribution):
    """Learners that a function makes: any `torch.nn.Module` from observations to outputs.

    Each call makes one fresh network; its randomness, of torch, NumPy and Python alike, is seeded from the
    generator, so that equal seeds draw equal networks. Learners of equal architecture are stacked and
    computed at once by `torch.func`. Networks are computed in eval mode: dropout is off. Batch normalisation
    is refused, since its statistics are of many batches and a learner sees one.

    Attributes:
        factory: Called as ``factory(obs_space, n_outputs, **kwargs)``, where ``obs_space`` is the `Box` of
            what learners see (normalised, without bounds). Its network maps ``(b, *obs_space.shape)`` to
            ``(b, n_outputs)``. Or its name, ``"package.module:function"``.
        kwargs: Further arguments of the function.

    Raises:
        ValueError: The factory is neither a function nor the name of one.
        TaskDistillError: It is a name that is allowed (see `trust`) and cannot be imported.

    >>> import torch
    >>> family = ModuleFamily(lambda obs_space, n_outputs: nn.Sequential(
    ...     nn.Linear(obs_space.shape[0], 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, n_outputs)))
    >>> learners = family.sample(3, (4,), 2, torch.Generator().manual_seed(0))
    >>> learners(torch.zeros(3, 5, 4)).shape
    torch.Size([3, 5, 2])
    """

    family: ClassVar[str] = "module"

    factory: Factory | str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.factory, nn.Module):
            raise ValueError(
                "factory must be a function that makes fresh networks, but is a network itself; pass its "
                "class or a function, or train the one network by dataset.train(network)."
            )
        if not isinstance(self.kwargs, Mapping):
            raise ValueError(f"kwargs must be a mapping of the function's arguments, but is {self.kwargs!r}.")
        object.__setattr__(self, "kwargs", dict(self.kwargs))
        if isinstance(self.factory, str):
            if "<" in self.factory:  # a lambda's name, or that of a function within another
                raise ValueError(
                    f'the function "{self.factory}" has no name by which it could be found again; pass the '
                    "function itself as learners=."
                )
            if not _NAME.fullmatch(self.factory):
                raise ValueError(
                    'factory must be a function or its name, "package.module:function", but is '
                    f'"{self.factory}".'
                )
            if trust.is_allowed(self.factory):
                object.__setattr__(self, "factory", self._function())
        elif not callable(self.factory):
            raise ValueError(f"factory must be a function that makes a network, but is {self.factory!r}.")
        elif _found(self.name) is self.factory:
            trust.allow(self.name)  # a card that names it later names what the user passed himself

    @property
    def name(self) -> str:
        """The function's name, ``"package.module:function"``."""
        if isinstance(self.factory, str):
            return self.factory
        module = getattr(self.factory, "__module__", type(self.factory).__module__)
        return f"{module}:{getattr(self.factory, '__qualname__', type(self.factory).__qualname__)}"

    def check(self, obs_shape: Sequence[int]) -> None:
        """Draw one network, so that what is wrong with the function shows before work begins."""
        self.sample(1, obs_shape, 2, torch.Generator().manual_seed(0))

    def max_parameters(self, obs_shape: Sequence[int], n_outputs: int) -> int:
        """Return those of one network; see the base class."""
        module, _ = self._fresh(0, probe_of(obs_shape, torch.device("cpu")), n_outputs)
        return sum(parameter.numel() for parameter in module.parameters())

    def sample(
        self,
        n_learners: int,
        obs_shape: Sequence[int],
        n_outputs: int,
        generator: torch.Generator,
        part: slice = slice(None),
    ) -> Learners:
        """Draw M networks; see the base class. They have no layers to share.

        Raises:
            TaskDistillError: The function is not trusted, fails, or makes what is no fitting network.
        """
        first, last, _ = part.indices(sys.maxsize)
        if first or not last:
            if last > first:
                self.layers(obs_shape, n_outputs)  # refuses
            return Learners([LearnerStack((), (), n_learners)])
        seeds = torch.randint(2**62, (n_learners,), generator=generator, device=generator.device).tolist()
        probe = probe_of(obs_shape, generator.device)
        groups: list[_Group] = []
        seen: list[nn.Module] = []
        for seed in seeds:
            module, outputs = self._fresh(seed, probe, n_outputs)
            if any(module is other for other in seen):
                raise TaskDistillError(
                    f"{self} returns one network again and again; make a fresh one in each call."
                )
            seen.append(module)
            if not any(group.takes(module, probe, outputs) for group in groups):
                groups.append(_Group(Skeleton.of(module, probe, outputs), [module], [outputs]))
        return Learners([group.stack(probe) for group in groups])

    def spec(self) -> dict[str, Any]:
        """Describe the family as plain data: the function by its name."""
        return {"family": self.family, "factory": self.name, "kwargs": dict(self.kwargs)}

    def __str__(self) -> str:
        """Return the function's name with its arguments."""
        arguments = "".join(f", {name}={value}" for name, value in self.kwargs.items())
        return f"module({self.name}{arguments})"

    def _function(self) -> Factory:
        if callable(self.factory):
            return self.factory
        what = "The description of the learners"
        found = trust.load(self.factory, what)
        if not callable(found):
            raise TaskDistillError(f'{what} names "{self.factory}", which is no function.')
        function: Factory = found
        return function

    def _fresh(self, seed: int, probe: Tensor, n_outputs: int) -> tuple[nn.Module, Tensor]:
        """Make one network from a seed, on the probe's device, and what it says of the probe."""
        function = self._function()
        space = spaces.Box(-np.inf, np.inf, tuple(probe.shape[1:]), np.float32)
        with _seeded(seed), torch.inference_mode(False):
            try:
                module = function(space, n_outputs, **self.kwargs)
            except Exception as error:
                raise TaskDistillError(f"{self} fails: {type(error).__name__}: {error}") from error
            if not isinstance(module, nn.Module):
                raise TaskDistillError(f"{self} must return a torch.nn.Module, but returned {module!r}.")
            module.to("cpu", torch.float32)
            outputs = run_eagerly(module, probe.cpu(), n_outputs, str(self))  # lazy layers draw their weights
        if probe.device.type == "cpu":
            return module, outputs
        module.to(probe.device)
        return module, run_eagerly(module, probe, n_outputs, str(self))


@dataclass
class _Group:
    """Networks that compute alike but for their numbers."""

    skeleton: Skeleton
    modules: list[nn.Module]
    outputs: list[Tensor]

    def takes(self, module: nn.Module, probe: Tensor, outputs: Tensor) -> bool:
        """Add a network if it is one of these."""
        if not self.skeleton.fits(module, probe, outputs):
            return False
        self.modules.append(module)
        self.outputs.append(outputs)
        return True

    def stack(self, probe: Tensor) -> ModuleStack:
        """Stack the networks; one that `torch.vmap` cannot compute is computed alone."""
        return ModuleStack.of(self.skeleton, self.modules, probe, torch.stack(self.outputs))


def _found(name: str) -> Factory | None:
    """Return the function of a name, if its module is imported and has it."""
    module, _, attributes = name.partition(":")
    found: Any = sys.modules.get(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute, None)
    return found if callable(found) else None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed what constructors draw from, and torch's defaults; afterwards all is as before."""
    python, numpy, dtype = random.getstate(), np.random.get_state(), torch.get_default_dtype()
    elsewhere = torch.get_default_device().type != "cpu"
    with torch.random.fork_rng(devices=[]), torch.device("cpu") if elsewhere else nullcontext():
        try:
            torch.set_default_dtype(torch.float32)
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
        finally:
            torch.set_default_dtype(dtype)
            random.setstate(python)
            np.random.set_state(numpy)
