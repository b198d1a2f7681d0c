"""What every iteration of a policy's learning ends with: the outer step, and how it went."""

import time
from collections.abc import Sequence
from itertools import accumulate
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.config.sections import MethodSection
from metarl.distributed import mean_over_tasks, seconds_waited
from metarl.evaluation import AdaptationCurve
from metarl.method import AdaptationUnit, Metrics, Role, TrainingState
from metarl.optim import OPTIMIZERS, Objective
from metarl.parallel import CPU, move
from metarl.params import flatten
from metarl.rl.policies import Policy
from metarl.rl.problem import PolicyProblem
from metarl.rl.trajectories import Rollouts


class PolicyLearner:
    """What methods that learn policies have in common; see `metarl.method.Method`."""

    role: ClassVar[Role] = "meta-learner"
    supports_distributed: ClassVar[bool] = True
    Settings: ClassVar[type[MethodSection]] = MethodSection
    outer_steps: ClassVar[tuple[str, ...]] = tuple(OPTIMIZERS)  # those that its objective serves

    def __init__(self, problem: PolicyProblem) -> None:
        self.problem = problem

    @property
    def policy(self) -> Policy:
        """What acts."""
        return self.problem.policy

    @property
    def stages(self) -> int:
        """How many times an iteration samples from every environment."""
        raise NotImplementedError

    @property
    def num_iterations(self) -> int:
        """The config's iterations."""
        return self.problem.config.outer.iterations

    @property
    def max_samples(self) -> int:
        """The most environment steps."""
        return self.num_iterations * self.stages * self.problem.steps_per_stage

    @property
    def uses_lr_schedule(self) -> bool:
        """Whether the outer step shrinks towards the last iteration."""
        return self.problem.config.outer.anneal

    def close(self) -> None:
        """Close the environments."""
        self.problem.close()


def outer_step(
    problem: PolicyProblem,
    state: TrainingState,
    rollouts: Rollouts,
    objective: Objective,
    unit: AdaptationUnit,
) -> tuple[TrainingState, Metrics]:
    """Follow an objective by the config's outer step.

    Args:
        problem: what is learned.
        state: whose parameters the rollouts were sampled with.
        rollouts: what this iteration collected.
        objective: of them.
        unit: what the stages of the rollouts count.

    Raises:
        FloatingPointError: if the parameters are not finite any more.
    """
    config = problem.config
    started = time.perf_counter()
    theta, optimizer, metrics = config.outer.step(  # type: ignore[attr-defined]
        state.params, objective, state.opt_state, state.iteration
    )
    seconds = time.perf_counter() - started
    if not torch.isfinite(flatten(theta)).all():
        raise FloatingPointError(
            "the meta-parameters are not finite any more; lower the outer step "
            "(outer.learning_rate) or the inner one (inner.step_size)"
        )
    seen = _rollout_metrics(problem.policy, rollouts, config.outer.meta_batch, unit)
    steps = round(seen["environment_steps"])
    new = TrainingState(state.iteration + 1, theta, optimizer, state.samples + steps)
    return new, {
        **seen,
        **metrics,
        "time/sampling": rollouts.seconds,
        "time/learning": seconds,
        "time/communication": seconds_waited(),
        "time/steps_per_second": steps / rollouts.seconds,
    }


def _rollout_metrics(
    policy: Policy, rollouts: Rollouts, meta_batch: int, unit: AdaptationUnit
) -> Metrics:
    """Means over the tasks of all processes, and how many steps were taken for them."""
    post = move(rollouts.post, CPU)
    entropy = policy.entropy(post.distribution).expand_as(post.weights)
    sums = {"policy/entropy": (post.weights * entropy).sum()}
    for stage, collected in enumerate(rollouts.trajectories):
        name = unit.metric.format(stage)
        sums[f"return/{name}"] = collected.mean_returns.sum()
        sums[f"episode_length/{name}"] = collected.lengths.double().mean(dim=1).sum()
    sums["environment_steps"] = torch.stack([t.mask.sum() for t in rollouts.trajectories]).sum()
    totals = torch.stack([value.double() for value in sums.values()])
    means = mean_over_tasks(totals, len(post.weights))
    metrics = dict(zip(sums, means.tolist(), strict=True))
    metrics["environment_steps"] *= meta_batch
    return metrics


def curve(
    problem: PolicyProblem,
    tasks: NDArray[np.float64],
    rollouts: Rollouts,
    step_sizes: Sequence[float] = (),
) -> AdaptationCurve:
    """The returns of rollouts on tasks (N, T), stage after stage.

    Args:
        problem: what was evaluated.
        tasks: (N, T).
        rollouts: of them, with the evaluation's number of trajectories.
        step_sizes: of the gradient steps between the stages, where there are any.
    """
    stages = rollouts.trajectories
    returns = np.stack([stage.mean_returns.numpy() for stage in stages], axis=1)
    # who adapts by memory has one episode of a trial a stage; the others batches of trajectories
    played = [stage.played.double().mean().item() if step_sizes else 1 for stage in stages[:-1]]
    episodes = tuple(round(total) for total in accumulate(played, initial=0))
    return AdaptationCurve(tasks, returns, tuple(step_sizes), episodes)
