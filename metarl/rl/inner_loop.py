"""How a policy adapts to one task: policy gradients on trajectories of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from metarl.inner_loop import adapt
from metarl.parallel import CPU, Result, map_chunks
from metarl.params import Params
from metarl.rl.config import InnerConfig
from metarl.rl.losses import Loss, reinforce
from metarl.rl.policies import Policy
from metarl.rl.trajectories import Samples
from metarl.step_sizes import StepSizes, initial_params, meta_parameters, step_sizes


@dataclass(frozen=True)
class InnerLoop:
    """A policy, and how it adapts.

    Attributes:
        policy: what adapts.
        settings: step sizes, estimator, what of the policy adapts.
        chunk_samples: how many samples, in whole tasks, are differentiated together. It changes no
            result, only the time: temporaries of a task or a few small ones stay in the processor's
            cache, those of forty do not.
        device: where gradients are computed, and where samples lie.
    """

    policy: Policy
    settings: InnerConfig = field(default_factory=InnerConfig)
    chunk_samples: int = 2000
    device: torch.device = CPU

    @property
    def loss(self) -> Loss:
        """The inner loss, of one task's samples."""
        return reinforce(self.policy, self.settings.estimator)

    def init(self, generator: torch.Generator) -> Params:
        """Fresh meta-parameters: θ, and step sizes where they are learned."""
        return meta_parameters(self.settings, self.policy.init(generator), self.policy.head)

    def step_sizes(self, meta: Params, given: Sequence[float] | None = None) -> Sequence[StepSizes]:
        """α of each step: the config's, or these in their place, or the learned ones."""
        if given is None:
            given = (self.settings.step_size,) * self.settings.steps
        return step_sizes(self.settings, meta, self.policy.head, given)

    def adapt(self, meta: Params, pre: Sequence[Samples]) -> Params:
        """θ'_i of one task from the samples of its inner steps; differentiable."""
        sizes = self.step_sizes(meta)
        return adapt(self.loss, initial_params(meta), pre, sizes, self.settings.first_order)

    def over_tasks(self, function: Callable[[slice], Result], samples: Samples) -> list[Result]:
        """The results of a function of some tasks, of about `chunk_samples` samples a time.

        Where there are half as many in all, they are two chunks at least, for two processors. What
        is summed up in which order does not depend on how many there are.
        """
        num_tasks, per_task = samples.weights.shape
        size = self.chunk_samples // per_task
        if num_tasks * per_task > self.chunk_samples // 2:
            size = min(size, math.ceil(num_tasks / 2))
        return map_chunks(function, num_tasks, max(1, size))
