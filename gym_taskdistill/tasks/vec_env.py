"""Adapters to SB3's `VecEnv`, of gymnasium's vector envs and EnvPool's, and to flat spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.spaces import (
    flat_action_space,
    flat_observation_space,
    flatten,
    is_flat,
    own_actions,
)


class FlatEnv(gym.Wrapper[np.ndarray, Any, Any, Any]):
    """An env with flat observations and actions; see `flat_observation_space` and `flat_action_space`.

    Args:
        env: Any env.

    Raises:
        TaskDistillError: Its spaces are not supported.

    >>> env = FlatEnv(gym.make("FrozenLake-v1"))
    >>> env.reset(seed=0)[0].shape
    (16,)
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.own_spaces = env.observation_space, env.action_space
        self.observation_space = flat_observation_space(env.observation_space)
        self.action_space = flat_action_space(env.action_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the env."""
        obs, info = self.env.reset(seed=seed, options=options)
        return flatten(self.own_spaces[0], [obs])[0], info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Take a flat action."""
        own = own_actions(self.own_spaces[1], np.asarray(action)[None])[0]
        if isinstance(self.own_spaces[1], gym.spaces.Box):
            own = np.asarray(own)  # which a box of a single number wants too
        obs, *rest = self.env.step(own)
        return flatten(self.own_spaces[0], [obs])[0], *rest


class ColumnsVecEnv(DummyVecEnv):
    """SB3's `DummyVecEnv` of envs with flat spaces, whose columns can rest once they are not needed."""

    def rest(self, columns: Sequence[int]) -> None:
        """Step some columns no more until the next reset; the others step as they would have.

        Args:
            columns: Their numbers. What `step` returns of them is their last observation, and a reward of 0.
        """
        last = self._obs_from_buf()
        assert isinstance(last, np.ndarray)  # the spaces are flat
        for column in columns:
            self.envs[column] = _Resting(self.envs[column], last[column])

    def reset(self) -> VecEnvObs:
        """Reset all envs, those at rest among them."""
        self.envs = [env.env if isinstance(env, _Resting) else env for env in self.envs]
        return super().reset()


class _Resting(gym.Wrapper[np.ndarray, Any, np.ndarray, Any]):
    """An env that is not stepped."""

    def __init__(self, env: gym.Env[np.ndarray, Any], obs: np.ndarray) -> None:
        super().__init__(env)
        self.obs = obs

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.obs, 0.0, False, False, {}


class FlatVecEnv(VecEnvWrapper):
    """A vec-env with flat observations and actions, as `FlatEnv` gives them.

    Args:
        venv: Any vec-env.

    Raises:
        TaskDistillError: Its spaces are not supported.
    """

    def __init__(self, venv: VecEnv) -> None:
        self.own_spaces = venv.observation_space, venv.action_space
        super().__init__(
            venv, flat_observation_space(venv.observation_space), flat_action_space(venv.action_space)
        )

    def reset(self) -> VecEnvObs:
        """Reset all envs."""
        return flatten(self.own_spaces[0], self.venv.reset())

    def step_async(self, actions: np.ndarray) -> None:
        """Translate the actions and pass them on."""
        self.venv.step_async(own_actions(self.own_spaces[1], actions))

    def step_wait(self) -> VecEnvStepReturn:
        """Step all envs; terminal observations are flat too."""
        obs, rewards, dones, infos = self.venv.step_wait()
        infos = list(infos)
        for i in np.flatnonzero(dones):
            last = infos[i].get("terminal_observation")
            if last is not None:
                infos[i] = {**infos[i], "terminal_observation": flatten(self.own_spaces[0], [last])[0]}
        return flatten(self.own_spaces[0], obs), rewards, dones, infos


def flat_vec_env(env: VecEnv | gym.Env[Any, Any]) -> VecEnv | gym.Env[Any, Any]:
    """Return an env or a vec-env with flat spaces: itself if it has them.

    Raises:
        TaskDistillError: Its spaces are not supported.
    """
    if is_flat(env.observation_space, env.action_space):
        return env
    return FlatVecEnv(env) if isinstance(env, VecEnv) else FlatEnv(env)


def own_spaces(env: VecEnv) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Return the spaces of a vec-env's single envs, before anything made them flat or moved channels."""
    outer, layer = (env.observation_space, env.action_space), env
    while isinstance(layer, VecEnvWrapper):
        if isinstance(layer, FlatVecEnv):
            outer = layer.own_spaces
        layer = layer.venv
    try:
        # Asked first: a worker of SubprocVecEnv dies of a question for what is not there.
        inner = layer.get_attr("own_spaces", indices=0)[0] if layer.has_attr("own_spaces") else None
    except Exception:  # vec-envs of others raise errors of every kind
        inner = None
    inner = inner or (layer.observation_space, layer.action_space)
    # Wrappers between them may show something else, such as a stack of frames.
    same = flat_observation_space(inner[0]).shape == flat_observation_space(env.observation_space).shape
    return (inner[0] if same else outer[0]), inner[1]


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
        """Reset all envs, with the seed and the options last given to `seed` and `set_options`.

        Raises:
            TaskDistillError: The options differ from env to env.
        """
        options = self._options[0] or None
        if any((own or None) != options for own in self._options):
            raise TaskDistillError(
                "A vector env resets all its envs with the same options; give set_options one dictionary."
            )
        obs, _ = self.venv.reset(seed=self._seeds[0], options=options)
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
        """Reset all envs, with the seed last given to `seed` if there is one.

        Raises:
            TaskDistillError: `set_options` gave options, of which EnvPool has none.
        """
        if any(self._options):
            raise TaskDistillError('EnvPool resets without options; use backend="gymnasium" for them.')
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
