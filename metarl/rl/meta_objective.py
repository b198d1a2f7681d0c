"""The meta-objective: how well policies do after they adapted, as a function of θ.

    gradient    ∇_θ 1/N Σ_i surrogate(adapt(θ, pre_i), post_i), exact, through the inner steps
    evaluate    the same at a candidate, which re-adapts from the stored trajectories, and its KL
    curvature   products with the Hessian of the mean KL at the θ that was sampled from

All three work in chunks of tasks; sums over tasks go through `metarl.distributed`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from metarl.compute import CPU, Result, move, over_chunks
from metarl.distributed import mean_over_tasks
from metarl.optim import Objective
from metarl.params import Params, flatten, unflatten
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.losses import mean_kl, surrogate
from metarl.rl.trajectories import Rollouts, Samples, subsample, tasks_of


@dataclass(frozen=True)
class MetaObjective:
    """The mean over tasks of TRPO's surrogate after adaptation; see `metarl.optim.Objective`.

    Attributes:
        inner: how policies adapt.
        rollouts: what was sampled at θ, and along its adaptation.
    """

    inner: InnerLoop
    rollouts: Rollouts

    def of_task(self, theta: Params, pre: list[Samples], post: Samples) -> Tensor:
        """The objective of one task: the surrogate of its adapted policy."""
        return surrogate(self.inner.policy, self.inner.adapt(theta, pre), post)

    def minibatches(self) -> list[Objective]:
        """Itself: the meta-gradient is noisy enough with all samples."""
        return [self]

    def gradient(self, theta: Params) -> tuple[Tensor, float]:
        """The meta-gradient (P,), and the objective's value."""
        theta = move(theta, self.inner.device)

        def total(theta: Params, pre: list[Samples], post: Samples) -> Tensor:
            return vmap(self.of_task, in_dims=(None, 0, 0))(theta, pre, post).sum()

        def summed(pre: list[Samples], post: Samples) -> Tensor:
            gradient, value = grad_and_value(total)(theta, pre, post)
            return torch.cat([flatten(gradient), value.view(1)])

        sums = self._over_tasks(summed, self.rollouts.pre, self.rollouts.post)
        mean = mean_over_tasks(torch.stack(sums).sum(0), self._num_tasks).to(CPU)
        return mean[:-1], float(mean[-1])

    def evaluate(self, theta: Params) -> tuple[float, float]:
        """Objective and mean KL of a candidate, which re-adapts from the stored trajectories.

        The divergence is that of the adapted policy from the one that `post` was sampled with.
        """
        theta = move(theta, self.inner.device)

        def both(theta: Params, pre: list[Samples], post: Samples) -> tuple[Tensor, Tensor]:
            adapted = self.inner.adapt(theta, pre)
            policy = self.inner.policy
            return surrogate(policy, adapted, post), mean_kl(policy, adapted, post)

        @torch.no_grad()  # here, because every thread has a mode of its own
        def summed(pre: list[Samples], post: Samples) -> Tensor:
            values = vmap(both, in_dims=(None, 0, 0))(theta, pre, post)
            return torch.stack(values).sum(dim=1).double()

        sums = self._over_tasks(summed, self.rollouts.pre, self.rollouts.post)
        mean = mean_over_tasks(torch.stack(sums).sum(0), self._num_tasks)
        objective, kl = mean.tolist()
        return objective, kl

    def curvature(self, theta: Params, fraction: float = 1.0) -> Callable[[Tensor], Tensor]:
        """Products with the Hessian of the mean KL at the θ that was sampled from.

        There the divergence and its gradient vanish, so that the Hessian is the Gauss-Newton matrix
        1/N Σ_i J_iᵀ F_i J_i: J_i from θ to the adapted policy's distributions, F_i their Fisher
        matrix. No third derivatives, and no forward pass in a product: the adaptation is linearised
        once.

        Args:
            theta: θ.
            fraction: of the time steps, before and after adaptation, that estimate it.
        """
        theta = move(theta, self.inner.device)
        pre, post = self.rollouts.pre, self.rollouts.post
        stride = max(1, round(1.0 / fraction))
        if stride > 1:
            horizon = self.rollouts.horizon
            pre = [subsample(step, horizon, stride) for step in pre]
            post = subsample(post, horizon, stride)
        policy = self.inner.policy

        def outputs(theta: Params, pre: list[Samples], post: Samples) -> dict[str, Tensor]:
            return policy.distribution(self.inner.adapt(theta, pre), post.observations)

        def linearised(pre: list[Samples], post: Samples) -> Callable[[Tensor], Tensor]:
            return _gauss_newton(
                lambda theta: vmap(outputs, in_dims=(None, 0, 0))(theta, pre, post),
                theta,
                lambda distribution, change: {
                    name: _reduce_to(post.weights.unsqueeze(-1) * leaf, distribution[name])
                    for name, leaf in policy.fisher(distribution, change).items()
                },
            )

        products = self._over_tasks(linearised, pre, post)

        def product(vector: Tensor) -> Tensor:
            vector = vector.to(self.inner.device)
            pieces = over_chunks(lambda chunk: products[chunk.start](vector), len(products), 1)
            return mean_over_tasks(torch.stack(pieces).sum(0), self._num_tasks).to(CPU)

        return product

    @property
    def _num_tasks(self) -> int:
        return len(self.rollouts.post.weights)

    def _over_tasks(
        self,
        function: Callable[[list[Samples], Samples], Result],
        pre: list[Samples],
        post: Samples,
    ) -> list[Result]:
        return self.inner.over_tasks(
            lambda chunk: function([tasks_of(step, chunk) for step in pre], tasks_of(post, chunk)),
            post,
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
    # any u does, since the graph is linear in it; zeros are as good as others
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
        # J v: the derivative of u ↦ Jᵀ u, applied to v, is the transpose of a transpose
        change = backward(pulled, cotangent.values(), tangent.values())
        weighted = metric(fixed, dict(zip(values, change, strict=True)))
        pushed = backward(values.values(), leaves.values(), (weighted[name] for name in values))
        return torch.cat([leaf.reshape(-1) for leaf in pushed])

    return product


def _reduce_to(leaf: Tensor, like: Tensor) -> Tensor:
    """Sum over the samples (axis 1) where the distribution has one row for all of them."""
    return leaf if leaf.shape == like.shape else leaf.sum(1, keepdim=True)
