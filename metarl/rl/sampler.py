"""Gathering trajectories of many tasks at once, with a policy for each."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.config.sections import BatchUnit
from metarl.envs.family import check_finite, check_outcome
from metarl.parallel import map_chunks, one_thread
from metarl.rl.policies import Memory, Policy
from metarl.rl.trajectories import Trajectories, first_steps, join
from metarl.rng import RngKey

VectorEnv = gym.vector.VectorEnv[Any, Any, Any]
MOST_ROUNDS = 4


def sample(
    policy: Policy,
    params: Mapping[str, Tensor],
    envs: VectorEnv | Sequence[VectorEnv],
    tasks: NDArray[np.float64],
    horizon: int,
    key: RngKey,
    first_task: int = 0,
    count: BatchUnit = "episodes",
) -> Trajectories:
    """Trajectories of a policy that remembers nothing before them: one in every sub-environment.

    See `sample_episode`. Where there are several vector environments, of some of the tasks each,
    they advance independently of each other, on threads: while one is in its physics, the policy of
    another is evaluated.

    Where steps count, every task has trajectories of as many time steps as its sub-environments
    have in whole episodes: those that end early make room for more of them, four times as many at
    most, because an episode that begins at its goal has a single step.
    """
    parts = envs if isinstance(envs, Sequence) else [envs]
    size = math.ceil(len(tasks) / len(parts))

    def some(key: RngKey, chunk: slice) -> Trajectories:
        mine = {name: leaf[chunk] for name, leaf in params.items()} if len(parts) > 1 else params
        first = first_task + chunk.start
        part = parts[chunk.start // size]
        return sample_episode(policy, mine, part, tasks[chunk], horizon, key, first)[0]

    def once(key: RngKey) -> Trajectories:
        return join(map_chunks(partial(some, key), len(tasks), size))

    rounds = [once(key)]
    if count == "episodes":
        return rounds[0]
    steps, lasted = rounds[0].mask[0].numel(), rounds[0].mask.sum(dim=(1, 2))
    while lasted.min() < steps and len(rounds) < MOST_ROUNDS:
        rounds.append(once(key.fold_in(len(rounds))))
        lasted += rounds[-1].mask.sum(dim=(1, 2))
    return first_steps(rounds, steps)


@torch.no_grad()
def sample_episode(
    policy: Policy,
    params: Mapping[str, Tensor],
    envs: VectorEnv,
    tasks: NDArray[np.float64],
    horizon: int,
    key: RngKey,
    first_task: int = 0,
    memory: Memory | None = None,
) -> tuple[Trajectories, Memory]:
    """One trajectory in every sub-environment: B = num_envs / N for each of N tasks.

    All N·B environments advance together; one stacked forward pass a time step serves them all.
    The randomness of a task, its environments' seeds and its policy's noise, comes from a stream of
    its own, so that it doesn't matter beside which other tasks it is sampled.

    Args:
        policy: what the parameters are of.
        params: parameters for each task, every leaf (N, ...), or as the policy wants them.
        envs: a gymnasium vector environment whose `reset` takes `options={"task": tasks}` with one
            row for each sub-environment. An episode that ends early is padded and masked, whatever
            the environment does after its end.
        tasks: (N, T).
        horizon: H.
        key: where this call's randomness is: that of an iteration and an inner step.
        first_task: position of the first task in the meta-batch, where others have the rest of it.
        memory: what the policies remember of earlier episodes, every leaf (N, B, ...); nothing
            where None.

    Returns:
        The trajectories, and what the policies remember when theirs has ended.

    Raises:
        ValueError: if the environments cannot be divided evenly among the tasks, or those are not
            in two axes: (N,) could be taken for one task of size N.
        UserError: if the environments return arrays of other shapes than they must.
        FloatingPointError: if the policy, the environments or the rewards break down; it names the
            environment, the task and the step.
    """
    if np.ndim(tasks) != 2:
        raise ValueError(f"tasks must have shape (N, T), one row each, not {np.shape(tasks)}")
    num_tasks = len(tasks)
    per_task, rest = divmod(envs.num_envs, num_tasks)
    if rest or not per_task:
        raise ValueError(
            f"{envs.num_envs} environments cannot be divided evenly among {num_tasks} tasks"
        )
    first_env = first_task * per_task
    positions = range(first_task, first_task + num_tasks)
    streams = [key.rng("trajectories", task) for task in positions]
    noise = torch.stack(
        [torch.from_numpy(policy.noise(rng, (horizon, per_task))) for rng in streams], dim=1
    )  # (H, N, B, ·): a time step is one contiguous block
    seeds = np.concatenate([rng.integers(2**31, size=per_task) for rng in streams])
    given = np.repeat(tasks, per_task, axis=0)
    observation, _ = envs.reset(seed=seeds.tolist(), options={"task": given})
    row = envs.num_envs, policy.observation_size
    check_outcome(row, observation)

    # the time axis comes first while sampling: what a step writes is one contiguous block
    shape = (horizon, num_tasks, per_task)
    observations = torch.zeros(*shape, policy.observation_size)
    actions = torch.zeros(*shape, *policy.action_shape, dtype=policy.action_dtype)
    rewards = np.zeros((horizon, envs.num_envs), dtype=np.float32)
    alive = np.ones((horizon + 1, envs.num_envs), dtype=bool)
    distributions: dict[str, Tensor] = {}
    if memory is None:
        memory = policy.initial_memory((num_tasks, per_task))
    with one_thread():
        for t in range(horizon):
            seen = observations[t].view(row).numpy()
            _copy(seen, observation, alive[t])
            check_finite("an observation", seen, given, t, first_env)
            distribution, new_memory = policy.step(params, memory, observations[t])
            actions[t] = policy.act(distribution, noise[t])
            chosen = actions[t].view(envs.num_envs, *policy.action_shape).numpy()
            if not np.isfinite(chosen).all():
                raise FloatingPointError(
                    "the policy chose an action that is not finite: its last update was too large; "
                    "lower the step size"
                )
            for name, leaf in distribution.items():
                if name not in distributions:
                    # a leaf that is the same for all observations, (N, 1, ·), is kept once
                    steps = horizon if leaf.shape[1] == per_task else 1
                    distributions[name] = torch.zeros(steps, *leaf.shape)
                distributions[name][min(t, len(distributions[name]) - 1)] = leaf
            observation, reward, terminated, truncated, _ = envs.step(chosen)
            check_outcome(row, observation, reward, terminated, truncated)
            _copy(rewards[t], reward, alive[t])
            check_finite("a reward", rewards[t], given, t + 1, first_env)
            ended = terminated | truncated
            if new_memory:  # who has come to an end remembers no more
                there = torch.from_numpy(alive[t]).view(num_tasks, per_task)
                rewarded, over = (
                    torch.from_numpy(value).view(num_tasks, per_task)
                    for value in (rewards[t], ended)
                )
                new_memory = policy.remember(new_memory, actions[t], rewarded, over)
                memory = tuple(
                    torch.where(there.view(*there.shape, *[1] * (new.dim() - 2)), new, old)
                    for new, old in zip(new_memory, memory, strict=True)
                )
            alive[t + 1] = alive[t] & ~ended
            if not alive[t + 1].any():
                alive[t + 1 :] = False
                break

    def by_task(leaf: Tensor) -> Tensor:
        """(H, N, B, ·) to (N, B, H, ·)."""
        return leaf.movedim(0, 2).contiguous()

    actions = by_task(actions)
    distributions = {name: by_task(leaf) for name, leaf in distributions.items()}
    trajectories = Trajectories(
        by_task(observations),
        actions,
        by_task(torch.from_numpy(rewards).view(shape)),
        by_task(torch.from_numpy(alive[:-1]).view(shape)),
        policy.log_prob(distributions, actions),
        distributions,
    )
    return trajectories, memory


def _copy(into: NDArray[np.float32], numbers: NDArray[Any], alive: NDArray[np.bool_]) -> None:
    """Copy what environments returned, but zeros where an episode is over: it may be anything."""
    with np.errstate(over="ignore"):  # beyond single precision it becomes infinite, and is seen
        np.copyto(into, numbers, casting="same_kind")
    if not alive.all():
        into[~alive] = 0.0
