"""A run's policy on one task, before and after adaptation: for videos and plots of paths."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from metarl.envs import PointNavigation
from metarl.envs.family import checked_task
from metarl.errors import UserError
from metarl.method import AdaptationUnit, load_method
from metarl.report.captions import stage_name
from metarl.report.evaluations import (
    Evaluation,
    load_checked_state,
    load_or_evaluate,
    own_evaluation,
    steps_to_show,
)
from metarl.report.video import Episode, record
from metarl.rl.agent import Agent, adapt_in, play_episodes
from metarl.rl.problem import PolicyMethod, PolicyProblem
from metarl.rng import make_rng
from metarl.runs.run import Run


@dataclass(frozen=True)
class AdaptedPolicy:
    """A policy at several stages of its adaptation to a task."""

    problem: PolicyProblem
    task: NDArray[np.float64]  # (T,)
    agents: dict[int, Agent]  # by stage of adaptation
    unit: AdaptationUnit | None  # of the stages
    seed: int  # of the recorded episodes

    @property
    def description(self) -> str:
        """The task in words."""
        return self.problem.describe(self.task)

    def episodes(self) -> dict[str, Episode]:
        """One recorded episode per stage, all with the same initial state and action noise.

        The adapted policy acts as in the evaluation: without noise, if that is deterministic.
        """
        deterministic = self.problem.config.evaluation.deterministic
        return {
            stage_name(stage, self.unit): record(
                agent,
                self.problem.raw_family,
                self.task,
                self.seed,
                deterministic == "always" or (deterministic and stage > 0),
            )
            for stage, agent in self.agents.items()
        }

    @property
    def has_paths(self) -> bool:
        """Whether observations are positions in the plane."""
        return isinstance(self.problem.raw_family, PointNavigation)

    def paths(self) -> dict[str, NDArray[Any]]:
        """Positions (3, H, 2) in three episodes, by name of the stage; NaN after an episode."""
        horizon = self.problem.family.horizon
        paths = {}
        for stage, agent in self.agents.items():
            positions = np.full((3, horizon, 2), np.nan)
            with closing(self.problem.raw_family.make()) as env:
                for index, path in enumerate(positions):
                    # one at a time: a recurrent policy has the memory of the stage in each of them
                    (episode,) = play_episodes(agent, env, 1, horizon, self.task, ("play", index))
                    path[: len(np.asarray(episode.rewards))] = episode.observations
            paths[stage_name(stage, self.unit)] = positions
        return paths


def adapt_to_task(
    run: Run, task: Sequence[float] | None = None, steps: Sequence[int] | None = None
) -> AdaptedPolicy:
    """Adapt a run's policy to one task, with the step sizes of its evaluation.

    By default it is the first test task of the evaluation, (T,), at the stages 0, 1 and 3.

    Raises:
        UserError: if the run has no policy, or the task or the steps are invalid.
    """
    family = policy_method(run).problem.raw_family
    chosen = None if task is None else checked_task(family, task)  # before the evaluation
    evaluation = load_or_evaluate(run)
    curve, method = evaluation.curve, cast(PolicyMethod, evaluation.method)
    last, seed = curve.scores.shape[1] - 1, rendering_seed(method.problem)
    steps = steps_to_show(run, last, steps, (0, 1, 3), "evaluation.step_sizes=[…]")
    row = curve.tasks[0] if chosen is None else chosen
    agent = load_agent(run, method, seed, evaluation)
    return adapt_agent(method, agent, row, steps, seed)


def rendering_seed(problem: PolicyProblem) -> int:
    """The seed of recorded episodes: the same for all methods."""
    return int(make_rng(problem.config.evaluation.seed, "rendering").integers(2**31))


def adapt_agent(
    method: PolicyMethod, agent: Agent, row: NDArray[np.float64], steps: Sequence[int], seed: int
) -> AdaptedPolicy:
    """Adapt an agent to a task (T,), and keep it at the stages `steps`."""
    problem: PolicyProblem = method.problem
    unit, horizon = method.adaptation_unit, problem.family.horizon
    agent.reset(row)
    # a stage of adaptation by memory is one episode
    episodes = 1 if unit and unit.counts_episodes else problem.config.evaluation.episodes_per_task
    # an agent per stage: `adapt_in` returns another one, and a stage is played from its own memory
    agents = {0: agent}
    with closing(problem.raw_family.make()) as env:
        for stage in range(1, max(steps) + 1):
            agents[stage] = adapt_in(agents[stage - 1], env, episodes, horizon, row)
    return AdaptedPolicy(problem, row, {stage: agents[stage] for stage in steps}, unit, seed)


def load_agent(
    run: Run,
    method: PolicyMethod,
    seed: int = 0,
    evaluation: Evaluation | None = None,
) -> Agent:
    """The agent of a run's method, with the weights of its checkpoint.

    A baseline takes the step size that its `evaluation` selected on validation tasks, by default
    that with the settings of its config.

    Raises:
        UserError: if there is no checkpoint, it is damaged, or the method has no agent.
    """
    params = load_checked_state(run, method).params
    if not hasattr(method, "agent"):
        raise UserError(
            f"method {run.config.method.name} has no agent: define agent(self, params, seed), or "
            "derive the class from metarl.rl.outer_loop.PolicyLearner"
        )
    selects = getattr(method, "selects_step_sizes", False)
    step_sizes = [(evaluation or own_evaluation(run)).curve.step_sizes] if selects else []
    agent: Agent = method.agent(params, seed, *step_sizes)
    return agent


def policy_method(run: Run) -> PolicyMethod:
    """The method of a reinforcement learning run.

    Raises:
        UserError: if it is a run of supervised learning.
    """
    method = load_method(run.config)
    if not isinstance(method.problem, PolicyProblem):
        raise UserError(
            f"{run.path} has no policy, but a network for {method.problem.title}: load it with "
            f"metarl.load_network({str(run.path)!r})"
        )
    return cast(PolicyMethod, method)
