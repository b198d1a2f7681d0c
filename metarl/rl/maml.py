"""MAML for reinforcement learning: Algorithm 3 of Finn et al. (2017).

    tasks    = family.sample_tasks(...)      line 3
    rollouts = adapt_by_sampling(...)        lines 4 to 9: sample, θ → θ'_i, sample again
    theta    = trpo_outer_step(...)          line 10: through the adaptation, on all tasks

Everything here is a function of parameters and data; `metarl.training` puts it in a loop.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad_and_value, vmap

from metarl.compute import CPU, move
from metarl.distributed import mean_over_tasks
from metarl.inner_loop import adapt
from metarl.optim import adam_step
from metarl.params import Params, concatenate, flatten, repeat, unflatten
from metarl.rl.advantages import with_advantages
from metarl.rl.losses import Estimator, mean_kl, reinforce, surrogate
from metarl.rl.policies import Policy
from metarl.rl.sampler import VectorEnv, sample
from metarl.rl.trajectories import Samples, Trajectories, subsample, tasks_of
from metarl.trust_region import TrustRegion, TrustRegionStep, check_gradient, trust_region_step


@dataclass(frozen=True)
class InnerLoop:
    """How a policy adapts to a task.

    Attributes:
        policy: the policy that adapts.
        step_sizes: α of each inner step; their number is the number of steps.
        gamma: discount factor.
        lam: λ of generalised advantage estimation.
        estimator: form of the inner loss, see `metarl.rl.losses.reinforce`.
        first_order: ignore how the inner gradient depends on θ.
        chunk_samples: how many samples, in whole tasks, are differentiated together. It changes no
            result, only the time: temporaries of a few tasks stay in the processor's cache, those
            of forty do not, and one by one they are too small to keep it busy.
        device: where gradients are computed, and where the samples of `Rollouts` lie.
    """

    policy: Policy
    step_sizes: tuple[float, ...] = (0.1,)
    gamma: float = 0.99
    lam: float = 1.0
    estimator: Estimator = "likelihood_ratio"
    first_order: bool = False
    chunk_samples: int = 8000
    device: torch.device = CPU

    def adapt(self, theta: Params, pre: Sequence[Samples]) -> Params:
        """θ'_i of one task from the samples of its inner steps; differentiable."""
        loss = reinforce(self.policy, self.estimator)
        return adapt(loss, theta, pre, self.step_sizes, self.first_order)

    def chunks(self, samples: Samples) -> list[slice]:
        """The task axis in pieces of about `chunk_samples` samples."""
        num_tasks, per_task = samples.weights.shape
        size = max(1, self.chunk_samples // per_task)
        return [slice(start, start + size) for start in range(0, num_tasks, size)]


@dataclass(frozen=True)
class Rollouts:
    """What one meta-iteration gathered.

    Attributes:
        pre: samples of each inner step, drawn at the parameters that the step started from.
        post: samples drawn at the adapted parameters θ'_i.
        trajectories: those behind `pre` and `post`, in this order.
        params: what each of them was sampled with, stacked over tasks: θ, ..., θ'_i.
    """

    pre: list[Samples]
    post: Samples
    trajectories: list[Trajectories]
    params: list[Params]


def adapt_by_sampling(
    inner: InnerLoop,
    theta: Params,
    envs: VectorEnv,
    tasks: NDArray[np.float64],
    horizon: int,
    seed: int,
    *indices: int,
    first_task: int = 0,
) -> Rollouts:
    """Sample, take an inner step, sample anew at the adapted parameters; once for each step size.

    Args:
        inner: how to adapt.
        theta: θ, where every task starts.
        envs: N·B environments.
        tasks: (N, T).
        horizon: H.
        seed: the run's seed.
        indices: what tells this call's randomness from others', such as the iteration.
        first_task: position of the first task in the meta-batch, where others have the rest of it.
    """
    loss = reinforce(inner.policy, inner.estimator)
    trajectories: list[Trajectories] = []
    sampled_with: list[Params] = []

    def gather(params: Params) -> Samples:
        step = len(trajectories)
        params = move(params, CPU)
        new = sample(
            inner.policy, params, envs, tasks, horizon, seed, *indices, step, first_task=first_task
        )
        trajectories.append(new)
        sampled_with.append(params)
        return move(with_advantages(new, inner.gamma, inner.lam), inner.device)

    params = repeat(move(theta, inner.device), len(tasks))
    pre: list[Samples] = []
    for step_size in inner.step_sizes:
        samples = gather(params)
        pre.append(samples)
        params = concatenate(
            vmap(lambda p, s, a=step_size: adapt(loss, p, [s], a))(
                {name: leaf[chunk] for name, leaf in params.items()}, tasks_of(samples, chunk)
            )
            for chunk in inner.chunks(samples)
        )
    return Rollouts(pre, gather(params), trajectories, sampled_with)


def outer_gradient(inner: InnerLoop, theta: Params, rollouts: Rollouts) -> tuple[Tensor, float]:
    """The meta-gradient (P,) of the mean post-adaptation objective, and the objective's value.

    ∇_θ 1/N Σ_i surrogate(adapt(θ, pre_i), post_i): exact, through the inner steps.
    """

    def objective(theta: Params, pre: list[Samples], post: Samples) -> Tensor:
        return surrogate(inner.policy, inner.adapt(theta, pre), post)

    def total(theta: Params, pre: list[Samples], post: Samples) -> Tensor:
        return vmap(objective, in_dims=(None, 0, 0))(theta, pre, post).sum()

    sums = []
    for pre, post in _chunks(inner, rollouts.pre, rollouts.post):
        gradient, value = grad_and_value(total)(theta, pre, post)
        sums.append(torch.cat([flatten(gradient), value.view(1)]))
    mean = mean_over_tasks(torch.stack(sums).sum(0), len(rollouts.post.weights))
    return mean[:-1], float(mean[-1])


@torch.no_grad()
def evaluate_candidate(inner: InnerLoop, theta: Params, rollouts: Rollouts) -> tuple[float, float]:
    """Objective and mean KL of a candidate θ, which re-adapts from the stored trajectories.

    The divergence is that of the adapted policy from the one that `post` was sampled with.
    """

    def both(theta: Params, pre: list[Samples], post: Samples) -> tuple[Tensor, Tensor]:
        adapted = inner.adapt(theta, pre)
        return surrogate(inner.policy, adapted, post), mean_kl(inner.policy, adapted, post)

    sums = [
        torch.stack(vmap(both, in_dims=(None, 0, 0))(theta, pre, post)).sum(dim=1).double()
        for pre, post in _chunks(inner, rollouts.pre, rollouts.post)
    ]
    mean = mean_over_tasks(torch.stack(sums).sum(0), len(rollouts.post.weights))
    objective, kl = mean.tolist()
    return objective, kl


def curvature_product(
    inner: InnerLoop, theta: Params, pre: list[Samples], post: Samples
) -> Callable[[Tensor], Tensor]:
    """Products with the Hessian of the mean KL at the θ that was sampled from.

    There the divergence and its gradient vanish, so that the Hessian is the Gauss-Newton matrix
    1/N Σ_i J_iᵀ F_i J_i: J_i from θ to the adapted policy's distributions, F_i their Fisher matrix.
    No third derivatives, and no forward pass in a product: the adaptation is linearised once.
    """

    def outputs(theta: Params, pre: list[Samples], post: Samples) -> dict[str, Tensor]:
        return inner.policy.distribution(inner.adapt(theta, pre), post.observations)

    def linearised(pre: list[Samples], post: Samples) -> Callable[[Tensor], Tensor]:
        return _gauss_newton(
            lambda theta: vmap(outputs, in_dims=(None, 0, 0))(theta, pre, post),
            theta,
            lambda distribution, change: {
                name: _reduce_to(post.weights.unsqueeze(-1) * leaf, distribution[name])
                for name, leaf in inner.policy.fisher(distribution, change).items()
            },
        )

    products = [linearised(*chunk) for chunk in _chunks(inner, pre, post)]
    num_tasks = len(post.weights)
    return lambda vector: mean_over_tasks(
        torch.stack([product(vector) for product in products]).sum(0), num_tasks
    )


def _gauss_newton(
    outputs: Callable[[Params], dict[str, Tensor]],
    theta: Params,
    metric: Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]],
) -> Callable[[Tensor], Tensor]:
    """v to Jᵀ M J v, J the derivative of the outputs at θ, M v = metric(outputs, v).

    The graph of u ↦ Jᵀ u is built once and kept. It is linear in u, so that its own derivative is
    the product with J, and neither product computes the outputs again.
    """
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in theta.items()}
    values = outputs(leaves)
    fixed = {name: leaf.detach() for name, leaf in values.items()}
    cotangent = {name: torch.zeros_like(leaf, requires_grad=True) for name, leaf in values.items()}

    def backward(
        out: Iterable[Tensor], into: Iterable[Tensor], along: Iterable[Tensor], again: bool = False
    ) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            tuple(out),
            tuple(into),
            tuple(along),
            retain_graph=True,
            create_graph=again,
            allow_unused=True,
            materialize_grads=True,
        )

    pulled = backward(values.values(), leaves.values(), cotangent.values(), again=True)

    def product(vector: Tensor) -> Tensor:
        tangent = unflatten(vector, theta)
        change = backward(pulled, cotangent.values(), tangent.values())
        weighted = metric(fixed, dict(zip(values, change, strict=True)))
        pushed = backward(values.values(), leaves.values(), (weighted[name] for name in values))
        return torch.cat([leaf.reshape(-1) for leaf in pushed])

    return product


def _reduce_to(leaf: Tensor, like: Tensor) -> Tensor:
    """Sum over the samples (axis 1) where the distribution has one row for all of them."""
    return leaf if leaf.shape == like.shape else leaf.sum(1, keepdim=True)


def _chunks(
    inner: InnerLoop, pre: list[Samples], post: Samples
) -> list[tuple[list[Samples], Samples]]:
    return [
        ([tasks_of(step, chunk) for step in pre], tasks_of(post, chunk))
        for chunk in inner.chunks(post)
    ]


def trpo_outer_step(
    inner: InnerLoop,
    theta: Params,
    rollouts: Rollouts,
    settings: TrustRegion,
    curvature_stride: int = 1,
) -> tuple[Params, TrustRegionStep]:
    """One TRPO step on θ through the adaptation (line 10 of Algorithm 3).

    Args:
        inner: how policies adapt.
        theta: θ, which the rollouts were sampled from.
        rollouts: trajectories before and after adaptation.
        settings: of the trust region.
        curvature_stride: estimate the curvature on every so many time steps. Gradient and
            line search always use all.

    Returns:
        The new θ (the very same dictionary if the step was rejected), and what happened.
    """
    pre, post, start = rollouts.pre, rollouts.post, theta
    theta = move(theta, inner.device)
    if curvature_stride > 1:
        horizon = rollouts.trajectories[0].mask.shape[-1]
        pre = [subsample(step, horizon, curvature_stride) for step in pre]
        post = subsample(post, horizon, curvature_stride)
    gradient, objective = outer_gradient(inner, theta, rollouts)
    step = trust_region_step(
        flatten(theta),
        gradient,
        curvature_product(inner, theta, pre, post),
        lambda candidate: evaluate_candidate(inner, unflatten(candidate, theta), rollouts),
        objective,
        settings,
    )
    return (move(unflatten(step.theta, theta), CPU) if step.accepted else start), step


def adam_outer_step(
    inner: InnerLoop,
    theta: Params,
    rollouts: Rollouts,
    state: Params,
    learning_rate: float,
) -> tuple[Params, Params, float]:
    """One plain policy-gradient step on θ with Adam, in place of the trust region.

    Args:
        inner: how policies adapt.
        theta: θ, which the rollouts were sampled from.
        rollouts: trajectories before and after adaptation.
        state: Adam's, as a previous call returned it; empty at first.
        learning_rate: of Adam.

    Returns:
        The new θ, Adam's new state, and the objective before the step.

    Raises:
        FloatingPointError: if the gradient is not finite.
    """
    gradient, objective = outer_gradient(inner, move(theta, inner.device), rollouts)
    gradient = gradient.to(CPU)
    check_gradient(gradient)
    theta, state = adam_step(theta, -gradient, state, learning_rate)  # it minimises
    return theta, state, objective
