"""What every method of few-shot learning has in common: episodes in, an outer step, a curve out.

A paper's file derives from `SupervisedMethod` and implements three functions of parameters:

    init      fresh parameters
    loss      what training lowers, of stacked tasks
    outputs   what is predicted of new inputs, stage after stage of adaptation
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from metarl.config.sections import MethodSection
from metarl.distributed import mean_over_tasks, seconds_waited, shard
from metarl.evaluation import AdaptationCurve
from metarl.method import AdaptationUnit, Metrics, Role, TrainingState
from metarl.optim import Objective
from metarl.parallel import CPU, map_chunks, move, one_thread
from metarl.params import Params, flatten
from metarl.rng import make_rng
from metarl.supervised.losses import CLASSIFICATION, REGRESSION, Kind
from metarl.supervised.problem import SupervisedProblem
from metarl.supervised.tasks import Episodes, Examples


class SupervisedMethod:
    """Trains on episodes by the config's outer step, and evaluates on unseen ones.

    Class attributes, beside those of `metarl.method.Method`:
        kinds: what it can learn.
        validates: whether it chooses something on validation tasks.
        any_ways: whether tasks of the test may have more or fewer classes than `data.ways`.
    """

    role: ClassVar[Role]
    adaptation_unit: ClassVar[AdaptationUnit | None]
    Settings: ClassVar[type[MethodSection]] = MethodSection
    kinds: ClassVar[tuple[Kind, ...]] = (REGRESSION, CLASSIFICATION)
    validates: ClassVar[bool] = False
    any_ways: ClassVar[bool] = False
    supports_distributed: ClassVar[bool] = False

    def __init__(self, problem: SupervisedProblem) -> None:
        self.problem = problem

    @property
    def label(self) -> str:
        """What to call it."""
        raise NotImplementedError

    def init(self, generator: torch.Generator) -> Params:
        """Fresh meta-parameters."""
        raise NotImplementedError

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """What training lowers, summed over stacked tasks, and the queries' outputs (N, M, O)."""
        raise NotImplementedError

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """Predictions (N, M, O) for inputs (N, M, ...) before adaptation, and after each stage.

        Args:
            params: the meta-parameters, not stacked.
            support: examples of N tasks.
            inputs: of the queries.
            step_sizes: of the gradient steps, for a method that takes any.
        """
        raise NotImplementedError

    @property
    def ways(self) -> int | None:
        """How many classes an episode of training has; as many as at the test where None."""
        return None

    def draw(self, iteration: int) -> Episodes:
        """This process's episodes of an iteration."""
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
        """How many examples an iteration learns from."""
        settings, batch = self.problem.config.inner, self.problem.config.outer.meta_batch
        each = self.ways or self.problem.data.ways or 1
        return batch * each * (settings.shots + settings.queries)

    def chunk_size(self, episodes: Episodes) -> int:
        """How many tasks are worked on together: what a problem of such examples suggests."""
        return self.problem.chunk_size(episodes)

    @property
    def schedule(self) -> tuple[float, ...]:
        """The step sizes of the evaluation, empty where there are no gradient steps."""
        return ()

    @property
    def stage(self) -> str:
        """What the scores of training are called: after how many steps they are."""
        return "after_0_steps"

    @property
    def num_iterations(self) -> int:
        """The config's iterations."""
        return self.problem.config.outer.iterations

    @property
    def max_samples(self) -> int:
        """How many examples training takes."""
        return self.num_iterations * self.examples

    @property
    def uses_lr_schedule(self) -> bool:
        """Whether the outer step shrinks towards the last iteration."""
        return self.problem.config.outer.anneal

    def initial_state(self) -> TrainingState:
        """Before the first iteration."""
        return TrainingState(0, self.init(self.problem.generator()))

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """Draw episodes, and follow the gradient of their loss."""
        started = time.perf_counter()
        episodes = self.draw(state.iteration)
        drawn = time.perf_counter()
        objective = EpisodeObjective(self, episodes, state.iteration)
        theta, optimizer, _ = self.problem.config.outer.step(  # type: ignore[attr-defined]
            state.params, objective, state.opt_state, state.iteration
        )
        samples = state.samples + self.examples
        return TrainingState(state.iteration + 1, theta, optimizer, samples), {
            **self.named(*objective.seen),
            "examples": float(self.examples),
            "time/iteration": time.perf_counter() - started,
            "time/drawing": drawn - started,
            "time/communication": seconds_waited(),
        }

    def named(self, loss: float, score: float) -> Metrics:
        """The loss and the score of training by their names; a regression's loss is its score."""
        metric = self.problem.metric
        score_name = {f"{metric.name}/{self.stage}": score}
        return score_name if self.problem.kind is REGRESSION else {"loss": loss, **score_name}

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """Adapt to the unseen tasks of the test."""
        sizes = self.schedule if step_sizes is None else step_sizes
        return self.curve("test", self.problem.config.evaluation.tasks, params, sizes)

    def curve(
        self, split: str, number: int, params: Params, step_sizes: Sequence[float]
    ) -> AdaptationCurve:
        """Adapt to so many unseen tasks of a split.

        Raises:
            FloatingPointError: if the outputs are not finite any more.
        """
        tasks, scores = [], []
        for episodes in self.problem.unseen(split, number):
            outputs = self.predictions(params, episodes, step_sizes)
            targets = episodes.query[1]
            tasks.append(episodes.tasks)
            scores.append(
                torch.stack([self.problem.kind.score(o, targets) for o in outputs.unbind(1)], 1)
            )
        broken = (~torch.isfinite(torch.cat(scores))).sum(0)
        if broken.any():
            step = int(broken.nonzero()[0])
            fix = f"evaluate with evaluation.steps={step - 1}" if step > 1 else "train with less"
            size = f" with step size {step_sizes[0]:g}" if step_sizes else ""
            raise FloatingPointError(
                f"adaptation{size} diverges at step {step}, in {broken[step]} of {number} tasks; "
                f"{fix}"
            )
        every = torch.cat(scores).double().numpy()
        return AdaptationCurve(np.concatenate(tasks), every, self.told(params, step_sizes))

    def told(self, params: Params, step_sizes: Sequence[float]) -> tuple[float, ...]:
        """The step sizes that were taken, one number each."""
        return tuple(step_sizes)

    @torch.no_grad()
    def predictions(
        self, params: Params, episodes: Episodes, step_sizes: Sequence[float]
    ) -> Tensor:
        """What is predicted of each task's queries, stage after stage, (N, K + 1, M, O)."""
        params = move(params, self.problem.device)

        def some(chunk: slice) -> Tensor:
            part = on_device(episodes, chunk, self.problem.device)
            outputs = self.outputs(params, part.support, part.query[0], step_sizes)
            return torch.stack([stage.cpu() for stage in outputs], dim=1)

        size = self.chunk_size(episodes)
        return torch.cat(map_chunks(some, len(episodes.tasks), size))

    def close(self) -> None:
        """There is nothing to release."""


@dataclass
class EpisodeObjective:
    """The mean loss of episodes, with its sign turned: what an outer step raises.

    Attributes:
        method: whose loss it is.
        episodes: this process's.
        iteration: whose they are.
        seen: mean loss, and score of the queries, once the gradient was asked for.
    """

    method: SupervisedMethod
    episodes: Episodes
    iteration: int
    seen: list[float] = field(default_factory=list)

    def minibatches(self) -> list[Objective]:
        """Itself."""
        return [self]

    def gradient(self, theta: Params) -> tuple[Tensor, float]:
        """The gradient (P,), and the value."""
        method, device = self.method, self.method.problem.device
        kind = method.problem.kind
        leaves = {name: leaf.to(device).detach().requires_grad_() for name, leaf in theta.items()}

        def some(chunk: slice) -> tuple[Tensor, Tensor]:
            part = on_device(self.episodes, chunk, device)
            loss, outputs = method.loss(leaves, part, self.iteration)
            gradient = torch.autograd.grad(
                loss, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
            score = kind.score(outputs.detach(), part.query[1]).sum()
            seen = torch.stack([loss.detach(), score])
            return flatten(dict(zip(leaves, gradient, strict=True))), seen

        number = len(self.episodes.tasks)
        size = method.chunk_size(self.episodes)
        gradients, seen = zip(*map_chunks(some, number, size), strict=True)
        total = torch.cat([torch.stack(gradients).sum(0), torch.stack(seen).sum(0)])
        means = mean_over_tasks(total, number).to(CPU)
        self.seen = self.seen or means[-2:].tolist()  # before the first of several steps
        return -means[:-2], -float(means[-2])

    def value_and_kl(self, theta: Params) -> tuple[float, float]:
        """Not defined: predictions have no divergence from what they were sampled with."""
        raise NotImplementedError

    def curvature(self, theta: Params, fraction: float) -> Callable[[Tensor], Tensor]:
        """Not defined, for the same reason."""
        raise NotImplementedError


def on_device(episodes: Episodes, chunk: slice, device: torch.device) -> Episodes:
    """Some of the tasks, where they are worked on."""
    (x, y), (more_x, more_y) = episodes.support, episodes.query
    support = x[chunk].to(device), y[chunk].to(device)
    query = more_x[chunk].to(device), more_y[chunk].to(device)
    return Episodes(episodes.tasks[chunk], support, query)
