"""The features of a dataset's encoder, as a gymnasium wrapper."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.learners import learner_distribution
from gym_taskdistill.policies.trained import load_encoder
from gym_taskdistill.wrappers.normalize import FrozenNormalizeObservation


class EncodeObservation(FrozenNormalizeObservation):
    """Show observations as the learners of a dataset see them: normalised, then through its encoder.

    With an encoder of l layers the features are those of layer l (paper, Algorithm 2); any learner on top of
    them can be tried. Without one, l = 0, it does what `FrozenNormalizeObservation` does.

    Args:
        env: The raw env of the dataset's task.
        dataset: Whose statistics and encoder.

    Raises:
        DatasetError: The dataset is not for this env, or its encoder does not fit its learners.

    >>> import gymnasium as gym
    >>> from gym_taskdistill import zoo
    >>> env = EncodeObservation(gym.make("CartPoleND-v0", n=2), zoo.load("CartPoleND-v0", n=2))
    >>> env.observation_space.shape
    (8,)
    """

    def __init__(self, env: gym.Env[np.ndarray, Any], dataset: DistilledDataset) -> None:
        super().__init__(env, dataset)
        self.encoder = load_encoder(self.dataset, learner_distribution(dataset.card.learners))
        shape = self.observation(np.zeros(dataset.obs_shape, dtype=np.float32)).shape
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, shape, np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Encode one observation."""
        normalized = super().observation(observation)
        if not self.encoder.params:
            return normalized
        with torch.no_grad():
            features: np.ndarray = self.encoder(torch.as_tensor(normalized)[None, None])[0, 0].numpy()
        return features
