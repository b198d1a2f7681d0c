"""RL²: fast reinforcement learning by slow reinforcement learning (Duan et al. 2016).

A recurrent policy is told the last action, its reward, and whether an episode ended. Its memory is
kept over the episodes of a trial, all of the same task, and cleared between trials: to do well in
the last episodes it has to find out in the first ones what the task is. It is trained by PPO
(Schulman et al. 2017) over whole trials; no gradient is taken on a new task.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.config.sections import (
    Fraction,
    MethodSection,
    NonNegativeFloat,
    PositiveInt,
    UnitInterval,
    reject_settings,
)
from metarl.distributed import mean_over_tasks
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.method import EPISODES, AdaptationUnit, Metrics, TrainingState
from metarl.networks.layers import uniform
from metarl.networks.recurrent import init_recurrent, recurrent_sequence, recurrent_step
from metarl.optim import Objective
from metarl.parallel import map_chunks, one_thread
from metarl.params import Params, flatten, repeat
from metarl.rl.advantages import discounted_returns
from metarl.rl.outer_loop import PolicyLearner, outer_step, to_adaptation_curve
from metarl.rl.policies import CategoricalPolicy, GaussianPolicy, Memory, Noise
from metarl.rl.problem import PolicyProblem
from metarl.rl.sampler import VectorEnv, sample_episode
from metarl.rl.trajectories import Distribution, Rollouts, Trajectories, to_samples
from metarl.rng import RngKey

VALUE = "value."


class RL2Settings(MethodSection):
    """The trials, the recurrent network, and PPO.

    A trial has `episodes` episodes; a task has `inner.episodes_per_task` trials. The outer step is
    `outer: {algorithm: adam, epochs: ...}`, with `minibatches` steps in each epoch.
    """

    name: Literal["rl2"] = "rl2"
    episodes: PositiveInt = 2
    hidden_size: PositiveInt = 64
    clip: Fraction = 0.2
    gae_lambda: UnitInterval = 0.95
    minibatches: PositiveInt = 4
    value_weight: NonNegativeFloat = 0.5
    entropy_weight: NonNegativeFloat = 0.005


@dataclass(frozen=True)
class RecurrentPolicy:
    """A gated recurrent unit whose memory a linear layer turns into actions.

    What it remembers: the unit's memory (..., M, F), and the last action (..., M, A), reward and
    end of an episode (..., M, 1 each), which are inputs of the next step.

    Attributes:
        head: from the memory to an action distribution, without hidden layers.
        observation_size: S.
    """

    head_policy: GaussianPolicy | CategoricalPolicy
    observation_size: int

    image = None  # to the unit an image is a row of numbers

    @property
    def hidden_size(self) -> int:
        """F."""
        return self.head_policy.observation_size

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return self.head_policy.action_shape

    @property
    def action_dtype(self) -> torch.dtype:
        """Type of an action."""
        return self.head_policy.action_dtype

    @property
    def head(self) -> list[str]:
        """The names of what belongs to the last layer."""
        return self.head_policy.head

    @property
    def action_size(self) -> int:
        """How many numbers tell an action: A, or one for each discrete action."""
        if isinstance(self.head_policy, CategoricalPolicy):
            return self.head_policy.num_actions
        return self.head_policy.action_size

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters of the unit, of the actions, and of the value."""
        inputs = self.observation_size + self.action_size + 2
        return {
            **init_recurrent(generator, inputs, self.hidden_size),
            **self.head_policy.init(generator),
            f"{VALUE}weight": uniform(generator, (self.hidden_size, 1), self.hidden_size, 1),
            f"{VALUE}bias": torch.zeros(1),
        }

    def distribution(self, params: Mapping[str, Tensor], observations: Tensor) -> Distribution:
        """Of the unit's memory (..., M, F), which is what its last layer observes."""
        return self.head_policy.distribution(params, observations)

    def initial_memory(self, shape: tuple[int, ...]) -> Memory:
        """Zeros."""
        sizes = (self.hidden_size, self.action_size, 1, 1)
        return tuple(torch.zeros(*shape, size) for size in sizes)

    def step(
        self, params: Mapping[str, Tensor], memory: Memory, observations: Tensor
    ) -> tuple[Distribution, Memory]:
        """The unit's next memory, and the action distribution that follows from it."""
        hidden, *last = memory
        inputs = torch.cat([observations, *last], dim=-1)
        new = recurrent_step(params, hidden.flatten(0, -2), inputs.flatten(0, -2)).view_as(hidden)
        distribution = {  # one row for all observations is one row a task here
            name: leaf if leaf.dim() == new.dim() else leaf.expand(len(new), *leaf.shape)
            for name, leaf in self.distribution(params, new).items()
        }
        return distribution, (new, *last)

    def remember(self, memory: Memory, actions: Tensor, rewards: Tensor, ended: Tensor) -> Memory:
        """The last action, its reward, and whether the episode ended."""
        if not self.action_shape:
            actions = torch.nn.functional.one_hot(actions, self.action_size)
        last = (actions, rewards.unsqueeze(-1), ended.unsqueeze(-1))
        return (memory[0], *(value.to(memory[0].dtype) for value in last))

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Noise:
        """As the head has it."""
        return self.head_policy.noise(rng, shape)

    def act(self, distribution: Distribution, noise: Tensor) -> Tensor:
        """As the head has it."""
        return self.head_policy.act(distribution, noise)

    def log_prob(self, distribution: Distribution, actions: Tensor) -> Tensor:
        """As the head has it."""
        return self.head_policy.log_prob(distribution, actions)

    def entropy(self, distribution: Distribution) -> Tensor:
        """As the head has it."""
        return self.head_policy.entropy(distribution)

    def kl(self, old: Distribution, new: Distribution) -> Tensor:
        """As the head has it."""
        return self.head_policy.kl(old, new)

    def fisher(self, distribution: Distribution, tangent: Distribution) -> Distribution:
        """As the head has it."""
        return self.head_policy.fisher(distribution, tangent)


class RL2(PolicyLearner):
    """Learns a recurrent policy that finds out about its task by acting."""

    label: ClassVar[str] = "RL²"
    adaptation_unit: ClassVar[AdaptationUnit | None] = EPISODES
    Settings: ClassVar[type[MethodSection]] = RL2Settings
    outer_steps: ClassVar[tuple[str, ...]] = ("adam",)

    def __init__(self, problem: PolicyProblem) -> None:
        super().__init__(problem)
        assert isinstance(problem.config.method, RL2Settings)
        self.settings = problem.config.method
        evaluation, why = problem.config.evaluation, "whose trials have so many episodes"
        reject_settings(evaluation, ["batch_unit"], self.settings, why, section="evaluation")

    @cached_property
    def policy(self) -> RecurrentPolicy:
        """For the family's environments."""
        if name := self.problem.config.policy.network:
            raise UserError(
                f"policy.network: {name} is not for method {self.settings.name}, which has a "
                "recurrent network of its own; leave it out"
            )
        flat, hidden = self.problem.policy, self.settings.hidden_size
        assert isinstance(flat, GaussianPolicy | CategoricalPolicy)
        head = replace(flat, observation_size=hidden, hidden_sizes=(), network=None, image=None)
        return RecurrentPolicy(head, flat.observation_size)

    @property
    def adaptation_episodes(self) -> int:
        """The episodes of a trial before its last, in which the policy explores the task."""
        return max(1, self.settings.episodes - 1)

    @property
    def num_stages(self) -> int:
        """As many as episodes."""
        return self.settings.episodes

    @one_thread()
    def initial_state(self) -> TrainingState:
        """Before the first iteration."""
        return TrainingState(0, self.policy.init(self.problem.generator()))

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """Sample trials on tasks of this iteration, and improve on them by PPO."""
        problem, iteration = self.problem, state.iteration
        rollouts = self._collect(
            state.params,
            problem.envs,
            problem.sample_tasks(iteration),
            problem.key(iteration),
            problem.shard.start,
        )
        objective = trial_objective(self, state.params, rollouts)
        return outer_step(problem, state, rollouts, objective, EPISODES)

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """The return of the first, second, ... episode of trials on held-out tasks."""
        tasks, key = self.problem.test_tasks()
        trials = self.problem.config.evaluation.episodes_per_task
        envs = self.problem.family.make_vec(len(tasks) * trials)
        try:
            rollouts = self._collect(params, envs, tasks, key)
        finally:
            envs.close()
        return to_adaptation_curve(self.problem, tasks, rollouts)

    def _collect(
        self,
        params: Params,
        envs: VectorEnv,
        tasks: NDArray[np.float64],
        key: RngKey,
        first_task: int = 0,
    ) -> Rollouts:
        """Trials in every environment: episode after episode, with the same memory."""
        started, horizon = time.perf_counter(), self.problem.family.horizon
        memory = self.policy.initial_memory((len(tasks), envs.num_envs // len(tasks)))
        trajectories: list[Trajectories] = []
        memories: list[Memory] = []
        for episode in range(self.settings.episodes):
            memories.append(memory)
            new, memory = sample_episode(
                self.policy, params, envs, tasks, horizon, key.fold_in(episode), first_task, memory
            )
            trajectories.append(new)
        samples = [to_samples(one, torch.zeros_like(one.rewards)) for one in trajectories]
        stacked = [repeat(params, len(tasks))] * len(trajectories)
        seconds = time.perf_counter() - started
        return Rollouts(trajectories, samples, stacked, memories, seconds)


@dataclass(frozen=True)
class TrialObjective:
    """PPO's objective over whole trials, with value and entropy (Schulman et al. 2017, equation 9).

    Steps that happened come first on the time axis, of H' = episodes · H; padding comes last.

    Attributes:
        method: whose policy it is, and its settings.
        inputs: (H', M, ·): observation, last action, last reward, last end.
        actions: (H', M, ·).
        log_probs: (H', M), when they were drawn.
        advantages: (H', M), standardised.
        returns: (H', M), what the value is to predict.
        weights: (H', M), zero on padding, in sum the number of trials.
        variance: of the returns, by which the value's error is measured.
    """

    method: RL2
    inputs: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor
    variance: float

    def minibatches(self) -> list[Objective]:
        """Trials of all tasks in each, as many in each as can be."""
        number = min(self.method.settings.minibatches, self.weights.shape[1])
        return [self._part(slice(first, None, number)) for first in range(number)]

    def gradient(self, theta: Params) -> tuple[Tensor, float]:
        """The gradient (P,), and the value; by truncation at nothing: through the whole trial."""
        trials, settings = self.weights.shape[1], self.method.settings

        def some(chunk: slice) -> Tensor:
            leaves = {name: leaf.detach().requires_grad_() for name, leaf in theta.items()}
            part = self._part(chunk)
            distribution, values = part.evaluated(leaves)
            policy = self.method.policy
            ratio = torch.where(
                part.weights > 0, policy.log_prob(distribution, part.actions) - part.log_probs, 0.0
            ).exp()
            clipped = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip)
            gain = torch.minimum(ratio * part.advantages, clipped * part.advantages)
            error = (values - part.returns).square() / self.variance
            entropy = policy.entropy(distribution)
            value = (
                part.weights
                * (gain - settings.value_weight * error + settings.entropy_weight * entropy)
            ).sum()
            slopes = torch.autograd.grad(value, list(leaves.values()))
            return torch.cat(
                [flatten(dict(zip(leaves, slopes, strict=True))), value.detach().view(1)]
            )

        pieces = map_chunks(some, trials, math.ceil(trials / CHUNKS))
        mean = mean_over_tasks(torch.stack(pieces).sum(0), trials)
        return mean[:-1], float(mean[-1])

    def evaluated(self, params: Params) -> tuple[Distribution, Tensor]:
        """Action distributions and values (H', M) along the trials."""
        policy = self.method.policy
        start = self.inputs.new_zeros(self.inputs.shape[1], policy.hidden_size)
        memories = recurrent_sequence(params, start, self.inputs)
        values = memories @ params[f"{VALUE}weight"] + params[f"{VALUE}bias"]
        return policy.distribution(params, memories), values.squeeze(-1)

    def value_and_kl(self, theta: Params) -> tuple[float, float]:
        """Not defined: PPO has no line search."""
        raise NotImplementedError

    def curvature(self, theta: Params, fraction: float) -> Callable[[Tensor], Tensor]:
        """Not defined: PPO has no trust region."""
        raise NotImplementedError

    def _part(self, trials: slice) -> "TrialObjective":
        names = ("inputs", "actions", "log_probs", "advantages", "returns", "weights")
        return replace(self, **{name: getattr(self, name)[:, trials] for name in names})


CHUNKS = 2  # of a minibatch: recurrent steps are too small to be divided further


def trial_objective(method: RL2, theta: Params, rollouts: Rollouts) -> TrialObjective:
    """Join the episodes of every trial; advantages run on over their ends, to the trial's.

    Args:
        method: the policy, and PPO's settings.
        theta: what the rollouts were sampled with.
        rollouts: an episode after the other, (N, B, H, ·) each.
    """

    def joined(values: list[Tensor]) -> Tensor:
        """(N, B, H, ·) of each episode to (episodes · H, N·B, ·), what happened first."""
        whole = torch.cat([value.flatten(0, 1) for value in values], dim=1)
        index = order.view(*order.shape, *[1] * (whole.dim() - 2)).expand_as(whole)
        return whole.gather(1, index).movedim(1, 0).contiguous()

    stages = rollouts.trajectories
    mask = torch.cat([stage.mask.flatten(0, 1) for stage in stages], dim=1)
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    mask = mask.gather(1, order).movedim(1, 0)
    actions = joined([stage.actions for stage in stages])
    rewards = joined([stage.rewards for stage in stages])
    starts = joined([_starts(stage.mask) for stage in stages])
    seen = joined([stage.observations for stage in stages])
    told = method.policy.remember(
        method.policy.initial_memory(mask.shape), actions, rewards, torch.zeros_like(rewards)
    )
    last = torch.cat(told[1:3], dim=-1).roll(1, 0)
    last[0] = 0.0
    ended = starts.unsqueeze(-1).clone()
    ended[0] = 0.0
    log_probs = joined([stage.log_probs for stage in stages])
    config, weights = method.problem.config, mask / mask.sum(0)
    objective = TrialObjective(
        method,
        torch.cat([seen, last, ended], dim=-1),
        actions,
        log_probs,
        torch.zeros_like(rewards),
        torch.zeros_like(rewards),
        weights,
        1.0,
    )
    with torch.no_grad():
        _, values = objective.evaluated(theta)
    values = torch.where(mask, values, 0.0)
    following = torch.cat([values[1:], torch.zeros_like(values[:1])])
    deltas = rewards + config.inner.gamma * following - values
    discount = config.inner.gamma * method.settings.gae_lambda
    raw = discounted_returns(deltas.mT, discount).mT
    raw = torch.where(mask, raw, 0.0)
    valid = raw[mask]
    standard = (raw - valid.mean()) / (valid.std(correction=0) + 1e-8)
    returns = raw + values
    variance = float(returns[mask].var(correction=0)) + 1e-8
    return replace(objective, advantages=standard, returns=returns, variance=variance)


def _starts(mask: Tensor) -> Tensor:
    """One at the first step of every episode, (N, B, H)."""
    starts = torch.zeros(mask.shape)
    starts[..., 0] = 1.0
    return starts
