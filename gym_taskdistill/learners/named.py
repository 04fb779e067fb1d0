"""Learner distributions by name and by plain description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.learners.cnn import CNN
from gym_taskdistill.learners.distributions import LearnerDistribution, Mixture
from gym_taskdistill.learners.limits import check_description
from gym_taskdistill.learners.mlp import MLP
from gym_taskdistill.learners.module import Factory, ModuleFamily
from gym_taskdistill.learners.networks import block_mlp
from gym_taskdistill.safe_yaml import shortened
from gym_taskdistill.trust import allow

#: The paper's Λ for cart-pole and MuJoCo: 64-64 tanh, orthogonal √2, last layer 0.01.
ALPHA_C = MLP()

#: The paper's architecture for Atari: the Nature CNN, orthogonal √2, last layer 0.01.
ALPHA_A = CNN()

#: The six columns of the paper's Table 1, in its order.
TABLE_1: dict[str, LearnerDistribution] = {
    "alpha_c": ALPHA_C,
    "ortho_1": MLP(gain=1.0, last_gain=1.0),
    "xavier": MLP(init="xavier_uniform"),
    "xavier_1": MLP(init="xavier_uniform", gain=1.0, last_gain=1.0),
    "random_h": MLP(width=(32, 256)),
    "random_L": MLP(depth=(1, 6)),
}

#: Twelve architectures that tell how universal a dataset is. Its mixture of learners may hold the first six;
#: no shipped recipe distils over the others.
ANY_NETWORK: dict[str, LearnerDistribution] = {
    "alpha_c": ALPHA_C,
    "tanh_32": MLP(width=32),
    "relu_128": MLP(width=128, activation="relu", init="kaiming_uniform"),
    "relu_512x1": MLP(width=512, depth=1, activation="relu", init="kaiming_uniform"),
    "gelu_64": MLP(activation="gelu", init="xavier_uniform"),
    "silu_256": MLP(width=256, activation="silu", init="kaiming_normal"),
    "gelu_residual": ModuleFamily(block_mlp, {"depth": 3, "residual": True}),
    "relu_layer_norm": ModuleFamily(block_mlp, {"activation": "relu"}),
    "tanh_1024": MLP(width=1024),
    "tanh_deep_6": MLP(depth=6),
    "elu_kaiming": MLP(activation="elu", init="kaiming_normal"),
    "relu_torch": MLP(activation="relu", init="torch"),
}

#: Names that stand for several distributions, wherever learners of a test are named.
LEARNER_GROUPS: dict[str, tuple[str, ...]] = {
    "table_1": tuple(TABLE_1),
    "any_network": tuple(ANY_NETWORK),
}

#: Distributions a recipe, a command line or `DistilledPolicy` may name.
NAMED_LEARNERS: dict[str, LearnerDistribution] = {
    **TABLE_1,
    **ANY_NETWORK,
    "alpha_a": ALPHA_A,
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
    # Ridge regression: networks of many kinds, half of them narrow, since few features are the hardest.
    "broad": Mixture(
        tuple(
            MLP(width=width, depth=(1, 4), activation=activation, init=init, per_batch=True)
            for width in ((32, 128), (32, 512))
            for activation, init in (
                ("tanh", "orthogonal"),
                ("relu", "kaiming_uniform"),
                ("gelu", "xavier_uniform"),
                ("silu", "kaiming_normal"),
            )
        )
    ),
}

_FAMILIES: dict[str, type[LearnerDistribution]] = {
    "mlp": MLP,
    "cnn": CNN,
    "mixture": Mixture,
    "module": ModuleFamily,
}


#: What names a learner distribution: a name, a plain description, the distribution itself, a function
#: ``(obs_space, n_outputs) -> nn.Module`` or its name, ``"package.module:function"``; or a list of
#: these, which is their mixture in equal shares.
LearnersArg = str | Mapping[str, Any] | LearnerDistribution | Factory | list[Any] | tuple[Any, ...]


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


def without_groups(names: Iterable[str]) -> list[str]:
    """Put the members of a group in the place of its name.

    >>> without_groups(["table_1", "alpha_a"])
    ['alpha_c', 'ortho_1', 'xavier', 'xavier_1', 'random_h', 'random_L', 'alpha_a']
    """
    return [member for name in names for member in LEARNER_GROUPS.get(name, (name,))]


def learner_distribution(spec: LearnersArg, *, trust: bool = False) -> LearnerDistribution:
    """Build a learner distribution from its name or its plain description.

    Args:
        spec: A name of `NAMED_LEARNERS`, a mapping as `LearnerDistribution.spec` gives it (members of a
            mixture may be names), a distribution, which is returned as it is, what makes a `ModuleFamily`: a
            function or the name of one; or a list of these, their mixture in equal shares.
        trust: Allow the functions that ``spec`` names and import them, which runs their modules' code. Else
            one that was not allowed (see `gym_taskdistill.trust`), nor used by the caller himself, is refused
            as soon as a learner is drawn.

    Returns:
        The distribution.

    Raises:
        TaskDistillError: The name or the family is unknown, its settings are wrong, or a function that is
            trusted cannot be imported.

    >>> learner_distribution({"family": "mlp", "width": 64, "depth": 2}) == learner_distribution("alpha_c")
    True
    """
    if trust:
        allow(*code_of(spec))
    return _built(spec)


def code_of(spec: Any) -> tuple[str, ...]:
    """Return the names of the functions that a description of learners names, as `trust.allow` takes them.

    >>> code_of({"family": "mixture", "members": ["alpha_c", {"family": "module", "factory": "nets:wide"}]})
    ('nets:wide',)
    """
    match spec:
        case str() if ":" in spec:
            return (spec,)
        case list() | tuple():
            return tuple(name for member in spec for name in code_of(member))
        case {"family": "module", "factory": str(factory)}:
            return (factory,)
        case {"family": "mixture", "members": [*members]}:
            return tuple(name for member in members for name in code_of(member))
    return ()


def _built(spec: LearnersArg) -> LearnerDistribution:
    if isinstance(spec, LearnerDistribution):
        return spec
    if isinstance(spec, str) and ":" not in spec:
        if spec not in NAMED_LEARNERS:
            raise TaskDistillError(
                f'There are no learners named "{shortened(spec)}"; known are {", ".join(NAMED_LEARNERS)}.'
                f"{did_you_mean(spec, NAMED_LEARNERS)}"
            )
        return NAMED_LEARNERS[spec]
    if isinstance(spec, list | tuple):
        spec = {"family": "mixture", "members": spec}
    settings: dict[str, Any] = (
        dict(spec) if isinstance(spec, Mapping) else {"family": "module", "factory": spec}
    )
    family = settings.pop("family", None)
    if not isinstance(family, str) or family not in _FAMILIES:
        raise TaskDistillError(
            f'The learner family "{shortened(str(family))}" is unknown; known are {", ".join(_FAMILIES)}. '
            "Register your own with register_family, or pass learners=."
        )
    try:
        check_description(spec)
        if family == "mixture" and "members" in settings:
            settings["members"] = tuple(_built(m) for m in settings["members"])
        return _FAMILIES[family](**settings)
    except (TypeError, ValueError) as error:
        raise TaskDistillError(f'The learner family "{family}" was given wrong settings: {error}') from None
