"""A vec-env whose columns are computed by several processes."""

from __future__ import annotations

import contextlib
import pickle
import signal
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from joblib.externals.loky.backend import get_context
from stable_baselines3.common.vec_env.base_vec_env import (
    CloudpickleWrapper,
    VecEnv,
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.machine import use_threads
from gym_taskdistill.surroundings import Surroundings

#: Makes a vec-env of some columns, from the number of the first and how many there are.
MakeColumns = Callable[[int, int], VecEnv]


class ProcessVecEnv(VecEnv):
    """A vec-env whose columns are shared out to processes, each of which steps several one after the other.

    What it returns is the same for any number of processes: seeds belong to columns, and processes do nothing
    but step. Processes outlive it and serve the next one, since to start one takes seconds.

    Args:
        make: Makes a vec-env of some columns, from the number of the first and how many there are; called in
            the processes, sent there by cloudpickle.
        n_envs: Number of columns.
        n_processes: Number of processes, at most one for each column.

    Raises:
        TaskDistillError: ``make`` cannot be sent, or a process has ended, as one does that the system kills.
        Exception: What an env raises in its process is raised here.
    """

    def __init__(self, make: MakeColumns, n_envs: int, n_processes: int) -> None:
        self._shares = np.array_split(np.arange(n_envs), min(n_processes, n_envs))
        self._workers: list[_Worker] = []
        self.closed = False
        wrapped = CloudpickleWrapper(make)
        try:
            self._workers = [_Worker.take() for _ in self._shares]
            # By itself and first: what is sent next may be of modules that only this import path finds.
            self._ask("enter", [(Surroundings.here(),)] * len(self._workers))
            shares = [(wrapped, int(share[0]), len(share)) for share in self._shares]
            observation_space, action_space = self._ask("make", shares)[0]
            super().__init__(n_envs, observation_space, action_space)
        except BaseException:
            self.close()
            raise

    def _send(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        for worker, args in zip(self._workers, arguments, strict=True):
            worker.send(method, args)

    def _receive(self) -> list[Any]:
        """Return an answer of each process, or raise the first error once all have answered."""
        answers = [worker.receive() for worker in self._workers]
        for _, error in answers:
            if error is not None:
                raise error
        return [answer for answer, _ in answers]

    def _ask(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        self._send(method, arguments)
        return self._receive()

    def _ask_columns(self, indices: VecEnvIndices, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Call a method of SB3's vec-envs that takes indices, and return an answer for each column."""
        columns = np.arange(self.num_envs)[list(self._get_indices(indices))]  # -1 is the last
        places = [np.flatnonzero(np.isin(columns, share)) for share in self._shares]
        arguments = [
            (method, args, {**kwargs, "indices": (columns[place] - share[0]).tolist()})
            for place, share in zip(places, self._shares, strict=True)
        ]
        answers: list[Any] = [None] * len(columns)
        for place, part in zip(places, self._ask("call", arguments), strict=True):
            for position, answer in zip(place, part or (), strict=False):
                answers[position] = answer
        return answers

    def reset(self) -> VecEnvObs:
        """Reset all envs, with the seeds and options last given to `seed` and `set_options`."""
        parts = [([self._seeds[i] for i in s], [self._options[i] for i in s]) for s in self._shares]
        obs = _together(self._ask("reset", parts))
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: Any) -> None:
        """Send each process the actions of its columns: an array, or a list of single ones of any space."""
        shares = [
            actions[share] if isinstance(actions, np.ndarray) else [actions[i] for i in share]
            for share in self._shares
        ]
        self._send("call", [("step", (own,), {}) for own in shares])

    def step_wait(self) -> VecEnvStepReturn:
        """Wait until all have stepped."""
        obs, rewards, dones, infos = zip(*self._receive(), strict=True)
        together = [info for part in infos for info in part]
        return _together(obs), np.concatenate(rewards), np.concatenate(dones), together

    def rest(self, columns: Sequence[int]) -> None:
        """Step some columns no more until the next reset; see `ColumnsVecEnv.rest`."""
        local = [np.intersect1d(columns, share) - share[0] for share in self._shares]
        self._ask("call", [("rest", (some.tolist(),), {}) for some in local])

    def close(self) -> None:
        """Close the envs; the processes wait for the next vec-env."""
        if self.closed:
            return
        self.closed = True
        for worker in self._workers:
            worker.give_back()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a frame of each env, or nothing if the env does not render arrays."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        parts = self._ask("call", [("get_images", (), {})] * len(self._workers))
        return [image for part in parts for image in part]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each env asked for."""
        return self._ask_columns(indices, "get_attr", attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each env asked for."""
        self._ask_columns(indices, "set_attr", attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of each env asked for."""
        return self._ask_columns(indices, "env_method", method_name, *args, **kwargs)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Say of each env asked for whether it has a wrapper."""
        return self._ask_columns(indices, "env_is_wrapped", wrapper_class)


def _together(parts: Sequence[Any]) -> Any:
    """Put the columns of all processes together, in each part of observations that have parts."""
    if isinstance(parts[0], dict):
        return {key: _together([part[key] for part in parts]) for key in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(_together(part) for part in zip(*parts, strict=True))
    return np.concatenate(parts)


class _Worker:
    """A process that serves one vec-env at a time, seen from outside."""

    _idle: ClassVar[list[_Worker]] = []

    def __init__(self) -> None:
        # joblib's processes, unlike multiprocessing's, do not run the user's script again.
        context = get_context("loky")
        self._pipe, theirs = Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._awaited = 0

    @classmethod
    def take(cls) -> _Worker:
        """Return one that is idle, or a new one."""
        while cls._idle:
            worker = cls._idle.pop()
            if worker._process.is_alive():
                return worker
        return cls()

    def send(self, method: str, args: tuple[Any, ...]) -> None:
        """Ask for a method of `_Share`."""
        try:
            self._pipe.send((method, args))
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None
        except Exception as error:  # pickle raises errors of every kind
            raise TaskDistillError(
                f"The environments cannot be sent to other processes ({error}); use n_jobs=1."
            ) from None
        self._awaited += 1

    def receive(self) -> tuple[Any, Exception | None]:
        """Return the answer, or the error that there was instead."""
        try:
            answer: tuple[Any, Exception | None] = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        self._awaited -= 1
        return answer

    def give_back(self) -> None:
        """Close its envs and keep it; end it if it has died or was interrupted in the midst of something."""
        with contextlib.suppress(TaskDistillError):
            if not self._awaited and self._process.is_alive():
                self.send("close", ())
                self.receive()
                self._idle.append(self)
                return
        self._process.terminate()
        self._pipe.close()

    def _died(self) -> TaskDistillError:
        return TaskDistillError(
            "A process that simulates environments has ended, perhaps for want of memory; use fewer of them, "
            "such as n_jobs=1."
        )


class _Share:
    """The columns that one process steps."""

    def __init__(self) -> None:
        self.env: VecEnv | None = None

    def enter(self, surroundings: Surroundings) -> None:
        """Find the folder, the import path and the like that the asking process has now."""
        surroundings.enter()

    def make(self, make: Any, first: int, n_envs: int) -> tuple[Any, Any]:
        """Make the columns."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the asking process has made one, and shown them
            self.env = make.var(first, n_envs)
        return self.env.observation_space, self.env.action_space

    def reset(self, seeds: list[int | None], options: list[dict[str, Any]]) -> Any:
        """Reset the columns, each with its seed and options."""
        assert self.env is not None
        self.env._seeds, self.env._options = seeds, options
        return self.env.reset()

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of the columns' vec-env."""
        return getattr(self.env, method)(*args, **kwargs)

    def close(self) -> None:
        """Close the columns, if they were made."""
        if self.env is not None:
            self.env.close()
            self.env = None


def _serve(pipe: Connection) -> None:
    """Answer until the asking process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the asking process, which ends this one
    use_threads(1)
    share = _Share()
    while True:
        try:
            method, args = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        except Exception as error:  # what was sent cannot be made here
            pipe.send_bytes(_packed(None, error))
            continue
        try:
            answer = pickle.dumps((getattr(share, method)(*args), None))
        except Exception as error:
            answer = _packed(None, error)
        try:
            pipe.send_bytes(answer)
        except (BrokenPipeError, ConnectionResetError):
            return


def _packed(answer: Any, error: Exception) -> bytes:
    try:
        packed = pickle.dumps((answer, error))
        pickle.loads(packed)  # an error whose arguments are not its message cannot be made again
    except Exception:
        return pickle.dumps((answer, RuntimeError(f"{type(error).__name__}: {error}")))
    return packed
