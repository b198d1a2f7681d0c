"""A problem of few-shot regression or classification: tasks, a network, and their measure."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.evaluation import Metric
from metarl.networks import Network
from metarl.networks.context import WithContext
from metarl.parallel import device_for
from metarl.rng import make_rng, make_torch_rng
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.losses import Kind
from metarl.supervised.methods import METHODS
from metarl.supervised.tasks import Data, Episodes, Tasks

GROUP = 50  # tasks of an evaluation at a time: the images of all of them are a lot of memory


@dataclass(frozen=True)
class SupervisedProblem:
    """What a config describes; see `metarl.method.Problem`.

    Attributes:
        config: the experiment.
        given: data to take instead of those that the config names.
        task_conditioned: whether inputs tell the task, as an oracle wants it.
        context: how many context parameters the network has; see `metarl.context`.
    """

    config: SupervisedConfig
    given: Data | None = None
    task_conditioned: bool = False
    context: int = 0

    methods = METHODS

    @property
    def data(self) -> Data:
        """Where tasks come from."""
        return self.given or cast(Data, self.config.data)

    @property
    def network(self) -> Network:
        """A function of parameters."""
        network = cast(Network, self.config.network)
        return WithContext(network, self.context) if self.context else network

    @property
    def kind(self) -> Kind:
        """Regression or classification."""
        return self.data.kind

    @property
    def metric(self) -> Metric:
        """Accuracy of classification, error of regression."""
        return self.kind.metric

    @property
    def title(self) -> str:
        """Such as `omniglot, 5-way 1-shot`."""
        return self.data.title(self.evaluation_shots, self.config.evaluation.ways)

    @property
    def data_hashes(self) -> dict[str, str]:
        """Checksums of the images and of their split."""
        return self.data.hashes

    @cached_property
    def device(self) -> torch.device:
        """Where the network is."""
        return device_for(self.config.device)

    def chunk_size(self, episodes: Episodes) -> int:
        """How many tasks are worked on together; a GPU takes all at once."""
        if self.device.type != "cpu":
            return len(episodes.tasks)
        examples = episodes.support[0].shape[1] + episodes.query[0].shape[1]
        return max(1, self.kind.chunk // examples)

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """The config's, with those of training where it gives none."""
        return {
            **self.config.evaluation.model_dump(mode="json"),
            "ways": self.config.evaluation.ways or self.data.ways,
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

    def tasks(self, split: str, ways: int | None = None) -> Tasks:
        """The tasks of a split, with another number of classes where one is given."""
        return self.data.tasks(split, self.task_conditioned, ways)

    def check(self) -> None:
        """Raise UserError if there is no such device, or not the data that it takes."""
        device_for(self.config.device)
        settings = self.config.inner
        ways = getattr(self.config.method, "ways", None)  # of a method that trains on others
        self.tasks("train", ways).check(settings.shots, settings.queries)
        method, asked = METHODS.load(self.config.method.name), self.config.evaluation.ways
        own = self.data.ways
        if asked is not None and own is None:
            raise UserError(f"evaluation.ways={asked}: {self.data.name} has no classes")
        if asked not in (None, own) and not method.any_ways:
            raise UserError(
                f"evaluation.ways={asked}: {self.config.method.name} tells {own} classes apart, as "
                "it was trained to; leave it away, or train with another data.ways"
            )
        for split in ("validation", "test") if method.validates else ("test",):
            tasks = self.tasks(split, self.config.evaluation.ways)
            tasks.check(self.evaluation_shots, self.evaluation_queries)

    def describe(self, task: NDArray[np.float64]) -> str:
        """A task of the test in words."""
        return self.tasks("test").describe(task)

    def generator(self) -> torch.Generator:
        """The randomness of initial parameters."""
        return make_torch_rng(self.config.seed, "initialisation")

    def unseen(self, split: str, number: int) -> Iterator[Episodes]:
        """So many tasks of the evaluation, some at a time; the first ones of any number are alike.

        Every group is drawn whole, so that another number keeps the first tasks.
        """
        settings = self.config.evaluation
        tasks, seed = self.tasks(split, settings.ways), settings.seed
        for group, start in enumerate(range(0, number, GROUP)):
            yield tasks.sample(
                make_rng(seed, f"{split} tasks", group),
                GROUP,
                self.evaluation_shots,
                self.evaluation_queries,
                slice(min(GROUP, number - start)),
            )
