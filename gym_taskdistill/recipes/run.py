"""A distillation run: its folder, its progress, its resumption, and its result."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from tqdm import tqdm

from gym_taskdistill.dataset.card import Card, versions
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.file import DATASET_FILE
from gym_taskdistill.distill import critic_file, distributed
from gym_taskdistill.distill.critic_file import critic_path
from gym_taskdistill.distill.imitation import (
    CurrentLearners,
    Recording,
    imitate,
    load_expert,
    record,
    recording_env,
)
from gym_taskdistill.distill.lookahead import Lookahead
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.evaluation import Evaluation, evaluate
from gym_taskdistill.recipes.callbacks import BestDatasetCallback, CheckpointCallback, ScoreProgressBar
from gym_taskdistill.recipes.recipe import ImitationPlan, Recipe

#: The seeds of a run's evaluations lie apart: the best dataset is chosen on one, scored on another.
SELECTION_SEED, SCORE_SEED = 1_000_003, 2_000_003

#: So do those of the recordings of an expert.
RECORDING_SEED = 3_000_003

#: A run is cut into this many segments, with a checkpoint at each cut.
N_SEGMENTS = 10


@dataclass(frozen=True)
class Run:
    """A run and its folder.

    The folder holds ``run.yaml`` (recipe, seed, start), ``command.txt``, ``versions.json``, TensorBoard
    events, ``checkpoint.pt``, ``evaluations.csv``, the best and the last dataset, and the critic of the best;
    while it imitates, what it recorded.

    Attributes:
        folder: The folder.
        recipe: All settings.
        seed: Seed of the run.
        warm_start: Dataset file from which the run starts, with the critic that lies beside it, if any;
            ``None`` for a random start.
    """

    folder: Path
    recipe: Recipe
    seed: int
    warm_start: str | None = None

    @classmethod
    def create(cls, recipe: Recipe, seed: int, root: Path, name: str, warm_start: str | None = None) -> Run:
        """Make the folder ``<root>/<name>_<number>`` of a new run.

        Args:
            recipe: All settings.
            seed: Seed of the run.
            root: Where runs lie.
            name: Name of the run; the next free number is appended.
            warm_start: Dataset file to start from.
        """
        number = 1
        while (folder := root / f"{name}_{number}").exists():
            number += 1
        folder.mkdir(parents=True)
        run = cls(folder, recipe, seed, warm_start)
        settings = {"seed": seed, "warm_start": warm_start, "recipe": recipe.to_dict()}
        (folder / "run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        (folder / "command.txt").write_text(shlex.join(sys.argv) + "\n")
        (folder / "versions.json").write_text(json.dumps(versions(), indent=2) + "\n")
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open the folder of a run that was begun.

        Raises:
            TaskDistillError: It is not a run's folder.
        """
        path = folder / "run.yaml"
        try:
            settings = yaml.safe_load(path.read_text())
            recipe = Recipe.from_dict(settings["recipe"], str(path))
            return cls(folder, recipe, int(settings["seed"]), settings["warm_start"])
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise TaskDistillError(f'"{folder}" is not the folder of a run: {error}') from None

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoint.pt"

    def execute(self, progress_bar: bool = True, device: str = "auto") -> DistilledDataset:
        """Distil to the end, from the newest checkpoint if there is one.

        Of several ranks all distil, and the first one tests and writes.

        Args:
            progress_bar: Show a progress bar with the time left and the score.
            device: Torch device.

        Returns:
            The best dataset, its card complete but for the final score.
        """
        recipe = self.recipe
        env = self._make_env()
        model = PPMO(env=env, seed=self.seed, device=device, **recipe.ppmo_kwargs())
        is_first = distributed.rank() == 0
        outputs = [TensorBoardOutputFormat(str(self.folder))] if is_first else []
        model.set_logger(Logger(str(self.folder), list(outputs)))
        if self.checkpoint.is_file():
            model.load_checkpoint(self.checkpoint)
        elif self.warm_start is not None:
            model.load_dataset(DistilledDataset.load(self.warm_start))
            critic = critic_path(Path(self.warm_start))
            if critic.is_file() and not critic_file.read(model, critic) and is_first:
                tqdm.write(f'"{critic.name}" does not fit this recipe: the critic starts afresh.')
        if recipe.imitation is not None and not model.num_timesteps:
            self._imitate(model, recipe.imitation, progress_bar and is_first)
        plan, total = recipe.evaluation, recipe.total_timesteps
        best = BestDatasetCallback(
            recipe.task,
            self.folder,
            plan.eval_freq or total // 20,
            plan.n_agents,
            plan.n_episodes,
            SELECTION_SEED + self.seed,
        )
        bar = ScoreProgressBar(best) if progress_bar and is_first else None
        checkpoints = CheckpointCallback(self.checkpoint, total // N_SEGMENTS)
        callbacks = CallbackList([best, checkpoints, *([bar] if bar else [])])
        try:
            if model.num_timesteps < total:
                model.learn(
                    total - model.num_timesteps,
                    callback=callbacks,
                    tb_log_name="",
                    reset_num_timesteps=False,
                )
                model.save_checkpoint(self.checkpoint)
        finally:
            if bar:
                bar.close()
            model.logger.close()
            env.close()
        if not is_first:
            return model.dataset()
        self._finish("last", model.dataset(), model)
        return self._finish("best", DistilledDataset.load(self.folder / "best.safetensors"), model)

    def score(
        self, dataset: DistilledDataset, on_row: Callable[[Evaluation], Any] | None = None
    ) -> DistilledDataset:
        """Add the final scores to a dataset's card, on seeds that chose nothing, and save it as the best.

        Args:
            dataset: The best dataset of this run.
            on_row: Called with each evaluation when it is ready.

        Returns:
            The dataset with its scores.
        """
        plan = self.recipe.evaluation
        scores = []
        for learners in plan.final_learners or (None,):
            result = evaluate(
                dataset,
                plan.final_agents,
                plan.final_episodes,
                learners=learners,
                seed=SCORE_SEED + self.seed,
            )
            scores.append(result.score)
            if on_row is not None:
                on_row(result)
        dataset = dataset.replace(card=replace(dataset.card, scores=tuple(scores)))
        dataset.save(self.folder / "best.safetensors")
        return dataset

    def _make_env(self) -> VecEnv:
        env = self.recipe.task.make_vec_env(
            self.recipe.n_envs,
            backend=self.recipe.backend,
            training=True,
            clip_reward=self.recipe.clip_reward,
        )
        if not self.recipe.normalize:
            return env
        gamma = float(self.recipe.ppmo.get("gamma", 0.99))
        return VecNormalize(env, gamma=gamma)

    def _imitate(self, model: PPMO, plan: ImitationPlan, progress_bar: bool) -> None:
        """Distil from an expert before PPMO, from the newest checkpoint on; there is one after each round.

        It ends as if it had not been interrupted, but for an expert that looks ahead: that forgets its plans.
        """
        expert, expert_task = load_expert(plan.expert, self.recipe.task.action_space)
        done = model._n_updates // plan.n_updates
        files = [self.folder / f"recording_{distributed.rank()}_{i}.npz" for i in range(plan.n_rounds)]
        with contextlib.ExitStack() as stack:
            if plan.lookahead is not None:
                look = Lookahead(expert, expert_task, n_processes=torch.get_num_threads(), **plan.lookahead)
                expert = stack.enter_context(contextlib.closing(look))
            env, view = recording_env(self.recipe.task, plan.n_envs, expert_task, plan.lookahead is not None)
            stack.callback(env.close)
            bar = stack.enter_context(
                tqdm(
                    total=plan.n_rounds * plan.n_updates,
                    initial=model._n_updates,
                    unit="update",
                    disable=not progress_bar,
                )
            )

            def recorded(n: int) -> None:
                text = f"recorded {n:,} of {plan.n_steps:,} steps"
                bar.set_postfix_str(text, refresh=n // plan.n_envs % 10 == 0)

            def report(_: int, loss: float) -> None:
                bar.set_postfix_str(f"imitation loss {loss:.3f}", refresh=False)
                bar.update(100)
                model.logger.record("imitation/loss", loss)
                model.logger.dump(model._n_updates)

            for i in range(done, plan.n_rounds):
                if not files[i].is_file():
                    record(
                        expert,
                        env,
                        plan.n_steps,
                        behaviour=CurrentLearners(model) if i else None,
                        beta=plan.beta**i,
                        noise=plan.noise,
                        view=view,
                        seed=RECORDING_SEED + self.seed + i,
                        progress=recorded,
                    ).save(files[i])
                imitate(
                    model,
                    Recording.join([Recording.load(file) for file in files[: i + 1]]),
                    plan.n_updates,
                    plan.batch_size,
                    draw_every=plan.draw_every,
                    temperature=plan.temperature,
                    hard_fraction=plan.hard_fraction,
                    progress=report,
                    progress_remaining=(1 - i / plan.n_rounds, 1 - (i + 1) / plan.n_rounds),
                )
                model.save_checkpoint(self.checkpoint)
        for file in files:
            file.unlink(missing_ok=True)

    def _finish(self, name: str, dataset: DistilledDataset, model: PPMO) -> DistilledDataset:
        """Complete the card of a dataset and save it under ``name``."""
        card: Card = replace(
            dataset.card,
            env_id=self.recipe.env_id,
            env_kwargs=self.recipe.env_kwargs,
            variant=self.recipe.variant,
            default=self.recipe.default,
            recipe={**self.recipe.to_dict(), "warm_start": _portable(self.warm_start)},
            wall_clock_s=round(model.wall_clock_s, 1),
            created=datetime.date.today().isoformat(),
        )
        dataset = dataset.replace(card=card)
        dataset.save(self.folder / f"{name}.safetensors")
        return dataset


def _portable(path: str | None) -> str | None:
    """Return what names a dataset on any machine: a zoo entry's place in its zoo, or a file's name."""
    parts = [] if path is None else Path(path).parts
    return "/".join(parts[-3:] if parts and parts[-1] == DATASET_FILE else parts[-1:]) or None


def use_threads(n_threads: int) -> None:
    """Set the number of CPU threads torch computes with.

    Learners are small: one thread is the fastest, and leaves the other cores to other runs.
    """
    torch.set_num_threads(n_threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))
