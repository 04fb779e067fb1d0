"""Proximal Policy Meta-Optimization: PPO whose actor is a synthetic dataset (paper, Algorithm 1)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    RolloutBufferSamples,
    Schedule,
)
from stable_baselines3.common.utils import FloatSchedule, explained_variance, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from gym_taskdistill.dataset.card import Card, space_to_dict, versions
from gym_taskdistill.dataset.dataset import DistilledDataset, k_min
from gym_taskdistill.distill import checkpoint, distributed, statistics
from gym_taskdistill.distill.buffer import LearnerRolloutBuffer
from gym_taskdistill.distill.memory import keep_freed_memory
from gym_taskdistill.distill.policy import DistillationPolicy
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.learners import LearnerDistribution, learner_distribution
from gym_taskdistill.policies.trained import TrainedLearners, encoder_state

SelfPPMO = TypeVar("SelfPPMO", bound="PPMO")

#: What names a learner distribution: a name, a plain description, or the distribution itself.
LearnersArg = str | Mapping[str, Any] | LearnerDistribution


class PPMO(OnPolicyAlgorithm):
    """Distil an RL environment into a dataset of k rows (paper, Algorithm 1; with an encoder, Algorithm 2).

    PPO with the actor replaced by a synthetic dataset: at each meta-epoch M fresh learners are drawn from Λ
    and trained on the dataset in one step; they collect a rollout; PPO's loss is differentiated through
    their inner step to the dataset. Hyperparameters that PPO has too keep SB3's names and meanings.

    Where it differs from the paper by default: M learners per meta-epoch instead of one (``n_learners=1`` is
    the paper); episodes run on across meta-epochs; dataset and critic have their own gradient clips.

    Args:
        learners: The learner distribution Λ, in the place of SB3's policy: a name (``"alpha_c"``), a plain
            description, or a `LearnerDistribution`.
        env: The environment, as for SB3; its number of envs must be a multiple of ``n_learners``.
        k: Number of synthetic rows, or ``"k_min"`` for ``ceil(n_actions / 2) + 1`` (Equation 3).
        n_learners: M, learners per meta-epoch.
        learning_rate: Learning rate of the synthetic rows and labels (Adam); a number or a schedule.
        critic_learning_rate: Learning rate of the critic.
        critic_warmup: Env steps in which only the critic learns. A run that starts from a good dataset would
            else spoil it before the critic knows what it is worth.
        inner_lr_learning_rate: Learning rate of the logarithm of the inner learning rate; ``None`` follows
            ``learning_rate``.
        log_std_learning_rate: Learning rate of the log standard deviation that trained learners have;
            ``None`` follows ``learning_rate``.
        encoder_learning_rate: Learning rate of the encoder; ``None`` follows ``learning_rate``.
        n_steps: T, steps per env and meta-epoch.
        batch_size: Transitions per minibatch over all learners, M·b; must divide the rollout.
        n_epochs: Passes over the rollout.
        gamma: Discount factor.
        gae_lambda: λ of the generalised advantage estimator.
        clip_range: ε of Equation 1; a number or a schedule.
        normalize_advantage: Normalise advantages in each minibatch, over all learners together.
        ent_coef: Weight of the entropy bonus.
        vf_coef: Weight of the value loss (Equation 2).
        max_grad_norm: Bound on the gradient norm, for the dataset (with encoder) and the critic each.
        target_kl: Stop the passes when the approximate KL exceeds 1.5 times this; ``None`` for no limit.
        inner_steps: Steps each learner takes on the same rows; 1 is the paper.
        inner_momentum: Momentum of SGD over those steps. With the decay it brings networks whose losses are
            steep and networks whose losses are flat to the labels in the same few steps.
        inner_lr_decay: Factor on the inner learning rate from each of those steps to the next.
        inner_step_size: ``"constant"``: a step is the inner learning rate times the gradient. ``"polyak"``:
            times loss / ‖gradient‖² besides, each learner's own, so that one rate fits steep and flat losses.
        inner_lr_hidden: Learn a factor on the inner learning rate in all layers but the last, from this
            start; ``None`` for one rate everywhere, as in the paper. A small one leaves the hidden layers
            nearly as they are drawn, so that large labels can drown what a fresh output layer says and no
            depth diverges. 0 trains the last layer alone; many inner steps then cost little more than one.
        inner_lr_init: Start of the learned inner learning rate.
        encoder_layers: l, the number of layers that belong to the encoder; 0 is full distillation, all of
            them is direct-task learning, that is PPO.
        obs_scale_init: Learn a factor on each dimension of what learners see, observations and rows alike
            (the critic sees observations as they are), from this start; ``None`` for none, as in the paper.
            Where it is small, activations are nearly linear and networks of one family agree on what they
            learned.
        obs_scale_learning_rate: Learning rate of the logarithm of that factor; ``None`` follows
            ``learning_rate``.
        x_std: Standard deviation of the rows at the start, which are normal; the paper's is 1. Before the
            factor of ``obs_scale_init``.
        y_std: Standard deviation of the labels at the start, which are normal; the paper's is 1.
        log_std_init: Log standard deviation of trained learners at the start (continuous actions).
        critic: Distribution from which the critic is drawn; ``None`` for the actor's shape (a CNN for images,
            else an MLP) with a last layer of gain 1, as in SB3.
        share_features_extractor: The critic reads the encoder's features instead of observations, and the
            encoder learns from both, as in SB3; needs ``encoder_layers >= 1``.
        mixed_precision: Compute the features of observations in bfloat16: two to three times faster
            convolutions on CPUs and GPUs that have it.
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

    policy: DistillationPolicy  # type: ignore[assignment]
    rollout_buffer: LearnerRolloutBuffer

    def __init__(
        self,
        learners: LearnersArg,
        env: GymEnv | str,
        k: int | str = "k_min",
        n_learners: int = 4,
        learning_rate: float | Schedule = 1e-2,
        critic_learning_rate: float | Schedule = 1e-3,
        critic_warmup: int = 0,
        inner_lr_learning_rate: float | Schedule | None = None,
        log_std_learning_rate: float | Schedule | None = None,
        encoder_learning_rate: float | Schedule | None = None,
        n_steps: int = 128,
        batch_size: int = 1024,
        n_epochs: int = 4,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        normalize_advantage: bool = True,
        ent_coef: float = 0.01,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        inner_steps: int = 1,
        inner_momentum: float = 0.0,
        inner_lr_decay: float = 1.0,
        inner_step_size: str = "constant",
        inner_lr_hidden: float | None = None,
        inner_lr_init: float = 0.02,
        encoder_layers: int = 0,
        obs_scale_init: float | None = None,
        obs_scale_learning_rate: float | Schedule | None = None,
        x_std: float = 1.0,
        y_std: float = 1.0,
        log_std_init: float = 0.0,
        critic: LearnersArg | None = None,
        share_features_extractor: bool = False,
        mixed_precision: bool = False,
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
        self.share_features_extractor = share_features_extractor
        self.mixed_precision = mixed_precision
        self.pixel_statistics = pixel_statistics
        self.k = k
        self.n_learners = n_learners
        self.critic_learning_rate = critic_learning_rate
        self.critic_warmup = critic_warmup
        self.group_learning_rates = {
            "dataset": learning_rate,
            "inner_lr": inner_lr_learning_rate,
            "log_std": log_std_learning_rate,
            "obs_scale": obs_scale_learning_rate,
            "encoder": encoder_learning_rate,
        }
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.clip_range: float | Schedule = clip_range
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        self.inner_sgd = InnerSGD(inner_steps, inner_momentum, inner_lr_decay, inner_step_size)
        self.inner_lr_hidden = inner_lr_hidden
        self.inner_lr_init = inner_lr_init
        self.encoder_layers = encoder_layers
        self.obs_scale_init = obs_scale_init
        self.x_std, self.y_std = x_std, y_std
        self.log_std_init = log_std_init
        self.segment = 0
        self.earlier_s = 0.0
        super().__init__(
            DistillationPolicy,  # type: ignore[arg-type]
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            rollout_buffer_class=LearnerRolloutBuffer,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed,
            device=device,
            _init_setup_model=False,
            supported_action_spaces=(spaces.Box, spaces.Discrete),
        )
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._check_settings()
        keep_freed_memory()
        self.generator = torch.Generator(self.device)
        # The start values are the same on all ranks; what is drawn later is each rank's own.
        assert self.seed is not None
        self.generator.manual_seed(int(np.random.SeedSequence([self.seed, 0]).generate_state(1)[0]))
        self.rollout_buffer_kwargs = {"n_learners": self.n_learners, "generator": self.generator}
        self.policy_kwargs = {
            "learners": self.learners,
            "n_learners": self.n_learners,
            "k": self.n_rows,
            "inner_sgd": self.inner_sgd,
            "inner_lr_hidden": self.inner_lr_hidden,
            "inner_lr_init": self.inner_lr_init,
            "encoder_layers": self.encoder_layers,
            "obs_scale_init": self.obs_scale_init,
            "x_std": self.x_std,
            "y_std": self.y_std,
            "log_std_init": self.log_std_init,
            "critic": self.critic,
            "share_features_extractor": self.share_features_extractor,
            "mixed_precision": self.mixed_precision,
            "generator": self.generator,
        }
        super()._setup_model()
        groups = self.policy.parameter_groups()
        self.optimizer = torch.optim.Adam(
            [{"params": params, "name": name} for name, params in groups.items() if params],
            lr=1.0,  # set from the schedules before every use
            eps=1e-5,
            fused=True,
        )
        self.critic_optimizer = torch.optim.Adam(
            self.policy.critic.parameters(), lr=1.0, eps=1e-5, fused=True
        )
        self.schedules = {
            name: FloatSchedule(self.learning_rate if rate is None else rate)
            for name, rate in self.group_learning_rates.items()
        }
        self.critic_schedule = FloatSchedule(self.critic_learning_rate)
        self.clip_schedule = FloatSchedule(self.clip_range)
        if self.pixel_statistics and self.policy.is_image:
            self._measure_pixels()
        self.begin_segment(0)

    @property
    def n_rows(self) -> int:
        """K, with ``"k_min"`` resolved for this env's actions."""
        if self.k != "k_min":
            return int(self.k)
        if not isinstance(self.action_space, spaces.Discrete):
            raise TaskDistillError(
                'k="k_min" needs a Discrete action space (Equation 3); give k as a number.'
            )
        return k_min(int(self.action_space.n))

    def _check_settings(self) -> None:
        rollout = self.n_steps * self.n_envs
        for name in ("n_learners", "batch_size", "n_epochs", "n_steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise TaskDistillError(f"{name} must be an integer >= 1, but is {value!r}.")
        if self.k != "k_min" and (not isinstance(self.k, int) or self.k < 1):
            raise TaskDistillError(f'k must be an integer >= 1 or "k_min", but is {self.k!r}.')
        if self.n_envs % self.n_learners:
            raise TaskDistillError(
                f"The env has {self.n_envs} columns, which n_learners={self.n_learners} does not divide; "
                "use a multiple, so that each learner gets the same number of envs."
            )
        if self.batch_size % self.n_learners or rollout % self.batch_size:
            raise TaskDistillError(
                f"batch_size={self.batch_size} must be a multiple of n_learners={self.n_learners} and divide "
                f"the rollout of n_steps x n_envs = {rollout} transitions."
            )
        if self.obs_scale_init is not None and not self.obs_scale_init > 0:
            raise TaskDistillError(f"obs_scale_init must be > 0 or None, but is {self.obs_scale_init!r}.")
        if not self.inner_lr_init > 0:
            raise TaskDistillError(f"inner_lr_init must be > 0, but is {self.inner_lr_init!r}.")
        if self.inner_lr_hidden is not None and not self.inner_lr_hidden >= 0:
            raise TaskDistillError(f"inner_lr_hidden must be >= 0, but is {self.inner_lr_hidden!r}.")

    def dataset(self) -> DistilledDataset:
        """Return a snapshot of the dataset being distilled, with a card of what this object knows."""
        assert self.env is not None
        policy = self.policy
        spec = self.env.get_attr("spec")[0]
        env_kwargs = {} if spec is None else dict(spec.kwargs)
        env_kwargs.pop("render_mode", None)  # how this run looked at the env, not which env it is
        card = Card(
            env_id="" if spec is None else spec.id,
            env_kwargs=env_kwargs,
            observation_space=space_to_dict(self.observation_space),
            action_space=space_to_dict(self.action_space, bounds=True),
            learners=self.learners.spec(),
            seed=self.seed,
            num_timesteps=self.num_timesteps,
            versions=versions(),
        )
        return DistilledDataset(
            x=policy.rows,
            y=policy.y,
            inner_lr=policy.inner_lr.item(),
            inner_steps=self.inner_sgd.steps,
            inner_momentum=self.inner_sgd.momentum,
            inner_lr_decay=self.inner_sgd.lr_decay,
            inner_step_size=self.inner_sgd.step_size,
            inner_lr_hidden=float(torch.as_tensor(policy.inner_lr_hidden).detach()),
            log_std=policy.log_std_label,
            obs_scale=policy.obs_scale,
            encoder=encoder_state(policy.encoder),
            encoder_layers=self.encoder_layers,
            card=card,
            **(statistics.freeze(self._vec_normalize_env) or statistics.freeze_pixels(policy)),
        )

    # -- segments: what makes a run resumable ---------------------------------------------------

    def _segment_seeds(self) -> tuple[int, int, int]:
        assert self.seed is not None
        # Every rank collects rollouts of its own.
        of_rank = [distributed.rank()] if distributed.rank() else []
        words = np.random.SeedSequence([self.seed, self.segment, *of_rank]).generate_state(3)
        return int(words[0]), int(words[1]), int(words[2])

    def begin_segment(self, segment: int) -> None:
        """Start a segment of the run: re-seed everything random and reset the envs.

        Simulators cannot be saved. A run is therefore cut into segments, each a function of the learned
        parameters, the seed and the segment's number alone; a checkpoint lies at the cut. Interrupted and
        uninterrupted runs pass the same cuts and so stay equal, bit for bit.
        """
        self.segment = segment
        _, generator_seed, env_seed = self._segment_seeds()
        self.generator.manual_seed(generator_seed)
        if self.env is not None:
            self.env.seed(env_seed)
            self._last_obs = None if segment == 0 else self._reset_env()

    def _measure_pixels(self) -> None:
        """Let the policy standardise pixels by what random play shows."""
        assert self.env is not None
        self.env.seed(self._segment_seeds()[2])
        self.env.reset()
        rng = np.random.default_rng(self._segment_seeds()[0])
        images = []
        for _ in range(-(-self.pixel_statistics // self.n_envs)):
            actions = rng.integers(self.policy.n_outputs, size=self.n_envs)
            images.append(np.array(self.env.step(actions)[0]))
        self.policy.freeze_pixels(torch.as_tensor(np.concatenate(images)))

    def _reset_env(self) -> np.ndarray:
        assert self.env is not None
        obs = self.env.reset()
        assert isinstance(obs, np.ndarray)
        self._last_episode_starts = np.ones(self.n_envs, dtype=bool)
        return obs

    def load_dataset(self, dataset: DistilledDataset) -> None:
        """Start from a dataset instead of random rows; the critic still starts afresh.

        Args:
            dataset: Of the same shapes, with at least this object's encoder layers.

        Raises:
            TaskDistillError: The dataset does not fit this object's settings.
        """
        self.policy.load_dataset(dataset)
        statistics.thaw_pixels(dataset, self.policy)
        statistics.thaw(dataset, self._vec_normalize_env)

    @property
    def wall_clock_s(self) -> float:
        """Seconds spent in `learn`, over all resumptions."""
        since = (time.time_ns() - self.start_time) / 1e9 if self.start_time else 0.0
        return self.earlier_s + since

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: SB3's zip files hold pickled code.

        Raises:
            TaskDistillError: Always; it names what to use instead.
        """
        raise TaskDistillError(
            "PPMO writes no SB3 zip files; keep the result with model.dataset().save(path), or the whole "
            "run with model.save_checkpoint(path)."
        )

    def save_checkpoint(self, path: str | PathLike[str]) -> None:
        """Write all that the run's future depends on, and go on with a new segment.

        The file is written to a temporary name and then renamed, so it is never half there.

        Args:
            path: File to write; an older checkpoint there is replaced.
        """
        if distributed.rank() == 0:
            checkpoint.write(self, Path(path))
        # Last, as `load_checkpoint` does: the reset already feeds the running statistics.
        self.begin_segment(self.segment + 1)

    def load_checkpoint(self, path: str | PathLike[str]) -> None:
        """Continue from a checkpoint; this object must have been made with the same settings.

        Call ``learn(total - self.num_timesteps, reset_num_timesteps=False)`` afterwards.

        Args:
            path: A file of `save_checkpoint`.

        Raises:
            TaskDistillError: The file cannot be read or belongs to other settings.
        """
        segment = checkpoint.read(self, Path(path))
        self.begin_segment(segment)

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
        callback.on_rollout_start()
        statistics.merge(self._vec_normalize_env)
        self.policy.sample_learners(self.generator)
        trained = self.policy.train_learners(create_graph=False)
        assert isinstance(rollout_buffer, LearnerRolloutBuffer)
        rollout_buffer.reset()
        box = self.action_space if isinstance(self.action_space, spaces.Box) else None
        truncations: list[tuple[int, int, np.ndarray]] = []
        evaluations: list[tuple[Tensor, Tensor]] = []
        with torch.inference_mode():
            for step in range(n_rollout_steps):
                assert isinstance(self._last_obs, np.ndarray) and self._last_episode_starts is not None
                obs = self.to_tensor(self._last_obs).unflatten(0, (self.n_learners, -1))
                obs = self.policy.preprocess(obs)
                features = self.policy.features(obs)
                distribution = trained.act(features, self.policy.trunk)
                sampled = distribution.sample(self.generator)
                if self.policy.is_image:  # too much to look at twice
                    evaluations.append((distribution.log_prob(sampled), self.policy.values(obs, features)))
                actions = sampled.flatten(0, 1).cpu().numpy()
                env_actions = actions if box is None else np.clip(actions, box.low, box.high)
                new_obs, rewards, dones, infos = env.step(env_actions)
                self.num_timesteps += env.num_envs * distributed.world_size()
                callback.update_locals(locals())
                if not callback.on_step():
                    return False
                rollout_buffer.add_step(self._last_obs, actions, rewards, self._last_episode_starts)
                if dones.any():
                    self._update_info_buffer(infos, dones)
                    for i in np.flatnonzero(dones):
                        if infos[i].get("TimeLimit.truncated", False):
                            truncations.append((step, int(i), infos[i]["terminal_observation"]))
                self._last_obs = new_obs  # type: ignore[assignment]
                self._last_episode_starts = dones
            self._complete(rollout_buffer, trained, truncations, evaluations)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _complete(
        self,
        buffer: LearnerRolloutBuffer,
        trained: TrainedLearners,
        truncations: list[tuple[int, int, np.ndarray]],
        evaluations: list[tuple[Tensor, Tensor]],
    ) -> None:
        """Fill in log-probabilities and values, bootstrap truncated episodes, and compute advantages."""
        if evaluations:
            log_probs, values = (torch.stack(results, dim=1) for results in zip(*evaluations, strict=True))
        else:  # of small observations all at once
            obs = buffer.by_learner(buffer.observations)
            features = self.policy.features(obs)
            actions = buffer.by_learner(buffer.actions)
            log_probs, values = (
                result.unflatten(1, (buffer.buffer_size, -1))
                for result in (
                    trained.act(features, self.policy.trunk).log_prob(actions),
                    self.policy.values(obs, features),
                )
            )
        for array, result in ((buffer.log_probs, log_probs), (buffer.values, values)):
            array[:] = result.transpose(0, 1).flatten(1, 2).cpu().numpy()
        if truncations:
            steps, columns, observations = zip(*truncations, strict=True)
            terminal = self.policy.predict_values(self.to_tensor(np.stack(observations)))
            buffer.rewards[list(steps), list(columns)] += self.gamma * terminal.cpu().numpy()
        last_values = self.policy.predict_values(self.to_tensor(self._last_obs))
        assert self._last_episode_starts is not None
        buffer.compute_returns_and_advantage(last_values=last_values, dones=self._last_episode_starts)

    def to_tensor(self, obs: Any) -> Tensor:
        """Move observations to the device; images stay bytes."""
        dtype = torch.uint8 if self.policy.is_image else torch.float32
        return torch.as_tensor(obs, device=self.device, dtype=dtype)

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
        self._update_learning_rates()
        clip_range = self.clip_schedule(self._current_progress_remaining)
        history: dict[str, list[Tensor]] = defaultdict(list)
        for _ in range(self.n_epochs):
            completed = self._train_epoch(clip_range, history)
            self._n_updates += 1
            if not completed:
                break
        for name, values in history.items():
            self.logger.record(f"train/{name}", torch.stack(values).mean().item())
        buffer = self.rollout_buffer
        self.logger.record(
            "train/explained_variance",
            explained_variance(buffer.values.flatten(), buffer.returns.flatten()),
        )
        self.logger.record("train/inner_lr", self.policy.inner_lr.item())
        if self.policy.log_lr_hidden is not None:
            self.logger.record("train/inner_lr_hidden", self.policy.log_lr_hidden.exp().item())
        if self.policy.log_std is not None:
            trained = self.policy.train_learners(create_graph=False)
            assert trained.log_std is not None
            self.logger.record("train/std", trained.log_std.exp().mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)

    def _train_epoch(self, clip_range: float, history: dict[str, list[Tensor]]) -> bool:
        """Make one pass over the rollout; return ``False`` if the KL limit stopped it."""
        dataset_params = [p for group in self.optimizer.param_groups for p in group["params"]]
        for data in self.rollout_buffer.get(self.batch_size):
            loss, parts = self.loss(data, clip_range)
            for name, value in parts.items():
                history[name].append(value)
            kl = parts["approx_kl"]
            if self.target_kl is not None and distributed.average(kl) > 1.5 * self.target_kl:
                return False
            self.optimizer.zero_grad()
            self.critic_optimizer.zero_grad()
            loss.backward()
            distributed.average_gradients([*dataset_params, *self.policy.critic.parameters()])
            norm = torch.nn.utils.clip_grad_norm_(dataset_params, self.max_grad_norm)
            history["dataset_grad_norm"].append(norm)
            torch.nn.utils.clip_grad_norm_(self.policy.critic.parameters(), self.max_grad_norm)
            self.optimizer.step()
            self.critic_optimizer.step()
        return True

    def _update_learning_rates(self) -> None:
        progress = self._current_progress_remaining
        for group in self.optimizer.param_groups:
            warm = self.num_timesteps > self.critic_warmup
            group["lr"] = self.schedules[group["name"]](progress) if warm else 0.0
        update_learning_rate(self.critic_optimizer, self.critic_schedule(progress))
        self.logger.record("train/learning_rate", self.schedules["dataset"](progress))

    def learn(
        self: SelfPPMO,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "PPMO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfPPMO:
        """Distil for ``total_timesteps`` env steps; arguments as for SB3's algorithms.

        Returns:
            This object.
        """
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )
