"""k-shot evaluation: fresh learners, one inner step, full episodes, raw rewards, many agents at once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from gym_taskdistill import seeds
from gym_taskdistill.dataset.aggregates import Aggregates
from gym_taskdistill.dataset.card import Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import NAMED_LEARNERS, LearnerDistribution, LearnersArg, learner_distribution
from gym_taskdistill.policies.ensemble import EnsembleRule
from gym_taskdistill.policies.trained import TrainedLearners, train_fresh_learners
from gym_taskdistill.tasks import EnvArg, Task, as_task
from gym_taskdistill.tasks.processes import ProcessVecEnv
from gym_taskdistill.tasks.spaces import check_finite
from gym_taskdistill.tasks.vec_env import ColumnsVecEnv
from gym_taskdistill.trust import allow

#: Columns simulated side by side: thousands where the env computes them at once, else a few, as of images.
MAX_COLUMNS = {True: 10_000, False: 64}

#: Steps after which an episode is cut off where the environment has no time limit.
STEP_CAP = 10_000


#: Bytes of the parameters of agents that play side by side; their training takes a few times as much.
MAX_BYTES = 2**30

#: Episodes of an evaluation, of all agents together.
MAX_EPISODES = 10**8

#: Called with the number of finished episodes.
Progress = Callable[[int], object]

#: Chooses an action, of the flat space, for each of a batch of raw flat observations.
Act = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """Raw returns of an evaluation, with the protocol that produced them.

    Attributes:
        returns: Raw episode returns, shape ``(n_agents, n_episodes)``.
        lengths: Episode lengths in steps, same shape.
        task: The task the agents were tested on.
        learners: Name or description of the learner distribution.
        deterministic: Whether the agents took the mode of their policy.
        seed: Seed of learners, actions and envs.
    """

    returns: np.ndarray
    lengths: np.ndarray
    task: Task
    learners: str
    deterministic: bool
    seed: int

    @property
    def agent_means(self) -> np.ndarray:
        """Mean return of each agent, shape ``(n_agents,)``."""
        means: np.ndarray = self.returns.mean(axis=1)
        return means

    @property
    def mean(self) -> float:
        """Mean over agents."""
        return float(self.agent_means.mean())

    @property
    def std(self) -> float:
        """Standard deviation over agents."""
        return float(self.agent_means.std())

    @property
    def min(self) -> float:
        """Mean return of the worst agent."""
        return float(self.agent_means.min())

    @property
    def aggregates(self) -> Aggregates:
        """What the agents' means come to: interquartile mean, intervals, and how the worst fare."""
        return Aggregates.of(self.agent_means)

    @property
    def score(self) -> Score:
        """The evaluation as an entry of a dataset's card."""
        return Score(
            learners=self.learners,
            deterministic=self.deterministic,
            n_agents=self.returns.shape[0],
            n_episodes=self.returns.shape[1],
            seed=self.seed,
            env_id=self.task.env_id,
            mean=self.mean,
            std=self.std,
            min=self.min,
            agent_means=tuple(self.agent_means.tolist()),
        )

    def __str__(self) -> str:
        """Return the score with its protocol in one line."""
        mean, std, worst = self.score.figures
        return f"{mean} ± {std} (worst agent {worst}; {self.score.protocol})"


def evaluate(
    dataset: DistilledDataset,
    n_agents: int = 100,
    n_episodes: int = 100,
    *,
    learners: LearnersArg | None = None,
    ensemble: int = 1,
    ensemble_rule: str = "mean",
    deterministic: bool = False,
    seed: int = 0,
    env: EnvArg | None = None,
    progress: Progress | None = None,
    trust: bool = False,
    n_jobs: int | None = None,
) -> Evaluation:
    """Train fresh learners on a dataset and test them on its task (paper, sections 4.1 and 6).

    Every column of envs plays a fixed number of episodes, so that short episodes are not over-represented.

    Args:
        dataset: The dataset.
        n_agents: Fresh learners to test, each on its own initialisation.
        n_episodes: Full episodes for each.
        learners: Another learner distribution than the dataset's own, such as a column of Table 1, or a
            function that makes networks.
        ensemble: Fresh learners in each agent, which act as one.
        ensemble_rule: How they do: ``"mean"``, ``"majority"`` or ``"median"``; see `EnsembleRule`.
        deterministic: Take the mode of the policy instead of sampling as the paper does.
        seed: Makes the result reproducible on one machine; use another one than in training.
        env: What to test on: a task, an id, or a function that makes the environment; by default the card's
            task.
        progress: Called with the number of finished episodes now and then.
        trust: Run the code that the dataset's card names: modules of its environment, and the function that
            makes its learners; see `gym_taskdistill.trust`.
        n_jobs: Cores that simulate, -1 for all; the returns are the same for any number. ``None`` for what
            `use_threads` has set, one by default.

    Returns:
        All returns.

    An environment without a time limit is given one of `STEP_CAP` steps; a warning tells if it was needed.

    Raises:
        DatasetError: The dataset does not fit the task.
        TaskDistillError: The task or the learners cannot be built, there is no agent or no episode, or the
            rule does not fit the actions.
    """
    n_agents, n_episodes = _checked_size(n_agents, n_episodes)
    seed = seeds.checked(seed)
    if ensemble < 1:
        raise TaskDistillError(f"An agent needs at least 1 learner, not an ensemble of {ensemble}.")
    if trust:
        allow(*dataset.card.code)
    task = dataset.task if env is None else as_task(env)
    dataset.check_env((task.observation_space, task.action_space))
    # A learner by itself is the mean of one.
    alone = (ensemble, ensemble_rule) == (1, "mean")
    rule = None if alone else EnsembleRule(dataset.spaces[1], ensemble_rule)
    distribution = (
        learner_distribution(dataset.card.learners)
        if learners is None
        else learner_distribution(learners, trust=True)  # by the caller himself, not by a file
    )
    generator = torch.Generator(dataset.x.device).manual_seed(seed)
    parameters = distribution.max_parameters(dataset.obs_shape, dataset.n_outputs)
    agents_at_once, envs_per_agent = _tiles(
        n_agents,
        n_episodes,
        max_columns=MAX_COLUMNS[task.is_vectorised and not dataset.has_images],
        max_agents=max(1, MAX_BYTES // (4 * parameters * ensemble + 1)),
    )
    shape = n_agents, n_episodes
    returns, lengths, cut_off = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, bool)
    vec_env: VecEnv | None = None
    try:
        for first in range(0, n_agents, agents_at_once):
            count = min(agents_at_once, n_agents - first)
            agents = train_fresh_learners(dataset, count * ensemble, generator, distribution)
            if vec_env is None or vec_env.num_envs != count * envs_per_agent:
                if vec_env is not None:
                    vec_env.close()
                vec_env = task.make_vec_env(count * envs_per_agent, step_cap=STEP_CAP, n_jobs=n_jobs)
            vec_env.seed(seed + first)
            chunk = slice(first, first + count)
            act = acting(agents, dataset, deterministic, generator, rule, ensemble)
            played = play(act, vec_env, n_episodes // envs_per_agent, progress)
            returns[chunk], lengths[chunk], cut_off[chunk] = (array.reshape(count, -1) for array in played)
    finally:
        if vec_env is not None:
            vec_env.close()
    if cut_off.any():
        warnings.warn(
            f"{cut_off.mean():.0%} of the episodes of {task} did not end and were cut off "
            f"after {STEP_CAP} steps; give the environment a time limit, such as max_episode_steps.",
            stacklevel=2,
        )
    name = _name(distribution)
    if rule is not None:
        name = f"ensembles of {ensemble} {name} by {ensemble_rule}"
    return Evaluation(returns, lengths, task, name, deterministic, seed)


def _checked_size(n_agents: int, n_episodes: int) -> tuple[int, int]:
    """Return the numbers of agents and of episodes as plain integers, if they can be played."""
    if n_agents < 1 or n_episodes < 1:
        raise TaskDistillError(
            f"An evaluation needs at least 1 agent and 1 episode, not {n_agents} x {n_episodes}."
        )
    if n_agents * n_episodes > MAX_EPISODES:
        raise TaskDistillError(
            f"An evaluation of {n_agents} agents x {n_episodes} episodes is more than the {MAX_EPISODES:,} "
            "episodes that are played at most."
        )
    return int(n_agents), int(n_episodes)


def acting(
    agents: TrainedLearners,
    dataset: DistilledDataset,
    deterministic: bool,
    generator: torch.Generator,
    rule: EnsembleRule | None = None,
    size: int = 1,
) -> Act:
    """Let M agents act, each in an equal share of the columns of a vec-env, one share behind the other.

    Args:
        agents: The agents; or, of ensembles, ``size * M`` learners, of which every M-th is of one ensemble,
            so that learners of several architectures are spread over all of them.
        dataset: Whose view they have of observations.
        deterministic: Take the mode of their policies.
        generator: Source of the actions, on the dataset's device.
        rule: How the members of an ensemble act as one; ``None`` if each learner acts by itself.
        size: Members of an ensemble.
    """

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            batch = torch.as_tensor(np.ascontiguousarray(obs), dtype=torch.float32, device=dataset.x.device)
            batch = dataset.normalize(batch.reshape(-1, *dataset.obs_shape))
            seen = batch.unflatten(0, (len(agents.learners) // size, -1))
            if rule is None:
                distribution = agents.action_distribution(seen)
            else:
                outputs, log_std = agents.outputs(seen.repeat(size, *[1] * (seen.dim() - 1)))
                if log_std is not None:
                    log_std = log_std.expand(len(outputs), 1, -1).unflatten(0, (size, -1))
                distribution = rule.distribution(outputs.unflatten(0, (size, -1)), log_std)
            actions = distribution.mode() if deterministic else distribution.sample(generator)
            array: np.ndarray = actions.flatten(0, 1).cpu().numpy()
            return array

    return act


def play(
    act: Act, env: VecEnv, episodes_per_env: int, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Play until every column has its episodes, so that short ones are not over-represented.

    Args:
        act: Chooses an action for each column.
        env: The task's vec-env, with raw observations; it is reset first.
        episodes_per_env: Full episodes of each column. A column that has them rests where each env is stepped
            by itself; what others play beyond them does not count.
        progress: Called with the number of finished episodes now and then.

    Returns:
        Raw returns, lengths, and whether `STEP_CAP` cut them off, each ``(n_columns, episodes_per_env)``.

    Raises:
        TaskDistillError: An observation or a reward is not finite.
    """
    n_columns = env.num_envs
    returns = np.zeros((n_columns, episodes_per_env))
    lengths = np.zeros((n_columns, episodes_per_env), dtype=np.int64)
    cut_off = np.zeros((n_columns, episodes_per_env), dtype=bool)
    finished = np.zeros(n_columns, dtype=np.int64)
    box = env.action_space if isinstance(env.action_space, spaces.Box) else None
    obs, step = env.reset(), 0
    while (finished < episodes_per_env).any():
        assert isinstance(obs, np.ndarray)
        check_finite(step, observations=obs)
        actions = act(obs)
        if box is not None:
            actions = np.clip(actions, box.low, box.high)
        obs, rewards, dones, infos = env.step(actions)
        step += 1
        check_finite(step, rewards=rewards)
        ended = np.flatnonzero(dones & (finished < episodes_per_env))
        for column in ended:
            episode = infos[column]["episode"]
            returns[column, finished[column]] = episode["r"]
            lengths[column, finished[column]] = episode["l"]
            cut_off[column, finished[column]] = infos[column].get("step_cap", False)
            finished[column] += 1
            if progress is not None:
                progress(1)
        idle = ended[finished[ended] == episodes_per_env]
        if len(idle) and isinstance(env, ColumnsVecEnv | ProcessVecEnv):  # others step all of theirs at once
            env.rest(idle)
    return returns, lengths, cut_off


def _tiles(n_agents: int, n_episodes: int, max_columns: int, max_agents: int) -> tuple[int, int]:
    """Return how many agents play at once, and each in how many envs, within what a machine holds."""
    envs_per_agent = _largest_divisor(n_episodes, max(1, max_columns // n_agents))
    return min(n_agents, max_agents, max(1, max_columns // envs_per_agent)), envs_per_agent


def _largest_divisor(number: int, bound: int) -> int:
    """Return the largest divisor of ``number`` that is at most ``bound``."""
    divisors = (d for i in range(1, math.isqrt(number) + 1) if number % i == 0 for d in (i, number // i))
    return max(d for d in divisors if d <= bound)


def _name(distribution: LearnerDistribution) -> str:
    """Name a learner distribution: by its name if it has one, else by its description."""
    for name, known in NAMED_LEARNERS.items():
        if known == distribution:
            return name
    return str(distribution)
