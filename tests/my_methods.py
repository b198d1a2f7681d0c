"""Custom methods of reinforcement learning and outer steps of a user, outside the package."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import huber_loss

import metarl
from metarl.config.sections import MethodSection, OuterSection
from metarl.method import EPISODES, TrainingState
from metarl.optim import Objective
from metarl.params import flatten, repeat, unflatten
from metarl.rl.maml import MAML
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.outer_loop import PolicyLearner
from metarl.rl.promp import ProMP, ProMPSettings
from metarl.rl.sampler import sample
from metarl.rng import make_torch_rng


class ReptileObjective(MetaObjective):
    """Reptile (Nichol et al. 2018): the gradient is the mean over tasks of θ'_i − θ."""

    def gradient(self, theta: dict[str, Any]) -> tuple[Any, float]:
        post, pre = self.rollouts.params[-1], self.rollouts.params[0]
        step = flatten({name: (post[name] - pre[name]).mean(0) for name in theta})
        return step, float(self.rollouts.trajectories[-1].mean_returns.mean())


class Reptile(MAML):
    """Reptile for policies: the outer step moves θ towards the adapted parameters."""

    label = "Reptile"
    outer_steps: ClassVar = ("adam", "sgd")

    def objective(self, rollouts: Any) -> ReptileObjective:
        return ReptileObjective(self.problem.inner, rollouts)


class WiderSettings(ProMPSettings):
    """Settings of ProMP and one more."""

    beta: float = 0.3


class Wider(ProMP):
    """A method that derives from ProMP, and its settings from those of ProMP."""

    label = "Wider"
    Settings = WiderSettings


class SmallStep(OuterSection):
    """A step along the gradient whose KL divergence is measured."""

    rate: float = 0.01

    def step(self, theta: Any, objective: Objective, state: Any, iteration: int) -> Any:
        gradient, _ = objective.gradient(theta)
        moved = unflatten(flatten(theta) + self.rate * gradient, theta)
        value, kl = objective.value_and_kl(moved)  # type: ignore[attr-defined]
        return moved, state, {"outer/objective": value, "outer/kl": kl}


class QSettings(MethodSection):
    """Settings of `QLearning`."""

    capacity: int = 5000
    updates: int = 40
    temperature: float = 0.1


class QLearning(PolicyLearner):
    """Off-policy Q-learning on all tasks, conditioned on the task, with a replay buffer.

    The buffer lives in `TrainingState.extra`, so that a resumed run continues exactly. The policy
    is a softmax over Q / temperature: the network's outputs are Q / temperature.
    """

    label = "Q-learning"
    role = "baseline"
    adaptation_unit: ClassVar = None
    Settings: ClassVar = QSettings
    num_stages = 1

    def initial_state(self) -> TrainingState:
        return TrainingState(0, self.policy.init(self.problem.generator()))

    def step(self, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
        problem, settings = self.problem, self.problem.config.method
        tasks, horizon = problem.sample_tasks(state.iteration), problem.family.horizon
        stacked = {
            name: leaf.expand(len(tasks), *leaf.shape) for name, leaf in state.params.items()
        }
        key = problem.key(state.iteration)
        batch = sample(self.policy, stacked, problem.envs, tasks, horizon, key)
        mask = batch.mask
        is_last = mask & ~torch.nn.functional.pad(mask[..., 1:], (0, 1))
        new = {
            "observations": batch.observations[mask],
            "next_observations": batch.next_observations[mask],
            "actions": batch.actions[mask],
            "rewards": batch.rewards[mask],
            "ended": (is_last & batch.terminated[..., None])[mask],
        }
        old = state.extra or {name: leaf[:0] for name, leaf in new.items()}
        buffer = {n: torch.cat([old[n], leaf])[-settings.capacity :] for n, leaf in new.items()}
        params = {name: leaf.clone().requires_grad_() for name, leaf in state.params.items()}
        optimizer = torch.optim.SGD(params.values(), lr=1.0)
        rng = make_torch_rng(problem.config.seed, "replay", state.iteration)

        def q_values(observations: torch.Tensor) -> torch.Tensor:
            return settings.temperature * self.policy.outputs(params, observations)

        for _ in range(settings.updates):
            rows = torch.randint(len(buffer["rewards"]), (64,), generator=rng)
            item = {name: leaf[rows] for name, leaf in buffer.items()}
            q = q_values(item["observations"]).gather(-1, item["actions"][:, None])[:, 0]
            with torch.no_grad():
                bootstrap = q_values(item["next_observations"]).max(-1).values
                target = item["rewards"] + 0.9 * bootstrap * ~item["ended"]
            optimizer.zero_grad()
            huber_loss(q, target).backward()
            optimizer.step()
        trained, steps = {n: leaf.detach() for n, leaf in params.items()}, int(mask.sum())
        metrics = {"return/after_0_steps": float(batch.mean_returns.mean())}
        samples = state.samples + steps
        new_state = TrainingState(state.iteration + 1, trained, samples=samples, extra=buffer)
        return new_state, {**metrics, "environment_steps": float(steps)}

    def evaluate(self, params: Any, step_sizes: Any = None) -> metarl.AdaptationCurve:
        tasks, key = self.problem.test_tasks()
        envs = self.problem.family.make_vec(len(tasks))
        horizon = self.problem.family.horizon
        batch = sample(self.policy, repeat(params, len(tasks)), envs, tasks, horizon, key)
        return metarl.AdaptationCurve(tasks, batch.mean_returns.numpy()[:, None], ())


class ThompsonAgent:
    """Thompson sampling for Bernoulli arms: a Beta posterior for each."""

    def __init__(self, arms: int, seed: int) -> None:
        self.arms, self.rng = arms, np.random.default_rng(seed)
        self.reset()

    def reset(self, task: Any = None) -> None:
        self.wins, self.losses = np.ones(self.arms), np.ones(self.arms)

    def act(self, observation: Any, deterministic: bool = False) -> int:
        self.arm = int(self.rng.beta(self.wins, self.losses).argmax())
        return self.arm

    def observe(self, reward: float, *outcome: Any) -> None:
        self.wins[self.arm] += reward
        self.losses[self.arm] += 1.0 - reward

    def adapt(self, episodes: Any = None) -> "ThompsonAgent":
        return self  # its posterior is up to date


class Thompson(PolicyLearner):
    """Thompson sampling as a method without training, for comparison tables."""

    label = "Thompson sampling"
    role = "baseline"
    adaptation_unit: ClassVar = EPISODES
    num_iterations: ClassVar[int] = 0
    num_stages = 1

    def initial_state(self) -> TrainingState:
        return TrainingState(0, {"arms": torch.tensor([float(self.policy.action_size)])})

    def step(self, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
        raise NotImplementedError  # there is nothing to train

    def agent(self, params: Any, seed: int = 0, step_sizes: Any = None) -> ThompsonAgent:
        return ThompsonAgent(int(params["arms"]), seed)

    def evaluate(self, params: Any, step_sizes: Any = None) -> metarl.AdaptationCurve:
        tasks, _ = self.problem.test_tasks()
        returns, env = np.zeros((len(tasks), 1)), self.problem.family.make()
        for index, task in enumerate(tasks):
            agent, over = self.agent(params, index), False
            env.reset(seed=index, options={"task": task})
            while not over:
                _, reward, terminated, truncated, _ = env.step(agent.act(None))
                agent.observe(reward)
                returns[index, 0] += reward
                over = terminated or truncated
        return metarl.AdaptationCurve(tasks, returns, (), (0,))
