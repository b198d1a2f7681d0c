"""PPO of stable-baselines3 on all tasks of a family jointly, one update at a time."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed

from metarl.baselines.multi_task_env import MultiTaskEnv
from metarl.baselines.stable_baselines import load_params, policy_keywords, to_params
from metarl.errors import UserError
from metarl.method import Metrics, TrainingState
from metarl.params import Params, split_prefix
from metarl.rl.problem import PolicyProblem
from metarl.rng import make_rng

DIVERGED = (
    "PPO has diverged: its update left no finite action distribution; lower baseline.learning_rate"
)


class MultiTaskPPO:
    """Updates of PPO, each a function of the previous state.

    An update collects as many steps as a meta-iteration does before or after an inner step: one
    episode in each of N·B environments, and further ones where it ends early. With the same
    `outer.iterations`, pretraining uses as many environment steps as meta-training, or more if
    episodes end early. Tasks, environments and network are those of the problem.
    """

    def __init__(self, problem: PolicyProblem) -> None:
        config, self.horizon = problem.config, problem.family.horizon
        settings, self.seed = config.baseline, config.seed
        if config.outer.meta_batch * config.inner.episodes_per_task * self.horizon < 2:
            raise UserError(
                "PPO needs at least two time steps for an update; raise outer.meta_batch or "
                "inner.episodes_per_task"
            )
        self.envs = MultiTaskEnv(
            problem.family, config.outer.meta_batch * config.inner.episodes_per_task
        )
        with seeded(int(make_rng(config.seed, "value network").integers(2**31))):
            self.model = PPO(
                "MlpPolicy",
                self.envs,
                learning_rate=settings.learning_rate,
                n_steps=self.horizon,
                batch_size=min(settings.batch_size, self.envs.num_envs * self.horizon),
                n_epochs=settings.epochs,
                gamma=config.inner.gamma,
                gae_lambda=settings.gae_lambda,
                clip_range=settings.clip_range,
                normalize_advantage=settings.normalize_advantages,
                # clipping would use the joint norm: the separate value network's gradient would
                # shrink the policy's
                max_grad_norm=float("inf"),
                policy_kwargs=policy_keywords(problem.policy, settings.value_hidden_sizes),
                device="cpu",
            )
        self.model.set_logger(Logger(folder=None, output_formats=[]))

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """One rollout and one update.

        Raises:
            FloatingPointError: if the weights are not finite any more.
        """
        model, envs, started = self.model, self.envs, time.perf_counter()
        if state.opt_state:
            try:
                _restore(model, state.opt_state)
            except (RuntimeError, KeyError, ValueError) as error:  # torch names the difference
                raise UserError(
                    "the checkpoint's value network or optimiser is not that of the config "
                    f"({' '.join(str(error).split())}); restore it from a copy, or train anew"
                ) from error
        # the policy comes from the state as well: a step is a function of the state alone
        load_params(model.policy, state.params)
        rollout = envs.num_envs * self.horizon
        seed = int(make_rng(self.seed, "pretraining", state.iteration).integers(2**31))
        envs.start(self.seed, state.iteration)
        model.set_env(envs, force_reset=True)
        clock = _Clock()
        try:
            with seeded(seed):
                # one rollout and one update; an interval of 2 does not clear the logged values
                model.learn(rollout, clock, log_interval=2, reset_num_timesteps=False)
        except ValueError as error:
            # of torch.distributions: a mean is not finite, or a standard deviation is 0
            if str(error).startswith("Expected parameter"):
                raise FloatingPointError(DIVERGED) from error
            raise
        finished = time.perf_counter()
        # those of the value network as well: the next update needs them
        if not all(torch.isfinite(leaf).all() for leaf in model.policy.state_dict().values()):
            raise FloatingPointError(DIVERGED)
        theta = to_params(model.policy.state_dict())
        logged, returns = model.logger.name_to_value, envs.finished_returns
        new = TrainingState(state.iteration + 1, theta, _opt_state(model), state.samples + rollout)
        return new, {
            "return/after_0_steps": sum(returns) / len(returns),
            "environment_steps": rollout,
            "policy/entropy": -logged["train/entropy_loss"],
            "pretraining/kl": float(logged["train/approx_kl"]),
            "pretraining/value_loss": logged["train/value_loss"],
            "pretraining/explained_variance": float(logged["train/explained_variance"]),
            "time/sampling": clock.sampled - started,
            "time/learning": finished - clock.sampled,
            "time/steps_per_second": rollout / (clock.sampled - started),
        }

    def close(self) -> None:
        self.envs.close()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, which stable-baselines3 uses, and restore them afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        set_random_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


class _Clock(BaseCallback):
    """The time at which sampling ended and learning began."""

    sampled = 0.0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.sampled = time.perf_counter()


def _opt_state(model: PPO) -> Params:
    """The state of the model besides the policy: the value network and Adam's moments."""
    opt_state = {
        f"weights.{name}": leaf.clone() for name, leaf in model.policy.state_dict().items()
    }
    for index, moments in model.policy.optimizer.state_dict()["state"].items():
        opt_state |= {f"adam.{index}.{name}": leaf.clone() for name, leaf in moments.items()}
    return opt_state


def _restore(model: PPO, opt_state: Params) -> None:
    adam, weights = split_prefix(opt_state, "weights.")
    model.policy.load_state_dict(weights)
    moments: dict[int, Params] = {}
    for name, leaf in adam.items():
        _, index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = leaf.clone()
    optimizer = model.policy.optimizer
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
