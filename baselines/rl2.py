"""RL²: fast reinforcement learning via slow reinforcement learning (Duan et al. 2016).

A recurrent policy observes the previous action, its reward, and whether an episode ended. Its
memory is kept over the episodes of a trial, all of the same task, and cleared between trials: to
do well in the last episodes, it must identify the task in the first ones. It is trained by PPO
(Schulman et al. 2017) over whole trials. On a new task, no gradient step is taken.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from metarl.config.sections import (
    INNER_STEP,
    NO_STEPS,
    Fraction,
    MethodSection,
    NonNegativeFloat,
    PositiveInt,
    UnitInterval,
)
from metarl.distributed import all_reduce_mean, moments, world_size
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.method import EPISODES, AdaptationUnit, Metrics, TrainingState
from metarl.networks.layers import ACTIVATIONS
from metarl.networks.mlp import init_mlp, mlp
from metarl.networks.recurrent import init_recurrent, recurrent_sequence, recurrent_step
from metarl.optim import GRADIENT_OPTIMIZERS, Objective, gradient_and_value
from metarl.parallel import map_chunks, one_thread
from metarl.params import Params, repeat, split_prefix
from metarl.rl.adaptation import to_adaptation_curve
from metarl.rl.advantages import discounted_returns, generalized_advantages
from metarl.rl.config import Config
from metarl.rl.outer_loop import PolicyLearner, outer_step
from metarl.rl.policies import CategoricalPolicy, GaussianPolicy, Memory
from metarl.rl.sampler import VectorEnv, map_parts, sample_episode
from metarl.rl.trajectories import Distribution, Rollouts, Trajectories, concat_tasks, to_samples
from metarl.rng import RngKey

VALUE = "value."
HEADS_OBSERVE = {"method.skip_connection": "whose heads take the observation in any case"}


class RL2Settings(MethodSection):
    """The trials, the recurrent network, and PPO.

    A trial has `episodes` episodes; a task has `inner.episodes_per_task` trials. The outer step is
    `outer: {algorithm: adam, epochs: ...}`, with `minibatches` steps in each epoch. PPO clips
    likelihood ratios to 1 ± `clip`, and has λ = `gae_lambda`; its loss adds `value_weight` times
    that of the value, and subtracts `entropy_weight` times the entropy.

    The state of the recurrent unit has `hidden_size` numbers. `embedding_sizes` gives observation,
    previous action and previous reward an embedding of their own, in place of a joint one.
    `head_sizes` are hidden layers from the state of the unit to the actions, and to the value, with
    `policy.activation`. With `skip_connection`, their input is the state and the observation, so
    that what depends on the present alone need not pass through the memory (Ni et al. 2022, arXiv
    2110.05038, appendix).

    `normalize_rewards` divides rewards by the running standard deviation of discounted returns; the
    policy still observes the rewards of the environment. `value_loss: clipped_huber` is less
    sensitive to outliers, and clips changes of the value like the policy's; its unit is a reward's,
    so that rewards should be normalised. `squared` is in units of the variance of returns.

    `standardize: each_task` gives the advantages of each task mean 0 and variance 1, in place of
    those of all tasks together, so that tasks with small rewards count as much as the others.
    """

    name: Literal["rl2"] = "rl2"
    episodes: PositiveInt = 2
    hidden_size: PositiveInt = 64
    embedding_sizes: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    head_sizes: tuple[PositiveInt, ...] = ()
    skip_connection: bool = False
    clip: Fraction = 0.2
    gae_lambda: UnitInterval = 0.95
    minibatches: PositiveInt = 4
    value_loss: Literal["squared", "clipped_huber"] = "squared"
    value_weight: NonNegativeFloat = 0.5
    normalize_rewards: bool = False
    standardize: Literal["all_tasks", "each_task"] = "all_tasks"
    entropy_weight: NonNegativeFloat = 0.005


def _of_head(name: str) -> Any:
    """A member of a recurrent policy that is the head's."""
    return property(attrgetter(f"head_policy.{name}"))


@dataclass(frozen=True)
class RecurrentPolicy:
    """A gated recurrent unit, and a network from its state to the action distribution.

    Its memory holds the state of the unit (..., M, F), and the previous action (..., M, A), reward
    and end of an episode (..., M, 1 each), which are inputs of the next step.

    Attributes:
        head_policy: from `features` to an action distribution; the value has a network of the same
            hidden layers.
        observation_size: S.
        hidden_size: F.
        embedding_sizes: of observation, previous action and previous reward; None for a joint one.
        skip_connection: whether features are the state and the observation, or the state alone.
    """

    head_policy: GaussianPolicy | CategoricalPolicy
    observation_size: int
    hidden_size: int
    embedding_sizes: tuple[int, int, int] | None = None
    skip_connection: bool = False

    image = None  # the unit takes an image as a row of numbers

    # actions, and the operations on their distribution, are those of the head
    action_shape = _of_head("action_shape")
    action_dtype = _of_head("action_dtype")
    action_size = _of_head("action_size")
    sizes = _of_head("sizes")
    head = _of_head("head")
    noise = _of_head("noise")
    act = _of_head("act")
    log_prob = _of_head("log_prob")
    entropy = _of_head("entropy")
    kl = _of_head("kl")
    fisher = _of_head("fisher")

    def init(self, generator: torch.Generator) -> Params:
        return self.init_unit(generator) | self.init_heads(generator)

    def init_unit(self, generator: torch.Generator) -> Params:
        """Fresh parameters of the embeddings and the recurrent unit."""
        parts = (self.observation_size, self.action_size, 1)  # and the end of an episode
        embeddings = list(zip(parts, self.embedding_sizes or (), strict=False))
        return init_recurrent(generator, sum(parts) + 1, self.hidden_size, embeddings)

    def init_heads(self, generator: torch.Generator) -> Params:
        """Fresh parameters of the networks from features to actions and value."""
        head, params = self.head_policy, self.head_policy.init(generator)
        value = init_mlp(generator, (head.observation_size, *head.hidden_sizes, 1))
        # a linear value has no number in checkpoints
        return params | {
            f"{VALUE}{name if head.hidden_sizes else name[:-1]}": leaf
            for name, leaf in value.items()
        }

    def unit(self, params: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The parameters of the embeddings and the recurrent unit, as `init_unit` names them."""
        return params

    def features(
        self, params: Mapping[str, Tensor], states: Tensor, observations: Tensor
    ) -> Tensor:
        """The inputs of the heads, at states of the unit (..., F) and observations (..., S)."""
        return torch.cat([states, observations], dim=-1) if self.skip_connection else states

    def distribution(self, params: Mapping[str, Tensor], observations: Tensor) -> Distribution:
        """The action distribution at features (..., M, ·), which take the place of observations."""
        return self.head_policy.distribution(params, observations)

    def value(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """The values (...) at features (..., ·)."""
        activation = ACTIVATIONS[self.head_policy.activation]
        return mlp(self.value_layers(params), features, activation).squeeze(-1)

    def value_layers(self, params: Mapping[str, Tensor]) -> Params:
        """The parameters under the prefix of the value, with numbered layers."""
        _, layers = split_prefix(params, VALUE)
        if self.head_policy.hidden_sizes:
            return layers
        return {f"{name}0": leaf for name, leaf in layers.items()}

    def trial_inputs(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """The inputs of `along_trials` (H', M, ·) for those of the unit, while PPO learns.

        They are the same here; they differ where PPO does not learn the recurrent unit.
        """
        return inputs

    def along_trials(
        self, params: Mapping[str, Tensor], inputs: Tensor
    ) -> tuple[Distribution, Tensor]:
        """Action distributions and values (H', M) along trials."""
        start = inputs.new_zeros(inputs.shape[1], self.hidden_size)
        states = recurrent_sequence(params, start, inputs)
        features = self.features(params, states, inputs[..., : self.observation_size])
        return self.distribution(params, features), self.value(params, features)

    def initial_memory(self, shape: tuple[int, ...]) -> Memory:
        sizes = (self.hidden_size, self.action_size, 1, 1)
        return tuple(torch.zeros(*shape, size) for size in sizes)

    def step(
        self, params: Mapping[str, Tensor], memory: Memory, observations: Tensor
    ) -> tuple[Distribution, Memory]:
        """The action distribution at observations (..., M, S), and the unit's next state."""
        hidden, *previous = memory
        inputs = torch.cat([observations, *previous], dim=-1)
        unit = self.unit(params)
        new = recurrent_step(unit, hidden.flatten(0, -2), inputs.flatten(0, -2)).view_as(hidden)
        features = self.features(params, new, observations)
        distribution = {  # a leaf with one row for all observations gets one row for each task
            name: leaf if leaf.dim() == new.dim() else leaf.expand(len(new), *leaf.shape)
            for name, leaf in self.distribution(params, features).items()
        }
        return distribution, (new, *previous)

    def remember(self, memory: Memory, actions: Tensor, rewards: Tensor, ended: Tensor) -> Memory:
        if isinstance(self.head_policy, CategoricalPolicy):
            actions = self.head_policy.one_hot(actions)
        outcome = (actions, rewards.unsqueeze(-1), ended.unsqueeze(-1))
        return (memory[0], *(leaf.to(memory[0].dtype) for leaf in outcome))


class Trials:
    """Trials as rows of H' = episodes · H steps: those of the episodes, and all padding at the end.

    Args:
        policy: the policy that was sampled with, which encodes actions and rewards as its inputs.
        rollouts: one stage for each episode of the M trials, (N, B, H, ·).

    Attributes:
        mask: (H', M), true on the steps that were taken.
        actions: (H', M, ·).
        rewards: (H', M).
        action_inputs: (H', M, A), as the policy observes them: one-hot if they are discrete.
        reward_inputs: (H', M, 1).
        inputs: of the recurrent unit, (H', M, S + A + 2).
    """

    def __init__(self, policy: RecurrentPolicy, rollouts: Rollouts) -> None:
        self.rollouts = rollouts
        # The episodes of a trial stand side by side, (M, episodes · H), each with its own padding:
        #     1 1 1 . . | 1 1 1 1 1 | 1 1 . . .      mask of one trial of three episodes, H = 5
        # A stable sort by the mask moves the steps that were taken to the front, in their order:
        #     1 1 1 1 1   1 1 1 1 1   . . . . .
        # so that the recurrence and the advantages run from one episode to the next without a gap.
        mask = torch.cat([stage.mask.flatten(0, 1) for stage in rollouts.trajectories], dim=1)
        self._order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        self.mask = mask.gather(1, self._order).movedim(1, 0)
        self.actions = self.join(lambda stage: stage.actions)
        self.rewards = self.join(lambda stage: stage.rewards)
        _, self.action_inputs, self.reward_inputs, _ = policy.remember(
            policy.initial_memory(self.mask.shape),
            self.actions,
            self.rewards,
            torch.zeros_like(self.rewards),
        )
        # actions and rewards at t are those of t − 1
        previous = torch.cat([self.action_inputs, self.reward_inputs], dim=-1).roll(1, 0)
        previous[0] = 0.0
        # the first step of an episode follows the end of another one, except in the first episode
        previous_end = self.join(lambda stage: _first_steps(stage.mask)).unsqueeze(-1)
        previous_end[0] = 0.0
        observations = self.join(lambda stage: stage.observations)
        self.inputs = torch.cat([observations, previous, previous_end], dim=-1)

    def join(self, leaf: Callable[[Trajectories], Tensor]) -> Tensor:
        """A leaf (N, B, H, ·) of each episode to (H', M, ·), the steps that were taken first."""
        stages = self.rollouts.trajectories
        joined = torch.cat([leaf(stage).flatten(0, 1) for stage in stages], dim=1)
        index = self._order.view(*self._order.shape, *[1] * (joined.dim() - 2)).expand_as(joined)
        return joined.gather(1, index).movedim(1, 0).contiguous()


class RL2(PolicyLearner):
    """Learns a recurrent policy that identifies its task while it acts."""

    label: ClassVar[str] = "RL²"
    adaptation_unit: ClassVar[AdaptationUnit | None] = EPISODES
    Settings: ClassVar[type[MethodSection]] = RL2Settings
    outer_steps: ClassVar[tuple[str, ...]] = tuple(GRADIENT_OPTIMIZERS)
    settings: RL2Settings

    @classmethod
    def unused_settings(cls, config: Config) -> dict[str, str]:
        steps = ("inner.estimator", "inner.bootstrap", "inner.baseline", "evaluation.step_sizes")
        # `config` may be that of another method, of which a message says who uses a setting
        has_head = bool(getattr(config.method, "head_sizes", ()))
        network = ("policy.hidden_sizes", *(() if has_head else ("policy.activation",)))
        unused = dict.fromkeys((*INNER_STEP, *steps, "evaluation.steps"), NO_STEPS) | {
            "inner.gae_lambda": "whose λ is method.gae_lambda",
            **dict.fromkeys(network, "whose recurrent network has method.hidden_size units"),
            "evaluation.batch_unit": "whose trials have method.episodes episodes",
            "baseline.": "which is not a baseline",
        }
        return unused | ({"device": "which computes on the CPU"} if config.device == "cuda" else {})

    @cached_property
    def policy(self) -> RecurrentPolicy:
        settings, size = self.settings, self.problem.policy.observation_size
        inputs = settings.hidden_size + (size if settings.skip_connection else 0)
        return RecurrentPolicy(
            self.head_policy(inputs),
            size,
            settings.hidden_size,
            settings.embedding_sizes,
            settings.skip_connection,
        )

    def head_policy(self, inputs: int) -> GaussianPolicy | CategoricalPolicy:
        """The network from a number of features to actions.

        Raises:
            UserError: if the config names a network.
        """
        if name := self.problem.config.policy.network:
            raise UserError(
                f"policy.network: {name} is not for method {self.settings.name}, which has a "
                "recurrent network of its own; leave it out"
            )
        flat, sizes = self.problem.policy, self.settings.head_sizes
        assert isinstance(flat, GaussianPolicy | CategoricalPolicy)
        return replace(flat, observation_size=inputs, hidden_sizes=sizes, network=None, image=None)

    @property
    def adaptation_episodes(self) -> int:
        """The episodes of a trial before its last, in which the policy explores the task."""
        return max(1, self.settings.episodes - 1)

    @property
    def num_stages(self) -> int:
        """The episodes of a trial."""
        return self.settings.episodes

    @one_thread()
    def initial_state(self) -> TrainingState:
        return TrainingState(0, self.policy.init(self.problem.generator()))

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """Sample trials on the tasks of this iteration, and take steps of PPO."""
        problem, iteration = self.problem, state.iteration
        rollouts = self._collect(
            state.params,
            problem.env_shards,
            problem.sample_tasks(iteration),
            problem.key(iteration),
            problem.shard.start,
        )
        started = time.perf_counter()
        new, metrics = self.learn(state, Trials(self.policy, rollouts))
        metrics["time/learning"] = time.perf_counter() - started  # with the objective's
        return new, metrics

    def learn(self, state: TrainingState, trials: Trials) -> tuple[TrainingState, Metrics]:
        """Take steps of PPO on trials that were sampled with the parameters of a state."""
        extra, reward_scale = state.extra, None
        if self.settings.normalize_rewards:
            extra = update_return_moments(extra, trials, self.problem.config.inner.gamma)
            reward_scale = to_reward_scale(extra)
        objective = trial_objective(self, state.params, trials, reward_scale)
        learned = replace(state, params=self.outer_params(state.params))
        new, metrics = outer_step(self.problem, learned, trials.rollouts, objective, EPISODES)
        return replace(new, params=state.params | new.params, extra=extra), metrics

    def curve(
        self, params: Params, tasks: NDArray[np.float64], key: RngKey, step_sizes: Sequence[float]
    ) -> AdaptationCurve:
        """The return of the first, second, ... episode of trials on tasks (N, T)."""
        trials = self.problem.config.evaluation.episodes_per_task
        with self.problem.temporary_envs(len(tasks), trials) as envs:
            deterministic = self.problem.config.evaluation.deterministic
            rollouts = self._collect(params, envs, tasks, key, deterministic=deterministic)
        return to_adaptation_curve(tasks, rollouts)

    def _collect(
        self,
        params: Params,
        envs: VectorEnv | Sequence[VectorEnv],
        tasks: NDArray[np.float64],
        key: RngKey,
        first_task: int = 0,
        deterministic: bool | str = False,
    ) -> Rollouts:
        """Sample one trial in every environment: its episodes share one memory.

        The last episode of a `deterministic` trial takes the mean action, or the most probable one,
        and with "always" all of them.
        """
        started, horizon = time.perf_counter(), self.problem.family.horizon

        def sample_trials(part: VectorEnv, chunk: slice) -> list[Trajectories]:
            num_tasks, episodes = len(tasks[chunk]), list[Trajectories]()
            memory = self.policy.initial_memory((num_tasks, part.num_envs // num_tasks))
            for episode in range(self.settings.episodes):
                new, memory = sample_episode(
                    self.policy,
                    params,
                    part,
                    tasks[chunk],
                    horizon,
                    key.fold_in(episode),
                    first_task + chunk.start,
                    memory,
                    deterministic=deterministic == "always"
                    or (bool(deterministic) and episode == self.settings.episodes - 1),
                )
                episodes.append(new)
            return episodes

        by_part = map_parts(sample_trials, envs, len(tasks))
        trajectories = [concat_tasks(stage) for stage in zip(*by_part, strict=True)]
        # advantages are computed over whole trials, in `trial_objective`
        samples = [to_samples(stage, torch.zeros_like(stage.rewards)) for stage in trajectories]
        stacked_params = [repeat(params, len(tasks))] * len(trajectories)
        seconds = time.perf_counter() - started
        return Rollouts(trajectories, samples, stacked_params, seconds)


@dataclass(frozen=True)
class TrialObjective:
    """PPO's objective over whole trials, with value and entropy (Schulman et al. 2017, equation 9).

    A trial is one row of H' = episodes · H time steps: the steps of its episodes one after another,
    and all padding at the end. M is the number of trials.

    Attributes:
        method: the method, with its policy and settings.
        inputs: (H', M, ·), as the policy's `trial_inputs` returns them.
        actions: (H', M, ·).
        log_probs: (H', M), when the actions were drawn.
        advantages: (H', M), standardised; see `RL2Settings`.
        values: (H', M), when the actions were drawn.
        returns: (H', M), the targets of the value.
        weights: (H', M), equal for all time steps and zero on padding; their sum over the trials of
            all processes is the number of trials.
        variance: of the returns; the value loss is measured in units of it.
    """

    method: RL2
    inputs: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor
    weights: Tensor
    variance: float

    def minibatches(self) -> list[Objective]:
        """Objectives of disjoint sets of trials, each spread over as many tasks as possible."""
        problem = self.method.problem
        trials = problem.config.inner.episodes_per_task
        # the same sets for any number of processes: by the number of a trial among those of all
        smallest = problem.config.outer.meta_batch // world_size() * trials
        number, start = min(self.method.settings.minibatches, smallest), problem.shard.start
        firsts = ((first - start * trials) % number for first in range(number))
        return [self._select(slice(first, None, number)) for first in firsts]

    def gradient(self, theta: Params) -> tuple[Tensor, float]:
        """The gradient (P,) and the value, by backpropagation through whole trials."""
        num_trials = self.weights.shape[1]
        chunks = max(1, min(CHUNKS, num_trials // SMALLEST_CHUNK))
        sums = map_chunks(
            lambda chunk: gradient_and_value(self._select(chunk).value, theta),
            num_trials,
            math.ceil(num_trials / chunks),
        )
        mean = all_reduce_mean(torch.stack(sums).sum(0), num_trials)
        return mean[:-1], float(mean[-1])

    def value(self, params: Params) -> Tensor:
        """The objective: the mean over time steps, times the number of trials."""
        settings, policy = self.method.settings, self.method.policy
        distribution, values = self.forward(params)
        log_ratio = policy.log_prob(distribution, self.actions) - self.log_probs
        ratio = torch.where(self.weights > 0, log_ratio, 0.0).exp()
        clipped = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip)
        surrogate = torch.minimum(ratio * self.advantages, clipped * self.advantages)
        if settings.value_loss == "squared":
            value_loss = (values - self.returns).square() / self.variance
        else:
            # the larger of two losses: a value gains nothing by moving more than `clip` towards
            # its target (Schulman et al.'s code of PPO; Huber's loss as in VariBAD's)
            near = self.values + (values - self.values).clamp(-settings.clip, settings.clip)
            losses = [F.smooth_l1_loss(v, self.returns, reduction="none") for v in (values, near)]
            value_loss = torch.maximum(*losses)
        entropy: Tensor = policy.entropy(distribution)
        terms = surrogate - settings.value_weight * value_loss + settings.entropy_weight * entropy
        return (self.weights * terms).sum()

    def forward(self, params: Params) -> tuple[Distribution, Tensor]:
        """Action distributions and values (H', M) along the trials."""
        return self.method.policy.along_trials(params, self.inputs)

    def _select(self, trials: slice) -> "TrialObjective":
        leaves = {n: v[:, trials] for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **leaves)  # type: ignore[arg-type] # the tensors alone


# A minibatch is divided in two, for two threads, unless its recurrent steps would be too small: a
# trial of 1000 steps and 128 units takes 40 ms in a chunk of 13 trials, 24 in one of 25, 17 of 100.
# The chunks are the same for any number of threads, and so are the sums.
CHUNKS, SMALLEST_CHUNK = 2, 25


def trial_objective(
    method: RL2, theta: Params, trials: Trials, reward_scale: float | None = None
) -> TrialObjective:
    """PPO's objective of trials, with advantages that run over the ends of episodes.

    Args:
        method: the policy, and PPO's settings.
        theta: the parameters that the trials were sampled with.
        trials: the trials.
        reward_scale: factor on the rewards of advantages and values, which are then clipped to ±10.
    """
    mask, rewards = trials.mask, trials.rewards
    mean_length = all_reduce_mean(mask.sum().double(), mask.shape[1])
    zeros = torch.zeros_like(rewards)
    objective = TrialObjective(
        method,
        inputs=method.policy.trial_inputs(theta, trials.inputs),
        actions=trials.actions,
        log_probs=trials.join(lambda stage: stage.log_probs),
        advantages=zeros,
        values=zeros,
        returns=zeros,
        weights=(mask / mean_length).to(rewards),
        variance=1.0,
    )
    with torch.no_grad():
        _, values = objective.forward(theta)
    values = torch.where(mask, values, 0.0)
    gamma = method.problem.config.inner.gamma
    if reward_scale is not None:
        rewards = (rewards * reward_scale).clamp(-10.0, 10.0)
    # time goes on over the ends of episodes: there, V_{t+1} is the value of the next one's first
    # step, since the return that counts is that of the trial (Duan et al. 2016, section 2.2)
    raw = generalized_advantages(
        rewards.mT, values.mT, mask.mT, gamma, method.settings.gae_lambda
    ).mT
    returns = raw + values
    return replace(
        objective,
        advantages=_standardized(raw, mask, method),
        values=values,
        returns=returns,
        variance=float(moments(returns[mask])[1]) + 1e-8,
    )


def _standardized(advantages: Tensor, mask: Tensor, method: RL2) -> Tensor:
    """Advantages (H', M) with mean 0 and variance 1, over all tasks or over the trials of each."""
    if method.settings.standardize == "all_tasks":
        mean, variance = moments(advantages[mask])
    else:
        trials = method.problem.config.inner.episodes_per_task

        def mean_of_task(values: Tensor) -> Tensor:  # (H', M) to (M,)
            sums = torch.where(mask, values, 0.0).sum(0).view(-1, trials).sum(1)
            return (sums / mask.sum(0).view(-1, trials).sum(1)).repeat_interleave(trials)

        mean = mean_of_task(advantages.double())
        variance = mean_of_task((advantages - mean).square())
    return ((advantages - mean) / (variance.sqrt() + 1e-8)).to(advantages)


def update_return_moments(extra: Params, trials: Trials, gamma: float) -> Params:
    """Update the running moments of discounted returns with those of trials.

    A return is R_t = γ R_{t−1} + r_t, from the start of a trial, as in VecNormalize of
    stable-baselines3.

    Args:
        extra: `return_moments`, the number of steps of a trial summed over iterations, the mean and
            the sum of squared deviations in these units; empty at first.
        trials: the trials of an iteration.
        gamma: γ.
    """
    mask = trials.mask
    # sums over the past are those over the future of the reversed sequence
    running = discounted_returns(trials.rewards.flip(0).mT, gamma).mT.flip(0)[mask].double()
    sums = torch.stack([mask.sum().double(), running.sum(), running.square().sum()])
    number, total, squares = all_reduce_mean(sums, mask.shape[1])
    mean = total / number
    old_number, old_mean, old_deviations = extra.get("return_moments", torch.zeros_like(sums))
    # the moments of two samples together (Chan, Golub and LeVeque 1979)
    shift, both = mean - old_mean, old_number + number
    deviations = squares - number * mean.square()
    deviations = old_deviations + deviations + shift.square() * old_number * number / both
    moments = torch.stack([both, old_mean + shift * number / both, deviations])
    return extra | {"return_moments": moments}


def to_reward_scale(extra: Params) -> float:
    """One over the standard deviation of discounted returns so far."""
    number, _, deviations = extra["return_moments"]
    return float((deviations / number + 1e-8).rsqrt())


def _first_steps(mask: Tensor) -> Tensor:
    """One at the first step of every episode, (N, B, H)."""
    starts = torch.zeros(mask.shape)
    starts[..., 0] = 1.0
    return starts
