"""Multi-task pretraining with fine-tuning, a random initialisation, and a task-conditioned oracle.

The baselines of Finn et al. (2017), section 5.1; pretraining is "fine-tuning" in Ravi and
Larochelle (2017), section 4.1. The network and the number of examples are those of meta-training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from metarl.config.sections import NO_STEPS
from metarl.evaluation import AdaptationCurve, best_schedule
from metarl.method import Metrics, Role
from metarl.parallel import one_thread
from metarl.params import Params, repeat
from metarl.supervised.config import NO_INNER_STEPS, SupervisedConfig
from metarl.supervised.losses import CLASSIFICATION, REGRESSION, TaskType
from metarl.supervised.maml import MAML
from metarl.supervised.problem import SupervisedProblem
from metarl.supervised.tasks import Episodes, Examples


class Pretrained(MAML):
    """Trains on the examples of all tasks jointly; fine-tunes with MAML's inner loop."""

    role: ClassVar[Role] = "baseline"
    label: ClassVar[str] = "pretrained"
    needs_validation: ClassVar[bool] = True
    supports_distributed: ClassVar[bool] = False
    train_metric_suffix: ClassVar[str] = "after_0_steps"

    @classmethod
    def unused_settings(cls, config: SupervisedConfig) -> dict[str, str]:
        steps = "which takes no inner steps in training; its fine-tuning has evaluation.steps"
        names = ("steps", "first_order", "learned_step_sizes", "multi_step_iterations")
        return dict.fromkeys([f"inner.{name}" for name in names], steps) | {
            "inner.step_size": "whose step size is the best of baseline.step_sizes",
            "early_stopping": "which uses the whole budget",
        }

    def init(self, generator: torch.Generator) -> Params:
        # an output for each of all classes: pretraining does not know the tasks
        tasks, network = self.problem.tasks("train"), self.problem.network
        params = network.init(generator, tasks.shape, tasks.all_outputs)
        if self.problem.kind is CLASSIFICATION:
            network.new_head(params, tasks.outputs)  # before training, an error if it has none
        return params

    def sample_batch(self, iteration: int) -> Episodes:
        return merge_tasks(super().sample_batch(iteration))

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        # support and query are the same examples in a merged task
        inputs, targets = episodes.query
        outputs = self.problem.network(repeat(params, len(targets)), inputs)
        return self.problem.loss(outputs, targets), outputs

    def train_metrics(self, loss: float, score: float) -> Metrics:
        # the classification of all classes is another problem, so its score has another name
        if self.problem.kind is REGRESSION:
            return super().train_metrics(loss, score)
        return {"loss": loss, f"pretraining/{self.problem.metric.name}": score}

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """Predictions before and after fine-tuning. A classifier gets a new last layer of zeros."""
        if self.problem.kind is CLASSIFICATION:
            # the classes of the pretrained head do not occur in test tasks
            ways = self.problem.tasks("test").outputs
            params = self.problem.network.new_head(params, ways)
        return super().outputs(params, support, inputs, step_sizes)

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        step_sizes = self._best_step_sizes(params) if step_sizes is None else step_sizes
        return super().evaluate(params, step_sizes)

    def _best_step_sizes(self, params: Params) -> tuple[float, ...]:
        if self.adaptation_unit is None:
            return ()
        baseline, steps = self.problem.config.baseline, self.problem.config.evaluation_steps
        return best_schedule(
            [(size,) * steps for size in baseline.step_sizes],
            lambda sizes: self.curve("validation", baseline.validation_tasks, params, sizes),
            self.problem.metric,
            baseline.selection_step,
        )


class Random(Pretrained):
    """Fine-tunes a randomly initialised network."""

    label: ClassVar[str] = "random"
    num_iterations: ClassVar[int] = 0

    outputs = MAML.outputs  # its head is for one task already

    @classmethod
    def unused_settings(cls, config: SupervisedConfig) -> dict[str, str]:
        return super().unused_settings(config) | {"outer.": "which is not trained"}

    def init(self, generator: torch.Generator) -> Params:
        return self.problem.init_network(generator)  # with a head for one task


class Oracle(Pretrained):
    """The network with the task as an additional input. It does not adapt."""

    label: ClassVar[str] = "oracle"
    adaptation_unit = None
    kinds: ClassVar[tuple[TaskType, ...]] = (REGRESSION,)

    @classmethod
    def unused_settings(cls, config: SupervisedConfig) -> dict[str, str]:
        return without_steps()

    def __init__(self, problem: SupervisedProblem) -> None:
        super().__init__(replace(problem, task_conditioned=True))


def without_steps() -> dict[str, str]:
    """The settings without effect on a baseline that is not fine-tuned."""
    unused = {"baseline.": NO_STEPS, "early_stopping": "which uses the whole budget"}
    return NO_INNER_STEPS | unused


def merge_tasks(episodes: Episodes) -> Episodes:
    """All examples of N tasks as those of a single task, whose labels number all classes."""
    (x, y), (query_x, query_y) = episodes.support, episodes.query
    inputs = torch.cat([x, query_x], dim=1).flatten(0, 1)[None]
    targets = torch.cat([y, query_y], dim=1)
    if not targets.is_floating_point():
        # a task (ways,) holds the number of each of its classes, in the order of their labels
        targets = torch.gather(torch.from_numpy(episodes.tasks), 1, targets).long()
    examples = (inputs, targets.flatten(0, 1)[None])
    return Episodes(episodes.tasks[:1], examples, examples)
