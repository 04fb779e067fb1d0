"""The policy that PPMO optimises, as SB3 wants one: an outer loop in the actor's place, and a critic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from gym_taskdistill.distill.outer import OuterLoop
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import CNN, MLP, LearnerDistribution, Network
from gym_taskdistill.machine import single_precision


class DistillationPolicy(BasePolicy):
    """Takes the place of SB3's actor-critic policy; the "actor" is the dataset.

    To act or to be evaluated, the current learners are trained on it from their fixed initialisations (paper,
    Algorithm 1, line 12).

    Args:
        observation_space: Space of (normalised) observations.
        action_space: `Discrete` or flat `Box`.
        lr_schedule: Only for SB3's signature.
        use_sde: Only for SB3's signature; must be ``False``.
        loop: The dataset, its encoder and the current learners.
        critic: Distribution from which the critic V_ψ is drawn, once; ``None`` for the actor's shape: a CNN
            for images, else an MLP, with a last layer of gain 1 as in SB3.
        share_features_extractor: The critic reads the features of the encoder, which learns from both.

    Raises:
        TaskDistillError: There is no encoder to share, or the critic cannot read its features.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        use_sde: bool = False,
        *,
        loop: OuterLoop,
        critic: LearnerDistribution | None,
        share_features_extractor: bool,
    ) -> None:
        super().__init__(observation_space, action_space)
        if use_sde:
            raise TaskDistillError("State-dependent exploration is not supported; use use_sde=False.")
        self.loop = loop
        self.share_features_extractor = share_features_extractor
        if share_features_extractor:
            loop.trunk = self._shared_trunk()
        self.critic = self._draw_critic(critic)

    def _shared_trunk(self) -> int:
        loop = self.loop
        n_layers = len(loop.learner_distribution.layers(loop.obs_shape, loop.n_outputs))
        trunk = min(loop.encoder_layers, n_layers - 1)
        if trunk < 1:
            raise TaskDistillError(
                f"share_features_extractor needs an encoder, but encoder_layers={loop.encoder_layers} of "
                f"{n_layers}; use encoder_layers >= 1, or a critic of its own."
            )
        return trunk

    @single_precision()
    def _draw_critic(self, critic: LearnerDistribution | None) -> Network:
        loop, shared = self.loop, self.share_features_extractor
        learners, trunk = loop.learner_distribution, loop.trunk if shared else 0
        if critic is None:
            critic = CNN(last_gain=1.0) if _fits_cnn(loop) else MLP(last_gain=1.0)
            if isinstance(learners, CNN) or shared:
                critic = _with_critics_last_layer(learners, critic)
        if shared:
            own = critic.layers(loop.obs_shape, 1)[:trunk]
            if own != learners.layers(loop.obs_shape, loop.n_outputs)[:trunk]:
                raise TaskDistillError(
                    f"The critic {critic!r} cannot read the encoder's features: its first {trunk} layers "
                    f"are not those of {learners!r}."
                )
        return Network(critic.sample(1, loop.obs_shape, 1, loop.generator, slice(trunk, None)))

    def evaluate_actions(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate actions under the policies π^i that the current dataset teaches.

        Args:
            obs: ``(M, b, *obs_shape)``.
            actions: ``(M, b)`` or ``(M, b, n_outputs)``.

        Returns:
            Values, log-probabilities and entropies, each ``(M, b)``; the last two with the graph through
            the inner step.
        """
        loop = self.loop
        seen = loop.see(obs)
        features = loop.features(seen)
        distribution = loop.trained(create_graph=True).act(features, loop.trunk)
        return self.values(seen, features), distribution.log_prob(actions), distribution.entropy()

    def values(self, seen: Tensor, features: Tensor) -> Tensor:
        """Return the critic's values V_ψ, ``(M, b)``, of what the loop sees or of its features."""
        inputs = features if self.share_features_extractor else seen
        if self.loop.mixed_precision and inputs is seen:
            with self.loop.autocast():
                values = self.critic(inputs.flatten(0, 1)).float()
        else:
            values = self.critic(inputs.flatten(0, 1))
        return values.view(inputs.shape[:2])

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Return the critic's values V_ψ of raw observations ``(..., *obs_shape)``, shape ``(...)``."""
        assert isinstance(obs, Tensor)
        shape = self.loop.obs_shape
        seen = self.loop.see(obs.reshape(1, -1, *shape))
        features = self.loop.features(seen) if self.share_features_extractor else seen
        return self.values(seen, features).reshape(obs.shape[: obs.dim() - len(shape)])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Not used: PPMO trains learners once per rollout, not once per step."""
        raise TypeError("Use loop.trained(create_graph=False).action_distribution(obs).")

    def save(self, path: str) -> None:
        """Refuse what SB3's policies do, who pickle themselves.

        Raises:
            TaskDistillError: Always; it says what to save.
        """
        raise TaskDistillError(
            "The policy is what a dataset teaches: save the model (model.save), or model.dataset()."
        )

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Act with the current learners; see `OuterLoop.act`."""
        assert isinstance(observation, Tensor)
        # Envs may give another precision than they are learned in, such as MuJoCo's float64.
        return self.loop.act(observation.to(self.loop.obs_dtype), deterministic)


def _fits_cnn(loop: OuterLoop) -> bool:
    """Whether observations are images that are large enough for the Nature CNN."""
    if not loop.is_image:
        return False
    try:
        CNN().layers(loop.obs_shape, 1)
    except TaskDistillError:
        return False
    return True


def _with_critics_last_layer(
    learners: LearnerDistribution, otherwise: LearnerDistribution
) -> LearnerDistribution:
    """Return the learners' own family with a last layer of gain 1, where it is one of the built-in ones."""
    return replace(learners, last_gain=1.0) if isinstance(learners, CNN | MLP) else otherwise
