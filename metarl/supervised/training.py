"""Meta-training on supervised tasks: Algorithm 2 of Finn et al. (2017), iteration by iteration."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from metarl.distributed import mean_over_tasks, seconds_waited, shard
from metarl.optim import adam_step
from metarl.randomness import stream
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.maml import InnerLoop, outer_gradient
from metarl.supervised.tasks import Episodes, Tasks
from metarl.training import Metrics, TrainingState


def meta_train(
    config: SupervisedConfig, tasks: Tasks, inner: InnerLoop, state: TrainingState
) -> Iterator[tuple[TrainingState, Metrics]]:
    """Yield the state after every iteration.

    Metrics, means over the iterations since the last ones, go with every `report_every`-th and with
    the last; they are empty otherwise.

    Args:
        config: the experiment.
        tasks: those of training.
        inner: how to adapt.
        state: where to continue. What follows is then the same, bit for bit, as in a run that was
            never interrupted.

    Raises:
        FloatingPointError: if the meta-gradient is not finite. The last state that was yielded is
            sound.
    """
    settings, outer = config.inner, config.outer
    mine = shard(outer.meta_batch)
    theta, optimizer = state.theta, state.optimizer
    seen: list[Tensor] = []
    started, drawing = time.perf_counter(), 0.0
    for iteration in range(state.iteration, outer.iterations):
        before = time.perf_counter()
        rng = stream(config.seed, "tasks", iteration)
        episodes = tasks.sample(rng, outer.meta_batch, settings.shots, settings.queries, mine)
        if config.method != "maml":
            episodes = mixed(episodes)
        drawing += time.perf_counter() - before
        gradient, sums = outer_gradient(inner, theta, episodes, step_weights(config, iteration))
        num_tasks = len(episodes.tasks)
        means = mean_over_tasks(torch.cat([gradient, sums.to(gradient)]), num_tasks).cpu()
        gradient = means[: -len(sums)]
        if not torch.isfinite(gradient).all():
            raise FloatingPointError(
                f"the meta-gradient of iteration {iteration + 1} is not finite; lower the inner "
                "step (inner.step_size) or the outer one (outer.learning_rate)"
            )
        if outer.clip is not None:
            gradient = gradient.clamp(-outer.clip, outer.clip)
        rate = outer.annealed(outer.learning_rate, iteration)
        theta, optimizer = adam_step(theta, gradient, optimizer, rate)
        seen.append(means[-len(sums) :].clone())  # a view would keep the gradient as well
        samples = state.samples + samples_per_iteration(config)
        state = TrainingState(iteration + 1, theta, optimizer, samples)
        metrics: Metrics = {}
        if state.iteration % config.report_every == 0 or state.iteration == outer.iterations:
            loss, score = torch.stack(seen).mean(0).tolist()
            metrics = {
                **_named(config, loss, score),
                "examples": len(seen) * samples_per_iteration(config),
                "time/iteration": (time.perf_counter() - started) / len(seen),
                "time/drawing": drawing / len(seen),
                "time/communication": seconds_waited() / len(seen),
            }
            seen = []
            started, drawing = time.perf_counter(), 0.0
        yield state, metrics


def _named(config: SupervisedConfig, loss: float, score: float) -> Metrics:
    when = f"after_{config.inner.steps if config.method == 'maml' else 0}_steps"
    if config.data.name == "sinusoid":
        return {f"error/{when}": score}
    # a classifier of all classes has another task, and must not be drawn into the same plot
    name = f"accuracy/{when}" if config.method == "maml" else "pretraining/accuracy"
    return {"loss": loss, name: score}


def step_weights(config: SupervisedConfig, iteration: int) -> list[float]:
    """Of the query loss after 0, 1, ... inner steps.

    MAML's is that after the last alone. In the first `multi_step_iterations` the other steps count
    as well, and less and less (Antoniou et al. 2019, section 4): all alike at first.
    """
    if config.method != "maml":
        return [1.0]
    steps, span = config.inner.steps, config.inner.multi_step_iterations
    other = max(0.0, 1.0 - iteration / span) / steps if span else 0.0
    return [0.0, *[other] * (steps - 1), 1.0 - (steps - 1) * other]


def samples_per_iteration(config: SupervisedConfig) -> int:
    """How many examples an iteration learns from."""
    settings, data = config.inner, config.data
    ways = 1 if data.name == "sinusoid" else data.ways
    return config.outer.meta_batch * ways * (settings.shots + settings.queries)


def mixed(episodes: Episodes) -> Episodes:
    """The examples of all tasks as one: what pretraining learns from.

    Labels are those of all classes there are then, which a task names.
    """
    (x, y), (more_x, more_y) = episodes.support, episodes.query
    inputs = torch.cat([x, more_x], dim=1).flatten(0, 1)[None]
    targets = torch.cat([y, more_y], dim=1)
    if not targets.is_floating_point():
        targets = torch.gather(torch.from_numpy(episodes.tasks), 1, targets).long()
    examples = (inputs, targets.flatten(0, 1)[None])
    return Episodes(episodes.tasks[:1], examples, examples)
