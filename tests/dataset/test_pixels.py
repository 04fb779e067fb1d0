"""Pixels standardised a few images at a time are those of the formula."""

from __future__ import annotations

import pytest
import torch

from gym_taskdistill.dataset import pixels


@pytest.mark.parametrize("n", [1, 3, 41])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_are_standardised_by_their_own_statistics(n: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    seen = torch.randint(0, 256, (50, 4, 84, 84), generator=generator, dtype=torch.uint8)
    seen[:, :, :10] = 7  # what never changes has no deviation to divide by
    mean, std = pixels.measure(seen)
    assert std.min() == pytest.approx(pixels.MIN_STD)
    images = torch.randint(0, 256, (2, n, 4, 84, 84), generator=generator, dtype=torch.uint8)
    expected = ((images / 255 - mean) / std).clamp(-5, 5)
    assert (expected.abs() == 5).any()
    found = pixels.standardise(images, mean, std, dtype)
    assert found.dtype == dtype
    tolerance = {"rtol": 0.01, "atol": 0.01} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(found.float(), expected, **tolerance)


def test_without_statistics_pixels_are_scaled_alone() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    torch.testing.assert_close(pixels.standardise(images, None, None, torch.float32), images / 255)
