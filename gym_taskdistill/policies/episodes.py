"""Episodes of agents, recorded as a dataset of Minari for other libraries' offline learners."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from gym_taskdistill.errors import TaskDistillError, import_extra
from gym_taskdistill.policies.acting import Acting
from gym_taskdistill.policies.evaluation import STEP_CAP, Progress
from gym_taskdistill.safe_yaml import shortened
from gym_taskdistill.tasks.task import Task, has_time_limit


def record_minari(
    dataset_id: str,
    task: Task,
    agent_of: Callable[[int], Acting],
    n_episodes: int,
    *,
    name: str,
    deterministic: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Play episodes and write them as a new dataset of Minari.

    Args:
        dataset_id: Its id, such as ``cartpole/distilled-v0``; there must be none of that id yet.
        task: What is played; its environment gives raw observations.
        agent_of: Returns the agent of an episode, counted from 0.
        n_episodes: Full episodes, at least 1. Without a time limit they are cut off after `STEP_CAP` steps.
        name: Who plays, for the dataset's metadata.
        deterministic: Take the most likely action instead of sampling.
        seed: Seed of the environment; each episode counts it up by one.
        progress: Called with the number of finished episodes now and then.

    Returns:
        The folder of the dataset.

    Raises:
        TaskDistillError: Minari is not installed, the id is none or is taken, the environment cannot be made,
            or the dataset cannot be written; then nothing of it is left.
    """
    if n_episodes < 1:
        raise TaskDistillError(f"A recording needs at least 1 episode, not {n_episodes}.")
    minari = import_extra("minari", "minari", "Datasets of Minari")
    folder = _new_folder(dataset_id)
    with contextlib.closing(task.make_env()) as env:
        if env.spec is None:
            raise TaskDistillError(f"{task} has no spec, by which Minari could make it again; register it.")
        buffers = []
        for episode in range(n_episodes):
            buffers.append(_played(env, agent_of(episode), deterministic, seed + episode))
            if progress is not None:
                progress(1)
        _write(minari, dataset_id, folder, buffers, env, name)
    return folder


def _write(
    minari: Any, dataset_id: str, folder: Path, buffers: list[Any], env: gym.Env[Any, Any], name: str
) -> None:
    """Write episodes as a dataset, of which nothing is left if that fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what else may be told about a dataset
            minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                env=env,
                algorithm_name="gym-taskdistill",
                description=f"Episodes of agents that were trained on the distilled rows of {name}.",
                jpeg_encoding=False,
            )
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        reason = shortened((str(error).splitlines() or [type(error).__name__])[0], 200)
        raise TaskDistillError(f'Minari cannot write "{dataset_id}": {reason}') from None


def _new_folder(dataset_id: str) -> Path:
    """Return where a dataset of Minari will lie, if its id is one and is free."""
    if not re.fullmatch(r"([A-Za-z0-9][\w.-]*/)*[A-Za-z0-9][\w.-]*-v\d+", dataset_id, re.ASCII):
        raise TaskDistillError(
            f'"{shortened(dataset_id)}" is no id of a Minari dataset: write name-v0, or group/name-v0.'
        )
    place = import_extra("minari.storage.datasets_root_dir", "minari", "Datasets of Minari").get_dataset_path
    folder = Path(place(dataset_id))
    if folder.exists():
        raise TaskDistillError(
            f'Minari has a dataset "{dataset_id}" already; choose another name or version, such as -v1.'
        )
    return folder


def _played(env: gym.Env[Any, Any], agent: Acting, deterministic: bool, seed: int) -> Any:
    """Play an episode and return it as Minari wants it."""
    buffer = import_extra("minari.data_collector", "minari", "Datasets of Minari").EpisodeBuffer
    obs, _ = env.reset(seed=seed)
    observations, actions = [obs], list[Any]()
    rewards, terminations, truncations = list[float](), list[bool](), list[bool]()
    limit = math.inf if has_time_limit(env) else STEP_CAP
    is_over = False
    while not is_over:
        action, _ = agent.predict(obs, deterministic=deterministic)
        obs, reward, terminated, truncated, _ = env.step(action)
        truncated = truncated or len(actions) + 1 >= limit
        observations.append(obs)
        actions.append(action)
        rewards.append(float(reward))
        terminations.append(bool(terminated))
        truncations.append(bool(truncated))
        is_over = bool(terminated or truncated)
    return buffer(
        seed=seed,
        observations=_joined(env.observation_space, observations),
        actions=_joined(env.action_space, actions),
        rewards=rewards,
        terminations=terminations,
        truncations=truncations,
    )


def _joined(space: gym.Space[Any], items: list[Any]) -> Any:
    """Stack what was seen or done: an array, or a dictionary or tuple of arrays where the space is one."""
    empty: Any = create_empty_array(space, len(items), np.empty)
    joined = concatenate(space, items, empty)
    return list(joined) if isinstance(joined, np.ndarray) else joined
