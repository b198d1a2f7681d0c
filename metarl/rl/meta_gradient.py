"""Differentiation of the meta-objective on a chunk of tasks: by autograd, or analytically."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from metarl.params import Params, flatten, unflatten
from metarl.rl.analytic_mlp import AnalyticMLP, ObjectiveTerms, TaskData, supports
from metarl.rl.config import ESTIMATORS
from metarl.rl.gauss_newton import fisher_metric, gauss_newton
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.losses import mean_kl
from metarl.rl.trajectories import Distribution, Samples
from metarl.step_sizes import StepSizes, initial_params


class MetaGradient(Protocol):
    """Values and derivatives of the meta-objective, summed over a chunk of tasks."""

    def adapt_chunk(
        self, params: Params, samples: Samples, step_sizes: StepSizes, state: Params, step: int
    ) -> tuple[Params, Params]:
        """Stacked parameters, and the state of the inner optimiser, after step number `step`."""

    def gradient(self, terms: ObjectiveTerms, meta: Params, data: TaskData) -> Tensor:
        """The meta-gradient, and the objective as last element: (P + 1,)."""

    def value_and_kl(self, terms: ObjectiveTerms, meta: Params, data: TaskData) -> Tensor:
        """The objective, and the mean KL divergence after adaptation, (2,), double precision.

        Adaptation is repeated at `meta`; the divergence is from the policy that sampled
        `data.post`.
        """

    def curvature(self, meta: Params, data: TaskData) -> Callable[[Tensor], Tensor]:
        """Products v (P,) to Σ_i J_iᵀ F_i J_i v (P,); see `MetaObjective.curvature`."""


def meta_gradient_for(inner: InnerLoop) -> MetaGradient:
    """The fastest implementation that supports an inner loop."""
    # a subclass may have another loss or step, which the analytic derivatives do not know
    is_known = type(inner) is InnerLoop and inner.settings.estimator in ESTIMATORS
    is_analytic = is_known and supports(inner.policy) and inner.optimizer.is_plain
    return AnalyticMLP(inner) if is_analytic else Autograd(inner)


@dataclass(frozen=True)
class Autograd:
    """See `MetaGradient`; for every policy."""

    inner: InnerLoop

    def task_objective(
        self, terms: ObjectiveTerms, meta: Params, data: TaskData
    ) -> tuple[Tensor, Params]:
        """The objective of one task, and its adapted parameters."""
        policy, inner = self.inner.policy, self.inner
        params, state = initial_params(meta), dict[str, Tensor]()
        penalty = data.post.weights.new_zeros(())
        for step, (samples, alpha) in enumerate(zip(data.pre, inner.step_sizes(meta), strict=True)):
            if data.penalty:  # of θ_k, the parameters that sampled this step's data
                penalty = penalty + terms.pre_penalty(policy, params, data.penalty[step])
            # no detach: the graph of this step is what the meta-gradient differentiates
            params, state = inner.adapt_step(params, samples, alpha, state, step)
        return terms.post_objective(policy, params, data.post) - penalty, params

    def adapt_chunk(
        self, params: Params, samples: Samples, step_sizes: StepSizes, state: Params, step: int
    ) -> tuple[Params, Params]:
        def adapt_one(params: Params, samples: Samples, state: Params) -> tuple[Params, Params]:
            return self.inner.adapt_step(params, samples, step_sizes, state, step)

        return vmap(adapt_one)(params, samples, state)

    def gradient(self, terms: ObjectiveTerms, meta: Params, data: TaskData) -> Tensor:
        def total(meta: Params) -> Tensor:
            def value(data: TaskData) -> Tensor:
                return self.task_objective(terms, meta, data)[0]

            # vmap maps over tasks, but not over θ: its gradient is that of the sum over tasks
            return vmap(value)(data).sum()

        gradient, value = grad_and_value(total)(meta)
        return torch.cat([flatten(gradient), value.view(1)])

    def value_and_kl(self, terms: ObjectiveTerms, meta: Params, data: TaskData) -> Tensor:
        def value_and_kl(data: TaskData) -> tuple[Tensor, Tensor]:
            value, adapted = self.task_objective(terms, meta, data)
            return value, mean_kl(self.inner.policy, adapted, data.post)

        # double precision for the sums over chunks: a line search compares values that differ in
        # their last digits
        return torch.stack(vmap(value_and_kl)(data)).sum(dim=1).double()

    def curvature(self, meta: Params, data: TaskData) -> Callable[[Tensor], Tensor]:
        policy = self.inner.policy

        def outputs(meta: Params, pre: list[Samples], post: Samples) -> Distribution:
            return policy.distribution(self.inner.adapt(meta, pre), post.observations)

        # J_i includes the Jacobian of adaptation, which `gauss_newton` traverses by its own graph
        product = gauss_newton(
            lambda meta: vmap(outputs, in_dims=(None, 0, 0))(meta, data.pre, data.post),
            meta,
            fisher_metric(policy, data.post.weights),
        )
        return lambda vector: flatten(product(unflatten(vector, meta)))
