"""Training speed of PPMO beside Stable-Baselines3's PPO, and where a meta-epoch's time goes."""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import mujoco
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from benchmarks import Report, Row, at_least, best_seconds
from gym_taskdistill import PPMO
from gym_taskdistill.dataset.card import is_image, space_to_dict
from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.stages import Distil
from gym_taskdistill.tasks import Task


@dataclass(frozen=True)
class Job:
    """What is trained: a task, by the last stage of its recipe that runs PPMO."""

    task: Task
    stage: Distil

    @classmethod
    def of(cls, name: str, task: Task | None = None, **changes: Any) -> Job:
        """Take a recipe's, with some settings changed, for another task if one is given."""
        recipe = load(name)
        (*_, stage) = (stage for stage in recipe.stages if isinstance(stage, Distil))
        return cls(task or recipe.task, stage.replace(**changes))


#: The recipe for two axes, with the env of one, SB3's CartPole-v1: as it is, and with large minibatches. The
#: inner step costs the same for any one.
ONE_AXIS = Task("CartPoleND-v0", {"n": 1})
SMALL = Job.of("cartpole", ONE_AXIS)
LARGE = Job.of("cartpole", ONE_AXIS, n_envs=64, batch_size=4096)

#: MuJoCo with 8 learners, as its recipes have it but for their 16.
MUJOCO = [Job.of(f"{name}-v4", n_learners=8) for name in ("Hopper", "HalfCheetah")]
#: Atari by a linear probe, as its recipe has it.
ATARI = Job.of("PongNoFrameskip-v4")
#: Rounds, and env steps of each, without and with images, which take a hundred times as long.
ROUNDS, MIN_STEPS = {False: 5, True: 2}, {False: 16_384, True: 2_048}


def vec_env(job: Job, backend: str) -> VecEnv:
    """Make the recipe's environments."""
    env = job.task.make_vec_env(job.stage.n_envs, backend=backend, training=True)
    return VecNormalize(env) if job.stage.normalize else env


def ppmo(job: Job, device: str = "cpu") -> PPMO:
    """Make PPMO as a recipe says."""
    return PPMO(
        env=vec_env(job, job.stage.backend), seed=0, device=device, **job.stage.arguments(PPMO, job.task)
    )


def sb3_ppo(job: Job, env: VecEnv) -> PPO:
    """Make SB3's PPO with the same rollouts, minibatches and passes, and nets like the learners'."""
    same = {name: getattr(job.stage, name) for name in ("n_steps", "batch_size", "n_epochs", "ent_coef")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of frames that are stacked already SB3 says that they are odd
        return PPO("CnnPolicy" if has_images(job) else "MlpPolicy", env, seed=0, device="cpu", **same)


def has_images(job: Job) -> bool:
    """Tell whether the recipe's learners see images."""
    return is_image(space_to_dict(job.task.observation_space))


def learner(model: OnPolicyAlgorithm, steps: int = MIN_STEPS[False]) -> Callable[[], None]:
    """Return a function that trains for some meta-epochs, the same number of env steps for all."""

    def run() -> None:
        model.learn(steps, reset_num_timesteps=False)

    run()  # the first call allocates
    return run


class Stopwatch:
    """Splits time among parts of a program; of nested parts, the innermost gets it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running = ["rest"]
        self._since = time.process_time()

    def wrap(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Return a function that does the same and counts its time to ``part``."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._count()
            self._running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._count()
                self._running.pop()

        return timed

    def _count(self) -> None:
        now = time.process_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now


def profile(job: Job, meta_epochs: int = 10) -> dict[str, float]:
    """Measure the CPU seconds that each part of a meta-epoch takes, on average."""
    model = ppmo(job)
    learner(model)
    watch = Stopwatch()
    parts = [
        (model, "collect_rollouts", "rollout: policy"),
        (model.env, "step", "rollout: env"),
        (model.rollout_buffer, "add_step", "rollout: buffer"),
        (model.rollout_buffer, "compute_returns_and_advantage", "rollout: buffer"),
        (model.loop, "draw", "sampling fresh learners"),
        (model.loop, "trained", "inner step, forward with graph"),
        (model.loop, "features", "encoder, forward"),
        (model.policy, "values", "critic, forward"),
        (model, "loss", "outer loss, forward"),
        (torch.Tensor, "backward", "backward (dataset through the inner step, critic)"),
        (model.loop.optimizer, "step", "optimiser"),
    ]
    patches = [
        patch.object(owner, name, watch.wrap(getattr(owner, name), part)) for owner, name, part in parts
    ]
    for one in patches:
        one.start()
    try:
        watch.wrap(model.learn, "rest: minibatches, clipping, log")(
            meta_epochs * job.stage.n_envs * model.n_steps, reset_num_timesteps=False
        )
    finally:
        for one in patches:
            one.stop()
    del watch.seconds["rest"]
    return {part: seconds / meta_epochs for part, seconds in watch.seconds.items()}


def compare(job: Job, peer: VecEnv | None, peer_name: str = "", target: float | None = None) -> list[Row]:
    """Measure env steps per CPU second of PPMO beside SB3's PPO: on the peer's envs, and on ours.

    Args:
        job: What to train.
        peer: Other envs for SB3's PPO; without them the target is for our own.
        peer_name: Their name.
        target: Ratio aimed at.
    """
    steps = MIN_STEPS[has_images(job)]
    models: list[OnPolicyAlgorithm] = [ppmo(job), sb3_ppo(job, vec_env(job, job.stage.backend))]
    if peer is not None:
        models.append(sb3_ppo(job, peer))
    rounds = ROUNDS[has_images(job)]
    seconds = best_seconds(*(learner(model, steps) for model in models), rounds=rounds)
    ours, here, *there = (steps / s for s in seconds)
    name = f"{job.task.env_id}, {job.stage.n_envs} envs, batch {job.stage.batch_size}: PPMO / SB3 PPO"
    rows = [at_least(f"{name}, {peer_name}", ours, theirs, target, "steps/s") for theirs in there]
    same = at_least(f"{name}, same envs", ours, here, None if there else target, "steps/s")
    return [*rows, same]


def meta_epoch(job: Job, device: str) -> Row:
    """Time a meta-epoch by the clock."""
    model = ppmo(job, device)
    steps = job.stage.n_envs * model.n_steps

    def run() -> None:
        model.learn(steps, reset_num_timesteps=False)
        if device == "cuda":
            torch.cuda.synchronize()

    run()  # the first call allocates
    (seconds,) = best_seconds(run, rounds=2, clock=time.perf_counter)
    return Row(f"{job.task.env_id}, a meta-epoch of {steps:,} env steps on {device}", f"{seconds:.2f} s")


def on_every_device(job: Job) -> list[Row]:
    """Time a meta-epoch on the CPU, and on a GPU where there is one."""
    return [meta_epoch(job, device) for device in ("cpu", *(["cuda"] * torch.cuda.is_available()))]


def profile_text(job: Job) -> str:
    """Say where the time of a meta-epoch goes."""
    parts = profile(job)
    total = sum(parts.values())
    steps = job.stage.n_envs * int(job.stage.n_steps)
    lines = [f"A meta-epoch of PPMO on {job.task}, {steps} env steps, takes {1000 * total:.0f} ms:"]
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        lines.append(f"  {part:<52}{1000 * seconds:>7.1f} ms {seconds / total:>5.0%}")
    return "\n".join(lines)


def measure() -> Report:
    """Measure the training of cart-pole, and profile it."""
    rows = []
    for job, target in ((LARGE, 2.0), (SMALL, None)):
        peer = make_vec_env("CartPole-v1", n_envs=job.stage.n_envs)
        rows += compare(job, peer, "DummyVecEnv", target)
    return Report(rows + on_every_device(SMALL), [profile_text(SMALL)])


def measure_atari() -> Report:
    """Measure the training of an Atari game behind an encoder, and profile it."""
    rows = compare(ATARI, None, target=1.2)
    plain = replace(ATARI, stage=ATARI.stage.replace(mixed_precision=False))
    (row,) = compare(plain, None)
    rows.append(dataclasses.replace(row, name=f"{row.name}, in float32"))
    rows.append(precision(plain))
    return Report(rows + on_every_device(ATARI))


def precision(plain: Job) -> Row:
    """Compare what ``mixed_precision: auto`` chooses here with float32."""
    auto = replace(plain, stage=plain.stage.replace(mixed_precision="auto"))
    models = [ppmo(job) for job in (auto, plain)]
    steps = MIN_STEPS[True]
    seconds = best_seconds(*(learner(model, steps) for model in models), rounds=ROUNDS[True])
    ours, theirs = (steps / s for s in seconds)
    has_units = models[0].loop.mixed_precision
    name = f"{plain.task}: mixed_precision auto ({'bfloat16' if has_units else 'float32'}) / float32"
    # Where auto means float32, both are one program.
    return at_least(name, ours, theirs, 1.0 if has_units else None, "steps/s")


def simulation(job: Job, steps: int = 8_192) -> Row:
    """Measure the recipe's envs, with random actions, beside MuJoCo's own steps alone: training's bound.

    MuJoCo steps within C, with no observations, rewards or batches, for episodes as long as the envs'.
    """
    env = job.task.make_vec_env(job.stage.n_envs, backend=job.stage.backend, training=True)
    space = env.action_space
    assert isinstance(space, spaces.Box)
    shape = (steps // job.stage.n_envs, job.stage.n_envs, *space.shape)
    actions = np.random.default_rng(0).uniform(space.low, space.high, shape).astype(space.dtype)
    env.seed(0)
    env.reset()
    n_episodes = 1 + sum(int(env.step(row)[2].sum()) for row in actions)
    every = job.stage.n_envs * len(actions) // n_episodes
    official: Any = job.task.make_env().unwrapped
    model, data = official.model, official.data

    def envs() -> None:
        for row in actions:
            env.step(row)

    def alone() -> None:
        for i, action in enumerate(actions.reshape(steps, -1)):
            if i % every == 0:
                official.reset()
            data.ctrl[:] = action
            mujoco.mj_step(model, data, nstep=official.frame_skip)

    seconds = best_seconds(envs, alone, rounds=ROUNDS[False])
    ours, bare = (steps / s for s in seconds)
    return at_least(
        f"{job.task.env_id}, {job.stage.n_envs} envs alone / mj_step alone", ours, bare, None, "steps/s"
    )


def measure_mujoco() -> Report:
    """Measure the training of MuJoCo's tasks, and profile it."""
    rows = []
    for job in MUJOCO:
        rows += compare(job, vec_env(job, "gymnasium"), "DummyVecEnv", 2.0)
        rows.append(simulation(job))
    return Report(rows, [profile_text(job) for job in MUJOCO])
