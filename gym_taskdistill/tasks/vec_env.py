"""The adapters from gymnasium's vector envs, and from EnvPool's, to SB3's `VecEnv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from gym_taskdistill.errors import TaskDistillError


class GymnasiumVecEnv(VecEnv):
    """A gymnasium `VectorEnv` with SB3's semantics.

    Resets in the same step; ``infos[i]["terminal_observation"]`` holds a copy of the last observation of a
    finished episode, and ``infos[i]["TimeLimit.truncated"]`` tells whether a time limit ended it.

    Args:
        venv: A vector env in `AutoresetMode.SAME_STEP`.
        info_keys: Numbers in the vector env's info that every ``infos[i]`` shall hold too.

    Raises:
        TaskDistillError: The env resets in another way.

    >>> import gymnasium as gym, numpy as np
    >>> from gymnasium.vector import AutoresetMode
    >>> kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP}
    >>> venv = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync", vector_kwargs=kwargs)
    >>> GymnasiumVecEnv(venv).reset().shape
    (2, 4)
    """

    def __init__(self, venv: VectorEnv, info_keys: Sequence[str] = ()) -> None:
        mode = venv.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise TaskDistillError(
                f"SB3 needs vector envs that reset in the same step, but {venv} has autoreset mode {mode}; "
                "make it with autoreset_mode=AutoresetMode.SAME_STEP."
            )
        self._info_keys = tuple(info_keys)
        self._wrap(venv)

    def _wrap(self, venv: VectorEnv) -> None:
        self.venv = venv
        self.actions: np.ndarray | None = None
        self.render_mode = venv.render_mode
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    @property
    def spec(self) -> gym.envs.registration.EnvSpec | None:
        """The spec of the wrapped env."""
        return self.venv.spec

    def reset(self) -> VecEnvObs:
        """Reset all envs, with the seed last given to `seed` if there is one."""
        obs, _ = self.venv.reset(seed=self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all envs; see the class for what the infos hold."""
        obs, rewards, terminated, truncated, info = self.venv.step(self.actions)
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for key in self._info_keys:
            for own, value in zip(infos, info[key].tolist(), strict=True):
                own[key] = value
        for i in np.flatnonzero(dones):
            infos[i]["terminal_observation"] = np.array(info["final_obs"][i])
            infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return obs, np.asarray(rewards, dtype=np.float32), dones, infos

    def close(self) -> None:
        """Close the wrapped env."""
        self.venv.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a frame of each env, or nothing if the env does not render arrays."""
        frames: Any = None if self.render_mode is None else self.venv.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the wrapped vector env, once for each env asked for."""
        value = getattr(self.venv, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the wrapped vector env, which all its envs share."""
        setattr(self.venv, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the wrapped vector env, once; each env asked for gets its result."""
        result = getattr(self.venv, method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Say that no single env is wrapped: a vector env computes all of them at once."""
        return [False for _ in self._get_indices(indices)]


class EnvPoolVecEnv(GymnasiumVecEnv):
    """An EnvPool with SB3's semantics, as `GymnasiumVecEnv` gives them.

    EnvPool resets in the next step and takes its seed at construction. Finished envs are therefore reset by
    hand at once, and a reset that follows `seed` makes the pool anew.

    Args:
        make: Makes the pool from a seed.
        spec: The gymnasium env that the pool computes.
        seed: Seed of the first pool.
    """

    def __init__(self, make: Callable[[int], Any], spec: gym.envs.registration.EnvSpec, seed: int) -> None:
        self._make, self._spec = make, spec
        self._wrap(make(seed))

    @property
    def spec(self) -> gym.envs.registration.EnvSpec | None:
        """The spec of the gymnasium env, not EnvPool's own."""
        return self._spec

    def reset(self) -> VecEnvObs:
        """Reset all envs, with the seed last given to `seed` if there is one."""
        if self._seeds[0] is not None:
            self.venv.close()
            self.venv = self._make(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        obs, _ = self.venv.reset()
        return np.array(obs)

    def step_wait(self) -> VecEnvStepReturn:
        """Step all envs and reset those that end."""
        obs, rewards, terminated, truncated, _ = self.venv.step(self.actions)
        obs = np.array(obs)  # the pool writes the next step into the same memory
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(dones).astype(np.int32)
        if ended.size:
            for i in ended:
                infos[i]["terminal_observation"] = obs[i].copy()
                infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
            pool: Any = self.venv  # EnvPool's reset takes the envs to reset where gymnasium's takes a seed
            obs[ended], _ = pool.reset(ended)
        return obs, np.asarray(rewards, dtype=np.float32), dones, infos

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return the spec once for each env asked for; a pool's envs have no other attributes.

        Raises:
            AttributeError: Another attribute is asked for.
        """
        if attr_name not in ("spec", "render_mode"):
            raise AttributeError(f"The envs of an EnvPool have no attribute {attr_name!r}.")
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]
