"""Outer steps along the gradient: schedules, regularisation, and the optimisers of torch."""

import pytest
import torch

from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.optim import SGD, Adam, GradientSection
from metarl.optim.torch_optimizer import TorchOptimizer
from metarl.params import flatten

THETA = {"a": torch.tensor([[1.0, -2.0]]), "step_size.a": torch.tensor([0.3])}


class Slope:
    """An objective whose gradient does not depend on the parameters."""

    def __init__(self, *gradient: float) -> None:
        self.vector = torch.tensor(gradient)

    def minibatches(self):
        return [self]

    def gradient(self, theta):
        return self.vector, 0.0


def sgd_change(gradient: tuple[float, ...], iteration: int = 0, **settings) -> torch.Tensor:
    theta, _, _ = SGD(**settings).step(THETA, Slope(*gradient), {}, iteration)
    return flatten(theta) - flatten(THETA)


def test_weight_decay_is_decoupled_and_leaves_learned_step_sizes() -> None:
    settings = {"learning_rate": 0.5, "weight_decay": 0.1}
    torch.testing.assert_close(
        sgd_change((0.0, 0.0, 0.0), **settings), torch.tensor([-0.05, 0.1, 0.0])
    )
    leaf = THETA["a"].clone().requires_grad_()
    optimizer = torch.optim.AdamW([leaf], lr=0.1, weight_decay=0.2)
    theta, state = {"a": THETA["a"]}, {}
    for _ in range(3):
        leaf.grad = torch.tensor([[-1.0, 3.0]])
        optimizer.step()
        outer = Adam(learning_rate=0.1, weight_decay=0.2)
        theta, state, _ = outer.step(theta, Slope(1.0, -3.0), state, 0)
    torch.testing.assert_close(theta["a"], leaf.detach())


def test_gradients_are_clipped_by_their_joint_norm() -> None:
    long, short = (3.0, 0.0, 4.0), (0.3, 0.0, 0.4)
    torch.testing.assert_close(sgd_change(long, max_grad_norm=2.0), torch.tensor([1.2, 0.0, 1.6]))
    assert torch.equal(sgd_change(short, max_grad_norm=2.0), sgd_change(short))
    # elements first, then the norm
    torch.testing.assert_close(
        sgd_change(long, max_grad_norm=1.0, clip=3.0), torch.tensor([0.5, 0.0, 0.5]) * 2**0.5
    )


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({}, [1.0, 1.0, 1.0, 1.0]),
        ({"schedule": "linear"}, [1.0, 0.75, 0.5, 0.25]),
        ({"schedule": "cosine"}, [1.0, 0.8535534, 0.5, 0.1464466]),
        ({"anneal": True}, [1.0, 0.8535534, 0.5, 0.1464466]),
        ({"schedule": "exponential"}, [1.0, 0.3162278, 0.1, 0.0316228]),
        ({"warmup": 2}, [0.5, 1.0, 1.0, 1.0]),
        ({"warmup": 2, "schedule": "linear"}, [0.5, 1.0, 1.0, 0.5]),
        ({"warmup": 40, "schedule": "cosine"}, [0.025, 0.05, 0.075, 0.1]),
    ],
)
def test_a_schedule_gives_the_step_size_of_each_iteration(settings, rates) -> None:
    outer = SGD(iterations=4, **settings)
    assert [outer.annealed(1.0, iteration) for iteration in range(4)] == pytest.approx(rates)
    changes = [sgd_change((1.0, 0.0, 0.0), k, iterations=4, **settings)[0] for k in range(4)]
    assert torch.stack(changes).tolist() == pytest.approx(rates, rel=1e-5)


@pytest.mark.parametrize("name", ["RMSprop", "NAdam", "Adagrad", "ASGD", "SGD"])
def test_an_optimiser_of_torch_resumes_from_its_state(name: str) -> None:
    settings = {"momentum": 0.5} if name == "SGD" else {}
    leaf = flatten({"a": THETA["a"]}).requires_grad_()
    optimizer = getattr(torch.optim, name)([leaf], lr=0.1, **settings)
    outer = TorchOptimizer(optimizer=name, settings=settings, learning_rate=0.1)
    theta, state = {"a": THETA["a"]}, {}
    for step in range(4):
        gradient = torch.tensor([1.0, -2.0]) * (step + 1)
        leaf.grad = -gradient
        optimizer.step()
        theta, state, _ = outer.step(theta, Slope(*gradient.tolist()), state, step)
        state = {key: value.clone() for key, value in state.items()}  # as from a checkpoint
    assert torch.equal(flatten(theta), leaf.detach())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["outer.anneal=true", "outer.schedule=linear"], "outer.anneal: is the schedule `cosine`"),
        (["outer.algorithm=torch", "outer.optimizer=LBFGS"], "LBFGS cannot be used"),
        (["outer.algorithm=torch", "outer.optimizer=Sgd"], "torch.optim has no class 'Sgd'"),
        (["outer.algorithm=torch", "outer.settings={lr: 1}"], "set outer.learning_rate"),
        (["outer.algorithm=torch", "outer.settings={beta: 1}"], "RMSprop cannot be used"),
        (
            ["outer.algorithm=torch", "outer.optimizer=Rprop", "outer.schedule=linear"],
            "outer.schedule: has no effect on Rprop",
        ),
        (["outer.cg_iterations=3"], "outer.cg_iterations: there is no such setting"),
        (["outer.schedule=step"], "outer.schedule: must be 'constant', 'linear', 'cosine' or"),
    ],
)
def test_settings_that_an_outer_step_cannot_have_are_refused(settings, message) -> None:
    with pytest.raises(UserError, match=message):
        load_config("sinusoid", settings)


@pytest.mark.parametrize(
    "result",
    [torch.zeros(3), (torch.zeros(3), {}), ({"a": torch.zeros(3)}, {}), (THETA, {"n": 3}), THETA],
)
def test_a_custom_step_that_returns_something_else_is_an_error(result) -> None:
    class Wrong(GradientSection):
        def ascend(self, theta, gradient, state, rate):
            return result

    with pytest.raises(
        UserError, match=r"Wrong\.ascend must return the parameters, with the names"
    ):
        Wrong(algorithm="wrong").step(THETA, Slope(1.0, 1.0, 1.0), {}, 0)


def test_a_custom_step_that_is_no_section_is_told_what_to_derive_from() -> None:
    with pytest.raises(
        UserError, match=r"must derive from .*, as metarl\.optim\.GradientSection does"
    ):
        load_config("point_navigation", ["outer.algorithm=fractions:Fraction"])


def test_a_setting_of_another_outer_step_is_refused_with_its_name() -> None:
    with pytest.raises(
        UserError, match=r"outer\.weight_decay: is a setting of outer\.algorithm=adam or sgd"
    ):
        load_config("point_navigation", ["outer.weight_decay=0.1"])
    with pytest.raises(
        UserError, match=r"method\.hidden_size: is a setting of method\.name=rl2 or hyper"
    ):
        load_config("point_navigation", ["method.hidden_size=3"])


def test_weights_decay_only_as_set() -> None:
    theta, gradient = {"w": torch.tensor([10.0])}, torch.zeros(1)
    adamw = TorchOptimizer(optimizer="AdamW")
    assert adamw.ascend(theta, gradient, {}, 0.1)[0]["w"].item() == 10.0  # its default is 0.01
