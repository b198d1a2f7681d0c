"""MAML for few-shot supervised learning: Algorithm 2 of Finn et al. (2017).

Tasks stand side by side: parameters are stacked, (N, ...), losses are summed over tasks, and the
inner loop is the very same function as for a single one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.compute import CPU, move, over_chunks
from metarl.inner_loop import StepSize, adapt, reverse
from metarl.networks.layers import head
from metarl.params import Params, flatten, repeat
from metarl.supervised.config import Learned
from metarl.supervised.models import Model
from metarl.supervised.prediction import Predict, together
from metarl.supervised.tasks import Episodes, Examples

STEP_SIZE = "step_size."  # what the names of learned step sizes begin with


@dataclass(frozen=True)
class InnerLoop:
    """How a network adapts to a task.

    Attributes:
        model: the network.
        loss: of outputs and targets, summed over tasks, see `metarl.supervised.losses`.
        score: what a task is judged by, (N,).
        step_size: α, at first where it is learned.
        steps: how many to take in training.
        first_order: ignore how the inner gradient depends on θ.
        head_only: adapt the last layer alone (ANIL, Raghu et al. 2020).
        learned: learn step sizes with θ, by the outer step: one for each single parameter
            (`meta_sgd`, Li et al. 2017), or one for each tensor and step (`lslr`, Antoniou et al.
            2019).
        chunk_examples: how many examples, in whole tasks, are worked on together. It changes the
            time alone.
        device: where that happens.
    """

    model: Model
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    step_size: float
    steps: int = 1
    first_order: bool = False
    head_only: bool = False
    learned: Learned = "none"
    chunk_examples: int = 4096
    device: torch.device = CPU

    def init(self, generator: torch.Generator) -> Params:
        """Meta-parameters: θ, and step sizes where they are learned."""
        theta = self.model.init(generator)
        moving = head(theta) if self.head_only else list(theta)
        sizes: Params = {}
        if self.learned != "none":
            for name in moving:
                shape = theta[name].shape if self.learned == "meta_sgd" else (self.steps,)
                sizes[STEP_SIZE + name] = torch.full(shape, self.step_size)
        return theta | sizes

    def batch_loss(self, params: Params, batch: Examples) -> Tensor:
        """The loss of parameters on examples."""
        inputs, targets = batch
        return self.loss(self.model(params, inputs), targets)

    def chunk_size(self, episodes: Episodes) -> int:
        """How many tasks are worked on together."""
        examples = episodes.support[0].shape[1] + episodes.query[0].shape[1]
        return max(1, self.chunk_examples // examples)

    def step_sizes(
        self, meta: Mapping[str, Tensor], number: int
    ) -> list[Mapping[str, float | Tensor]]:
        """Of so many steps; where more are taken than were learned, the last is repeated."""
        theta = weights(meta)
        if self.learned == "none":
            moving = head(theta) if self.head_only else list(theta)
            return [dict.fromkeys(moving, self.step_size)] * number
        sizes = {n.removeprefix(STEP_SIZE): s for n, s in meta.items() if n.startswith(STEP_SIZE)}
        if self.learned == "meta_sgd":
            return [sizes] * number
        last = self.steps - 1
        return [
            {name: size[min(step, last)] for name, size in sizes.items()} for step in range(number)
        ]


def weights(meta: Mapping[str, Tensor]) -> Params:
    """θ without the learned step sizes."""
    return {name: leaf for name, leaf in meta.items() if not name.startswith(STEP_SIZE)}


def adaptation(
    inner: InnerLoop,
    params: Params,
    support: Examples,
    step_sizes: Sequence[StepSize],
    first_order: bool = False,
) -> Iterator[Params]:
    """The parameters of stacked tasks after 0, 1, 2, ... steps on their support sets."""
    yield params
    for step_size in step_sizes:
        params = adapt(
            inner.batch_loss, params, [support], [step_size], first_order, gradient=reverse
        )
        yield params


def outer_gradient(
    inner: InnerLoop, meta: Params, episodes: Episodes, step_weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """The meta-gradient, summed over tasks, and what goes with it (lines 8 and 10 of Algorithm 2).

    Args:
        inner: how to adapt.
        meta: the meta-parameters.
        episodes: N tasks.
        step_weights: of the query loss after 0, 1, ... steps. Zeros, and a one for the last, is
            MAML; (1,) is no adaptation at all.

    Returns:
        The gradient (P,), and the query loss and score after the last step, (2,); sums over tasks.
    """
    meta = {name: leaf.to(inner.device).detach().requires_grad_() for name, leaf in meta.items()}
    steps = len(step_weights) - 1

    def some(chunk: slice) -> tuple[Tensor, Tensor]:
        support, query = _examples(inner, episodes, chunk)
        params = repeat(weights(meta), len(query[1]))
        objective: Tensor | float = 0.0
        step_sizes = inner.step_sizes(meta, steps)
        after = adaptation(inner, params, support, step_sizes, inner.first_order)
        for adapted, weight in zip(after, step_weights, strict=True):
            if weight:
                outputs = inner.model(adapted, query[0])
                loss = inner.loss(outputs, query[1])
                objective = objective + weight * loss
        assert isinstance(objective, Tensor)
        gradient = torch.autograd.grad(
            objective, list(meta.values()), allow_unused=True, materialize_grads=True
        )
        score = inner.score(outputs.detach(), query[1]).sum()
        return flatten(dict(zip(meta, gradient, strict=True))), torch.stack([loss.detach(), score])

    size = inner.chunk_size(episodes)
    gradients, seen = zip(*over_chunks(some, len(episodes.tasks), size), strict=True)
    return torch.stack(gradients).sum(0), torch.stack(seen).sum(0)


@torch.no_grad()
def outputs_by_step(
    inner: InnerLoop,
    params: Params,
    episodes: Episodes,
    step_sizes: Sequence[StepSize],
    predict: Predict = together,
) -> Tensor:
    """What the network says of each task's queries after 0, 1, ... steps, (N, K + 1, M, O).

    Args:
        inner: network and loss.
        params: to start from, not stacked.
        episodes: N tasks.
        step_sizes: of K steps.
        predict: how to ask the adapted network.
    """

    params, step_sizes = move((params, list(step_sizes)), inner.device)

    def some(chunk: slice) -> Tensor:
        support, (inputs, _) = _examples(inner, episodes, chunk)
        start = repeat(params, len(inputs))
        after = adaptation(inner, start, support, step_sizes)
        outputs = [predict(inner.model, adapted, support, inputs) for adapted in after]
        return torch.stack(outputs, dim=1).cpu()

    size = inner.chunk_size(episodes)
    return torch.cat(over_chunks(some, len(episodes.tasks), size))


def _examples(inner: InnerLoop, episodes: Episodes, chunk: slice) -> tuple[Examples, Examples]:
    """Support and query of some of the tasks, where they are worked on."""
    (x, y), (more_x, more_y), device = episodes.support, episodes.query, inner.device
    support = x[chunk].to(device), y[chunk].to(device)
    return support, (more_x[chunk].to(device), more_y[chunk].to(device))
