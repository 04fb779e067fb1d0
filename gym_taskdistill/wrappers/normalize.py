"""The observation statistics of a dataset, as a gymnasium wrapper."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from gym_taskdistill.dataset.dataset import DistilledDataset


class FrozenNormalizeObservation(
    gym.ObservationWrapper[np.ndarray, Any, np.ndarray], gym.utils.RecordConstructorArgs
):
    """Normalise observations by the statistics that are frozen in a dataset.

    The view that learners of the dataset have: ``(obs - mean) / sqrt(var + 1e-8)``, clipped to
    ``±clip_obs``, times ``obs_scale`` and plus ``obs_shift``, in float32. Unlike gymnasium's
    `NormalizeObservation` it learns nothing. `DistilledPolicy` takes raw observations and needs no wrapper;
    this one is for any other agent.

    Args:
        env: The raw env of the dataset's task.
        dataset: Whose statistics; without any, observations pass unchanged but for their type.

    Raises:
        DatasetError: The dataset is not for this env.

    >>> import gymnasium as gym
    >>> from gym_taskdistill import zoo
    >>> env = FrozenNormalizeObservation(gym.make("CartPoleND-v0", n=2), zoo.load("CartPoleND-v0", n=2))
    >>> env.reset(seed=0)[0].shape
    (8,)
    """

    def __init__(self, env: gym.Env[np.ndarray, Any], dataset: DistilledDataset) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, dataset=dataset)
        gym.ObservationWrapper.__init__(self, env)
        dataset.check_env(env)
        self.dataset = dataset.to("cpu")
        low, high = (bound.expand(dataset.obs_shape).numpy() for bound in self.dataset.view.bounds())
        self.observation_space = gym.spaces.Box(low, high, dataset.obs_shape, np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Normalise one observation."""
        tensor = torch.as_tensor(np.asarray(observation), dtype=torch.float32)
        normalized: np.ndarray = self.dataset.normalize(tensor).numpy()
        return normalized
