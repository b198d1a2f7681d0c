"""The base class of supervised methods: sampling of episodes, the outer step, the evaluation.

A method derives from `SupervisedMethod` and implements three functions of parameters:

    init      initial meta-parameters
    loss      the training loss of stacked tasks
    outputs   predictions for the queries, before adaptation and after each stage of it
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from metarl.config.sections import MethodSection
from metarl.distributed import all_reduce_mean, seconds_waited, shard
from metarl.evaluation import AdaptationCurve
from metarl.method import AdaptationUnit, Metrics, Role, TrainingState
from metarl.optim import Objective
from metarl.parallel import CPU, map_chunks, move, one_thread
from metarl.params import Params, flatten
from metarl.rng import make_rng
from metarl.supervised.losses import CLASSIFICATION, REGRESSION, TaskType
from metarl.supervised.problem import SupervisedProblem
from metarl.supervised.tasks import Episodes, Examples


class SupervisedMethod:
    """Trains on episodes with the config's outer step, and evaluates on held-out tasks.

    Class attributes, in addition to those of `metarl.method.Method`:
        kinds: the task types it supports.
        needs_validation: whether it selects hyperparameters on validation tasks.
        supports_other_ways: whether test tasks may have another number of classes than `data.ways`.
    """

    role: ClassVar[Role]
    adaptation_unit: ClassVar[AdaptationUnit | None]
    Settings: ClassVar[type[MethodSection]] = MethodSection
    kinds: ClassVar[tuple[TaskType, ...]] = (REGRESSION, CLASSIFICATION)
    needs_validation: ClassVar[bool] = False
    supports_other_ways: ClassVar[bool] = False
    supports_distributed: ClassVar[bool] = False

    # members that a subclass may override by their names of version 0.1
    deprecated_names: ClassVar[dict[str, str]] = {
        "draw": "sample_batch",
        "named": "train_metrics",
        "stage": "train_metric_suffix",
        "validates": "needs_validation",
        "any_ways": "supports_other_ways",
        "told": "reported_step_sizes",
    }

    def __init__(self, problem: SupervisedProblem) -> None:
        self.problem = problem

    @property
    def settings(self) -> Any:
        return self.problem.config.method

    @property
    def label(self) -> str:
        raise NotImplementedError

    def init(self, generator: torch.Generator) -> Params:
        raise NotImplementedError

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """The training loss, summed over stacked tasks, and the outputs for the queries (N, M, O).

        Args:
            params: the meta-parameters, not stacked.
            episodes: examples of N tasks.
            iteration: the number of completed iterations.
        """
        raise NotImplementedError

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """Predictions (N, M, O) for inputs (N, M, ...) before adaptation, and after each stage.

        Args:
            params: the meta-parameters, not stacked.
            support: the support sets of N tasks.
            inputs: the queries.
            step_sizes: of the gradient steps, if the method takes any.
        """
        raise NotImplementedError

    @property
    def ways(self) -> int | None:
        """The number of classes of a training task; None for that of the test tasks."""
        return None

    def sample_batch(self, iteration: int) -> Episodes:
        """The meta-batch of an iteration: this process's shard of it."""
        config, settings = self.problem.config, self.problem.config.inner
        return self.problem.tasks("train", self.ways).sample(
            make_rng(config.seed, "tasks", iteration),
            config.outer.meta_batch,
            settings.shots,
            settings.queries,
            shard(config.outer.meta_batch),
        )

    @property
    def examples(self) -> int:
        settings, batch = self.problem.config.inner, self.problem.config.outer.meta_batch
        # shots and queries count per class; a regression task has one "class"
        classes = self.ways or self.problem.data.ways or 1
        return batch * classes * (settings.shots + settings.queries)

    def chunk_size(self, episodes: Episodes) -> int:
        """The number of tasks that are computed together."""
        return self.problem.chunk_size(episodes)

    @property
    def schedule(self) -> tuple[float, ...]:
        """The step sizes of the evaluation; empty if the method takes no gradient steps."""
        return ()

    @property
    def train_metric_suffix(self) -> str:
        """The part of a training metric's name that says after which adaptation it is measured."""
        return "after_0_steps"

    @property
    def num_iterations(self) -> int:
        return self.problem.config.outer.iterations

    @property
    def max_samples(self) -> int:
        return self.num_iterations * self.examples

    @property
    def uses_lr_schedule(self) -> bool:
        return self.problem.config.outer.depends_on_length

    def initial_state(self) -> TrainingState:
        return TrainingState(0, self.init(self.problem.generator()))

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """One iteration: sample a meta-batch, and take an outer step."""
        started = time.perf_counter()
        episodes = self.sample_batch(state.iteration)
        sampled = time.perf_counter()
        objective = EpisodeObjective(self, episodes, state.iteration)
        theta, opt_state, _ = self.problem.config.outer.step(  # type: ignore[attr-defined]
            state.params, objective, state.opt_state, state.iteration
        )
        # examples that were drawn, the unit in which methods have the same budget
        samples = state.samples + self.examples
        return TrainingState(state.iteration + 1, theta, opt_state, samples), {
            **self.train_metrics(*objective.loss_and_score),
            "examples": float(self.examples),
            "time/iteration": time.perf_counter() - started,
            "time/drawing": sampled - started,
            "time/communication": seconds_waited(),
        }

    def train_metrics(self, loss: float, score: float) -> Metrics:
        """The metrics of an iteration by name. The score of regression is its default loss."""
        metric = self.problem.metric
        scores = {f"{metric.name}/{self.train_metric_suffix}": score}
        # the default loss of regression is its score: it would be logged twice
        is_score = self.problem.kind is REGRESSION and self.problem.loss is REGRESSION.loss
        return scores if is_score else {"loss": loss, **scores}

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """Adapt to the held-out tasks of the evaluation."""
        step_sizes = self.schedule if step_sizes is None else step_sizes
        return self.curve("test", self.problem.config.evaluation.tasks, params, step_sizes)

    def validation_score(self, params: Params, number: int) -> float:
        """The mean score of validation tasks after the inner steps of training.

        It is NaN if an output is not finite.
        """
        inner = self.problem.config.inner
        step_sizes = (inner.step_size,) * inner.steps if self.schedule else ()
        try:
            return float(self.curve("validation", number, params, step_sizes).scores[:, -1].mean())
        except FloatingPointError:
            return float("nan")

    def curve(
        self, split: str, number: int, params: Params, step_sizes: Sequence[float]
    ) -> AdaptationCurve:
        """Adapt to the first `number` evaluation tasks of a split.

        Raises:
            FloatingPointError: if an output is not finite.
        """
        tasks, scores = [], []
        for episodes in self.problem.evaluation_episodes(split, number):
            outputs = self.predictions(params, episodes, step_sizes)
            targets = episodes.query[1]
            tasks.append(episodes.tasks)
            scores.append(
                torch.stack([self.problem.kind.score(o, targets) for o in outputs.unbind(1)], 1)
            )
        # the number of diverged tasks at each stage, (K + 1,)
        diverged = (~torch.isfinite(torch.cat(scores))).sum(0)
        if diverged.any():
            step = int(diverged.nonzero()[0])
            fix = (
                f"evaluate with evaluation.steps={step - 1}"
                if step > 1
                else "train with a smaller outer.learning_rate or inner.step_size"
            )
            size = f" with step size {step_sizes[0]:g}" if step_sizes else ""
            raise FloatingPointError(
                f"adaptation{size} diverges at step {step}, in {diverged[step]} of {number} tasks; "
                f"{fix}"
            )
        return AdaptationCurve(
            np.concatenate(tasks),
            torch.cat(scores).double().numpy(),
            self.reported_step_sizes(params, step_sizes),
        )

    def reported_step_sizes(self, params: Params, step_sizes: Sequence[float]) -> tuple[float, ...]:
        """One number for each step of the evaluation, for the curve."""
        return tuple(step_sizes)

    @torch.no_grad()
    def predictions(
        self, params: Params, episodes: Episodes, step_sizes: Sequence[float]
    ) -> Tensor:
        """The outputs for each task's queries at each of K + 1 stages, (N, K + 1, M, O)."""
        params = move(params, self.problem.device)

        # chunks of tasks limit the memory; stages are collected on the CPU

        def predict_chunk(chunk: slice) -> Tensor:
            part = to_device(episodes, chunk, self.problem.device)
            outputs = self.outputs(params, part.support, part.query[0], step_sizes)
            return torch.stack([stage.cpu() for stage in outputs], dim=1)

        size = self.chunk_size(episodes)
        return torch.cat(map_chunks(predict_chunk, len(episodes.tasks), size))

    def close(self) -> None:
        """Nothing to release."""


@dataclass
class EpisodeObjective:
    """The negative mean loss of a meta-batch, which an outer step maximises.

    Attributes:
        method: defines the loss.
        episodes: this process's shard of the meta-batch.
        iteration: the number of completed iterations.
        loss_and_score: the mean loss and the mean score of the queries, at the parameters of the
            first gradient; empty before.
    """

    method: SupervisedMethod
    episodes: Episodes
    iteration: int
    loss_and_score: list[float] = field(default_factory=list)

    def minibatches(self) -> list[Objective]:
        return [self]

    def gradient(self, theta: Params) -> tuple[Tensor, float]:
        method, device = self.method, self.method.problem.device
        kind = method.problem.kind
        leaves = {name: leaf.to(device).detach().requires_grad_() for name, leaf in theta.items()}

        def chunk_gradient(chunk: slice) -> tuple[Tensor, Tensor]:
            part = to_device(self.episodes, chunk, device)
            loss, outputs = method.loss(leaves, part, self.iteration)
            # parameters without an effect on the loss, such as an unused head, have zero gradients
            gradient = torch.autograd.grad(
                loss, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
            score = kind.score(outputs.detach(), part.query[1]).sum()
            values = torch.stack([loss.detach(), score])
            return flatten(dict(zip(leaves, gradient, strict=True))), values

        number = len(self.episodes.tasks)
        size = method.chunk_size(self.episodes)
        gradients, values = zip(*map_chunks(chunk_gradient, number, size), strict=True)
        # losses are sums over tasks, so that chunks and processes add up; one message carries all
        total = torch.cat([torch.stack(gradients).sum(0), torch.stack(values).sum(0)])
        means = all_reduce_mean(total, number).to(CPU)
        # an outer step of several epochs evaluates the gradient again at later parameters
        self.loss_and_score = self.loss_and_score or means[-2:].tolist()
        return -means[:-2], -float(means[-2])


def to_device(episodes: Episodes, chunk: slice, device: torch.device) -> Episodes:
    """The tasks of a chunk, with their examples on a device."""
    (x, y), (query_x, query_y) = episodes.support, episodes.query
    support = x[chunk].to(device), y[chunk].to(device)
    query = query_x[chunk].to(device), query_y[chunk].to(device)
    return Episodes(episodes.tasks[chunk], support, query)
