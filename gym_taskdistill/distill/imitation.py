"""Imitation: distil an expert's action distributions on recorded observations.

Algorithm 2 of the paper with imitation as the task T_0: no environment in the loop but for recording. Far
cheaper than PPMO where simulation or exploration is what costs, and PPMO can start from its result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import get_device
from torch import Tensor

from gym_taskdistill.dataset.card import Card, described, versions
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.view import ObservationView
from gym_taskdistill.distill import distributed, statistics, warm_start
from gym_taskdistill.distill.buffer import check_shared_out
from gym_taskdistill.distill.experts import Recording
from gym_taskdistill.distill.imitation_loss import missed, variance_of
from gym_taskdistill.distill.outer import OuterLoop, check_learning
from gym_taskdistill.distill.start import NORMAL, LearningRates, Start
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerRule, InnerSGD, inner_rule
from gym_taskdistill.learners import LearnersArg, learner_distribution
from gym_taskdistill.tasks.task import Task

#: Called with the number of finished updates and the mean loss since the last call.
Progress = Callable[[int, float], object]

#: Bound on normalised observations, as `VecNormalize` has it.
CLIP = 10.0

#: Envs of the random play that measures pixels.
N_PIXEL_ENVS = 8


class Imitation:
    """Distils recordings of a task: fresh learners, trained on the rows, should act as an expert does.

    One round is ``begin_segment(i)``, a recording (`gym_taskdistill.distill.experts.record`, with this object
    as ``behaviour`` from the second round on), and `update`. What follows depends on the learned things, the
    seed and the number of the segment alone: a run that saved `state` after a round, was killed at any later
    moment and goes on by `load_state` and ``begin_segment(i + 1)`` ends with the same bits.

    Args:
        task: What is distilled.
        learners: The learner distribution Λ: a name, a plain description, or a `LearnerDistribution`.
        k: Number of synthetic rows.
        n_learners: M, learners per update.
        learning_rate: Learning rate of the synthetic rows and labels (Adam); a number or a schedule.
        learning_rates: Learning rates of other learned things, as for `PPMO`.
        inner: How each learner is trained on the rows: an `InnerSGD`, or a mapping of its settings.
        learn_lr_hidden: Learn the inner rule's ``lr_hidden`` too, from its value.
        start: Where the learned things start: a `Start`, or a mapping of its settings.
        encoder_layers: l, the number of layers that belong to the encoder.
        normalize: Normalise observations by their running mean and variance over all recordings, as
            `VecNormalize` does; not for images.
        pixel_statistics: Env steps of random play from which mean and standard deviation of every pixel of
            images are measured at once; 0 for none.
        mixed_precision: Compute the features of observations in bfloat16; ``"auto"`` does where the device
            has units for it.
        max_grad_norm: Bound on the norm of the gradient.
        seed: Makes the result reproducible on one machine.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        TaskDistillError: Settings do not fit each other or the task.
    """

    def __init__(
        self,
        task: Task,
        learners: LearnersArg,
        *,
        k: int,
        n_learners: int = 8,
        learning_rate: float | Schedule = 1e-2,
        learning_rates: LearningRates | None = None,
        inner: InnerRule | Mapping[str, Any] = InnerSGD(),  # noqa: B008  (frozen)
        learn_lr_hidden: bool = False,
        start: Start | Mapping[str, Any] = NORMAL,
        encoder_layers: int = 0,
        normalize: bool = False,
        pixel_statistics: int = 0,
        mixed_precision: bool | Literal["auto"] = False,
        max_grad_norm: float = 0.5,
        seed: int,
        device: torch.device | str = "auto",
    ) -> None:
        for name, value in (("k", k), ("n_learners", n_learners)):
            if not isinstance(value, int) or value < 1:
                raise TaskDistillError(f"{name} must be an integer >= 1, but is {value!r}.")
        self.task, self.seed, self.n_learners = task, seed, n_learners
        self.learners = learner_distribution(learners)
        self.action_space = task.flat_action_space
        generator = torch.Generator(get_device(device))
        # The start values are the same on all ranks; what is drawn later is each rank's own.
        generator.manual_seed(int(np.random.SeedSequence([seed, 0]).generate_state(1)[0]))
        self.loop = OuterLoop(
            self.learners,
            task.flat_observation_space,
            self.action_space,
            generator,
            n_learners=n_learners,
            k=k,
            inner=inner_rule(inner),
            learn_lr_hidden=learn_lr_hidden,
            start=Start.of(start),
            encoder_layers=encoder_layers,
            mixed_precision=mixed_precision,
        )
        self.loop.optimise_by(learning_rate, learning_rates, max_grad_norm)
        self.moments: RunningMeanStd | None = None
        if normalize:
            if self.loop.is_image:
                raise TaskDistillError("normalize is not for images; use pixel_statistics.")
            self.moments = RunningMeanStd(shape=self.loop.obs_shape)
            self._show_moments()
        self.n_updates = 0
        if pixel_statistics and self.loop.is_image:
            self._measure_pixels(pixel_statistics)
        self.begin_segment(0)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.loop.x.device

    def begin_segment(self, segment: int) -> None:
        """Start a segment: seed everything random by the seed and the segment's number, and draw learners.

        Call it before each recording; what happened before counts only as far as it was learned.
        """
        self.loop.reseed(self.seed, segment)
        self.loop.draw()

    def _measure_pixels(self, n_steps: int) -> None:
        env = self.task.make_vec_env(N_PIXEL_ENVS)
        images = statistics.random_play(env, n_steps, *self.loop.reseed(self.seed, 0))
        env.close()
        self.loop.view = ObservationView.of_images(torch.as_tensor(images, device=self.device))

    def _show_moments(self) -> None:
        if self.moments is not None:
            self.loop.view = statistics.view_of(self.moments, CLIP).to(self.device)

    # -- datasets and checkpoints ---------------------------------------------------------------

    def dataset(self) -> DistilledDataset:
        """Return a snapshot of the dataset being distilled, with a card of what this object knows."""
        card = Card(
            **described(self.task, self.task.observation_space, self.task.action_space),
            learners=self.learners.spec(),
            seed=self.seed,
            versions=versions(),
        )
        return self.loop.dataset(card)

    def load_dataset(self, dataset: DistilledDataset) -> None:
        """Start from a dataset instead of random rows; its statistics go on.

        Raises:
            TaskDistillError: The dataset does not fit this object's settings.
        """
        if dataset.obs_mean is not None and self.moments is None and not self.loop.is_image:
            raise TaskDistillError(f"{dataset!r} normalises observations; use normalize=True.")
        warm_start.load(self.loop, dataset)
        if self.moments is not None:
            statistics.thaw_moments(dataset, self.moments)
            self._show_moments()

    def state(self) -> dict[str, Any]:
        """Return all that the future depends on but the segment's number, as plain data for a checkpoint."""
        return {
            "loop": self.loop.state(),
            "n_updates": self.n_updates,
            "moments": None if self.moments is None else statistics.moments_state(self.moments),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned, into an object of the same settings; `begin_segment` comes next.

        Raises:
            KeyError: Something is missing.
            RuntimeError: A tensor is missing or of another shape.
            ValueError: The optimiser's groups are others.
        """
        self.loop.load_state(state["loop"])
        self.n_updates = state["n_updates"]
        if self.moments is not None:
            statistics.load_moments(self.moments, state["moments"])

    # -- acting and learning --------------------------------------------------------------------

    def start_from(self, recording: Recording) -> None:
        """Take random observations of a recording as rows, with the expert's answers as their labels.

        Learners of an inner rule that fits its rows well, as `Ridge` does, act at once as the expert does
        nearby; rows of noise would have to find where the task takes place.

        Args:
            recording: Of an expert, with at least k observations; it feeds the running statistics.

        Raises:
            TaskDistillError: It has fewer observations than there are rows.
        """
        loop, k = self.loop, len(self.loop.x)
        if len(recording) < k:
            raise TaskDistillError(
                f"The recording has {len(recording):,} observations, but the dataset has {k:,} rows; record "
                "more steps."
            )
        obs = self._taken_in(recording)
        chosen = torch.randperm(len(recording), generator=loop.generator, device=self.device)[:k]
        labels = torch.as_tensor(recording.targets, device=self.device)[chosen]
        if isinstance(self.action_space, spaces.Box):
            ends = (self.action_space.low, self.action_space.high)
            labels = labels.clamp(*(torch.as_tensor(end, device=self.device) for end in ends))
        else:
            labels = labels - labels.mean(-1, keepdim=True)  # what all actions have in common says nothing
        with torch.no_grad():
            loop.x.copy_(loop.see(obs[chosen]) if loop.is_image else obs[chosen])
            loop.y.copy_(labels)

    def predict(self, observation: np.ndarray, deterministic: bool = False) -> tuple[np.ndarray, None]:
        """Let the current learners act on raw observations.

        Args:
            observation: A batch ``(n, *obs_shape)``.
            deterministic: Take the most likely actions instead of sampling.

        Returns:
            Actions within the action space, ``(n,)`` or ``(n, n_outputs)``; and ``None``, as SB3's policies
            return a state.
        """
        actions = self.loop.act(self._to_tensor(observation), deterministic).cpu().numpy()
        if isinstance(self.action_space, spaces.Box):
            actions = np.clip(actions, self.action_space.low, self.action_space.high)
        return actions, None

    def update(
        self,
        recording: Recording,
        n_updates: int,
        batch_size: int = 256,
        *,
        draw_every: int = 1,
        temperature: float = 1.0,
        hard_fraction: float = 0.0,
        progress_remaining: tuple[float, float] = (1.0, 1.0),
        progress: Progress | None = None,
    ) -> float:
        """Distil a recording.

        Each update trains M fresh learners on the current rows and takes one step down the
        cross-entropy between the expert's actions and theirs (discrete), or the squared error of their means
        within the box (continuous, see `clipped_error`; the log standard deviation is left alone), in units
        of the variance of the expert's: 1 is what learners miss that always do the same.

        Args:
            recording: What to imitate; its observations also feed the running statistics.
            n_updates: Number of updates.
            batch_size: Observations in an update over all learners.
            draw_every: Updates for which learners are kept before others are drawn. To draw a learner's layer
                of millions of weights takes longer than an update.
            temperature: Divides the expert's logits or means, > 0: below 1 learners become surer than it is,
                and above 1 they explore more (Hinton et al. 2015). Means that learners cannot tell apart they
                take the average of, so that their actions are too small: below 1 makes up for it.
            hard_fraction: Fraction of a batch, from 0 to 1, that is drawn in proportion to what was missed
                when an observation was last drawn (Schaul et al. 2016); the rest is drawn evenly. It finds
                the one step of a game that learners still take wrong. The losses told are those of such
                batches.
            progress_remaining: What the schedules of the learning rates are told at the first and after the
                last update: from 1, their start, to 0, their end.
            progress: Called every 100 updates.

        Returns:
            Mean loss over the last 100 updates.

        Raises:
            TaskDistillError: The batch cannot be shared out evenly to the learners, draw_every is no number
                of updates, hard_fraction is no fraction, the temperature is not above 0, or the loss is no
                longer finite.
        """
        self._check(batch_size, draw_every, temperature, hard_fraction)
        loop, device = self.loop, self.device
        obs = self._taken_in(recording)
        targets = torch.as_tensor(recording.targets, device=device) / temperature
        variance = variance_of(self.action_space, recording.targets / temperature)
        lately = torch.ones(len(recording), device=device, dtype=torch.float32)
        shape = (self.n_learners, batch_size // self.n_learners)
        first, last = progress_remaining
        losses, mean = list[Tensor](), math.nan
        for update in range(n_updates):
            loop.optimizer.set_rates(first + (last - first) * update / n_updates)
            indices = self._indices(lately, shape, round(hard_fraction * shape[1]))
            if update % draw_every == 0:
                loop.draw()
            seen = loop.see(obs[indices]) if loop.is_image else obs[indices]
            each = self._losses(seen, targets[indices]) / variance
            lately[indices] = each.detach().float()
            loss = each.mean()
            loop.optimizer.descend(loss)
            self.n_updates += 1
            losses = [*losses[-99:], loss.detach()]
            if (update + 1) % 100 == 0 or update + 1 == n_updates:
                mean = float(torch.stack(losses).mean())
                check_learning(mean, f"The loss of update {update + 1}")
                if progress is not None and (update + 1) % 100 == 0:
                    progress(update + 1, mean)
        return mean

    def _check(self, batch_size: int, draw_every: int, temperature: float, hard_fraction: float) -> None:
        if not isinstance(draw_every, int) or draw_every < 1:
            raise TaskDistillError(f"draw_every must be an integer >= 1, but is {draw_every!r}.")
        if not 0 <= hard_fraction <= 1:
            raise TaskDistillError(f"hard_fraction must lie between 0 and 1, but is {hard_fraction!r}.")
        if not temperature > 0:
            raise TaskDistillError(f"temperature must be > 0, but is {temperature!r}.")
        check_shared_out(self.n_learners, batch_size=batch_size)

    def _taken_in(self, recording: Recording) -> Tensor:
        """Let observations feed the running statistics; return them as learners see them, images raw."""
        if self.moments is not None:
            self.moments.update(recording.observations)
            distributed.merge_moments(self.moments)
            self._show_moments()
        # To a GPU at once, and not row by row; pixels are many, and shown batch by batch.
        obs = self._to_tensor(recording.observations)
        return obs if self.loop.is_image else self.loop.see(obs)

    def _to_tensor(self, obs: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(obs), device=self.device, dtype=self.loop.obs_dtype)

    def _indices(self, lately: Tensor, shape: tuple[int, int], n_hard: int) -> Tensor:
        """Draw which observations each learner sees, ``shape``, some of them where most was missed lately."""
        generator = self.loop.generator
        indices = torch.randint(len(lately), shape, generator=generator, device=lately.device)
        if n_hard:
            hard = torch.multinomial(lately + 1e-8, shape[0] * n_hard, True, generator=generator)
            indices[:, :n_hard] = hard.view(shape[0], n_hard)
        return indices

    def _losses(self, seen: Tensor, targets: Tensor) -> Tensor:
        """Return what current learners miss at each of what they see, ``(M, b)``."""
        features = self.loop.features(seen)
        distribution = self.loop.trained(create_graph=True).act(features, self.loop.trunk)
        return missed(distribution, targets, self.action_space)
