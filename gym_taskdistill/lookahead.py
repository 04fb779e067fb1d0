"""An expert of an Atari game that looks ahead: it tries every action in a copy of the emulator.

A policy that only reacts can be made a better one without any learning: where the emulator's state can be
copied, what an action is worth is found by playing on from it (the rollout algorithm; Tesauro and Galperin
1996). What an agent sees does not tell it all that the copy tells, but much of it (Guo et al. 2014).
"""

from __future__ import annotations

import multiprocessing
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
SETTINGS = ("steps", "gamma", "life", "temperature")

#: What policies see of RAMs ``(n, 128)``, by their task's obs_type.
FROM_RAM: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ram": lambda rams: rams,
    "bits": lambda rams: np.unpackbits(rams, axis=1),
}


def states(env: VecEnv, observations: np.ndarray) -> list[ALEState]:
    """Copy the emulators' states of single Atari envs: the view of a `Lookahead`."""
    return [ale.cloneState() for ale in env.get_attr("ale")]


class Lookahead:
    """An expert that prefers what a policy prefers, and what leads to more points.

    From each state every action is tried in a copy of the emulator, and the policy's likeliest actions
    follow. An action is worth q, the discounted raw rewards of those steps, less ``life`` at the step at
    which a life is lost, which is the last. The expert's logits are ``log π(a) + q(a) / temperature``: of all
    policies the one that gains most, where to leave the policy π costs ``temperature`` points a nat.

    Args:
        policy: From observations ``(n, *obs_shape)`` to logits, such as `as_expert` gives.
        task: What the policy plays: an Atari game by its RAM or the bits of it.
        steps: Steps looked ahead, at least 1.
        gamma: Discount factor a step.
        life: What a life is worth, in points.
        temperature: Points for which it leaves the policy's ways, above 0.
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
        steps: int = 40,
        gamma: float = 0.99,
        life: float = 500.0,
        temperature: float = 10.0,
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
        if not temperature > 0:
            raise TaskDistillError(f"The temperature of a lookahead must be > 0, but is {temperature!r}.")
        self.policy = policy
        self.steps, self.gamma, self.life, self.temperature = steps, gamma, life, temperature
        kwargs = {k: v for k, v in task.env_kwargs.items() if k != "obs_type"}
        self._arguments = game_arguments(task.spec, kwargs)
        self._n_actions = n_outputs(task.action_space)
        self._obs_type = str(seen)
        self._emulators: list[ALEInterface] = []
        self._n_processes = n_processes
        self._pool: ProcessPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be copied to another process."""
        return {**self.__dict__, "_emulators": [], "_pool": None, "_n_processes": 1}

    def __call__(self, states: Sequence[ALEState]) -> np.ndarray:
        """Return the logits of all actions in each of some states, ``(n, n_actions)``, float32."""
        if self._n_processes == 1 or len(states) < self._n_processes:
            return self._improve(states)
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._n_processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(CloudpickleWrapper(self),),
            )
        parts = [list(states[i :: self._n_processes]) for i in range(self._n_processes)]
        results = list(self._pool.map(_improve, parts))
        logits = np.empty((len(states), results[0].shape[1]), dtype=np.float32)
        for i, result in enumerate(results):
            logits[i :: self._n_processes] = result
        return logits

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def values(self, states: Sequence[ALEState]) -> np.ndarray:
        """Return q of all actions in each of some states, in points, ``(n, n_actions)``."""
        return self._look(states)[1]

    def _improve(self, states: Sequence[ALEState]) -> np.ndarray:
        logits, values = self._look(states)
        logits = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        improved: np.ndarray = (logits + values / self.temperature).astype(np.float32)
        return improved

    def _look(self, states: Sequence[ALEState]) -> tuple[np.ndarray, np.ndarray]:
        """Return the policy's own logits and what its actions are worth, ``(n, n_actions)`` both."""
        n, n_actions = len(states), self._n_actions
        while len(self._emulators) < n * n_actions:
            self._emulators.append(self._emulator())
        emulators = self._emulators[: n * n_actions]
        buttons = self._buttons(emulators[0])
        for i, emulator in enumerate(emulators):
            emulator.restoreState(states[i // n_actions])
        lives = [emulator.lives() for emulator in emulators]
        logits = self._logits(emulators[::n_actions])
        if logits.shape != (n, n_actions):
            raise TaskDistillError(
                f"The policy gives outputs of shape {logits.shape} for {n} states of {n_actions} actions."
            )
        values = np.zeros(len(emulators))
        playing = np.arange(len(emulators))
        actions = playing % n_actions
        for step in range(self.steps):
            discount = self.gamma**step
            goes_on = np.ones(len(playing), dtype=bool)
            for j, (i, action) in enumerate(zip(playing.tolist(), actions.tolist(), strict=True)):
                values[i] += discount * emulators[i].act(buttons[action])
                if emulators[i].game_over() or emulators[i].lives() < lives[i]:
                    values[i] -= discount * self.life
                    goes_on[j] = False
            playing = playing[goes_on]
            if not playing.size:
                break
            actions = self._logits([emulators[i] for i in playing]).argmax(1)
        return logits, values.reshape(n, n_actions)

    def _logits(self, emulators: Sequence[ALEInterface]) -> np.ndarray:
        rams = np.stack([emulator.getRAM() for emulator in emulators])
        return self.policy(FROM_RAM[self._obs_type](rams))

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

    def _buttons(self, emulator: ALEInterface) -> list[Any]:
        full = self._arguments["full_action_space"]
        return list(emulator.getLegalActionSet() if full else emulator.getMinimalActionSet())


_of_this_process: Lookahead | None = None


def _start(lookahead: CloudpickleWrapper) -> None:
    import torch

    global _of_this_process
    torch.set_num_threads(1)
    _of_this_process = lookahead.var


def _improve(states: Sequence[ALEState]) -> np.ndarray:
    assert _of_this_process is not None
    return _of_this_process._improve(states)
