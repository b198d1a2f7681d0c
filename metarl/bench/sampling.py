"""Speed of the sampler, compared with plain physics and Gymnasium's vector environments."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from mujoco.batch import Batch

from metarl.bench.timing import median_seconds
from metarl.envs.mujoco_world import MujocoFamily
from metarl.envs.world import Floats, Mask
from metarl.experiment import load_config
from metarl.params import repeat
from metarl.rl.config import Config
from metarl.rl.problem import PolicyProblem
from metarl.rl.sampler import sample
from metarl.rl.trajectories import Trajectories
from metarl.rng import RngKey, make_rng
from metarl.threads import processors


def sampling(source: str, overrides: Sequence[str], repeats: int) -> dict[str, float]:
    """Environment steps per second in a MuJoCo family.

    Returns:
        `physics`: plain `Batch.step` with the same number of simulations and threads and the same
        actions: an upper bound. `observed`: with observations and rewards. `sampler`: the whole
        sampler, with one policy per task. `sync` and `async`: Gymnasium's vector environments with
        16 environments and with one per processor, and one policy.
    """
    problem, tasks, run_sampler = sampler_case(source, overrides)
    family, _ = problem.unscaled_family_and_scale
    assert isinstance(family, MujocoFamily)
    num_envs = len(tasks) * problem.config.inner.episodes_per_task
    # physics repeats the sampler's actions, and like it stops simulations whose episode is over
    trajectories = run_sampler()
    # to (H, N·B, A): simulations step together, and their world clips actions to [−1, 1]
    actions = trajectories.actions.clamp(-1.0, 1.0).movedim(2, 0).flatten(1, 2).numpy()
    active = trajectories.mask.movedim(2, 0).flatten(1, 2).numpy()
    num_steps = int(active.sum())

    world = family.world(num_envs)
    world.reset(np.ones(num_envs, dtype=bool), lambda index: make_rng(0, "start", index))
    starts = {name: world.batch.bind(name).copy() for name in ("qpos", "qvel")}
    plain = Batch(world.batch.model, num_envs, processors())

    def physics_rate(batch: Batch, step: Callable[..., None]) -> float:
        def episodes() -> None:
            # the same initial states in each repeat; without a reset, which is not physics
            for name, start in starts.items():
                batch.bind(name)[:] = start
            for t in range(family.horizon):
                batch.bind("ctrl")[:] = actions[t]
                step(active[t])

        return num_steps / median_seconds(episodes, repeats)

    def step_and_observe(active: Mask) -> None:
        world.advance(active)
        world.observe()

    return {
        "physics": physics_rate(plain, partial(plain.step, nstep=family.robot.frame_skip)),
        "observed": physics_rate(world.batch, step_and_observe),
        "sampler": num_steps / median_seconds(run_sampler, repeats),
        **vector_env_rates(problem, family.make, repeats),
    }


def sampler_case(
    source: str, overrides: Sequence[str]
) -> tuple[PolicyProblem, Floats, Callable[[], Trajectories]]:
    """The problem of a config, tasks (N, T) of it, and a function that samples their episodes."""
    config = load_config(source, overrides)
    assert isinstance(config, Config)
    problem = PolicyProblem(config)
    (family, _), policy = problem.unscaled_family_and_scale, problem.policy
    # fixed streams: two versions of the package are measured on the same tasks and noise
    tasks = family.sample_tasks(make_rng(0, "benchmark"), config.outer.meta_batch)
    stacked = repeat(policy.init(problem.generator()), len(tasks))
    args = policy, stacked, problem.env_shards, tasks, family.horizon, RngKey(0)
    return problem, tasks, partial(sample, *args)


def vector_env_rates(
    problem: PolicyProblem, make_env: Callable[[], gym.Env[Any, Any]], repeats: int
) -> dict[str, float]:
    """Environment steps per second of Gymnasium's vector environments with one policy.

    Returns:
        `sync` with 16 environments, and `async` with one per processor.
    """
    policy, horizon = problem.policy, problem.family.horizon
    theta = policy.init(problem.generator())

    def rate(make_vec: Any, count: int) -> float:
        envs: gym.vector.VectorEnv[Any, Any, Any] = make_vec([make_env] * count)
        observation, _ = envs.reset(seed=0)
        noise = torch.from_numpy(policy.noise(make_rng(0, "noise"), (horizon, count)))

        @torch.no_grad()
        def episode() -> None:
            nonlocal observation
            for t in range(horizon):
                observations = torch.from_numpy(np.asarray(observation, dtype=np.float32))
                action = policy.act(policy.distribution(theta, observations), noise[t])
                observation, *_ = envs.step(action.numpy())

        steps = count * horizon / median_seconds(episode, repeats)
        envs.close()
        return steps

    return {"sync": rate(SyncVectorEnv, 16), "async": rate(AsyncVectorEnv, processors())}
