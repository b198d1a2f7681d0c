"""MAML for few-shot supervised learning: Algorithm 2 of Finn et al. (2017).

    1   initialise θ                                        MAML.initial_state
    2   while not done do                                   metarl.method.train
    3       sample a batch of tasks                         SupervisedMethod.sample_batch
    4       for all tasks do                                MAML.loss, for all of them at once
    5           sample K support examples
    6           evaluate ∇_θ of the task's loss
    7           θ'_i = θ − α ∇_θ loss                       adapted, by metarl.inner_loop.adapt_step
    8           sample query examples
    9       end for
    10      update θ by the gradient of the adapted losses  metarl.optim.Adam
    11  end while

Tasks are stacked: parameters are (N, ...), and losses are summed over tasks, so that the gradient
of the sum is that of each task for its own parameters.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from metarl.config.sections import MethodSection
from metarl.inner_loop import InnerOptimizer, adapt_step, reverse
from metarl.method import GRADIENT_STEPS, AdaptationUnit, Role
from metarl.params import Params, repeat
from metarl.step_sizes import (
    StepSizes,
    initial_params,
    mean_step_sizes,
    meta_parameters,
    split,
    step_sizes,
)
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.losses import LossSettings
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.prediction import predict
from metarl.supervised.tasks import Episodes, Examples


class MAML(SupervisedMethod):
    """Learns initial parameters from which a few gradient steps adapt a network to a task."""

    role: ClassVar[Role] = "meta-learner"
    Settings: ClassVar[type[MethodSection]] = LossSettings
    adaptation_unit: ClassVar[AdaptationUnit | None] = GRADIENT_STEPS
    supports_distributed: ClassVar[bool] = True

    @classmethod
    def unused_settings(cls, config: SupervisedConfig) -> dict[str, str]:
        return {"baseline.": "which is not a baseline"}

    @property
    def label(self) -> str:
        """The variant that the settings of the inner loop select: ANIL, Meta-SGD and so on.

        Published accuracies on images without convolutions differ, so the label says so.
        """
        network = self.problem.network
        fully_connected = network.kind == "mlp" and network.for_images
        return self.problem.config.inner.maml + ", no convolution" * bool(fully_connected)

    def init(self, generator: torch.Generator) -> Params:
        """Line 1: θ, and the step sizes if they are learned."""
        theta = self.problem.init_network(generator)
        return meta_parameters(self.problem.config.inner, theta, self.problem.network.head(theta))

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """Lines 4 to 9: the query loss after the last step, or a weighted sum over the steps."""
        settings, (inputs, targets) = self.problem.config.inner, episodes.query
        weights = step_weights(settings.steps, settings.multi_step_iterations, iteration)
        sizes = (settings.step_size,) * settings.steps
        objective: Tensor | float = 0.0
        stages = self.stages(params, episodes.support, sizes)
        for theta, weight in zip(stages, weights, strict=True):
            if weight:  # the query set is evaluated only at the steps that count
                outputs = self.problem.network(theta, inputs)
                objective = objective + weight * self.problem.loss(outputs, targets)
        assert isinstance(objective, Tensor)
        return objective, outputs

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        for theta in self.stages(params, support, step_sizes):
            yield predict(
                self.problem.network, theta, support, inputs, self.problem.prediction_mode
            )

    def stages(
        self, params: Params, support: Examples, step_sizes: Sequence[float]
    ) -> Iterator[Params]:
        """The parameters of stacked tasks before adaptation, and after each step."""
        # one set of parameters for each task: (...) becomes (N, ...), without a copy of the memory
        start = repeat(initial_params(params), len(support[1]))
        return self.adapted(start, support, self.step_sizes(params, step_sizes))

    def adapted(
        self, params: Params, support: Examples, sizes: Sequence[StepSizes]
    ) -> Iterator[Params]:
        """Lines 5 to 7: the parameters of stacked tasks after 0, 1, 2, ... steps."""
        yield params
        state: Params = {}
        for step, size in enumerate(sizes):
            params, state = adapt_step(
                self.support_loss,
                params,
                support,
                size,
                self.problem.config.inner.first_order,
                reverse,
                self.inner_optimizer,
                state,
                step,
            )
            yield params

    @property
    def inner_optimizer(self) -> InnerOptimizer:
        """The optimiser of the inner steps of stacked tasks."""
        settings = self.problem.config.inner
        return InnerOptimizer(settings.optimizer, settings.clip, stacked=True)

    def support_loss(self, params: Params, batch: Examples) -> Tensor:
        return self.problem.loss(self.problem.network(params, batch[0]), batch[1])

    def step_sizes(self, params: Params, fixed: Sequence[float]) -> list[StepSizes]:
        """α of each step: the learned step sizes, or `fixed` if none are learned."""
        head = self.problem.network.head(split(params)[0])
        return step_sizes(self.problem.config.inner, params, head, fixed)

    @property
    def schedule(self) -> tuple[float, ...]:
        config = self.problem.config
        return (config.inner.step_size,) * config.evaluation_steps

    @property
    def train_metric_suffix(self) -> str:
        # training metrics are those after the last inner step
        return f"after_{self.problem.config.inner.steps}_steps"

    def reported_step_sizes(self, params: Params, step_sizes: Sequence[float]) -> tuple[float, ...]:
        return mean_step_sizes(self.step_sizes(params, step_sizes))


def step_weights(steps: int, multi_step_iterations: int, iteration: int) -> list[float]:
    """Weights of the query losses after 0, 1, ..., `steps` inner steps; they sum to 1.

    MAML has the loss after the last step only. During the first `multi_step_iterations`, the losses
    after earlier steps have weights that start equal and decrease linearly to zero (multi-step
    loss, Antoniou et al. 2019, section 4).
    """
    span = multi_step_iterations
    earlier = max(0.0, 1.0 - iteration / span) / steps if span else 0.0
    return [0.0, *[earlier] * (steps - 1), 1.0 - (steps - 1) * earlier]
