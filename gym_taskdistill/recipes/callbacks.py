"""Callbacks of a distillation: keep the best dataset, write checkpoints, show progress.

All of them act between meta-epochs, at the start of a rollout, when the dataset is consistent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill import critic_file, distributed
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.paths import critic_path
from gym_taskdistill.policies.evaluation import Evaluation, evaluate
from gym_taskdistill.progress import progress
from gym_taskdistill.recipes import evaluations
from gym_taskdistill.tasks.task import Task


class MetaEpochCallback(BaseCallback):
    """Does something each time another ``every`` env steps have passed, between two meta-epochs.

    Args:
        every: Env steps from one time to the next.
    """

    model: PPMO

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = max(1, every)
        self._last: int | None = None

    def _on_training_start(self) -> None:
        self._last = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self._last is not None and self.model.num_timesteps // self.every > self._last // self.every:
            self._last = self.model.num_timesteps
            self.act()

    def _on_step(self) -> bool:
        return True

    def act(self) -> None:
        """Do it."""
        raise NotImplementedError


class BestDatasetCallback(MetaEpochCallback):
    """Tests fresh learners on the dataset now and then and keeps the best dataset.

    The learners, their actions and the envs come from seeds that training never uses; the final score of a
    run should use yet others. The history is in ``evaluations.csv``; a resumed run continues it.

    Args:
        task: The task to test on.
        folder: Where to write ``best.safetensors`` (and ``.json``), ``best.critic.safetensors`` and
            ``evaluations.csv``.
        every: Env steps between two tests.
        n_agents: Fresh learners in a test.
        n_episodes: Episodes for each.
        seed: Seed of the tests.
        report: Called with the means of all tests so far after each test; may raise to stop the run.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        every: int,
        n_agents: int,
        n_episodes: int,
        seed: int,
        report: Callable[[list[float]], None] | None = None,
    ) -> None:
        super().__init__(every)
        self.report = report
        self.task, self.folder = task, folder
        self.n_agents, self.n_episodes, self.seed = n_agents, n_episodes, seed
        self.history: list[evaluations.Row] = []

    @property
    def path(self) -> Path:
        """The best dataset's file."""
        return self.folder / "best.safetensors"

    @property
    def best_mean(self) -> float:
        """Best mean so far, −∞ before the first test."""
        return max((row[1] for row in self.history), default=float("-inf"))

    @property
    def last_mean(self) -> float | None:
        """Mean of the last test, ``None`` before the first."""
        return self.history[-1][1] if self.history else None

    def _on_training_start(self) -> None:
        super()._on_training_start()
        # Tests after the checkpoint from which this run resumes will be made again.
        now = self.model.num_timesteps
        self.history = [row for row in evaluations.read(self._table) if row[0] <= now]
        if not self.history:  # the start too, so that one that is not bettered is kept, and told
            self.act()

    def _on_training_end(self) -> None:
        if self.history and self.history[-1][0] == self.model.num_timesteps:
            return
        self.act()

    def act(self) -> None:
        """Test the dataset as it is now, on the first of several ranks."""
        if distributed.rank():
            return
        dataset = self.model.dataset()
        result = self._evaluate(dataset)
        if result.mean >= self.best_mean:  # of equals the later, which has seen more learners
            path = dataset.replace(card=dataset.card.replace(selection=result.score)).save(self.path)
            critic_file.write(self.model, critic_path(path), dataset.digest)
        self.history.append((self.model.num_timesteps, result.mean, result.std, result.min))
        evaluations.write(self._table, self.history)
        for name, value in (("mean", result.mean), ("std", result.std), ("min", result.min)):
            self.logger.record(f"eval/{name}", value)
        if self.report is not None:
            self.report([row[1] for row in self.history])

    def say_if_nothing_was_learned(self) -> None:
        """Warn if no test was better than the first, that of the start."""
        if len(self.history) > 1 and self.best_mean <= self.history[0][1]:
            tqdm.write(
                f"Nothing was learned: the best of {len(self.history)} tests, {_rounded(self.best_mean)}, is "
                "no better than the first. Try --tune 20, which looks for better settings; else more env "
                "steps or other rewards."
            )

    def _evaluate(self, dataset: DistilledDataset) -> Evaluation:
        return evaluate(
            dataset,
            self.n_agents,
            self.n_episodes,
            seed=self.seed,
            env=self.task,
        )

    @property
    def _table(self) -> Path:
        return self.folder / evaluations.TABLE


class CheckpointCallback(MetaEpochCallback):
    """Writes a checkpoint now and then; each opens a new segment (see `PPMO.begin_segment`).

    Args:
        path: The file, always the same: a checkpoint replaces the one before.
        every: Env steps between two checkpoints. Part of the run's result: resume with the same.
    """

    def __init__(self, path: Path, every: int) -> None:
        super().__init__(every)
        self.path = path

    def act(self) -> None:
        """Write the checkpoint."""
        self.model.save_checkpoint(self.path)


class ScoreProgressBar(BaseCallback):
    """A progress bar over env steps, with the time left and the score so far.

    Args:
        best: The callback whose tests are the score; without it, the learners' own training episodes.
    """

    def __init__(self, best: BestDatasetCallback | None = None) -> None:
        super().__init__()
        self.best = best
        self._bar: tqdm | None = None

    def _on_training_start(self) -> None:
        total, now = self.locals["total_timesteps"], self.model.num_timesteps
        self._bar = progress(total, "step", initial=now, unit_scale=True)

    def _on_rollout_end(self) -> None:
        assert self._bar is not None
        self._bar.set_postfix_str(self._score(), refresh=False)
        self._bar.update(self.model.num_timesteps - self._bar.n)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the bar; also for an interrupted run."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._score(), refresh=False)
            self._bar.close()
            self._bar = None

    def _score(self) -> str:
        episodes = self.model.ep_info_buffer or ()
        parts = []
        if episodes:
            parts.append(f"training return {_rounded(sum(e['r'] for e in episodes) / len(episodes))}")
        if self.best is not None and self.best.last_mean is not None:
            last, best = _rounded(self.best.last_mean), _rounded(self.best.best_mean)
            parts.append(f"fresh agents {last} (best {best})")
        return ", ".join(parts)


def _rounded(score: float) -> str:
    # Reacher's progress is all behind the point, HumanoidStandup's is far before it.
    return f"{score:.2f}" if abs(score) < 10 else f"{score:.0f}"
