"""Whether the parts of a dataset fit one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gym_taskdistill.dataset import fit
from gym_taskdistill.dataset.spaces import n_logits
from gym_taskdistill.dataset.training import log_std_pull
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.inner.rule import MIN_RATE

if TYPE_CHECKING:
    from gym_taskdistill.dataset.dataset import DistilledDataset

#: The largest magnitude of a learner's log standard deviation: its exponential is finite, and not 0.
MAX_LOG_STD = 60.0


def check_shapes(dataset: DistilledDataset) -> None:
    """Refuse tensors whose shapes or signs do not fit, such as as many labels as rows.

    Raises:
        DatasetError: It names the tensor.
    """
    if dataset.x.ndim < 2 or dataset.y.ndim != 2 or not dataset.x.numel() or not dataset.y.numel():
        raise DatasetError(
            "x must have shape (k, *obs_shape) and y (k, n_outputs), both non-empty, not "
            f"{tuple(dataset.x.shape)} and {tuple(dataset.y.shape)}."
        )
    if len(dataset.x) != len(dataset.y):
        raise DatasetError(f"x has {len(dataset.x)} instances, but y has {len(dataset.y)}.")
    for name, shape in (
        ("log_std", (dataset.n_outputs,)),
        ("obs_mean", dataset.obs_shape),
        ("obs_var", dataset.obs_shape),
        ("obs_scale", dataset.obs_shape),
        ("obs_shift", dataset.obs_shape),
    ):
        tensor = getattr(dataset, name)
        if tensor is not None and tuple(tensor.shape) != shape:
            raise DatasetError(f"{name} has shape {tuple(tensor.shape)}, but must be {shape}.")
    if (dataset.obs_mean is None) != (dataset.obs_var is None):
        raise DatasetError("obs_mean and obs_var belong together: give both or neither.")
    if dataset.obs_var is not None and bool((dataset.obs_var < 0).any()):
        raise DatasetError("obs_var has negative values.")
    if dataset.obs_scale is not None and bool((dataset.obs_scale < MIN_RATE).any()):
        raise DatasetError(f"obs_scale has values that are not above 0, from {MIN_RATE}.")
    if dataset.clip_obs is not None and dataset.obs_mean is None:
        raise DatasetError("clip_obs needs observation statistics: give obs_mean and obs_var.")
    if bool(dataset.encoder) != bool(dataset.encoder_layers):
        raise DatasetError(
            f"encoder_layers is {dataset.encoder_layers}, but the encoder has "
            f"{len(dataset.encoder)} tensors: both must be empty or neither."
        )


def check_spaces(dataset: DistilledDataset) -> None:
    """Refuse rows and labels that are not of the spaces of the card.

    Raises:
        DatasetError: It names what differs.
    """
    observation, action = dataset.card.observation_space, dataset.card.action_space
    if observation["type"] != "Box" or tuple(observation["shape"]) != dataset.obs_shape:
        raise DatasetError(
            f"x has observations of shape {dataset.obs_shape}, but the card's observation space "
            f"is {fit.space_text(observation)}."
        )
    if n_logits(action) != dataset.n_outputs:
        raise DatasetError(
            f"y has {dataset.n_outputs} outputs, but the card's action space "
            f"{fit.space_text(action)} needs {n_logits(action)}."
        )
    if dataset.log_std is None:
        return
    if action["type"] != "Box":
        raise DatasetError("log_std is only for continuous actions; leave it None.")
    try:
        pull = log_std_pull(dataset)
    except TaskDistillError:  # a dataset is of use without its learners: others can be given to train
        pull = dataset.rule.log_std_pull(dataset.n_outputs)
    trained = dataset.log_std * pull
    if not bool((trained.abs() <= MAX_LOG_STD).all()):
        raise DatasetError(
            f"log_std and the inner rule {dataset.rule} give learners a log standard deviation of "
            f"{float(trained[trained.abs().argmax()]):.6g}, but it must be from {-MAX_LOG_STD:g} to "
            f"{MAX_LOG_STD:g}."
        )
