"""Adapters to SB3's `VecEnv`, of gymnasium's vector envs and EnvPool's, and to flat spaces."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecTransposeImage
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
        if isinstance(layer, FlatVecEnv | VecTransposeImage):
            outer = layer.venv.observation_space, layer.venv.action_space
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


#: What vector envs that reset in the same step tell of the last one, apart from what else they tell.
_FINAL = ("final_obs", "final_info")


class GymnasiumVecEnv(VecEnv):
    """A gymnasium `VectorEnv` with SB3's semantics.

    Resets in the same step; ``infos[i]["terminal_observation"]`` holds a copy of the last observation of a
    finished episode, and ``infos[i]["TimeLimit.truncated"]`` tells whether a time limit ended it. What else
    the vector env tells of an env is in its ``infos[i]`` and ``reset_infos[i]`` too.

    Attributes and methods are those of the single envs where the vector env has such, as a `SyncVectorEnv`
    has; else they are its own, the same for all.

    Args:
        venv: A vector env in `AutoresetMode.SAME_STEP`.

    Raises:
        TaskDistillError: The env resets in another way.

    >>> import gymnasium as gym, numpy as np
    >>> from gymnasium.vector import AutoresetMode
    >>> kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP}
    >>> venv = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync", vector_kwargs=kwargs)
    >>> GymnasiumVecEnv(venv).reset().shape
    (2, 4)
    """

    def __init__(self, venv: VectorEnv) -> None:
        mode = venv.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise TaskDistillError(
                f"SB3 needs vector envs that reset in the same step, but {venv} has autoreset mode {mode}; "
                "make it with autoreset_mode=AutoresetMode.SAME_STEP."
            )
        self._wrap(venv)

    def _wrap(self, venv: VectorEnv) -> None:
        self.venv = venv
        self.actions: Any = None
        self.render_mode = venv.render_mode
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    @property
    def spec(self) -> gym.envs.registration.EnvSpec | None:
        """The spec of the wrapped env."""
        return self.venv.spec

    def _envs(self, indices: VecEnvIndices) -> list[Any]:
        """Return what has the attributes of each env asked for: the env, or the vector env."""
        base = self.venv.unwrapped
        envs = base.envs if isinstance(base, SyncVectorEnv) else [self.venv] * self.num_envs
        return [envs[i] for i in self._get_indices(indices)]

    def reset(self) -> VecEnvObs:
        """Reset all envs, with the seed and the options last given to `seed` and `set_options`.

        Raises:
            TaskDistillError: The options differ from env to env, and the vector env has no single envs.
        """
        options = [own or {} for own in self._options]
        shared = options[0] if all(own == options[0] for own in options) else None
        if shared is None and not isinstance(self.venv.unwrapped, SyncVectorEnv):
            raise TaskDistillError(
                "A vector env resets all its envs with the same options; give set_options one dictionary."
            )
        venv: Any = self.venv  # a `SyncVectorEnv` takes a list of seeds
        obs, info = venv.reset(seed=self._seeds[0], options=shared or None)
        self.reset_infos = _infos(info, self.num_envs)
        for i, own in enumerate(options if shared is None else ()):
            if own:
                mask = np.arange(self.num_envs) == i
                obs, info = venv.reset(seed=list(self._seeds), options={**own, "reset_mask": mask})
                self.reset_infos[i] = _infos(info, self.num_envs)[i]
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: Any) -> None:
        """Keep the actions for `step_wait`: an array, or a list of single ones of any space."""
        if isinstance(actions, list) and isinstance(self.action_space, gym.spaces.Dict | gym.spaces.Tuple):
            batch: Any = create_empty_array(self.action_space, len(actions))
            actions = concatenate(self.action_space, actions, batch)
        self.actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all envs; see the class for what the infos hold."""
        obs, rewards, terminated, truncated, info = self.venv.step(self.actions)
        dones = terminated | truncated
        infos = _infos({k: v for k, v in info.items() if k.lstrip("_") not in _FINAL}, self.num_envs)
        final_infos = _infos(info["final_info"], self.num_envs) if "final_info" in info else None
        for i in np.flatnonzero(dones):
            if final_infos is not None:  # and what stands beside it tells of the episode that has begun
                self.reset_infos[i], infos[i] = infos[i], final_infos[i]
            infos[i]["terminal_observation"] = copy.deepcopy(info["final_obs"][i])
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
        """Return an attribute of each env asked for."""
        return [_attribute(env, attr_name) for env in self._envs(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each env asked for; where a vector env has no single envs, of all."""
        for env in self._envs(indices):
            setattr(env, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of each env asked for; where a vector env has no single envs, its own, once."""
        results = {
            id(env): _attribute(env, method_name)(*args, **kwargs)
            for env in {id(env): env for env in self._envs(indices)}.values()
        }
        return [results[id(env)] for env in self._envs(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Say of each env asked for whether it has a wrapper; where there are no single envs, none has."""
        return [isinstance(env, gym.Env) and is_wrapped(env, wrapper_class) for env in self._envs(indices)]


def _attribute(env: gym.Env[Any, Any] | VectorEnv, name: str) -> Any:
    return env.get_wrapper_attr(name) if isinstance(env, gym.Env) else getattr(env, name)


def _infos(info: Mapping[str, Any], n_envs: int) -> list[dict[str, Any]]:
    """Return what a vector env's info tells of each env; ``_key`` says for which of them ``key`` holds."""
    infos: list[dict[str, Any]] = [{} for _ in range(n_envs)]
    for key, value in info.items():
        if key.startswith("_") and key[1:] in info:
            continue
        values = _infos(value, n_envs) if isinstance(value, Mapping) else list(value)
        for own, of_env, holds in zip(infos, values, info.get(f"_{key}", [True] * n_envs), strict=True):
            if holds:
                own[key] = of_env.item() if isinstance(of_env, np.generic) else of_env
    return infos


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
