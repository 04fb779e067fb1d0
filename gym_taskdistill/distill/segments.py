"""Runs that can be killed and go on: SB3's on-policy algorithm around an outer loop, cut into segments."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from gym_taskdistill.dataset.card import Card, described, versions
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.view import ObservationView
from gym_taskdistill.distill import checkpoint, distributed, statistics, warm_start
from gym_taskdistill.distill.buffer import LearnerRolloutBuffer
from gym_taskdistill.distill.outer import OuterLoop
from gym_taskdistill.distill.policy import DistillationPolicy
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.acting import Acting
from gym_taskdistill.tasks import Task, task_in
from gym_taskdistill.tasks.vec_env import flat_vec_env, own_spaces

Self = TypeVar("Self", bound="SegmentedAlgorithm")


class SegmentedAlgorithm(Acting, OnPolicyAlgorithm):
    """An on-policy algorithm of SB3's that distils by an outer loop, and whose runs can be resumed.

    Simulators cannot be saved. A run is therefore cut into segments, each a function of the learned
    parameters, the seed and the segment's number alone; a checkpoint lies at the cut. Interrupted and
    uninterrupted runs pass the same cuts and so stay equal, bit for bit.

    Args:
        env: The environment, as for SB3.
        task: What it is; by default what can be told from it.
        seed: One number that makes the run reproducible on one machine; ``None`` draws one.
        **settings: Those of SB3's `OnPolicyAlgorithm`.

    Attributes:
        loop: What is learned, and how; a subclass makes it.
        segment: Number of the segment that runs.
        task: What environment it is, as far as that can be written down.
        own_spaces: The environment's own spaces, where SB3's attributes are the flat ones.
        earlier_s: Seconds spent in `learn` before the call that runs now.
    """

    loop: OuterLoop
    policy: DistillationPolicy  # type: ignore[assignment]
    rollout_buffer: LearnerRolloutBuffer

    def __init__(self, env: GymEnv | None, *, task: Task | None, seed: int | None, **settings: Any) -> None:
        self.segment = 0
        self._statistics: dict[str, Any] = {}  # those of an env that is yet to be set
        self.earlier_s = 0.0
        self._began: float | None = None
        super().__init__(
            DistillationPolicy,  # type: ignore[arg-type]
            env,  # type: ignore[arg-type]  # None until it is set, as for a loaded model
            seed=int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed,
            use_sde=False,
            sde_sample_freq=-1,
            rollout_buffer_class=LearnerRolloutBuffer,
            _init_setup_model=False,
            supported_action_spaces=(
                spaces.Box,
                spaces.Discrete,
                spaces.MultiDiscrete,
                spaces.MultiBinary,
            ),
            **settings,
        )
        if self.env is not None:
            self.task, self.own_spaces = task or task_in(self.env), own_spaces(self.env)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return OnPolicyAlgorithm._wrap_env(flat_vec_env(env), verbose, monitor_wrapper)

    def _act(self, rows: np.ndarray, deterministic: bool) -> np.ndarray:
        """Let the current learners act; observations are normalised as in training."""
        return OnPolicyAlgorithm.predict(self, rows, deterministic=deterministic)[0]

    # -- datasets -------------------------------------------------------------------------------

    def dataset(self) -> DistilledDataset:
        """Return a snapshot of the dataset being distilled, with a card of what this object knows.

        Raises:
            TaskDistillError: The model was loaded without an env.
        """
        if self.env is None:
            raise TaskDistillError("Only with an env does the model know its task: use set_env(env) first.")
        card = Card(
            **described(self.task, *self.own_spaces),
            learners=self.loop.learner_distribution.spec(),
            seed=self.seed,
            num_timesteps=self.num_timesteps,
            versions=versions(),
        )
        return self.loop.dataset(card, statistics.freeze(self._vec_normalize_env))

    def load_dataset(self, dataset: DistilledDataset) -> None:
        """Start from a dataset instead of random rows; the critic still starts afresh.

        Args:
            dataset: Of the same shapes, with at least this object's encoder layers.

        Raises:
            TaskDistillError: The dataset does not fit this object's settings.
        """
        warm_start.load(self.loop, dataset)
        statistics.thaw(dataset, self._vec_normalize_env)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Set another env of the same spaces and number of envs; see SB3.

        Raises:
            TaskDistillError: It needs a `VecNormalize`, or has one that no dataset can freeze.
        """
        super().set_env(env, force_reset)
        assert self.env is not None
        self.task, self.own_spaces = task_in(self.env), own_spaces(self.env)
        statistics.check(self._vec_normalize_env, self.observation_space)
        statistics.load_state(self._vec_normalize_env, self._statistics)
        self._statistics = {}

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed everything that is drawn while the model acts; see SB3."""
        super().set_random_seed(seed)
        if seed is not None:
            self.loop.acting.manual_seed(seed)

    def measure_pixels(self, n_steps: int) -> None:
        """Let the policy standardise pixels by what random play shows.

        Args:
            n_steps: Env steps of it.
        """
        assert self.env is not None
        assert self.seed is not None
        play_seed, env_seed = self.loop.reseed(self.seed, 0)
        images = statistics.random_play(self.env, n_steps, play_seed, env_seed)
        self.loop.view = ObservationView.of_images(torch.as_tensor(images, device=self.device))

    def to_tensor(self, obs: Any) -> Tensor:
        """Move observations to the device; images stay bytes."""
        return torch.as_tensor(np.ascontiguousarray(obs), device=self.device, dtype=self.loop.obs_dtype)

    # -- segments -------------------------------------------------------------------------------

    def begin_segment(self, segment: int) -> None:
        """Start a segment of the run: re-seed everything random and reset the envs."""
        self._seed_segment(segment)
        if self.env is not None and segment:
            self._last_obs = self._reset_env()

    def _seed_segment(self, segment: int) -> None:
        """Seed a segment, and leave it to `learn` to reset the envs."""
        self.segment = segment
        assert self.seed is not None
        _, env_seed = self.loop.reseed(self.seed, segment)
        self._last_obs = None
        if self.env is not None:
            self.env.seed(env_seed)

    def _reset_env(self) -> np.ndarray:
        assert self.env is not None
        obs = self.env.reset()
        assert isinstance(obs, np.ndarray)
        self._last_episode_starts = np.ones(self.n_envs, dtype=bool)
        return obs

    def save_checkpoint(self, path: str | PathLike[str]) -> None:
        """Write all that the run's future depends on, and go on with a new segment.

        The file is written to a temporary name and then renamed, so it is never half there.

        Args:
            path: File to write; an older checkpoint there is replaced.
        """
        if distributed.rank() == 0:
            checkpoint.write(Path(path), self.state())
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
        state = checkpoint.read(Path(path))
        with checkpoint.refusing_misfits(f'The checkpoint "{path}"'):
            self.load_state(state)
            segment = int(state["segment"])
        self.begin_segment(segment)

    def state(self) -> dict[str, Any]:
        """Return all that the run's future depends on, as plain data for a checkpoint."""
        return {
            "loop": self.loop.state(),
            "critic": self.policy.critic.state_dict(),
            "segment": self.segment + 1,
            "num_timesteps": self.num_timesteps,
            "n_updates": self._n_updates,
            "wall_clock_s": self.wall_clock_s,
            "episodes": [[float(e["r"]), int(e["l"])] for e in self.ep_info_buffer or ()],
            "statistics": self._statistics or statistics.state(self.get_vec_normalize_env()),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned, into an object of the same settings; `begin_segment` comes next.

        Raises:
            KeyError: Something is missing.
            RuntimeError: A tensor is missing or of another shape.
            ValueError: The optimiser's groups are others.
        """
        self.loop.load_state(state["loop"])
        self.policy.critic.load_state_dict(state["critic"])
        self.num_timesteps = state["num_timesteps"]
        self._n_updates = state["n_updates"]
        self.earlier_s = state["wall_clock_s"]
        episodes = ({"r": r, "l": length} for r, length in state["episodes"])
        self.ep_info_buffer = deque(episodes, maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(maxlen=self._stats_window_size)
        if self.env is None:
            self._statistics = dict(state["statistics"])
        else:
            statistics.load_state(self.get_vec_normalize_env(), state["statistics"])

    # -- the clock ------------------------------------------------------------------------------

    def _check_schedules(self) -> None:
        """Call every schedule once, so that one that fails does so before the first env step."""
        self.loop.optimizer.set_rates(1.0)

    @property
    def wall_clock_s(self) -> float:
        """Seconds spent in `learn`, over all resumptions; the clock never runs backwards."""
        return self.earlier_s + (0.0 if self._began is None else time.monotonic() - self._began)

    def learn(
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "PPMO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Distil for ``total_timesteps`` env steps; arguments as for SB3's algorithms.

        Returns:
            This object.
        """
        self._check_schedules()
        self._began = time.monotonic()
        try:
            return super().learn(
                total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
            )
        finally:
            self.earlier_s, self._began = self.wall_clock_s, None
