"""`DistilledPolicy`: a fresh network that trains itself on a distilled dataset, then acts."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import GymEnv
from torch import nn

from gym_taskdistill import seeds, zoo
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.hub import Address
from gym_taskdistill.learners import LearnersArg, learner_distribution
from gym_taskdistill.policies import export
from gym_taskdistill.policies.acting import Acting
from gym_taskdistill.policies.action_distributions import ActionDistribution
from gym_taskdistill.policies.ensemble import Ensemble, EnsembleRule, check_one_task
from gym_taskdistill.policies.episodes import record_minari
from gym_taskdistill.policies.evaluation import Progress
from gym_taskdistill.policies.trained import (
    TrainedLearners,
    network_as_trained,
    train_fresh_learners,
)
from gym_taskdistill.trust import allow


class DistilledPolicy(Acting):
    """A fresh learner λ, trained on a distilled dataset at construction: one gradient step, no environment.

    Acts like an SB3 policy: `predict` takes raw observations, single or batched, and works with SB3's
    `evaluate_policy`.

    Args:
        dataset: What to train on; or several datasets of one task, such as distillations with other seeds, on
            each of which members of an ensemble are trained.
        learners: Another learner distribution than the one the dataset was distilled over: a name such as
            ``"random_h"``, a plain description, a `LearnerDistribution`, or a function
            ``(obs_space, n_outputs)`` that makes a `torch.nn.Module`. A list of these stands for all of them,
            in equal shares: members of several architectures.
        seed: Seed of the initialisation and of sampled actions; ``None`` draws one.
        n_learners: Members of an ensemble, each from its own initialisation; of several datasets so many of
            each. See `ensemble`.
        rule: How members act as one: ``"mean"``, ``"majority"`` or ``"median"``; see `EnsembleRule`.
        network: A network that `DistilledDataset.train` has trained already: the policy acts with it as it
            is, draws and trains none, and follows what becomes of its parameters.
        trust: Run the code that the dataset's card names: modules of its environment, and the function that
            makes its learners; see `gym_taskdistill.trust`.

    Raises:
        TaskDistillError: The learners are unknown or do not fit the dataset, or their code is not trusted;
            the datasets are of several tasks; or the rule does not fit the actions.

    >>> policy = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0)
    >>> observations = np.zeros((5, 8), dtype=np.float32)
    >>> policy.predict(observations)[0].shape
    (5,)
    """

    def __init__(
        self,
        dataset: DistilledDataset | Sequence[DistilledDataset],
        learners: LearnersArg | None = None,
        seed: int | None = None,
        n_learners: int = 1,
        *,
        rule: str = "mean",
        network: nn.Module | None = None,
        trust: bool = False,
    ) -> None:
        if n_learners < 1:
            raise TaskDistillError(f"A policy needs at least 1 learner, not {n_learners}.")
        datasets = (dataset,) if isinstance(dataset, DistilledDataset) else tuple(dataset)
        check_one_task(datasets)
        self.dataset, self.own_spaces = datasets[0], datasets[0].spaces
        self.network, self._given = network, learners
        if network is not None and (learners is not None or n_learners > 1 or len(datasets) > 1):
            raise TaskDistillError(
                "A policy acts with one network or with learners it draws: give one of them."
            )
        combine = EnsembleRule(self.own_spaces[1], rule)
        if trust:
            allow(*(name for one in datasets for name in one.card.code))
        self.seed = (
            int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seeds.checked(seed)
        )
        self._generator = torch.Generator(self.dataset.x.device).manual_seed(self.seed)
        # What the caller names himself is trusted, what a file names is not.
        distributions = [
            learner_distribution(one.card.learners)
            if learners is None
            else learner_distribution(learners, trust=True)
            for one in datasets
        ]
        self.learners = distributions[0]
        trained = (
            [
                train_fresh_learners(one, n_learners, self._generator, distribution)
                for one, distribution in zip(datasets, distributions, strict=True)
            ]
            if network is None
            else [network_as_trained(self.dataset, network)]
        )
        self.members = Ensemble(datasets, tuple(trained), combine)

    @classmethod
    def from_zoo(
        cls,
        env_id: str,
        variant: str | None = None,
        *,
        learners: LearnersArg | None = None,
        seed: int | None = None,
        trust: bool = False,
        **env_kwargs: Any,
    ) -> DistilledPolicy:
        """Train a fresh learner on a dataset of the zoo.

        Args:
            env_id: Id of the task, such as ``"CartPoleND-v0"``, or an entry's full name.
            variant: Which of the task's datasets; by default the one the zoo recommends.
            learners: As in the constructor.
            seed: As in the constructor.
            trust: As in the constructor.
            **env_kwargs: The task's arguments, as for `gymnasium.make`.

        Raises:
            ZooError: The zoo has no such entry.
        """
        return cls(zoo.load(env_id, variant, **env_kwargs), learners, seed, trust=trust)

    @classmethod
    def from_file(
        cls,
        path: str | PathLike[str],
        *,
        learners: LearnersArg | None = None,
        seed: int | None = None,
        trust: bool = False,
    ) -> DistilledPolicy:
        """Train a fresh learner on a dataset file; see the constructor.

        Raises:
            DatasetError: The file cannot be read as a dataset.
        """
        return cls(DistilledDataset.load(path), learners, seed, trust=trust)

    @classmethod
    def from_hub(
        cls,
        repo: str,
        *,
        learners: LearnersArg | None = None,
        seed: int | None = None,
        trust: bool = False,
    ) -> DistilledPolicy:
        """Train a fresh learner on a dataset of the Hugging Face Hub; no code comes along with it.

        Args:
            repo: Where it lies, ``"user/name"``, or ``"user/name@revision"`` for a branch, a tag or a commit.
            learners: As in the constructor.
            seed: As in the constructor.
            trust: As in the constructor.

        Raises:
            TaskDistillError: huggingface_hub is not installed, or the dataset cannot be fetched.
            DatasetError: It is damaged, or no dataset.
        """
        return cls.from_file(str(Address.parse(repo)), learners=learners, seed=seed, trust=trust)

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """The environment's own space of observations; a card keeps no bounds, so it has none."""
        return self.own_spaces[0]

    @property
    def action_space(self) -> spaces.Space[Any]:
        """The environment's own space of actions."""
        return self.own_spaces[1]

    def __len__(self) -> int:
        """Number of learners that act as one."""
        return len(self.members)

    def __repr__(self) -> str:
        datasets = ", ".join(map(repr, self.members.datasets))
        return f"DistilledPolicy({datasets}, n_learners={len(self)}, seed={self.seed})"

    @property
    def trained(self) -> TrainedLearners:
        """The trained learners; of several datasets those of the first."""
        return self.members.trained[0]

    def _act(self, rows: np.ndarray, deterministic: bool) -> np.ndarray:
        distribution = self._distribution(rows)
        actions = distribution.mode() if deterministic else distribution.sample(self._generator)
        return actions.cpu().numpy()

    def _rows(self, observation: Any) -> tuple[np.ndarray, bool]:
        try:
            rows, single = super()._rows(observation)
        except TaskDistillError as error:
            raise DatasetError(f"{self.dataset.card.task}: {error}") from None
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            row = int(np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(axis=1))[0])
            raise DatasetError(f"Observation {row} of {len(rows)} is not finite; correct the environment.")
        return rows, single

    def distribution(self, observations: Any) -> ActionDistribution:
        """Return the action distribution at observations, of an ensemble that by its rule.

        Args:
            observations: A batch, as for `predict`.

        Returns:
            A distribution of batch shape ``(n,)``, over flat actions; see `own_actions`.
        """
        return self._distribution(np.ascontiguousarray(self._rows(observations)[0]))

    def _distribution(self, rows: np.ndarray) -> ActionDistribution:
        batch = torch.as_tensor(rows, dtype=torch.float32, device=self.dataset.x.device)
        with torch.no_grad():
            return self.members.distribution(batch.reshape(-1, *self.dataset.obs_shape))

    def ensemble(
        self, n_learners: int, rule: str = "mean", learners: LearnersArg | None = None
    ) -> DistilledPolicy:
        """Train an ensemble of fresh learners on the same dataset, or on the same datasets.

        Args:
            n_learners: Number of members; of several datasets so many of each.
            rule: How they act as one: ``"mean"`` of action probabilities (or of Gaussian parameters),
                ``"majority"`` of discrete actions, ``"median"`` of continuous ones; see `EnsembleRule`.
            learners: What to draw them from, such as a list of architectures, each of which gets an equal
                share; by default what this policy's learner was drawn from.

        Returns:
            A policy that acts as its members do together.

        Raises:
            TaskDistillError: The policy acts with a network of one's own, or the rule does not fit the
                actions.

        >>> policy = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0)
        >>> len(policy.ensemble(5, "majority"))
        5
        """
        if self.network is not None:
            raise TaskDistillError(
                "An ensemble draws fresh learners, but this policy acts with one network; use "
                "DistilledPolicy(dataset).ensemble(n)."
            )
        learners = self._given if learners is None else learners
        return DistilledPolicy(self.members.datasets, learners, self.seed, n_learners, rule=rule)

    def to_torch(self, index: int | None = None) -> nn.Sequential:
        """Export the policy as a plain torch module, from raw observations to its outputs.

        Args:
            index: One member of an ensemble; ``None`` for all of them, which act by the ensemble's rule.

        Returns:
            A module that maps ``(n, *obs_shape)`` to action logits or means ``(n, n_outputs)``.

        Raises:
            IndexError: There is no such member.
        """
        return export.module(self.members, index)

    def to_onnx(self, path: str | PathLike[str], index: int | None = None) -> Path:
        """Write the policy as an ONNX file, from raw observations to its outputs; statistics are inside.

        Its input is ``observation``, float32 ``(n, *obs_shape)``, with any n. Its outputs are ``logits``, or
        of continuous actions ``mean`` (before it is clipped to the action space) and ``log_std``,
        ``(n, n_outputs)``.

        Args:
            path: The file; ``.onnx`` is appended if it has no suffix. The folder must exist.
            index: As for `to_torch`.

        Returns:
            The file written.

        Raises:
            TaskDistillError: onnx is not installed, the network has a layer that ONNX does not know, or the
                file cannot be written.
            IndexError: There is no such member.
        """
        return export.onnx(self.members, Path(path), index)

    def to_minari(
        self,
        dataset_id: str,
        n_episodes: int = 100,
        *,
        fresh: bool = False,
        deterministic: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Record full episodes as a dataset of Minari, for other libraries' offline learners.

        A recipe imitates it by ``expert: minari:<id>``.

        Args:
            dataset_id: Its id, such as ``cartpole/distilled-v0``; there must be none of that id yet.
            n_episodes: Number of episodes, at least 1.
            fresh: Let a fresh agent play each episode, of a seed that counts up from this policy's.
            deterministic: Take the most likely action instead of sampling as the paper does.
            progress: Called with the number of finished episodes now and then.

        Returns:
            The folder of the dataset, among Minari's.

        Raises:
            TaskDistillError: Minari is not installed, the id is none or is taken, the environment cannot be
                made, or the policy acts with a network of one's own and should be fresh.
        """
        if fresh and self.network is not None:
            raise TaskDistillError("A policy that acts with one network has no fresh agents: no fresh=True.")

        def agent_of(episode: int) -> DistilledPolicy:
            if not fresh:
                return self
            datasets, rule = self.members.datasets, self.members.rule.rule
            n_each = len(self) // len(datasets)
            return DistilledPolicy(datasets, self._given, self.seed + episode, n_each, rule=rule)

        task = self.dataset.task
        return record_minari(
            dataset_id,
            task,
            agent_of,
            n_episodes,
            name=f"{task}, {self.dataset.card.variant or self.dataset.digest[:8]}",
            deterministic=deterministic,
            seed=self.seed,
            progress=progress,
        )

    def to_sb3(self, env: GymEnv | str, index: int | None = None, **ppo_kwargs: Any) -> PPO:
        """Make an SB3 PPO that starts as a trained learner, to fine-tune it.

        The model takes raw observations: the frozen statistics become part of its policy. Its critic starts
        from a copy of the learner's hidden layers and a fresh last layer.

        Args:
            env: The dataset's env, or a vector env of it, with raw observations.
            index: Which member of an ensemble; needed there, since SB3's PPO holds one network.
            **ppo_kwargs: Arguments of SB3's PPO, such as ``learning_rate``; but not what the learner decides:
                its layers in ``policy_kwargs``, and ``use_sde``, which would act otherwise at once.

        Returns:
            The model; before `learn` it acts as the learner does.

        Raises:
            DatasetError: The env is not the dataset's; of a vector env only the spaces are compared.
            TaskDistillError: An argument is unknown, or cannot be given; or no member was chosen.
            IndexError: There is no such member.

        >>> import gymnasium as gym
        >>> policy = DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0)
        >>> model = policy.to_sb3(gym.make("CartPoleND-v0", n=2), learning_rate=1e-4)
        >>> model.predict(np.zeros(8))[0].shape
        ()
        """
        return export.ppo(self.members, env, index, ppo_kwargs)
