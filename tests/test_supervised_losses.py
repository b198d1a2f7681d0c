"""Losses that a config chooses, and the precision of networks."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from metarl.cli import main
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import load_method
from metarl.supervised.losses import (
    REGRESSION,
    cross_entropy,
    huber,
    mean_per_task,
    squared_error,
    squared_errors,
)

SMALL = ("outer.meta_batch=3", "network.hidden_sizes=[8]", "outer.iterations=2")


def sine(*settings: str):
    return load_method(load_config("sinusoid", [*SMALL, *settings]))


@pytest.fixture
def users_losses(tmp_path, monkeypatch):
    (tmp_path / "our_losses.py").write_text(
        "import torch\n"
        "def absolute(outputs, targets): return (outputs - targets).abs()\n"
        "def mean(outputs, targets): return (outputs - targets).abs().mean()\n"
        "def broken(outputs, targets): return outputs @ targets\n"
        "def constant(outputs, targets): return torch.zeros(outputs.shape[:2])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "our_losses", raising=False)


def test_the_huber_loss_is_that_of_torch_per_task() -> None:
    outputs, targets = torch.randn(2, 3, 4, 1) * 3.0
    tasks = zip(outputs, targets, strict=True)
    expected = sum(F.huber_loss(o, t) for o, t in tasks)
    torch.testing.assert_close(huber(outputs, targets), expected)


def test_losses_are_means_over_examples_and_outputs_like_those_of_a_function() -> None:
    outputs, targets = torch.randn(2, 3, 4, 5) * 3.0
    for built_in, elementwise in ((squared_error, F.mse_loss), (huber, F.huber_loss)):
        expected = mean_per_task(partial(elementwise, reduction="none"), "it", outputs, targets)
        torch.testing.assert_close(built_in(outputs, targets), expected)
    torch.testing.assert_close(
        squared_error(outputs, targets), squared_errors(outputs, targets).sum()
    )


def test_a_loss_is_that_of_inner_and_outer_steps(users_losses) -> None:
    for name, function in (
        ("huber", huber),
        ("our_losses:absolute", lambda o, t: (o - t).abs().mean((1, 2)).sum()),
    ):
        method = sine(f"method.loss={name}")
        params = method.initial_state().params
        episodes = method.sample_batch(0)
        stacked = {n: leaf.expand(3, *leaf.shape).requires_grad_() for n, leaf in params.items()}
        network = method.problem.network

        def support_loss(theta, function=function, network=network, episodes=episodes):
            return function(network(theta, episodes.support[0]), episodes.support[1])

        grads = torch.autograd.grad(support_loss(stacked), list(stacked.values()))
        adapted = {n: p - 1e-3 * g for (n, p), g in zip(stacked.items(), grads, strict=True)}
        expected = function(network(adapted, episodes.query[0]), episodes.query[1])
        torch.testing.assert_close(method.loss(params, episodes, 0)[0], expected)
    assert sine().problem.loss is REGRESSION.loss
    assert sorted(sine("method.loss=huber").train_metrics(1.0, 2.0)) == [
        "error/after_1_steps",
        "loss",
    ]


def test_smoothed_labels_are_those_of_torch() -> None:
    config = load_config("omniglot_5way_1shot", ["method.label_smoothing=0.2"])
    loss = type(load_method(config).problem)(config).loss
    logits, labels = torch.randn(2, 6, 5), torch.randint(5, (2, 6))
    expected = sum(
        F.cross_entropy(o, t, label_smoothing=0.2) for o, t in zip(logits, labels, strict=True)
    )
    torch.testing.assert_close(loss(logits, labels), expected)
    assert loss(logits, labels) != cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        ("sinusoid", "loss=cross_entropy", "must be mse or huber for regression"),
        ("sinusoid", "label_smoothing=0.1", "label_smoothing: belongs to cross_entropy"),
        ("sinusoid", "loss=our_losses:absolut", r"no function 'absolut' \(did you mean 'absolute'"),
        ("omniglot_5way_1shot", "loss=huber", "must be cross_entropy for classification"),
        ("omniglot_5way_1shot_siamese", "loss=cross_entropy", "no such setting|is a setting of"),
        ("point_navigation", "loss=huber", "there is no such setting"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(users_losses, config, settings, message) -> None:
    with pytest.raises(UserError, match=message):
        load_config(config, [f"method.{settings}"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mean", r"must return the loss of every example, \(2, 3\), for outputs"),
        ("broken", "raised RuntimeError for outputs"),
        ("constant", "raised RuntimeError"),
    ],
)
def test_a_function_that_is_no_loss_is_refused_before_the_training(
    users_losses, name, message
) -> None:
    with pytest.raises(UserError, match=message):
        sine(f"method.loss=our_losses:{name}").problem.check()


def test_bf16_is_close_to_float32_and_parameters_stay_float32() -> None:
    exact, rounded = sine("inner.steps=2"), sine("inner.steps=2", "precision=bf16")
    state = exact.initial_state()
    stepped = [method.step(state)[0] for method in (exact, rounded)]
    for method in (exact, rounded):
        assert all(leaf.dtype == torch.float32 for leaf in method.step(state)[0].params.values())
    moments = [step.opt_state["exp_avg"] for step in stepped]
    assert not torch.equal(*moments)
    assert torch.cosine_similarity(*moments, dim=0) > 0.99
    scores = [method.evaluate(state.params).scores for method in (exact, rounded)]
    np.testing.assert_allclose(*scores, rtol=0.1)


def test_bf16_of_policies_is_refused_with_the_reason(capsys) -> None:
    assert main(["train", "point_navigation", "--set=precision=bf16"]) == 2
    assert "likelihood ratios" in " ".join(capsys.readouterr().err.split())
