"""The learned optimiser: against torch's LSTM for one parameter, its gradient, its truncation."""

import copy

import pytest
import torch

from metarl.baselines.learned_optimizer import init_optimizer, optimizer_step
from metarl.baselines.meta_lstm import preprocessed
from metarl.experiment import validate_config
from metarl.method import load_method
from metarl.params import flatten, unflatten

SINE = {
    "data": {"name": "sinusoid"},
    "method": {"name": "learned_optimizer", "hidden_size": 3, "unroll": 2},
    "network": {"kind": "mlp", "hidden_sizes": [4]},
    "inner": {"steps": 4, "shots": 5, "queries": 6},
    "outer": {"meta_batch": 2, "iterations": 4},
    "evaluation": {"tasks": 4, "steps": 3, "queries": 5},
}


def method_of(**changes):
    values = copy.deepcopy(SINE)
    for section, settings in changes.items():
        values[section].update(settings)
    return load_method(validate_config(values))


def as_lstm(params, layer: int, width: int, hidden_size: int) -> torch.nn.LSTMCell:
    cell = torch.nn.LSTMCell(width, hidden_size)
    cell.weight_ih.data = params[f"inputs{layer}"]
    cell.weight_hh.data = params[f"hidden{layer}"]
    cell.bias_ih.data, cell.bias_hh.data = params[f"bias{layer}"], torch.zeros(4 * hidden_size)
    return cell


@torch.no_grad()
def test_each_parameter_has_an_lstm_with_a_state_of_its_own() -> None:
    params = init_optimizer(torch.Generator().manual_seed(0), 3)
    gradients = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(1))  # (steps, N, P)
    state = [(torch.zeros(10, 3),) * 2] * 2
    updates = []
    for gradient in gradients:
        update, state = optimizer_step(params, gradient, state)
        updates.append(update)
    first, second = as_lstm(params, 0, 2, 3), as_lstm(params, 1, 3, 3)
    for task in range(2):
        for parameter in range(5):
            states = [(torch.zeros(3), torch.zeros(3)) for _ in range(2)]
            for step, gradient in enumerate(gradients[:, task, parameter]):
                states[0] = first(preprocessed(gradient), states[0])
                states[1] = second(states[0][0], states[1])
                expected = states[1][0] @ params["output"]
                torch.testing.assert_close(updates[step][task, parameter], expected)


def test_forget_gates_start_open() -> None:
    params = init_optimizer(torch.Generator().manual_seed(0), 3)
    for layer in range(2):
        assert params[f"bias{layer}"].tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6


@pytest.mark.parametrize("unroll", [2, 4])
def test_the_gradient_equals_finite_differences_with_fixed_inner_gradients_and_segments(
    unroll, monkeypatch
) -> None:
    method = method_of(method={"unroll": unroll})
    episodes = method.sample_batch(0)
    to_double = [
        tuple(leaf.double() for leaf in part) for part in (episodes.support, episodes.query)
    ]
    episodes = type(episodes)(episodes.tasks, *to_double)
    start = {name: leaf.double() for name, leaf in method.optimisee(0).items()}
    monkeypatch.setattr(method, "optimisee", lambda *_: start)
    phi = {
        name: leaf.double().requires_grad_() for name, leaf in method.initial_state().params.items()
    }
    recorded, support_gradient = [], method.support_gradient

    def recording(theta, support):
        recorded.append(support_gradient(theta, support))
        return recorded[-1]

    monkeypatch.setattr(method, "support_gradient", recording)
    loss, _ = method.loss(phi, episodes, 0)
    gradient = flatten(dict(zip(phi, torch.autograd.grad(loss, list(phi.values())), strict=True)))
    fixed = {name: leaf.detach() for name, leaf in phi.items()}

    def segment_loss(vector: torch.Tensor) -> float:
        """Each segment starts from the path of the unperturbed φ."""
        perturbed, total = unflatten(vector, fixed), 0.0
        theta_start, state_start = None, None
        for first in range(0, 4, unroll):
            for params in (perturbed, fixed):
                theta = theta_start if theta_start is not None else start_rows(start)
                state = state_start or [(torch.zeros(theta.numel(), 3).double(),) * 2] * 2
                for step in range(first, first + unroll):
                    update, state = optimizer_step(params, recorded[step][0], state)
                    theta = theta + 0.1 * update
                    if params is perturbed:
                        leaves = [unflatten(row, start) for row in theta]
                        stacked = {k: torch.stack([leaf[k] for leaf in leaves]) for k in start}
                        outputs = method.problem.network(stacked, episodes.query[0])
                        total += float(method.problem.kind.loss(outputs, episodes.query[1]))
            theta_start, state_start = theta, state
        return total / 4

    direction = torch.randn(len(gradient), generator=torch.Generator().manual_seed(2)).double()
    vector = flatten(fixed)
    assert segment_loss(vector) == pytest.approx(loss.item())
    high, low = (segment_loss(vector + sign * 1e-6 * direction) for sign in (1, -1))
    assert float(gradient @ direction) == pytest.approx((high - low) / 2e-6, rel=1e-5)


def start_rows(start) -> torch.Tensor:
    return flatten(start).repeat(2, 1)


def test_the_optimisee_is_new_in_every_iteration_and_the_same_in_every_evaluation() -> None:
    method = method_of()
    first, second = (flatten(method.optimisee(1, iteration)) for iteration in (0, 1))
    assert not torch.equal(first, second)
    episodes = method.sample_batch(0)
    start, later = (method.loss(method.initial_state().params, episodes, i)[0] for i in (0, 1))
    assert float(start) != float(later)
    params = method.initial_state().params
    assert (method.evaluate(params).scores == method.evaluate(params).scores).all()


@pytest.mark.slow
def test_it_learns_to_optimise_sinusoid_regression() -> None:
    method = method_of(
        method={"hidden_size": 10, "unroll": 10, "output_scale": 0.1},
        network={"hidden_sizes": [10]},
        inner={"steps": 10, "shots": 10, "queries": 10},
        outer={"learning_rate": 0.02, "meta_batch": 10, "iterations": 60},
        evaluation={"tasks": 50, "steps": 10},
    )
    state = method.initial_state()
    before = method.evaluate(state.params).scores.mean(0)
    while state.iteration < method.num_iterations:
        state, _ = method.step(state)
    after = method.evaluate(state.params).scores.mean(0)
    assert after[0] == before[0]  # the optimisee is not learned
    assert after[10] < 0.7 * min(after[0], before[10])
