"""The outer step of an iteration and its metrics, and what methods that learn policies share."""

import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.config.sections import MethodSection
from metarl.distributed import all_reduce_mean, seconds_waited
from metarl.evaluation import SUCCESS, AdaptationCurve
from metarl.method import AdaptationUnit, Metrics, Role, TrainingState
from metarl.optim import OPTIMIZERS, Objective
from metarl.parallel import CPU, move, one_thread
from metarl.params import Params, flatten
from metarl.rl.adaptation import evaluate_adaptation
from metarl.rl.agent import Agent
from metarl.rl.policies import Policy
from metarl.rl.policy_agent import PolicyAgent
from metarl.rl.problem import PolicyProblem
from metarl.rl.trajectories import Rollouts
from metarl.rng import RngKey


class PolicyLearner:
    """The common part of methods that learn policies; see `metarl.method.Method`."""

    role: ClassVar[Role] = "meta-learner"
    adaptation_unit: ClassVar[AdaptationUnit | None]
    supports_distributed: ClassVar[bool] = True
    Settings: ClassVar[type[MethodSection]] = MethodSection
    selects_step_sizes: ClassVar[bool] = False  # on validation tasks, in an evaluation
    outer_steps: ClassVar[tuple[str, ...]] = tuple(OPTIMIZERS)  # that fit the method's objective

    def __init__(self, problem: PolicyProblem) -> None:
        self.problem = problem
        self.settings: Any = problem.config.method

    @property
    def policy(self) -> Policy:
        return self.problem.policy

    @property
    def num_stages(self) -> int:
        """The number of batches that an iteration samples from every environment."""
        raise NotImplementedError

    @property
    def num_iterations(self) -> int:
        return self.problem.config.outer.iterations

    @property
    def max_samples(self) -> int:
        episodes = self.problem.config.episodes_in(self.num_iterations)
        return self.num_stages * episodes * self.problem.family.horizon

    @property
    def uses_lr_schedule(self) -> bool:
        return self.problem.config.outer.depends_on_length

    def outer_params(self, params: Params) -> Params:
        """The parameters that the outer step learns, of which it keeps moments: all by default."""
        return params

    def fine_tuning_step_sizes(self, params: Params) -> Sequence[float]:
        """Step sizes of adaptation to a new task, (K,); the config's unless a method selects them.

        Empty for a method that takes no gradient steps on a new task.
        """
        unit = self.adaptation_unit
        has_step_sizes = unit is not None and unit.has_step_sizes
        return self.problem.config.evaluation_step_sizes if has_step_sizes else ()

    def validation_score(self, params: Params, number: int) -> float:
        """The mean return on validation tasks after the inner steps of training."""
        inner, unit = self.problem.config.inner, self.adaptation_unit
        sizes = (inner.step_size,) * inner.steps if unit and unit.has_step_sizes else ()
        tasks, key = self.problem.validation_tasks(number)
        return float(self.curve(params, tasks, key, sizes).scores[:, -1].mean())

    def agent(
        self, params: Params, seed: int = 0, step_sizes: Sequence[float] | None = None
    ) -> Agent:
        """An agent that acts with these parameters and adapts to one task after another.

        Args:
            params: the meta-parameters.
            seed: seed of the agent's actions.
            step_sizes: of its gradient steps; `fine_tuning_step_sizes` if None.
        """
        if step_sizes is None:
            step_sizes = self.fine_tuning_step_sizes(params)
        return PolicyAgent(self.problem, self.policy, params, seed, tuple(step_sizes))

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """Adapt to held-out tasks, with `fine_tuning_step_sizes` by default."""
        sizes = self.fine_tuning_step_sizes(params) if step_sizes is None else step_sizes
        return self.curve(params, *self.problem.test_tasks(), sizes)

    def curve(
        self, params: Params, tasks: NDArray[np.float64], key: RngKey, step_sizes: Sequence[float]
    ) -> AdaptationCurve:
        """The returns on tasks (N, T) before and after each gradient step."""
        return evaluate_adaptation(self.problem, params, tasks, key, step_sizes)

    def close(self) -> None:
        self.problem.close()


def outer_step(
    problem: PolicyProblem,
    state: TrainingState,
    rollouts: Rollouts,
    objective: Objective,
    unit: AdaptationUnit,
) -> tuple[TrainingState, Metrics]:
    """Improve the meta-parameters by one step of the config's outer optimiser.

    Args:
        problem: the problem that is learned.
        state: the state whose parameters the rollouts were sampled with.
        rollouts: the trajectories of this iteration.
        objective: the objective, a function of the meta-parameters.
        unit: what the stages of the rollouts count.

    Raises:
        FloatingPointError: if the parameters are not finite any more.
    """
    config = problem.config
    started = time.perf_counter()
    params, opt_state, metrics = config.outer.step(  # type: ignore[attr-defined]
        state.params, objective, state.opt_state, state.iteration
    )
    seconds = time.perf_counter() - started
    # the state before this step is still valid, and can be saved
    if not torch.isfinite(flatten(params)).all():
        raise FloatingPointError(
            "the meta-parameters are not finite any more; lower the outer step "
            "(outer.learning_rate) or the inner one (inner.step_size)"
        )
    # of every process: the number of steps must be the same in all of them
    rollout_metrics = _rollout_metrics(problem.policy, rollouts, config.outer.meta_batch, unit)
    steps = round(rollout_metrics["environment_steps"])
    new = TrainingState(state.iteration + 1, params, opt_state, state.samples + steps)
    return new, {
        **rollout_metrics,
        **metrics,
        "time/sampling": rollouts.seconds,
        "time/learning": seconds,
        "time/communication": seconds_waited(),
        "time/steps_per_second": steps / rollouts.seconds,
    }


def _rollout_metrics(
    policy: Policy, rollouts: Rollouts, meta_batch: int, unit: AdaptationUnit
) -> Metrics:
    """Means over the tasks of all processes, and the number of environment steps."""
    post = move(rollouts.post, CPU)
    # −∫ π log π of the adapted policies; weights average over the valid time steps of each task
    entropy = policy.entropy(post.distribution).expand_as(post.weights)
    sums = {"policy/entropy": (post.weights * entropy).sum()}
    for stage, collected in enumerate(rollouts.trajectories):
        name = unit.metric.format(stage)
        sums[f"return/{name}"] = collected.mean_returns.sum()
        rates = collected.success_rates
        sums[f"{SUCCESS}/{name}"] = torch.zeros(()) if rates is None else rates.sum()
        sums[f"episode_length/{name}"] = collected.lengths.double().mean(dim=1).sum()
    # the same numbers in all processes, although an environment may report success where it
    # succeeds only
    known = [stage.success is not None for stage in rollouts.trajectories]
    sums[SUCCESS] = torch.tensor(float(any(known)))
    sums["environment_steps"] = torch.stack([t.mask.sum() for t in rollouts.trajectories]).sum()
    totals = torch.stack([value.double() for value in sums.values()])
    means = all_reduce_mean(totals, len(post.weights))
    metrics = dict(zip(sums, means.tolist(), strict=True))
    # a mean over the tasks of all processes, and a sum is reported
    metrics["environment_steps"] *= meta_batch
    if not metrics.pop(SUCCESS):
        metrics = {name: x for name, x in metrics.items() if not name.startswith(f"{SUCCESS}/")}
    return metrics
