"""Experts: whom to imitate, and recordings of what they would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from gym_taskdistill import trust, zoo
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.lookahead import FROM_RAM, snapshots
from gym_taskdistill.errors import TaskDistillError, import_extra
from gym_taskdistill.files import replacing
from gym_taskdistill.policies.action_distributions import Bernoulli, DiagGaussian, n_outputs
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.tasks.spaces import check_finite, flatten, random_actions, unflatten
from gym_taskdistill.tasks.task import Task

#: Maps a batch of raw observations ``(n, *obs_shape)`` to logits or action means ``(n, n_outputs)``.
Expert = Callable[[Any], np.ndarray]

#: What an expert that only names its action is taken to think of it: logit of that action over the others'.
CHOSEN_LOGIT = 5.0

#: A dataset that is an expert votes with this many learners, drawn with this seed.
EXPERT_LEARNERS, EXPERT_SEED = 8, 4_000_003


class Actor(Protocol):
    """Anything that acts as SB3's algorithms do."""

    def predict(self, observation: np.ndarray) -> tuple[np.ndarray, Any]:
        """Choose an action for each observation."""
        ...


@dataclass(frozen=True)
class Recording:
    """Raw observations of a task, and what an expert would do at each.

    Attributes:
        observations: ``(n, *obs_shape)``, as the env gives them.
        targets: Logits of discrete actions or action means, ``(n, n_outputs)``, float32.
    """

    observations: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        """Number of observations."""
        return len(self.observations)

    @classmethod
    def join(cls, recordings: Sequence[Recording]) -> Recording:
        """Put recordings of one task behind one another."""
        return cls(
            np.concatenate([r.observations for r in recordings]),
            np.concatenate([r.targets for r in recordings]),
        )

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` to a temporary name and rename it, so that it is never half there."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, observations=self.observations, targets=self.targets)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read what `save` wrote.

        Raises:
            TaskDistillError: The file cannot be read, or does not hold a recording.
        """
        what = f'The recording "{path}"'
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                observations, targets = file["observations"], file["targets"]
        except Exception as error:  # of a damaged file zipfile, zlib, struct and NumPy raise what they like
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise TaskDistillError(f"{what} cannot be read: {reason}") from None
        numbers = observations.dtype.kind in "biuf" and targets.dtype.kind == "f"
        if not numbers or not observations.ndim or targets.shape[:1] != observations.shape[:1]:
            raise TaskDistillError(f"{what} does not hold numbers, as many observations as targets.")
        # Images are bytes, and many.
        floats = [array for array in (observations, targets) if array.dtype.kind == "f"]
        if not all(np.isfinite(array).all() for array in floats):
            raise TaskDistillError(f"{what} holds numbers that are not finite.")
        return cls(observations, targets)


def as_expert(model: BaseAlgorithm | DistilledPolicy | Expert) -> Expert:
    """Make an expert of a trained model.

    Args:
        model: A `DistilledPolicy`; any SB3 model, whose action distribution is taken where it has one and
            else its deterministic action; or a function of observations, returned as it is.

    Returns:
        A function from raw observations to logits or action means.

    Raises:
        TaskDistillError: It is none of these.
    """
    if isinstance(model, DistilledPolicy):
        return lambda obs: _parameters(model.distribution(obs))
    if isinstance(model, BaseAlgorithm):
        policy = model.policy
        if isinstance(policy, ActorCriticPolicy):
            return lambda obs: _sb3_parameters(policy, obs)
        return lambda obs: _certain(model, obs)
    if callable(model):
        return model
    raise TaskDistillError(
        f"A {type(model).__name__} is no expert; give a DistilledPolicy, an SB3 model, or a function."
    )


def _parameters(distribution: Any) -> np.ndarray:
    parameters: Tensor
    if isinstance(distribution, DiagGaussian):
        parameters = distribution.mean
    else:
        parameters = distribution.logits if isinstance(distribution, Bernoulli) else distribution.log_probs
    array: np.ndarray = parameters.cpu().numpy()
    return array


def _sb3_parameters(policy: ActorCriticPolicy, obs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        tensor, _ = policy.obs_to_tensor(_own(policy, obs))
        inner: Any = policy.get_distribution(tensor).distribution
    parts = inner if isinstance(inner, list) else [inner]
    parameters = [part.logits if hasattr(part, "logits") else part.mean for part in parts]
    array: np.ndarray = torch.cat(parameters, dim=1).cpu().numpy()
    return array


def _own(policy: BasePolicy, obs: np.ndarray) -> Any:
    """Return observations as an SB3 policy wants them: recordings have flat ones."""
    space = policy.observation_space
    return obs if obs.shape[1:] == space.shape else unflatten(space, obs)


def _certain(model: BaseAlgorithm, obs: np.ndarray) -> np.ndarray:
    actions, _ = model.predict(_own(model.policy, obs), deterministic=True)
    return _named(actions, model.action_space)


def one_action(action: int, space: spaces.Space[Any]) -> Expert:
    """Make an expert that always names the same discrete action.

    In some games that is worth more than what exploration finds in a million steps.

    Raises:
        TaskDistillError: The space has no such action.
    """
    if not isinstance(space, spaces.Discrete) or not 0 <= action < space.n:
        raise TaskDistillError(
            f'The expert "action:{action}" does not fit {space}, which has no such action.'
        )
    logits = np.zeros(int(space.n), dtype=np.float32)
    logits[action] = CHOSEN_LOGIT
    return lambda obs: np.tile(logits, (len(obs), 1))


def load_expert(name: str, action_space: spaces.Space[Any]) -> tuple[Expert, Task | None]:
    """Load an expert by name.

    Args:
        name: A dataset file, a zoo entry, or a model that SB3 saved, with its class: ``ppo:model.zip``. SB3's
            files hold pickled code: they need `trust.allow`. ``action:11`` is `one_action`.
        action_space: The action space of the task that is to be distilled.

    Returns:
        The expert, and the task that it was distilled for where that is known.

    Raises:
        TaskDistillError: There is no such dataset, model or action, or the model is not trusted.
    """
    kind, colon, path = name.partition(":")
    if kind == "action" and path.isdecimal():
        return one_action(int(path), action_space), None
    if colon and path.endswith(".zip"):
        algorithm = getattr(stable_baselines3, kind.upper(), None)
        if algorithm is None or not Path(path).is_file():
            raise TaskDistillError(
                f'There is no SB3 model "{name}"; write its class and its file, such as ppo:model.zip.'
            )
        trust.check(name, f'The expert "{name}"')  # SB3's files hold pickled code
        return as_expert(algorithm.load(path, device="cpu")), None
    dataset = DistilledDataset.load(zoo.resolve(name))
    policy = DistilledPolicy(dataset, seed=EXPERT_SEED).ensemble(EXPERT_LEARNERS)
    return as_expert(policy), dataset.task


def minari_recording(name: str, task: Task) -> Recording:
    """Read a dataset of Minari as a recording: what was done at each observation is what the expert would do.

    Args:
        name: The dataset's id behind ``minari:``, such as ``minari:mujoco/hopper/expert-v0``; it must be
            on this machine already.
        task: What is distilled.

    Raises:
        TaskDistillError: Minari is not installed, has no such dataset, or its spaces are not the task's.
    """
    minari = import_extra("minari", "minari", "Recordings of Minari")
    dataset_id = name.partition(":")[2]
    try:
        dataset = minari.load_dataset(dataset_id)
    except Exception as error:  # it raises errors of many kinds
        reason = (str(error).splitlines() or [""])[0]
        raise TaskDistillError(f'Minari has no dataset "{dataset_id}" here ({reason}).') from None
    found = dataset.observation_space, dataset.action_space
    if [s.shape for s in found] != [task.observation_space.shape, task.action_space.shape]:
        raise TaskDistillError(
            f'The dataset "{dataset_id}" has spaces {found[0]} and {found[1]}, but {task} has '
            f"{task.observation_space} and {task.action_space}."
        )
    episodes = list(dataset.iterate_episodes())
    # An episode's last observation has no action.
    observations = np.concatenate([e.observations[: len(e.actions)] for e in episodes])
    actions = np.concatenate([e.actions for e in episodes])
    return Recording(flatten(task.observation_space, observations), _named(actions, task.action_space))


def _named(actions: np.ndarray, space: spaces.Space[Any]) -> np.ndarray:
    """Return logits that name one discrete action at each observation, or continuous actions as they are."""
    flat = flatten(space, actions).astype(np.float32)
    if isinstance(space, spaces.Box):
        return flat.reshape(len(flat), -1)
    return (2 * flat - 1 if isinstance(space, spaces.MultiBinary) else flat) * np.float32(CHOSEN_LOGIT)


#: Turns an env and its observations into what an expert sees instead.
View = Callable[[VecEnv, np.ndarray], Any]


def recording_env(
    task: Task, n_envs: int, expert_task: Task | None = None, looks_ahead: bool = False
) -> tuple[VecEnv, View | None]:
    """Make the envs of a recording, and the expert's view where it sees something other than the task shows.

    An expert that plays an Atari game by its RAM, or its bits, can teach to play it by its pixels.

    Args:
        task: What is distilled.
        n_envs: Number of envs.
        expert_task: What the expert plays; ``None`` if it sees the task's own observations.
        looks_ahead: Whether the expert is a `Lookahead` of that, which sees the emulators' states.

    Raises:
        TaskDistillError: The expert plays another game.
    """
    if expert_task is None or (expert_task == task and not looks_ahead):
        return task.make_vec_env(n_envs), None
    from_ram = FROM_RAM.get(expert_task.env_kwargs.get("obs_type", "pixels"))
    if expert_task.spec.id != task.spec.id or from_ram is None:
        raise TaskDistillError(f"An expert of {expert_task} cannot play {task}.")
    if looks_ahead:
        return make_vec_env(task.make_env, n_envs=n_envs), snapshots

    def view(env: VecEnv, observations: np.ndarray) -> np.ndarray:
        return from_ram(np.stack([ale.getRAM() for ale in env.get_attr("ale")]))

    return make_vec_env(task.make_env, n_envs=n_envs), view


def record(
    expert: Expert,
    env: VecEnv,
    n_steps: int,
    *,
    behaviour: Actor | None = None,
    beta: float = 0.0,
    noise: float = 0.0,
    view: View | None = None,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Recording:
    """Play and write down what the expert would do.

    Args:
        expert: See `as_expert`.
        env: The task's envs, with raw observations.
        n_steps: Env steps, rounded up to a multiple of the number of envs.
        behaviour: Who plays, such as the learners themselves so that the expert corrects their mistakes
            (DAgger; Ross et al. 2011); by default the expert, sampling discrete actions.
        beta: Fraction of the actions in which the expert stands in for who plays, from 0 to 1.
        noise: Fraction of random actions, which lead the player off its usual path.
        view: What the expert sees instead of the observations, from the env and these.
        seed: Seed of the env and of the actions.
        progress: Called with the number of recorded steps after each step of all envs.

    Returns:
        The recording.

    Raises:
        TaskDistillError: The expert's outputs do not fit the env's actions, or beta is no fraction.
    """
    if not 0 <= beta <= 1:
        raise TaskDistillError(f"beta must lie between 0 and 1, but is {beta!r}.")
    rng = np.random.default_rng(seed)
    env.seed(seed)
    obs = env.reset()
    assert isinstance(obs, np.ndarray)
    rows = -(-n_steps // env.num_envs)
    outputs = n_outputs(env.action_space)
    observations = np.empty((rows, *obs.shape), dtype=obs.dtype)
    targets = np.empty((rows, env.num_envs, outputs), dtype=np.float32)
    for row in range(rows):
        wanted = expert(obs if view is None else view(env, obs))
        if wanted.shape != targets.shape[1:]:
            raise TaskDistillError(
                f"The expert gives outputs of shape {wanted.shape} for {env.num_envs} observations, but the "
                f"env's actions need {targets.shape[1:]}."
            )
        observations[row], targets[row] = obs, wanted
        new_obs, *_ = env.step(_played(obs, wanted, behaviour, beta, noise, env.action_space, rng))
        assert isinstance(new_obs, np.ndarray)
        check_finite(row + 1, observations=new_obs)
        obs = new_obs
        if progress is not None:
            progress((row + 1) * env.num_envs)
    return Recording(observations.reshape(-1, *obs.shape[1:]), targets.reshape(-1, outputs))


def _played(
    obs: np.ndarray,
    wanted: np.ndarray,
    behaviour: Actor | None,
    beta: float,
    noise: float,
    space: spaces.Space[Any],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the actions that are played where an expert wants others; see `record`."""
    if behaviour is None:
        actions = act(wanted, space, rng)
    else:
        actions = np.array(behaviour.predict(obs)[0])
        if beta > 0:
            stands_in = rng.random(len(obs)) < beta
            actions[stands_in] = act(wanted, space, rng)[stands_in]
    for i in np.flatnonzero(rng.random(len(obs)) < noise):
        actions[i] = random_actions(space, rng)
    return actions


def act(wanted: np.ndarray, space: spaces.Space[Any], rng: np.random.Generator) -> np.ndarray:
    """Act as an expert's outputs say: sample discrete actions from logits, or clip means to the box."""
    if isinstance(space, spaces.Box):
        clipped: np.ndarray = np.clip(wanted, space.low, space.high)
        return clipped
    if isinstance(space, spaces.MultiBinary):
        return np.asarray(rng.logistic(size=wanted.shape) < wanted, dtype=np.int64)
    if isinstance(space, spaces.MultiDiscrete):
        noisy = np.split(wanted + rng.gumbel(size=wanted.shape), np.cumsum(space.nvec)[:-1], axis=1)
        return np.stack([part.argmax(axis=1) for part in noisy], axis=1)
    chosen: np.ndarray = (wanted + rng.gumbel(size=wanted.shape)).argmax(axis=1)
    return chosen
