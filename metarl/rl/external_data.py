"""Episodes from environments and arrays outside the package: no task family is needed.

Episodes are played by a policy of ours in any gymnasium environment, or given as arrays that the
same policy produced elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorWrapper
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from metarl.envs.observations import AnyEnv, FlatSpace, flat_env, single_observation_space
from metarl.envs.vector import BatchedEnv
from metarl.envs.wrappers import vectorise
from metarl.errors import UserError
from metarl.params import Params, repeat
from metarl.rl.policies import Memory, Policy, policy_for
from metarl.rl.sampler import VectorEnv, sample_episode
from metarl.rl.trajectories import Trajectories, first_trajectories
from metarl.rng import RngKey

MAX_REPEATED = 0.02  # the largest share of equal extreme actions that is taken for chance


class _Arrays(NamedTuple):
    observations: ArrayLike
    actions: ArrayLike
    rewards: ArrayLike


class Trajectory(_Arrays):
    """An episode of H time steps, as a tuple (observations, actions, rewards).

    Args:
        observations: (H, ...); `observations[t]` is the one that `actions[t]` was chosen for.
        actions: (H, A), as sampled by the policy, before any clipping; or (H,) indices of actions.
        rewards: (H,).
        terminated: whether the episode reached a terminal state.
        last_observation: the observation after the last action; None if it is unknown.
    """

    terminated: bool
    last_observation: ArrayLike | None

    def __new__(  # documented with the class
        cls,
        observations: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike,
        terminated: bool = False,
        last_observation: ArrayLike | None = None,
    ) -> Trajectory:
        trajectory = super().__new__(cls, observations, actions, rewards)
        trajectory.terminated = terminated
        trajectory.last_observation = last_observation
        return trajectory

    @property
    def total(self) -> float:
        """The undiscounted return."""
        return float(np.sum(self.rewards))


Episodes = Sequence[Trajectory | tuple[ArrayLike, ArrayLike, ArrayLike]]


class _OneTask(VectorWrapper[Any, Any, Any]):
    """Passes one task to every reset; no options at all if the task is None.

    It accepts steps after the end of an episode in every autoreset mode, and a seed for each
    sub-environment, as the sampler needs them.
    """

    def __init__(self, env: VectorEnv, task: NDArray[np.float64] | None) -> None:
        super().__init__(env)
        self._task = task
        self._ended = np.zeros(env.num_envs, dtype=bool)
        # gymnasium's refuse a step after an end in this mode; ours ignores it
        is_disabled = env.metadata.get("autoreset_mode") is AutoresetMode.DISABLED
        self._resets = is_disabled and not isinstance(env.unwrapped, BatchedEnv)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self._ended[:] = False
        options = None if self._task is None else {"task": self._task}
        try:
            return self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        except (gym.error.Error, TypeError):  # CartPoleVectorEnv has one generator for all
            if not isinstance(seed, list):
                raise
            return self.env.reset(seed=seed[0], options=options)
        except ValueError as error:
            if self._task is None:
                raise
            raise UserError(
                f"reset of the environment with the task {self._task.tolist()} raised "
                f"{type(error).__name__}: {error}"
            ) from error

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        if self._resets and self._ended.any():
            options = {} if self._task is None else {"task": self._task}
            self.env.reset(options={**options, "reset_mask": self._ended.copy()})
        result = self.env.step(actions)
        self._ended = np.asarray(result[2]) | np.asarray(result[3])
        return result


def check_fits(policy: Policy, env: AnyEnv) -> None:
    """Refuse an environment whose spaces differ from the policy's.

    Raises:
        UserError: naming the difference.
    """
    observation_space = single_observation_space(env)
    action_space = env.action_space if isinstance(env, gym.Env) else env.single_action_space
    other = policy_for(observation_space, action_space)
    if other.observation_size != policy.observation_size:
        raise UserError(
            f"the policy takes observations of {policy.observation_size} numbers, but those of the "
            f"environment have {other.observation_size} ({observation_space}); adapt it in an "
            "environment with the spaces that it was trained on"
        )
    if getattr(other, "image", None) != getattr(policy, "image", None):
        raise UserError(
            f"the policy takes images of shape {getattr(policy, 'image', None)}, and those of the "
            f"environment have {getattr(other, 'image', None)}; adapt it in an environment with "
            "the spaces that it was trained on"
        )
    if any(
        getattr(other, name, ()) != getattr(policy, name, ())
        for name in ("action_shape", "action_size", "action_dtype", "sizes")
    ):
        actions = f"actions of {policy.action_size} real numbers"
        if not policy.action_dtype.is_floating_point:
            actions = f"among {getattr(policy, 'sizes', ()) or policy.action_size} actions"
        raise UserError(
            f"the policy chooses {actions}, but the environment takes {action_space}; adapt it in "
            "an environment with the spaces that it was trained on"
        )


def collect_episodes(
    policy: Policy,
    params: Params,
    env: AnyEnv,
    episodes: int,
    horizon: int,
    key: RngKey,
    task: NDArray[np.float64] | None = None,
    memory: Memory = (),
) -> tuple[Trajectories, Memory]:
    """Play episodes in an environment.

    A policy with memory keeps it from one episode to the next.

    Args:
        policy: the policy that the parameters belong to.
        params: of one policy.
        env: with matching spaces; it is reset for every episode, and not closed.
        episodes: B. A vector environment plays as many at a time as it has sub-environments.
        horizon: H, the longest that an episode is played.
        key: random key of this call.
        task: (T,), passed to every reset as `options={"task": task}`; no options if None.
        memory: the policy's memory, every leaf (num_envs, ...); empty at first.

    Returns:
        Trajectories (1, B, H, ·), and the memory after them, every leaf (num_envs, ...).

    Raises:
        UserError: if the environment does not fit the policy, or returns wrong shapes.
        FloatingPointError: if a number is not finite.
    """
    check_fits(policy, env)
    envs = vectorise(lambda: env, 1) if isinstance(env, gym.Env) else env
    envs = _OneTask(flat_env(envs), task)
    # feedforward policies are stacked over tasks, a recurrent one is the same for all of them
    is_recurrent = bool(policy.initial_memory((1,)))
    policy_params = params if is_recurrent else repeat(params, 1)
    no_task = np.zeros((1, 0))  # the wrapper passes the task
    batched_memory: Memory | None = tuple(leaf[None] for leaf in memory) or None
    # an environment plays one episode per round; the memory goes on from round to round
    rounds: list[Trajectories] = []
    for number in range(-(-episodes // envs.num_envs)):
        # the number of the round takes the place of the task's in the random key
        trajectories, batched_memory = sample_episode(
            policy, policy_params, envs, no_task, horizon, key, number, batched_memory
        )
        rounds.append(trajectories)
    return first_trajectories(rounds, episodes), tuple(leaf[0] for leaf in batched_memory or ())


class EpisodeArrays(NamedTuple):
    """One checked episode as tensors, with the observations that the policy takes.

    Attributes:
        observations: (H, S).
        actions: (H, A), or (H,) indices.
        rewards: (H,).
        terminated: whether the episode reached a terminal state.
        last_observation: (S,), if it is known.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: bool
    last_observation: Tensor | None


def to_arrays(
    policy: Policy,
    episodes: Episodes,
    space: FlatSpace | None = None,
    scale: Sequence[float] | None = None,
) -> list[EpisodeArrays]:
    """Check episodes, and convert them to what a policy takes.

    Args:
        policy: whose episodes they are.
        episodes: each (observations, actions, rewards), or a `Trajectory`.
        space: of flattened observations, where those of the environment are not flat; they may
            also be flattened already.
        scale: factors (S,) by which observations are multiplied, if any.

    Raises:
        UserError: if there is none, an episode has the wrong shapes, or numbers are not finite.

    Warns:
        UserWarning: if actions look clipped: a likelihood is that of an action before clipping.
    """
    if not len(episodes):
        raise UserError("there is no episode to adapt to; give at least one")
    factors = torch.ones(()) if scale is None else torch.tensor(scale)
    converted = []
    for number, episode in enumerate(episodes):
        observations, actions, rewards = _checked(policy, number, episode, space)
        last = getattr(episode, "last_observation", None)
        if last is not None:
            last = torch.from_numpy(_checked_last(policy, number, last, space)) * factors
        converted.append(
            EpisodeArrays(
                # torch takes no arrays with negative strides
                torch.from_numpy(np.ascontiguousarray(observations)) * factors,
                torch.from_numpy(np.ascontiguousarray(actions)).to(policy.action_dtype),
                torch.from_numpy(np.ascontiguousarray(rewards)),
                bool(getattr(episode, "terminated", False)),
                last,
            )
        )
    _warn_if_clipped(policy, torch.cat([episode.actions for episode in converted]))
    return converted


def _warn_if_clipped(policy: Policy, actions: Tensor) -> None:
    """Warn if components of actions (H, A) repeat their extreme values, as samples hardly do."""
    if not policy.action_dtype.is_floating_point:
        return
    low, high = actions.amin(0), actions.amax(0)
    repeated_low, repeated_high = (
        at_bound & (at_bound.sum(0) > 1) for at_bound in (actions == low, actions == high)
    )
    clipped = float((repeated_low | repeated_high).float().mean())
    if clipped > MAX_REPEATED:
        warnings.warn(
            f"{clipped:.0%} of the numbers in actions are exactly the smallest or the largest one, "
            f"as after clipping to [{low.min():.3g}, {high.max():.3g}]: likelihoods of clipped "
            "actions are wrong; give those that act() returned",
            stacklevel=5,
        )


@torch.no_grad()
def from_arrays(policy: Policy, params: Params, episodes: Sequence[EpisodeArrays]) -> Trajectories:
    """Episodes that a policy played with these parameters, padded: (1, B, H, ·)."""
    horizon = max(len(episode.rewards) for episode in episodes)
    size, count = policy.observation_size, len(episodes)
    observations = torch.zeros(1, count, horizon, size)
    actions = torch.zeros(1, count, horizon, *policy.action_shape, dtype=policy.action_dtype)
    rewards = torch.zeros(1, count, horizon)
    mask = torch.zeros(1, count, horizon, dtype=torch.bool)
    for number, episode in enumerate(episodes):
        steps = len(episode.rewards)
        observations[0, number, :steps] = episode.observations
        actions[0, number, :steps] = episode.actions
        rewards[0, number, :steps] = episode.rewards
        mask[0, number, :steps] = True
    distribution = {
        # a leaf with one row for all observations, such as a standard deviation, stays one row
        name: leaf.view(1, count, horizon, -1) if len(leaf) > 1 else leaf.view(1, 1, 1, -1)
        for name, leaf in policy.distribution(params, observations.view(-1, size)).items()
    }
    last = [episode.last_observation for episode in episodes]
    known = [observation for observation in last if observation is not None]
    return Trajectories(
        observations,
        actions,
        rewards,
        mask,
        policy.log_prob(distribution, actions),
        distribution,
        terminated=torch.tensor([[episode.terminated for episode in episodes]]),
        last_observations=torch.stack(known)[None] if len(known) == count else None,
    )


def _checked_last(
    policy: Policy, number: int, observation: ArrayLike, space: FlatSpace | None
) -> NDArray[np.float32]:
    try:
        row = space.rows([observation])[0] if space else np.asarray(observation)
        row = row.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"last_observation of episode {number} must be numbers: {error}") from error
    if row.shape != (policy.observation_size,) or not np.isfinite(row).all():
        raise UserError(
            f"last_observation of episode {number} must be {policy.observation_size} finite "
            f"numbers, not {row.tolist()}"
        )
    return row


def _checked(
    policy: Policy,
    number: int,
    episode: Trajectory | tuple[ArrayLike, ArrayLike, ArrayLike],
    space: FlatSpace | None,
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float32]]:
    try:
        raw_observations, raw_actions, raw_rewards = episode
        flat = space.rows(raw_observations) if space else raw_observations
        observations, actions = np.asarray(flat, np.float32), np.asarray(raw_actions)
        rewards = np.asarray(raw_rewards, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"episode {number} must be (observations, actions, rewards), three arrays with a row "
            f"for each step: {error}"
        ) from error
    steps = max(1, len(actions) if actions.ndim else 0)
    for name, array, expected in (
        ("rewards", rewards, (steps,)),
        ("observations", observations, (steps, policy.observation_size)),
        ("actions", actions, (steps, *policy.action_shape)),
    ):
        if array.shape != expected:
            raise UserError(
                f"{name} of episode {number} must have shape {expected}, not {array.shape}"
            )
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise UserError(f"{name} of episode {number} must be finite numbers")
    if not policy.action_dtype.is_floating_point:
        sizes = np.array(getattr(policy, "sizes", ()) or policy.action_size)  # of each component
        if actions.dtype.kind == "f" or (actions < 0).any() or (actions >= sizes).any():
            raise UserError(
                f"actions of episode {number} must be whole numbers from 0 to {sizes - 1}"
            )
    return observations, actions, rewards
