"""Trajectories as sampled, and as the flat samples that losses take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.params import Params

Distribution = dict[str, Tensor]


@dataclass(frozen=True)
class Trajectories:
    """Trajectories of N tasks, B each, of at most H time steps.

    An episode that ended early is padded to H; `mask` is true on steps that were taken. Padding is
    replaced by zeros at construction, so that whatever it held, infinities and NaN included,
    cannot reach a result.

    Attributes:
        observations: (N, B, H, S), before the action of the step.
        actions: (N, B, H, A), or (N, B, H) integers for discrete actions.
        rewards: (N, B, H).
        mask: (N, B, H), boolean; true on a prefix of every trajectory, and nowhere on one that
            exists only because another task has more of them.
        log_probs: (N, B, H), log-probability of each action when it was drawn.
        distribution: parameters of the action distribution when the action was drawn, every leaf
            (N, B, H, ·), or (N, 1, 1, ·) where it depends on the task alone.
        terminated: (N, B), boolean; whether the environment reached a terminal state.
        truncated: (N, B), boolean; whether the episode was cut off, by the environment or at H.
            By default every trajectory that did not terminate.
        last_observations: (N, B, S), after the last action; None if they were not recorded.
        success: (N, B), boolean; whether the goal was reached at any step; None of environments
            that do not report `info["success"]`.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor
    log_probs: Tensor
    distribution: Distribution
    terminated: Tensor = None  # type: ignore[assignment] # set at construction
    truncated: Tensor = None  # type: ignore[assignment]
    last_observations: Tensor | None = None
    success: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask.dtype is not torch.bool or self.mask.dim() != 3:
            raise ValueError(
                f"mask must be boolean of shape (N, B, H), not {self.mask.dtype} of shape "
                f"{tuple(self.mask.shape)}"
            )
        after_a_gap = self.mask[:, :, 1:] & ~self.mask[:, :, :-1]
        if after_a_gap.any() or not self.mask[:, :, 0].any(dim=1).all():
            raise ValueError(
                "mask must be true on a prefix of every trajectory, and every task must have one"
            )
        for name in ("observations", "actions", "rewards", "log_probs"):
            self._check_axes(name, self.mask.shape)
        episodes = self.mask.shape[:2]
        if self.terminated is None:  # the class is frozen, hence object.__setattr__
            object.__setattr__(self, "terminated", torch.zeros(episodes, dtype=torch.bool))
        if self.truncated is None:
            object.__setattr__(self, "truncated", ~self.terminated & self.mask[:, :, 0])
        for name in ("terminated", "truncated", "last_observations", "success"):
            self._check_axes(name, episodes)
        self._clear_padding()
        self._check_finite()

    def _check_axes(self, name: str, axes: tuple[int, ...]) -> None:
        value = getattr(self, name)
        if value is not None and value.shape[: len(axes)] != axes:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; its first axes must be "
                f"{'(N, B, H)' if len(axes) == 3 else '(N, B)'} = {tuple(axes)}"
            )

    def _clear_padding(self) -> None:
        if self.mask.all():
            return
        padding = ~self.mask

        def cleared(leaf: Tensor) -> Tensor:  # a new tensor: other trajectories may share this one
            return leaf.masked_fill(padding.view(*padding.shape, *[1] * (leaf.dim() - 3)), 0)

        for name in ("observations", "actions", "rewards", "log_probs"):
            object.__setattr__(self, name, cleared(getattr(self, name)))
        distribution = {
            name: cleared(leaf) if leaf.shape[:3] == self.mask.shape else leaf
            for name, leaf in self.distribution.items()
        }
        object.__setattr__(self, "distribution", distribution)

    def _check_finite(self) -> None:
        for name, value in (("observation", self.observations), ("reward", self.rewards)):
            # a sum is finite only if all its terms are, and much faster to check
            if torch.isfinite(value.sum()):
                continue
            for task, trajectory, step, *_ in torch.nonzero(~torch.isfinite(value)).tolist():
                raise FloatingPointError(
                    f"the {name} at step {step} of trajectory {trajectory} of task {task} is not "
                    "finite; lower the step size, or have the environment end an episode whose "
                    "simulation broke down"
                )

    @property
    def lengths(self) -> Tensor:
        """The number of steps of each trajectory, (N, B)."""
        return self.mask.sum(-1)

    @property
    def returns(self) -> Tensor:
        """The undiscounted sum of rewards of each trajectory, (N, B)."""
        return self.rewards.sum(-1)

    @property
    def num_episodes(self) -> Tensor:
        """The number of trajectories of each task, (N,)."""
        return self.mask[:, :, 0].sum(-1)

    @property
    def mean_returns(self) -> Tensor:
        """The mean return of each task's trajectories, (N,), in double precision."""
        return self.returns.double().sum(-1) / self.num_episodes

    @property
    def success_rates(self) -> Tensor | None:
        """The fraction of each task's trajectories that succeeded, (N,), if it is known."""
        if self.success is None:
            return None
        return (self.success & self.mask[:, :, 0]).double().sum(-1) / self.num_episodes

    @property
    def mean_rewards(self) -> Tensor:
        """The mean reward at each time step of the episodes that reach it, (H,); NaN if none."""
        return self.rewards.double().sum((0, 1)) / self.mask.sum((0, 1))

    @property
    def next_observations(self) -> Tensor:
        """Observations after each action, (N, B, H, S); zeros on padding.

        Raises:
            ValueError: if the last observations were not recorded.
        """
        if self.last_observations is None:
            raise ValueError("these trajectories have no last observations")
        # o_{t+1} stands one step to the right, except after the last action of each episode
        shifted = torch.cat([self.observations[:, :, 1:], self.last_observations[:, :, None]], 2)
        last = self.lengths.sub(1).clamp(min=0)[..., None, None].expand_as(shifted[:, :, :1])
        return shifted.scatter(2, last, self.last_observations[:, :, None]) * self.mask[..., None]


def concat_tasks(parts: Sequence[Trajectories]) -> Trajectories:
    """The trajectories of all tasks, from parts with some of the tasks each."""
    if len(parts) == 1:
        return parts[0]
    return _map(lambda *leaves: torch.cat(leaves), parts)


def _map(function: Callable[..., Tensor], parts: Sequence[Trajectories]) -> Trajectories:
    """Apply a function to each leaf of several trajectories, if none of them lacks it."""
    return Trajectories(
        **pytree.tree_map(
            lambda *leaves: None if any(leaf is None for leaf in leaves) else function(*leaves),
            *map(vars, parts),
        )
    )


def first_trajectories(rounds: Sequence[Trajectories], number: int) -> Trajectories:
    """The first `number` trajectories of each task, from rounds with some trajectories each."""
    shape = rounds[0].mask.shape

    def first(*leaves: Tensor) -> Tensor:
        # a distribution's leaf (N, 1, 1, ·) depends on the task alone: it is equal in every round
        per_episode = leaves[0].dim() < 4 or leaves[0].shape[:3] == shape
        return torch.cat(leaves, dim=1)[:, :number] if per_episode else leaves[0]

    return _map(first, rounds)


def truncate_to_steps(rounds: Sequence[Trajectories], number: int) -> Trajectories:
    """The first trajectories of each task whose lengths sum to `number` time steps or just above.

    A task that needs fewer trajectories than others has empty ones at the end.
    """
    lengths = torch.cat([trajectories.lengths for trajectories in rounds], dim=1)
    # an episode is needed if those before it have fewer steps than `number`
    is_needed = lengths.cumsum(dim=1) - lengths < number
    kept = first_trajectories(rounds, int(is_needed.sum(dim=1).max()))
    is_needed = is_needed[:, : kept.mask.shape[1]]
    return replace(
        kept,
        mask=kept.mask & is_needed[..., None],
        terminated=kept.terminated & is_needed,
        truncated=kept.truncated & is_needed,
    )


class Samples(NamedTuple):
    """The time steps of a batch, M = B·H for each task.

    Leaves have a leading task axis (N, M, ·) when stacked; under `vmap` a loss takes (M, ·).
    `weights` sum to one over the steps that were taken and are zero on padding, so that
    `(weights * x).sum()` is the mean over time steps.
    """

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    weights: Tensor
    log_probs: Tensor
    distribution: Distribution


def to_samples(trajectories: Trajectories, advantages: Tensor) -> Samples:
    """Join trajectories (N, B, H, ·) and their advantages (N, B, H) into samples (N, B·H, ·)."""
    # each time step counts alike, so that long episodes weigh more, as in a mean over time steps
    weights = trajectories.mask.to(advantages.dtype)
    weights = weights / weights.sum(dim=(1, 2), keepdim=True)
    return Samples(
        observations=trajectories.observations.flatten(1, 2),
        actions=trajectories.actions.flatten(1, 2),
        advantages=advantages.flatten(1, 2),
        weights=weights.flatten(1, 2),
        log_probs=trajectories.log_probs.flatten(1, 2),
        distribution={name: leaf.flatten(1, 2) for name, leaf in trajectories.distribution.items()},
    )


@dataclass(frozen=True)
class Rollouts:
    """The trajectories of N tasks at each stage of their adaptation.

    A stage is "after k gradient steps" for a method that adapts by gradients, and "episode k of a
    trial" for a method that adapts by memory.

    Attributes:
        trajectories: of each stage.
        samples: the same with advantages, on the device of learning.
        params: the parameters that each stage was sampled with, stacked over tasks: θ, ..., θ'_i.
        seconds: the duration of sampling and adaptation.
    """

    trajectories: list[Trajectories]
    samples: list[Samples]
    params: list[Params]
    seconds: float = 0.0

    @property
    def pre(self) -> list[Samples]:
        """The samples that the inner steps used."""
        return self.samples[:-1]

    @property
    def post(self) -> Samples:
        """The samples after adaptation."""
        return self.samples[-1]

    @property
    def horizon(self) -> int:
        """H."""
        return self.trajectories[0].mask.shape[-1]


def index_tasks(samples: Samples, tasks: slice) -> Samples:
    """The samples of a range of tasks."""
    selected: Samples = pytree.tree_map(lambda leaf: leaf[tasks], samples)
    return selected


def subsample(samples: Samples, horizon: int, stride: int) -> Samples:
    """Every `stride`-th time step of every trajectory, with weights that sum to one again.

    Consecutive steps are correlated, so a few steps of every trajectory carry more information
    than all steps of a few trajectories.
    """
    length = samples.weights.shape[1]
    # trajectory b starts at another offset than b − 1, so that all times t are represented; the
    # first step of the first trajectory is always kept, so that no task is left without samples
    trajectory, time = torch.arange(length) // horizon, torch.arange(length) % horizon
    kept = torch.nonzero((trajectory + time) % stride == 0).squeeze(1)

    def select(leaf: Tensor) -> Tensor:
        return leaf[:, kept] if leaf.shape[1] == length else leaf

    subsampled: Samples = pytree.tree_map(select, samples)
    return subsampled._replace(
        weights=subsampled.weights / subsampled.weights.sum(dim=1, keepdim=True)
    )
