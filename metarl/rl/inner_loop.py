"""Adaptation of a policy to one task: policy gradients on trajectories of the task."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metarl.distributed import all_reduce_mean
from metarl.inner_loop import InnerOptimizer, adapt, adapt_step
from metarl.parallel import CPU, Result, map_chunks, move
from metarl.params import Params
from metarl.rl.advantages import (
    MIN_STEPS_PER_FEATURE,
    Prior,
    fit_prior,
    num_features,
    with_advantages,
)
from metarl.rl.config import InnerConfig
from metarl.rl.losses import Loss, inner_loss
from metarl.rl.policies import Policy
from metarl.rl.trajectories import Samples, Trajectories
from metarl.step_sizes import StepSizes, initial_params, meta_parameters, step_sizes


@dataclass(frozen=True)
class InnerLoop:
    """A policy and the settings of its adaptation.

    Attributes:
        policy: the policy that adapts.
        settings: step sizes, estimator, and which parameters adapt.
        chunk_samples: the number of samples, in whole tasks, that are differentiated together. It
            affects only the speed: temporaries of a few tasks stay in the processor's cache.
        device: where samples are stored and gradients computed.
        all_reduce_mean: of a meta-batch that the processes of torchrun share, or one has alone.
    """

    policy: Policy
    settings: InnerConfig = field(default_factory=InnerConfig)
    chunk_samples: int = 2000
    device: torch.device = CPU
    all_reduce_mean: Callable[[Tensor, int], Tensor] = all_reduce_mean

    @property
    def loss(self) -> Loss:
        """The inner loss of one task's samples."""
        return inner_loss(self.policy, self.settings.estimator)

    @property
    def optimizer(self) -> InnerOptimizer:
        """The optimiser of the inner steps of one task."""
        return InnerOptimizer(self.settings.optimizer, self.settings.clip)

    def init(self, generator: torch.Generator) -> Params:
        """Fresh meta-parameters: θ, and the step sizes if they are learned."""
        return meta_parameters(self.settings, self.policy.init(generator), self.policy.head)

    def step_sizes(self, meta: Params, sizes: Sequence[float] | None = None) -> Sequence[StepSizes]:
        """α of each step: learned ones if there are any, else `sizes`, by default the config's."""
        if sizes is None:
            sizes = (self.settings.step_size,) * self.settings.steps
        return step_sizes(self.settings, meta, self.policy.head, sizes)

    def with_advantages(self, trajectories: Trajectories, prior: Prior | None = None) -> Samples:
        """The samples of trajectories with advantages by the config's γ and λ, on `device`."""
        settings = self.settings
        samples = with_advantages(
            trajectories,
            settings.gamma,
            settings.gae_lambda,
            self.policy.image,
            settings.bootstrap,
            settings.baseline,
            prior,
        )
        return move(samples, self.device)

    def prior(self, trajectories: Trajectories) -> Prior | None:
        """The prior of the baseline from trajectories of training tasks, if it has one."""
        settings = self.settings
        # other baselines are fitted on the very batch that they judge (Duan et al. 2016)
        if settings.baseline != "linear_prior":
            return None
        return fit_prior(
            trajectories,
            settings.gamma,
            settings.prior_samples,
            self.policy.image,
            self.all_reduce_mean,
        )

    def warn_if_too_few(self, num_steps: int) -> None:
        """Warn if the baseline nearly interpolates the returns of a batch of time steps.

        Half-cheetah direction after one step on 1, 2, 3, 5 and 20 episodes of 200 steps had returns
        of −98 ± 103, 129 ± 94, 322 ± 80, 421 ± 48 and 507 ± 12.
        """
        settings, policy = self.settings, self.policy
        features = num_features(policy.observation_size, policy.image, settings.baseline)
        if settings.baseline != "linear_prior" and num_steps < MIN_STEPS_PER_FEATURE * features:
            warnings.warn(
                f"adapting to {num_steps} time steps with a baseline of {features} "
                "features, which nearly interpolates the returns: advantages are mostly noise; use "
                f"more episodes (the config has {settings.episodes_per_task}), or another "
                "inner.baseline",
                stacklevel=2,
            )

    def adapt(self, meta: Params, pre: Sequence[Samples]) -> Params:
        """θ'_i of one task from the samples of each inner step; differentiable."""
        # learned step sizes are part of `meta`, so that the meta-gradient reaches them
        sizes = self.step_sizes(meta)
        return adapt(
            self.loss,
            initial_params(meta),
            pre,
            sizes,
            self.settings.first_order,
            optimizer=self.optimizer,
        )

    def adapt_step(
        self, params: Params, samples: Samples, alpha: StepSizes, state: Params, step: int
    ) -> tuple[Params, Params]:
        """One task's parameters after its inner step number `step`, and the optimiser's state."""
        return adapt_step(
            self.loss,
            params,
            samples,
            alpha,
            self.settings.first_order,
            optimizer=self.optimizer,
            state=state,
            step=step,
        )

    def over_tasks(self, function: Callable[[slice], Result], samples: Samples) -> list[Result]:
        """The results of a function of chunks of tasks with about `chunk_samples` samples each.

        The chunks, and with them the order of sums, do not depend on the number of processors.
        """
        num_tasks, per_task = samples.weights.shape
        size = self.chunk_samples // per_task
        if num_tasks * per_task > self.chunk_samples // 2:  # enough work for two processors
            size = min(size, math.ceil(num_tasks / 2))
        return map_chunks(function, num_tasks, max(1, size))
