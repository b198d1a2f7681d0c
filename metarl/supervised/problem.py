"""The problem of few-shot regression or classification: tasks, a network and a metric."""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.evaluation import Metric
from metarl.networks import Network
from metarl.networks.bfloat16 import Bfloat16
from metarl.networks.context import WithContext
from metarl.parallel import device_for
from metarl.params import Params
from metarl.rng import make_rng, make_torch_rng
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.losses import Loss, TaskType, check_loss, loss_function
from metarl.supervised.methods import METHODS
from metarl.supervised.prediction import Mode
from metarl.supervised.tasks import Data, Episodes, Tasks

GROUP = 50  # evaluation tasks that are in memory at a time: they may have many images


@dataclass(frozen=True)
class SupervisedProblem:
    """The problem that a config describes; see `metarl.method.Problem`.

    Attributes:
        config: the experiment.
        task_conditioned: whether the task is part of the inputs, for an oracle.
        context: the number of context parameters of the network; see `metarl.context`.
    """

    config: SupervisedConfig
    task_conditioned: bool = False
    context: int = 0

    methods = METHODS

    def __post_init__(self) -> None:
        # a custom module binds its buffers, which depend on the seed, to its section of the config:
        # two configs that share one must not share these
        own = self.config.model_copy(update={"network": copy(self.config.network)})
        object.__setattr__(self, "config", own)

    @staticmethod
    def resolve(config: SupervisedConfig) -> SupervisedConfig:
        return config  # nothing has to be measured

    @property
    def data(self) -> Data:
        return cast(Data, self.config.data)

    @property
    def network(self) -> Network:
        """The network, with context parameters if the method has any."""
        network = cast(Network, self.config.network)
        if self.context:
            network = WithContext(network, self.context)
        return Bfloat16(network) if self.config.precision == "bf16" else network

    @property
    def kind(self) -> TaskType:
        return self.data.kind

    @cached_property
    def loss(self) -> Loss:
        """The training loss of stacked tasks, summed over tasks."""
        return loss_function(self.kind, self.config.method)

    @property
    def metric(self) -> Metric:
        return self.kind.metric

    @property
    def title(self) -> str:
        return self.data.title(self.evaluation_shots, self.config.evaluation.ways)

    @property
    def data_hashes(self) -> dict[str, str]:
        return self.data.hashes

    @cached_property
    def device(self) -> torch.device:
        return device_for(self.config.device)

    def chunk_size(self, episodes: Episodes) -> int:
        """The number of tasks that are computed together: all on a GPU."""
        if self.device.type != "cpu":
            return len(episodes.tasks)
        # on a CPU, as many whole tasks as have `chunk` examples
        examples = episodes.support[0].shape[1] + episodes.query[0].shape[1]
        return max(1, self.kind.chunk // examples)

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        return {
            **self.config.evaluation.model_dump(mode="json"),
            "ways": self.config.evaluation.ways or self.data.ways,
            "shots": self.evaluation_shots,
            "queries": self.evaluation_queries,
            "steps": self.config.evaluation_steps,
        }

    @property
    def evaluation_shots(self) -> int:
        """The number of support examples in the evaluation; in classification, of each class."""
        return self.config.evaluation.shots or self.config.inner.shots

    @property
    def evaluation_queries(self) -> int:
        """The number of query examples in the evaluation, in the same way."""
        return self.config.evaluation.queries or self.config.inner.queries

    def tasks(self, split: str, ways: int | None = None) -> Tasks:
        """The tasks of a split; `ways` overrides the config's number of classes."""
        return self.data.tasks(split, self.task_conditioned, ways)

    def check(self) -> None:
        """Raise UserError if the device does not exist, or the data are missing or too few."""
        device_for(self.config.device)
        settings = self.config.inner
        # methods that compare embeddings may train on more classes than they are evaluated on
        train_ways = getattr(self.config.method, "ways", None)
        train_tasks = self.tasks("train", train_ways)
        train_tasks.check(settings.shots, settings.queries)
        check_loss(self.loss, self.kind, train_tasks.outputs)
        method, name = METHODS.load(self.config.method.name), self.config.method.name
        ways, data_ways = self.config.evaluation.ways, self.data.ways
        if ways is not None and data_ways is None:
            raise UserError(
                f"evaluation.ways={ways}: {self.data.name} has no classes; leave it out"
            )
        if ways not in (None, data_ways) and not method.supports_other_ways:
            raise UserError(
                f"evaluation.ways={ways}: {name} is trained to distinguish {data_ways} classes; "
                "leave it out, or train with another data.ways"
            )
        validates = method.needs_validation or self.config.early_stopping
        for split in ("validation", "test") if validates else ("test",):
            tasks = self.tasks(split, self.config.evaluation.ways)
            tasks.check(self.evaluation_shots, self.evaluation_queries)

    def describe(self, task: NDArray[np.float64]) -> str:
        return self.tasks("test").describe(task)

    def init_network(self, generator: torch.Generator) -> Params:
        """Fresh parameters of the network, for a training task."""
        tasks = self.tasks("train")
        return self.network.init(generator, tasks.shape, tasks.outputs)

    def generator(self) -> torch.Generator:
        return make_torch_rng(self.config.seed, "initialisation")

    @property
    def prediction_mode(self) -> Mode:
        """Whether the queries of an evaluation task are predicted together."""
        return "transductive" if self.config.evaluation.transductive else "inductive"

    def evaluation_episodes(self, split: str, number: int) -> Iterator[Episodes]:
        """The first `number` evaluation tasks of a split, in groups.

        Each group is sampled as a whole, so that task i does not depend on the number of tasks.
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
