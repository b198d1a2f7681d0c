"""Random tabular Markov decision processes (Duan et al. 2016, section 3.2)."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl.envs.drawing import draw_cells
from metarl.envs.family import register_family
from metarl.envs.vector import NativeTaskFamily
from metarl.envs.world import Floats, Frame, Mask, SimulationRng


class TabularWorld:
    """Processes with S states and A actions, each with its own rewards and transitions."""

    fps = 2

    def __init__(self, num: int, family: "TabularMDP") -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (family.states,), np.float64)
        self.action_space = gym.spaces.Discrete(family.actions)
        self.tasks: Floats = np.zeros((num, family.task_size))
        self._family = family
        self._states = np.zeros(num, dtype=np.int64)

    def reset(self, selected: Mask, rng: SimulationRng) -> None:
        """Every episode starts in state 0."""
        self._states[selected] = 0

    def step(self, actions: NDArray[Any], active: Mask, rng: SimulationRng) -> tuple[Floats, Mask]:
        """Sample a reward N(mean, 1) and the next state."""
        noise, uniform = np.zeros(len(actions)), np.zeros(len(actions))
        for index in np.flatnonzero(active):
            # each simulation draws by its own generator, so that batches equal single environments
            generator = rng(int(index))
            noise[index], uniform[index] = generator.standard_normal(), generator.random()
        means, transitions = self._family.unpack(self.tasks)
        rows = np.arange(len(actions))
        rewards = means[rows, self._states, actions] + noise
        # the inverse of the distribution function; rounding may leave its last value below 1
        cumulative = transitions[rows, self._states, actions].cumsum(axis=1)[:, :-1]
        after = (uniform[:, None] >= cumulative).sum(axis=1)
        self._states = np.where(active, after, self._states)
        return rewards, np.zeros(len(actions), dtype=bool)

    def observe(self) -> Floats:
        """The state, one-hot (num, S)."""
        return np.eye(self._family.states)[self._states]

    def render(self, index: int) -> Frame:
        """The states, darker the more their best action pays, and the present one."""
        means, _ = self._family.unpack(self.tasks[index : index + 1])
        best = means[0].max(axis=1)
        shades = (best - best.min()) / max(np.ptp(best), 1e-9)
        return draw_cells(shades[None], (0, int(self._states[index])))

    def close(self) -> None:
        """Nothing to release."""


@register_family("tabular-mdp")
@dataclass(frozen=True)
class TabularMDP(NativeTaskFamily):
    """Mean rewards N(1, 1), transitions Dirichlet(1, ..., 1), unit variance of rewards.

    A task holds the mean rewards (S·A) and the transition probabilities (S·A·S).

    Attributes:
        states: S.
        actions: A.
        horizon: H.
    """

    states: int = 10
    actions: int = 5
    horizon: int = 10

    def __post_init__(self) -> None:
        self.check_horizon()
        for name in ("states", "actions"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 2:
                raise ValueError(f"{name} must be an integer of at least 2, not {value!r}")

    @property
    def task_size(self) -> int:
        return self.states * self.actions * (1 + self.states)

    def unpack(self, tasks: Floats) -> tuple[Floats, Floats]:
        """The mean rewards (N, S, A) and transition probabilities (N, S, A, S) of tasks (N, T)."""
        pairs = (len(tasks), self.states, self.actions)
        size = self.states * self.actions
        return tasks[:, :size].reshape(pairs), tasks[:, size:].reshape(*pairs, self.states)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        size = self.states * self.actions
        means = 1.0 + rng.standard_normal((num_tasks, size))
        transitions = rng.dirichlet(np.ones(self.states), (num_tasks, size))
        return np.hstack([means, transitions.reshape(num_tasks, -1)])

    def validate_task(self, task: Floats) -> None:
        _, transitions = self.unpack(task[None])
        if transitions.min() < 0.0 or not np.allclose(transitions.sum(axis=-1), 1.0):
            raise ValueError("the transition probabilities of each state and action must sum to 1")

    def describe(self, task: Floats) -> str:
        return f"a process whose best return is {self.optimal_returns(task[None])[0]:.2f}"

    def optimal_returns(self, tasks: Floats) -> Floats:
        """The expected return of an episode of the best policy that knows its task, (N,).

        It bounds what any learner can reach. By backward induction (Bellman 1957):
        V_h(s) = max_a r(s, a) + Σ_s' P(s' | s, a) V_{h+1}(s').
        """
        means, transitions = self.unpack(tasks)
        values = np.zeros((len(tasks), self.states))
        # V_H = 0 after the last step; H sweeps lead back to the start
        for _ in range(self.horizon):
            values = (means + np.einsum("nsat,nt->nsa", transitions, values)).max(axis=2)
        return values[:, 0]

    def world(self, num: int, num_threads: int = 0) -> TabularWorld:
        return TabularWorld(num, self)
