"""Atari games many at once, and what training on them adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvObs, VecEnvStepReturn

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.atari.games import FRAME_SKIP, atari_spec, game_arguments, made_spec, rom_errors
from gym_taskdistill.tasks.vec_env import GymnasiumVecEnv


class _SameStepAtari(AtariVectorEnv):
    """ALE's vector env, resetting in the same step."""

    def __init__(self, **kwargs: Any) -> None:
        # Its own: ALE writes the mode into what is otherwise the metadata of all vector envs.
        self.metadata = {}
        super().__init__(autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)


class AtariVecEnv(GymnasiumVecEnv):
    """ALE's vector env of a game with SB3's semantics; `make_atari_env` makes the single env alike.

    Raw rewards and whole games; ``infos[i]["lives"]`` tells the lives left, after a game those of the next
    one. Needs no OpenCV.

    Args:
        env_id: ``"PongNoFrameskip-v4"`` or ``"ALE/Pong-v5"``.
        num_envs: Number of games.
        num_threads: CPU threads that emulate them.
        **kwargs: As for `make_atari_env`.

    Raises:
        TaskDistillError: There is no such game or argument, or no env is asked for.

    >>> AtariVecEnv("PongNoFrameskip-v4", 2).reset().shape
    (2, 4, 84, 84)
    """

    def __init__(self, env_id: str, num_envs: int, num_threads: int = 1, **kwargs: Any) -> None:
        spec = atari_spec(env_id)
        if num_envs < 1:  # which ALE answers with a crash
            raise TaskDistillError(f"A vector env of {env_id} needs at least 1 env, not {num_envs}.")
        with rom_errors(spec):
            venv = _SameStepAtari(
                num_envs=num_envs,
                num_threads=num_threads,
                frameskip=FRAME_SKIP,
                reward_clipping=False,
                **game_arguments(spec, kwargs),
            )
        venv.spec = made_spec(spec, kwargs)
        super().__init__(venv)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next reset: column i gets ``seed + i``, for which ALE has 31 bits."""
        seeds = [None if column is None else column % 2**30 for column in super().seed(seed)]
        self._seeds = seeds
        return seeds

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`, in a type that ALE takes."""
        super().step_async(np.asarray(actions, dtype=np.int64))


class AtariTraining(VecEnvWrapper):
    """What helps training on Atari games, and would falsify scores: signs of rewards, and lives as episodes.

    Rewards become -1, 0 or 1. When a life is lost though the game goes on, the step is ``done``, with a
    ``terminal_observation``, and the next one continues the game. Put around a monitored vec-env, whose
    episodes thus stay whole games with raw rewards.

    Args:
        venv: A vec-env whose infos tell ``lives``: `AtariVecEnv`, or a `DummyVecEnv` of `make_atari_env`.
        clip_reward: Keep only the signs of rewards. Without, what scores most is worth most; scale them then,
            by SB3's `VecNormalize` for one.
    """

    def __init__(self, venv: VecEnv, clip_reward: bool = True) -> None:
        super().__init__(venv)
        self.clip_reward = clip_reward
        self._lives = np.zeros(self.num_envs, dtype=np.int64)

    def reset(self) -> VecEnvObs:
        """Reset all envs."""
        self._lives[:] = 0  # unknown until the first step, in which no life can be lost
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Step all envs; see the class for what changes."""
        obs, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(obs, np.ndarray)
        lives = np.array([info["lives"] for info in infos])
        # Some games stand at 0 lives for some frames before they end: not an episode of its own.
        lost = (lives > 0) & (lives < self._lives) & ~dones
        infos = list(infos)
        for i in np.flatnonzero(lost):
            infos[i] = {
                **infos[i],
                "terminal_observation": obs[i].copy(),
                "TimeLimit.truncated": False,
            }
        self._lives = np.where(dones, 0, lives)
        return obs, np.sign(rewards) if self.clip_reward else rewards, dones | lost, infos
