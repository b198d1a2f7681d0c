"""Gathering trajectories of many tasks at once, with a policy for each."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.randomness import stream
from metarl.rl.policies import Policy
from metarl.rl.trajectories import Trajectories

VectorEnv = gym.vector.VectorEnv[Any, Any, Any]


@torch.no_grad()
def sample(
    policy: Policy,
    params: Mapping[str, Tensor],
    envs: VectorEnv,
    tasks: NDArray[np.float64],
    horizon: int,
    seed: int,
    *indices: int,
    first_task: int = 0,
) -> Trajectories:
    """One trajectory in every sub-environment: B = num_envs / N for each of N tasks.

    All N·B environments advance together; one stacked forward pass a time step serves them all.
    The randomness of a task, its environments' seeds and its policy's noise, comes from a stream of
    its own, so that it doesn't matter beside which other tasks it is sampled.

    Args:
        policy: what the parameters are of.
        params: parameters for each task, every leaf (N, ...).
        envs: a gymnasium vector environment whose `reset` takes `options={"task": tasks}` with one
            row for each sub-environment. An episode that ends early is padded and masked, whatever
            the environment does after its end.
        tasks: (N, T).
        horizon: H.
        seed: the run's seed.
        indices: what tells this call's stream from others', such as iteration and inner step.
        first_task: position of the first task in the meta-batch, where others have the rest of it.

    Raises:
        ValueError: if the environments cannot be divided evenly among the tasks.
        FloatingPointError: if the policy, the environments or the rewards break down.
    """
    num_tasks = len(tasks)
    per_task, rest = divmod(envs.num_envs, num_tasks)
    if rest or not per_task:
        raise ValueError(
            f"{envs.num_envs} environments cannot be divided evenly among {num_tasks} tasks"
        )
    positions = range(first_task, first_task + num_tasks)
    streams = [stream(seed, "trajectories", *indices, task) for task in positions]
    noise = torch.stack(
        [torch.from_numpy(policy.noise(rng, (horizon, per_task))) for rng in streams], dim=1
    )  # (H, N, B, ·): a time step is one contiguous block
    seeds = np.concatenate([rng.integers(2**31, size=per_task) for rng in streams])
    observation, _ = envs.reset(
        seed=seeds.tolist(), options={"task": np.repeat(tasks, per_task, axis=0)}
    )

    shape = (num_tasks, per_task, horizon)
    observations = torch.zeros(*shape, observation.shape[-1])
    actions = torch.zeros(*shape, *policy.action_shape, dtype=policy.action_dtype)
    rewards = torch.zeros(shape)
    log_probs = torch.zeros(shape)
    mask = torch.zeros(shape, dtype=torch.bool)
    distributions: dict[str, Tensor] = {}
    alive = np.ones(envs.num_envs, dtype=bool)

    for t in range(horizon):
        seen = torch.from_numpy(np.asarray(observation, dtype=np.float32))
        seen = seen.view(num_tasks, per_task, -1)
        distribution = policy.distribution(params, seen)
        action = policy.act(distribution, noise[t])
        if not torch.isfinite(action).all():
            raise FloatingPointError(
                "the policy chose an action that is not finite: its last update was too large; "
                "lower the step size"
            )
        observations[:, :, t] = seen
        actions[:, :, t] = action
        log_probs[:, :, t] = policy.log_prob(distribution, action)
        mask[:, :, t] = torch.from_numpy(alive).view(num_tasks, per_task)
        for name, leaf in distribution.items():
            if name not in distributions:
                # a leaf that is the same for all observations, (N, 1, ·), is kept once
                length = (per_task, horizon) if leaf.shape[1] == per_task else (1, 1)
                distributions[name] = torch.zeros(num_tasks, *length, *leaf.shape[2:])
            distributions[name][:, :, min(t, distributions[name].shape[2] - 1)] = leaf
        observation, reward, terminated, truncated, _ = envs.step(
            action.reshape(envs.num_envs, *policy.action_shape).numpy()
        )
        rewards[:, :, t] = torch.from_numpy(np.asarray(reward, dtype=np.float32)).view(
            num_tasks, per_task
        )
        alive = alive & ~(terminated | truncated)
        if not alive.any():
            break
    return Trajectories(observations, actions, rewards, mask, log_probs, distributions)
