"""Networks as functions of a parameter dictionary: for one task, and for stacked tasks."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap

from metarl.errors import UserError
from metarl.inner_loop import adapt
from metarl.networks.conv4 import Conv4
from metarl.networks.layers import head
from metarl.networks.mlp import init_mlp, mlp
from metarl.networks.normalisation import normalise_and_pool

CASES = {
    "mlp": (lambda g: init_mlp(g, (6, 5, 4, 3)), lambda p, x: mlp(p, x, torch.tanh), (6,)),
    "normalised mlp": (
        lambda g: init_mlp(g, (6, 5, 4, 3), norm=True),
        lambda p, x: mlp(p, x, torch.tanh),
        (6,),
    ),
    "strided conv4": (
        lambda g: Conv4(filters=4).init(g, (1, 16, 16), 3),
        Conv4(filters=4),
        (1, 16, 16),
    ),
    "pooled conv4": (
        lambda g: Conv4(filters=4, pool=True).init(g, (3, 16, 16), 3),
        Conv4(filters=4, pool=True),
        (3, 16, 16),
    ),
}
TASKS, EXAMPLES = 3, 6


def turn_every_other_scale(params) -> None:
    for name, leaf in params.items():
        if name.startswith("scale"):
            leaf[::2] *= -1.0


@pytest.fixture(params=CASES)
def case(request):
    init, network, shape = CASES[request.param]
    generator = torch.Generator().manual_seed(0)
    params = {name: leaf.double() for name, leaf in init(generator).items()}
    # scales and shifts of their own, or a wrong derivative by them would go unseen
    for leaf in params.values():
        leaf += 0.1 * torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
    turn_every_other_scale(params)
    inputs = torch.rand(TASKS, EXAMPLES, *shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(EXAMPLES).remainder(3).expand(TASKS, EXAMPLES)
    return params, network, inputs, labels


@pytest.fixture
def case_of_pooling():
    generator = torch.Generator().manual_seed(0)
    params = Conv4(filters=4, pool=True).init(generator, (3, 21, 21), 3)
    turn_every_other_scale(params)
    return params, torch.rand(6, 3, 21, 21, generator=generator)


def stacked(params):
    return {name: leaf.expand(TASKS, *leaf.shape) for name, leaf in params.items()}


def test_stacked_tasks_equal_separate_ones(case) -> None:
    params, network, inputs, _ = case
    generator = torch.Generator().manual_seed(1)
    many = {
        name: leaf + 0.1 * torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        for name, leaf in stacked(params).items()
    }
    together = network(many, inputs)
    for task in range(TASKS):
        separate = network({name: leaf[task] for name, leaf in many.items()}, inputs[task])
        torch.testing.assert_close(together[task], separate)


def test_the_meta_gradient_equals_finite_differences_for_stacked_and_separate_tasks(case) -> None:
    params, network, inputs, labels = case

    def loss(params, batch):
        return F.cross_entropy(network(params, batch[0]), batch[1])

    def losses(params, batch):
        logits = network(params, batch[0])
        total = F.cross_entropy(logits.flatten(0, 1), batch[1].flatten(), reduction="sum")
        return total / EXAMPLES

    def one_by_one(params):
        tasks = zip(inputs, labels, strict=True)
        return sum(loss(adapt(loss, params, [task], 0.5), task) for task in tasks)

    def vmapped(params):
        def task_loss(x, y):
            return loss(adapt(loss, params, [(x, y)], 0.5), (x, y))

        return vmap(task_loss)(inputs, labels).sum()

    def side_by_side(params):
        batch = (inputs, labels)
        return losses(adapt(losses, stacked(params), [batch], 0.5), batch)

    generator = torch.Generator().manual_seed(2)
    direction = {
        name: torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        for name, leaf in params.items()
    }

    def along(size):
        candidate = {name: leaf + size * direction[name] for name, leaf in params.items()}
        return float(one_by_one(candidate))

    expected = (along(1e-6) - along(-1e-6)) / 2e-6
    for objective in (one_by_one, vmapped, side_by_side):
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
        gradient = torch.autograd.grad(objective(leaves), list(leaves.values()))
        slope = sum((g * d).sum() for g, d in zip(gradient, direction.values(), strict=True))
        assert float(slope) == pytest.approx(expected, rel=1e-6)


def test_layers_before_normalisation_have_no_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    params = init_mlp(generator, (6, 5, 3), norm=True)
    assert list(params) == ["weight0", "scale0", "shift0", "weight1", "bias1"]
    assert head(params) == ["weight1", "bias1"]
    params = Conv4(filters=32, pool=True).init(generator, (3, 84, 84), 5)
    assert params["weight4"].shape == (800, 5)
    assert sum(leaf.numel() for leaf in params.values()) == 32_901 - 4 * 32


def test_pooling_before_normalisation_equals_pooling_last(case_of_pooling) -> None:
    params, images = case_of_pooling
    hidden = images
    for block in range(4):
        hidden = F.conv2d(hidden, params[f"weight{block}"], padding=1)
        scale, shift = params[f"scale{block}"], params[f"shift{block}"]
        hidden = F.batch_norm(hidden, None, None, scale, shift, training=True)
        hidden = F.max_pool2d(torch.relu(hidden), 2)
    expected = hidden.flatten(1) @ params["weight4"] + params["bias4"]
    torch.testing.assert_close(Conv4(filters=4, pool=True)(params, images), expected)


def test_normalisation_with_pooling_has_exact_first_and_second_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 2, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.5, 1.5], dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([-0.2, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalise_and_pool, (inputs, scale, shift))
    assert torch.autograd.gradgradcheck(normalise_and_pool, (inputs, scale, shift))


def test_pooling_needs_images_that_can_be_halved_four_times() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match=r"16 x 16 pixels, not 15 x 20; set network\.pool=false"):
        Conv4(filters=4, pool=True).init(generator, (1, 15, 20), 3)
    Conv4(filters=4).init(generator, (1, 15, 20), 3)
