"""Pretraining: one policy for all tasks mixed, by PPO of stable-baselines3.

With `metarl.envs.TaskConditioned` environments the same is an oracle, which sees the task.
"""

import time
from collections.abc import Iterator

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed

from metarl.baselines.multi_task_env import MultiTaskEnv
from metarl.baselines.stable_baselines import load_params, policy_keywords, to_params
from metarl.envs import TaskFamily
from metarl.errors import UserError
from metarl.params import Params, flatten
from metarl.randomness import stream
from metarl.rl.config import Config
from metarl.rl.policies import Policy
from metarl.training import Metrics, TrainingState


def pretrain(
    config: Config, policy: Policy, family: TaskFamily, state: TrainingState
) -> Iterator[tuple[TrainingState, Metrics]]:
    """Yield the state and the metrics after every update of PPO, as `meta_train` does.

    An update gathers as many steps as a meta-iteration does before or after an inner step: an
    episode in each of N·B environments. So meta-training and pretraining for the same number of
    `outer.iterations` have the same budget of environment steps, to the step.

    Args:
        config: the experiment.
        policy: the network; the very one that meta-training has.
        family: tasks and environments.
        state: where to continue, or the initial one. What follows is then the same, bit for bit,
            as in a run that was never interrupted.

    Raises:
        FloatingPointError: if the weights are not finite any more. The last state that was yielded
            is sound.
    """
    settings = config.baseline
    envs = MultiTaskEnv(family, config.outer.meta_batch * config.inner.trajectories)
    try:
        model = PPO(
            "MlpPolicy",
            envs,
            learning_rate=settings.learning_rate,
            n_steps=family.horizon,
            batch_size=min(settings.minibatch, envs.num_envs * family.horizon),
            n_epochs=settings.epochs,
            gamma=config.inner.gamma,
            gae_lambda=settings.lam,
            clip_range=settings.clip_range,
            # the value network is separate, and its gradients must not shrink the policy's
            max_grad_norm=float("inf"),
            policy_kwargs=policy_keywords(policy, settings.value_hidden_sizes),
            seed=int(stream(config.seed, "value network").integers(2**31)),
            device="cpu",
        )
        model.set_logger(Logger(folder=None, output_formats=[]))
        load_params(model.policy, state.theta)
        if state.optimizer:
            try:
                _restore(model, state.optimizer)
            except (RuntimeError, KeyError, ValueError) as error:  # torch names what differs
                raise UserError(
                    "the checkpoint's value network, or its optimiser, is not that of the config "
                    f"({' '.join(str(error).split())}); restore it from a copy, or train anew"
                ) from error
        rollout = envs.num_envs * family.horizon
        for iteration in range(state.iteration, config.updates):
            started = time.perf_counter()
            # stable-baselines3 draws from the global generators: fix them anew for every update
            set_random_seed(int(stream(config.seed, "pretraining", iteration).integers(2**31)))
            envs.start(config.seed, iteration)
            model.set_env(envs, force_reset=True)
            clock = _Clock()
            # one rollout and one update; an interval of 2 leaves the logged values to us
            model.learn(rollout, clock, log_interval=2, reset_num_timesteps=False)
            finished = time.perf_counter()
            if not torch.isfinite(flatten(to_params(model.policy.state_dict()))).all():
                raise FloatingPointError(
                    "the pretrained policy is not finite any more; lower baseline.learning_rate"
                )
            state = TrainingState(
                iteration + 1,
                to_params(model.policy.state_dict()),
                _memory(model),
                state.samples + rollout,
            )
            logged = model.logger.name_to_value
            returns = envs.finished_returns
            yield (
                state,
                {
                    "return/after_0_steps": sum(returns) / len(returns),
                    "environment_steps": rollout,
                    "policy/entropy": -logged["train/entropy_loss"],
                    "pretraining/kl": float(logged["train/approx_kl"]),
                    "pretraining/value_loss": logged["train/value_loss"],
                    "pretraining/explained_variance": float(logged["train/explained_variance"]),
                    "time/sampling": clock.sampled - started,
                    "time/learning": finished - clock.sampled,
                    "time/steps_per_second": rollout / (clock.sampled - started),
                },
            )
    finally:
        envs.close()


class _Clock(BaseCallback):
    """When sampling ended and learning began."""

    sampled = 0.0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.sampled = time.perf_counter()


def _memory(model: PPO) -> Params:
    """Everything of the model's beside the policy: the value network, and Adam's moments."""
    memory = {f"weights.{name}": leaf.clone() for name, leaf in model.policy.state_dict().items()}
    for index, moments in model.policy.optimizer.state_dict()["state"].items():
        memory |= {f"adam.{index}.{name}": leaf.clone() for name, leaf in moments.items()}
    return memory


def _restore(model: PPO, memory: Params) -> None:
    model.policy.load_state_dict(
        {name.removeprefix("weights."): leaf for name, leaf in memory.items() if "weights." in name}
    )
    moments: dict[int, Params] = {}
    for name, leaf in memory.items():
        if name.startswith("adam."):
            _, index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = leaf.clone()
    optimizer = model.policy.optimizer
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
