"""An expert of an Atari game that looks ahead: it plans in copies of the emulator.

A policy that only reacts can be made a better one without any learning: where the emulator's state can be
copied, what its actions lead to is found by playing on from there (the rollout algorithm; Tesauro and
Galperin 1996). What an agent sees does not tell it all that the copy tells, but much of it (Guo et al. 2014).
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.vec_env import CloudpickleWrapper, VecEnv

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.action_distributions import n_outputs
from gym_taskdistill.tasks.atari.games import FRAME_SKIP, game_arguments, is_atari
from gym_taskdistill.tasks.task import Task

if TYPE_CHECKING:
    from ale_py import ALEInterface, ALEState

#: What a recipe may set of a `Lookahead`.
SETTINGS = ("n_futures", "steps", "select_every", "replan_every", "temperature", "margin", "clip_reward")

#: What policies see of RAMs ``(n, 128)``, by their task's obs_type.
FROM_RAM: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ram": lambda rams: rams,
    "bits": lambda rams: np.unpackbits(rams, axis=1),
}

#: Futures that one process tries side by side, and selects among.
TOGETHER = 32

#: An emulator's state, and a key of the screen that it shows.
Snapshot = tuple["ALEState", bytes]


def snapshots(env: VecEnv, observations: np.ndarray) -> list[Snapshot]:
    """Copy the emulators' states of single Atari envs: the view of a `Lookahead`."""
    return [(ale.cloneState(), _screen_key(ale)) for ale in env.get_attr("ale")]


class Lookahead:
    """An expert that plans: of several futures that a policy may bring about it takes the best.

    From a state the policy's actions are sampled in copies of the emulator. A future is good that loses no
    life and no points, or loses them late, and of several such the one that gains most. Every few steps the
    worse half continues where the better half is (go with the winners; Aldous and Vazirani 1994): a future
    is chosen all along. The first actions of the best are the plan, until the next is made; what follows them
    is one of the futures then. The expert's logits are the policy's own, but the planned action leads the
    others.

    Plans are remembered by the screen: whenever it looks the same the expert does the same again, whoever
    played to get there. What it does can be learned by who sees no more than that, and without sticky actions
    games that look alike at the start go alike.

    Args:
        policy: From observations ``(n, *obs_shape)`` to logits, such as `as_expert` gives.
        task: What the policy plays: an Atari game by its RAM or the bits of it.
        n_futures: Futures that are tried, at least 1.
        steps: Steps of each, at least 1. A console may show for a second how a life ends before it counts it.
        select_every: Steps after which the worse half is given up, at least 1.
        replan_every: Steps of the best that are the plan, from 1 to ``steps``. The last ones before its end
            are as good as chance.
        temperature: Divides the policy's logits before futures are sampled, above 0. Below 1 plans leave the
            policy's likeliest actions less often, and are easier to learn.
        margin: By how many nats a planned action leads the others at least, above 0.
        clip_reward: Count rewards, not points. Who wants most points shoots the precious invaders first, and
            is overrun by the others.
        n_processes: Processes that plan; more than one need a program that may be imported, with its doings
            under ``if __name__ == "__main__":``.

    Raises:
        TaskDistillError: The policy sees something else, or a number is out of range.
    """

    def __init__(
        self,
        policy: Callable[[np.ndarray], np.ndarray],
        task: Task | None,
        *,
        n_futures: int = 64,
        steps: int = 400,
        select_every: int = 40,
        replan_every: int = 240,
        temperature: float = 0.6,
        margin: float = 10.0,
        clip_reward: bool = True,
        n_processes: int = 1,
    ) -> None:
        seen = None if task is None or not is_atari(task.spec) else task.env_kwargs.get("obs_type", "pixels")
        if task is None or seen not in FROM_RAM:
            raise TaskDistillError(
                f"Only policies that play an Atari game by its RAM can look ahead (obs_type "
                f"{' or '.join(FROM_RAM)}), but the expert plays {task or 'an unknown task'}."
            )
        counts = {
            "n_futures": n_futures,
            "steps": steps,
            "select_every": select_every,
            "replan_every": replan_every,
        }
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise TaskDistillError(f"{name} of a lookahead must be an integer >= 1, not {value!r}.")
        if replan_every > steps:
            raise TaskDistillError(f"A lookahead of {steps} steps cannot plan {replan_every} of them.")
        for name, number in (("temperature", temperature), ("margin", margin)):
            if not number > 0:
                raise TaskDistillError(f"The {name} of a lookahead must be > 0, but is {number!r}.")
        self.policy = policy
        self.n_futures, self.steps = n_futures, steps
        self.select_every, self.replan_every = select_every, replan_every
        self.temperature, self.margin, self.clip_reward = temperature, margin, clip_reward
        kwargs = {k: v for k, v in task.env_kwargs.items() if k != "obs_type"}
        self._arguments = game_arguments(task.spec, kwargs)
        self._n_actions = n_outputs(task.action_space)
        self._view = FROM_RAM[str(seen)]
        self._emulators: list[ALEInterface] = []
        # By the key of a screen: what is planned there, and how the future whose plan ends there went on.
        self._actions: dict[bytes, int] = {}
        self._rests: dict[bytes, list[int]] = {}
        self._n_processes = n_processes
        self._pool: ProcessPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be copied to another process."""
        fresh: dict[str, Any] = {"_emulators": [], "_actions": {}, "_rests": {}}
        return {**self.__dict__, **fresh, "_pool": None, "_n_processes": 1}

    def __call__(self, snapshots: Sequence[Snapshot]) -> np.ndarray:
        """Return the logits of all actions for each of some snapshots, ``(n, n_actions)``, float32."""
        (emulator,) = self._copies(1)
        rams = np.empty((len(snapshots), emulator.getRAMSize()), dtype=np.uint8)
        for i, (state, _) in enumerate(snapshots):
            emulator.restoreState(state)
            rams[i] = emulator.getRAM()
        logits = np.array(self.policy(self._view(rams)), dtype=np.float32)
        if logits.shape != (len(snapshots), self._n_actions):
            raise TaskDistillError(
                f"The policy gives outputs of shape {logits.shape} for {len(snapshots)} states of "
                f"{self._n_actions} actions."
            )
        unknown = {key: (state, key) for state, key in snapshots if key not in self._actions}
        sizes = [min(TOGETHER, self.n_futures - first) for first in range(0, self.n_futures, TOGETHER)]
        problems = [
            _Problem(snapshot, i, size, [] if i else self._rests.get(key, []))
            for key, snapshot in unknown.items()
            for i, size in enumerate(sizes)
        ]
        futures = iter(self._map(problems))
        for snapshot in unknown.values():
            self._remember(snapshot, max((next(futures) for _ in sizes), key=lambda future: future.worth))
        for row, (_, key) in zip(logits, snapshots, strict=True):
            planned = self._actions[key]
            others = np.delete(row, planned).max(initial=-np.inf)
            row[planned] = max(row[planned], others + self.margin)
        return logits

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _map(self, problems: Sequence[_Problem]) -> list[_Future]:
        if self._n_processes == 1 or len(problems) < 2:
            return [self._best_future(problem) for problem in problems]
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._n_processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(CloudpickleWrapper(self),),
            )
        return list(self._pool.map(_best_future, problems))

    def _best_future(self, problem: _Problem) -> _Future:
        """Try some futures of a state."""
        state, key = problem.snapshot
        # Of the screen and no more, so that plans do not depend on the processes.
        rng = np.random.default_rng([*key, problem.index])
        n = problem.n_futures
        emulators = self._copies(n)
        buttons = self._buttons(emulators[0])
        for emulator in emulators:
            emulator.restoreState(state)
        lives = emulators[0].lives()
        actions = np.zeros((n, self.steps), dtype=int)
        points = np.zeros(n)
        kept = np.full(n, self.steps)  # steps before a loss
        playing = np.arange(n)

        def worth(i: int) -> tuple[int, float]:
            return int(kept[i]), float(points[i])

        for step in range(self.steps):
            if step and step % self.select_every == 0:
                ranked = sorted(range(n), key=worth, reverse=True)
                for better, worse in zip(ranked[: n // 2], reversed(ranked), strict=False):
                    emulators[worse].restoreState(emulators[better].cloneState())
                    actions[worse] = actions[better]
                    points[worse], kept[worse] = points[better], kept[better]
                playing = np.flatnonzero(kept >= step)
            rams = np.stack([emulators[i].getRAM() for i in playing])
            logits = self.policy(self._view(rams)) / self.temperature
            actions[playing, step] = (logits + rng.gumbel(size=logits.shape)).argmax(1)
            if step < len(problem.begun):
                actions[0, step] = problem.begun[step]
            for i in playing.tolist():
                emulator = emulators[i]
                reward = emulator.act(buttons[actions[i, step]])
                points[i] += np.sign(reward) if self.clip_reward else reward
                if reward < 0 or emulator.lives() < lives or emulator.game_over():
                    kept[i] = step
            playing = playing[kept[playing] > step]
            if not playing.size:
                break
        best = max(range(n), key=worth)
        return _Future(worth(best), actions[best, : kept[best] + 1].tolist())

    def _remember(self, snapshot: Snapshot, future: _Future) -> None:
        """Make the first actions of a future the plan of a state and of those that they lead to."""
        state, key = snapshot
        (emulator,) = self._copies(1)
        buttons = self._buttons(emulator)
        emulator.restoreState(state)
        for action in future.actions[: self.replan_every]:
            self._actions.setdefault(key, action)
            emulator.act(buttons[action])
            key = _screen_key(emulator)
        self._rests.setdefault(key, future.actions[self.replan_every :])

    def _copies(self, n: int) -> list[ALEInterface]:
        """Return emulators of the game."""
        from ale_py import ALEInterface, LoggerMode, roms  # late: it registers hundreds of ids

        ALEInterface.setLoggerMode(LoggerMode.Error)
        while len(self._emulators) < n:
            emulator = ALEInterface()
            emulator.setFloat("repeat_action_probability", self._arguments["repeat_action_probability"])
            emulator.setInt("frame_skip", FRAME_SKIP)
            rom = roms.get_rom_path(self._arguments["game"])
            assert rom is not None  # the task's own env was made of it
            emulator.loadROM(rom)
            self._emulators.append(emulator)
        return self._emulators[:n]

    def _buttons(self, emulator: ALEInterface) -> list[Any]:
        full = self._arguments["full_action_space"]
        return list(emulator.getLegalActionSet() if full else emulator.getMinimalActionSet())


@dataclass(frozen=True)
class _Problem:
    """Some futures of a state that are to be tried together.

    Attributes:
        snapshot: The state.
        index: Which of the state's problems it is.
        n_futures: How many futures.
        begun: Actions with which the first of them begins.
    """

    snapshot: Snapshot
    index: int
    n_futures: int
    begun: list[int]


@dataclass(frozen=True)
class _Future:
    """What may follow a state.

    Attributes:
        worth: Steps before anything is lost, and what is gained: the more of the first, then of the second,
            the better.
        actions: The actions, the one that loses included.
    """

    worth: tuple[int, float]
    actions: list[int]


def _screen_key(emulator: ALEInterface) -> bytes:
    return hashlib.blake2b(emulator.getScreen().tobytes(), digest_size=16).digest()


_of_this_process: Lookahead | None = None


def _start(lookahead: CloudpickleWrapper) -> None:
    import torch

    global _of_this_process
    torch.set_num_threads(1)
    _of_this_process = lookahead.var


def _best_future(problem: _Problem) -> _Future:
    assert _of_this_process is not None
    return _of_this_process._best_future(problem)
