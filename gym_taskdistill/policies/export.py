"""Trained learners as modules of torch and models of SB3."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor, nn

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError, did_you_mean, import_extra
from gym_taskdistill.files import replacing
from gym_taskdistill.learners.module_stack import differentiable_attention, split_head
from gym_taskdistill.machine import single_precision
from gym_taskdistill.policies.ensemble import Ensemble, EnsembleRule
from gym_taskdistill.policies.trained import TrainedLearners
from gym_taskdistill.tasks.spaces import flat_action_space, flat_observation_space
from gym_taskdistill.tasks.vec_env import own_spaces


@single_precision()
def module(ensemble: Ensemble, index: int | None = None) -> nn.Sequential:
    """Export trained learners, from raw observations to their outputs; see `DistilledPolicy.to_torch`."""
    dataset = ensemble.datasets[0]
    own, parts = dataset.spaces[0], list[nn.Module]()
    if isinstance(own, spaces.Box) and own.shape != dataset.obs_shape:
        parts.append(ChannelsFirst() if dataset.has_images else nn.Flatten() if own.shape else AsColumn())
    if index is None and len(ensemble) == 1:
        index = 0
    if index is not None:
        dataset, trained, number = ensemble.member(index)
        return nn.Sequential(*parts, *_view(dataset), *_layers(dataset, trained, number))
    # Members that were trained on one dataset share its view.
    shared = len(ensemble.datasets) == 1
    members = []
    for i in range(len(ensemble)):
        dataset, trained, number = ensemble.member(i)
        view = [] if shared else _view(dataset)
        members.append(nn.Sequential(*view, *_layers(dataset, trained, number)))
    return nn.Sequential(*parts, *(_view(dataset) if shared else []), Members(members, ensemble.rule))


def _view(dataset: DistilledDataset) -> list[nn.Module]:
    return [] if dataset.view.is_identity else [copy.deepcopy(dataset.view)]


def _layers(dataset: DistilledDataset, trained: TrainedLearners, index: int) -> list[nn.Module]:
    """Return the modules of a learner, from what it sees to its outputs."""
    layers = list(trained.module(index))
    first = next(layer for layer in layers[0].modules() if not isinstance(layer, nn.Sequential))
    spread = isinstance(first, nn.Linear) and len(dataset.obs_shape) > 1
    return [*([nn.Flatten()] if spread else []), *layers]


class Members(nn.Module):
    """Several learners as one module, which acts as their ensemble does.

    Args:
        members: Modules from what all of them see to outputs ``(n, n_outputs)``.
        rule: How they act as one.
    """

    def __init__(self, members: Sequence[nn.Module], rule: EnsembleRule) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.rule = rule

    def forward(self, seen: Tensor) -> Tensor:
        """Return the logits, or the mean, of the ensemble's policy, ``(n, n_outputs)``."""
        outputs: list[Tensor] = []
        for member in self.members:
            outputs.append(member(seen))  # TorchScript knows no comprehension here
        combined: Tensor = self.rule(torch.stack(outputs))
        return combined


class _WithLogStd(nn.Module):
    """Adds the log standard deviations of actions to their means."""

    log_std: Tensor

    def __init__(self, network: nn.Module, log_std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("log_std", log_std)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.network(observation)
        return mean, self.log_std.expand_as(mean)


@single_precision()
def onnx(ensemble: Ensemble, path: Path, index: int | None = None) -> Path:
    """Write trained learners as an ONNX file; see `DistilledPolicy.to_onnx`."""
    import_extra("onnx", "onnx", "Files of ONNX")
    network: nn.Module = module(ensemble, index)
    names = ["observation", "logits"]
    if ensemble.log_std is not None:
        rows = ensemble.log_std.squeeze(1)
        network = _WithLogStd(network, ensemble.rule(rows) if index is None else rows[index])
        names[1:] = ["mean", "log_std"]
    dataset = ensemble.datasets[0]
    own = dataset.spaces[0]
    shape = own.shape if isinstance(own, spaces.Box) else dataset.obs_shape
    path = path if path.suffix else path.with_name(f"{path.name}.onnx")
    with replacing(path) as temporary:
        _write_onnx(network.eval(), torch.zeros(2, *shape, device=dataset.x.device), names, temporary)
    return path


def _write_onnx(network: nn.Module, observation: Tensor, names: Sequence[str], path: Path) -> None:
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),  # which gets the graph of what cannot be written
            torch.no_grad(),
            differentiable_attention(),
        ):
            warnings.simplefilter("ignore")  # the exporter by tracing is fast, and says that it is old
            torch.onnx.export(
                network,
                (observation,),
                path,
                input_names=names[:1],
                output_names=names[1:],
                dynamic_axes={name: {0: "n"} for name in names},
                dynamo=False,
            )
    except Exception as error:  # an exporter fails on a user's module in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TaskDistillError(f"The policy cannot be written as ONNX: {reason}") from error


class ChannelsFirst(nn.Module):
    """Moves the channels of images ``(n, height, width, channels)`` to the front."""

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(n, channels, height, width)``."""
        return images.permute(0, 3, 1, 2)


class AsColumn(nn.Module):
    """Makes vectors of one number of observations that are a single number."""

    def forward(self, numbers: Tensor) -> Tensor:
        """Map ``(n,)`` to ``(n, 1)``."""
        return numbers.unsqueeze(1)


class LearnerFeatures(BaseFeaturesExtractor):
    """All of an exported learner but its last layer, as SB3's features extractor.

    Args:
        observation_space: Space of the model's observations.
        network: The exported learner from flat observations on, whose last module is linear; it is copied.
        own_space: The environment's own space, whose images SB3 transposes; by default the model's.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        network: nn.Sequential,
        own_space: spaces.Space[Any] | None = None,
    ) -> None:
        last = network[-1]
        assert isinstance(last, nn.Linear)
        super().__init__(observation_space, last.in_features)
        self.hidden = copy.deepcopy(network[:-1])
        self._transposed: set[str] = set()
        if isinstance(own_space, spaces.Dict) and isinstance(observation_space, spaces.Dict):
            shown = observation_space.items()
            self._transposed = {key for key, part in shown if part.shape != own_space[key].shape}
        # SB3 leaves images alone where a VecTransposeImage says so (skip=True).
        flat = flat_observation_space(own_space or observation_space)
        self._is_untransposed = len(flat.shape) == 3 and observation_space.shape != flat.shape
        self._is_vector = len(flat.shape) == 1

    def forward(self, observations: Any) -> Tensor:
        """Map observations as SB3 preprocesses them to features ``(n, features_dim)``."""
        if isinstance(observations, dict):
            observations = torch.cat(
                [
                    (part.permute(0, 2, 3, 1) if key in self._transposed else part).flatten(1)
                    for key, part in observations.items()
                ],
                dim=1,
            )
        elif self._is_untransposed:
            observations = observations.permute(0, 3, 1, 2)
        elif self._is_vector:
            observations = observations.reshape(len(observations), -1)
        features: Tensor = self.hidden(observations).flatten(1)
        return features


class LearnerPolicy(ActorCriticPolicy):
    """SB3's actor-critic policy whose own file says that actor and critic have a features extractor each."""

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "share_features_extractor": False}


@single_precision()
def ppo(
    ensemble: Ensemble,
    env: GymEnv | str,
    index: int | None,
    ppo_kwargs: Mapping[str, Any],
) -> PPO:
    """Make an SB3 PPO that starts as a trained learner; see `DistilledPolicy.to_sb3`."""
    if index is None and len(ensemble) > 1:
        raise TaskDistillError(
            f"SB3's PPO holds one network, but this policy is an ensemble of {len(ensemble)}; choose "
            "a member, such as index=0, or export all of them by to_torch()."
        )
    dataset, trained, index = ensemble.member(index or 0)
    if isinstance(env, gym.Env):
        dataset.check_env(env)  # by its id too
    own = dataset.spaces
    shown = [
        getattr(env, f"{kind}_space", space)
        for kind, space in zip(("observation", "action"), own, strict=True)
    ]
    _check_sb3_knows(*shown)
    layers = nn.Sequential(*_view(dataset), *_layers(dataset, trained, index))
    network = _ending_in_a_linear_layer(layers, dataset)
    settings, given = _checked_kwargs(ppo_kwargs)
    policy_kwargs = {
        **given,
        "features_extractor_class": LearnerFeatures,
        "features_extractor_kwargs": {"network": network, "own_space": own[0]},
        "share_features_extractor": False,
        "normalize_images": False,  # the network does it
        "net_arch": [],
        "ortho_init": False,  # it would draw the extractor's weights anew
    }
    model = PPO(LearnerPolicy, env, policy_kwargs=policy_kwargs, **settings)
    assert model.env is not None
    dataset.check_env(own_spaces(model.env))
    last = network[-1]
    with torch.no_grad():
        model.policy.action_net.load_state_dict(last.state_dict())
        if trained.log_std is not None:
            log_std = trained.log_std[index if len(trained.log_std) > 1 else 0]
            model.policy.log_std.copy_(log_std)
    return model


def _ending_in_a_linear_layer(network: nn.Sequential, dataset: DistilledDataset) -> nn.Sequential:
    """Take the last layer out of a module that ends in it, so that SB3 can hold it."""
    if isinstance(network[-1], nn.Linear):
        return network
    with torch.no_grad():
        seen: Tensor = network[:-1](dataset.x)
    parts = split_head(network[-1], seen)
    if parts is None:
        raise TaskDistillError(
            f"SB3's PPO needs a policy that ends in an nn.Linear, but {type(network[-1]).__name__} does not."
        )
    return nn.Sequential(network[:-1], *parts)


def _check_sb3_knows(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Refuse spaces that SB3 has no policies for, in words of ours."""
    parts = list(observation_space.values()) if isinstance(observation_space, spaces.Dict) else []
    nested = any(isinstance(part, spaces.Dict | spaces.Tuple) for part in parts)
    unknown = isinstance(observation_space, spaces.Tuple) or nested
    started = getattr(observation_space, "start", 0), getattr(action_space, "start", 0)
    flat_actions = isinstance(action_space, spaces.Box) or flat_action_space(action_space) is action_space
    if unknown or np.any(started[0]) or not flat_actions:
        raise TaskDistillError(
            f"SB3 has no policy for observations of {type(observation_space).__name__} with actions of "
            f"{action_space}; give it flat ones: policy.to_sb3(policy.dataset.task.make_vec_env(8))."
        )


#: What the learner itself says of SB3's policy.
_OWN_POLICY_KWARGS = (
    "features_extractor_class",
    "features_extractor_kwargs",
    "share_features_extractor",
    "normalize_images",
    "net_arch",
    "ortho_init",
    "log_std_init",
)


def _checked_kwargs(ppo_kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split PPO's arguments from its policy's, and refuse what the learner decides itself.

    Raises:
        TaskDistillError: An argument is unknown, the learner's own, or state-dependent exploration.
    """
    known = [name for name in inspect.signature(PPO).parameters if name not in ("policy", "env")]
    for name in ppo_kwargs:
        if name not in known or name == "_init_setup_model":
            raise TaskDistillError(f'SB3\'s PPO takes no argument "{name}" here.{did_you_mean(name, known)}')
    if ppo_kwargs.get("use_sde"):
        raise TaskDistillError(
            "An agent explores with the same noise in every state, which state-dependent exploration cannot "
            "start with; use use_sde=False."
        )
    settings = dict(ppo_kwargs)
    policy_kwargs = dict(settings.pop("policy_kwargs", None) or {})
    for name in _OWN_POLICY_KWARGS:
        if name in policy_kwargs:
            raise TaskDistillError(f"policy_kwargs cannot have {name}: the learner's network decides it.")
    return settings, policy_kwargs
