"""The Nature CNN: its shapes, its stacks against plain torch modules, and its bad settings."""

from __future__ import annotations

import math

import pytest
import torch

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import ALPHA_A, CNN, Learners, LearnerStack, learner_distribution
from gym_taskdistill.learners.layers import Conv2d

SHAPE, OUTPUTS = (4, 84, 84), 6
#: A small family of the same make, for what need not be large.
SMALL = CNN(channels=(3, 5), kernel_sizes=(4, 3), strides=(2, 1), hidden=16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
def test_alpha_a_is_the_nature_cnn() -> None:
    assert learner_distribution("alpha_a") == ALPHA_A == CNN()
    shapes = [shape for layer in ALPHA_A.layers(SHAPE, OUTPUTS) for shape in layer.shapes]
    assert shapes[::2] == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (6, 512)]
    (stack,) = ALPHA_A.sample(1, SHAPE, OUTPUTS, generator()).stacks
    for weight, gain in zip(stack.params[::2], [2**0.5] * 4 + [0.01], strict=True):
        singular = torch.linalg.svdvals(weight[0].flatten(1))
        torch.testing.assert_close(singular, torch.full_like(singular, gain), rtol=1e-3, atol=1e-6)
    assert all((bias == 0).all() for bias in stack.params[1::2])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n_learners", [1, 3])
def test_a_stack_computes_what_its_modules_do(shared: bool, n_learners: int) -> None:
    learners = SMALL.sample(n_learners, (2, 12, 10), OUTPUTS, generator())
    # Fresh biases are 0; a wrong one would not be seen.
    learners = learners.replace(
        [p + 0.1 * torch.randn(p.shape, generator=generator(1)) for p in learners.params]
    )
    x = torch.randn(1 if shared else n_learners, 7, 2, 12, 10, generator=generator(2))
    expected = [learners.module(i)(x[0 if shared else i]) for i in range(n_learners)]
    torch.testing.assert_close(learners(x), torch.stack(expected))


@pytest.mark.parametrize(
    ("in_shape", "kernel_size", "stride"),
    [((4, 84, 84), 8, 4), ((3, 12, 8), 2, 2), ((2, 9, 9), 3, 3), ((2, 10, 12), 4, 4), ((2, 8, 8), 6, 4)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_convolution_by_blocks_is_the_convolution(
    in_shape: tuple[int, ...], kernel_size: int, stride: int, dtype: torch.dtype
) -> None:
    layer = Conv2d(in_shape, 5, kernel_size, stride)
    draw = generator()
    params = [torch.randn(1, *shape, generator=draw).to(dtype).requires_grad_() for shape in layer.shapes]
    # Bounds of memory that no word begins at, and images in another order than memory's.
    flat = torch.randn(3 * 6 * 120 * 90, generator=draw).to(dtype)
    n = math.prod(in_shape)
    aligned, odd = (flat[start : start + 6 * n].view(6, *in_shape) for start in (0, 1))
    for images in (aligned, odd, aligned[::2], aligned.mT.contiguous().mT):
        out = layer.forward((params[0], params[1]), images.unsqueeze(0))
        expected = torch.conv2d(images, params[0][0], params[1][0], stride=stride).unsqueeze(0)
        cotangent = torch.randn(out.shape, generator=draw).to(dtype)
        grads = torch.autograd.grad(out, params, cotangent)
        expected_grads = torch.autograd.grad(expected, params, cotangent)
        tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
        for ours, theirs in zip((out, *grads), (expected, *expected_grads), strict=True):
            scale = theirs.abs().max()
            torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("cut", range(5))
def test_an_encoder_and_the_rest_are_the_whole_network(cut: int) -> None:
    whole = SMALL.sample(1, (2, 12, 10), OUTPUTS, generator())
    layers = SMALL.layers((2, 12, 10), OUTPUTS)
    first = Learners([LearnerStack(layers[:cut], whole.params[: 2 * cut], 1)])
    rest = Learners([LearnerStack(layers[cut:], whole.params[2 * cut :], 1)])
    x = torch.randn(1, 3, 2, 12, 10, generator=generator(1))
    torch.testing.assert_close(rest(first(x)), whole(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": [4, 2]}, "CNN strides must hold an integer >= 1 for each of the 3 convolutions"),
        ({"channels": [0, 1, 1]}, "CNN channels must hold an integer >= 1"),
        ({"hidden": 0}, "CNN hidden must be an integer >= 1"),
        ({"activation": "rely"}, 'activation "rely" is unknown.*relu'),
        ({"init": "ortogonal"}, 'init "ortogonal" is unknown.*orthogonal'),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        learner_distribution({"family": "cnn", **settings})


@pytest.mark.parametrize(
    ("shape", "message"), [((8,), "needs images"), ((4, 7, 84), "smaller than the convolution's kernel")]
)
def test_observations_that_are_no_images_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        ALPHA_A.sample(1, shape, OUTPUTS, generator())
