"""Refine rows for Reacher-v4 by the exact gradient of the return, which its equations of motion give.

``python research/refine_reacher.py Reacher-v4/one-step refined.safetensors``

PPMO's steps are lost in noise where a return depends on each of 64 rows by a thousandth. Reacher's arm is two
links in a plane, without contacts: fifty steps of it are a differentiable function of the rows, and the
gradient of the return goes back through the arm, through what learners do there, and through their one step
(analytic policy gradients; Freeman et al. 2021). Learners are drawn anew for each update, as for PPMO. What
comes out is no longer model-free.

The result has no scores; give it to ``python -m gym_taskdistill.train --warm-start``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import torch
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor
from tqdm import tqdm

from gym_taskdistill import PPMO, zoo
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.learners import MLP, learner_distribution
from gym_taskdistill.policies.action_distributions import DiagGaussian
from gym_taskdistill.tasks.task import Task

TASK = Task("Reacher-v4")
EPISODE_STEPS = 50
N_ENVS = 64


@dataclass(frozen=True)
class State:
    """A batch of arms and their targets.

    Attributes:
        angles: Of both joints, ``(n, 2)``, radians.
        velocities: Their rates, ``(n, 2)``, radians per second.
        target: ``(n, 2)``, metres.
    """

    angles: Tensor
    velocities: Tensor
    target: Tensor

    def to(self, device: torch.device) -> State:
        """Return the same arms on another device."""
        return State(*(part.to(device) for part in (self.angles, self.velocities, self.target)))


class Arm:
    """Reacher-v4's arm in torch: MuJoCo's constants, and its integrator (Runge-Kutta of order 4).

    Args:
        env: The env that it copies.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        whole: Any = env.unwrapped
        model = whole.model
        self.frame_skip, self.timestep = whole.frame_skip, model.opt.timestep
        self.damping, self.gear = float(model.dof_damping[0]), float(model.actuator_gear[0, 0])
        self.links = (float(model.body("body1").pos[0]), float(model.body("fingertip").pos[0]))
        straight, bent = (self._inertia(model, angle) for angle in (0.0, np.pi / 2))
        # The first joint's inertia is constant + 2 coupling cos(second angle).
        self.inertia, self.coupling = float(bent[0, 0]), float(straight[0, 0] - bent[0, 0]) / 2
        self.second_inertia, self.shared = float(bent[1, 1]), float(bent[0, 1])

    @staticmethod
    def _inertia(model: Any, angle: float) -> np.ndarray:
        data = mujoco.MjData(model)
        data.qpos[1] = angle
        mujoco.mj_forward(model, data)
        matrix = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, matrix)
        return matrix[:2, :2]

    def start(self, n: int, generator: torch.Generator) -> State:
        """Draw starts as the env does: an arm that is nearly straight, a target in a disc of 0.2 m."""
        targets = torch.empty(0, 2)
        while len(targets) < n:
            square = torch.rand(2 * n, 2, generator=generator) * 0.4 - 0.2
            targets = torch.cat([targets, square[square.norm(dim=1) < 0.2]])
        angles, velocities = (torch.rand(2, n, 2, generator=generator) * 2 - 1).unbind()
        return State(0.1 * angles, 0.005 * velocities, targets[:n])

    def miss(self, state: State) -> Tensor:
        """Return the vector from the target to the fingertip, ``(n, 2)``."""
        elbow, tip = state.angles[:, 0], state.angles.sum(1)
        (first, second) = self.links
        x = first * elbow.cos() + second * tip.cos()
        y = first * elbow.sin() + second * tip.sin()
        return torch.stack([x, y], 1) - state.target

    def observe(self, state: State) -> Tensor:
        """Return what the env shows, ``(n, 11)``."""
        flat = torch.zeros_like(state.target[:, :1])
        angles = state.angles
        return torch.cat(
            [angles.cos(), angles.sin(), state.target, state.velocities, self.miss(state), flat], 1
        )

    def reward(self, state: State, actions: Tensor) -> Tensor:
        """Return the reward of actions within the box in a state, ``(n,)``."""
        distance = (self.miss(state).square().sum(1) + 1e-8).sqrt()  # its slope at 0 would be no number
        return -distance - actions.square().sum(1)

    def step(self, state: State, actions: Tensor) -> State:
        """Return the state after one env step; no joint has reached its limit."""
        q, v, h = state.angles, state.velocities, self.timestep
        for _ in range(self.frame_skip):
            a1 = self._acceleration(q, v, actions)
            v2 = v + h / 2 * a1
            a2 = self._acceleration(q + h / 2 * v, v2, actions)
            v3 = v + h / 2 * a2
            a3 = self._acceleration(q + h / 2 * v2, v3, actions)
            v4 = v + h * a3
            a4 = self._acceleration(q + h * v3, v4, actions)
            q = q + h / 6 * (v + 2 * v2 + 2 * v3 + v4)
            v = v + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
        return State(q, v, state.target)

    def _acceleration(self, q: Tensor, v: Tensor, actions: Tensor) -> Tensor:
        cos, sin = self.coupling * q[:, 1].cos(), self.coupling * q[:, 1].sin()
        torques = self.gear * actions - self.damping * v
        first = torques[:, 0] + sin * (2 * v[:, 0] * v[:, 1] + v[:, 1].square())
        second = torques[:, 1] - sin * v[:, 0].square()
        m11, m12, m22 = self.inertia + 2 * cos, self.shared + cos, self.second_inertia
        determinant = m11 * m22 - m12 * m12
        return torch.stack([m22 * first - m12 * second, m11 * second - m12 * first], 1) / determinant[:, None]


def make_model(
    entry: DistilledDataset, width: int, n_learners: int, seed: int, device: str = "cpu", **settings: Any
) -> PPMO:
    """Return the entry as PPMO holds it, for learners of this width."""
    learners = learner_distribution(entry.card.learners)
    assert isinstance(learners, MLP)
    settings = {
        "k": entry.k,
        "inner": entry.rule.to_dict(),
        "start": {"obs_scale": 1.0},
        "learners": replace(learners, width=width),
        "n_learners": n_learners,
        "learning_rates": {"log_std": 0.0},
        **settings,
    }
    env = VecNormalize(TASK.make_vec_env(N_ENVS, seed=seed))
    model = PPMO(env=env, seed=seed, device=device, **settings)
    model.load_dataset(entry)
    return model


def returns(model: PPMO, arm: Arm, starts: State) -> Tensor:
    """Return what the current learners score without noise, each from its share of the starts, ``(n,)``."""
    normalizer = model.get_vec_normalize_env()
    assert normalizer is not None
    statistics: Any = normalizer.obs_rms
    mean, std = (
        torch.as_tensor(array, dtype=torch.float32, device=model.device)
        for array in (statistics.mean, np.sqrt(statistics.var + normalizer.epsilon))
    )
    trained = model.loop.trained(create_graph=torch.is_grad_enabled())
    state = starts.to(model.device)
    total = torch.zeros(len(starts.target), device=model.device)
    for _ in range(EPISODE_STEPS):
        obs = ((arm.observe(state) - mean) / std).clamp(-normalizer.clip_obs, normalizer.clip_obs)
        features = model.loop.features(obs.view(model.n_learners, -1, obs.shape[1]))
        distribution = trained.act(features, model.loop.trunk)
        assert isinstance(distribution, DiagGaussian)
        actions = distribution.mean.reshape(-1, 2).clamp(-1, 1)
        total = total + arm.reward(state, actions)
        state = arm.step(state, actions)
    return total


def refine(
    model: PPMO,
    arm: Arm,
    n_updates: int,
    n_episodes: int,
    generator: torch.Generator,
    progress: Callable[[int, float], object] | None = None,
) -> None:
    """Follow the gradient of the return; learning rates fall in a line to a twentieth.

    Args:
        model: Whose rows, inner learning rate and factors on observations to improve.
        arm: The task.
        n_updates: Number of updates.
        n_episodes: Episodes of each learner in an update.
        generator: Source of the starts.
        progress: Called with the number of finished updates and the mean return of the last.
    """
    loop = model.loop
    for update in range(n_updates):
        loop.optimizer.set_rates(1.0)
        for group in loop.optimizer.param_groups:
            group["lr"] *= 1 - 0.95 * update / n_updates
        loop.draw()
        score = returns(model, arm, arm.start(model.n_learners * n_episodes, generator)).mean()
        loop.optimizer.descend(-score)
        if progress is not None:
            progress(update + 1, score.item())


def main() -> None:
    """Refine an entry."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entry", help="an entry of the zoo for Reacher-v4, or a dataset file of a run")
    parser.add_argument("out", type=Path, help="written every 100 updates")
    parser.add_argument("--width", type=int, default=32768, help="width of the learners' hidden layer")
    parser.add_argument("--n-learners", type=int, default=1)
    parser.add_argument("--n-episodes", type=int, default=64, help="of each learner in an update")
    parser.add_argument("--n-updates", type=int, default=1000)
    parser.add_argument("--learning-rate", type=float, default=0.002, help="of the rows, at the start")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n-threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.n_threads)
    file = Path(args.entry)
    entry = DistilledDataset.load(file if file.suffix == ".safetensors" else zoo.find(args.entry).path)
    if entry.card.env_id != TASK.env_id:
        raise SystemExit(f"{args.entry} is for {entry.card.env_id}, but the arm is that of {TASK.env_id}.")
    if entry.obs_scale is None:
        raise SystemExit(f"{args.entry} has no obs_scale; give an entry of Reacher.")
    rates = {
        "learning_rate": args.learning_rate,
        "learning_rates": {
            "inner_lr": args.learning_rate / 4,
            "obs_scale": args.learning_rate / 2,
            "log_std": 0.0,
        },
    }
    model = make_model(entry, args.width, args.n_learners, args.seed, args.device, **rates)
    scores: list[float] = []
    with tqdm(total=args.n_updates, unit="update", dynamic_ncols=True) as bar:

        def progress(update: int, score: float) -> None:
            scores.append(score)
            bar.set_postfix_str(f"return {np.mean(scores[-50:]):.3f}", refresh=False)
            bar.update()
            if update % 100 == 0 or update == args.n_updates:
                model.dataset().save(args.out)

        generator = torch.Generator().manual_seed(args.seed)
        arm = Arm(TASK.make_env())
        if model.device.type == "cuda":  # a step is hundreds of kernels otherwise
            arm.step = torch.compile(arm.step)  # type: ignore[method-assign]
        refine(model, arm, args.n_updates, args.n_episodes, generator, progress)


if __name__ == "__main__":
    main()
