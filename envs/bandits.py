"""Bernoulli bandits, with exactly and nearly optimal play (Duan et al. 2016, section 3.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl.envs.drawing import draw_cells
from metarl.envs.family import register_family
from metarl.envs.vector import NativeTaskFamily
from metarl.envs.world import Floats, Frame, Mask, SimulationRng

Counts = tuple[tuple[int, int], ...]  # successes and failures of each arm
Choose = Callable[[Counts, int], int]


class BanditWorld:
    """Bandits, each with a probability of reward for each arm (K,)."""

    fps = 2

    def __init__(self, num: int, arms: int) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float64)
        self.action_space = gym.spaces.Discrete(arms)
        self.tasks: Floats = np.zeros((num, arms))
        self._last_arms = np.zeros(num, dtype=np.int64)

    def reset(self, selected: Mask, rng: SimulationRng) -> None:
        """A bandit has no state."""

    def step(self, actions: NDArray[Any], active: Mask, rng: SimulationRng) -> tuple[Floats, Mask]:
        """Pull an arm: the reward is 1 with its probability, and 0 otherwise."""
        rewards = np.zeros(len(actions))
        # one draw by the generator of each bandit, so that batches equal single environments
        for index in np.flatnonzero(active):
            self._last_arms[index] = actions[index]
            rewards[index] = rng(int(index)).random() < self.tasks[index, actions[index]]
        return rewards, np.zeros(len(actions), dtype=bool)

    def observe(self) -> Floats:
        """Nothing: one zero, (num, 1)."""
        return np.zeros((len(self.tasks), 1))

    def render(self, index: int) -> Frame:
        """The arms, darker the more they pay, and the one pulled last."""
        return draw_cells(self.tasks[index][None], (0, int(self._last_arms[index])))

    def close(self) -> None:
        """Nothing to release."""


@register_family("bandit")
@dataclass(frozen=True)
class Bandit(NativeTaskFamily):
    """Pull one of K arms, n times; the probabilities of reward are uniform in [0, 1].

    An episode is all n pulls, so that its return is the number that papers report. A method with
    memory needs one episode per trial.

    Attributes:
        arms: K.
        horizon: n, the number of pulls.
    """

    arms: int = 5
    horizon: int = 10

    def __post_init__(self) -> None:
        self.check_horizon()
        if not isinstance(self.arms, int) or self.arms < 2:
            raise ValueError(f"arms must be an integer of at least 2, not {self.arms!r}")

    @property
    def task_size(self) -> int:
        return self.arms

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        return rng.uniform(size=(num_tasks, self.arms))

    def validate_task(self, task: Floats) -> None:
        if task.min() < 0.0 or task.max() > 1.0:
            raise ValueError(f"probabilities of reward lie in [0, 1], not {task.tolist()}")

    def describe(self, task: Floats) -> str:
        return f"arms pay {', '.join(f'{probability:.2f}' for probability in task)}"

    def world(self, num: int, num_threads: int = 0) -> BanditWorld:
        return BanditWorld(num, self.arms)


def gittins_indices(pulls: int, resolution: int = 1000) -> Floats:
    """Gittins indices of an arm under a horizon, without discount (Kaufmann 2018, section 4).

    The index is the payment λ per pull at which the best time to stop is now:

        V_m(s, f) = max(0, p − λ + p V_{m−1}(s + 1, f) + (1 − p) V_{m−1}(s, f + 1)),  V_0 = 0

    with p = (s + 1) / (s + f + 2), the mean under a uniform prior.

    Args:
        pulls: n.
        resolution: the number of values of λ in [0, 1].

    Returns:
        Indices (n + 1, n, n) by the number m of pulls that remain, successes s and failures f;
        those with s + f + m > n are not defined.
    """
    successes, failures = np.mgrid[:pulls, :pulls]
    means = (successes + 1) / (successes + failures + 2)
    indices = np.zeros((pulls + 1, pulls, pulls))
    for payment in (np.arange(resolution) + 0.5) / resolution:
        value = np.zeros((pulls + 1, pulls + 1))  # one more, for a last success or failure
        for m in range(1, pulls + 1):
            gain = means - payment + means * value[1:, :-1] + (1 - means) * value[:-1, 1:]
            value[:-1, :-1] = np.maximum(gain, 0.0)
            indices[m] += gain > 0.0  # true up to the index
    return indices / resolution


def expected_return(arms: int, pulls: int, choose: Choose | None = None) -> float:
    """The exact expected return of a rule under uniform priors, or of optimal play (Bayes).

    Dynamic programming over beliefs: 5 arms and 10 pulls take a second, 100 pulls are out of reach.

    Args:
        arms: K.
        pulls: n.
        choose: the position of the arm to pull, for sorted counts of the arms and the number of
            pulls that remain; None for the best one.
    """

    @cache
    def value(counts: Counts, remaining: int) -> float:
        if remaining == 0:
            return 0.0
        candidates = range(arms) if choose is None else [choose(counts, remaining)]
        return max(pull(counts, arm, remaining - 1) for arm in candidates)

    def pull(counts: Counts, arm: int, remaining: int) -> float:
        successes, failures = counts[arm]
        mean = (successes + 1) / (successes + failures + 2)

        def after(outcome: tuple[int, int]) -> float:
            # arms are exchangeable: sorting merges beliefs that differ in their order
            return value(tuple(sorted((*counts[:arm], outcome, *counts[arm + 1 :]))), remaining)

        won, lost = after((successes + 1, failures)), after((successes, failures + 1))
        return mean * (1.0 + won) + (1.0 - mean) * lost

    return value(((0, 0),) * arms, pulls)


def gittins_rule(pulls: int) -> Choose:
    """The rule of pulling the arm with the largest Gittins index."""
    indices = gittins_indices(pulls)

    def choose(counts: Counts, remaining: int) -> int:
        values = [indices[remaining, successes, failures] for successes, failures in counts]
        return int(np.argmax(values))

    return choose


def simulated_returns(
    tasks: Floats, pulls: int, rng: np.random.Generator, indices: Floats | None = None
) -> Floats:
    """The return of one trial of each bandit, by an index rule or by Thompson sampling.

    Args:
        tasks: probabilities of reward (N, K).
        pulls: n.
        rng: the source of randomness.
        indices: as made by `gittins_indices`; None for Thompson sampling with uniform priors.

    Returns:
        (N,).
    """
    rows = np.arange(len(tasks))
    successes = np.zeros(tasks.shape, dtype=np.int64)
    failures = np.zeros_like(successes)
    for remaining in range(pulls, 0, -1):
        if indices is None:
            scores = rng.beta(successes + 1, failures + 1)
        else:
            scores = indices[remaining, successes, failures]
        arms = scores.argmax(axis=1)
        won = rng.random(len(tasks)) < tasks[rows, arms]
        successes[rows, arms] += won
        failures[rows, arms] += ~won
    returns: Floats = successes.sum(axis=1).astype(np.float64)
    return returns
