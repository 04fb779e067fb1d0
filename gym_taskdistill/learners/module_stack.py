"""M modules of one architecture, computed at once by `torch.func`."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import UninitializedParameter

from gym_taskdistill.errors import TaskDistillError


@dataclass(frozen=True, eq=False)
class Skeleton:
    """What modules of one architecture share: all but their numbers.

    Attributes:
        module: One of them, in eval mode.
        trained: Names of the parameters that are trained, those of the last layer at the end.
        fixed: Names of buffers, and of parameters that are frozen.
        n_head: How many of ``trained`` belong to the last layer.
        body: The module without its last layer, where that is linear and its outputs are the module's.
    """

    module: nn.Module
    trained: tuple[str, ...]
    fixed: tuple[str, ...]
    n_head: int
    body: nn.Module | None

    @classmethod
    def of(cls, module: nn.Module, probe: Tensor, outputs: Tensor) -> Skeleton:
        """Find out how a module is built, from what it does with a probe ``(b, *in)``."""
        name = _last_layer(module, probe)
        own = set() if name is None else {id(p) for p in module.get_submodule(name).parameters(recurse=False)}
        params = dict(module.named_parameters())
        trained = [n for n, p in params.items() if p.requires_grad and id(p) not in own]
        head = [n for n, p in params.items() if p.requires_grad and id(p) in own]
        fixed = [n for n, p in params.items() if not p.requires_grad] + [n for n, _ in module.named_buffers()]
        if not trained + head:
            raise TaskDistillError(f"{type(module).__name__} has no parameters that could be trained.")
        body = None if name is None else _body(module, name, head, probe)
        return cls(module, (*trained, *head), tuple(fixed), len(head), body)

    def numbers(self, module: nn.Module) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return a module's trained and its fixed tensors, which it goes on to use."""
        own = dict(module.named_parameters()) | dict(module.named_buffers())
        trained, fixed = (tuple(own[n].detach() for n in names) for names in (self.trained, self.fixed))
        return trained, fixed

    def fits(self, module: nn.Module, probe: Tensor, outputs: Tensor) -> bool:
        """Tell whether a module computes as this one would with the other's numbers."""
        shapes = {n: p.shape for n, p in module.named_parameters()}
        own = {n: p.shape for n, p in self.module.named_parameters()}
        buffers = {n: b.shape for n, b in module.named_buffers()}
        if shapes != own or buffers != {n: b.shape for n, b in self.module.named_buffers()}:
            return False
        if repr(module) != repr(self.module):
            return False
        with torch.no_grad():
            return _same(self(*self.numbers(module), probe), outputs)

    def __call__(self, trained: Sequence[Tensor], fixed: Sequence[Tensor], x: Tensor) -> Tensor:
        """Compute one module, ``(b, *in)`` to ``(b, *out)``."""
        return self._call(self.module, self.trained, trained, fixed, x)

    def check_linear_head(self) -> nn.Module:
        """Return the module without its last layer; refuse one that does not end in a linear layer.

        Raises:
            TaskDistillError: It does not.
        """
        if self.body is None:
            raise TaskDistillError(
                f"{type(self.module).__name__} does not end in an nn.Linear whose outputs are its own; the "
                "inner rule needs one that is trained, shares its weight with no layer, and is followed by "
                "nothing."
            )
        return self.body

    def features(self, trained: Sequence[Tensor], fixed: Sequence[Tensor], x: Tensor) -> Tensor:
        """Compute what one module's linear last layer sees, ``(b, n_features)``."""
        body = self.check_linear_head()
        hidden = self.trained[: len(self.trained) - self.n_head]
        return self._call(body, hidden, trained[: len(hidden)], fixed, x)

    def _call(
        self,
        module: nn.Module,
        names: Sequence[str],
        trained: Sequence[Tensor],
        fixed: Sequence[Tensor],
        x: Tensor,
    ) -> Tensor:
        numbers = dict(zip(names, trained, strict=True)) | dict(zip(self.fixed, fixed, strict=True))
        with differentiable_attention():
            return functional_call(module, numbers, (x,))


@dataclass(frozen=True, eq=False)
class ModuleStack:
    """Modules of one architecture, their parameters stacked as ``(M, …)``.

    Attributes:
        skeleton: What they share.
        params: What is trained, each ``(M, …)``, those of the last layer at the end.
        fixed: Buffers and frozen parameters, each ``(M, …)``.
        vectorised: Compute them by `torch.vmap`; else one after another.
    """

    skeleton: Skeleton
    params: tuple[Tensor, ...]
    fixed: tuple[Tensor, ...]
    vectorised: bool

    @classmethod
    def of(
        cls, skeleton: Skeleton, modules: Sequence[nn.Module], probe: Tensor, outputs: Tensor
    ) -> ModuleStack:
        """Stack modules of one architecture.

        Args:
            skeleton: What they share.
            modules: The modules.
            probe: An input ``(b, *in)``.
            outputs: What they say of it, ``(M, b, *out)``.
        """
        trained, fixed = zip(*map(skeleton.numbers, modules), strict=True)
        params, others = (
            tuple(torch.stack(each) for each in zip(*numbers, strict=True)) for numbers in (trained, fixed)
        )
        stack = cls(skeleton, params, others, vectorised=True)
        try:
            with torch.no_grad():
                fits = stack.size == 1 or _same(stack(probe.expand(stack.size, *probe.shape)), outputs)
        except (RuntimeError, NotImplementedError):  # what depends on values has no batched form
            fits = False
        return stack if fits else replace(stack, vectorised=False)

    @classmethod
    def of_one(cls, network: nn.Module, x: Tensor, n_outputs: int) -> ModuleStack:
        """Make a stack of one network, which keeps its mode; the stack's parameters are views of its own.

        Args:
            network: The network.
            x: Inputs ``(b, *in)`` of its dtype, on its device.
            n_outputs: How many outputs it must have.

        Raises:
            TaskDistillError: It cannot be a learner.
        """
        source = f"The network {type(network).__name__}"
        if any(isinstance(p, UninitializedParameter) for p in network.parameters()):
            run_eagerly(network, x, n_outputs, source)  # lazy layers draw their weights
        module = copy.deepcopy(network)
        outputs = run_eagerly(module, x, n_outputs, source)
        skeleton = Skeleton.of(module, x, outputs)
        params, fixed = ([t.unsqueeze(0) for t in numbers] for numbers in skeleton.numbers(network))
        return cls(skeleton, tuple(params), tuple(fixed), vectorised=True)

    @property
    def size(self) -> int:
        """M, the number of learners."""
        return len(self.params[0])

    @property
    def n_head(self) -> int:
        """How many of `params` belong to the last layer."""
        return self.skeleton.n_head

    @property
    def has_linear_head(self) -> bool:
        """Whether the last layer is linear and its outputs are the learners'."""
        return self.skeleton.body is not None

    def check_linear_head(self) -> None:
        """Refuse modules that do not end in a linear layer; see `Stack`."""
        self.skeleton.check_linear_head()

    def __str__(self) -> str:
        return f"{self.size} × {type(self.skeleton.module).__name__}"

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``x`` of shape ``(M, b, *in)`` to ``(M, b, *out)``."""
        return self._each(self.skeleton, x)

    def features(self, x: Tensor) -> Tensor:
        """Return what the linear last layer sees of ``x``; see `Stack.features`."""
        return self._each(self.skeleton.features, x)

    def _each(
        self, compute: Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], Tensor], x: Tensor
    ) -> Tensor:
        if self.size > 1 and self.vectorised:
            return torch.vmap(compute)(self.params, self.fixed, x)
        each = [
            compute([p[i] for p in self.params], [f[i] for f in self.fixed], x[i]) for i in range(self.size)
        ]
        return torch.stack(each)

    def replace(self, params: Sequence[Tensor]) -> ModuleStack:
        """Return the same learners with other parameters."""
        return replace(self, params=tuple(params))

    def module(self, index: int) -> nn.Sequential:
        """Export learner ``index``: a module of the user's own class, in a `torch.nn.Sequential`."""
        module = copy.deepcopy(self.skeleton.module)
        self.write(module, index)
        return nn.Sequential(module)

    def write(self, module: nn.Module, index: int = 0) -> None:
        """Write learner ``index`` into a module of the same architecture, in place."""
        own = dict(module.named_parameters()) | dict(module.named_buffers())
        for names, values in ((self.skeleton.trained, self.params), (self.skeleton.fixed, self.fixed)):
            for name, value in zip(names, values, strict=True):
                own[name].data = value[index].detach().clone()


def probe_of(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return two observations, by which modules are compared: ``(2, *shape)``."""
    n = 2 * math.prod(shape)
    return torch.linspace(-1, 1, n, dtype=torch.float32).reshape(2, *shape).to(device)


def run_eagerly(module: nn.Module, x: Tensor, n_outputs: int, source: str) -> Tensor:
    """Put a module into eval mode and compute it, with all that a learner may not be refused.

    Args:
        module: The module.
        x: Inputs, ``(b, *in)``.
        n_outputs: How many outputs it must have.
        source: What to call it in messages.

    Returns:
        Its outputs, ``(b, n_outputs)``.

    Raises:
        TaskDistillError: It has batch normalisation or other running statistics, fails on such inputs, gives
            outputs of another shape, or other outputs each time.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _NormBase) and (layer.track_running_stats or "Batch" in type(layer).__name__):
            raise TaskDistillError(
                f"{source} has {type(layer).__name__}, at {name or 'its root'}, whose statistics are of many "
                "batches, while a learner trains on one; use LayerNorm or GroupNorm."
            )
        rate = layer.p if isinstance(layer, _DropoutNd) else getattr(layer, "dropout", 0.0)
        if isinstance(rate, float) and rate > 0:
            warnings.warn(
                f"{source} has dropout, which is off: learners train and act in eval mode.", stacklevel=3
            )
            break
    module.eval()
    with torch.no_grad(), differentiable_attention():
        try:
            outputs, again = module(x), module(x)
        except Exception as error:
            raise TaskDistillError(
                f"{source} fails on inputs of shape {tuple(x.shape)}: {type(error).__name__}: {error}"
            ) from error
    if not isinstance(outputs, Tensor) or outputs.shape != (len(x), n_outputs):
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise TaskDistillError(
            f"{source} must map inputs of shape {tuple(x.shape)} to outputs of shape {(len(x), n_outputs)}, "
            f"but gives {found}."
        )
    if not _same(outputs, again):
        raise TaskDistillError(f"{source} gives other outputs each time, but a learner must repeat itself.")
    return outputs


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Let attention be computed by what can be differentiated twice and stacked: torch's plain operations."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def split_head(module: nn.Module, probe: Tensor) -> tuple[nn.Module, nn.Linear] | None:
    """Return a module without its linear last layer, and that layer; ``None`` if it does not end in one."""
    name = _last_layer(module, probe)
    skeleton = Skeleton.of(module, probe, module(probe).detach())
    if name is None or skeleton.body is None:
        return None
    head = module.get_submodule(name)
    assert isinstance(head, nn.Linear)
    return skeleton.body, head


def _last_layer(module: nn.Module, probe: Tensor) -> str | None:
    """Return the name of the submodule with parameters of its own that is called last."""
    called: list[str] = []
    hooks = [
        layer.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name, layer in module.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
    ]
    try:
        with torch.no_grad(), differentiable_attention():
            module(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return called[-1] if called else None


def _body(module: nn.Module, name: str, head_names: Sequence[str], probe: Tensor) -> nn.Module | None:
    """Return a copy without the last layer, if that is linear and what it says is what the module says."""
    head = module.get_submodule(name)
    params = dict(head.named_parameters(recurse=False))
    names = {
        n for n, p in module.named_parameters(remove_duplicate=False) if any(p is q for q in params.values())
    }
    if type(head).forward is not nn.Linear.forward or names != set(head_names) or len(names) != len(params):
        return None
    if not name:
        return nn.Identity()
    body = copy.deepcopy(module)
    body.set_submodule(name, nn.Identity())
    # Moved parameters tell a layer whose outputs are scaled or shifted later from one whose outputs are not.
    moved = {n: p + 0.5 + p.abs() for n, p in module.named_parameters() if n in names}
    try:
        with torch.no_grad(), differentiable_attention():
            features = body(probe)
            ours = nn.functional.linear(features, *(moved[n] for n in head_names))
            return body if _same(ours, functional_call(module, moved, (probe,))) else None
    except Exception:  # it reads more of its last layer than its outputs
        return None


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
