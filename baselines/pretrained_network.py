"""One network for all tasks mixed, then fine-tuned; and an oracle, which is told the task.

What MAML is measured against in Finn et al. (2017), section 5.1, and as "fine-tuning" in Ravi and
Larochelle (2017), section 4.1. The network and the number of examples are those of meta-training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from metarl.evaluation import AdaptationCurve, best_schedule
from metarl.method import Metrics, Role
from metarl.parallel import one_thread
from metarl.params import Params, repeat
from metarl.supervised.losses import CLASSIFICATION, REGRESSION, Kind
from metarl.supervised.maml import MAML
from metarl.supervised.problem import SupervisedProblem
from metarl.supervised.tasks import Episodes, Examples


class Pretrained(MAML):
    """Learns the examples of all tasks as one; is fine-tuned by MAML's inner loop."""

    role: ClassVar[Role] = "baseline"
    label: ClassVar[str] = "pretrained"
    validates: ClassVar[bool] = True
    supports_distributed: ClassVar[bool] = False
    stage: ClassVar[str] = "after_0_steps"

    def init(self, generator: torch.Generator) -> Params:
        """A network with an output for every class there is."""
        tasks = self.problem.tasks("train")
        return self.problem.network.init(generator, tasks.shape, tasks.all_outputs)

    def draw(self, iteration: int) -> Episodes:
        """The examples of all tasks as those of one."""
        return mixed(super().draw(iteration))

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """Without any adaptation."""
        inputs, targets = episodes.query
        outputs = self.problem.network(repeat(params, len(targets)), inputs)
        return self.problem.kind.loss(outputs, targets), outputs

    def named(self, loss: float, score: float) -> Metrics:
        """A classifier of all classes has another task: not to be drawn into the same plot."""
        if self.problem.kind is REGRESSION:
            return super().named(loss, score)
        return {"loss": loss, f"pretraining/{self.problem.metric.name}": score}

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """Before and after fine-tuning; a classifier starts with a last layer of zeros."""
        if self.problem.kind is CLASSIFICATION:
            ways = self.problem.tasks("test").outputs
            params = self.problem.network.new_head(params, ways)
        return super().outputs(params, support, inputs, step_sizes)

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """Fine-tune on unseen tasks, with the step size that served best on validation tasks."""
        return super().evaluate(params, self._chosen(params) if step_sizes is None else step_sizes)

    def _chosen(self, params: Params) -> tuple[float, ...]:
        baseline, steps = self.problem.config.baseline, self.problem.config.evaluation.steps
        return best_schedule(
            [(size,) * steps for size in baseline.step_sizes],
            lambda sizes: self.curve("validation", baseline.validation_tasks, params, sizes),
            self.problem.metric,
            baseline.selection_step,
        )


class Random(Pretrained):
    """A network that was never trained, fine-tuned."""

    label: ClassVar[str] = "random"
    num_iterations: ClassVar[int] = 0

    outputs = MAML.outputs

    def init(self, generator: torch.Generator) -> Params:
        """A network for one task."""
        tasks = self.problem.tasks("train")
        return self.problem.network.init(generator, tasks.shape, tasks.outputs)


class Oracle(Pretrained):
    """The same network with the task among its inputs. It has nothing to adapt to."""

    label: ClassVar[str] = "oracle"
    adaptation_unit = None
    kinds: ClassVar[tuple[Kind, ...]] = (REGRESSION,)

    def __init__(self, problem: SupervisedProblem) -> None:
        super().__init__(replace(problem, task_conditioned=True))

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """The error without any adaptation."""
        tasks = self.problem.config.evaluation.tasks
        return self.curve("test", tasks, params, ())


def mixed(episodes: Episodes) -> Episodes:
    """The examples of all tasks as those of a single one.

    Labels are those of all classes there are then, which a task names.
    """
    (x, y), (more_x, more_y) = episodes.support, episodes.query
    inputs = torch.cat([x, more_x], dim=1).flatten(0, 1)[None]
    targets = torch.cat([y, more_y], dim=1)
    if not targets.is_floating_point():
        targets = torch.gather(torch.from_numpy(episodes.tasks), 1, targets).long()
    examples = (inputs, targets.flatten(0, 1)[None])
    return Episodes(episodes.tasks[:1], examples, examples)
