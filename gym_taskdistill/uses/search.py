"""Architecture search: which networks do best, told by fresh ones that a dataset trains in a moment."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from gym_taskdistill import files, seeds, surroundings
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.experts import Recording, as_expert, record
from gym_taskdistill.errors import DatasetError, TaskDistillError, did_you_mean, import_extra
from gym_taskdistill.machine import use_threads
from gym_taskdistill.policies.evaluation import MAX_BYTES, MAX_EPISODES
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.schema import Schema, Seconds
from gym_taskdistill.uses.architectures import Architecture, SearchSpace
from gym_taskdistill.uses.protocols import claim, document
from gym_taskdistill.uses.traits import TRAITS, Examination

#: How architectures are chosen where not all of them are tried; but for ``random``, by Optuna.
SAMPLERS: dict[str, Callable[[Any, int], Any] | None] = {
    "random": None,
    "tpe": lambda optuna, seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
    "nsgaii": lambda optuna, seed: optuna.samplers.NSGAIISampler(seed=seed),
}

#: Proposals for each architecture that Optuna is asked for: what it proposes may have been tried.
MAX_PROPOSALS = 20

#: Envs side by side, and learners together, of which states are recorded.
N_ENVS, N_MEMBERS = 16, 8

#: Trait that an architecture is ranked by where nothing else is said.
RANKED_BY = "noisy_return"

Count = Annotated[int, Field(ge=1)]


class SearchProtocol(Schema):
    """How architectures are examined: what results in one folder have in common.

    Attributes:
        dataset: Digest of the dataset.
        agents: Fresh agents of each architecture.
        episodes: Full episodes for each.
        noise: Share of random actions under ``noisy_return``; of continuous actions the standard deviation of
            the noise, in halves of their range.
        states: States at which actions are compared.
        deterministic: Whether agents take the mode of their policies.
        seed: Seed of the search, which trains no dataset, chooses none and tests none.
    """

    label: ClassVar[str] = "protocol"

    dataset: str
    agents: Count = 10
    episodes: Count = 5
    noise: Annotated[float, Field(ge=0, le=1)] = 0.2
    states: Count = 1000
    deterministic: bool = False
    seed: Annotated[int, Field(ge=0)] = 0


class SearchResult(Schema):
    """What became of an architecture.

    Attributes:
        architecture: The architecture.
        number: Its place among those that were proposed, from 0.
        parameters: Parameters of one network.
        traits: Its traits by their names, see `TRAITS`; none if the dataset cannot train it.
        agent_returns: The mean return of each agent.
        failure: Why there are none.
        seconds: Seconds that it took.
    """

    label: ClassVar[str] = "result"

    architecture: Architecture
    number: Annotated[int, Field(ge=0)]
    parameters: Count
    traits: dict[str, float] = Field(default_factory=dict)
    agent_returns: tuple[float, ...] = ()
    failure: str = ""
    seconds: Seconds = 0.0


def check(
    dataset: DistilledDataset, protocol: SearchProtocol, architectures: Sequence[Architecture], by: str
) -> None:
    """Refuse what would fail under way.

    Args:
        dataset: What trains the architectures.
        protocol: How they are examined.
        architectures: Those that may be tried.
        by: Name of the trait that they are ranked by.

    Raises:
        TaskDistillError: The dataset has an encoder, the trait is unknown or not measured, or the agents of
            an architecture are too large to be held at once.
    """
    if by not in TRAITS:
        raise TaskDistillError(
            f'There is no trait "{by}"; there are {", ".join(TRAITS)}.{did_you_mean(by, TRAITS)}'
        )
    if by == "area" and dataset.rule.steps == 1:
        raise TaskDistillError(
            f"Learners take one step on {dataset.card.task}, whose curve has no area; rank by another trait."
        )
    if dataset.encoder_layers:
        raise TaskDistillError(
            f"The dataset of {dataset.card.task} has an encoder, which all its learners share, so that they "
            "are of one architecture; search by a dataset without one."
        )
    if protocol.agents * protocol.episodes > MAX_EPISODES:
        raise TaskDistillError(f"A search plays at most {MAX_EPISODES:,} episodes of each architecture.")
    sizes = {(one.width, one.depth, one.layer_norm): one for one in architectures}
    for architecture in sizes.values():
        size = architecture.n_parameters(dataset.obs_shape, dataset.n_outputs)
        if 4 * size * protocol.agents > MAX_BYTES:
            raise TaskDistillError(
                f"{protocol.agents} agents of {architecture.name} have {size:,} parameters each, more than "
                f"the {MAX_BYTES // 2**20} MiB that are held at once; ask for fewer agents or "
                "narrower networks."
            )
    dataset.check_env((dataset.task.observation_space, dataset.task.action_space))


def search(
    dataset: DistilledDataset,
    space: SearchSpace,
    protocol: SearchProtocol,
    folder: Path,
    n_trials: int | None = None,
    sampler: str = "random",
    by: str = RANKED_BY,
    n_jobs: int = 1,
) -> Iterator[SearchResult]:
    """Examine architectures, and yield each as soon as it is done; those that the folder holds come first.

    Args:
        dataset: What trains them.
        space: Which there are.
        protocol: How they are examined.
        folder: Where results are kept, and what was begun is gone on with.
        n_trials: How many to examine; ``None`` for all.
        sampler: How they are chosen, a name of `SAMPLERS`.
        by: The trait that the sampler looks for.
        n_jobs: Architectures at once, one process each.

    Raises:
        TaskDistillError: They cannot be examined, a library is missing, or the folder holds those of another
            dataset or protocol.
    """
    if sampler not in SAMPLERS:
        raise TaskDistillError(f'There is no sampler "{sampler}"; there are {", ".join(SAMPLERS)}.')
    if n_jobs < 1:
        raise TaskDistillError(f"A search takes at least 1 process, not {n_jobs}.")
    every = space.architectures()
    chosen = space.architectures(n_trials, protocol.seed)
    if SAMPLERS[sampler] is not None:
        _optuna()
        check(dataset, protocol, every, by)
    else:
        check(dataset, protocol, chosen, by)
    with files.lock(folder / ".lock", f'Another process searches in "{folder}".'):
        files.sweep(folder)
        claim(folder, protocol, "architectures that were examined")
        _prepare(dataset, protocol, folder)
        wanted = set(every if SAMPLERS[sampler] is not None else chosen)
        done = [result for result in read_results(folder) if result.architecture in wanted]
        yield from done
        while len(done) < len(chosen):
            left = len(chosen) - len(done)
            if SAMPLERS[sampler] is None:
                known = {result.architecture for result in done}
                batch = [one for one in chosen if one not in known]
            else:
                batch = _proposed(space, every, done, min(left, n_jobs), sampler, by, protocol.seed)
            first = max((result.number for result in done), default=-1) + 1
            work = ((protocol, folder, one, first + i) for i, one in enumerate(batch))
            for result in surroundings.each(_examine, work, n_jobs):
                done.append(result)
                yield result


def read_results(folder: Path) -> list[SearchResult]:
    """Read the results of a folder, in the order in which they were proposed.

    Raises:
        TaskDistillError: A file cannot be read.
    """
    paths = sorted(folder.glob("[0-9]*x[0-9]*,*.json"))
    return sorted((SearchResult.read(document(p), str(p)) for p in paths), key=lambda result: result.number)


def read_protocol(folder: Path) -> SearchProtocol:
    """Read how the results of a folder were made.

    Raises:
        TaskDistillError: It is no folder of a search.
    """
    path = folder / "protocol.json"
    if not path.is_file():
        raise TaskDistillError(f'"{folder}" is no folder of a search; make one by taskdistill search.')
    return SearchProtocol.read(document(path), str(path))


def _prepare(dataset: DistilledDataset, protocol: SearchProtocol, folder: Path) -> None:
    """Record the states at which actions are compared, by an ensemble of the dataset's own learners."""
    dataset.save(folder / "dataset")
    path = folder / "states.npz"
    if path.is_file():
        return
    seed = seeds.search(protocol.seed, 3)
    expert = as_expert(DistilledPolicy(dataset, seed=seed).ensemble(N_MEMBERS))
    env = dataset.task.make_vec_env(min(N_ENVS, protocol.states))
    try:
        recording = record(expert, env, protocol.states, seed=seed)
    finally:
        env.close()
    recording.save(path)


def _examine(protocol: SearchProtocol, folder: Path, architecture: Architecture, number: int) -> SearchResult:
    """Examine an architecture and keep its result."""
    use_threads(1)
    start = time.monotonic()
    dataset = DistilledDataset.load(folder / "dataset")
    examination = Examination(
        dataset,
        Recording.load(folder / "states.npz"),
        protocol.agents,
        protocol.episodes,
        protocol.noise,
        protocol.deterministic,
        protocol.seed,
    )
    result = SearchResult(
        architecture=architecture,
        number=number,
        parameters=architecture.n_parameters(dataset.obs_shape, dataset.n_outputs),
    )
    try:
        traits, returns = examination.traits(architecture)
        result = result.replace(traits=traits, agent_returns=tuple(returns.tolist()))
    except DatasetError as error:  # what other datasets train well may break on this one: that is a result
        result = result.replace(failure=str(error))
    result = result.replace(seconds=round(time.monotonic() - start, 2))
    path = folder / f"{architecture.name}.json"
    files.write_text(path, json.dumps(result.to_dict(), indent=2) + "\n")
    return result


def _optuna() -> Any:
    optuna = import_extra("optuna", "tune", "Samplers other than random")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _proposed(
    space: SearchSpace,
    every: Sequence[Architecture],
    done: Sequence[SearchResult],
    n: int,
    sampler: str,
    by: str,
    seed: int,
) -> list[Architecture]:
    """Let Optuna propose architectures that were not tried, from the results and a seed alone."""
    optuna = _optuna()
    make = SAMPLERS[sampler]
    assert make is not None
    study = optuna.create_study(
        direction="maximize" if TRAITS[by] else "minimize",
        sampler=make(optuna, seeds.search(seed, 4, len(done))),
    )
    choices = {k: optuna.distributions.CategoricalDistribution(v) for k, v in space.choices.items()}
    states = optuna.trial.TrialState
    for result in done:
        study.add_trial(
            optuna.trial.create_trial(
                state=states.FAIL if result.failure else states.COMPLETE,
                params=result.architecture.to_dict(),
                distributions=choices,
                value=result.traits.get(by),
            )
        )
    left = set(every) - {result.architecture for result in done}
    found: list[Architecture] = []
    for _ in range(MAX_PROPOSALS * n):
        if len(found) == n or not left:
            break
        one = Architecture(**study.ask(choices).params)
        if one in left:
            left.remove(one)
            found.append(one)
    # Where it proposes what it knows again and again, what is left is drawn evenly.
    rest = sorted(left, key=lambda one: one.name)
    return [*found, *random.Random(seed + len(done)).sample(rest, min(n - len(found), len(rest)))]
