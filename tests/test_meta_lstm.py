"""Meta-LSTM: its step against one parameter at a time, its gradient, and its initialisation."""

import math

import numpy as np
import pytest
import torch

from metarl.baselines.meta_lstm import (
    PREFIX,
    from_rows,
    init_rule,
    init_state,
    preprocessed,
    rule_step,
    stacked_rows,
)
from metarl.errors import UserError
from metarl.experiment import validate_config
from metarl.method import load_method
from metarl.params import flatten, split_prefix, unflatten
from metarl.supervised.method import EpisodeObjective
from metarl.supervised.sinusoid import Sinusoid
from metarl.supervised.tasks import Episodes

SINE = {
    "data": {"name": "sinusoid"},
    "method": {"name": "meta_lstm", "hidden_size": 3},
    "network": {"kind": "mlp", "hidden_sizes": [4]},
    "inner": {"steps": 3, "shots": 5},
    "outer": {"learning_rate": 1e-2, "clip": 0.25, "meta_batch": 2, "iterations": 4},
}


def method_of(**inner):
    return load_method(validate_config({**SINE, "inner": {**SINE["inner"], **inner}}))


def waves(num_tasks: int = 2) -> Episodes:
    episodes = Sinusoid().tasks("train").sample(np.random.default_rng(0), num_tasks, 5, 6)
    support, query = (
        tuple(leaf.double() for leaf in examples) for examples in (episodes.support, episodes.query)
    )
    return Episodes(episodes.tasks, support, query)


def meta_of(method):
    """Meta-parameters in double precision, the rule's weights large enough to matter."""
    meta = method.init(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    return {
        name: leaf.double()
        + (0.5 * torch.randn(leaf.shape, generator=generator) if name.startswith(PREFIX) else 0.0)
        for name, leaf in meta.items()
    }


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def preprocess(x: float) -> list[float]:
    if abs(x) >= math.exp(-10):
        return [math.log(abs(x)) / 10, math.copysign(1.0, x)]
    return [-1.0, math.exp(10) * x]


class OneParameter:
    """The learned optimiser for a single parameter, in plain Python."""

    def __init__(self, rule, theta: float) -> None:
        self.rule = {name: leaf.tolist() for name, leaf in rule.items()}
        self.theta, self.forget, self.step = theta, 0.0, 0.0
        self.size = rule["lstm_hidden"].shape[1]
        self.hidden, self.memory = [0.0] * self.size, [0.0] * self.size

    def move(self, gradient: float, loss: float) -> float:
        rule, size = self.rule, self.size
        inputs = [*preprocess(gradient), *preprocess(loss)]
        gates = [
            sum(w * x for w, x in zip(rule["lstm_inputs"][row], inputs, strict=True))
            + sum(w * x for w, x in zip(rule["lstm_hidden"][row], self.hidden, strict=True))
            + rule["lstm_bias"][row]
            for row in range(4 * size)
        ]
        input_gate, forget_gate, candidate, output_gate = (
            gates[part * size : (part + 1) * size] for part in range(4)
        )
        self.memory = [
            sigmoid(f) * c + sigmoid(i) * math.tanh(g)
            for f, c, i, g in zip(forget_gate, self.memory, input_gate, candidate, strict=True)
        ]
        self.hidden = [
            sigmoid(o) * math.tanh(c) for o, c in zip(output_gate, self.memory, strict=True)
        ]

        def gate(name: str, previous: float) -> float:
            gate_inputs = [*self.hidden, self.theta, previous]
            total = sum(w * x for w, x in zip(rule[name], gate_inputs, strict=True))
            return sigmoid(total + rule[f"{name}_bias"][0])

        self.forget, self.step = gate("forget", self.forget), gate("input", self.step)
        self.theta = self.forget * self.theta - self.step * gradient
        return self.theta


def test_the_learned_rule_applies_to_each_parameter_separately() -> None:
    method, episodes = method_of(), waves()
    meta = meta_of(method)
    theta, rule = split_prefix(meta, PREFIX)
    stages = list(method.stages(meta, episodes.support, (0.1,) * 3))
    network = method.problem.network
    for task in range(2):
        x, y = (leaf[task] for leaf in episodes.support)
        single = {name: leaf.clone() for name, leaf in theta.items()}
        optimisers = [OneParameter(rule, float(value)) for value in flatten(single)]
        for stage in stages[1:]:
            leaves = {name: leaf.requires_grad_() for name, leaf in single.items()}
            loss = (network({n: v[None] for n, v in leaves.items()}, x[None])[0] - y).square()
            gradients = torch.autograd.grad(loss.mean(), list(leaves.values()))
            gradient = torch.cat([leaf.flatten() for leaf in gradients]).tolist()
            updated = [
                optimiser.move(slope, float(loss.mean().detach()))
                for optimiser, slope in zip(optimisers, gradient, strict=True)
            ]
            vector = torch.tensor(updated, dtype=torch.float64)
            torch.testing.assert_close(flatten({n: v[task] for n, v in stage.items()}), vector)
            single = unflatten(vector, theta)


def test_the_meta_gradient_equals_finite_differences_with_fixed_inner_gradients(
    monkeypatch,
) -> None:
    method, episodes = method_of(), waves()
    meta = meta_of(method)
    recorded, support_gradient = [], method.support_gradient

    def recording(theta, support):
        recorded.append(support_gradient(theta, support))
        return recorded[-1]

    monkeypatch.setattr(method, "support_gradient", recording)
    gradient, value = EpisodeObjective(method, episodes, 0).gradient(meta)
    assert len(recorded) == 3
    direction = torch.randn(
        gradient.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )

    def objective(size: float) -> float:
        replayed = iter(recorded)
        monkeypatch.setattr(method, "support_gradient", lambda *_: next(replayed))
        shifted = unflatten(flatten(meta) + size * direction, meta)
        return -float(method.loss(shifted, episodes, 0)[0]) / 2

    assert objective(0.0) == pytest.approx(value)
    expected = (objective(1e-7) - objective(-1e-7)) / 2e-7
    assert float(gradient @ direction) == pytest.approx(expected, rel=1e-5)


def test_numbers_are_preprocessed_into_magnitude_and_sign() -> None:
    values = [0.0, 1e-9, -1e-9, math.exp(-10) * 1.01, -2.5, 1e8]
    features = preprocessed(torch.tensor(values, dtype=torch.float64))
    torch.testing.assert_close(
        features, torch.tensor([preprocess(x) for x in values], dtype=torch.float64)
    )


def test_the_initial_rule_is_gradient_descent_with_a_small_step() -> None:
    rule = init_rule(torch.Generator().manual_seed(0), 20)
    cell, gradient = torch.ones(2, 5), torch.full((2, 5), 3.0)
    after, (_, _, forget, step) = rule_step(
        rule, cell, gradient, torch.tensor([1.0, 2.0]), init_state(rule, cell)
    )
    assert ((forget > 0.98) & (forget < 0.998)).all()
    assert ((step > 0.006) & (step < 0.02)).all()
    torch.testing.assert_close(after.flatten(), forget - 3.0 * step)


def test_rows_of_stacked_parameters_are_the_parameters() -> None:
    params = {"a": torch.randn(3, 2, 4), "b": torch.randn(3, 5)}
    rows = stacked_rows(params)
    assert rows.shape == (3, 13)
    for name, leaf in from_rows(rows, params).items():
        assert torch.equal(leaf, params[name])


def test_the_adaptation_of_a_task_does_not_depend_on_other_tasks() -> None:
    method, episodes = method_of(), waves(3)
    meta = meta_of(method)
    *_, together = method.stages(meta, episodes.support, (0.1,) * 3)
    *_, single = method.stages(meta, tuple(leaf[1:2] for leaf in episodes.support), (0.1,) * 3)
    for name, leaf in single.items():
        torch.testing.assert_close(leaf[0], together[name][1])


@pytest.mark.parametrize(
    "setting",
    [
        {"adapt": "head"},
        {"learned_step_sizes": "lslr"},
        {"multi_step_iterations": 4},
        {"first_order": True},
        {"optimizer": "adam"},
        {"clip": 1.0},
    ],
)
def test_settings_that_the_learned_rule_replaces_are_refused(setting) -> None:
    (name,) = setting
    with pytest.raises(UserError, match=f"inner.{name}: .* is not supported by method meta_lstm"):
        method_of(**setting)


@pytest.mark.slow
def test_it_learns_sinusoids() -> None:
    values = {
        **SINE,
        "network": {"kind": "mlp", "hidden_sizes": [20, 20]},
        "inner": {"steps": 5, "shots": 10},
        "outer": {"learning_rate": 3e-3, "meta_batch": 10, "iterations": 300},
    }
    method = load_method(validate_config(values))
    state = method.initial_state()
    untrained = method.curve("test", 50, state.params, (1.0,) * 5).scores.mean(0)
    while state.iteration < method.num_iterations:
        state, _ = method.step(state)
    trained = method.curve("test", 50, state.params, (1.0,) * 5).scores.mean(0)
    assert trained[5] < 0.8 * untrained[5]
    assert trained[5] < 0.8 * trained[0]
