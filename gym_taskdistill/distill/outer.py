"""The outer loop: what PPMO, imitation and every other refinement of a dataset share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from gym_taskdistill.dataset.card import Card, is_image, space_to_dict
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.view import ObservationView
from gym_taskdistill.distill import distributed
from gym_taskdistill.distill.optimiser import Optimiser
from gym_taskdistill.distill.start import NORMAL, Start
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerRule
from gym_taskdistill.learners import LearnerDistribution, Learners, Network
from gym_taskdistill.machine import in_bfloat16, single_precision
from gym_taskdistill.policies.action_distributions import head, n_outputs
from gym_taskdistill.policies.trained import TrainedLearners, encode, encoder_state, train_learners


def check_learning(value: float, what: str) -> None:
    """Refuse to go on where nothing that is learned is a number any more; ask seldom, for it waits for a GPU.

    Args:
        value: A loss or the norm of a gradient, or a mean of such.
        what: What it is, for the message.

    Raises:
        TaskDistillError: It is NaN or infinite.
    """
    if not math.isfinite(value):
        raise TaskDistillError(
            f"{what} is {value}: nothing more can be learned; try lower learning rates, a lower inner rate, "
            "or rewards and labels of a smaller scale."
        )


class OuterLoop(nn.Module):
    """Algorithms 1 and 2 but for the loss: {X_d, Y_d}_θ and ε_ξ as parameters, and how they learn.

    A loss is all in which PPMO, imitation and other refinements differ. Each update sets the rates, may draw
    learners, trains them on the rows, computes its loss of how they act, and takes a step:

        loop.optimizer.set_rates(progress_remaining)
        loop.draw()
        actions = loop.trained(create_graph=True).act(loop.features(loop.see(obs)), loop.trunk)
        loop.optimizer.descend(loss(actions))

    Args:
        learners: The learner distribution Λ.
        observation_space: Space of what `see` is given; flat.
        action_space: Space of the actions; flat.
        generator: Source of randomness, on the device of the run; it gives the start values first.
        n_learners: M, learners trained side by side.
        k: Number of synthetic rows.
        inner: How each learner is trained on the rows; its rate is the start of the learned one.
        learn_lr_hidden: Learn the inner rule's ``lr_hidden`` too, from its value.
        start: Where the other learned things start.
        encoder_layers: l, the layers of the architecture that are learned by the outer loop.
        mixed_precision: Compute features of observations in bfloat16; ``"auto"`` does where the device has
            units for it.

    Attributes:
        fresh: The M learners that were drawn last, untrained.
        drawn_from: The generator's state from which they were drawn.
        view: What learners see of the observations that `see` is given, but for the learned scale and shift.
        mixed_precision: Whether features are computed in bfloat16.
        trunk: Layers [0, trunk) of the encoder, whose features are computed once for all that read them.
        acting: Source of the actions that `act` samples; training draws nothing from it.

    Raises:
        TaskDistillError: The action space is not supported, or the settings do not fit each other.
    """

    @single_precision()
    def __init__(
        self,
        learners: LearnerDistribution,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        generator: torch.Generator,
        *,
        n_learners: int,
        k: int,
        inner: InnerRule,
        learn_lr_hidden: bool = False,
        start: Start = NORMAL,
        encoder_layers: int = 0,
        mixed_precision: bool | Literal["auto"] = False,
    ) -> None:
        super().__init__()
        self.learner_distribution = learners
        self.n_learners, self.encoder_layers = n_learners, encoder_layers
        self.inner = inner.detached()
        self.generator, self.acting = generator, torch.Generator(generator.device)
        self.n_outputs, self.head = n_outputs(action_space), head(action_space)
        self.obs_shape: tuple[int, ...] = tuple(observation_space.shape or ())
        learners.max_parameters(self.obs_shape, self.n_outputs)  # refuses giants
        self.is_image = is_image(space_to_dict(observation_space))
        self.mixed_precision = in_bfloat16(mixed_precision, generator.device)
        self.trunk = encoder_layers
        self.view = ObservationView(images=self.is_image)
        self.x = self._normal(start.x_std, (k, *self.obs_shape))
        self.y = self._normal(start.y_std, (k, self.n_outputs))
        self.log_inner_lr = self._parameter(math.log(getattr(self.inner, self.inner.rate)), ())
        self.log_lr_hidden: nn.Parameter | None = None
        if learn_lr_hidden:
            hidden = float(getattr(self.inner, "lr_hidden", 0))
            if not hidden > 0:
                raise TaskDistillError(
                    f"learn_lr_hidden needs an inner rule whose lr_hidden is above 0, not {self.inner}; a "
                    "rate of 0 stays 0."
                )
            self.log_lr_hidden = self._parameter(math.log(hidden), ())
        self.log_obs_scale: nn.Parameter | None = None
        if start.obs_scale is not None:
            self.log_obs_scale = self._parameter(math.log(start.obs_scale), self.obs_shape)
        self.obs_shift: nn.Parameter | None = None
        if start.obs_shift is not None:
            self.obs_shift = self._parameter(start.obs_shift, self.obs_shape)
        self.encoder_network = Network(self._draw_encoder())
        self._acted: tuple[Learners, list[int], TrainedLearners] | None = None
        self.draw()
        self.inner.check(self.fresh)
        self.log_std: nn.Parameter | None = None
        if isinstance(action_space, spaces.Box):
            if abs(float(self.log_std_pull(self.inner))) < 1e-6:
                raise TaskDistillError(
                    f"The inner rule {self.inner} leaves every learner's log standard deviation at 0; use a "
                    f"smaller {self.inner.rate}."
                )
            self.log_std = self._parameter(start.log_std, (self.n_outputs,))

    def _normal(self, std: float, shape: tuple[int, ...]) -> nn.Parameter:
        draw = torch.randn(shape, generator=self.generator, device=self.generator.device)
        return nn.Parameter(std * draw)

    def _parameter(self, value: float, shape: tuple[int, ...]) -> nn.Parameter:
        return nn.Parameter(torch.full(shape, float(value), device=self.generator.device))

    def _draw_encoder(self) -> Learners:
        self.learner_distribution.check_encoder(self.encoder_layers, self.obs_shape)
        part = slice(0, self.encoder_layers)
        return self.learner_distribution.sample(1, self.obs_shape, self.n_outputs, self.generator, part)

    # -- what is learned ------------------------------------------------------------------------

    @property
    def encoder(self) -> Learners:
        """The encoder ε_ξ with its current parameters, a batch of one network."""
        return self.encoder_network.learners

    @property
    def rule(self) -> InnerRule:
        """The inner rule with its learned rates; they are learned as logarithms, to stay positive."""
        rates = {self.inner.rate: self.log_inner_lr.exp()}
        if self.log_lr_hidden is not None:
            rates["lr_hidden"] = self.log_lr_hidden.exp()
        return replace(self.inner, **rates)

    @property
    def obs_scale(self) -> Tensor | None:
        """The factor on each dimension of observations, learned as its logarithm; ``None`` for none."""
        return None if self.log_obs_scale is None else self.log_obs_scale.exp()

    @property
    def rows(self) -> Tensor:
        """The synthetic rows as learners see them, scaled and shifted as observations are."""
        return self._placed(self.x)

    def _placed(self, seen: Tensor) -> Tensor:
        scale, shift = self.obs_scale, self.obs_shift
        if scale is not None:
            seen = seen * scale
        return seen if shift is None else seen + shift

    @property
    def log_std_label(self) -> Tensor | None:
        """The label that brings trained learners to `log_std`; ``None`` for discrete actions.

        What is learned is the log standard deviation that acts, not its label: a learner comes only part of
        the way to its label, a part that grows with the inner learning rate. Exploration would else fade as
        the inner learning rate grows.
        """
        return None if self.log_std is None else self.log_std / self.log_std_pull(self.rule)

    def log_std_pull(self, rule: InnerRule) -> Any:
        """Return which fraction of its label a learner's log standard deviation reaches under a rule."""
        if not self.fresh.params:
            return 1.0  # nothing is trained: the label itself acts
        return rule.log_std_pull(self.n_outputs)

    @property
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The learned parameters by the name of their learning rate."""
        return {
            "dataset": [self.x, self.y],
            "inner_lr": [self.log_inner_lr, *([] if self.log_lr_hidden is None else [self.log_lr_hidden])],
            "log_std": [] if self.log_std is None else [self.log_std],
            "obs_scale": [] if self.log_obs_scale is None else [self.log_obs_scale],
            "obs_shift": [] if self.obs_shift is None else [self.obs_shift],
            "encoder": list(self.encoder_network.parameters()),
        }

    # -- learners -------------------------------------------------------------------------------

    @single_precision()
    def draw(self) -> None:
        """Draw M fresh learners (Algorithm 1, line 2)."""
        self.drawn_from = self.generator.get_state()
        part = slice(self.encoder_layers, None)
        self.fresh = self.learner_distribution.sample(
            self.n_learners, self.obs_shape, self.n_outputs, self.generator, part
        )

    def redraw(self, drawn_from: Tensor) -> None:
        """Draw the learners that were drawn from a state of the generator, as `drawn_from` tells it.

        Of a state of another device's generator nothing can be drawn; the learners stay as they are.
        """
        if drawn_from.shape == self.drawn_from.shape:
            self.generator.set_state(drawn_from)
            self.draw()

    def trained(self, create_graph: bool) -> TrainedLearners:
        """Train the learners that were drawn last on the rows (Algorithm 1, lines 3 and 12).

        Args:
            create_graph: Keep the graph back to everything that is learned.

        Returns:
            The M trained learners.
        """
        return train_learners(
            self.fresh,
            self.encoder,
            self.rows,
            self.y,
            self.rule,
            log_std_label=self.log_std_label,
            create_graph=create_graph,
            head=self.head,
        )

    def _ready(self) -> TrainedLearners:
        """Return the trained learners that act; they are trained anew only after something has changed."""
        versions = [parameter._version for parameter in self.parameters()]
        if self._acted is None or self._acted[0] is not self.fresh or self._acted[1] != versions:
            self._acted = self.fresh, versions, self.trained(create_graph=False)
        return self._acted[2]

    def see(self, obs: Tensor) -> Tensor:
        """Show observations ``(..., *obs_shape)`` by the view; of images in bfloat16 where features are."""
        if not self.is_image:
            seen: Tensor = self.view(obs.float())
            return seen
        # Learners, whose layers begin at the trunk's end, are not computed in bfloat16.
        dtype = torch.bfloat16 if self.mixed_precision and self.trunk else torch.float32
        return self.view.in_chunks(obs, dtype)

    def features(self, seen: Tensor) -> Tensor:
        """Scale and shift what is seen, ``(M, b, *obs_shape)``, and run the encoder's trunk over it."""
        seen = self._placed(seen)
        if not self.trunk:
            return seen
        trunk = self.encoder.part(slice(0, self.trunk))
        if not self.mixed_precision:
            return encode(trunk, seen)
        with self.autocast():
            return encode(trunk, seen).float()

    @property
    def obs_dtype(self) -> torch.dtype:
        """What `see` is given: images as bytes, all else in float32."""
        return torch.uint8 if self.is_image else torch.float32

    def autocast(self) -> torch.autocast:
        """Compute in bfloat16 where that loses nothing that matters."""
        return torch.autocast(self.x.device.type, torch.bfloat16)

    def act(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        """Let the current learners act: row i of a batch by learner ``i // E``, where M divides the batch.

        Args:
            obs: What `see` is given, ``(n, *obs_shape)``.
            deterministic: Take the most likely actions instead of sampling from `acting`.

        Returns:
            Unclipped flat actions, ``(n,)`` or ``(n, n_actions)``.
        """
        rows = obs.shape[0]
        with torch.no_grad():
            if rows % self.n_learners == 0:
                obs = obs.unflatten(0, (self.n_learners, rows // self.n_learners))
            else:
                obs = obs.unsqueeze(0).expand(self.n_learners, *obs.shape)
            distribution = self._ready().act(self.features(self.see(obs)), self.trunk)
            actions = distribution.mode() if deterministic else distribution.sample(self.acting)
        return actions.flatten(0, 1)[:rows]

    # -- how it is learned ----------------------------------------------------------------------

    def optimise_by(self, learning_rate: float | Schedule, *rates: Any, **others: Any) -> None:
        """Make the `Optimiser` of what is learned, which takes the other arguments."""
        self.optimizer = Optimiser(self.groups, learning_rate, *rates, **others)

        def forget(*_: Any) -> None:  # fused Adam leaves tensors' versions as they are
            self._acted = None

        self.optimizer.register_step_post_hook(forget)

    def reseed(self, seed: int, segment: int) -> tuple[int, int]:
        """Begin a segment of a run: seed all that is random here by the run's seed and the segment's number.

        Returns:
            Two more seeds for what is random around it; every rank has its own.
        """
        of_rank = [distributed.rank()] if distributed.rank() else []
        words = np.random.SeedSequence([seed, segment, *of_rank]).generate_state(4).tolist()
        self.generator.manual_seed(words[1])
        self.acting.manual_seed(words[3])
        return words[0], words[2]

    # -- datasets and checkpoints ---------------------------------------------------------------

    def dataset(self, card: Card, view: ObservationView | None = None) -> DistilledDataset:
        """Return a snapshot of what is learned.

        Args:
            card: Its card.
            view: What came before `see`, if anything did; by default the loop's own view.
        """
        view = view or self.view
        return DistilledDataset(
            x=self.rows,
            y=self.y,
            rule=self.rule.detached(),
            card=card,
            log_std=self.log_std_label,
            obs_mean=view.mean,
            obs_var=view.var,
            clip_obs=view.clip if view.mean is not None and math.isfinite(view.clip) else None,
            obs_scale=self.obs_scale,
            obs_shift=self.obs_shift,
            encoder=encoder_state(self.encoder),
            encoder_layers=self.encoder_layers,
        )

    def state(self) -> dict[str, Any]:
        """Return what is learned and the optimiser's state as plain data, for a checkpoint."""
        return {
            "learned": {
                name: value for name, value in self.state_dict().items() if not name.startswith("view.")
            },
            "optimizer": self.optimizer.state_dict(),
            "view": {"mean": self.view.mean, "var": self.view.var, "clip": self.view.clip},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned into a loop of the same settings.

        Raises:
            KeyError: Something is missing.
            RuntimeError: A tensor is missing or of another shape.
            ValueError: The optimiser's groups are others.
        """
        view = state["view"]
        self.view = ObservationView(view["mean"], view["var"], clip=view["clip"], images=self.is_image)
        views = {f"view.{name}": value for name, value in self.view.state_dict().items()}
        self.load_state_dict({**state["learned"], **views})
        self.optimizer.load_state_dict(state["optimizer"])
