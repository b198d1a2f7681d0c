"""The meta-objective: performance after adaptation, as a function of the meta-parameters θ.

    gradient      ∇_θ 1/N Σ_i surrogate(adapt(θ, pre_i), post_i), exact, through the inner steps
    value_and_kl  the objective and the KL divergence at a candidate, which adapts to the same data
    curvature     products with the Hessian of the mean KL divergence at the θ that sampled

All three work on chunks of tasks (`metarl.rl.meta_gradient`); sums over tasks include those of
other processes (`metarl.distributed`).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.distributed import all_reduce_mean
from metarl.optim import Objective
from metarl.parallel import CPU, Result, map_chunks, move
from metarl.params import Params
from metarl.rl.analytic_mlp import TaskData
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.losses import surrogate
from metarl.rl.meta_gradient import MetaGradient, meta_gradient_for
from metarl.rl.policies import ActionDistribution
from metarl.rl.trajectories import Rollouts, Samples, subsample

_DEPRECATED = {"costed": "penalty_samples", "reached": "post_objective", "cost": "pre_penalty"}


@dataclass(frozen=True)
class MetaObjective:
    """The mean over tasks of TRPO's surrogate after adaptation; see `TrustRegionObjective`.

    Subclasses replace the surrogate, or subtract a penalty from it for the parameters before each
    inner step: `post_objective` and `pre_penalty` with its `penalty_samples`.

    Attributes:
        inner: the inner loop.
        rollouts: sampled with θ and with the parameters after each inner step.
    """

    inner: InnerLoop
    rollouts: Rollouts

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for old, new in _DEPRECATED.items():
            if old in vars(cls):
                warnings.warn(f"{old} is deprecated; rename it to {new}", DeprecationWarning, 2)
                setattr(cls, new, vars(cls)[old])

    @property
    def penalty_samples(self) -> list[Samples]:
        """The samples of `pre_penalty`, one element for each inner step; empty without penalty."""
        return []

    def post_objective(self, policy: ActionDistribution, params: Params, post: Samples) -> Tensor:
        """The term of one task's adapted parameters, which is maximised."""
        return surrogate(policy, params, post)

    def pre_penalty(self, policy: ActionDistribution, params: Params, samples: Samples) -> Tensor:
        """The term of one task's parameters before an inner step, which is subtracted."""
        raise NotImplementedError

    def minibatches(self) -> list[Objective]:
        """`[self]`: the meta-gradient is noisy enough with all samples."""
        return [self]

    def gradient(self, theta: Params) -> tuple[Tensor, float]:
        """The meta-gradient (P,), and the objective's value."""
        theta = move(theta, self.inner.device)
        sums = self._over_tasks(
            lambda data: self._meta_gradient.gradient(self, theta, data), self._data
        )
        # gradient and value in one vector, so that processes communicate once
        mean = all_reduce_mean(torch.stack(sums).sum(0), self._num_tasks).to(CPU)
        return mean[:-1], float(mean[-1])

    def value_and_kl(self, theta: Params) -> tuple[float, float]:
        """Objective and mean KL divergence of a candidate, which adapts to the stored samples.

        The divergence is that of the adapted policy from the one that sampled `post`.
        """
        theta = move(theta, self.inner.device)

        @torch.no_grad()  # decorates the function itself: the grad mode is local to a thread
        def sum_over_chunk(data: TaskData) -> Tensor:
            return self._meta_gradient.value_and_kl(self, theta, data)

        sums = self._over_tasks(sum_over_chunk, self._data)
        mean = all_reduce_mean(torch.stack(sums).sum(0), self._num_tasks)
        # TRPO accepts a candidate where the objective exceeds that of θ, and the KL is within δ
        objective, kl = mean.tolist()
        return objective, kl

    def curvature(self, theta: Params, fraction: float = 1.0) -> Callable[[Tensor], Tensor]:
        """Products with the Hessian of the mean KL divergence at the θ that sampled.

        There the divergence and its gradient vanish, so that the Hessian equals the Gauss-Newton
        matrix 1/N Σ_i J_iᵀ F_i J_i, with J_i the Jacobian from θ to the adapted policy's
        distributions and F_i their Fisher matrix. It needs no third derivatives, and a product
        needs no forward pass: adaptation is linearised once. A `fraction` of the time steps, before
        and after adaptation, is used.
        """
        theta = move(theta, self.inner.device)
        pre, post = self.rollouts.pre, self.rollouts.post
        # neighbouring time steps are similar: every k-th step of all trajectories estimates the
        # curvature better than all steps of every k-th trajectory
        stride = max(1, round(1.0 / fraction))
        if stride > 1:
            horizon = self.rollouts.horizon
            pre = [subsample(step, horizon, stride) for step in pre]
            post = subsample(post, horizon, stride)
        # one function for each chunk of tasks, which holds its linearised adaptation
        products = self._over_tasks(
            lambda data: self._meta_gradient.curvature(theta, data), TaskData(pre, post, [])
        )

        def product(vector: Tensor) -> Tensor:
            vector = vector.to(self.inner.device)
            sums = map_chunks(lambda chunk: products[chunk.start](vector), len(products), 1)
            return all_reduce_mean(torch.stack(sums).sum(0), self._num_tasks).to(CPU)

        return product

    @property
    def _meta_gradient(self) -> MetaGradient:
        return meta_gradient_for(self.inner)

    @property
    def _data(self) -> TaskData:
        return TaskData(self.rollouts.pre, self.rollouts.post, self.penalty_samples)

    @property
    def _num_tasks(self) -> int:
        return len(self.rollouts.post.weights)

    def _over_tasks(self, function: Callable[[TaskData], Result], data: TaskData) -> list[Result]:
        """Apply a function to chunks of tasks, in parallel."""

        def on_chunk(chunk: slice) -> Result:
            return function(pytree.tree_map(lambda leaf: leaf[chunk], data))

        return self.inner.over_tasks(on_chunk, data.post)
