"""A task T_0: an environment, how to make it, and whether a dataset fits it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.tasks.atari.games import checked_obs_type, is_atari, registered
from gym_taskdistill.tasks.vec_env import EnvPoolVecEnv, GymnasiumVecEnv

#: What can compute the columns of a vec-env; see `Task.make_vec_env`.
BACKENDS = ("auto", "gymnasium", "envpool")

_MUJOCO = (
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "Reacher",
    "Swimmer",
    "Walker2d",
)

#: Tasks whose copies in EnvPool behave as gymnasium's do; tests/test_envpool.py compares them.
ENVPOOL_TASKS = (*(f"{name}-v4" for name in _MUJOCO), *(f"{name}-v5" for name in (*_MUJOCO, "Pusher")))


@dataclass(frozen=True)
class Task:
    """An environment by its id and keyword arguments.

    Atari games come preprocessed, single and vectorised alike: see `make_atari_env`.

    Attributes:
        env_id: A registered id, with or without its module: ``"gym_taskdistill:CartPoleND-v0"``.
        env_kwargs: Keyword arguments for `gymnasium.make`, or for `make_atari_env`; plain data.

    >>> Task("CartPoleND-v0", {"n": 2}).action_space
    Discrete(4)
    """

    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the id with its arguments, such as ``CartPoleND-v0 n=2``."""
        return " ".join([self.env_id, *(f"{k}={v}" for k, v in self.env_kwargs.items())])

    @cached_property
    def spec(self) -> EnvSpec:
        """The env's registration.

        Raises:
            TaskDistillError: No env has this id, or its module cannot be imported.
        """
        return registered(self.env_id)

    @cached_property
    def _spaces(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        # The vector env of an Atari game needs no OpenCV.
        env = self.make_env() if self._make_native is None else self._make_native(1)
        env.close()
        return env.observation_space, env.action_space

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one observation."""
        return self._spaces[0]

    @property
    def action_space(self) -> gym.Space[Any]:
        """Space of one action."""
        return self._spaces[1]

    @property
    def is_vectorised(self) -> bool:
        """Whether the env computes many copies at once, so that thousands of columns are cheap."""
        return self._make_native is not None

    def make_env(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Make a single gymnasium env.

        Raises:
            TaskDistillError: The env does not exist or refuses its arguments.
        """
        kwargs = dict(self.env_kwargs)
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        try:
            if is_atari(self.spec):
                # Late: the wrappers bring the whole of the library along.
                from gym_taskdistill.tasks.atari.env import make_atari_env

                return make_atari_env(self.env_id, **kwargs)
            return gym.make(self.spec, **kwargs)
        except (TypeError, ValueError, ImportError, gym.error.Error) as error:
            raise TaskDistillError(f"{self} cannot be made: {error}") from None

    def make_vec_env(
        self,
        n_envs: int,
        seed: int | None = None,
        backend: str = "gymnasium",
        training: bool = False,
        clip_reward: bool = True,
    ) -> VecEnv:
        """Make ``n_envs`` copies behind SB3's `VecEnv`, with episode statistics.

        Args:
            n_envs: Number of columns.
            seed: Seed of the next reset; ``None`` for a random one.
            backend: What computes the envs. ``"gymnasium"``: the official envs, by their own vector env where
                there is one that resets in the same step (for the pixels of Atari games it is ALE's), else by
                SB3's `DummyVecEnv`; scores are reported on these. ``"envpool"``: EnvPool's copies in C++, for
                the tasks of `ENVPOOL_TASKS`. ``"auto"``: EnvPool where it is installed and has the task, else
                gymnasium; for training.
            training: Add what helps training and falsifies scores, that is `AtariTraining` to Atari games;
                the episode statistics stay those of whole games and raw rewards.
            clip_reward: Whether that includes the signs of rewards in place of rewards.

        Raises:
            TaskDistillError: The env cannot be made, or not by this backend.
        """
        if backend not in BACKENDS:
            raise TaskDistillError(
                f'There is no backend "{backend}"; use one of {", ".join(BACKENDS)}.'
                f"{did_you_mean(backend, BACKENDS)}"
            )
        if backend == "envpool" or (backend == "auto" and self._in_envpool):
            return self._make_pool(n_envs, seed)
        if self._make_native is None:
            vec_env: VecEnv = make_vec_env(self.make_env, n_envs=n_envs, seed=seed)
        else:
            vec_env = VecMonitor(self._make_native(n_envs))
            vec_env.seed(seed)
        if training and is_atari(self.spec):
            from gym_taskdistill.tasks.atari.vec_env import AtariTraining

            return AtariTraining(vec_env, clip_reward)
        return vec_env

    @property
    def _in_envpool(self) -> bool:
        known = self.spec.id in ENVPOOL_TASKS and not self.env_kwargs
        return known and find_spec("envpool") is not None

    def _make_pool(self, n_envs: int, seed: int | None) -> VecEnv:
        if self.spec.id not in ENVPOOL_TASKS or self.env_kwargs:
            raise TaskDistillError(
                f'EnvPool has no faithful copy of {self}; use backend="gymnasium". It has those of '
                f"{', '.join(ENVPOOL_TASKS)}, without arguments."
            )
        if find_spec("envpool") is None:
            raise TaskDistillError('EnvPool is not installed; run: pip install "gym-taskdistill[fast]".')
        import envpool

        def make(pool_seed: int) -> Any:
            return envpool.make_gymnasium(
                self.spec.id,
                num_envs=n_envs,
                num_threads=1,
                seed=pool_seed % 2**31,
                max_episode_steps=self.spec.max_episode_steps,
                # Without it v4 leaves out the contact forces that gymnasium's envs observe.
                post_constraint=True,
            )

        first = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        return VecMonitor(EnvPoolVecEnv(make, self.spec, first))

    @property
    def _make_native(self) -> Callable[[int], GymnasiumVecEnv] | None:
        """Our vector env of this task, or ALE's; others' cannot be relied on to reset in the same step."""
        if is_atari(self.spec):
            pixels = checked_obs_type(self.env_kwargs.get("obs_type", "pixels")) == "pixels"
            return self._make_pixels if pixels else None
        entry_point = self.spec.vector_entry_point
        ours = isinstance(entry_point, str) and entry_point.startswith("gym_taskdistill.")
        return self._make_own if ours else None

    def _make_pixels(self, n_envs: int) -> GymnasiumVecEnv:
        import torch

        from gym_taskdistill.tasks.atari.vec_env import AtariVecEnv

        kwargs = {k: v for k, v in self.env_kwargs.items() if k != "obs_type"}
        # As many threads emulate as compute: one by default, and the same observations with any number.
        return AtariVecEnv(self.env_id, n_envs, torch.get_num_threads(), **kwargs)

    def _make_own(self, n_envs: int) -> GymnasiumVecEnv:
        assert isinstance(self.spec.vector_entry_point, str)
        limit = {"max_episode_steps": self.spec.max_episode_steps}
        try:
            venv: Any = load_env_creator(self.spec.vector_entry_point)(
                num_envs=n_envs,
                autoreset_mode=AutoresetMode.SAME_STEP,
                **{**limit, **self.spec.kwargs, **self.env_kwargs},
            )
        except (TypeError, ValueError) as error:
            raise TaskDistillError(f"{self} cannot be made: {error}") from None
        venv.spec = copy.deepcopy(self.spec)
        venv.spec.kwargs.update(self.env_kwargs)
        return GymnasiumVecEnv(venv)
