"""PEARL (Rakelly et al. 2019): off-policy meta-reinforcement learning, as a method of your own.

An encoder infers a latent variable z of the task from transitions, in whatever order. A soft actor-
critic (Haarnoja et al. 2018) that observes z learns from the replayed trajectories of the training
tasks. On a new task, the first episode is played with z of the prior, the others with z of the
posterior.

python examples/pearl.py
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import metarl
from metarl.config.sections import MethodSection
from metarl.context import CONTEXT
from metarl.method import EPISODES, TrainingState
from metarl.networks.mlp import init_mlp, mlp
from metarl.optim.adam import adam_step
from metarl.params import Params, flatten, repeat, split_prefix, with_prefix
from metarl.rl.outer_loop import PolicyLearner
from metarl.rl.problem import PolicyProblem
from metarl.rl.sampler import VectorEnv, sample
from metarl.rl.trajectories import Trajectories
from metarl.rng import RngKey, make_rng

ENCODER, CRITICS, TARGETS = "encoder.", ("critic0.", "critic1."), "target."


class Actor(nn.Sequential):
    """The mean action in [−1, 1] for an observation and z."""

    def __init__(self, inputs: int, outputs: int, width: int = 64) -> None:
        hidden = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        super().__init__(*hidden, nn.Linear(width, outputs), nn.Tanh())


class Settings(MethodSection):
    """Sizes, and weights of the terms of the loss."""

    latent_size: int = 5
    width: int = 64
    capacity: int = 20  # episodes of each training task in the buffer
    updates: int = 40  # gradient steps of an iteration
    batch: int = 32  # transitions of each task in a gradient step
    learning_rate: float = 2e-3
    entropy_weight: float = 0.001
    kl_weight: float = 0.001  # relative to squared errors of values, whose unit is a reward
    target_rate: float = 0.05
    episodes: int = 4  # of an evaluation; a context has at most one less


class PEARL(PolicyLearner):
    """Learns encoder, actor and critics from a replay buffer, which is a part of the state.

    The meta-batch are the training tasks; they are the same in all iterations.
    """

    label = "PEARL"
    adaptation_unit: ClassVar = EPISODES
    Settings: ClassVar = Settings
    outer_steps: ClassVar = ("adam",)
    num_stages = 2

    def __init__(self, problem: PolicyProblem) -> None:
        settings: Any = problem.config.method
        self.settings = settings
        # z takes the place of context parameters, which the policy observes
        super().__init__(replace(problem, context=settings.latent_size))

    def initial_state(self) -> TrainingState:
        """Fresh networks, and an empty buffer."""
        generator, settings = self.problem.generator(), self.settings
        params, width = self.policy.init(generator), settings.width
        step = self.policy.observation_size + self.policy.action_size
        sizes: dict[str, Any] = {ENCODER: (step + 1, width, 2 * settings.latent_size)}
        sizes |= dict.fromkeys(CRITICS, (step + settings.latent_size, width, width, 1))
        for prefix, layers in sizes.items():
            params |= with_prefix(init_mlp(generator, layers), prefix)
        targets = {f"{TARGETS}{n}": x for n, x in params.items() if n.startswith(CRITICS)}
        return TrainingState(0, params, extra=targets)

    def step(self, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
        """Play on all training tasks, and learn from the buffer with these episodes."""
        problem, key = self.problem, self.problem.key(state.iteration)
        tasks = problem.sample_tasks(0)
        played = self.play(state.params, tasks, self.num_stages, key, problem.envs)
        old, targets = split_prefix(state.extra, TARGETS)
        buffer = join(played, self.settings.capacity, old)
        params, opt_state, rng = state.params, state.opt_state, key.rng("replay")
        for _ in range(self.settings.updates):
            leaves = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
            loss = self.loss(leaves, targets, buffer, rng)
            # the context of the parameters is replaced by z, and has no gradient
            grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
            gradient = flatten(dict(zip(leaves, grads, strict=True)))
            params, opt_state = adam_step(params, gradient, opt_state, self.settings.learning_rate)
            targets = {n: x.lerp(params[n], self.settings.target_rate) for n, x in targets.items()}
        steps = sum(int(episode.mask.sum()) for episode in played)
        extra = buffer | with_prefix(targets, TARGETS)
        metrics = {"environment_steps": float(steps), "loss": float(loss.detach())}
        for stage, episode in enumerate(played):
            metrics[f"return/after_{stage}_episodes"] = float(episode.mean_returns.mean())
        samples = state.samples + steps
        return TrainingState(state.iteration + 1, params, opt_state, samples, {}, extra), metrics

    def play(
        self, params: Params, tasks: NDArray[Any], episodes: int, key: RngKey, envs: VectorEnv
    ) -> list[Trajectories]:
        """Episodes of each task (N, T), each with another z of the belief before it."""
        played: list[Trajectories] = []
        names = self.policy.init(self.problem.generator())
        actor = repeat({name: params[name] for name in names}, len(tasks))
        for stage in range(episodes):
            context = join(played) if played else None
            actor[CONTEXT] = self.sample_z(params, context, len(tasks), key.rng("z", stage))
            horizon, stage_key = self.problem.family.horizon, key.fold_in(stage)
            played.append(sample(self.policy, actor, envs, tasks, horizon, stage_key))
        return played

    @torch.no_grad()
    def sample_z(
        self, params: Params, context: Params | None, num_tasks: int, rng: np.random.Generator
    ) -> Tensor:
        """A draw of z (N, L) from the posterior, or from the prior without context."""
        shape = num_tasks, self.settings.latent_size
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        if context is None:
            return noise
        mean, variance = posterior(params, context)
        return mean + variance.sqrt() * noise

    def loss(
        self, params: Params, targets: Params, buffer: Params, rng: np.random.Generator
    ) -> Tensor:
        """The losses of critics, encoder and actor; what is detached belongs to another of them."""
        settings, (num_tasks, length) = self.settings, buffer["mask"].shape
        rows = torch.arange(num_tasks)[:, None]
        # the context is whole episodes, as on a new task, and not steps of all policies so far
        horizon, episodes = self.problem.family.horizon, int(rng.integers(1, settings.episodes))
        first = horizon * rng.integers(length // horizon, size=(num_tasks, episodes, 1))
        steps = (first + np.arange(horizon)).reshape(num_tasks, -1)
        drawn = steps, rng.integers(length, size=(num_tasks, settings.batch))
        context, batch = ({n: x[rows, columns] for n, x in buffer.items()} for columns in drawn)
        mean, variance = posterior(params, context)
        noise = torch.from_numpy(rng.standard_normal(mean.shape, dtype=np.float32))
        z = mean + variance.sqrt() * noise
        kl = 0.5 * (mean.square() + variance - variance.log() - 1.0).sum(-1).mean()

        def act(observations: Tensor) -> tuple[Tensor, Tensor]:
            distribution = self.policy.distribution(params | {CONTEXT: z.detach()}, observations)
            draws = torch.from_numpy(self.policy.noise(rng, observations.shape[:2]))
            return self.policy.act(distribution, draws), self.policy.entropy(distribution)

        def q_values(params: Params, z: Tensor, observations: Tensor, actions: Tensor) -> Any:
            latents = z[:, None].expand(-1, observations.shape[1], -1)
            inputs = torch.cat([observations, actions.clamp(-1.0, 1.0), latents], -1)
            critics = (split_prefix(params, prefix)[1] for prefix in CRITICS)
            return [mlp(critic, inputs, torch.relu)[..., 0] for critic in critics]

        with torch.no_grad():  # y = r + γ (min Q'(s', a', z) + α H) (equation 3)
            actions, entropy = act(batch["next_observations"])
            following = torch.minimum(*q_values(targets, z, batch["next_observations"], actions))
            following = (following + settings.entropy_weight * entropy) * ~batch["terminal"]
            target = batch["rewards"] + self.problem.config.inner.gamma * following
        # the critics' gradient reaches the encoder, the actor's does not
        predictions = q_values(params, z, batch["observations"], batch["actions"])
        losses = sum((q - target).square() for q in predictions)
        actions, entropy = act(batch["observations"])
        fixed = {name: leaf.detach() for name, leaf in params.items()}
        best = torch.minimum(*q_values(fixed, z.detach(), batch["observations"], actions))
        losses = losses - best - settings.entropy_weight * entropy
        loss: Tensor = (losses * batch["mask"]).sum() / batch["mask"].sum()
        loss = loss + settings.kl_weight * kl
        return loss

    def curve(
        self, params: Params, tasks: NDArray[Any], key: RngKey, step_sizes: Sequence[float]
    ) -> metarl.AdaptationCurve:
        """The return of the first, second, ... episode on tasks (N, T)."""
        envs = self.problem.family.make_vec(len(tasks))
        played = self.play(params, tasks, self.settings.episodes, key, envs)
        envs.close()
        scores = np.stack([episode.mean_returns.numpy() for episode in played], axis=1)
        return metarl.AdaptationCurve(tasks, scores, (), tuple(range(len(played))))

    def agent(self, params: Params, seed: int = 0, *step_sizes: Any) -> "PEARLAgent":
        """An agent that acts with z of its belief."""
        return PEARLAgent(self, params, seed)


class PEARLAgent:
    """Acts on one task after another; see `metarl.rl.agent.Agent`."""

    def __init__(self, method: PEARL, params: Params, seed: int) -> None:
        self.method, self.params, self.rng = method, params, make_rng(seed, "acting")
        self.reset()

    def reset(self, task: Any = None) -> None:
        """Forget the transitions, and draw z from the prior."""
        self.transitions: list[list[Any]] = []
        self.adapt()

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = False) -> Any:
        """An action (A,) for an observation (S,)."""
        policy, self.observation = self.method.policy, np.asarray(observation, np.float32)
        noise = torch.from_numpy(policy.noise(self.rng, (1,))) * (not deterministic)
        rows = torch.from_numpy(self.observation)[None]
        self.action = policy.act(policy.distribution(self.params, rows), noise)[0].numpy()
        return self.action

    def observe(self, reward: Any, *outcome: Any) -> None:
        """Add the transition to the context."""
        self.transitions.append([self.observation, self.action, np.float32(reward)])

    def adapt(self, episodes: Any = None) -> "PEARLAgent":
        """The agent with z of the posterior of all transitions, or of those of episodes."""
        steps = self.transitions
        if episodes is not None:
            steps = [list(step) for episode in episodes for step in zip(*episode, strict=True)]
        context = None
        if steps:
            columns = [torch.tensor(np.stack(x)).float()[None] for x in zip(*steps, strict=True)]
            context = dict(zip(("observations", "actions", "rewards"), columns, strict=True))
            context["mask"] = torch.ones(1, len(steps), dtype=torch.bool)
        z = self.method.sample_z(self.params, context, 1, self.rng)
        self.params = self.params | {CONTEXT: z[0]}
        return self


def posterior(params: Mapping[str, Tensor], context: Params) -> tuple[Tensor, Tensor]:
    """Mean and variance of z (N, L), from transitions (N, M, ·)."""
    parts = context["observations"], context["actions"], context["rewards"].unsqueeze(-1)
    outputs = mlp(split_prefix(params, ENCODER)[1], torch.cat(parts, -1), torch.relu)
    means, log_precisions = outputs.chunk(2, -1)
    # a product of Gaussians, one for each transition and the prior N(0, 1): precisions add up
    precisions = log_precisions.clamp(-8.0, 8.0).exp() * context["mask"].unsqueeze(-1)
    variance = 1.0 / (1.0 + precisions.sum(1))
    return variance * (precisions * means).sum(1), variance


def join(played: Sequence[Trajectories], capacity: int = 100, buffer: Any = None) -> Params:
    """The transitions of the last `capacity` episodes of each task, (N, C·H, ·), with padding."""
    leaves: list[Params] = [buffer] if buffer else []
    for episode in played:
        is_last = episode.mask & ~torch.nn.functional.pad(episode.mask[..., 1:], (0, 1))
        leaf = {
            "observations": episode.observations,
            "actions": episode.actions.clamp(-1.0, 1.0),
            "rewards": episode.rewards,
            "next_observations": episode.next_observations,
            "terminal": is_last & episode.terminated[..., None],
            "mask": episode.mask,
        }
        leaves.append({name: value.flatten(1, 2) for name, value in leaf.items()})
    size = capacity * played[0].mask.shape[-1]
    return {name: torch.cat([leaf[name] for leaf in leaves], 1)[:, -size:] for name in leaves[0]}


def main(iterations: int = 200, tasks: int = 60, out: str = "runs/pearl") -> None:
    """Learn to navigate to goals that are not observed, and play on new ones."""
    config = metarl.Config(
        method={"name": PEARL},
        family={"name": "point-navigation", "settings": {"horizon": 20}},
        policy={"network": Actor, "init_std": 0.3},
        inner={"episodes_per_task": 1, "gamma": 0.9},
        outer={"algorithm": "adam", "iterations": iterations, "meta_batch": tasks},
        evaluation={"tasks": 40},
    )
    policy = metarl.load(metarl.train(config, out))
    print("return by episode:", policy.evaluate().summary.estimate.round(2))


if __name__ == "__main__":
    main()
