"""What the sampler gathers, and what the learner sees of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.params import Params

Distribution = dict[str, Tensor]


@dataclass(frozen=True)
class Trajectories:
    """Trajectories of N tasks, B each, of at most H time steps.

    An episode that ended early is padded to H; `mask` tells steps that happened from padding.
    Padding is overwritten with zeros at construction, so that whatever it held, infinities and
    NaN included, cannot reach a result.

    Attributes:
        observations: (N, B, H, S), before the action of the step.
        actions: (N, B, H, A), or (N, B, H) integers for discrete actions.
        rewards: (N, B, H).
        mask: (N, B, H), boolean; true on a prefix of every trajectory, and nowhere on one that is
            there only because another task has more of them.
        log_probs: (N, B, H), log-probability of each action when it was drawn.
        distribution: parameters of the action distribution when it was drawn, every leaf
            (N, B, H, ·), or (N, 1, 1, ·) where it depends on the task alone.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor
    log_probs: Tensor
    distribution: Distribution

    def __post_init__(self) -> None:
        if self.mask.dtype is not torch.bool or self.mask.dim() != 3:
            raise ValueError(
                f"mask must be boolean of shape (N, B, H), not {self.mask.dtype} of shape "
                f"{tuple(self.mask.shape)}"
            )
        later = self.mask[:, :, 1:] & ~self.mask[:, :, :-1]
        if later.any() or not self.mask[:, :, 0].any(dim=1).all():
            raise ValueError(
                "mask must be true on a prefix of every trajectory, and every task must have one"
            )
        for attribute in fields(self):
            value = getattr(self, attribute.name)
            if isinstance(value, Tensor) and value.shape[:3] != self.mask.shape:
                raise ValueError(
                    f"{attribute.name} has shape {tuple(value.shape)}; its first axes must be "
                    f"(N, B, H) = {tuple(self.mask.shape)}"
                )
        if not self.mask.all():
            padding = ~self.mask
            for value in (self.observations, self.actions, self.rewards, self.log_probs):
                value[padding] = 0
            for leaf in self.distribution.values():
                if leaf.shape[:3] == self.mask.shape:
                    leaf[padding] = 0
        for name, value in (("observation", self.observations), ("reward", self.rewards)):
            # a sum is finite only if all its terms are, and much faster to look at
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
        """Steps that each trajectory lasted, (N, B)."""
        return self.mask.sum(-1)

    @property
    def returns(self) -> Tensor:
        """Undiscounted sum of rewards of each trajectory, (N, B)."""
        return self.rewards.sum(-1)

    @property
    def played(self) -> Tensor:
        """How many trajectories each task has, (N,)."""
        return self.mask[:, :, 0].sum(-1)

    @property
    def mean_returns(self) -> Tensor:
        """Mean return of each task's trajectories, (N,), in double precision."""
        return self.returns.double().sum(-1) / self.played


def join(parts: Sequence[Trajectories]) -> Trajectories:
    """The trajectories of all tasks, from those of some tasks each."""
    if len(parts) == 1:
        return parts[0]
    return Trajectories(**pytree.tree_map(lambda *leaves: torch.cat(leaves), *map(vars, parts)))


def first_trajectories(rounds: Sequence[Trajectories], number: int) -> Trajectories:
    """The first `number` trajectories of each task, of rounds with some of each."""
    shape = rounds[0].mask.shape

    def first(*leaves: Tensor) -> Tensor:
        # what depends on the task alone is the same in every round
        return torch.cat(leaves, dim=1)[:, :number] if leaves[0].shape[:3] == shape else leaves[0]

    return Trajectories(**pytree.tree_map(first, *map(vars, rounds)))


def first_steps(rounds: Sequence[Trajectories], number: int) -> Trajectories:
    """The first trajectories of each task that last `number` time steps together, or just over.

    A task that needs fewer trajectories for it than others has nothing in its last ones.
    """
    lengths = torch.cat([one.lengths for one in rounds], dim=1)
    wanted = lengths.cumsum(dim=1) - lengths < number
    most = first_trajectories(rounds, int(wanted.sum(dim=1).max()))
    return replace(most, mask=most.mask & wanted[:, : most.mask.shape[1], None])


class Samples(NamedTuple):
    """The time steps of a batch as the losses want them: per task, M = B·H in one row.

    Leaves have a leading task axis (N, M, ·) when stacked; under `vmap` a loss sees (M, ·).
    `weights` sum to one over the steps that happened and are zero on padding, so that
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
    """What was collected of N tasks, stage after stage of their adaptation.

    A stage is "after k gradient steps" of a method that adapts by gradients, and "the k-th episode
    of a trial" of one that adapts by its memory.

    Attributes:
        trajectories: of each stage.
        samples: the same with advantages, where learning happens.
        params: what each stage was sampled with, stacked over tasks: θ, ..., θ'_i.
        memories: what the policies of each stage remembered before it, every leaf (N, B, ...).
        seconds: how long sampling and adapting took.
    """

    trajectories: list[Trajectories]
    samples: list[Samples]
    params: list[Params]
    memories: list[tuple[Tensor, ...]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def pre(self) -> list[Samples]:
        """Those that adaptation learned from."""
        return self.samples[:-1]

    @property
    def post(self) -> Samples:
        """Those that were sampled after adaptation."""
        return self.samples[-1]

    @property
    def horizon(self) -> int:
        """H."""
        return self.trajectories[0].mask.shape[-1]


def tasks_of(samples: Samples, tasks: slice) -> Samples:
    """The samples of some of the tasks."""
    selected: Samples = pytree.tree_map(lambda leaf: leaf[tasks], samples)
    return selected


def subsample(samples: Samples, horizon: int, stride: int) -> Samples:
    """Every `stride`-th time step of every trajectory, reweighted to sum to one.

    Steps of one trajectory resemble each other, so that a few of each trajectory tell more than
    all of a few. The first step kept moves from one trajectory to the next, so that all times are
    there; the very first step of the first trajectory is kept, so that no task ends up with none.
    """
    length = samples.weights.shape[1]
    trajectory, time = torch.arange(length) // horizon, torch.arange(length) % horizon
    kept = torch.nonzero((trajectory + time) % stride == 0).squeeze(1)

    def select(leaf: Tensor) -> Tensor:
        return leaf[:, kept] if leaf.shape[1] == length else leaf

    subsampled: Samples = pytree.tree_map(select, samples)
    return subsampled._replace(
        weights=subsampled.weights / subsampled.weights.sum(dim=1, keepdim=True)
    )
