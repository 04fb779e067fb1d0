"""The stages that learn by reinforcement: ``ppmo`` distils, ``ppo`` learns the task directly."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill import critic_file, distributed
from gym_taskdistill.distill.buffer import check_minibatches
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.learners import learner_distribution
from gym_taskdistill.paths import critic_path
from gym_taskdistill.recipes.callbacks import BestDatasetCallback, CheckpointCallback, ScoreProgressBar
from gym_taskdistill.recipes.settings import (
    Count,
    Fraction,
    LearnersSetting,
    NonNegative,
    Positive,
    Rate,
    Size,
    Weight,
)
from gym_taskdistill.recipes.stages.outer import OuterStage, RateName
from gym_taskdistill.recipes.stages.stage import Outcome, Promise, RecipeError, Work, register_stage
from gym_taskdistill.tasks import Task

#: A stage is cut into this many segments, with a checkpoint at each cut.
N_SEGMENTS = 10


@register_stage("ppmo")
class Distil(OuterStage):
    """Distil by PPMO (paper, Algorithms 1 and 2), from the dataset before if there is one, else from noise.

    What it makes is the best dataset of those that it tested on the way, by the selection seed. Settings
    that are not listed here are `PPMO`'s arguments under their own names.

    Attributes:
        total_timesteps: Env steps of the stage.
        n_envs: Environments, M·E.
        backend: What computes them: ``auto``, ``gymnasium`` or ``envpool``; see `Task.make_vec_env`.
        normalize: Normalise observations and rewards with SB3's `VecNormalize`.
        clip_reward: Train on the signs of an Atari game's rewards; other tasks have theirs as they are.
    """

    total_timesteps: Count = 1_000_000
    n_envs: Size = 32
    backend: Literal["auto", "gymnasium", "envpool"] = "auto"
    clip_reward: bool = True
    critic_learning_rate: Rate = 1e-3
    critic_warmup: NonNegative = 0
    n_steps: Size = 128
    batch_size: Size = 1024
    n_epochs: Count = 4
    gamma: Fraction = 0.99
    gae_lambda: Fraction = 0.95
    clip_range: Rate = 0.2
    normalize_advantage: bool = True
    ent_coef: Weight = 0.01
    vf_coef: Weight = 0.5
    target_kl: Positive | None = None
    critic: LearnersSetting | None = None
    share_features_extractor: bool = False

    def check(self, task: Task, before: Promise | None) -> Promise:
        """Refuse settings that do not fit each other, the task or the dataset before; see the base class."""
        promise = self.promise(task)
        check_minibatches(self.n_learners, self.n_envs, self.n_steps, self.batch_size)
        if self.share_features_extractor and not promise.encoder_layers:
            raise RecipeError("share_features_extractor needs an encoder; use encoder_layers >= 1.")
        if before is not None:
            self.check_start(promise, before)
        return promise

    def make_env(self, task: Task) -> VecEnv:
        """Make the environments to train in."""
        env = task.make_vec_env(
            self.n_envs, backend=self.backend, training=True, clip_reward=self.clip_reward
        )
        return VecNormalize(env, gamma=self.gamma) if self.normalize else env

    def tests(self, work: Work) -> BestDatasetCallback:
        """Return the callback that tests the dataset now and then and keeps the best."""
        plan = work.evaluation
        every = plan.eval_freq or max(1, self.total_timesteps // 20)
        return BestDatasetCallback(
            work.task,
            work.folder,
            every,
            plan.n_agents,
            plan.n_episodes,
            work.selection_seed,
            report=work.report,
        )

    def run(self, work: Work) -> Outcome:
        """Distil; see the base class. Of several ranks all distil, and the first one tests and writes."""
        env = self.make_env(work.task)
        model = PPMO(env=env, seed=work.seed, device=work.device, **self.arguments(PPMO, work.task))
        model.task = work.task
        is_first = distributed.rank() == 0
        outputs = [TensorBoardOutputFormat(str(work.folder))] if is_first else []
        model.set_logger(Logger(str(work.folder), list(outputs)))
        before = work.load_before()
        self._start(model, before, work)
        best = self.tests(work)
        bar = ScoreProgressBar(best) if work.progress_bar and is_first else None
        checkpoints = CheckpointCallback(work.checkpoint, max(1, self.total_timesteps // N_SEGMENTS))
        callbacks: list[BaseCallback] = [best, checkpoints, *([bar] if bar else [])]
        try:
            left = self.total_timesteps - model.num_timesteps
            if left > 0:
                model.learn(left, CallbackList(callbacks), tb_log_name="", reset_num_timesteps=False)
                checkpoints.act()
        finally:
            if bar:
                bar.close()
            model.logger.close()
            env.close()
        inputs = {} if before is None else {"before": before}
        if not is_first:
            return Outcome(model.dataset(), model.num_timesteps, inputs)
        if work.report is None:
            best.say_if_nothing_was_learned()
        dataset = DistilledDataset.load(best.path)
        critic = critic_file.of_dataset(best.path, dataset.digest)
        return Outcome(dataset, model.num_timesteps, inputs, critic, self.decided(model.loop))

    def _start(self, model: PPMO, before: DistilledDataset | None, work: Work) -> None:
        if work.checkpoint.is_file():
            model.load_checkpoint(work.checkpoint)
            work.stopwatch.earlier += model.earlier_s
        elif before is not None and work.before is not None:
            model.load_dataset(before)
            critic = critic_path(work.before)
            if critic.is_file():
                critic_file.read(model, critic, before.digest)


#: The rows' learning rate would be far too high for weights.
ENCODER_RATE: dict[RateName, Rate] = {"encoder": "lin_0.001_0.0001"}


@register_stage("ppo")
class DirectTask(Distil):
    """Learn the task directly: PPMO with all layers in the encoder is PPO.

    It makes experts, and the results' reference column. Nothing is drawn afresh, so that the dataset holds
    one agent; its rows mean nothing.
    """

    learning_rates: dict[RateName, Rate] = Field(default_factory=lambda: {**ENCODER_RATE})

    def n_encoder_layers(self, task: Task) -> int:
        """Return all layers of the architecture.

        Raises:
            TaskDistillError: A part of them is asked for, or the learners have no single architecture.
        """
        if self.encoder_layers:
            raise RecipeError("A stage ppo has all layers in the encoder; leave encoder_layers out.")
        return len(learner_distribution(self.learners).layers(task.flat_observation_space.shape, 1))

    def tests(self, work: Work) -> BestDatasetCallback:
        """Return the callback of the tests: one agent, for all fresh ones are the same."""
        best = super().tests(work)
        best.n_episodes *= best.n_agents
        best.n_agents = 1
        return best
