"""A trained few-shot network that adapts to examples and predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL.Image import Image
from torch import Tensor

from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.method import load_method, method_class
from metarl.models.adapted_file import load_adapted, save_adapted
from metarl.params import Params
from metarl.report.evaluations import load_checked_state, own_evaluation, with_evaluation
from metarl.rng import make_rng
from metarl.runs.run import Run
from metarl.supervised.data import CustomImages, ImageData
from metarl.supervised.datasets.pixels import to_array, to_pixels
from metarl.supervised.losses import CLASSIFICATION
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.tasks import Episodes, Examples, Tasks


@dataclass(frozen=True)
class AdaptiveNetwork:
    """A trained network that adapts to a few examples of a task. Returned by `metarl.load_network`.

        predictions = network.adapt(inputs, targets).predict(queries)

    `adapt` returns a new network and does not change this one.

    Attributes:
        run: the run that it was loaded from.
        method: the method that trained it.
        params: the meta-parameters, by name.
        support: the examples passed to `adapt`, inputs (1, K, ...) and targets (1, K, ...); None
            before.
        steps: the number of gradient steps that `predict` takes on them; without effect on methods
            that take none.
        step_sizes: of the gradient steps, those of the run's evaluation.
    """

    run: Run
    method: SupervisedMethod
    params: Params
    support: Examples | None = None
    steps: int = 0
    step_sizes: tuple[float, ...] = ()

    @classmethod
    def of(cls, run: Run) -> AdaptiveNetwork:
        """Load the network of a run; see `metarl.load_network`."""
        if not issubclass(method_class(run.config), SupervisedMethod):
            raise UserError(f"{run.path} has a policy: load it with metarl.load({str(run.path)!r})")
        evaluation = own_evaluation(run)
        method = cast(SupervisedMethod, evaluation.method)
        run.check_data_hashes(method.problem.data_hashes)
        params = load_checked_state(run, method).params
        return cls(run, method, params, step_sizes=evaluation.curve.step_sizes)

    def __repr__(self) -> str:
        count = 0 if self.support is None else self.support[0].shape[1]
        return f"<{self.method.label} network of {self.run.path}, adapted to {count} examples>"

    def adapt(
        self, inputs: ArrayLike, targets: ArrayLike, steps: int | None = None
    ) -> AdaptiveNetwork:
        """Adapt to K examples, from the meta-parameters; earlier examples are forgotten.

        Args:
            inputs: numbers (K, ...), or images (K, C, H, W) as bytes in 0...255 or floats in 0...1.
                In Omniglot, strokes are 1 and the background is 0. For class folders and data sets
                also a list of PIL images, which are converted as in training.
            targets: in regression, numbers (K, O), or (K,) if there is one output; in
                classification, integer labels (K,) from 0.
            steps: the number of gradient steps; by default that of the run's evaluation
                (`evaluation.steps`), which is also the maximum.

        Returns:
            The adapted network. This one is unchanged.

        Raises:
            UserError: if shapes, ranges or labels of the examples differ from those in training.
        """
        x = self._to_inputs(inputs)
        classifies = self.method.problem.kind is CLASSIFICATION
        y = (
            self._to_labels(targets)
            if classifies
            else _finite("targets", targets, (self._tasks.outputs,))[0]
        )
        if len(y) != len(x):
            raise UserError(
                f"there are {len(x)} inputs, but targets of shape {tuple(y.shape)}; pass one "
                "target for each input"
            )
        max_steps = len(self.step_sizes)
        steps = max_steps if steps is None else steps
        if not isinstance(steps, int | np.integer) or not 0 <= steps <= max_steps:
            raise UserError(f"steps must be an integer from 0 to {max_steps}, not {steps!r}")
        # `predict` adapts: methods without steps embed queries and support in one batch
        return replace(self, support=(x[None], y[None]), steps=int(steps))

    def predict(self, inputs: ArrayLike) -> NDArray[np.float32]:
        """Predict outputs for inputs, after adaptation to the examples passed to `adapt`.

        Args:
            inputs: (M, ...), as for `adapt`.

        Returns:
            (M, O): in regression the predicted numbers, in classification the logits of O classes.

        Raises:
            UserError: if `adapt` was not called, shapes or ranges of the inputs differ from those
                in training, or the adaptation diverges.
        """
        x = self._to_inputs(inputs)
        if self.support is None:
            raise UserError("the network is not adapted; call network.adapt(inputs, targets) first")
        # an empty tensor of the right type: `predictions` does not read the targets of queries
        no_targets: Tensor = self.support[1][:, :0]
        episodes = Episodes(np.zeros((1, 1)), self.support, (x[None], no_targets))
        outputs = self.method.predictions(self.params, episodes, self.step_sizes[: self.steps])
        # the stage after the last step
        predictions: NDArray[np.float32] = outputs[0, -1].numpy()
        if not np.isfinite(predictions).all():
            raise UserError(
                f"the predictions after {self.steps} steps are not finite; scale inputs and "
                "targets like those of the training, or adapt with fewer steps"
            )
        return predictions

    def evaluate(self, **settings: Any) -> AdaptationCurve:
        """Evaluate on the held-out tasks of the run: errors or accuracies after 0, 1, 2, ... steps.

        Args:
            settings: settings of the section `evaluation` to change, such as `shots=5`. Without
                any, the evaluation stored in the run is read if it has the settings of the config,
                perhaps on other tasks; with some, the result is not stored.

        Raises:
            UserError: if a setting does not exist, or the method does not support its value.
        """
        if not settings:
            return own_evaluation(self.run).curve
        method = load_method(with_evaluation(self.run, settings).config)
        method.problem.check()
        # a custom module takes its buffers from the initial state
        return method.evaluate(load_checked_state(self.run, method).params)

    def save(self, file: str | Path) -> Path:
        """Save the examples that it is adapted to, for `load`; the run has the weights.

        Raises:
            UserError: if `adapt` was not called.
        """
        if self.support is None:
            raise UserError("the network is not adapted, and its weights are saved in its run")
        inputs, targets = self.support
        tensors = {"inputs": inputs, "targets": targets}
        return save_adapted(file, self.run, tensors, {"gradient_steps": self.steps})

    def load(self, file: str | Path) -> AdaptiveNetwork:
        """Load an adapted network that `save` wrote: `metarl.load_network(run).load(file)`.

        Raises:
            UserError: if the file cannot be read, or was saved by a network with other weights.
        """
        tensors, (steps,) = load_adapted(file, self.run, "network", ("gradient_steps",))
        return replace(self, support=(tensors["inputs"], tensors["targets"]), steps=steps)

    @cached_property
    def _tasks(self) -> Tasks:
        return self.method.problem.tasks("test")

    def _to_inputs(self, inputs: ArrayLike) -> Tensor:
        shape, data = self._tasks.shape, self.method.problem.data
        # numpy would convert images too, but not resize them as in training
        if isinstance(inputs, Image) or (
            isinstance(inputs, list | tuple) and any(isinstance(x, Image) for x in inputs)
        ):
            if not isinstance(data, CustomImages) or isinstance(inputs, Image):
                raise UserError(
                    f"inputs must be an array (examples, {', '.join(map(str, shape))})"
                    + ", or a list of PIL images" * isinstance(data, CustomImages)
                )
            images = [
                to_pixels(image, data.size, data.channels, f"inputs[{index}]")
                for index, image in enumerate(inputs)
            ]
            inputs = np.moveaxis(np.stack(images), -1, 1)
        x, dtype = _finite("inputs", inputs, shape)
        return self._scaled(x, dtype == np.uint8)

    def _scaled(self, x: Tensor, bytes_: bool) -> Tensor:
        """Inputs in the range of the training data: nothing else reveals a wrong scale."""
        problem, largest = self.method.problem, float(x.max())
        if isinstance(problem.data, ImageData):
            # bytes of 0 and 1 may be black and white, or almost black
            if bytes_ and largest != 1.0:
                return x / 255.0
            if bytes_ or x.min() < 0.0 or largest > 1.0:
                raise UserError(
                    "images must be of bytes in 0...255 (uint8) or of floats in 0...1, not "
                    f"{'bytes' if bytes_ else 'numbers'} in {float(x.min()):g}...{largest:g}"
                )
        elif bytes_ or len(x.shape) == 4:
            inner = problem.config.inner
            episodes = self._tasks.sample(make_rng(0, "range"), 1, inner.shots, inner.queries)
            # custom tasks have no declared range: a sample of the training tasks shows it
            low, high = (float(limit) for limit in torch.aminmax(episodes.query[0]))
            as_floats = bytes_ and low >= 0.0 and high <= 1.0 < largest
            as_bytes = len(x.shape) == 4 and high > 2.0 and 0.0 < largest <= 1.0
            if as_floats or as_bytes:
                raise UserError(
                    f"inputs are in {float(x.min()):g}...{largest:g}, those of the training tasks "
                    f"in {low:g}...{high:g}; scale them alike"
                )
        return x

    def _to_labels(self, targets: ArrayLike) -> Tensor:
        # metric-based methods compare with any number of classes, others have one output for each
        ways = None if self.method.supports_other_ways else self._tasks.outputs
        expected = f"labels must be integers from 0{'' if ways is None else f' to {ways - 1}'}"
        try:
            labels = to_array(targets)
        except ValueError as error:
            raise UserError(f"{expected}; number the classes: {error}") from error
        if labels.ndim != 1:
            raise UserError(
                f"{expected}, of shape (examples,), not {labels.shape}; convert one-hot vectors "
                "with argmax(-1)"
            )
        whole = np.isfinite(labels) & (labels == np.floor(labels))
        if not whole.all():
            raise UserError(f"{expected}, not {labels[~whole][0]}")
        classes = np.unique(labels)
        if len(labels) and (classes[0] < 0 or (ways is not None and classes[-1] >= ways)):
            raise UserError(f"{expected}, not {classes[0]:g}...{classes[-1]:g}")
        if ways is None and len(classes) != classes[-1] + 1:
            raise UserError(
                "labels must number the classes 0, 1, ... without a gap, not "
                f"{', '.join(f'{number:g}' for number in classes)}"
            )
        return torch.from_numpy(labels.astype(np.int64))


def _finite(name: str, values: ArrayLike, shape: tuple[int, ...]) -> tuple[Tensor, np.dtype[Any]]:
    """Examples of a shape, (K, *shape), and the type in which they were passed."""
    try:
        array = to_array(values)
    except ValueError as error:
        raise UserError(f"{name} must be numbers: {error}") from error
    with np.errstate(over="ignore"):  # too large for single precision is not finite either
        x = torch.from_numpy(array.astype(np.float32))
    x = x[:, None] if shape == (1,) and x.dim() == 1 else x
    if x.shape[1:] != shape or not len(x):
        order = " (channels first)" * (len(shape) == 3 and x.shape[1:] == (*shape[1:], shape[0]))
        raise UserError(
            f"{name} must have the shape (examples, {', '.join(map(str, shape))}){order}, not "
            f"{tuple(x.shape)}"
        )
    if not torch.isfinite(x).all():
        raise UserError(f"{name} must be finite, but have NaN or infinite numbers; remove those")
    return x, array.dtype
