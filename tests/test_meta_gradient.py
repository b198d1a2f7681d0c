"""Meta-gradient and curvature against finite differences, enumeration, explicit Hessians."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.func import hessian, vmap
from torch.utils import _pytree as pytree

from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import load_method
from metarl.networks.module import FunctionalModule
from metarl.optim import Adam, TrustRegion
from metarl.parallel import move
from metarl.params import flatten, repeat, unflatten
from metarl.rl import analytic_mlp
from metarl.rl.adaptation import adapt_all
from metarl.rl.analytic_mlp import AnalyticMLP, TaskData
from metarl.rl.config import InnerConfig
from metarl.rl.gauss_newton import vjp
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.losses import check_estimator, clipped_surrogate, mean_kl, surrogate
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.policies import CategoricalPolicy, GaussianPolicy, MultiCategoricalPolicy
from metarl.rl.promp import ProMPSettings, ProximalObjective
from metarl.rl.trajectories import Rollouts, Samples, index_tasks, subsample
from metarl.step_sizes import PREFIX, split

POLICIES = {
    # tanh: finite differences want a smooth network
    "gaussian": GaussianPolicy(2, 2, (5,), "tanh", init_std=0.5),
    "categorical": CategoricalPolicy(2, 3, (5,), "tanh"),
    "a module": GaussianPolicy(
        2,
        2,
        network=FunctionalModule(
            "it", lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)), (2,), 2
        ),
    ),
}


@pytest.fixture(params=POLICIES)
def policy(request):
    return POLICIES[request.param]


def double(values):
    return {name: value.double() for name, value in values.items()}


def sampled(policy, params, num_tasks, seed, samples=16):
    """Samples (N, M, ·) drawn at parameters stacked over tasks, with arbitrary advantages."""
    rng = np.random.default_rng(seed)
    observations = torch.from_numpy(rng.normal(size=(num_tasks, samples, 2)))
    distribution = policy.distribution(params, observations)
    noise = torch.from_numpy(policy.noise(rng, (num_tasks, samples))).double()
    actions = policy.act(distribution, noise)
    weights = torch.from_numpy(rng.uniform(0.5, 1.5, (num_tasks, samples)))
    return Samples(
        observations,
        actions,
        torch.from_numpy(rng.normal(size=(num_tasks, samples))),
        weights / weights.sum(1, keepdim=True),
        policy.log_prob(distribution, actions),
        distribution,
    )


def inner_loop(policy, step_size=0.3, **settings):
    """An inner loop with chunks of two tasks."""
    return InnerLoop(policy, InnerConfig(step_size=step_size, **settings), chunk_samples=32)


def but(inner, **settings):
    """The inner loop with changed settings."""
    return replace(inner, settings=inner.settings.model_copy(update=settings))


def problem(policy, num_tasks=3, **settings):
    """θ, and the objective of rollouts as if sampled at θ and along its adaptation."""
    inner = inner_loop(policy, **settings)
    theta = double(inner.init(torch.Generator().manual_seed(0)))
    params = {
        name: value.expand(num_tasks, *value.shape) for name, value in split(theta)[0].items()
    }
    pre = []
    for step in range(inner.settings.steps):
        pre.append(sampled(policy, params, num_tasks, seed=step))
        params = vmap(but(inner, steps=step + 1).adapt, in_dims=(None, 0))(theta, pre)
    post = sampled(policy, params, num_tasks, seed=99)
    return theta, MetaObjective(inner, rollouts_of(pre, post))


def rollouts_of(pre, post):
    """Rollouts with samples only, which are sufficient for the objective."""
    return SamplesOnly([], [*pre, post], [])


class SamplesOnly(Rollouts):
    """Two trajectories for each task."""

    @property
    def horizon(self):
        return self.post.weights.shape[1] // 2


def finite_differences(function, theta, directions, epsilon=1e-5):
    """Slopes (D,) along directions (D, P)."""
    vector = flatten(theta)
    return torch.tensor(
        [
            (
                function(unflatten(vector + nudge, theta))
                - function(unflatten(vector - nudge, theta))
            )
            / (2 * epsilon)
            for nudge in epsilon * directions
        ],
        dtype=vector.dtype,
    )


def check_slopes(gradient, function, theta, rtol, atol):
    """The gradient is that of finite differences: along random directions no error hides."""
    random = torch.Generator().manual_seed(6)
    directions = torch.randn(6, len(gradient), dtype=gradient.dtype, generator=random)
    # of length one: what finite differences leave out grows with the cube of it
    directions /= directions.norm(dim=1, keepdim=True)
    expected = finite_differences(function, theta, directions)
    torch.testing.assert_close(directions @ gradient, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("estimator", ["likelihood_ratio", "log_likelihood"])
@pytest.mark.parametrize("steps", [1, 2])
def test_meta_gradient_equals_finite_differences(policy, estimator, steps) -> None:
    theta, objective = problem(policy, steps=steps, estimator=estimator)
    gradient, value = objective.gradient(theta)
    assert value == pytest.approx(objective.value_and_kl(theta)[0])
    check_slopes(gradient, lambda t: objective.value_and_kl(t)[0], theta, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "settings",
    [
        {"learned_step_sizes": "meta_sgd"},
        {"learned_step_sizes": "lslr", "steps": 2},
        {"adapt": "head"},
        {"adapt": "head", "learned_step_sizes": "lslr"},
        {"optimizer": "momentum", "steps": 3, "learned_step_sizes": "lslr"},
        {"optimizer": "adam", "steps": 2, "adapt": "head", "step_size": 0.05},
        {"clip": 0.05, "steps": 2},
    ],
    ids=["Meta-SGD", "LSLR", "ANIL", "ANIL, LSLR", "momentum, LSLR", "Adam", "clipped"],
)
def test_all_variants_of_the_inner_loop_have_exact_gradients_and_curvature(
    policy, settings
) -> None:
    theta, objective = problem(policy, **settings)
    assert any(name.startswith(PREFIX) for name in theta) == ("learned_step_sizes" in settings)
    gradient, _ = objective.gradient(theta)
    check_slopes(gradient, lambda t: objective.value_and_kl(t)[0], theta, rtol=1e-6, atol=1e-8)
    vector = torch.randn(len(gradient), dtype=torch.float64)
    # along a line through θ the divergence is half its curvature's quadratic form, to second order
    step = 1e-4
    _, ahead = objective.value_and_kl(unflatten(flatten(theta) + step * vector, theta))
    _, behind = objective.value_and_kl(unflatten(flatten(theta) - step * vector, theta))
    quadratic = float(vector @ objective.curvature(theta)(vector))
    assert quadratic == pytest.approx((ahead + behind) / step**2, rel=1e-3)


def test_only_the_head_adapts_with_adapt_head(policy) -> None:
    theta, objective = problem(policy, adapt="head")
    adapted = objective.inner.adapt(theta, [_task(step, 0) for step in objective.rollouts.pre])
    adapted_names = {name for name, leaf in adapted.items() if not torch.equal(leaf, theta[name])}
    assert adapted_names == set(policy.head)


def test_first_order_is_the_gradient_at_the_adapted_parameters(policy) -> None:
    theta, objective = problem(policy, steps=2)
    first_order = replace(objective, inner=but(objective.inner, first_order=True))
    gradient, _ = first_order.gradient(theta)
    expected = torch.zeros_like(gradient)
    for task in range(3):
        pre = [_task(step, task) for step in objective.rollouts.pre]
        adapted = objective.inner.adapt(theta, pre)
        post = _task(objective.rollouts.post, task)
        expected += flatten(torch.func.grad(lambda p, s=post: surrogate(policy, p, s))(adapted)) / 3
    torch.testing.assert_close(gradient, expected)
    exact, _ = objective.gradient(theta)
    assert (exact - gradient).norm() > 1e-3 * exact.norm()


def _task(samples, task):
    return Samples(
        *(leaf[task] for leaf in samples[:5]), {k: v[task] for k, v in samples.distribution.items()}
    )


@pytest.mark.parametrize("settings", [{}, {"first_order": True}, {"steps": 2}])
def test_curvature_product_equals_the_explicit_hessian_of_the_divergence(policy, settings) -> None:
    theta, objective = problem(policy, **settings)

    def divergence(vector):
        total = 0.0
        for task in range(3):
            pre = [_task(step, task) for step in objective.rollouts.pre]
            adapted = objective.inner.adapt(unflatten(vector, theta), pre)
            total = total + mean_kl(policy, adapted, _task(objective.rollouts.post, task))
        return total / 3

    explicit = hessian(divergence)(flatten(theta))
    product = objective.curvature(theta)
    vectors = torch.randn(3, len(explicit), dtype=torch.float64)
    for vector in vectors:
        torch.testing.assert_close(product(vector), explicit @ vector, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("chunk_samples", [1, 16, 48])
def test_the_size_of_chunks_has_no_effect(policy, chunk_samples) -> None:
    theta, objective = problem(policy)
    other = replace(objective, inner=replace(objective.inner, chunk_samples=chunk_samples))
    torch.testing.assert_close(objective.gradient(theta)[0], other.gradient(theta)[0])
    vector = torch.randn(len(flatten(theta)), dtype=torch.float64)
    torch.testing.assert_close(objective.curvature(theta)(vector), other.curvature(theta)(vector))


def test_the_order_of_tasks_does_not_matter(policy) -> None:
    theta, objective = problem(policy)
    order = torch.tensor([2, 0, 1])
    pre, post = objective.rollouts.pre, objective.rollouts.post
    shuffled = rollouts_of([_task(step, order) for step in pre], _task(post, order))
    torch.testing.assert_close(
        objective.gradient(theta)[0], replace(objective, rollouts=shuffled).gradient(theta)[0]
    )


def test_padding_has_no_effect_where_its_density_overflows() -> None:
    # eight actions at the smallest standard deviation: a density of e^103 at the zeros of padding
    policy = GaussianPolicy(2, 8, (5,), min_std=1e-6)
    theta = policy.init(torch.Generator().manual_seed(0)) | {"log_std": torch.full((8,), -30.0)}
    stacked = {name: leaf.unsqueeze(0) for name, leaf in theta.items()}
    samples = padded(sampled(policy, double(stacked), 1, seed=1), length=12)
    inner = InnerLoop(policy, InnerConfig(step_size=1e-16))
    gradient, objective = MetaObjective(inner, rollouts_of([samples], samples)).gradient(theta)
    assert np.isfinite(objective)
    assert torch.isfinite(gradient).all()


def padded(samples: Samples, length: int) -> Samples:
    """The samples in single precision, padded after the first `length`."""
    samples = pytree.tree_map(torch.Tensor.float, samples)
    mask = torch.arange(samples.weights.shape[1]) < length
    weights = samples.weights * mask
    return samples._replace(
        observations=samples.observations * mask[:, None],
        actions=samples.actions * mask[:, None],
        log_probs=samples.log_probs * mask,
        weights=weights / weights.sum(1, keepdim=True),
    )


def test_before_the_step_all_ratios_are_one_and_the_divergence_is_zero(policy) -> None:
    theta, objective = problem(policy)
    value, kl = objective.value_and_kl(theta)
    post = objective.rollouts.post
    mean_advantage = (post.weights * post.advantages).sum(1).mean()
    assert value == pytest.approx(float(mean_advantage), abs=1e-12)
    assert kl == pytest.approx(0.0, abs=1e-12)


def test_an_accepted_step_improves_within_the_region(policy) -> None:
    theta, objective = problem(policy)
    before, _ = objective.value_and_kl(theta)
    after, _, step = TrustRegion(curvature_fraction=1).step(theta, objective, {}, 0)
    assert step["outer/accepted"]
    assert objective.value_and_kl(after) == (step["outer/objective"], step["outer/kl"])
    assert step["outer/objective"] > before
    assert 0.0 < step["outer/kl"] <= 0.01


def test_a_rejected_step_returns_the_same_parameters(policy) -> None:
    theta, objective = problem(policy)
    pre, post = objective.rollouts.pre, objective.rollouts.post
    flat = rollouts_of(pre, post._replace(advantages=torch.zeros_like(post.advantages)))
    region = TrustRegion(curvature_fraction=1)
    after, _, step = region.step(theta, replace(objective, rollouts=flat), {}, 0)
    assert not step["outer/accepted"]
    assert after is theta


def test_adam_climbs_and_continues_from_its_state(policy) -> None:
    theta, objective = problem(policy)
    values, state = [], {}
    for iteration in range(5):
        theta, state, step = Adam(learning_rate=1e-3).step(theta, objective, state, iteration)
        values.append(step["outer/objective"])
    assert values == sorted(values)
    assert int(state["step"]) == 5


ALPHA, TARGET = 0.1, 1.5


def bandit(estimator, samples):
    """The meta-gradient at θ = 0 of a policy N(θ, 1) with reward −(a − 1.5)², outer part exact."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.randn(1, samples, 1, dtype=torch.float64, generator=generator)
    rewards = -((actions[..., 0] - TARGET) ** 2)
    # a network without hidden layers whose weight is switched off leaves the bias: θ
    policy = GaussianPolicy(1, 1, ())
    params = {
        "weight0": torch.zeros(1, 1, dtype=torch.float64),
        "bias0": torch.zeros(1, dtype=torch.float64),
        "log_std": torch.zeros(1, dtype=torch.float64),
    }
    observations = torch.zeros(1, samples, 1, dtype=torch.float64)
    distribution = policy.distribution(params, observations)
    pre = Samples(
        observations,
        actions,
        rewards - rewards.mean(),
        torch.full((1, samples), 1 / samples, dtype=torch.float64),
        policy.log_prob(distribution, actions),
        distribution,
    )
    inner = inner_loop(policy, ALPHA, estimator=estimator)

    def objective(theta):
        adapted = inner.adapt({**params, "bias0": theta}, [_task(pre, 0)])
        return -((adapted["bias0"] - TARGET) ** 2 + 1.0).sum()  # E[reward] under N(θ', 1)

    return float(torch.func.grad(objective)(params["bias0"]))


def test_likelihood_ratio_gives_the_bandits_true_meta_gradient() -> None:
    assert bandit("likelihood_ratio", 2_000_000) == pytest.approx(1.92, abs=0.02)


def test_log_likelihood_gives_the_bandits_first_order_value() -> None:
    assert bandit("log_likelihood", 2_000_000) == pytest.approx(2.40, abs=0.02)


def test_likelihood_ratio_is_exact_on_an_enumerable_problem() -> None:
    policy = CategoricalPolicy(1, 3, ())
    rewards = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
    observations = torch.ones(3, 1, dtype=torch.float64)
    actions = torch.arange(3)
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)

    def params_of(logits):
        return {"weight0": torch.zeros(1, 3, dtype=torch.float64), "bias0": logits}

    def expected_reward(logits):
        return (logits.softmax(-1) * rewards).sum()

    distribution = policy.distribution(params_of(logits), observations)
    probabilities = logits.softmax(-1)
    # one sample for each action, weighted by its probability: the expectation itself
    pre = Samples(
        observations,
        actions,
        rewards - expected_reward(logits),
        probabilities,
        policy.log_prob(distribution, actions),
        distribution,
    )

    def meta_gradient(estimator):
        inner = inner_loop(policy, 0.5, estimator=estimator)

        def objective(logits):
            # the weight has a gradient as well; only the bias is a parameter of this problem
            return expected_reward(inner.adapt(params_of(logits), [pre])["bias0"])

        return torch.func.grad(objective)(logits)

    def exact(logits):
        adapted = logits + 0.5 * torch.func.grad(expected_reward)(logits)
        return expected_reward(adapted)

    basis, at = torch.eye(len(logits), dtype=logits.dtype), {"logits": logits}
    expected = finite_differences(lambda p: float(exact(p["logits"])), at, basis)
    torch.testing.assert_close(meta_gradient("likelihood_ratio"), expected, rtol=1e-6, atol=1e-9)
    assert (meta_gradient("log_likelihood") - expected).norm() > 1e-3


def nudged(theta, size):
    generator = torch.Generator().manual_seed(1)
    return {
        name: leaf + size * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        for name, leaf in theta.items()
    }


def proximal(plain, **settings):
    """ProMP's objective for the same rollouts."""
    return ProximalObjective(plain.inner, plain.rollouts, ProMPSettings(**settings))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2])
def test_promps_gradient_equals_finite_differences_at_other_parameters(policy, steps) -> None:
    theta, plain = problem(policy, steps=steps)
    objective = proximal(plain, clip=0.3, kl_penalty=0.5)
    candidate = nudged(theta, 0.03)
    gradient, _ = objective.gradient(candidate)
    check_slopes(gradient, lambda t: objective.gradient(t)[1], candidate, rtol=1e-5, atol=1e-7)


def test_the_first_step_of_promp_equals_that_of_the_plain_surrogate(policy) -> None:
    theta, plain = problem(policy)
    # where all ratios are one nothing is clipped, and the divergence has no gradient
    gradient, _ = proximal(plain, kl_penalty=0.5).gradient(theta)
    torch.testing.assert_close(gradient, plain.gradient(theta)[0])


def test_ratios_beyond_the_clip_gain_nothing(policy) -> None:
    theta, plain = problem(policy)
    first_task = index_tasks(plain.rollouts.post, slice(0, 1))
    far = {name: leaf.unsqueeze(0) for name, leaf in nudged(theta, 0.5).items()}
    clipped = vmap(lambda p, s: clipped_surrogate(policy, p, s, 0.1))(far, first_task)
    free = vmap(lambda p, s: surrogate(policy, p, s))(far, first_task)
    assert float(clipped) < float(free)


class FixedLogProb:
    """The parameters are the log-probabilities."""

    def distribution(self, params, observations):
        return params

    def log_prob(self, distribution, actions):
        return distribution["log_prob"]


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [  # min(r A, clip(r, 0.8, 1.2) A)
        (0.5, 2.0, 1.0),  # a worse ratio is not clipped where it lowers the objective
        (0.5, -2.0, -1.6),
        (1.5, 2.0, 2.4),
        (1.5, -2.0, -3.0),
        (0.9, 2.0, 1.8),
        (1.1, -2.0, -2.2),
    ],
)
def test_the_clipped_surrogate_is_equation_7_of_ppo(ratio, advantage, expected) -> None:
    ones = torch.ones(1)
    samples = Samples(ones, ones, advantage * ones, ones, torch.zeros(1), {})
    params = {"log_prob": torch.tensor([ratio]).log()}
    value = clipped_surrogate(FixedLogProb(), params, samples, clip=0.2)
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_promps_penalty_is_the_mean_divergence_over_inner_steps(policy) -> None:
    theta, plain = problem(policy)
    candidate = nudged(theta, 0.05)
    values = [proximal(plain, kl_penalty=eta).gradient(candidate)[1] for eta in (0.0, 1.0)]
    divergence = vmap(lambda s: mean_kl(policy, candidate, s))(plain.rollouts.pre[0]).mean()
    assert values[0] - values[1] == pytest.approx(float(divergence))


class GaussianSubclass(GaussianPolicy):
    """Differentiated by autograd, because a subclass may use another network."""


class MultiCategoricalSubclass(MultiCategoricalPolicy):
    pass


class CategoricalSubclass(CategoricalPolicy):
    """Like `GaussianSubclass`, for discrete actions."""


PAIRS = {  # several depths; the same policy differentiated analytically and by autograd
    "relu": (
        GaussianPolicy(2, 2, (5, 4, 3), min_std=0.9),
        GaussianSubclass(2, 2, (5, 4, 3), min_std=0.9),
    ),
    "tanh": (GaussianPolicy(2, 2, (5, 4), "tanh"), GaussianSubclass(2, 2, (5, 4), "tanh")),
    "linear": (GaussianPolicy(2, 1, ()), GaussianSubclass(2, 1, ())),
    "categorical": (CategoricalPolicy(2, 3, (5, 4)), CategoricalSubclass(2, 3, (5, 4))),
    "multi-categorical": (
        MultiCategoricalPolicy(2, 5, (5, 4), sizes=(3, 2)),
        MultiCategoricalSubclass(2, 5, (5, 4), sizes=(3, 2)),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"steps": 3, "estimator": "log_likelihood"},
        {"steps": 2, "first_order": True},
        {"steps": 2, "learned_step_sizes": "meta_sgd"},
        {"steps": 2, "learned_step_sizes": "lslr", "first_order": True},
        {"steps": 2, "learned_step_sizes": "lslr", "adapt": "head"},
    ],
    ids=["one step", "three steps", "first order", "Meta-SGD", "LSLR", "LSLR of the head"],
)
def test_analytic_derivatives_equal_those_of_autograd(pair, settings, monkeypatch) -> None:
    policy, subclass = PAIRS[pair]
    monkeypatch.setattr(analytic_mlp, "BLOCK_SAMPLES", 11)  # several blocks of unequal size
    theta, analytic = problem(policy, **settings)
    autograd = replace(analytic, inner=replace(analytic.inner, policy=subclass))
    assert analytic_mlp.supports(policy)
    assert not analytic_mlp.supports(subclass)
    candidate = nudged(theta, 0.05)
    exactly = {"rtol": 0.0, "atol": 1e-10}
    for at in (theta, candidate):
        result, reference = (objective.gradient(at) for objective in (analytic, autograd))
        torch.testing.assert_close(result, reference, **exactly)
    result, reference = (objective.value_and_kl(candidate) for objective in (analytic, autograd))
    torch.testing.assert_close(result, reference, **exactly)
    gradients = [
        proximal(objective, kl_penalty=0.5).gradient(candidate)
        for objective in (analytic, autograd)
    ]
    torch.testing.assert_close(*gradients, **exactly)
    vector = torch.randn(len(flatten(theta)), dtype=torch.float64)
    for at, fraction in ((theta, 1.0), (candidate, 0.5)):
        result, reference = (
            objective.curvature(at, fraction)(vector) for objective in (analytic, autograd)
        )
        torch.testing.assert_close(result, reference, **exactly)


def test_a_block_of_samples_has_at_least_one_time_step(monkeypatch) -> None:
    theta, objective = problem(PAIRS["tanh"][0])
    expected = objective.gradient(theta)
    monkeypatch.setattr(analytic_mlp, "BLOCK_SAMPLES", 1)  # fewer than there are tasks
    torch.testing.assert_close(objective.gradient(theta), expected, rtol=0.0, atol=1e-10)


def test_an_input_without_an_effect_has_a_gradient_of_zeros() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    gradients = vjp([2.0 * used], [used, unused], [torch.ones(2)])
    assert [leaf.tolist() for leaf in gradients] == [[2.0, 2.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("pair", PAIRS)
def test_derivatives_stay_on_the_device_of_the_samples(pair) -> None:
    theta, objective = problem(PAIRS[pair][0], learned_step_sizes="lslr")
    inner, rollouts = objective.inner, objective.rollouts
    meta = torch.device("meta")  # computes no numbers, but refuses to mix with another device
    theta, pre, post = move((theta, rollouts.pre, rollouts.post), meta)
    vector = flatten(theta)
    analytic = AnalyticMLP(inner)
    gradient = analytic.gradient(objective, theta, TaskData(pre, post, []))
    post = subsample(post, rollouts.horizon, 2)
    product = analytic.curvature(theta, TaskData(pre, post, []))(vector)
    stacked, alpha = repeat(split(theta)[0], 3), inner.step_sizes(theta)[0]
    adapted, _ = adapt_all(inner, stacked, pre[0], alpha, {}, 0)
    assert gradient.device == product.device == flatten(adapted).device == meta
    assert gradient.shape == (len(vector) + 1,)
    assert product.shape == vector.shape


def log_likelihood_of_ones_own(policy, params, samples):
    """The same loss as `log_likelihood`."""
    log_probs = policy.log_prob(policy.distribution(params, samples.observations), samples.actions)
    return -(samples.weights * log_probs * samples.advantages).sum()


def with_entropy(policy, params, samples):
    """An entropy bonus for exploration during adaptation."""
    entropy = policy.entropy(policy.distribution(params, samples.observations))
    bonus = (samples.weights * entropy).sum()
    return log_likelihood_of_ones_own(policy, params, samples) - 0.1 * bonus


def without_sum(policy, params, samples):
    return samples.advantages


def test_an_inner_loss_of_ones_own_reaches_the_meta_gradient(policy) -> None:
    def of(estimator: str):
        theta, objective = problem(policy, estimator=estimator)
        return objective, theta, objective.gradient(theta)[0]

    expected = of("log_likelihood")[2]
    torch.testing.assert_close(of(f"{__name__}:log_likelihood_of_ones_own")[2], expected)
    objective, theta, gradient = of(f"{__name__}:with_entropy")
    assert not torch.allclose(gradient, expected, rtol=1e-3)
    check_slopes(gradient, lambda t: objective.value_and_kl(t)[0], theta, rtol=1e-6, atol=1e-8)
    with pytest.raises(UserError, match="must return the loss of a task, of shape"):
        of(f"{__name__}:without_sum")
    with pytest.raises(ValidationError, match="has no function 'missing'"):
        InnerConfig(estimator=f"{__name__}:missing")


def without_parameters(policy, params, samples):
    return (samples.weights * samples.advantages).sum()


def not_finite(policy, params, samples):
    return log_likelihood_of_ones_own(policy, params, samples) * float("nan")


def with_a_branch(policy, params, samples):
    loss = log_likelihood_of_ones_own(policy, params, samples)
    return loss if loss > 0.0 else -loss


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("without_parameters", "has no gradient"),
        ("not_finite", "has a gradient that is not finite"),
        ("with_a_branch", "no branches on the values of tensors"),
        ("without_sum", "must return the loss of a task, of shape"),
    ],
)
def test_an_inner_loss_that_cannot_adapt_is_refused_before_training(
    function: str, problem: str
) -> None:
    for policy in (GaussianPolicy(2, 2, (5,)), CategoricalPolicy(2, 3, (5,))):
        params = policy.init(torch.Generator().manual_seed(0))
        check_estimator(policy, params, f"{__name__}:with_entropy")
        with pytest.raises(UserError, match=problem):
            check_estimator(policy, params, f"{__name__}:{function}")
    config = load_config("point_navigation", [f"inner.estimator={__name__}:{function}"])
    with pytest.raises(UserError, match=problem):
        load_method(config).problem.check()


def test_the_loss_of_a_subclass_of_the_inner_loop_is_differentiated() -> None:
    class Doubled(InnerLoop):
        @property
        def loss(self):
            loss = super().loss
            return lambda params, samples: 2.0 * loss(params, samples)

    policy = GaussianPolicy(2, 2, (5,), "tanh")
    theta, objective = problem(policy)
    inner = objective.inner
    doubled = Doubled(inner.policy, inner.settings, inner.chunk_samples)
    as_if = but(inner, step_size=2.0 * inner.settings.step_size)
    # θ' for rollouts of `inner`, so that only the adaptation differs
    gradients = [replace(objective, inner=each).gradient(theta)[0] for each in (doubled, as_if)]
    torch.testing.assert_close(*gradients)
