"""The meta-objective: how well policies do after they adapted, as a function of θ.

    gradient    ∇_θ 1/N Σ_i surrogate(adapt(θ, pre_i), post_i), exact, through the inner steps
    value_and_kl  the same at a candidate, which re-adapts from the stored trajectories, and its KL
    curvature   products with the Hessian of the mean KL at the θ that was sampled from

All three work in chunks of tasks; sums over tasks go through `metarl.distributed`. Multilayer
perceptrons are differentiated by `metarl.rl.mlp_gradients`, all other policies by autograd.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from metarl.distributed import mean_over_tasks
from metarl.inner_loop import adapt
from metarl.optim import Objective
from metarl.parallel import CPU, Result, map_chunks, move
from metarl.params import Params, flatten, unflatten
from metarl.rl import mlp_gradients as derivatives
from metarl.rl.gauss_newton import fisher_metric, gauss_newton
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.losses import mean_kl, surrogate
from metarl.rl.policies import Densities
from metarl.rl.trajectories import Distribution, Rollouts, Samples, subsample, tasks_of
from metarl.step_sizes import initial_params


@dataclass(frozen=True)
class MetaObjective:
    """The mean over tasks of TRPO's surrogate after adaptation; see `metarl.optim.Objective`.

    Attributes:
        inner: how policies adapt.
        rollouts: what was sampled at θ, and along its adaptation.
    """

    inner: InnerLoop
    rollouts: Rollouts

    @property
    def costed(self) -> list[Samples]:
        """What the way to the adapted policy costs is measured on, an inner step each.

        None where it costs nothing.
        """
        return []

    def reached(self, policy: Densities, params: Params, post: Samples) -> Tensor:
        """What is to grow, of the adapted policy: its surrogate."""
        return surrogate(policy, params, post)

    def cost(self, policy: Densities, params: Params, pre: Samples) -> Tensor:
        """What is subtracted for the policy that an inner step starts from, of its `costed`."""
        raise NotImplementedError

    def of_task(
        self, theta: Params, pre: list[Samples], post: Samples, costed: list[Samples]
    ) -> tuple[Tensor, Params]:
        """The objective of one task, and its adapted parameters."""
        policy, inner = self.inner.policy, self.inner
        params = initial_params(theta)
        spent = post.weights.new_zeros(())
        for step, (samples, size) in enumerate(zip(pre, inner.step_sizes(theta), strict=True)):
            if costed:
                spent = spent + self.cost(policy, params, costed[step])
            params = adapt(inner.loss, params, [samples], [size], inner.settings.first_order)
        return self.reached(policy, params, post) - spent, params

    def minibatches(self) -> list[Objective]:
        """Itself: the meta-gradient is noisy enough with all samples."""
        return [self]

    def gradient(self, theta: Params) -> tuple[Tensor, float]:
        """The meta-gradient (P,), and the objective's value."""
        theta = move(theta, self.inner.device)

        def total(
            theta: Params, pre: list[Samples], post: Samples, costed: list[Samples]
        ) -> Tensor:
            return vmap(self.of_task, in_dims=(None, 0, 0, 0))(theta, pre, post, costed)[0].sum()

        def summed(pre: list[Samples], post: Samples, costed: list[Samples]) -> Tensor:
            if derivatives.serves(self.inner.policy):
                losses = self.reached, self.cost
                return derivatives.gradient(self.inner, theta, pre, post, costed, *losses)
            gradient, value = grad_and_value(total)(theta, pre, post, costed)
            return torch.cat([flatten(gradient), value.view(1)])

        sums = self._over_tasks(summed, self.rollouts.pre, self.rollouts.post, self.costed)
        mean = mean_over_tasks(torch.stack(sums).sum(0), self._num_tasks).to(CPU)
        return mean[:-1], float(mean[-1])

    def value_and_kl(self, theta: Params) -> tuple[float, float]:
        """Objective and mean KL of a candidate, which re-adapts from the stored trajectories.

        The divergence is that of the adapted policy from the one that `post` was sampled with.
        """
        theta = move(theta, self.inner.device)

        def both(
            theta: Params, pre: list[Samples], post: Samples, costed: list[Samples]
        ) -> tuple[Tensor, Tensor]:
            value, adapted = self.of_task(theta, pre, post, costed)
            return value, mean_kl(self.inner.policy, adapted, post)

        @torch.no_grad()  # here, because every thread has a mode of its own
        def summed(pre: list[Samples], post: Samples, costed: list[Samples]) -> Tensor:
            if derivatives.serves(self.inner.policy):
                losses = self.reached, self.cost
                return derivatives.evaluate(self.inner, theta, pre, post, costed, *losses)
            values = vmap(both, in_dims=(None, 0, 0, 0))(theta, pre, post, costed)
            return torch.stack(values).sum(dim=1).double()

        sums = self._over_tasks(summed, self.rollouts.pre, self.rollouts.post, self.costed)
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

        def outputs(theta: Params, pre: list[Samples], post: Samples) -> Distribution:
            return policy.distribution(self.inner.adapt(theta, pre), post.observations)

        def linearised(
            pre: list[Samples], post: Samples, _: list[Samples]
        ) -> Callable[[Tensor], Tensor]:
            if derivatives.serves(policy):
                return derivatives.curvature(self.inner, theta, pre, post)
            weighted = gauss_newton(
                lambda theta: vmap(outputs, in_dims=(None, 0, 0))(theta, pre, post),
                theta,
                fisher_metric(policy, post.weights),
            )
            return lambda vector: flatten(weighted(unflatten(vector, theta)))

        products = self._over_tasks(linearised, pre, post, [])

        def product(vector: Tensor) -> Tensor:
            vector = vector.to(self.inner.device)
            pieces = map_chunks(lambda chunk: products[chunk.start](vector), len(products), 1)
            return mean_over_tasks(torch.stack(pieces).sum(0), self._num_tasks).to(CPU)

        return product

    @property
    def _num_tasks(self) -> int:
        return len(self.rollouts.post.weights)

    def _over_tasks(
        self,
        function: Callable[[list[Samples], Samples, list[Samples]], Result],
        pre: list[Samples],
        post: Samples,
        costed: list[Samples],
    ) -> list[Result]:
        def some(chunk: slice) -> Result:
            before, spent = ([tasks_of(step, chunk) for step in part] for part in (pre, costed))
            return function(before, tasks_of(post, chunk), spent)

        return self.inner.over_tasks(some, post)
