"""MAML for few-shot supervised learning: Algorithm 2 of Finn et al. (2017).

    1   initialise θ                                        MAML.init
    2   while not done do                                   metarl.method.train
    3       sample a batch of tasks                         SupervisedMethod.draw
    4       for all tasks do                                MAML.loss, for all of them at once
    5           sample K support examples
    6           evaluate ∇_θ of the task's loss
    7           θ'_i = θ − α ∇_θ loss                       adapted, by metarl.inner_loop.adapt
    8           sample query examples
    9       end for
    10      update θ by the gradient of the adapted losses  metarl.optim.Adam
    11  end while

Tasks are stacked: parameters are (N, ...), losses are summed over tasks, and the inner loop is the
very same function as for a single one.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from metarl.inner_loop import adapt, reverse
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
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.prediction import predict_with
from metarl.supervised.tasks import Episodes, Examples


class MAML(SupervisedMethod):
    """Learns parameters from which a gradient step on a few examples adapts a network."""

    role: ClassVar[Role] = "meta-learner"
    adaptation_unit: ClassVar[AdaptationUnit | None] = GRADIENT_STEPS
    supports_distributed: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """By the settings of its inner loop: ANIL, Meta-SGD and so on.

        Without convolution images are another problem, of which other figures were published.
        """
        network = self.problem.network
        plain = network.kind == "mlp" and network.for_images
        return self.problem.config.inner.maml + ", no convolution" * bool(plain)

    def init(self, generator: torch.Generator) -> Params:
        """Line 1: θ, and step sizes where they are learned."""
        tasks = self.problem.tasks("train")
        theta = self.problem.network.init(generator, tasks.shape, tasks.outputs)
        return meta_parameters(self.problem.config.inner, theta, self.problem.network.head(theta))

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """Lines 4 to 9: the loss after the last step; other steps' where they have a weight."""
        settings, (inputs, targets) = self.problem.config.inner, episodes.query
        weights = step_weights(settings.steps, settings.multi_step_iterations, iteration)
        sizes = self.step_sizes(params, (settings.step_size,) * settings.steps)
        start = repeat(initial_params(params), len(targets))
        objective: Tensor | float = 0.0
        after = self.adapted(start, episodes.support, sizes, settings.first_order)
        for theta, weight in zip(after, weights, strict=True):
            if weight:
                outputs = self.problem.network(theta, inputs)
                objective = objective + weight * self.problem.kind.loss(outputs, targets)
        assert isinstance(objective, Tensor)
        return objective, outputs

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """What the network predicts before adaptation, and after each step."""
        predict = predict_with(self.problem.config.evaluation.transductive)
        start = repeat(initial_params(params), len(inputs))
        for theta in self.adapted(start, support, self.step_sizes(params, step_sizes)):
            yield predict(self.problem.network, theta, support, inputs)

    def adapted(
        self,
        params: Params,
        support: Examples,
        sizes: Sequence[StepSizes],
        first_order: bool = False,
    ) -> Iterator[Params]:
        """Lines 5 to 7: the parameters of stacked tasks after 0, 1, 2, ... steps."""
        yield params
        for size in sizes:
            params = adapt(
                self.support_loss, params, [support], [size], first_order, gradient=reverse
            )
            yield params

    def support_loss(self, params: Params, batch: Examples) -> Tensor:
        """What an inner step lowers, summed over stacked tasks."""
        return self.problem.kind.loss(self.problem.network(params, batch[0]), batch[1])

    def step_sizes(self, params: Params, given: Sequence[float]) -> list[StepSizes]:
        """α of each step: these, or the learned ones in their place."""
        head = self.problem.network.head(split(params)[0])
        return step_sizes(self.problem.config.inner, params, head, given)

    @property
    def schedule(self) -> tuple[float, ...]:
        """The config's step size, the same for every step of the evaluation."""
        config = self.problem.config
        return (config.inner.step_size,) * config.evaluation.steps

    @property
    def stage(self) -> str:
        """Scores of training are those after the last step."""
        return f"after_{self.problem.config.inner.steps}_steps"

    def told(self, params: Params, step_sizes: Sequence[float]) -> tuple[float, ...]:
        """Learned step sizes are told by their means."""
        return mean_step_sizes(self.step_sizes(params, step_sizes))


def step_weights(steps: int, multi_step_iterations: int, iteration: int) -> list[float]:
    """Of the query loss after 0, 1, ... inner steps.

    MAML's is that after the last alone. In the first `multi_step_iterations` the other steps count
    as well, and less and less (Antoniou et al. 2019, section 4): all alike at first.
    """
    span = multi_step_iterations
    other = max(0.0, 1.0 - iteration / span) / steps if span else 0.0
    return [0.0, *[other] * (steps - 1), 1.0 - (steps - 1) * other]
