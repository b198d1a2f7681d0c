"""An experiment in few-shot regression or classification, put together from its config."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from metarl.baselines.nearest_neighbour import nearest_neighbour
from metarl.compute import device_for
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve, Metric
from metarl.networks.layers import head
from metarl.params import Params
from metarl.randomness import stream, torch_stream
from metarl.supervised.config import ImagesConfig, SupervisedConfig
from metarl.supervised.datasets.images import ImageSet, load_images
from metarl.supervised.episodes import ImageTasks
from metarl.supervised.losses import accuracies, cross_entropy, squared_error, squared_errors
from metarl.supervised.maml import InnerLoop, outputs_by_step, weights
from metarl.supervised.models import Model
from metarl.supervised.prediction import Predict, beside_support, one_by_one, together
from metarl.supervised.sinusoid import SinusoidTasks
from metarl.supervised.tasks import Episodes
from metarl.supervised.training import meta_train, samples_per_iteration
from metarl.training import Metrics, TrainingState

ERROR = Metric("error", "mean squared error", "examples", higher_is_better=False)
ACCURACY = Metric("accuracy", "accuracy (%)", "examples")
# how many examples' activations the processor's cache holds, about
CHUNK_OF_POINTS, CHUNK_OF_IMAGES = 4096, 80
GROUP = 50
DATA_VARIABLE = "METARL_DATA"

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class SupervisedExperiment:
    """A network, and tasks to adapt it to; see `metarl.experiment.Experiment`.

    Attributes:
        config: the experiment.
        given: images to take instead of those that the config names.
    """

    config: SupervisedConfig
    given: ImageSet | None = None

    @property
    def title(self) -> str:
        """Such as `omniglot, 5-way 1-shot`."""
        data = self.config.data
        shots = f"{self.evaluation_shots}-shot"
        if isinstance(data, ImagesConfig):
            return f"{data.name}, {data.ways}-way {shots}"
        return f"{data.name}, {shots}"

    @property
    def metric(self) -> Metric:
        """Accuracy of classification, error of regression."""
        return ACCURACY if isinstance(self.config.data, ImagesConfig) else ERROR

    @cached_property
    def images(self) -> ImageSet:
        """The data of a classification."""
        if self.given is not None:
            return self.given
        data = self.config.data
        assert isinstance(data, ImagesConfig)
        folder = os.environ.get(DATA_VARIABLE)
        if not folder:
            raise UserError(
                f"{data.name} is needed: say which folder it is in by --data FOLDER or the "
                f"environment variable {DATA_VARIABLE}"
            )
        # seen only when the images are converted, once
        with Progress(console=Console(stderr=True), transient=True) as progress:
            return load_images(data.name, Path(folder), data.split_seed, progress)

    @property
    def data_hashes(self) -> dict[str, str]:
        """Checksums of the images and of their split."""
        if not isinstance(self.config.data, ImagesConfig):
            return {}
        return {"data_sha256": self.images.checksum, "split_sha256": self.images.split_hash}

    def tasks(self, split: Split) -> SinusoidTasks | ImageTasks:
        """The tasks of a split. Waves have none: every seed draws others."""
        data = self.config.data
        if isinstance(data, ImagesConfig):
            return ImageTasks(self.images, split, data.ways, rotated=data.name == "omniglot")
        return SinusoidTasks(informed=self.config.method == "oracle")

    @cached_property
    def inner(self) -> InnerLoop:
        """The network, and how it adapts."""
        settings = self.config.inner
        classifies = isinstance(self.config.data, ImagesConfig)
        device = device_for(self.config.device)
        chunk = CHUNK_OF_IMAGES if classifies else CHUNK_OF_POINTS
        return InnerLoop(
            self._model,
            cross_entropy if classifies else squared_error,
            accuracies if classifies else squared_errors,
            settings.step_size,
            settings.steps,
            settings.first_order,
            settings.adapt == "head",
            settings.learned_step_sizes if self.config.method == "maml" else "none",
            # a GPU takes all tasks at once
            chunk if device.type == "cpu" else 2**62,
            device,
        )

    @property
    def _model(self) -> Model:
        data, method = self.config.data, self.config.method
        if not isinstance(data, ImagesConfig):
            return Model(self.config.network, (3,) if method == "oracle" else (1,), 1)
        height, width, channels = self.images.images.shape[1:]
        tasks = self.tasks("train")
        assert isinstance(tasks, ImageTasks)
        pretrains = method in ("pretrained", "nearest_neighbour")
        outputs = tasks.num_classes if pretrains else data.ways
        return Model(self.config.network, (channels, height, width), outputs)

    @property
    def budget(self) -> int:
        """How many examples training takes."""
        return self.config.updates * samples_per_iteration(self.config)

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """The config's, with those of training where it gives none."""
        return {
            **self.config.evaluation.model_dump(mode="json"),
            "shots": self.evaluation_shots,
            "queries": self.evaluation_queries,
        }

    @property
    def evaluation_shots(self) -> int:
        """Support points, or images of each class, in the evaluation."""
        return self.config.evaluation.shots or self.config.inner.shots

    @property
    def evaluation_queries(self) -> int:
        """Query points, or images of each class, in the evaluation."""
        return self.config.evaluation.queries or self.config.inner.queries

    def initial_state(self) -> TrainingState:
        """Before the first iteration."""
        return TrainingState(0, self.inner.init(torch_stream(self.config.seed, "initialisation")))

    def train(self, state: TrainingState) -> Iterator[tuple[TrainingState, Metrics]]:
        """Meta-train, or learn all tasks mixed, with the same number of examples."""
        if self.config.method == "random":
            return iter(())
        return meta_train(self.config, self.tasks("train"), self.inner, state)

    def check(self) -> None:
        """Raise UserError if there is no such device, or not the data that it takes."""
        device_for(self.config.device)
        settings = self.config.inner
        needs: list[tuple[Split, int, int]] = [
            ("train", settings.shots, settings.queries),
            ("test", self.evaluation_shots, self.evaluation_queries),
        ]
        if self.config.method in ("pretrained", "random"):  # which choose their step size there
            needs.append(("validation", self.evaluation_shots, self.evaluation_queries))
        for split, shots, queries in needs:
            tasks = self.tasks(split)
            if isinstance(tasks, ImageTasks):
                tasks.check(shots, queries)

    def progress(self, metrics: Metrics) -> str:
        """What it was trained by, and what it is judged by."""
        return ", ".join(
            f"{name.split('/')[0]} {value:.3g}"
            for name, value in metrics.items()
            if name.startswith(("loss", "error", "accuracy"))
        )

    def step_sizes(self, first: float | None = None) -> tuple[float, ...]:
        """The same for every step of the evaluation."""
        return (first or self.config.inner.step_size,) * self.config.evaluation.steps

    def adaptation_curve(
        self, params: Params, step_sizes: Sequence[float], validation: bool = False
    ) -> AdaptationCurve:
        """Adapt to unseen tasks, those of the test or of the validation.

        Step sizes that were learned take the place of those given; their means are told.

        Raises:
            FloatingPointError: if the outputs are not finite any more.
        """
        settings, inner = self.config.evaluation, self.inner
        number = self.config.baseline.validation_tasks if validation else settings.tasks
        tasks, scores = [], []
        for episodes in self.episodes("validation" if validation else "test", number):
            outputs = self.outputs(params, episodes, step_sizes)
            targets = episodes.query[1]
            tasks.append(episodes.tasks)
            scores.append(torch.stack([inner.score(out, targets) for out in outputs.unbind(1)], 1))
        broken = (~torch.isfinite(torch.cat(scores))).sum(0)
        if broken.any():
            step = int(broken.nonzero()[0])
            fix = f"evaluate with evaluation.steps={step - 1}" if step > 1 else "train with less"
            raise FloatingPointError(
                f"adaptation with step size {step_sizes[0]:g} breaks down at step {step}, in "
                f"{broken[step]} of {number} tasks; {fix}"
            )
        if inner.learned != "none":
            learned = inner.step_sizes(params, len(step_sizes))
            step_sizes = [_mean(step) for step in learned]
        return AdaptationCurve(
            np.concatenate(tasks), torch.cat(scores).double().numpy(), tuple(step_sizes)
        )

    def outputs(
        self, params: Params, episodes: Episodes, step_sizes: Sequence[float]
    ) -> torch.Tensor:
        """What is said of the queries after 0, 1, ... steps, (N, K + 1, M, O)."""
        inner = self.inner
        if inner.learned == "none" and step_sizes:
            inner = replace(inner, step_size=step_sizes[0])
        start = self._starting_point(params)
        sizes = inner.step_sizes(params, len(step_sizes))
        return outputs_by_step(inner, start, episodes, sizes, self._predict)

    @property
    def _predict(self) -> Predict:
        transductive = self.config.evaluation.transductive
        if self.config.method == "nearest_neighbour":
            return nearest_neighbour if transductive else one_by_one(nearest_neighbour)
        return together if transductive else one_by_one(beside_support)

    def episodes(self, split: Split, number: int) -> Iterator[Episodes]:
        """So many tasks of the evaluation, some at a time: all their images are a lot of memory."""
        tasks, seed = self.tasks(split), self.config.evaluation.seed
        for group, start in enumerate(range(0, number, GROUP)):
            yield tasks.sample(
                stream(seed, f"{split} tasks", group),
                min(GROUP, number - start),
                self.evaluation_shots,
                self.evaluation_queries,
            )

    def _starting_point(self, params: Params) -> Params:
        """What adaptation to an unseen task starts from.

        A classifier of all training classes is given a last layer for those of the task: zeros.
        """
        theta = weights(params)
        data = self.config.data
        if self.config.method != "pretrained" or not isinstance(data, ImagesConfig):
            return theta
        weight, bias = head(theta)
        features = len(theta[weight])
        return theta | {weight: torch.zeros(features, data.ways), bias: torch.zeros(data.ways)}

    def describe(self, task: NDArray[np.float64]) -> str:
        """A task of the test in words."""
        return self.tasks("test").describe(task)


def _mean(sizes: Mapping[str, float | torch.Tensor]) -> float:
    """Over all parameters that have one."""
    return float(torch.cat([torch.as_tensor(size).reshape(-1) for size in sizes.values()]).mean())
