"""What a few-shot run learned, as an object to use: a network that adapts to examples and predicts.

It does not change: `adapt` returns another one.
"""

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
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.tasks import Episodes, Examples


@dataclass(frozen=True)
class AdaptiveNetwork:
    """A network that adapts to a few examples of a task, by whatever method trained it.

        predictions = network.adapt(inputs, targets).predict(others)

    Attributes:
        run: what it was loaded from.
        method: what trained it.
        params: the meta-parameters.
        support: what it adapts to, (1, K, ...) each; None before `adapt`.
        steps: how many gradient steps it takes on that, where it takes any.
    """

    run: Run
    method: SupervisedMethod
    params: Params
    support: Examples | None = None
    steps: int = 0

    @classmethod
    def of(cls, run: Run) -> "AdaptiveNetwork":
        """The network of a run that has a checkpoint.

        Raises:
            UserError: if the run is about policies, has no checkpoint, or it is damaged.
        """
        method = load_or_evaluate(run).method
        if not isinstance(method, SupervisedMethod):
            raise UserError(f"{run.path} has a policy: metarl.load({str(run.path)!r}) loads it")
        run.check_data_hashes(method.problem.data_hashes)
        return cls(run, method, load_checked_state(run, method).params)

    def __repr__(self) -> str:
        known = 0 if self.support is None else self.support[0].shape[1]
        return f"<{self.method.label} network of {self.run.path}, adapted to {known} examples>"

    def adapt(
        self, inputs: ArrayLike, targets: ArrayLike, steps: int | None = None
    ) -> "AdaptiveNetwork":
        """The network adapted to K examples, in place of those that it was adapted to before.

        Args:
            inputs: (K, ...): numbers, or images (C, H, W) in 0...1.
            targets: (K, 1) or (K,) numbers, or (K,) labels from 0.
            steps: of a method that takes gradient steps; as many as the run's evaluation has, at
                most, where None.

        Raises:
            UserError: if the examples are not such as the network was trained on.
        """
        tasks = self.method.problem.tasks("test")
        x = self._inputs(inputs)
        classify = self.method.problem.kind.name == "classification"
        y = torch.as_tensor(np.asarray(targets), dtype=torch.int64 if classify else torch.float32)
        if not classify and y.dim() == 1:
            y = y[:, None]
        if len(y) != len(x) or (classify and (y.dim() != 1 or not len(y))):
            raise UserError(
                f"{len(x)} inputs have targets of shape {tuple(y.shape)}: give each one"
            )
        if classify and (y.min() < 0 or y.max() >= tasks.outputs):
            raise UserError(f"labels must be whole numbers from 0 to {tasks.outputs - 1}")
        if not classify and y.shape[1:] != (tasks.outputs,):
            raise UserError(
                f"targets must have shape ({len(x)}, {tasks.outputs}), not {tuple(y.shape)}"
            )
        most = len(self._schedule)
        if steps is not None and (steps < 0 or (most and steps > most) or (not most and steps)):
            raise UserError(f"steps must be a whole number from 0 to {most}, not {steps}")
        taken = most if steps is None else steps
        return replace(self, support=(x[None], y[None]), steps=taken)

    def predict(self, inputs: ArrayLike) -> NDArray[np.float32]:
        """Outputs (M, O) for inputs (M, ...): numbers, or a logit for each class."""
        x = self._inputs(inputs)
        if self.support is None:
            raise UserError("it was not adapted yet: network.adapt(inputs, targets) first")
        nothing: Tensor = self.support[1][:, :0]
        episodes = Episodes(np.zeros((1, 1)), self.support, (x[None], nothing))
        sizes = self._schedule[: self.steps]
        outputs = self.method.predictions(self.params, episodes, sizes)
        predicted: NDArray[np.float32] = outputs[0, -1].numpy()
        return predicted

    def evaluate(self) -> AdaptationCurve:
        """Errors or accuracies on the run's unseen tasks; see `AdaptivePolicy.evaluate`."""
        return load_or_evaluate(self.run).curve

    @cached_property
    def _schedule(self) -> Sequence[float]:
        return load_or_evaluate(self.run).curve.step_sizes

    def _inputs(self, inputs: ArrayLike) -> Tensor:
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
