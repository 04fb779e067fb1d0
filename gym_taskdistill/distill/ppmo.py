"""Proximal Policy Meta-Optimization: PPO whose actor is a synthetic dataset (paper, Algorithm 1)."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal, cast

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, RolloutBufferSamples, Schedule
from stable_baselines3.common.utils import FloatSchedule, explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from gym_taskdistill.dataset.spaces import n_rows
from gym_taskdistill.distill import distributed, rollouts, statistics
from gym_taskdistill.distill.buffer import LearnerRolloutBuffer, check_minibatches
from gym_taskdistill.distill.outer import OuterLoop, check_learning
from gym_taskdistill.distill.saving import SavedAlgorithm
from gym_taskdistill.distill.start import NORMAL, LearningRates, Start, checked_rates
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerRule, InnerSGD, inner_rule
from gym_taskdistill.learners import LearnersArg, learner_distribution
from gym_taskdistill.machine import keep_freed_memory
from gym_taskdistill.tasks import EnvArg, Task, as_task

#: The paper's inner rule: one step.
PAPER = InnerSGD()


#: Learners where their number is not given.
MAX_LEARNERS = 4

#: Settings that are numbers, or schedules where these are allowed.
_FINITE = (
    *("learning_rate", "critic_learning_rate", "clip_range", "gamma", "gae_lambda"),
    *("ent_coef", "vf_coef", "max_grad_norm", "critic_warmup", "pixel_statistics"),
)


class PPMO(SavedAlgorithm):
    """Distil an RL environment into a dataset of k rows (paper, Algorithm 1; with an encoder, Algorithm 2).

    PPO with the actor replaced by a synthetic dataset: at each meta-epoch M fresh learners are drawn from Λ
    and trained on the dataset in one step; they collect a rollout; PPO's loss is differentiated through
    their inner step to the dataset. Hyperparameters that PPO has too keep SB3's names and meanings.

    Where it differs from the paper by default: M learners per meta-epoch instead of one (``n_learners=1`` is
    the paper); episodes run on across meta-epochs; dataset and critic have their own gradient clips.

    Args:
        learners: The learner distribution Λ, in the place of SB3's policy: a name (``"alpha_c"``), a plain
            description, or a `LearnerDistribution`.
        env: The environment, as for SB3. Or an id, a `Task` or a function that makes an environment, of which
            there is then one for each learner.
        k: Number of synthetic rows, or ``"k_min"`` for ``ceil(n_actions / 2) + 1`` (Equation 3).
        n_learners: M, learners per meta-epoch; must divide the number of envs. ``None`` for the largest
            number up to 4 that does.
        learning_rate: Learning rate of the synthetic rows and labels (Adam); a number or a schedule.
        critic_learning_rate: Learning rate of the critic.
        critic_warmup: Env steps in which only the critic learns. A run that starts from a good dataset would
            else spoil it before the critic knows what it is worth.
        learning_rates: Learning rates of other learned things, where they are not ``learning_rate``:
            ``inner_lr`` (of the logarithms of the inner rule's learned rates), ``log_std`` (of the log
            standard deviation that trained learners have), ``obs_scale`` (of the logarithm of that factor),
            ``obs_shift`` and ``encoder``; numbers or schedules.
        n_steps: T, steps per env and meta-epoch.
        batch_size: Transitions per minibatch over all learners, M·b; must divide the rollout. ``None`` for
            the largest number up to 1024 that does.
        n_epochs: Passes over the rollout.
        gamma: Discount factor.
        gae_lambda: λ of the generalised advantage estimator.
        clip_range: ε of Equation 1; a number or a schedule.
        normalize_advantage: Normalise advantages in each minibatch, over all learners together.
        ent_coef: Weight of the entropy bonus.
        vf_coef: Weight of the value loss (Equation 2).
        max_grad_norm: Bound on the gradient norm, for the dataset (with encoder) and the critic each.
        target_kl: Stop the passes when the approximate KL exceeds 1.5 times this; ``None`` for no limit.
        inner: How each learner is trained on the rows: an `InnerSGD` or a `Ridge`, or a mapping of its
            settings such as ``{"steps": 10, "lr": 1}`` or ``{"kind": "ridge"}``. Its ``lr`` is the start of
            the learned inner learning rate, a ridge's ``regularization`` of the learned λ.
        learn_lr_hidden: Learn the inner rule's ``lr_hidden`` too, from its value; else it stays as it is.
        start: Where the learned things start: a `Start`, or a mapping of its settings.
        encoder_layers: l, the number of layers that belong to the encoder; 0 is full distillation, all of
            them is direct-task learning, that is PPO.
        critic: Distribution from which the critic is drawn; ``None`` for the actor's shape (a CNN for images,
            else an MLP) with a last layer of gain 1, as in SB3.
        share_features_extractor: The critic reads the encoder's features instead of observations, and the
            encoder learns from both, as in SB3; needs ``encoder_layers >= 1``.
        mixed_precision: Compute the features of observations in bfloat16: two to three times faster
            convolutions on CPUs and GPUs that have units for it, and several times slower on others.
            ``"auto"`` does so where the device has them; the numbers differ. `loop.mixed_precision` tells
            what was chosen.
        pixel_statistics: Env steps of random play, before the first, from which mean and standard deviation
            of every pixel of images are measured; they are frozen and belong to the dataset. 0 for none.
        stats_window_size: Episodes in the logged averages.
        tensorboard_log: Folder for TensorBoard; ``None`` for none.
        verbose: SB3's verbosity.
        seed: One number that makes the run reproducible on one machine; ``None`` draws one.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        TaskDistillError: Settings do not fit each other or the env.
    """

    def __init__(
        self,
        learners: LearnersArg,
        env: GymEnv | EnvArg | None,
        k: int | str = "k_min",
        n_learners: int | None = None,
        learning_rate: float | Schedule = 1e-2,
        critic_learning_rate: float | Schedule = 1e-3,
        critic_warmup: int = 0,
        learning_rates: LearningRates | None = None,
        n_steps: int = 128,
        batch_size: int | None = None,
        n_epochs: int = 4,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        normalize_advantage: bool = True,
        ent_coef: float = 0.01,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        inner: InnerRule | Mapping[str, Any] = PAPER,
        learn_lr_hidden: bool = False,
        start: Start | Mapping[str, Any] = NORMAL,
        encoder_layers: int = 0,
        critic: LearnersArg | None = None,
        share_features_extractor: bool = False,
        mixed_precision: bool | Literal["auto"] = False,
        pixel_statistics: int = 0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        self.learners = learner_distribution(learners)
        self.critic = None if critic is None else learner_distribution(critic)
        self.k, self.encoder_layers = k, encoder_layers
        self.n_learners, self.batch_size = cast(int, n_learners), cast(int, batch_size)
        self.critic_learning_rate, self.critic_warmup = critic_learning_rate, critic_warmup
        self.learning_rates = checked_rates(learning_rates)
        self.n_epochs, self.target_kl = n_epochs, target_kl
        self.clip_range: float | Schedule = clip_range
        self.normalize_advantage = normalize_advantage
        self.inner, self.learn_lr_hidden = inner_rule(inner).detached(), learn_lr_hidden
        self.start = Start.of(start)
        self.share_features_extractor = share_features_extractor
        self.mixed_precision, self.pixel_statistics = mixed_precision, pixel_statistics
        task: Task | None = None
        if env is not None and not isinstance(env, gym.Env | VecEnv):
            task = as_task(env)
            env = task.make_vec_env(_n_envs(n_learners), training=True)
        super().__init__(
            env,
            task=task,
            seed=seed,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
        )
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._complete_settings()
        self._check_settings()
        keep_freed_memory()
        assert self.seed is not None
        # The start values are the same on all ranks; what is drawn later is each rank's own.
        first = int(np.random.SeedSequence([self.seed, 0]).generate_state(1)[0])
        self.loop = OuterLoop(
            self.learners,
            self.observation_space,
            self.action_space,
            torch.Generator(self.device).manual_seed(first),
            n_learners=self.n_learners,
            k=self.n_rows,
            inner=self.inner,
            learn_lr_hidden=self.learn_lr_hidden,
            start=self.start,
            encoder_layers=self.encoder_layers,
            mixed_precision=self.mixed_precision,
        )
        self.rollout_buffer_kwargs = {"n_learners": self.n_learners, "generator": self.loop.generator}
        self.policy_kwargs = {
            "loop": self.loop,
            "critic": self.critic,
            "share_features_extractor": self.share_features_extractor,
        }
        super()._setup_model()
        self.loop.optimise_by(
            self.learning_rate,
            self.learning_rates,
            self.max_grad_norm,
            critic=(self.policy.critic.parameters(), self.critic_learning_rate),
        )
        self.policy.optimizer = self.loop.optimizer
        self.clip_schedule = FloatSchedule(self.clip_range)
        if self.pixel_statistics and self.loop.is_image and self.env is not None:
            self.measure_pixels(self.pixel_statistics)
        self.begin_segment(0)

    @property
    def n_rows(self) -> int:
        """K, with ``"k_min"`` resolved for this env's actions."""
        return n_rows(self.k, self.action_space)

    def _complete_settings(self) -> None:
        """Turn NumPy's numbers into Python's, and give values to the settings that follow the env."""
        settings = self.settings()
        for name, value in settings.items():
            if isinstance(value, np.generic):
                setattr(self, name, value.item())
        if settings["n_learners"] is None:
            self.n_learners = _largest(MAX_LEARNERS, self.n_envs)
        n = self.n_learners
        if settings["batch_size"] is None and n in range(1, self.n_envs + 1) and self.n_envs % n == 0:
            self.batch_size = n * _largest(1024 // n, self.n_steps * self.n_envs // n)

    def _check_settings(self) -> None:
        statistics.check(self._vec_normalize_env, self.observation_space)
        for name in ("n_learners", "n_steps", "n_epochs", "batch_size"):
            value: Any = getattr(self, name)
            if name == "batch_size" and value is None:
                continue  # n_learners is at fault, which is said below
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise TaskDistillError(f"{name} must be an integer >= 1, but is {value!r}.")
        if self.k != "k_min" and (not isinstance(self.k, int) or self.k < 1):
            raise TaskDistillError(f'k must be an integer >= 1 or "k_min", but is {self.k!r}.')
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise TaskDistillError(f"seed must be an integer from 0 to 2**32 - 1, but is {self.seed!r}.")
        for name in _FINITE:
            if not _is_finite(getattr(self, name)):
                raise TaskDistillError(f"{name} must be a finite number, but is {getattr(self, name)!r}.")
        check_minibatches(self.n_learners, self.n_envs, self.n_steps, self.batch_size)

    def _check_schedules(self) -> None:
        super()._check_schedules()
        self.clip_schedule(1.0)

    # -- Algorithm 1 ----------------------------------------------------------------------------

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Draw fresh learners, train them, and let them act (Algorithm 1, lines 2 to 4).

        Episodes that the previous learners began run on: resetting all envs would hide late states.

        Returns:
            Whether the rollout is complete; ``False`` if a callback asked to stop.
        """
        assert isinstance(rollout_buffer, LearnerRolloutBuffer)
        return rollouts.collect(self, env, callback, rollout_buffer, n_rollout_steps)

    def loss(self, data: RolloutBufferSamples, clip_range: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute PPO's loss on one minibatch, differentiable down to the dataset (Equations 1 and 2).

        Args:
            data: A minibatch of `LearnerRolloutBuffer`, fields ``(M, b, …)``.
            clip_range: ε.

        Returns:
            The total loss (policy, entropy and value terms, weighted as in SB3's PPO) and its parts.
        """
        values, log_prob, entropy = self.policy.evaluate_actions(data.observations, data.actions)
        advantages = data.advantages
        if self.normalize_advantage and advantages.numel() > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        log_ratio = log_prob - data.old_log_prob
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        policy_loss = -torch.min(advantages * ratio, advantages * clipped).mean()
        value_loss = (data.returns - values).square().mean()
        entropy_loss = -entropy.mean()
        loss = policy_loss + self.ent_coef * entropy_loss + self.vf_coef * value_loss
        with torch.no_grad():
            parts = {
                "policy_gradient_loss": policy_loss.detach(),
                "value_loss": value_loss.detach(),
                "entropy_loss": entropy_loss.detach(),
                "approx_kl": (ratio - 1 - log_ratio).mean(),
                "clip_fraction": ((ratio - 1).abs() > clip_range).float().mean(),
                "loss": loss.detach(),
            }
        return loss, parts

    def train(self) -> None:
        """Update dataset, encoder and critic from the rollout (Algorithm 1, lines 6 to 15)."""
        progress = self._current_progress_remaining
        self.loop.optimizer.set_rates(progress, frozen=self.num_timesteps <= self.critic_warmup)
        self.logger.record("train/learning_rate", self.loop.optimizer.schedules["dataset"](progress))
        clip_range = self.clip_schedule(progress)
        history: dict[str, list[Tensor]] = defaultdict(list)
        for _ in range(self.n_epochs):
            completed = self._train_epoch(clip_range, history)
            self._n_updates += 1
            if not completed:
                break
        for name, values in history.items():
            mean = torch.stack(values).mean().item()
            self.logger.record(f"train/{name}", mean)
            if name in ("loss", "dataset_grad_norm"):
                check_learning(mean, f"The {name} of update {self._n_updates}")
        buffer = self.rollout_buffer
        self.logger.record(
            "train/explained_variance",
            explained_variance(buffer.values.flatten(), buffer.returns.flatten()),
        )
        rule = self.loop.rule.detached()
        for name in (rule.rate, *(["lr_hidden"] if self.learn_lr_hidden else [])):
            self.logger.record(f"train/inner_{name}", getattr(rule, name))
        if self.loop.log_std is not None:
            trained = self.loop.trained(create_graph=False)
            assert trained.log_std is not None
            self.logger.record("train/std", trained.log_std.exp().mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)

    def _train_epoch(self, clip_range: float, history: dict[str, list[Tensor]]) -> bool:
        """Make one pass over the rollout; return ``False`` if the KL limit stopped it."""
        for data in self.rollout_buffer.get(self.batch_size):
            loss, parts = self.loss(data, clip_range)
            for name, value in parts.items():
                history[name].append(value)
            kl = parts["approx_kl"]
            if self.target_kl is not None and distributed.average(kl) > 1.5 * self.target_kl:
                return False
            history["dataset_grad_norm"].append(self.loop.optimizer.descend(loss))
        return True


def _n_envs(n_learners: Any) -> int:
    """Return how many envs to make of an id; what is no number of learners is refused later."""
    try:
        return max(1, operator.index(MAX_LEARNERS if n_learners is None else n_learners))
    except TypeError:
        return 1


def _is_finite(value: Any) -> bool:
    """Whether a setting is a finite number, or a schedule that will say one."""
    return callable(value) or (isinstance(value, int | float) and math.isfinite(value))


def _largest(bound: int, number: int) -> int:
    """Return the largest divisor of a number up to a bound."""
    return max(d for d in range(1, max(1, bound) + 1) if number % d == 0)
