"""Acting by an environment's own observations, with the signature of SB3's `predict`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np

from gym_taskdistill.tasks.spaces import as_batch, own_actions


class Acting:
    """What `DistilledPolicy` and `PPMO` share: `predict`, from raw observations to the environment's actions.

    Attributes:
        own_spaces: The environment's own spaces of observations and actions.
    """

    own_spaces: tuple[gym.Space[Any], gym.Space[Any]]

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose actions, with the signature of SB3's `BasePolicy.predict`.

        Args:
            observation: An observation as the environment gives it, or a batch: an array ``(n, …)``, or of
                Dict and Tuple spaces a dictionary or tuple of arrays, or a list of observations.
            state: Ignored: learners have no memory.
            episode_start: Ignored.
            deterministic: Take the most likely action instead of sampling as the paper does.

        Returns:
            The action or the batch of actions, within the action space; and ``state``.

        Raises:
            TaskDistillError: The observation is not of the environment's space; of a `DistilledPolicy` it is
                a DatasetError, and tells what is not finite too.
        """
        rows, single = self._rows(observation)
        # torch knows no negative strides.
        own = own_actions(self.own_spaces[1], self._act(np.ascontiguousarray(rows), deterministic))
        return (np.asarray(own[0]) if single else own), state

    def _rows(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Return flat observations as a batch, and whether it was a single one."""
        return as_batch(self.own_spaces[0], observation)

    @abstractmethod
    def _act(self, rows: np.ndarray, deterministic: bool) -> np.ndarray:
        """Return flat actions for a batch of flat observations."""
