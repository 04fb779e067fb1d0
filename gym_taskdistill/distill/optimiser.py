"""The outer loop's optimiser: one Adam, with a schedule for each group of what is learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor, nn

from gym_taskdistill.distill import distributed
from gym_taskdistill.distill.start import LearningRates, checked_rates


class Optimiser(torch.optim.Adam):
    """Adam on groups of parameters, each with a schedule of its own.

    Args:
        learned: What the loop learns, by the name of its learning rate.
        learning_rate: Of the rows and labels, and of whatever has none of its own; may be a schedule.
        learning_rates: Those of `OWN_RATES` that differ.
        max_grad_norm: Bound on the gradient norm of all that the loop learns, and of each other group.
        **others: Groups that learn beside it, such as a critic: parameters and learning rate by name.

    Attributes:
        schedules: Learning rates by the name of the group, functions of the progress that remains.
    """

    def __init__(
        self,
        learned: Mapping[str, list[nn.Parameter]],
        learning_rate: float | Schedule,
        learning_rates: LearningRates | None = None,
        max_grad_norm: float = 0.5,
        **others: tuple[Iterable[nn.Parameter], float | Schedule],
    ) -> None:
        rates: dict[str, Any] = {"dataset": learning_rate, **checked_rates(learning_rates)}
        rates |= {name: rate for name, (_, rate) in others.items()}
        groups = {**learned, **{name: list(params) for name, (params, _) in others.items()}}
        super().__init__(
            [{"params": params, "name": name} for name, params in groups.items() if params],
            lr=1.0,  # set from the schedules before every use
            eps=1e-5,
            fused=True,
        )
        self.schedules: dict[str, Schedule] = {
            name: FloatSchedule(learning_rate if rate is None else rate) for name, rate in rates.items()
        }
        self.max_grad_norm = max_grad_norm
        own = [p for params in learned.values() for p in params]
        self._clipped = [own, *(groups[name] for name in others)]
        self._others = frozenset(others)

    def set_rates(self, progress_remaining: float, frozen: bool = False) -> None:
        """Set the learning rates by their schedules.

        Args:
            progress_remaining: From 1 at the start to 0 at the end.
            frozen: Let only the other groups learn.
        """
        for group in self.param_groups:
            stands_still = frozen and group["name"] not in self._others
            group["lr"] = 0.0 if stands_still else self.schedules[group["name"]](progress_remaining)

    def descend(self, loss: Tensor) -> Tensor:
        """Take a step down a loss: backward, the mean over all ranks, clips and Adam.

        Args:
            loss: A scalar with its graph.

        Returns:
            The norm of the gradient of all that the loop learns, before its clip.
        """
        self.zero_grad()
        loss.backward()
        distributed.average_gradients([p for params in self._clipped for p in params])
        norms = [torch.nn.utils.clip_grad_norm_(params, self.max_grad_norm) for params in self._clipped]
        self.step()
        return norms[0]
