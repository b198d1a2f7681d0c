"""A trained few-shot network that adapts to examples and predicts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.params import Params
from metarl.report.evaluations import load_checked_state, load_or_evaluate
from metarl.runs.run import Run
from metarl.supervised.losses import CLASSIFICATION
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.tasks import Episodes, Examples


@dataclass(frozen=True)
class AdaptiveNetwork:
    """A network that adapts to a few examples of a task. It is immutable.

        predictions = network.adapt(inputs, targets).predict(queries)

    Attributes:
        run: the run it was loaded from.
        method: the method it was trained with.
        params: the meta-parameters.
        support: the support set, (1, K, ...) each; None before `adapt`.
        steps: the number of gradient steps, if the method takes any.
    """

    run: Run
    method: SupervisedMethod
    params: Params
    support: Examples | None = None
    steps: int = 0

    @classmethod
    def of(cls, run: Run) -> "AdaptiveNetwork":
        """Load the network of a run.

        Raises:
            UserError: if the run has a policy, or its checkpoint is missing or damaged.
        """
        method = load_or_evaluate(run).method
        if not isinstance(method, SupervisedMethod):
            raise UserError(f"{run.path} has a policy: load it with metarl.load({str(run.path)!r})")
        run.check_data_hashes(method.problem.data_hashes)
        return cls(run, method, load_checked_state(run, method).params)

    def __repr__(self) -> str:
        count = 0 if self.support is None else self.support[0].shape[1]
        return f"<{self.method.label} network of {self.run.path}, adapted to {count} examples>"

    def adapt(
        self, inputs: ArrayLike, targets: ArrayLike, steps: int | None = None
    ) -> "AdaptiveNetwork":
        """A network that is adapted from the meta-parameters to K examples.

        Args:
            inputs: (K, ...): numbers, or images (C, H, W) in 0...1.
            targets: (K, O) or, for one output, (K,) numbers; or (K,) labels from 0.
            steps: the number of gradient steps, at most that of the run's evaluation, which is
                also the default.

        Raises:
            UserError: if the examples do not have the shapes that the network was trained on.
        """
        outputs = self.method.problem.tasks("test").outputs
        x = self._to_inputs(inputs)
        classifies = self.method.problem.kind is CLASSIFICATION
        y = torch.as_tensor(np.asarray(targets), dtype=torch.int64 if classifies else torch.float32)
        if not classifies and y.dim() == 1:
            y = y[:, None]
        if len(y) != len(x) or (classifies and (y.dim() != 1 or not len(y))):
            raise UserError(
                f"there are {len(x)} inputs, but targets of shape {tuple(y.shape)}; pass one "
                "target for each input"
            )
        if classifies and (y.min() < 0 or y.max() >= outputs):
            raise UserError(f"labels must be integers from 0 to {outputs - 1}")
        if not classifies and y.shape[1:] != (outputs,):
            raise UserError(f"targets must have shape ({len(x)}, {outputs}), not {tuple(y.shape)}")
        max_steps = len(self._schedule)
        if steps is not None and not 0 <= steps <= max_steps:
            raise UserError(f"steps must be an integer from 0 to {max_steps}, not {steps}")
        return replace(
            self, support=(x[None], y[None]), steps=max_steps if steps is None else steps
        )

    def predict(self, inputs: ArrayLike) -> NDArray[np.float32]:
        """Outputs (M, O) for inputs (M, ...): numbers, or a logit for each class."""
        x = self._to_inputs(inputs)
        if self.support is None:
            raise UserError("the network is not adapted; call network.adapt(inputs, targets) first")
        no_targets: Tensor = self.support[1][:, :0]
        episodes = Episodes(np.zeros((1, 1)), self.support, (x[None], no_targets))
        outputs = self.method.predictions(self.params, episodes, self._schedule[: self.steps])
        # the stage after the last step
        predictions: NDArray[np.float32] = outputs[0, -1].numpy()
        return predictions

    def evaluate(self) -> AdaptationCurve:
        """Errors or accuracies on the run's held-out tasks; see `AdaptivePolicy.evaluate`."""
        return load_or_evaluate(self.run).curve

    @cached_property
    def _schedule(self) -> Sequence[float]:
        return load_or_evaluate(self.run).curve.step_sizes

    def _to_inputs(self, inputs: ArrayLike) -> Tensor:
        shape = self.method.problem.tasks("test").shape
        x = torch.as_tensor(np.asarray(inputs, dtype=np.float32))
        if shape == (1,) and x.dim() == 1:
            x = x[:, None]
        if x.shape[1:] != shape or not len(x) or not torch.isfinite(x).all():
            raise UserError(
                f"inputs must be finite numbers of shape (examples, {', '.join(map(str, shape))}), "
                f"not {tuple(x.shape)}"
            )
        return x
