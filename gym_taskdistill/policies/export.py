"""Trained learners as modules of torch and models of SB3."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor, nn

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners.module_stack import split_head
from gym_taskdistill.policies.trained import TrainedLearners


def module(dataset: DistilledDataset, trained: TrainedLearners, index: int = 0) -> nn.Sequential:
    """Export a trained learner, from raw observations to its outputs; see `DistilledPolicy.to_torch`."""
    parts: list[nn.Module] = []
    if not dataset.view.is_identity:
        parts.append(copy.deepcopy(dataset.view))
    parts.extend(trained.module(index))
    return nn.Sequential(*parts)


class LearnerFeatures(BaseFeaturesExtractor):
    """All of an exported learner but its last layer, as SB3's features extractor.

    Args:
        observation_space: Space of raw observations.
        network: The exported learner, whose last module is linear; it is copied.
    """

    def __init__(self, observation_space: spaces.Space[Any], network: nn.Sequential) -> None:
        last = network[-1]
        assert isinstance(last, nn.Linear)
        super().__init__(observation_space, last.in_features)
        self.hidden = copy.deepcopy(network[:-1])

    def forward(self, observations: Tensor) -> Tensor:
        """Map observations ``(n, *obs_shape)`` to features ``(n, features_dim)``."""
        features: Tensor = self.hidden(observations).flatten(1)
        return features


def ppo(
    dataset: DistilledDataset,
    trained: TrainedLearners,
    env: GymEnv | str,
    index: int,
    ppo_kwargs: Mapping[str, Any],
) -> PPO:
    """Make an SB3 PPO that starts as a trained learner; see `DistilledPolicy.to_sb3`."""
    if isinstance(env, gym.Env):
        dataset.check_env(env)  # by its id too
    network = _ending_in_a_linear_layer(module(dataset, trained, index), dataset)
    settings = dict(ppo_kwargs)
    policy_kwargs = {
        **settings.pop("policy_kwargs", {}),
        "features_extractor_class": LearnerFeatures,
        "features_extractor_kwargs": {"network": network},
        "share_features_extractor": False,
        "normalize_images": False,  # the network does it
        "net_arch": [],
        "ortho_init": False,  # it would draw the extractor's weights anew
    }
    model = PPO("MlpPolicy", env, policy_kwargs=policy_kwargs, **settings)
    dataset.check_env((model.observation_space, model.action_space))
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
