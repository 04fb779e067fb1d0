"""The Nature CNN: its shapes, its stacks against plain torch modules, and its bad settings."""

from __future__ import annotations

import pytest
import torch

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import ALPHA_A, CNN, Learners, LearnerStack, learner_distribution

SHAPE, OUTPUTS = (4, 84, 84), 6
#: A small family of the same make, for what need not be large.
SMALL = CNN(channels=(3, 5), kernel_sizes=(4, 3), strides=(2, 1), hidden=16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
