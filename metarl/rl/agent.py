"""Agents: act in environments, one task after another, and adapt to each.

    agent.reset(task)
    observation, _ = env.reset()
    while True:
        action = agent.act(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        agent.observe(reward, terminated, truncated, observation)

Between episodes, `agent = agent.adapt()` learns from the episodes that it observed: by a gradient
step, or not at all where a recurrent policy adapts while it acts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from metarl.envs.family import as_task
from metarl.envs.observations import AnyEnv
from metarl.errors import UserError
from metarl.rl.external_data import Episodes, Trajectory
from metarl.rl.policy_agent import PolicyAgent


class Agent(Protocol):
    """Interface of agents, which act in environments and adapt to one task after another.

    `metarl.AdaptivePolicy` has these methods as well. A custom method of reinforcement learning
    returns its agent from `agent(params, seed)`; `metarl.load` and the command line then play,
    render and evaluate its runs.
    """

    def reset(self, task: ArrayLike | None = None) -> None:
        """Start a new task: forget memory, recorded episodes and adapted parameters.

        Args:
            task: (T,), for agents that observe the task (oracles); all others ignore it.
        """

    def act(self, observation: ArrayLike, deterministic: bool = False) -> Any:
        """Choose an action (A,) for an observation (S,), or (num_envs, A) for (num_envs, S)."""

    def observe(
        self,
        reward: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike,
        next_observation: ArrayLike | None = None,
    ) -> None:
        """Record the outcome of the last action, as `env.step` returned it."""

    def adapt(self, episodes: Episodes | None = None) -> Agent:
        """Return an agent adapted to episodes of the task, by default those observed."""


def play_episodes(
    agent: Agent,
    env: AnyEnv,
    episodes: int,
    horizon: int,
    task: ArrayLike | None = None,
    stream: Sequence[int | str] = (),
) -> list[Trajectory]:
    """Episodes of an agent in an environment; see `PolicyAgent.play`.

    An agent of your own plays in a single environment, through `act` and `observe`.
    """
    # it plays in vector environments too, by random streams that do not depend on their number
    if isinstance(agent, PolicyAgent):
        return agent.unscaled(agent.play(env, episodes, horizon, task, stream)[0])
    if not isinstance(env, gym.Env):
        raise UserError(f"{type(agent).__name__} plays in a single environment only")
    options = None if task is None else {"task": as_task(task)}
    return [_play_episode(agent, env, horizon, options) for _ in range(episodes)]


def adapt_in(
    agent: Agent,
    env: AnyEnv,
    episodes: int,
    horizon: int,
    task: ArrayLike | None = None,
    **settings: Any,
) -> Agent:
    """An agent adapted to episodes that it plays in an environment; see `PolicyAgent.adapt_in`."""
    if isinstance(agent, PolicyAgent):
        return agent.adapt_in(env, episodes, horizon, task, **settings)
    return agent.adapt(play_episodes(agent, env, episodes, horizon, task), **settings)


def _play_episode(
    agent: Agent, env: gym.Env[Any, Any], horizon: int, options: dict[str, Any] | None
) -> Trajectory:
    observation, _ = env.reset(options=options)
    steps: list[tuple[Any, Any, float]] = []
    terminated = truncated = False
    while not (terminated or truncated):
        observation = copy.deepcopy(observation)  # the environment may write into it
        action = agent.act(observation)
        next_observation, reward, terminated, truncated, _ = env.step(action)
        steps.append((observation, action, float(reward)))
        # an environment without a time limit is cut here, which is not an end of the task
        truncated = truncated or len(steps) == horizon
        agent.observe(float(reward), terminated, truncated, next_observation)
        observation = next_observation
    observations, actions, rewards = (np.stack(column) for column in zip(*steps, strict=True))
    return Trajectory(observations, actions, rewards, bool(terminated), observation)
