"""An expert of an Atari game that looks ahead: it plays on in a copy of the emulator.

A policy that only reacts can be made a better one without any learning: where the emulator's state can be
copied, what its actions lead to is found by playing on from there (the rollout algorithm; Tesauro and
Galperin 1996). What an agent sees does not tell it all that the copy tells, but much of it (Guo et al. 2014).
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.vec_env import CloudpickleWrapper, VecEnv

from gym_taskdistill.atari import FRAME_SKIP, game_arguments, is_atari
from gym_taskdistill.distill.action_distributions import n_outputs
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks import Task

if TYPE_CHECKING:
    from ale_py import ALEInterface, ALEState

#: What a recipe may set of a `Lookahead`.
SETTINGS = ("steps", "holds", "margin")

#: What policies see of RAMs ``(n, 128)``, by their task's obs_type.
FROM_RAM: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ram": lambda rams: rams,
    "bits": lambda rams: np.unpackbits(rams, axis=1),
}


def states(env: VecEnv, observations: np.ndarray) -> list[ALEState]:
    """Copy the emulators' states of single Atari envs: the view of a `Lookahead`."""
    return [ale.cloneState() for ale in env.get_attr("ale")]


class Lookahead:
    """An expert that does what a policy does, unless that loses a life or points.

    From each state the policy's likeliest actions are played ahead in a copy of the emulator. As long as
    nothing is lost, the expert's logits are the policy's own. Where something is, every action is tried
    instead, held for some steps before the policy goes on; what loses latest becomes the plan (of several the
    likeliest). While the planned action is not the policy's likeliest, it is given the highest logit.

    A plan lasts as long as the states follow it: the i-th state of a call is taken for that of the i-th env,
    one step after the last call's. Who follows it costs about one step of emulation a state; who leaves it,
    ``steps``.

    Args:
        policy: From observations ``(n, *obs_shape)`` to logits, such as `as_expert` gives.
        task: What the policy plays: an Atari game by its RAM or the bits of it.
        steps: Steps looked ahead, at least 1. A console shows for a second or so how a life ends before it
            counts it.
        holds: For how many steps each action is tried, each at least 1.
        margin: By how many nats a planned action leads the others, above 0.
        n_processes: Processes that share the states out; more than one need a program that may be imported,
            with its doings under ``if __name__ == "__main__":``.

    Raises:
        TaskDistillError: The policy sees something else, or a number is out of range.
    """

    def __init__(
        self,
        policy: Callable[[np.ndarray], np.ndarray],
        task: Task | None,
        *,
        steps: int = 60,
        holds: Sequence[int] = (1, 4, 10),
        margin: float = 5.0,
        n_processes: int = 1,
    ) -> None:
        seen = None if task is None or not is_atari(task.spec) else task.env_kwargs.get("obs_type", "pixels")
        if task is None or seen not in FROM_RAM:
            raise TaskDistillError(
                f"Only policies that play an Atari game by its RAM can look ahead (obs_type "
                f"{' or '.join(FROM_RAM)}), but the expert plays {task or 'an unknown task'}."
            )
        if not isinstance(steps, int) or steps < 1:
            raise TaskDistillError(f"The steps of a lookahead must be an integer >= 1, not {steps!r}.")
        numbers = holds if isinstance(holds, list | tuple) else []
        if not numbers or not all(isinstance(hold, int) and hold >= 1 for hold in numbers):
            raise TaskDistillError(f"The holds of a lookahead must be integers >= 1, not {holds!r}.")
        if not margin > 0:
            raise TaskDistillError(f"The margin of a lookahead must be > 0, but is {margin!r}.")
        self.policy = policy
        self.steps, self.holds, self.margin = steps, tuple(holds), margin
        kwargs = {k: v for k, v in task.env_kwargs.items() if k != "obs_type"}
        self._arguments = game_arguments(task.spec, kwargs)
        self._n_actions = n_outputs(task.action_space)
        self._obs_type = str(seen)
        self._here: ALEInterface | None = None
        self._paths: list[_Path] = []
        self._spare: list[_Path] = []
        self._n_processes = n_processes
        self._pools: list[ProcessPoolExecutor] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be copied to another process."""
        return {**self.__dict__, "_here": None, "_paths": [], "_spare": [], "_pools": [], "_n_processes": 1}

    def __call__(self, states: Sequence[ALEState]) -> np.ndarray:
        """Return the logits of all actions in each of some states, ``(n, n_actions)``, float32."""
        n = self._n_processes
        if n == 1:
            return self._look(states)
        if not self._pools:  # each process has its own envs' plans, so that none may take another's states
            for _ in range(n):
                pool = ProcessPoolExecutor(
                    1,
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_start,
                    initargs=(CloudpickleWrapper(self),),
                )
                self._pools.append(pool)
        parts = [pool.submit(_look, list(states[i::n])) for i, pool in enumerate(self._pools)]
        logits = np.empty((len(states), self._n_actions), dtype=np.float32)
        for i, part in enumerate(parts):
            logits[i::n] = part.result()
        return logits

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown()
        self._pools.clear()

    def _look(self, states: Sequence[ALEState]) -> np.ndarray:
        logits = self._own_logits(states)
        while len(self._paths) < len(states):
            self._paths.append(self._path())
        paths = self._paths[: len(states)]
        for path, state in zip(paths, states, strict=True):
            if not path.moves_on_to(state):
                path.start(state)
        self._play_on(paths)
        in_danger = [i for i, path in enumerate(paths) if path.is_lost and not path.is_hopeless]
        self._replan(in_danger, [states[i] for i in in_danger], logits)
        for path, row in zip(self._paths, logits, strict=False):
            planned = path.actions[0]
            if planned != row.argmax():
                row[planned] = row.max() + self.margin
        return logits

    def _replan(self, columns: Sequence[int], states: Sequence[ALEState], logits: np.ndarray) -> None:
        """Try all actions in some columns' states, and put the best attempts in place of their paths."""
        tries = [(action, hold) for hold in self.holds for action in range(self._n_actions)]
        n = len(tries)
        while len(self._spare) < n * len(columns):
            self._spare.append(self._path())
        attempts = self._spare[: n * len(columns)]
        for i, attempt in enumerate(attempts):
            attempt.start(states[i // n])
            action, hold = tries[i % n]
            for _ in range(min(hold, self.steps)):
                attempt.act(action)
        self._play_on(attempts)
        for j, column in enumerate(columns):
            mine = range(j * n, j * n + n)
            survived = [attempts[i].survived for i in mine]
            # The first of the best: the likeliest action, held as briefly as can be.
            best = max(mine, key=lambda i: (attempts[i].survived, logits[column, attempts[i].actions[0]]))
            if max(survived) > self._paths[column].survived:
                self._paths[column], self._spare[best] = self._spare[best], self._paths[column]
            self._paths[column].is_hopeless = min(survived) == max(survived)

    def _play_on(self, paths: Sequence[_Path]) -> None:
        """Follow the policy's likeliest actions until something is lost, or as far as is looked."""
        while going := [path for path in paths if not path.is_lost and len(path.actions) < self.steps]:
            rams = np.stack([path.emulator.getRAM() for path in going])
            actions = self.policy(FROM_RAM[self._obs_type](rams)).argmax(1)
            for path, action in zip(going, actions.tolist(), strict=True):
                path.act(action)

    def _own_logits(self, states: Sequence[ALEState]) -> np.ndarray:
        if self._here is None:
            self._here = self._emulator()
        rams = np.empty((len(states), self._here.getRAMSize()), dtype=np.uint8)
        for i, state in enumerate(states):
            self._here.restoreState(state)
            rams[i] = self._here.getRAM()
        logits = np.array(self.policy(FROM_RAM[self._obs_type](rams)), dtype=np.float32)
        if logits.shape != (len(states), self._n_actions):
            raise TaskDistillError(
                f"The policy gives outputs of shape {logits.shape} for {len(states)} states of "
                f"{self._n_actions} actions."
            )
        return logits

    def _path(self) -> _Path:
        emulator = self._emulator()
        full = self._arguments["full_action_space"]
        return _Path(emulator, emulator.getLegalActionSet() if full else emulator.getMinimalActionSet())

    def _emulator(self) -> ALEInterface:
        from ale_py import ALEInterface, LoggerMode, roms  # late: it registers hundreds of ids

        ALEInterface.setLoggerMode(LoggerMode.Error)
        emulator = ALEInterface()
        emulator.setFloat("repeat_action_probability", self._arguments["repeat_action_probability"])
        emulator.setInt("frame_skip", FRAME_SKIP)
        rom = roms.get_rom_path(self._arguments["game"])
        assert rom is not None  # the task's own env was made of it
        emulator.loadROM(rom)
        return emulator


class _Path:
    """Actions from a state on, and where they lead, in an emulator that stands at their end.

    Attributes:
        emulator: The emulator.
        actions: The actions that are still to come.
        is_lost: Whether the last of them loses a life or points.
        is_hopeless: Whether nothing else is known that would lose later.
    """

    def __init__(self, emulator: ALEInterface, buttons: Sequence[Any]) -> None:
        self.emulator = emulator
        self.actions: deque[int] = deque()
        self.is_lost = self.is_hopeless = False
        self._buttons = buttons
        self._states: deque[ALEState] = deque()
        self._lives = 0

    @property
    def survived(self) -> int:
        """Actions that lose nothing."""
        return len(self.actions) - self.is_lost

    def start(self, state: ALEState) -> None:
        """Forget everything and start at a state."""
        self.emulator.restoreState(state)
        self.actions.clear()
        self._states.clear()
        self.is_lost = self.is_hopeless = False
        self._lives = self.emulator.lives()

    def moves_on_to(self, state: ALEState) -> bool:
        """Drop the first action if it led to this state and others follow; whether it did."""
        if len(self._states) < 2 or self._states[0] != state:
            return False
        self._states.popleft()
        self.actions.popleft()
        return True

    def act(self, action: int) -> None:
        """Go one step further, unless something is lost already."""
        if self.is_lost:
            return
        reward = self.emulator.act(self._buttons[action])
        self.actions.append(action)
        self._states.append(self.emulator.cloneState())
        self.is_lost = reward < 0 or self.emulator.lives() < self._lives or self.emulator.game_over()


_of_this_process: Lookahead | None = None


def _start(lookahead: CloudpickleWrapper) -> None:
    import torch

    global _of_this_process
    torch.set_num_threads(1)
    _of_this_process = lookahead.var


def _look(states: Sequence[ALEState]) -> np.ndarray:
    assert _of_this_process is not None
    return _of_this_process._look(states)
