"""Reptile (Nichol et al. 2018), Algorithm 2: θ moves towards the parameters adapted to each task.

Each task takes a few steps of gradient descent from θ to θ'_i, each on one minibatch of its support
set. The outer step is θ ← θ + ε/n Σ (θ'_i − θ). No second derivatives are computed, and the query
set is used for the training score only.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from metarl.config.sections import MethodSection, PositiveInt
from metarl.errors import UserError
from metarl.inner_loop import adapt, reverse
from metarl.params import Params, repeat
from metarl.rng import make_rng
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.losses import LossSettings
from metarl.supervised.maml import MAML
from metarl.supervised.problem import SupervisedProblem
from metarl.supervised.tasks import Episodes, Examples


class ReptileSettings(LossSettings):
    """`batch` is the number of examples in an inner step of training; None for all.

    The paper's outer step is `outer: {algorithm: sgd, learning_rate: 1.0, schedule: linear}`: ε =
    1 − i/n in iteration i of n (`anneal: true` is half a cosine instead). On images the paper's
    inner steps are Adam's with β₁ = 0; here they are those of `inner.optimizer`, whose Adam has
    β₁ = 0.9. An evaluation adapts to the whole support set in every step.
    """

    name: Literal["reptile"] = "reptile"
    batch: PositiveInt | None = None


class Reptile(MAML):
    """Learns parameters that are close to those of every task."""

    label: ClassVar[str] = "Reptile"
    Settings: ClassVar[type[MethodSection]] = ReptileSettings

    def __init__(self, problem: SupervisedProblem) -> None:
        super().__init__(problem)
        if self.batch > self.support_size:
            raise UserError(
                f"method.batch={self.batch} is more than the {self.support_size} examples of a "
                "support set; lower it, or raise inner.shots"
            )

    @classmethod
    def unused_settings(cls, config: SupervisedConfig) -> dict[str, str]:
        names = ("first_order", "learned_step_sizes", "multi_step_iterations")
        reason = "which does not differentiate a query loss"
        return super().unused_settings(config) | {f"inner.{name}": reason for name in names}

    @property
    def support_size(self) -> int:
        return self.problem.config.inner.shots * (self.problem.data.ways or 1)

    @property
    def batch(self) -> int:
        return int(self.settings.batch or self.support_size)

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """½ |θ − θ'|² of each task with constant θ', whose gradient is θ − θ' (section 5.2)."""
        settings = self.problem.config.inner
        start = repeat({name: leaf.detach() for name, leaf in params.items()}, len(episodes.tasks))
        sizes = self.step_sizes(params, (settings.step_size,) * settings.steps)
        batches = self.minibatches(episodes.support, iteration)
        adapted = adapt(
            self.support_loss,
            start,
            batches,
            sizes,
            gradient=reverse,
            optimizer=self.inner_optimizer,
        )
        # θ' has no graph: it starts from detached parameters, so that only θ has a gradient
        squares = [(leaf - adapted[name]).square().sum() for name, leaf in params.items()]
        with torch.no_grad():
            outputs = self.problem.network(adapted, episodes.query[0])
        return 0.5 * torch.stack(squares).sum(), outputs

    def minibatches(self, support: Examples, iteration: int) -> list[Examples]:
        """The minibatch of each inner step: examples in random order, reshuffled when used up."""
        rng = make_rng(self.problem.config.seed, "minibatches", iteration)
        steps = self.problem.config.inner.steps
        # passes over the support set, rounded up; the last one may be incomplete
        epochs = -(-steps * self.batch // self.support_size)
        order = np.concatenate([rng.permutation(self.support_size) for _ in range(epochs)])
        indices = torch.from_numpy(order[: steps * self.batch].reshape(steps, self.batch))
        inputs, targets = support
        return [(inputs[:, rows], targets[:, rows]) for rows in indices]
