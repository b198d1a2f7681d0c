"""Adapting in somebody's own environment, or to what was seen there: no family is needed.

Episodes come in two forms: as they are played by a policy of ours, in a single environment one
after the other or in a vector environment side by side; or as arrays that somebody gathered.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorWrapper
from numpy.typing import ArrayLike, NDArray

from metarl.envs.images import FlatImage, flat_envs
from metarl.envs.wrappers import vectorise
from metarl.errors import UserError
from metarl.params import Params, repeat
from metarl.rl.policies import GaussianPolicy, Policy, policy_for
from metarl.rl.sampler import VectorEnv, sample
from metarl.rl.trajectories import Trajectories, first_trajectories
from metarl.rng import RngKey

AnyEnv = gym.Env[Any, Any] | VectorEnv


class Trajectory(NamedTuple):
    """What was seen of one episode, of H steps.

    Attributes:
        observations: (H, ...), each before the action of its step.
        actions: (H, A), as the policy drew them, before any clipping; or (H,) numbers of actions.
        rewards: (H,).
    """

    observations: ArrayLike
    actions: ArrayLike
    rewards: ArrayLike

    @property
    def total(self) -> float:
        """The undiscounted return."""
        return float(np.sum(self.rewards))


Gathered = Sequence[Trajectory | tuple[ArrayLike, ArrayLike, ArrayLike]]


class _OneTask(VectorWrapper[Any, Any, Any]):
    """Every reset gives the environment one task for all, or says nothing of tasks."""

    def __init__(self, env: VectorEnv, task: NDArray[np.float64] | None) -> None:
        super().__init__(env)
        self._options = None if task is None else {"task": task}

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(seed=seed, options=self._options)  # type: ignore[arg-type]


def as_task(task: ArrayLike | None) -> NDArray[np.float64] | None:
    """A task (T,), or None.

    Raises:
        UserError: if it is no row of finite numbers.
    """
    if task is None:
        return None
    try:
        row = np.atleast_1d(np.asarray(task, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise UserError(f"a task must be a row of numbers, not {task!r}") from error
    if row.ndim != 1 or not np.isfinite(row).all():
        raise UserError(f"a task must be a row of finite numbers, not {task!r}")
    return row


def check_fits(policy: Policy, env: AnyEnv) -> None:
    """Refuse an environment with other spaces than the policy's.

    Raises:
        UserError: naming what differs.
    """
    if isinstance(env, gym.Env):
        seen, done = env.observation_space, env.action_space
    else:
        seen, done = env.single_observation_space, env.single_action_space
    theirs = policy_for(seen, done)
    if theirs.observation_size != policy.observation_size:
        raise UserError(
            f"the policy sees observations of {policy.observation_size} numbers, but those of the "
            f"environment have {theirs.observation_size} ({seen}); adapt it in an environment with "
            "the spaces that it was trained on"
        )
    if _actions(theirs) != _actions(policy):
        raise UserError(
            f"the policy chooses {_actions(policy)}, but the environment takes {done}; adapt it in "
            "an environment with the spaces that it was trained on"
        )


def _actions(policy: Policy) -> str:
    if isinstance(policy, GaussianPolicy):
        return f"actions of {policy.action_size} real numbers"
    return f"one of {policy.num_actions} actions"  # type: ignore[attr-defined] # the other kind


def gather(
    policy: Policy,
    params: Params,
    env: AnyEnv,
    episodes: int,
    horizon: int,
    key: RngKey,
    task: NDArray[np.float64] | None = None,
) -> Trajectories:
    """Play episodes in an environment: (1, B, H, ·), as the sampler has them of a single task.

    Args:
        policy: what the parameters are of.
        params: of one policy.
        env: with matching spaces; it is reset for every episode, and not closed.
        episodes: B. A vector environment plays as many at a time as it has sub-environments.
        horizon: H, the longest that an episode is played.
        key: where the randomness is.
        task: (T,), given to every reset as `options={"task": task}`; nothing is given where None.

    Raises:
        UserError: if the environment does not fit the policy, or returns what it must not.
        FloatingPointError: if a number is not finite.
    """
    check_fits(policy, env)
    envs = vectorise(lambda: env, 1) if isinstance(env, gym.Env) else env
    envs = _OneTask(flat_envs(envs), task)
    none = np.zeros((1, 0))  # the wrapper alone knows of the task
    rounds = [
        sample(policy, repeat(params, 1), envs, none, horizon, key, first_task=number)
        for number in range(-(-episodes // envs.num_envs))
    ]
    return first_trajectories(rounds, episodes)


@torch.no_grad()
def given(
    policy: Policy,
    params: Params,
    episodes: Gathered,
    space: FlatImage | None = None,
    scale: Sequence[float] | None = None,
) -> Trajectories:
    """Episodes that somebody gathered with this very policy, padded: (1, B, H, ·).

    Observations are rows, or images of the original of `space`. Where there is a scale, factors
    (S,), the policy sees them multiplied by it.

    Raises:
        UserError: if one has other shapes than it must, or numbers that are not finite.
    """
    arrays = [_checked(policy, number, episode, space) for number, episode in enumerate(episodes)]
    if not arrays:
        raise UserError("there is no episode to adapt to; give at least one")
    horizon = max(len(rewards) for *_, rewards in arrays)
    size, count = policy.observation_size, len(arrays)
    observations = torch.zeros(1, count, horizon, size)
    actions = torch.zeros(1, count, horizon, *policy.action_shape, dtype=policy.action_dtype)
    rewards = torch.zeros(1, count, horizon)
    mask = torch.zeros(1, count, horizon, dtype=torch.bool)
    for number, (seen, done, paid) in enumerate(arrays):
        steps = len(paid)
        observations[0, number, :steps] = torch.from_numpy(seen)
        actions[0, number, :steps] = torch.from_numpy(done).to(policy.action_dtype)
        rewards[0, number, :steps] = torch.from_numpy(paid)
        mask[0, number, :steps] = True
    if scale is not None:
        observations *= torch.tensor(scale)
    rows = policy.distribution(params, observations.view(-1, size))
    distribution = {
        # one row for all observations, such as a standard deviation, stays one
        name: leaf.view(1, count, horizon, -1) if len(leaf) > 1 else leaf.view(1, 1, 1, -1)
        for name, leaf in rows.items()
    }
    log_probs = policy.log_prob(distribution, actions)
    return Trajectories(observations, actions, rewards, mask, log_probs, distribution)


def _checked(
    policy: Policy,
    number: int,
    episode: Trajectory | tuple[ArrayLike, ArrayLike, ArrayLike],
    space: FlatImage | None,
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float32]]:
    try:
        observations, actions, rewards = episode
        seen, done = np.asarray(observations, np.float32), np.asarray(actions)
        paid = np.asarray(rewards, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"episode {number} must be (observations, actions, rewards), three arrays with a row "
            f"for each step: {error}"
        ) from error
    steps = len(paid) if paid.ndim == 1 else 0
    if space and seen.shape[1:] == space.original.shape:  # else they are rows already
        seen = space.flatten(seen)
    for name, array, expected in (
        ("rewards", paid, (max(steps, 1),)),
        ("observations", seen, (steps, policy.observation_size)),
        ("actions", done, (steps, *policy.action_shape)),
    ):
        if array.shape != expected:
            raise UserError(
                f"{name} of episode {number} must have shape {expected}, not {array.shape}"
            )
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise UserError(f"{name} of episode {number} must be finite numbers")
    if not policy.action_shape:
        most = policy.num_actions  # type: ignore[attr-defined] # of discrete actions
        if done.dtype.kind == "f" or done.min() < 0 or done.max() >= most:
            raise UserError(
                f"actions of episode {number} must be whole numbers from 0 to {most - 1}"
            )
    return seen, done, paid
