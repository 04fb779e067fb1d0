"""The observation view: one arithmetic for dataset, exported module and wrapper, and its inverse."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from gym_taskdistill.dataset.card import Card, space_to_dict
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.view import PIXEL_MIN_STD, ObservationView
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.wrappers import FrozenNormalizeObservation

STATISTICS = {
    "obs_mean": torch.tensor([0.1, -0.2, 1.0]),
    "obs_var": torch.tensor([0.3, 0.7, 20.0]),
    "clip_obs": 1.5,
}
SCALE = {"obs_scale": torch.tensor([0.5, 1.3, 2.1])}
SHIFT = {"obs_shift": torch.tensor([1.0, -2.0, 0.3])}


def pendulum(**fields: Any) -> DistilledDataset:
    env = gym.make("Pendulum-v1")
    card = Card(
        env_id="Pendulum-v1",
        observation_space=space_to_dict(env.observation_space),
        action_space=space_to_dict(env.action_space, bounds=True),
        learners={"family": "mlp"},
    )
    log_std = torch.zeros(1)
    return DistilledDataset(torch.eye(3), torch.ones(3, 1), InnerSGD(), card, log_std=log_std, **fields)


@pytest.mark.parametrize("fields", [{}, STATISTICS, SCALE, SHIFT, {**STATISTICS, **SCALE, **SHIFT}], ids=len)
def test_dataset_module_and_wrapper_agree_bit_for_bit(fields: dict[str, Any]) -> None:
    dataset = pendulum(**fields)
    module = DistilledPolicy(dataset, seed=0).to_torch()
    assert isinstance(module[0], ObservationView) == bool(fields)
    env, raw_env = FrozenNormalizeObservation(gym.make("Pendulum-v1"), dataset), gym.make("Pendulum-v1")
    env.reset(seed=0), raw_env.reset(seed=0)
    raws, seen = [], []
    for _ in range(50):
        action = env.action_space.sample()
        raws.append(raw_env.step(action)[0])
        seen.append(env.step(action)[0])
    raw = torch.as_tensor(np.stack(raws))
    expected = dataset.normalize(raw)
    assert torch.equal(torch.as_tensor(np.stack(seen)), expected)
    assert torch.equal(module[0](raw) if fields else raw, expected)
    if "obs_mean" in fields:
        whole = (raw - fields["obs_mean"]) / torch.sqrt(fields["obs_var"] + 1e-8)
        formula = whole.clamp(-1.5, 1.5) * fields.get("obs_scale", 1) + fields.get("obs_shift", 0)
        torch.testing.assert_close(expected, formula)
        assert (whole.abs() > 1.5).any()


def test_an_exported_view_is_a_copy() -> None:
    dataset = pendulum(**STATISTICS)
    DistilledPolicy(dataset, seed=0).to_torch().double()
    assert dataset.view.mean is not None and dataset.view.mean.dtype == torch.float32


@pytest.mark.parametrize("fields", [{}, STATISTICS, SCALE, SHIFT, {**STATISTICS, **SCALE, **SHIFT}], ids=len)
def test_the_inverse_gives_back_what_is_not_clipped(fields: dict[str, Any]) -> None:
    view = pendulum(**{**fields, **({"clip_obs": 1e3} if "clip_obs" in fields else {})}).view
    raw = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * 3
    torch.testing.assert_close(view.invert(view(raw)), raw)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("n", [1, 3, 41])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_are_standardised_by_their_own_statistics(n: int, dtype: torch.dtype) -> None:
    seen = images(50, 4, 84, 84)
    seen[:, :, :10] = 7  # what never changes has no deviation to divide by
    view = ObservationView.of_images(seen)
    assert view.mean is not None and view.var is not None
    std = view.var.sqrt()
    assert std.min() == pytest.approx(PIXEL_MIN_STD)
    batch = images(2, n, 4, 84, 84, seed=1)
    whole = (batch / 255 - view.mean) / std
    found = view.in_chunks(batch, dtype)
    assert found.dtype == dtype
    tolerance = {"rtol": 0.01, "atol": 0.01} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(found.float(), whole.clamp(-5, 5), **tolerance)
    assert torch.equal(view(batch).to(dtype), found)
    inside = whole.abs() < 4.9
    assert (whole.abs() > 5).any()
    torch.testing.assert_close(view.invert(view(batch))[inside], batch.float()[inside], rtol=1e-4, atol=1e-2)


def test_without_statistics_pixels_are_scaled_alone() -> None:
    batch = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    view = ObservationView(images=True)
    assert torch.equal(view.in_chunks(batch), batch / 255) and torch.equal(view(batch), batch / 255)
    torch.testing.assert_close(view.invert(view(batch)), batch.float())


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_it_can_be_scripted() -> None:
    for view in (pendulum(**STATISTICS, **SCALE).view, pendulum().view, pendulum(**SCALE).view):
        raw = torch.randn(5, 3)
        assert torch.equal(torch.jit.script(view)(raw), view(raw))
