"""The supervised warm start: distil from an expert's action distributions on recorded observations.

Algorithm 2 of the paper with imitation as the task T_0: no environment in the loop but for recording. Far
cheaper than PPMO where simulation or exploration is what costs, and PPMO can go on from its result.
"""

from __future__ import annotations

import zipfile
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
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from gym_taskdistill import zoo
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill import distributed
from gym_taskdistill.distill.lookahead import FROM_RAM, snapshots
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import replacing
from gym_taskdistill.policies.action_distributions import Categorical, DiagGaussian, n_outputs
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.tasks.task import Task

#: Maps a batch of raw observations ``(n, *obs_shape)`` to logits or action means ``(n, n_outputs)``.
Expert = Callable[[Any], np.ndarray]

#: What an expert that only names its action is taken to think of it: logit of that action over the others'.
CHOSEN_LOGIT = 5.0

#: A dataset that is an expert votes with this many learners, drawn with this seed.
EXPERT_LEARNERS, EXPERT_SEED = 8, 4_000_003

#: Called with the number of finished updates and the mean loss since the last call.
Progress = Callable[[int, float], object]


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
            TaskDistillError: The file cannot be read.
        """
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return cls(file["observations"], file["targets"])
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise TaskDistillError(f'The recording "{path}" cannot be read: {error}') from None


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
    parameters: Tensor = (
        distribution.log_probs if isinstance(distribution, Categorical) else distribution.mean
    )
    array: np.ndarray = parameters.cpu().numpy()
    return array


def _sb3_parameters(policy: ActorCriticPolicy, obs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        tensor, _ = policy.obs_to_tensor(obs)
        inner: Any = policy.get_distribution(tensor).distribution
    array: np.ndarray = (inner.logits if hasattr(inner, "logits") else inner.mean).cpu().numpy()
    return array


def _certain(model: BaseAlgorithm, obs: np.ndarray) -> np.ndarray:
    actions, _ = model.predict(obs, deterministic=True)
    if not isinstance(model.action_space, spaces.Discrete):
        return np.asarray(actions, dtype=np.float32)
    logits = np.zeros((len(actions), int(model.action_space.n)), dtype=np.float32)
    logits[np.arange(len(actions)), actions] = CHOSEN_LOGIT
    return logits


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
            files hold pickled code: load only your own. ``action:11`` is `one_action`.
        action_space: The action space of the task that is to be distilled.

    Returns:
        The expert, and the task that it was distilled for where that is known.

    Raises:
        TaskDistillError: There is no such dataset, model or action.
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
        return as_expert(algorithm.load(path, device="cpu")), None
    file = Path(name)
    is_file = file.suffix == ".safetensors" or file.is_dir()
    dataset = DistilledDataset.load(file if is_file else zoo.find(name).path)
    policy = DistilledPolicy(dataset, seed=EXPERT_SEED).ensemble(EXPERT_LEARNERS)
    return as_expert(policy), Task(dataset.card.env_id, dataset.card.env_kwargs)


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


@dataclass(frozen=True)
class CurrentLearners:
    """A model's current learners, trained on its current dataset, acting on raw observations.

    Attributes:
        model: The model.
    """

    model: PPMO

    def predict(self, observation: np.ndarray) -> tuple[np.ndarray, Any]:
        """Choose an action for each observation."""
        normalizer = self.model.get_vec_normalize_env()
        obs: Any = observation if normalizer is None else normalizer.normalize_obs(observation)
        return self.model.predict(obs)


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
        if behaviour is not None:
            actions = np.array(behaviour.predict(obs)[0])
            if beta > 0:
                stands_in = rng.random(env.num_envs) < beta
                actions[stands_in] = act(wanted, env.action_space, rng)[stands_in]
        else:
            actions = act(wanted, env.action_space, rng)
        for i in np.flatnonzero(rng.random(env.num_envs) < noise):
            actions[i] = _random_action(env.action_space, rng)
        new_obs, *_ = env.step(actions)
        assert isinstance(new_obs, np.ndarray)
        obs = new_obs
        if progress is not None:
            progress((row + 1) * env.num_envs)
    return Recording(observations.reshape(-1, *obs.shape[1:]), targets.reshape(-1, outputs))


def act(wanted: np.ndarray, space: spaces.Space[Any], rng: np.random.Generator) -> np.ndarray:
    """Act as an expert's outputs say: sample discrete actions from logits, or clip means to the box."""
    if isinstance(space, spaces.Box):
        clipped: np.ndarray = np.clip(wanted, space.low, space.high)
        return clipped
    chosen: np.ndarray = (wanted + rng.gumbel(size=wanted.shape)).argmax(axis=1)
    return chosen


def _random_action(space: spaces.Space[Any], rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Box):
        return rng.uniform(space.low, space.high)
    assert isinstance(space, spaces.Discrete)
    return rng.integers(int(space.n))


def imitate(
    model: PPMO,
    recording: Recording,
    n_updates: int,
    batch_size: int = 256,
    progress: Progress | None = None,
    *,
    draw_every: int = 1,
    temperature: float = 1.0,
    hard_fraction: float = 0.0,
    progress_remaining: tuple[float, float] = (1.0, 1.0),
) -> float:
    """Distil a recording: fresh learners, trained on the dataset, should act as the expert does.

    Each update trains M fresh learners on the current rows and takes one step down the
    cross-entropy between the expert's actions and theirs (discrete), or the squared error of their means
    within the box (continuous, see `clipped_error`; the log standard deviation is left alone), in units of
    the variance of the expert's: 1 is what learners miss that always do the same. Dataset, inner
    learning rate and encoder learn, with PPMO's optimiser and learning rates; the critic does not.

    Args:
        model: Whose dataset and encoder to improve; its `learn` may follow.
        recording: What to imitate; its observations also feed the env's `VecNormalize` if there is one.
        n_updates: Number of updates.
        batch_size: Observations in an update over all learners.
        progress: Called every 100 updates.
        draw_every: Updates for which learners are kept before others are drawn. To draw a learner's layer of
            millions of weights takes longer than an update.
        temperature: Divides the expert's logits or means, > 0: below 1 learners become surer than it is, and
            above 1 they explore more (Hinton et al. 2015). Means that learners cannot tell apart they take
            the average of, so that their actions are too small: below 1 makes up for it.
        hard_fraction: Fraction of a batch, from 0 to 1, that is drawn in proportion to what was missed when
            an observation was last drawn (Schaul et al. 2016); the rest is drawn evenly. It finds the one
            step of a game that learners still take wrong. The losses told are those of such batches.
        progress_remaining: What the schedules of the learning rates are told at the first and after the last
            update: from 1, their start, to 0, their end.

    Returns:
        Mean loss over the last 100 updates.

    Raises:
        TaskDistillError: The batch cannot be shared out evenly to the learners, draw_every is no number of
            updates, hard_fraction is no fraction, or the temperature is not above 0.
    """
    if not isinstance(draw_every, int) or draw_every < 1:
        raise TaskDistillError(f"draw_every must be an integer >= 1, but is {draw_every!r}.")
    if not 0 <= hard_fraction <= 1:
        raise TaskDistillError(f"hard_fraction must lie between 0 and 1, but is {hard_fraction!r}.")
    if not temperature > 0:
        raise TaskDistillError(f"temperature must be > 0, but is {temperature!r}.")
    if batch_size % model.n_learners:
        raise TaskDistillError(
            f"batch_size={batch_size} must be a multiple of n_learners={model.n_learners}."
        )
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None and normalizer.norm_obs:
        normalizer.obs_rms.update(recording.observations)
    # To a GPU at once, and not row by row.
    observations = (
        recording.observations if normalizer is None else normalizer.normalize_obs(recording.observations)
    )
    all_obs, all_targets = (
        model.to_tensor(observations),
        torch.as_tensor(recording.targets, device=model.device) / temperature,
    )
    start, end = progress_remaining
    params = [p for group in model.optimizer.param_groups for p in group["params"]]
    variance = _variance(model.action_space, recording.targets / temperature)
    losses: list[Tensor] = []
    missed = torch.ones(len(recording), device=model.device)
    shape = (model.n_learners, batch_size // model.n_learners)
    n_hard = round(hard_fraction * shape[1])
    for update in range(1, n_updates + 1):
        for group in model.optimizer.param_groups:
            group["lr"] = model.schedules[group["name"]](start + (end - start) * (update - 1) / n_updates)
        indices = torch.randint(len(recording), shape, generator=model.generator, device=model.device)
        if n_hard:
            hard = torch.multinomial(
                missed + 1e-8, shape[0] * n_hard, replacement=True, generator=model.generator
            )
            indices[:, :n_hard] = hard.view(shape[0], n_hard)
        if (update - 1) % draw_every == 0:
            model.policy.sample_learners(model.generator)
        each = _losses(model, all_obs[indices], all_targets[indices]) / variance
        missed[indices] = each.detach().float()
        loss = each.mean()
        model.optimizer.zero_grad()
        loss.backward()
        distributed.average_gradients(params)
        torch.nn.utils.clip_grad_norm_(params, model.max_grad_norm)
        model.optimizer.step()
        model._n_updates += 1
        losses = [*losses[-99:], loss.detach()]
        if progress is not None and update % 100 == 0:
            progress(update, float(torch.stack(losses).mean()))
    return float(torch.stack(losses).mean()) if losses else float("nan")


def _variance(space: spaces.Space[Any], targets: np.ndarray) -> float:
    """Return the mean variance of continuous actions within their box; 1 if they are discrete or constant.

    Without it the rows of a task with small actions would have gradients so small that Adam's ε stifles them.
    """
    if not isinstance(space, spaces.Box):
        return 1.0
    clipped = np.clip(targets, space.low, space.high)
    # Rounding gives even actions that are always the same a variance, a meaningless one.
    return 1.0 if (clipped == clipped[0]).all() else float(clipped.var(axis=0).mean())


def _losses(model: PPMO, obs: Tensor, targets: Tensor) -> Tensor:
    """Return what current learners miss at each observation, ``(M, b)``."""
    policy = model.policy
    features = policy.features(policy.preprocess(obs))
    distribution = policy.train_learners(create_graph=True).act(features, policy.trunk)
    if isinstance(distribution, Categorical):
        return -(targets.softmax(-1) * distribution.log_probs).sum(-1)
    assert isinstance(distribution, DiagGaussian) and isinstance(model.action_space, spaces.Box)
    low, high = (
        torch.as_tensor(end, device=model.device) for end in (model.action_space.low, model.action_space.high)
    )
    return clipped_error(distribution.mean, targets, low, high).square().mean(-1)


def clipped_error(means: Tensor, targets: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Compute by how much means miss their targets as far as an env can tell.

    Envs clip actions to their box: wherever both lie beyond the same bound, nothing is missed. Experts that
    PPO trained often mean actions far outside, which would else be most of the error.

    Args:
        means: Means, ``(…, n_actions)``.
        targets: Likewise.
        low: Lower bounds, ``(n_actions,)``.
        high: Upper bounds, ``(n_actions,)``.

    Returns:
        Mean minus clipped target, 0 where both lie beyond the same bound; ``(…, n_actions)``.

    Examples:
        >>> ends = torch.tensor([-1.0]), torch.tensor([1.0])
        >>> clipped_error(torch.tensor([[3.0], [0.5], [-3.0]]), torch.tensor([[2.0], [2.0], [2.0]]), *ends)
        tensor([[ 0.0000],
                [-0.5000],
                [-4.0000]])
    """
    wanted = targets.clamp(low, high)
    same = ((wanted >= high) & (means >= high)) | ((wanted <= low) & (means <= low))
    return (means - wanted).masked_fill(same, 0.0)
