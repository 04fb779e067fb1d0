"""Baselines: what a dataset's task comes to by things that are simpler than distillation.

A baseline is rows with an inner rule, or a policy without rows. What leaves a choice, such as the rate of a
rule, is chosen on the selection seed, and scored once on the test seed.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from pydantic import Field

from gym_taskdistill import files, seeds, surroundings
from gym_taskdistill.dataset.card import Card, Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.experts import Expert, Recording, act, load_expert, record, recording_env
from gym_taskdistill.errors import DatasetError, TaskDistillError, did_you_mean
from gym_taskdistill.machine import use_threads
from gym_taskdistill.policies.evaluation import STEP_CAP, Act, Evaluation, evaluate, play
from gym_taskdistill.policies.trained import train_fresh_learners
from gym_taskdistill.schema import Schema, Seconds
from gym_taskdistill.tasks import Task
from gym_taskdistill.tasks.spaces import random_actions
from gym_taskdistill.uses import evolution
from gym_taskdistill.uses.protocols import claim, document
from gym_taskdistill.uses.rivals import (
    ROWS,
    RULES,
    candidates,
    cloned,
    clustering,
    linear,
    with_rule,
)

#: Environments side by side in a recording, and in which a policy without rows plays.
N_ENVS = 16

#: The rule that a dataset was distilled for, as it is.
OWN = "own"

#: Policies without rows.
POLICIES = ("expert", "linear", "cloning", "cma-es", "random", "one-action")

#: All baselines, each by its rows and rule, or by its name.
BASELINES = (f"distilled,{OWN}", *(f"{rows},{rule}" for rows in ROWS for rule in RULES), *POLICIES)

Count = Annotated[int, Field(ge=1)]


class Protocol(Schema):
    """How baselines are measured: what results in one folder have in common.

    Attributes:
        dataset: Digest of the dataset.
        expert: Whose answers label real rows: see `load_expert`.
        expert_steps: Env steps of the recording of the expert.
        agents: Agents that are tested.
        episodes: Full episodes for each.
        selection_agents: Agents, of an episode each, that choose a rate or an action.
        env_steps: Env steps of CMA-ES; 0 for as many as the dataset took.
        n_updates: Updates of behaviour cloning, of 256 observations each.
        deterministic: Whether agents take the mode of their policies.
        seed: Seed of the recording and of what is drawn.
    """

    label: ClassVar[str] = "protocol"

    dataset: str
    expert: str
    expert_steps: Count = 10_000
    agents: Count = 100
    episodes: Count = 1
    selection_agents: Count = 20
    env_steps: Annotated[int, Field(ge=0)] = 0
    n_updates: Count = 5000
    deterministic: bool = False
    seed: Annotated[int, Field(ge=0)] = 0


class Result(Schema):
    """What a baseline scored.

    Attributes:
        baseline: Its name.
        chosen: What was chosen, such as the rate of the inner rule; empty where there was no choice.
        score: Its score; ``None`` if no rate trained learners whose outputs are finite.
        env_steps: Env steps that CMA-ES took, else 0.
        seconds: Seconds that it took.
    """

    label: ClassVar[str] = "baseline"

    baseline: str
    chosen: str = ""
    score: Score | None
    env_steps: Annotated[int, Field(ge=0)] = 0
    seconds: Seconds = 0.0


def check(dataset: DistilledDataset, protocol: Protocol, names: Sequence[str]) -> None:
    """Refuse what would fail under way.

    Args:
        dataset: The dataset.
        protocol: How baselines are measured.
        names: Names of `BASELINES`.

    Raises:
        TaskDistillError: A name is unknown, a library is missing, or a number does not fit the dataset.
    """
    for name in names:
        if name not in BASELINES:
            known = ", ".join(BASELINES)
            raise TaskDistillError(
                f'There is no baseline "{name}"; there are {known}.{did_you_mean(name, BASELINES)}'
            )
    if protocol.expert_steps < dataset.k:
        raise TaskDistillError(
            f"The recording of the expert needs at least k={dataset.k} steps, not {protocol.expert_steps}."
        )
    if any(name.startswith("k-means-real") for name in names):
        clustering()
    if "cma-es" in names:
        evolution.library()
        if not budget(dataset.card, protocol):
            raise TaskDistillError(
                f"The card of {dataset.card.task} does not tell how many env steps all its stages took; give "
                "--env-steps, or leave cma-es out."
            )


def budget(card: Card, protocol: Protocol) -> int:
    """Return the env steps of CMA-ES; 0 if they are those of the dataset, and its card does not tell them."""
    return protocol.env_steps or sum(stage.env_steps for stage in card.lineage)


def run(
    dataset: DistilledDataset,
    protocol: Protocol,
    folder: Path,
    names: Sequence[str] = BASELINES,
    n_jobs: int = 1,
) -> Iterator[Result]:
    """Measure baselines, and yield each as soon as it is done; those that the folder holds come first.

    Args:
        dataset: What they stand beside.
        protocol: How they are measured.
        folder: Where results are kept, and what was begun is gone on with.
        names: Which; those that do not fit the task's actions are left out.
        n_jobs: Baselines at once, one process each.

    Raises:
        TaskDistillError: They cannot be measured, or the folder holds those of another dataset or protocol.
    """
    check(dataset, protocol, names)
    if not isinstance(dataset.spaces[1], spaces.Discrete):
        names = [name for name in names if name != "one-action"]
    with files.lock(folder / ".lock", f'Another process measures baselines in "{folder}".'):
        files.sweep(folder)
        claim(folder, protocol, "baselines that were measured")
        left = [name for name in names if not _file(folder, name).is_file()]
        yield from (_read(folder, name) for name in names if name not in left)
        if left:
            _record_expert(dataset, protocol, folder)
            dataset.save(folder / "dataset")
        yield from surroundings.each(_measure, ((protocol, folder, name) for name in left), n_jobs)
        write_tables(folder, [_read(folder, name) for name in BASELINES if _file(folder, name).is_file()])


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _read(folder: Path, name: str) -> Result:
    path = _file(folder, name)
    return Result.read(document(path), str(path))


def _record_expert(dataset: DistilledDataset, protocol: Protocol, folder: Path) -> None:
    path = folder / "recording.npz"
    if path.is_file():
        return
    expert, expert_task = load_expert(protocol.expert, dataset.spaces[1])
    env, view = recording_env(dataset.task, N_ENVS, expert_task)
    with contextlib.closing(env):
        seed = seeds.training(protocol.seed, 0)
        record(expert, env, protocol.expert_steps, view=view, seed=seed).save(path)


def _measure(protocol: Protocol, folder: Path, name: str) -> Result:
    """Measure a baseline and keep its result."""
    use_threads(1)
    start = time.monotonic()
    dataset = DistilledDataset.load(folder / "dataset")
    result = Measurement(dataset, protocol, Recording.load(folder / "recording.npz")).result(name)
    result = result.replace(seconds=round(time.monotonic() - start, 1))
    files.write_text(_file(folder, name), json.dumps(result.to_dict(), indent=2) + "\n")
    return result


class Measurement:
    """The measurement of a baseline.

    Args:
        dataset: What it stands beside.
        protocol: How it is measured.
        recording: What the expert would do.
    """

    def __init__(self, dataset: DistilledDataset, protocol: Protocol, recording: Recording) -> None:
        self.dataset, self.protocol, self.recording = dataset, protocol, recording
        self.task: Task = dataset.task
        self.seed = seeds.training(protocol.seed, 1)
        self.selection = seeds.selection(protocol.seed)

    def result(self, name: str) -> Result:
        """Measure one of `BASELINES`."""
        dataset, recording, seed = self.dataset, self.recording, self.seed
        rows, comma, rule = name.partition(",")
        if rule == OWN:
            return Result(baseline=name, score=self.tested(dataset))
        if comma:
            made = ROWS[rows](dataset, recording, seed)
            return self.best([with_rule(made, each) for each in candidates(dataset, rule)], name)
        if name == "linear":
            return Result(baseline=name, score=self.tested_alone(linear(dataset, recording, seed), name))
        if name == "cloning":
            network = cloned(dataset, recording, seed, self.protocol.n_updates)
            return Result(baseline=name, score=self.tested_alone(network, name))
        if name == "cma-es":
            return self.evolved(name)
        if name == "one-action":
            return self.best_action(name)
        acts = self.random() if name == "random" else None
        return Result(baseline=name, score=self.played(acts, name))

    def tested(self, dataset: DistilledDataset) -> Score:
        """Score a dataset by fresh agents on the test seed."""
        of = self.protocol
        result = evaluate(dataset, of.agents, of.episodes, deterministic=of.deterministic, seed=seeds.TEST)
        return result.score

    def tested_alone(self, dataset: DistilledDataset, name: str) -> Score:
        """Score a dataset whose agents are all the same one, in as many episodes as agents would play."""
        of = self.protocol
        total = of.agents * of.episodes
        result = evaluate(dataset, 1, total, deterministic=of.deterministic, seed=seeds.TEST)
        return self._score(result.returns, result.lengths, name)

    def selected(self, dataset: DistilledDataset) -> float:
        """Score a dataset on the selection seed; minus infinity where learners' outputs are not finite."""
        n = self.protocol.selection_agents
        generator = torch.Generator().manual_seed(self.selection)
        try:
            agents = train_fresh_learners(dataset, n, generator)
        except DatasetError:
            return -math.inf
        # Beyond it, differences between outputs are lost.
        if not all(bool((p.abs() < 1e6).all()) for p in agents.learners.params):
            return -math.inf
        deterministic = self.protocol.deterministic
        return evaluate(dataset, n, 1, deterministic=deterministic, seed=self.selection).mean

    def best(self, datasets: Sequence[DistilledDataset], name: str) -> Result:
        """Choose among datasets on the selection seed, and score the chosen one."""
        means = [self.selected(one) for one in datasets]
        if max(means) == -math.inf:
            return Result(baseline=name, chosen="no rate trains", score=None)
        chosen = datasets[means.index(max(means))]
        return Result(baseline=name, chosen=str(chosen.rule), score=self.tested(chosen))

    def evolved(self, name: str) -> Result:
        """Score what CMA-ES finds."""
        used: list[int] = []
        steps = budget(self.dataset.card, self.protocol)
        result = self.best(evolution.evolve(self.dataset, steps, self.seed, used.append), name)
        return result.replace(env_steps=sum(used))

    def random(self) -> Act:
        """Return a policy that draws actions evenly."""
        rng, space = np.random.default_rng(self.seed), self.task.flat_action_space
        return lambda obs: random_actions(space, rng, (len(obs),))

    def best_action(self, name: str) -> Result:
        """Score the discrete action that does best by itself."""
        space, means = self.dataset.spaces[1], []
        assert isinstance(space, spaces.Discrete)
        for action in range(int(space.n)):
            returns, _ = self._play(_always(action), self.protocol.selection_agents, self.selection)
            means.append(returns.mean())
        action = int(np.argmax(means))
        return Result(baseline=name, chosen=f"action {action}", score=self.played(_always(action), name))

    def played(self, acts: Act | None, name: str) -> Score:
        """Score a policy without rows, the expert's if there is none."""
        return self._score(*self._play(acts, self.protocol.agents * self.protocol.episodes, seeds.TEST), name)

    def _play(self, acts: Act | None, n_episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        n_envs = max(n for n in range(1, N_ENVS + 1) if n_episodes % n == 0)
        if acts is not None:
            env = self.task.make_vec_env(n_envs, step_cap=STEP_CAP)
        else:
            expert, expert_task = load_expert(self.protocol.expert, self.dataset.spaces[1])
            env, view = recording_env(self.task, n_envs, expert_task)
            acts = self._expert(expert if view is None else lambda obs: expert(view(env, obs)))
        with contextlib.closing(env):
            env.seed(seed)
            return play(acts, env, n_episodes // n_envs)[:2]

    def _expert(self, expert: Expert) -> Act:
        rng, space = np.random.default_rng(seeds.TEST), self.task.flat_action_space
        return lambda obs: act(expert(obs), space, rng)

    def _score(self, returns: np.ndarray, lengths: np.ndarray, name: str) -> Score:
        of = self.protocol
        shape = (of.agents, of.episodes)
        played = Evaluation(
            returns.reshape(shape), lengths.reshape(shape), self.task, name, of.deterministic, seeds.TEST
        )
        return played.score


def _always(action: int) -> Act:
    return lambda obs: np.full(len(obs), action)


def row(result: Result) -> tuple[str, ...]:
    """Return a table's row: the baseline, what was chosen, and what agents scored; see `HEAD`."""
    score = result.score
    if score is None or score.aggregates is None:
        return (result.baseline, result.chosen, *[""] * (len(HEAD) - 2))
    over, (mean, std, worst) = score.aggregates, score.figures
    low, high = over.mean_interval or (over.mean, over.mean)
    figures = (f"{low:.2f}", f"{high:.2f}", f"{over.iqm:.2f}", f"{over.quantile:.2f}", worst)
    return (result.baseline, result.chosen, mean, std, *figures)


#: The columns of a table of baselines.
HEAD = ("baseline", "chosen", "mean", "std", "95 % from", "to", "IQM", "5 % quantile", "worst")


def write_tables(folder: Path, results: Sequence[Result]) -> None:
    """Write all results into ``baselines.csv`` and ``baselines.json``."""
    path = folder / "baselines.csv"
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEAD, *map(row, results)])
    text = json.dumps([result.to_dict() for result in results], indent=2)
    files.write_text(folder / "baselines.json", text + "\n")
