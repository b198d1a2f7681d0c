"""CAVIA: only the context adapts, from zeros; its gradient and curvature are exact."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import vmap

import metarl
from metarl.context import CONTEXT
from metarl.envs import PointNavigation
from metarl.errors import UserError
from metarl.experiment import load_config, validate_config
from metarl.method import load_method
from metarl.networks.context import WithContext
from metarl.networks.module import FunctionalModule
from metarl.params import flatten, unflatten
from metarl.rl.analytic_mlp import supports
from metarl.rl.config import InnerConfig
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.policies import CategoricalPolicy, GaussianPolicy
from metarl.rl.trajectories import Rollouts, Samples
from metarl.supervised.method import EpisodeObjective
from metarl.supervised.sinusoid import Sinusoid
from metarl.supervised.tasks import Episodes

SINE = {
    "data": {"name": "sinusoid"},
    "method": {"name": "cavia", "context": 3},
    "network": {"kind": "mlp", "hidden_sizes": [7, 7]},
    "inner": {"step_size": 0.5},
}


def cavia(**inner):
    return load_method(validate_config({**SINE, "inner": {"step_size": 0.5, **inner}}))


def double(episodes: Episodes) -> Episodes:
    support, query = (
        tuple(leaf.double() for leaf in examples) for examples in (episodes.support, episodes.query)
    )
    return Episodes(episodes.tasks, support, query)


def waves() -> Episodes:
    return double(Sinusoid().tasks("train").sample(np.random.default_rng(0), 3, 4, 5))


def meta_of(method):
    meta = method.init(torch.Generator().manual_seed(0))
    return {name: leaf.double() for name, leaf in meta.items()}


def by_hand(theta, inputs, context):
    """The network of SINE for one task, with the context as a bias of the first layer."""
    weight = theta["weight0"]
    first = inputs * weight[0] + theta["bias0"] + context @ weight[1:]
    second = first.relu() @ theta["weight1"] + theta["bias1"]
    return second.relu() @ theta["weight2"] + theta["bias2"]


@pytest.mark.parametrize("steps", [1, 2])
def test_the_loss_equals_that_of_adapting_the_first_bias(steps) -> None:
    method, episodes = cavia(steps=steps), waves()
    meta = meta_of(method)
    loss, _ = method.loss(meta, episodes, 0)
    expected = 0.0
    for task in range(3):
        (x, y), (queries, targets) = (
            (leaf[task] for leaf in examples) for examples in (episodes.support, episodes.query)
        )
        context = torch.zeros(3, dtype=torch.float64)
        for _ in range(steps):
            context.requires_grad_()
            (slope,) = torch.autograd.grad((by_hand(meta, x, context) - y).square().mean(), context)
            context = (context - 0.5 * slope).detach()
        expected += float((by_hand(meta, queries, context) - targets).square().mean())
    assert float(loss) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("inner", [{}, {"steps": 2}, {"learned_step_sizes": "meta_sgd"}])
def test_the_meta_gradient_equals_finite_differences_and_is_zero_for_the_context(inner) -> None:
    method, episodes = cavia(**inner), waves()
    meta = meta_of(method)
    gradient, _ = EpisodeObjective(method, episodes, 0).gradient(meta)
    assert not unflatten(gradient, meta)[CONTEXT].any()
    direction = torch.randn(
        gradient.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )

    def objective(size: float) -> float:
        shifted = unflatten(flatten(meta) + size * direction, meta)
        return -float(method.loss(shifted, episodes, 0)[0]) / 3

    expected = (objective(1e-7) - objective(-1e-7)) / 2e-7
    assert float(gradient @ direction) == pytest.approx(expected, rel=1e-5)


def test_training_does_not_change_the_initial_context() -> None:
    values = {**SINE, "outer": {"iterations": 5, "meta_batch": 4}}
    method = load_method(validate_config(values))
    state = method.initial_state()
    first = state.params
    while state.iteration < 5:
        state, _ = method.step(state)
    assert torch.equal(state.params[CONTEXT], torch.zeros(3))
    assert not torch.equal(state.params["weight0"], first["weight0"])


POLICIES = {
    "gaussian": GaussianPolicy(2, 2, (5,), "tanh", init_std=0.5, context=3),
    "categorical": CategoricalPolicy(2, 3, (5,), "tanh", context=3),
    "a module": GaussianPolicy(
        2,
        2,
        network=FunctionalModule(
            "it", lambda: nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2)), (6,), 2
        ),
        context=4,
    ),
}


def samples_of(policy, params, seed: int) -> Samples:
    """Samples of 3 tasks (3, 16), drawn with stacked parameters and arbitrary advantages."""
    rng = np.random.default_rng(seed)
    observations = torch.from_numpy(rng.normal(size=(3, 16, 2)))
    distribution = policy.distribution(params, observations)
    actions = policy.act(distribution, torch.from_numpy(policy.noise(rng, (3, 16))).double())
    weights = torch.full((3, 16), 1 / 16, dtype=torch.float64)
    advantages = torch.from_numpy(rng.normal(size=(3, 16)))
    log_probs = policy.log_prob(distribution, actions)
    return Samples(observations, actions, advantages, weights, log_probs, distribution)


def objective_of(policy, **settings):
    inner = InnerLoop(policy, InnerConfig(step_size=0.7, **settings), chunk_samples=32)
    theta = {
        name: leaf.double() for name, leaf in inner.init(torch.Generator().manual_seed(0)).items()
    }
    pre = samples_of(policy, {name: leaf.expand(3, *leaf.shape) for name, leaf in theta.items()}, 0)
    adapted = vmap(inner.adapt, in_dims=(None, 0))(theta, [pre] * inner.settings.steps)
    post = samples_of(policy, adapted, 1)
    rollouts = Rollouts([], [*[pre] * inner.settings.steps, post], [])
    return theta, MetaObjective(inner, rollouts), adapted


@pytest.mark.parametrize("policy", POLICIES)
def test_only_the_context_of_a_policy_adapts(policy) -> None:
    theta, _, adapted = objective_of(POLICIES[policy])
    adapted_names = {name for name, leaf in adapted.items() if (leaf != theta[name]).any()}
    assert adapted_names == {CONTEXT}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("settings", [{}, {"steps": 2}, {"estimator": "log_likelihood"}])
def test_gradient_and_curvature_of_a_policy_are_exact(policy, settings) -> None:
    theta, objective, _ = objective_of(POLICIES[policy], **settings)
    assert not supports(POLICIES[policy])  # it would leave the context out
    gradient, _ = objective.gradient(theta)
    vector, generator = flatten(theta), torch.Generator().manual_seed(2)
    direction = torch.randn(vector.shape, generator=generator, dtype=torch.float64)
    values = {
        size: objective.value_and_kl(unflatten(vector + size * direction, theta))
        for size in (1e-4, -1e-4, 1e-5, -1e-5)
    }
    slope = (values[1e-5][0] - values[-1e-5][0]) / 2e-5
    assert float(gradient @ direction) == pytest.approx(slope, rel=1e-5)
    product = objective.curvature(theta, 1.0)(direction)
    bend = (values[1e-4][1] + values[-1e-4][1]) / 1e-8
    assert float(direction @ product) == pytest.approx(bend, rel=1e-3)
    for leaf in (gradient, product):
        assert not unflatten(leaf, theta)[CONTEXT].any()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {**SINE, "inner": {"adapt": "head"}},
            "inner.adapt: head is not supported by method cavia",
        ),
        ({**SINE, "method": {"name": "cavia", "context": 0}}, "method.context: must be greater"),
        (
            {"family": {"name": "point-navigation"}, "method": "cavia", "inner": {"adapt": "head"}},
            "inner.adapt: head is not supported by method cavia",
        ),
        (
            {**SINE, "data": {"name": "omniglot", "ways": 5}, "network": {"kind": "conv4"}},
            "method: cavia does not support classification",
        ),
    ],
)
def test_unsupported_settings_of_cavia_are_reported(values, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        load_method(validate_config(values))


@pytest.mark.slow
def test_a_loaded_policy_continues_from_its_context(tmp_path) -> None:
    values = {
        "family": {"name": "point-navigation", "settings": {"horizon": 10}},
        "method": {"name": "cavia", "context": 3},
        "policy": {"hidden_sizes": [8]},
        "inner": {"step_size": 1.0, "episodes_per_task": 4},
        "outer": {"iterations": 2, "meta_batch": 2},
        "evaluation": {"tasks": 2, "episodes_per_task": 4},
    }
    run = metarl.train(values, tmp_path / "run")
    policy = metarl.load(run)
    assert not policy.params[CONTEXT].any()
    env = PointNavigation(horizon=10).make()
    once = policy.adapt(env, task=[0.3, 0.3])
    assert once.params[CONTEXT].abs().max() > 1e-3
    adapted_again = once.adapt(env, task=[0.3, 0.3], step_size=1e-6)
    torch.testing.assert_close(
        adapted_again.params[CONTEXT], once.params[CONTEXT], atol=1e-4, rtol=0.0
    )
    shared = [name for name in policy.params if name != CONTEXT]
    assert all(torch.equal(adapted_again.params[name], policy.params[name]) for name in shared)


def test_context_parameters_need_inputs_that_are_vectors() -> None:
    network = WithContext(load_config("sinusoid").network, 2)
    with pytest.raises(UserError, match=r"have the shape \(1, 4, 4\); flatten them"):
        network.init(torch.Generator(), (1, 4, 4), 3)
