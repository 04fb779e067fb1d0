"""A task T_0: an environment, how to make it, and whether a dataset fits it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.util import find_spec
from multiprocessing import current_process
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from gym_taskdistill.errors import TaskDistillError, did_you_mean, import_extra
from gym_taskdistill.machine import jobs
from gym_taskdistill.safe_yaml import shortened
from gym_taskdistill.tasks.atari.games import checked_obs_type, is_atari, registered
from gym_taskdistill.tasks.processes import ProcessVecEnv
from gym_taskdistill.tasks.spaces import flat_action_space, flat_observation_space
from gym_taskdistill.tasks.vec_env import ColumnsVecEnv, EnvPoolVecEnv, GymnasiumVecEnv, flat_vec_env
from gym_taskdistill.tasks.wrappers import wrapper_class

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
    """An environment: its id, arguments and wrappers, or a function that makes it.

    Atari games come preprocessed, single and vectorised alike: see `make_atari_env`. `as_task` makes a task
    of an id or of a function.

    Attributes:
        env_id: A registered id, with or without its module: ``"gym_taskdistill:CartPoleND-v0"``.
        env_kwargs: Keyword arguments for `gymnasium.make` (``max_episode_steps`` among them), or for
            `make_atari_env`; plain data.
        wrappers: What is put around it, first to last: mappings of ``entry_point`` (``"module:Class"``) and
            ``kwargs``, plain data.
        unrecorded: What of the env these cannot tell; empty if they tell all. It can then be made by the
            factory alone.
        factory: A function that makes the env; it may take ``render_mode``.

    >>> Task("CartPoleND-v0", {"n": 2}).action_space
    Discrete(4)
    """

    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[Mapping[str, Any], ...] = ()
    unrecorded: str = ""
    factory: Callable[..., gym.Env[Any, Any]] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        """Return the id with its arguments and wrappers, such as ``CartPoleND-v0 n=2``."""
        arguments = (f"{k}={v}" for k, v in self.env_kwargs.items())
        return " ".join([self.env_id, *arguments, *wrapper_names(self.wrappers)])

    @cached_property
    def spec(self) -> EnvSpec:
        """The env's registration.

        Raises:
            TaskDistillError: No env has this id, or its module cannot be imported.
        """
        if self.unrecorded:
            raise TaskDistillError(
                f"{self} cannot be made by its name, for {self.unrecorded}: give the environment as a "
                "function that makes it, such as evaluate(dataset, env=make_env)."
            )
        return registered(self.env_id)

    @cached_property
    def _wrapper_classes(self) -> tuple[type[gym.Wrapper[Any, Any, Any, Any]], ...]:
        # Found once: other processes get them with the task, and trust what this one does.
        return tuple(wrapper_class(str(wrapper["entry_point"])) for wrapper in self.wrappers)

    @cached_property
    def _spaces(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        # The vector env of an Atari game needs no OpenCV.
        env = self.make_env() if self._make_native is None else self._make_native(1, 1)
        env.close()
        return env.observation_space, env.action_space

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one observation, as the env has it."""
        return self._spaces[0]

    @property
    def action_space(self) -> gym.Space[Any]:
        """Space of one action, as the env has it."""
        return self._spaces[1]

    @property
    def flat_observation_space(self) -> gym.spaces.Box:
        """Space of what vec-envs of the task show; see `flat_observation_space`.

        Raises:
            TaskDistillError: The env's own space has no vectors of a fixed size.
        """
        return flat_observation_space(self.observation_space)

    @property
    def flat_action_space(self) -> gym.Space[Any]:
        """Space of the actions that vec-envs of the task take; see `flat_action_space`.

        Raises:
            TaskDistillError: The env's own space is not supported.
        """
        return flat_action_space(self.action_space)

    @property
    def is_vectorised(self) -> bool:
        """Whether the env computes many copies at once, so that thousands of columns are cheap."""
        return self._make_native is not None

    @property
    def _is_atari(self) -> bool:
        return self.factory is None and is_atari(self.spec)

    def make_env(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Make a single gymnasium env, with its own spaces.

        Raises:
            TaskDistillError: The env does not exist, refuses its arguments, or cannot be made by its name.
        """
        if self.factory is not None:
            return call_factory(self.factory, render_mode)
        kwargs = dict(self.env_kwargs)
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        try:
            if self._is_atari:
                # Late: the wrappers bring the whole of the library along.
                from gym_taskdistill.tasks.atari.env import make_atari_env

                env = make_atari_env(self.env_id, **kwargs)
            else:
                env = gym.make(self.spec, **kwargs)
            for wrapper, described in zip(self._wrapper_classes, self.wrappers, strict=True):
                env = wrapper(env, **described.get("kwargs", {}))
            return env
        except (TypeError, ValueError, ImportError, gym.error.Error) as error:
            raise TaskDistillError(f"{self} cannot be made: {error}") from None
        except (MemoryError, OverflowError) as error:
            raise self._too_large(error) from None

    def make_vec_env(
        self,
        n_envs: int,
        seed: int | None = None,
        backend: str = "gymnasium",
        training: bool = False,
        clip_reward: bool = True,
        step_cap: int | None = None,
        n_jobs: int | None = None,
    ) -> VecEnv:
        """Make ``n_envs`` copies behind SB3's `VecEnv`, with flat spaces and episode statistics.

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
            step_cap: Steps after which episodes are truncated, if the env has no time limit; ``infos`` tell
                it as ``step_cap``.
            n_jobs: Cores that compute the columns: threads of EnvPool and of ALE, processes where SB3's
                `DummyVecEnv` would step one env after the other, nothing more of our own vector envs. The
                results are the same for any number. -1 for all cores, ``None`` for what `use_threads` has
                set.

        Raises:
            TaskDistillError: The env cannot be made, or not by this backend.
        """
        if backend not in BACKENDS:
            raise TaskDistillError(
                f'There is no backend "{backend}"; use one of {", ".join(BACKENDS)}.'
                f"{did_you_mean(backend, BACKENDS)}"
            )
        n_jobs = min(jobs(n_jobs), max(1, n_envs))
        if backend == "envpool" or (backend == "auto" and self._in_envpool):
            return self._make_pool(n_envs, seed, n_jobs)
        vec_env: VecEnv
        if self._make_native is not None:
            vec_env = VecMonitor(self._make_native(n_envs, n_jobs))
            vec_env.seed(seed)
        elif n_jobs > 1 and not current_process().daemon:  # daemons may have no processes of their own
            self._wrapper_classes  # noqa: B018  (found before the task is sent)
            vec_env = ProcessVecEnv(partial(self._make_columns, seed, step_cap), n_envs, n_jobs)
            vec_env.seed(seed)
        else:
            vec_env = self._make_columns(seed, step_cap, 0, n_envs)
        if training and self._is_atari:
            from gym_taskdistill.tasks.atari.vec_env import AtariTraining

            return AtariTraining(vec_env, clip_reward)
        return vec_env

    def _make_columns(self, seed: int | None, step_cap: int | None, first: int, n_envs: int) -> VecEnv:
        return make_vec_env(
            lambda: self._make_flat(step_cap),
            n_envs=n_envs,
            seed=seed,
            start_index=first,
            vec_env_cls=ColumnsVecEnv,
        )

    def _make_flat(self, step_cap: int | None) -> gym.Env[Any, Any]:
        env = self.make_env()
        if step_cap is not None and not has_time_limit(env):
            env = StepCap(env, step_cap)
        flat = flat_vec_env(env)
        assert isinstance(flat, gym.Env)
        return flat

    @property
    def _has_pool(self) -> bool:
        """Whether EnvPool has a faithful copy, installed or not."""
        bare = self.factory is None and not self.env_kwargs and not self.wrappers
        return bare and self.spec.id in ENVPOOL_TASKS

    @property
    def _in_envpool(self) -> bool:
        return self._has_pool and find_spec("envpool") is not None

    def _make_pool(self, n_envs: int, seed: int | None, n_threads: int) -> VecEnv:
        if not self._has_pool:
            raise TaskDistillError(
                f'EnvPool has no faithful copy of {self}; use backend="gymnasium". It has those of '
                f"{', '.join(ENVPOOL_TASKS)}, without arguments."
            )
        envpool = import_extra("envpool", "fast", "Pools of environments")

        def make(pool_seed: int) -> Any:
            return envpool.make_gymnasium(
                self.spec.id,
                num_envs=n_envs,
                num_threads=n_threads,
                seed=pool_seed % 2**31,
                max_episode_steps=self.spec.max_episode_steps,
                # Without it v4 leaves out the contact forces that gymnasium's envs observe.
                post_constraint=True,
            )

        first = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        return VecMonitor(EnvPoolVecEnv(make, self.spec, first))

    @property
    def _make_native(self) -> Callable[[int, int], GymnasiumVecEnv] | None:
        """Our vector env of this task, or ALE's; others' cannot be relied on to reset in the same step."""
        if self.factory is not None or self.unrecorded or self.wrappers:
            return None
        if is_atari(self.spec):
            pixels = checked_obs_type(self.env_kwargs.get("obs_type", "pixels")) == "pixels"
            return self._make_pixels if pixels else None
        entry_point = self.spec.vector_entry_point
        ours = isinstance(entry_point, str) and entry_point.startswith("gym_taskdistill.")
        return self._make_own if ours else None

    def _make_pixels(self, n_envs: int, n_threads: int) -> GymnasiumVecEnv:
        from gym_taskdistill.tasks.atari.vec_env import AtariVecEnv

        kwargs = {k: v for k, v in self.env_kwargs.items() if k != "obs_type"}
        return AtariVecEnv(self.env_id, n_envs, n_threads, **kwargs)

    def _make_own(self, n_envs: int, n_threads: int) -> GymnasiumVecEnv:
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
        except (MemoryError, OverflowError) as error:
            raise self._too_large(error, n_envs) from None
        venv.spec = copy.deepcopy(self.spec)
        venv.spec.kwargs.update(self.env_kwargs)
        return GymnasiumVecEnv(venv)

    def _too_large(self, error: BaseException, n_envs: int = 1) -> TaskDistillError:
        copies = "" if n_envs == 1 else f", {n_envs} times,"
        reason = shortened(str(error).rstrip(".")) or "no memory is left"
        return TaskDistillError(
            f"{self}{copies} is too large for this machine ({reason}); use smaller arguments or fewer copies."
        )


def wrapper_names(wrappers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return wrappers as texts name them, such as ``+FlattenObservation``."""
    return [f"+{wrapper['entry_point'].rpartition(':')[2]}" for wrapper in wrappers]


def call_factory(
    factory: Callable[..., gym.Env[Any, Any]], render_mode: str | None = None
) -> gym.Env[Any, Any]:
    """Make an env by a function of one's own.

    Args:
        factory: The function, or the env's class.
        render_mode: Passed on if the function takes it.

    Raises:
        TaskDistillError: It makes something else, or no env that draws itself in this way.
    """
    parameters = inspect.signature(factory).parameters
    takes = "render_mode" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    env = factory(render_mode=render_mode) if takes and render_mode is not None else factory()
    name = getattr(factory, "__name__", type(factory).__name__)
    if not isinstance(env, gym.Env):
        raise TaskDistillError(
            f"{name}() must return a gymnasium environment, but returns a {type(env).__name__}."
        )
    if render_mode is not None and env.render_mode != render_mode:
        env.close()
        raise TaskDistillError(
            f'{name}() must take render_mode, and make an environment that draws itself with "{render_mode}".'
        )
    return env


class StepCap(gym.Wrapper[Any, Any, Any, Any]):
    """Truncates episodes that go on after some steps, and says so: ``info["step_cap"]`` is then true.

    Args:
        env: The env.
        max_steps: That many steps.
    """

    def __init__(self, env: gym.Env[Any, Any], max_steps: int) -> None:
        super().__init__(env)
        self.max_steps, self._steps = max_steps, 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the env."""
        self._steps = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the env."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        if self._steps < self.max_steps or terminated or truncated:
            return obs, reward, terminated, truncated, info
        return obs, reward, terminated, True, {**info, "step_cap": True}


def has_time_limit(env: gym.Env[Any, Any]) -> bool:
    """Whether some wrapper of an env ends episodes that would else go on, as `TimeLimit` does."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit) or type(env).__name__ == "AtariEpisode":
            return True
        env = env.env
    return False
