"""Sample trajectories of many tasks at once, with a policy for each."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.config.sections import BatchUnit
from metarl.envs.family import check_finite, check_outcome
from metarl.errors import UserError
from metarl.parallel import map_chunks, one_thread
from metarl.rl.policies import Memory, Policy
from metarl.rl.trajectories import Trajectories, concat_tasks, truncate_to_steps
from metarl.rng import RngKey

VectorEnv = gym.vector.VectorEnv[Any, Any, Any]
Result = TypeVar("Result")
MAX_ROUNDS = 4
INFINITE_ACTION = (
    "the policy chose an action that is not finite: its last update was too large; lower the step "
    "size"
)


def map_parts(
    sample_part: Callable[[VectorEnv, slice], Result],
    envs: VectorEnv | Sequence[VectorEnv],
    num_tasks: int,
) -> list[Result]:
    """Apply a function to each vector environment and the slice of the tasks that it has.

    Several vector environments advance independently on threads: while one computes its physics,
    the policy of another is evaluated.
    """
    parts = envs if isinstance(envs, Sequence) else [envs]
    size = math.ceil(num_tasks / len(parts))
    return map_chunks(lambda chunk: sample_part(parts[chunk.start // size], chunk), num_tasks, size)


def sample(
    policy: Policy,
    params: Mapping[str, Tensor],
    envs: VectorEnv | Sequence[VectorEnv],
    tasks: NDArray[np.float64],
    horizon: int,
    key: RngKey,
    first_task: int = 0,
    count: BatchUnit = "episodes",
    deterministic: bool = False,
) -> Trajectories:
    """Sample trajectories of a policy whose memory is empty at their start; see `sample_episode`.

    With `count="steps"`, every task gets as many time steps as its sub-environments have in whole
    episodes. Episodes that end early leave room for more of them, up to four times as many,
    because an episode that starts at its goal has a single step.
    """

    def sample_round(key: RngKey) -> Trajectories:
        def sample_part(part: VectorEnv, chunk: slice) -> Trajectories:
            theta = params  # of a single part, parameters need not be stacked
            if part is not envs:
                theta = {name: leaf[chunk] for name, leaf in params.items()}
            start = first_task + chunk.start
            trajectories, _ = sample_episode(
                policy, theta, part, tasks[chunk], horizon, key, start, deterministic=deterministic
            )
            return trajectories

        return concat_tasks(map_parts(sample_part, envs, len(tasks)))

    rounds = [sample_round(key)]
    if count == "episodes":
        return rounds[0]
    num_steps, steps_taken = rounds[0].mask[0].numel(), rounds[0].mask.sum(dim=(1, 2))
    while steps_taken.min() < num_steps and len(rounds) < MAX_ROUNDS:
        rounds.append(sample_round(key.fold_in("round", len(rounds))))
        steps_taken += rounds[-1].mask.sum(dim=(1, 2))
    return truncate_to_steps(rounds, num_steps)


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
    deterministic: bool = False,
) -> tuple[Trajectories, Memory]:
    """Sample one trajectory in every sub-environment: B = num_envs / N for each of N tasks.

    All N·B environments advance together, with one stacked forward pass for each time step. The
    randomness of a task (its environments' seeds and its policy's noise) comes from its own
    generator, so that it does not depend on the other tasks that are sampled with it.

    Args:
        policy: the policy that the parameters belong to.
        params: parameters for each task, every leaf (N, ...), or whatever the policy takes.
        envs: a gymnasium vector environment whose `reset` takes `options={"task": tasks}` with one
            row for each sub-environment. An episode that ends early is padded and masked, whatever
            the environment does after its end.
        tasks: (N, T).
        horizon: H.
        key: random key of this call: of an iteration and an inner step.
        first_task: position of the first task in the meta-batch, if other processes or threads
            sample the rest of it.
        memory: the policies' memory of earlier episodes, every leaf (N, B, ...); empty if None.
        deterministic: take the mean action, or the most probable one.

    Returns:
        The trajectories, and the policies' memory after them.

    Raises:
        ValueError: if the environments cannot be divided evenly among the tasks, or tasks do not
            have two axes: (N,) could be mistaken for one task of size N.
        UserError: if the environments return arrays of the wrong shape.
        FloatingPointError: if an action, an observation or a reward is not finite; it names the
            environment, the task and the step.
    """
    if np.ndim(tasks) != 2:
        raise ValueError(f"tasks must have shape (N, T), one row each, not {np.shape(tasks)}")
    num_tasks = len(tasks)
    per_task, remainder = divmod(envs.num_envs, num_tasks)
    if remainder or not per_task:
        raise ValueError(
            f"{envs.num_envs} environments cannot be divided evenly among {num_tasks} tasks"
        )
    first_env = first_task * per_task  # for messages: the environment's position in the meta-batch
    rngs = [key.rng("trajectories", first_task + index) for index in range(num_tasks)]
    noise = torch.stack(
        [torch.from_numpy(policy.noise(rng, (horizon, per_task))) for rng in rngs], dim=1
    )  # (H, N, B, ·): a time step is one contiguous block
    if deterministic:  # drawn all the same: the seeds below must not depend on it
        noise.zero_()
    seeds = np.concatenate([rng.integers(2**31, size=per_task) for rng in rngs])
    env_tasks = np.repeat(tasks, per_task, axis=0)
    observation, _ = envs.reset(seed=seeds.tolist(), options={"task": env_tasks})
    row = envs.num_envs, policy.observation_size
    check_outcome(row, observation)

    # the time axis comes first while sampling: what a step writes is one contiguous block
    shape = (horizon, num_tasks, per_task)
    observations = torch.zeros(*shape, policy.observation_size)
    actions = torch.zeros(*shape, *policy.action_shape, dtype=policy.action_dtype)
    # the same memory as numpy arrays with one row for each environment
    observation_rows = observations.view(horizon, *row).numpy()
    action_rows = actions.view(horizon, envs.num_envs, *policy.action_shape).numpy()
    rewards = np.zeros((horizon, envs.num_envs), dtype=np.float32)
    last_observations = np.zeros(row, dtype=np.float32)
    alive = np.ones((horizon + 1, envs.num_envs), dtype=bool)  # before each step
    terminated = np.zeros(envs.num_envs, dtype=bool)
    success: NDArray[np.bool_] | None = None
    distributions: dict[str, Tensor] = {}
    if memory is None:
        memory = policy.initial_memory((num_tasks, per_task))
    with one_thread():
        for t in range(horizon):
            _copy_where(observation_rows[t], observation, alive[t])
            check_finite("an observation", observation_rows[t], env_tasks, t, first_env)
            # one forward pass for all tasks: parameters are stacked, (N, ...), and inputs (N, B, S)
            distribution, new_memory = policy.step(params, memory, observations[t])
            actions[t] = policy.act(distribution, noise[t])
            if not np.isfinite(action_rows[t]).all():
                raise FloatingPointError(INFINITE_ACTION)
            for name, leaf in distribution.items():
                if name not in distributions:
                    # a leaf that is equal for all observations, (N, 1, ·), is stored once
                    num_steps = horizon if leaf.shape[1] == per_task else 1
                    distributions[name] = torch.zeros(num_steps, *leaf.shape)
                if t < len(distributions[name]):
                    distributions[name][t] = leaf
            observation, reward, terminations, truncations, info = envs.step(
                action_rows[t].copy()  # an environment may clip or scale it in place
            )
            check_outcome(row, observation, reward, terminations, truncations)
            _copy_where(rewards[t], reward, alive[t])
            check_finite("a reward", rewards[t], env_tasks, t + 1, first_env)
            reached = _success(info, envs.num_envs)
            if reached is not None:
                success = (reached & alive[t]) | (False if success is None else success)
            ended = terminations | truncations
            if new_memory:
                # not every environment reports the horizon as an end
                is_end = ended | (t + 1 == horizon)
                memory = _remember(
                    policy, memory, new_memory, actions[t], rewards[t], is_end, alive[t]
                )
            # an ended episode stays over, whatever its environment reports after an autoreset
            alive[t + 1] = alive[t] & ~ended
            is_last = alive[t] if t + 1 == horizon else alive[t] & ended
            if is_last.any():
                terminated |= is_last & terminations
                _copy_last(last_observations, observation, info, is_last)
            if not alive[t + 1].any():
                alive[t + 1 :] = False
                break

    def by_task(leaf: Tensor) -> Tensor:
        """(H, N, B, ·) to (N, B, H, ·)."""
        return leaf.movedim(0, 2).contiguous()

    # log-probabilities of all steps at once: cheaper than step by step
    actions = by_task(actions)
    distributions = {name: by_task(leaf) for name, leaf in distributions.items()}
    trajectories = Trajectories(
        by_task(observations),
        actions,
        by_task(torch.from_numpy(rewards).view(shape)),
        by_task(torch.from_numpy(alive[:-1]).view(shape)),
        policy.log_prob(distributions, actions),
        distributions,
        terminated=torch.from_numpy(terminated).view(num_tasks, per_task),
        last_observations=torch.from_numpy(last_observations).view(num_tasks, per_task, -1),
        success=None if success is None else torch.from_numpy(success).view(num_tasks, per_task),
    )
    return trajectories, memory


def _remember(
    policy: Policy,
    memory: Memory,
    new_memory: Memory,
    actions: Tensor,
    rewards: NDArray[np.float32],
    ended: NDArray[np.bool_],
    alive: NDArray[np.bool_],
) -> Memory:
    """The memory after a step; that of an episode which ended before does not change."""
    shape = new_memory[0].shape[:2]
    new_memory = policy.remember(
        new_memory,
        actions,
        torch.from_numpy(rewards).view(shape),
        torch.from_numpy(ended).view(shape),
    )
    if alive.all():  # as in most steps of a robot
        return new_memory
    is_alive = torch.from_numpy(alive).view(shape)
    return tuple(
        torch.where(is_alive.view(*shape, *[1] * (new.dim() - 2)), new, old)
        for new, old in zip(new_memory, memory, strict=True)
    )


def _copy_where(
    target: NDArray[np.float32], values: NDArray[Any], alive: NDArray[np.bool_]
) -> None:
    """Copy what environments returned; zeros where an episode is over, since it may be anything."""
    with np.errstate(over="ignore"):  # beyond single precision it becomes infinite: an error later
        np.copyto(target, values, casting="same_kind")
    if not alive.all():
        target[~alive] = 0.0


def _success(info: Mapping[str, Any], num_envs: int) -> NDArray[np.bool_] | None:
    """The `info["success"]` of a step for each environment, (num_envs,); None if none has it.

    With gymnasium's autoreset mode "SameStep", that of an episode's last step is in `final_info`.

    Raises:
        UserError: if it is not one number or truth value for each environment.
    """
    parts = [part["success"] for part in (info, info.get("final_info", {})) if "success" in part]
    if not parts:
        return None
    reached = np.zeros(num_envs, dtype=bool)
    for part in parts:
        values = np.asarray(part)
        if values.dtype == object:  # gymnasium's form of np.bool_, with None where it is missing
            values = np.array([value if value is not None else False for value in values])
        if values.shape != (num_envs,) or values.dtype.kind not in "biuf":
            raise UserError(
                'info["success"] must be a truth value for each environment, of shape '
                f"({num_envs},), not {values.dtype} of shape {values.shape}"
            )
        reached |= values > 0
    return reached


def _copy_last(
    target: NDArray[np.float32],
    observations: NDArray[Any],
    info: Mapping[str, Any],
    is_last: NDArray[np.bool_],
) -> None:
    """Copy the observation after the last action of an episode.

    With gymnasium's autoreset mode "SameStep", `observations` are those of the next episode, and
    the last ones are in `info["final_obs"]`. Numbers that are not finite become zero: an episode
    may have ended because its simulation broke down.
    """
    final = info.get("final_obs", [None] * len(is_last))
    with np.errstate(over="ignore"):
        for index in np.flatnonzero(is_last):
            target[index] = observations[index] if final[index] is None else final[index]
    target[~np.isfinite(target)] = 0.0
