"""What an environment is, written down: the task of an id, of a function, or of a vec-env."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from stable_baselines3.common.vec_env import (
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
)

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.atari.games import is_atari, registered
from gym_taskdistill.tasks.task import Task, call_factory
from gym_taskdistill.tasks.vec_env import FlatVecEnv
from gym_taskdistill.tasks.wrappers import TRANSPARENT, UnrecordedError, describe, plain_arguments

#: What names an environment wherever one is asked for: a task, an id, or a function that makes it.
EnvArg = Task | str | Callable[..., gym.Env[Any, Any]]

#: Vec-env wrappers that change nothing, or whose statistics become part of the dataset.
_KNOWN_WRAPPERS = (VecMonitor, VecCheckNan, VecNormalize, VecTransposeImage, VecVideoRecorder, FlatVecEnv)


def as_task(env: EnvArg) -> Task:
    """Return the task that is meant by an id, or by a function that makes an env.

    Raises:
        TaskDistillError: It is neither, or the function makes no env.

    >>> as_task("CartPole-v1")
    Task(env_id='CartPole-v1', env_kwargs={}, wrappers=(), unrecorded='')
    >>> str(as_task(lambda: gym.wrappers.FlattenObservation(gym.make("FrozenLake-v1", is_slippery=False))))
    'FrozenLake-v1 is_slippery=False +FlattenObservation'
    """
    if isinstance(env, Task):
        return env
    if isinstance(env, str):
        return Task(env)
    if isinstance(env, gym.Env | VecEnv | gym.vector.VectorEnv) or not callable(env):
        raise TaskDistillError(
            f"A {type(env).__name__} cannot be made again; give an env id, or a function that makes the "
            "environment, such as a class or a lambda."
        )
    made = call_factory(env)
    try:
        name = type(made.unwrapped).__name__
        missing = Task(name, unrecorded="it is not registered with Gymnasium")
        task = missing if made.spec is None else _task_of(made.spec)
    finally:
        made.close()
    return Task(task.env_id, task.env_kwargs, task.wrappers, task.unrecorded, env)


def task_in(env: VecEnv) -> Task:
    """Return the task of a vec-env as far as it can be told; the rest is named as `Task.unrecorded`.

    Never fails and never harms the vec-env: what is learned in it must not hang on its name.
    """
    layers = _layers(env)
    spec, reason = _spec(layers[-1])
    task = Task(_name(layers[-1]), unrecorded=reason) if spec is None else _task_of(spec)
    strange = [type(layer).__name__ for layer in layers[:-1] if not _is_known(layer)]
    if strange and not task.unrecorded:
        return Task(task.env_id, task.env_kwargs, task.wrappers, f"{strange[0]} is around its copies")
    return task


def _is_known(layer: VecEnv) -> bool:
    return isinstance(layer, _KNOWN_WRAPPERS) or type(layer).__module__.startswith("gym_taskdistill.")


def _layers(env: VecEnv) -> list[VecEnv]:
    layers = [env]
    while isinstance(env, VecEnvWrapper):
        env = env.venv
        layers.append(env)
    return layers


class _CannotBeSent(type):
    """Answers `isinstance` by whether an env's registration cannot be pickled."""

    def __instancecheck__(cls, env: Any) -> bool:
        try:
            pickle.dumps(env.spec)
        except Exception:  # pickle raises errors of every kind
            return True
        return False


class UnpicklableSpec(metaclass=_CannotBeSent):
    """Stands in for a wrapper class: an env is "wrapped" by it if its registration cannot be pickled.

    A worker of `SubprocVecEnv` that is asked for something that it cannot pickle dies, and the training with
    it. This question is answered there, and the answer is a boolean.
    """


def _spec(base: VecEnv) -> tuple[EnvSpec | None, str]:
    """Return the registration of a vec-env's envs, or why it cannot be had."""
    try:
        if isinstance(base, SubprocVecEnv) and base.env_is_wrapped(UnpicklableSpec, indices=0)[0]:  # type: ignore[arg-type]
            return None, "an argument of it or of its wrappers cannot be sent between processes"
        spec = base.get_attr("spec", indices=0)[0]
    except Exception:  # vec-envs of others raise errors of every kind
        return None, f"{type(base).__name__} does not tell its registration"
    return (spec, "") if isinstance(spec, EnvSpec) else (None, "it is not registered with Gymnasium")


def _name(base: VecEnv) -> str:
    """Return the id or the class of a vec-env's envs, as far as it can be told."""
    try:
        # "<TimeLimit<OrderEnforcing<CartPoleEnv<CartPole-v1>>>>", "<MyEnv instance>"
        text = str(base.env_method("__str__", indices=0)[0])
    except Exception:  # as above
        return type(base).__name__
    found = re.search(r"<([^<>]+)>", text)
    return found[1].removesuffix(" instance") if found else type(base).__name__


def _task_of(spec: EnvSpec) -> Task:
    """Return the task of an env's registration."""
    try:
        own = registered(spec.id)
    except TaskDistillError:
        return Task(spec.id, unrecorded="it is not registered with Gymnasium under this id")
    if is_atari(own) and "game" in spec.kwargs:
        return Task(spec.id, unrecorded="it is made by gymnasium.make, but tasks preprocess Atari games")
    kwargs = {key: value for key, value in spec.kwargs.items() if _is_argument(own, key, value)}
    try:
        env_kwargs = plain_arguments(kwargs)
    except TaskDistillError as error:
        return Task(spec.id, unrecorded=str(error).rstrip("."))
    if spec.max_episode_steps != own.max_episode_steps:
        env_kwargs["max_episode_steps"] = -1 if spec.max_episode_steps is None else spec.max_episode_steps
    bare = Task(spec.id, env_kwargs)
    try:
        wrappers = tuple(describe(wrapper) for wrapper in _own_wrappers(bare, spec))
    except UnrecordedError as error:
        return Task(spec.id, env_kwargs, unrecorded=str(error))
    return Task(spec.id, env_kwargs, wrappers)


def _is_argument(own: EnvSpec, key: str, value: Any) -> bool:
    """Whether an argument says something: not how this run looked at the env, nor what the id says too."""
    is_default = key in own.kwargs and (
        own.kwargs[key] is value or (isinstance(value, bool | int | float | str) and own.kwargs[key] == value)
    )
    return key != "render_mode" and not is_default


def _own_wrappers(bare: Task, spec: EnvSpec) -> list[WrapperSpec]:
    """Return the wrappers that an env has beyond those that come with its id."""
    wrappers = [w for w in spec.additional_wrappers if w.name not in TRANSPARENT]
    if not wrappers:
        return []
    made = bare.make_env()
    made.close()
    assert made.spec is not None
    prior = [w for w in made.spec.additional_wrappers if w.name not in TRANSPARENT]
    if [w.name for w in wrappers[: len(prior)]] != [w.name for w in prior]:
        raise UnrecordedError("its wrappers are not those of its id")
    return wrappers[len(prior) :]
