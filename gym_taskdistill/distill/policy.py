"""The policy that PPMO optimises: a dataset, an encoder, a critic and the current learners."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from gym_taskdistill.dataset import pixels
from gym_taskdistill.dataset.card import is_image, space_to_dict
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.learners import CNN, MLP, LearnerDistribution, Learners, Network
from gym_taskdistill.policies.action_distributions import n_outputs
from gym_taskdistill.policies.trained import TrainedLearners, encode, encoder_state, train_learners

#: Parameters of the outer loop that have a learning rate of their own.
PARAMETER_GROUPS = ("dataset", "inner_lr", "log_std", "obs_scale", "encoder")


class DistillationPolicy(BasePolicy):
    """{X_d, Y_d}_θ as parameters, with all that turns it into M acting policies.

    Takes the place of SB3's actor-critic policy. The "actor" is the dataset: to act or to be evaluated, the
    current learners are trained on it from their fixed initialisations (paper, Algorithm 1, line 12).

    Args:
        observation_space: Space of (normalised) observations.
        action_space: `Discrete` or flat `Box`.
        lr_schedule: SB3's schedule of the dataset's learning rate.
        use_sde: Only for SB3's signature; must be ``False``.
        learners: The learner distribution Λ.
        n_learners: M, learners trained side by side.
        k: Number of synthetic rows.
        inner_sgd: How each learner is trained on the rows.
        inner_lr_hidden: Start of the learned factor on the inner learning rate in all layers but the last;
            0 leaves them as they are drawn, ``None`` gives them the same rate.
        inner_lr_init: Start of the learned inner learning rate.
        encoder_layers: l, the layers of the architecture that are learned by the outer loop.
        obs_scale_init: Start of the learned factor on each dimension of observations; ``None`` for none.
        x_std: Standard deviation of the normal from which the rows start.
        y_std: Standard deviation of the normal from which the labels start.
        log_std_init: Start of the log standard deviation that trained learners have (continuous actions).
        critic: Distribution from which the critic V_ψ is drawn, once; ``None`` for the actor's shape: a CNN
            for images, else an MLP, with a last layer of gain 1 as in SB3.
        share_features_extractor: The critic reads the features of the encoder, which learns from both.
        mixed_precision: Compute features of observations in bfloat16.
        generator: Source of randomness for the start values.

    Raises:
        TaskDistillError: The action space is not supported, or the encoder is longer than the architecture.
    """

    pixel_mean: Tensor | None
    pixel_std: Tensor | None

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        use_sde: bool = False,
        *,
        learners: LearnerDistribution,
        n_learners: int,
        k: int,
        inner_sgd: InnerSGD,
        inner_lr_hidden: float | None,
        inner_lr_init: float,
        encoder_layers: int,
        obs_scale_init: float | None,
        x_std: float,
        y_std: float,
        log_std_init: float,
        critic: LearnerDistribution | None,
        share_features_extractor: bool,
        mixed_precision: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__(observation_space, action_space)
        if use_sde:
            raise TaskDistillError("State-dependent exploration is not supported; use use_sde=False.")
        self.learner_distribution = learners
        self.n_learners = n_learners
        self.inner_sgd = inner_sgd
        self.encoder_layers = encoder_layers
        self.n_outputs = n_outputs(action_space)
        self.obs_shape: tuple[int, ...] = tuple(observation_space.shape or ())
        self.continuous = isinstance(action_space, spaces.Box)

        device = generator.device
        self.x = nn.Parameter(x_std * torch.randn(k, *self.obs_shape, generator=generator, device=device))
        self.y = nn.Parameter(y_std * torch.randn(k, self.n_outputs, generator=generator, device=device))
        self.log_inner_lr = nn.Parameter(torch.tensor(math.log(inner_lr_init), device=device))
        self.log_lr_hidden: nn.Parameter | None = None
        self._fixed_lr_hidden = 1.0 if inner_lr_hidden is None else inner_lr_hidden
        if inner_lr_hidden:
            self.log_lr_hidden = nn.Parameter(torch.tensor(math.log(inner_lr_hidden), device=device))
        self.log_obs_scale: nn.Parameter | None = None
        if obs_scale_init is not None:
            start = torch.full(self.obs_shape, math.log(obs_scale_init), device=device)
            self.log_obs_scale = nn.Parameter(start)
        self.encoder_network = Network(self._draw_encoder(generator))
        self.sample_learners(generator)
        self.log_std: nn.Parameter | None = None
        if self.continuous:
            if abs(float(self._log_std_pull(inner_lr_init))) < 1e-6:
                raise TaskDistillError(
                    f"inner_lr_init={inner_lr_init} with inner_steps={inner_sgd.steps} leaves every "
                    "learner's log standard deviation at 0; use a smaller inner_lr_init."
                )
            self.log_std = nn.Parameter(torch.full((self.n_outputs,), float(log_std_init), device=device))
        self.is_image = is_image(space_to_dict(observation_space))
        self.mixed_precision = mixed_precision
        self.register_buffer("pixel_mean", None)
        self.register_buffer("pixel_std", None)
        #: Layers [0, trunk) of the encoder, whose features are computed once for actor and critic.
        self.trunk = self._trunk(share_features_extractor)
        self.critic = self._draw_critic(critic, share_features_extractor, generator)

    def _trunk(self, shared: bool) -> int:
        if not shared:
            return self.encoder_layers
        n_layers = len(self.learner_distribution.layers(self.obs_shape, self.n_outputs))
        trunk = min(self.encoder_layers, n_layers - 1)
        if trunk < 1:
            raise TaskDistillError(
                f"share_features_extractor needs an encoder, but encoder_layers={self.encoder_layers} of "
                f"{n_layers}; use encoder_layers >= 1, or a critic of its own."
            )
        return trunk

    def _draw_critic(
        self, critic: LearnerDistribution | None, shared: bool, generator: torch.Generator
    ) -> Network:
        if critic is None:
            critic = CNN(last_gain=1.0) if self.is_image else MLP(last_gain=1.0)
            if isinstance(self.learner_distribution, CNN) or shared:
                critic = _with_critics_last_layer(self.learner_distribution, critic)
        part = slice(self.trunk if shared else 0, None)
        self.share_features_extractor = shared
        if (
            shared
            and critic.layers(self.obs_shape, 1)[: self.trunk]
            != (self.learner_distribution.layers(self.obs_shape, self.n_outputs)[: self.trunk])
        ):
            raise TaskDistillError(
                f"The critic {critic!r} cannot read the encoder's features: its first {self.trunk} layers "
                f"are not those of {self.learner_distribution!r}."
            )
        return Network(critic.sample(1, self.obs_shape, 1, generator, part))

    def _draw_encoder(self, generator: torch.Generator) -> Learners:
        if self.encoder_layers:
            n_layers = len(self.learner_distribution.layers(self.obs_shape, self.n_outputs))
            if not 0 <= self.encoder_layers <= n_layers:
                raise TaskDistillError(
                    f"encoder_layers={self.encoder_layers}, but the architecture has only {n_layers} layers."
                )
        return self.learner_distribution.sample(
            1, self.obs_shape, self.n_outputs, generator, slice(0, self.encoder_layers)
        )

    @property
    def encoder(self) -> Learners:
        """The encoder ε_ξ with its current parameters, a batch of one network."""
        return self.encoder_network.learners

    @property
    def inner_lr(self) -> Tensor:
        """The inner learning rate, learned as its logarithm so that it stays positive."""
        return self.log_inner_lr.exp()

    @property
    def inner_lr_hidden(self) -> Tensor | float:
        """The factor on the inner learning rate in all layers but the last."""
        return self._fixed_lr_hidden if self.log_lr_hidden is None else self.log_lr_hidden.exp()

    @property
    def obs_scale(self) -> Tensor | None:
        """The factor on each dimension of observations, learned as its logarithm; ``None`` for none."""
        return None if self.log_obs_scale is None else self.log_obs_scale.exp()

    @property
    def rows(self) -> Tensor:
        """The synthetic rows as learners see them, scaled as observations are."""
        scale = self.obs_scale
        return self.x if scale is None else self.x * scale

    @property
    def log_std_label(self) -> Tensor | None:
        """The label that brings trained learners to `log_std`; ``None`` for discrete actions.

        What is learned is the log standard deviation that acts, not its label: a learner comes only part of
        the way to its label, a part that grows with the inner learning rate. Exploration would else fade as
        the inner learning rate grows.
        """
        return None if self.log_std is None else self.log_std / self._log_std_pull(self.inner_lr)

    def _log_std_pull(self, inner_lr: Tensor | float) -> Any:
        if not self.fresh.params:
            return 1.0  # nothing is trained: the label itself acts
        return self.inner_sgd.log_std_pull(inner_lr, self.n_outputs)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the outer loop's parameters by group; the critic has its own optimiser."""
        return {
            "dataset": [self.x, self.y],
            "inner_lr": [self.log_inner_lr, *([] if self.log_lr_hidden is None else [self.log_lr_hidden])],
            "log_std": [] if self.log_std is None else [self.log_std],
            "obs_scale": [] if self.log_obs_scale is None else [self.log_obs_scale],
            "encoder": list(self.encoder_network.parameters()),
        }

    def load_dataset(self, dataset: DistilledDataset) -> None:
        """Start from a dataset instead of random rows.

        Of a longer encoder the first layers are taken: rolling it back (paper, section 5.1) keeps what is
        left of it, and the rows.

        Raises:
            TaskDistillError: The dataset's rows, labels or encoder have other shapes.
        """
        own = {"x": self.x, "y": self.y, "log_std": self.log_std, "obs_scale": self.log_obs_scale}
        other = {"x": dataset.x, "y": dataset.y, "log_std": dataset.log_std, "obs_scale": dataset.obs_scale}
        if self.log_obs_scale is not None and dataset.obs_scale is None:
            other["obs_scale"] = torch.ones_like(self.log_obs_scale)
        names = encoder_state(self.encoder)
        own |= {f"encoder.{n}": p for n, p in zip(names, self.encoder_network.parameters(), strict=True)}
        other |= {
            f"encoder.{n}": p.unsqueeze(0)
            for n, p in dataset.encoder.items()
            if int(n.partition(".")[0]) < self.encoder_layers
        }
        for name in {**own, **other}:
            mine, theirs = (_shape(tensors.get(name)) for tensors in (own, other))
            if mine != theirs:
                raise TaskDistillError(
                    f"The run cannot start from {dataset!r}: its {name} has shape {theirs}, but the "
                    f"settings ask for {mine}."
                )
        learned, given = self.log_lr_hidden is not None, dataset.inner_lr_hidden
        if (learned and not given) or (not learned and given != self._fixed_lr_hidden):
            raise TaskDistillError(
                f"The run cannot start from {dataset!r}: set inner_lr_hidden={given:g}, as it has it."
            )
        with torch.no_grad():
            self.log_inner_lr.fill_(math.log(dataset.inner_lr))
            if self.log_lr_hidden is not None:
                self.log_lr_hidden.fill_(math.log(dataset.inner_lr_hidden))
            for name, param in own.items():
                value = other[name]
                if param is not None and value is not None:
                    param.copy_(value)
            if self.log_obs_scale is not None:
                self.x.div_(self.log_obs_scale)
                self.log_obs_scale.log_()
            if self.log_std is not None:
                self.log_std.mul_(self._log_std_pull(dataset.inner_lr))

    def sample_learners(self, generator: torch.Generator) -> None:
        """Draw M fresh learners, to stay fixed through a meta-epoch (Algorithm 1, line 2)."""
        self.fresh = self.learner_distribution.sample(
            self.n_learners,
            self.obs_shape,
            self.n_outputs,
            generator,
            slice(self.encoder_layers, None),
        )

    def train_learners(self, create_graph: bool) -> TrainedLearners:
        """Train the current learners on the dataset (Algorithm 1, lines 3 and 12).

        Args:
            create_graph: Keep the graph back to the dataset.

        Returns:
            The M trained learners.
        """
        return train_learners(
            self.fresh,
            self.encoder,
            self.rows,
            self.y,
            self.inner_lr,
            self.inner_sgd,
            lr_hidden=self.inner_lr_hidden,
            log_std_label=self.log_std_label,
            create_graph=create_graph,
        )

    def evaluate_actions(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate actions under the policies π^i that the current dataset teaches.

        Args:
            obs: ``(M, b, *obs_shape)``.
            actions: ``(M, b)`` or ``(M, b, n_outputs)``.

        Returns:
            Values, log-probabilities and entropies, each ``(M, b)``; the last two with the graph through
            the inner step.
        """
        obs = self.preprocess(obs)
        features = self.features(obs)
        distribution = self.train_learners(create_graph=True).act(features, self.trunk)
        return self.values(obs, features), distribution.log_prob(actions), distribution.entropy()

    def preprocess(self, obs: Tensor) -> Tensor:
        """Scale images from bytes to [0, 1] and standardise their pixels if `freeze_pixels` was called.

        Other observations pass as they are: they come normalised.
        """
        if not self.is_image:
            return obs
        # Learners, whose layers begin at the trunk's end, are not computed in bfloat16.
        dtype = torch.bfloat16 if self.mixed_precision and self.trunk else torch.float32
        return pixels.standardise(obs, self.pixel_mean, self.pixel_std, dtype)

    def freeze_pixels(self, images: Tensor) -> None:
        """Standardise every pixel from now on by its mean and standard deviation over some images.

        Much of a game's screen never changes; what moves is a few pixels, which are then seen the better.

        Args:
            images: Bytes, ``(n, *obs_shape)``.
        """
        mean, std = pixels.measure(images.to(self.x.device))
        self.register_buffer("pixel_mean", mean)
        self.register_buffer("pixel_std", std)

    def features(self, obs: Tensor) -> Tensor:
        """Scale preprocessed observations ``(M, b, *obs_shape)``, and run the encoder's trunk over them."""
        scale = self.obs_scale
        if scale is not None:
            obs = obs * scale
        if not self.trunk:
            return obs
        trunk = self.encoder.part(slice(0, self.trunk))
        if not self.mixed_precision:
            return encode(trunk, obs)
        with self._autocast():
            return encode(trunk, obs).float()

    def values(self, obs: Tensor, features: Tensor) -> Tensor:
        """Return the critic's values V_ψ, ``(M, b)``, of preprocessed observations or of their features."""
        inputs = features if self.share_features_extractor else obs
        if self.mixed_precision and inputs is obs:
            with self._autocast():
                values = self.critic(inputs.flatten(0, 1)).float()
        else:
            values = self.critic(inputs.flatten(0, 1))
        return values.view(inputs.shape[:2])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.x.device.type, torch.bfloat16)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Return the critic's values V_ψ of raw observations ``(..., *obs_shape)``, shape ``(...)``."""
        assert isinstance(obs, Tensor)
        batch = self.preprocess(obs.reshape(1, -1, *self.obs_shape))
        features = self.features(batch) if self.share_features_extractor else batch
        return self.values(batch, features).reshape(obs.shape[: obs.dim() - len(self.obs_shape)])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Not used: PPMO trains learners once per rollout, not once per step."""
        raise TypeError("Use train_learners().action_distribution(obs).")

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Act with the current learners: row i of a training batch with learner ``i // E``."""
        assert isinstance(observation, Tensor)
        trained = self.train_learners(create_graph=False)
        rows = observation.shape[0]
        if rows % self.n_learners == 0:
            obs = observation.unflatten(0, (self.n_learners, rows // self.n_learners))
        else:
            obs = observation.unsqueeze(0).expand(self.n_learners, *observation.shape)
        distribution = trained.act(self.features(self.preprocess(obs)), self.trunk)
        if deterministic:
            actions = distribution.mode()
        else:
            generator = torch.Generator(self.x.device).manual_seed(int(torch.randint(2**31, ()).item()))
            actions = distribution.sample(generator)
        return actions.flatten(0, 1)[:rows]


def _with_critics_last_layer(
    learners: LearnerDistribution, otherwise: LearnerDistribution
) -> LearnerDistribution:
    """Return the learners' own family with a last layer of gain 1, where it is one of the built-in ones."""
    return replace(learners, last_gain=1.0) if isinstance(learners, CNN | MLP) else otherwise


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
