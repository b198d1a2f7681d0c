"""Reptile: the outer step, the minibatches of the inner steps, and a training."""

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.experiment import validate_config
from metarl.method import load_method
from metarl.params import flatten

SINE = {
    "data": {"name": "sinusoid"},
    "method": {"name": "reptile", "batch": 4},
    "network": {"kind": "mlp", "hidden_sizes": [8, 8]},
    "inner": {"step_size": 0.02, "steps": 5, "shots": 10},
    "outer": {"algorithm": "sgd", "learning_rate": 0.7, "meta_batch": 3, "iterations": 2},
}


def reptile(**changes):
    values = {name: dict(section) for name, section in SINE.items()}
    for section, settings in changes.items():
        values[section].update(settings)
    return load_method(validate_config(values))


def gradient_descent(method, theta, batches):
    """One task's steps of gradient descent by torch's own optimiser."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in theta.items()}
    optimizer = torch.optim.SGD(leaves.values(), lr=method.problem.config.inner.step_size)
    for inputs, targets in batches:
        optimizer.zero_grad()
        stacked = {name: leaf[None] for name, leaf in leaves.items()}
        outputs = method.problem.network(stacked, inputs[None])[0]
        (outputs - targets).square().mean().backward()
        optimizer.step()
    return flatten(leaves).detach()


@pytest.mark.parametrize("batch", [4, None])
def test_the_outer_step_moves_towards_the_mean_of_the_adapted_parameters(batch) -> None:
    method = reptile(method={"batch": batch})
    state = method.initial_state()
    episodes = method.sample_batch(0)
    batches = method.minibatches(episodes.support, 0)
    adapted = [
        gradient_descent(method, state.params, [(x[task], y[task]) for x, y in batches])
        for task in range(3)
    ]
    before = flatten(state.params)
    expected = before + 0.7 * (torch.stack(adapted).mean(0) - before)
    after, _ = method.step(state)
    torch.testing.assert_close(flatten(after.params), expected, rtol=1e-5, atol=1e-6)


def test_minibatches_cover_all_examples_before_repeating() -> None:
    method = reptile()
    points = torch.arange(10.0)[None, :, None]
    batches = [x.flatten().tolist() for x, _ in method.minibatches((points, points), 0)]
    assert [len(batch) for batch in batches] == [4] * 5
    points_in_order = [point for batch in batches for point in batch]
    assert sorted(points_in_order[:10]) == sorted(points_in_order[10:]) == [*range(10)]
    next_batches = [x.flatten().tolist() for x, _ in method.minibatches((points, points), 1)]
    assert next_batches != batches


def test_queries_do_not_affect_the_loss() -> None:
    method = reptile()
    theta, episodes, scaled = (
        method.initial_state().params,
        method.sample_batch(0),
        method.sample_batch(0),
    )
    scaled.query[1].mul_(100.0)
    first, second = (method.loss(theta, e, 0)[0] for e in (episodes, scaled))
    assert torch.equal(first, second)


def test_the_meta_gradient_has_no_second_derivatives() -> None:
    method = reptile(method={"batch": None}, inner={"steps": 1, "step_size": 0.1})
    theta, episodes = method.initial_state().params, method.sample_batch(0)
    leaves = {name: leaf.requires_grad_() for name, leaf in theta.items()}
    loss, _ = method.loss(leaves, episodes, 0)
    gradient = torch.autograd.grad(loss, list(leaves.values()))
    stacked = {name: leaf.expand(3, *leaf.shape) for name, leaf in leaves.items()}
    plain = torch.autograd.grad(
        method.support_loss(stacked, episodes.support), list(leaves.values())
    )
    for actual, expected in zip(gradient, plain, strict=True):
        torch.testing.assert_close(actual, 0.1 * expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": {"batch": 11}}, r"method\.batch=11 is more than the 10 examples"),
        (
            {"inner": {"learned_step_sizes": "lslr"}},
            "inner.learned_step_sizes: lslr is not supported",
        ),
        ({"inner": {"first_order": True}}, "inner.first_order: True is not supported"),
        (
            {"inner": {"multi_step_iterations": 3}},
            "inner.multi_step_iterations: 3 is not supported",
        ),
        ({"outer": {"algorithm": "trpo"}}, "outer.algorithm: must be 'adam' or 'sgd'"),
    ],
)
def test_unsupported_settings_of_reptile_are_reported(changes, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        reptile(**changes)


def test_it_learns_sinusoids() -> None:
    method = reptile(
        outer={"iterations": 150, "meta_batch": 10, "learning_rate": 1.0},
        network={"hidden_sizes": [40, 40]},
        inner={"shots": 50, "queries": 10},
        method={"batch": 10},
    )
    state = method.initial_state()
    untrained = method.curve("test", 100, state.params, (0.02,) * 5).scores.mean(0)
    while state.iteration < method.num_iterations:
        state, _ = method.step(state)
    trained = method.curve("test", 100, state.params, (0.02,) * 5).scores.mean(0)
    assert trained[5] < 0.7 * untrained[5]
    assert np.isfinite(trained).all()
