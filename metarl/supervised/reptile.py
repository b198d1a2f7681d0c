"""Reptile (Nichol et al. 2018), algorithm 2, batched: towards where tasks' parameters end up.

Each task takes a few steps of gradient descent from θ, on one minibatch of its examples after the
other, and θ moves towards the mean of where they arrive. Nothing is differentiated through the
steps, and the examples that tasks are judged by are not learned from.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from metarl.config.sections import MethodSection, reject_settings
from metarl.errors import UserError
from metarl.inner_loop import adapt, reverse
from metarl.params import Params, repeat
from metarl.rng import make_rng
from metarl.supervised.maml import MAML
from metarl.supervised.methods import ReptileSettings
from metarl.supervised.problem import SupervisedProblem
from metarl.supervised.tasks import Episodes, Examples


class Reptile(MAML):
    """Learns parameters that are near those of every task."""

    label: ClassVar[str] = "Reptile"
    Settings: ClassVar[type[MethodSection]] = ReptileSettings

    def __init__(self, problem: SupervisedProblem) -> None:
        super().__init__(problem)
        reject_settings(
            problem.config.inner,
            ["learned_step_sizes", "multi_step_iterations"],
            problem.config.method,
            "which has no loss of the queries to differentiate",
        )
        if self.batch > self.support:
            raise UserError(
                f"method.batch={self.batch} is more than the {self.support} examples of a support "
                "set; lower it, or raise inner.shots"
            )

    @property
    def support(self) -> int:
        """How many examples of a task there are to learn from."""
        return self.problem.config.inner.shots * (self.problem.data.ways or 1)

    @property
    def batch(self) -> int:
        """How many of them an inner step takes."""
        settings = self.problem.config.method
        assert isinstance(settings, ReptileSettings)
        return settings.batch or self.support

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """½ |θ − θ'|² of each task, θ' being constant: the gradient is θ − θ' (section 5.2)."""
        settings = self.problem.config.inner
        start = repeat({name: leaf.detach() for name, leaf in params.items()}, len(episodes.tasks))
        sizes = self.step_sizes(params, (settings.step_size,) * settings.steps)
        batches = self.minibatches(episodes.support, iteration)
        adapted = adapt(self.support_loss, start, batches, sizes, gradient=reverse)
        apart = [(leaf - adapted[name]).square().sum() for name, leaf in params.items()]
        with torch.no_grad():
            outputs = self.problem.network(adapted, episodes.query[0])
        return 0.5 * torch.stack(apart).sum(), outputs

    def minibatches(self, support: Examples, iteration: int) -> list[Examples]:
        """Of each inner step: all examples in random order, and again once there are none left."""
        rng = make_rng(self.problem.config.seed, "minibatches", iteration)
        steps = self.problem.config.inner.steps
        rounds = -(-steps * self.batch // self.support)
        order = np.concatenate([rng.permutation(self.support) for _ in range(rounds)])
        chosen = torch.from_numpy(order[: steps * self.batch].reshape(steps, self.batch))
        inputs, targets = support
        return [(inputs[:, some], targets[:, some]) for some in chosen]
