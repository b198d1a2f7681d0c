"""Speed of Meta-World, compared with its own environments."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.bench.sampling import sampler_case, vector_env_rates
from metarl.bench.timing import median_seconds
from metarl.envs.metaworld.assets import reset_welds
from metarl.envs.metaworld.families import MetaWorld
from metarl.rng import make_rng

if TYPE_CHECKING:
    from metarl.envs.world import Floats


def original_environment(name: str, goal: "Floats") -> Any:
    """Meta-World's own environment of a task, with a goal (P,) that it does not show."""
    # an optional package: nothing else imports its code
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    environment: Any = ALL_V3_ENVIRONMENTS[f"{name}-v3"]
    env = type(name, (environment,), {"reset_mocap_welds": reset_mocap_welds})()
    env._set_task_called, env._freeze_rand_vec, env._last_rand_vec = True, True, goal
    return env


def reset_mocap_welds(env: Any) -> None:
    """In place of the method that writes 11 numbers into rows of which MuJoCo 4 has 12."""
    reset_welds(env.model)


def metaworld(source: str, overrides: Sequence[str], repeats: int) -> dict[str, float]:
    """Environment steps per second in a family with one of Meta-World's tasks, resets included.

    Returns:
        `observed`: the batched simulations with observations and rewards, without a policy.
        `sampler`: the whole sampler, with one policy per task. `sync` and `async`: Meta-World's own
        environments in Gymnasium's vector environments, with one policy.
    """
    problem, tasks, run_sampler = sampler_case(source, overrides)
    family, _ = problem.unscaled_family_and_scale
    assert isinstance(family, MetaWorld)
    per_task = problem.config.inner.episodes_per_task
    num_envs = len(tasks) * per_task
    envs = family.make_vec(num_envs)
    actions = make_rng(0, "actions").uniform(-1.0, 1.0, (family.horizon, num_envs, 4))

    def episodes() -> None:
        envs.reset(options={"task": np.repeat(tasks, per_task, axis=0)})
        for action in actions:
            envs.step(action)

    num_steps, (member,) = num_envs * family.horizon, family.members
    goal = family.goals(tasks, member)[0]
    return {
        "observed": num_steps / median_seconds(episodes, repeats),
        "sampler": num_steps / median_seconds(run_sampler, repeats),
        **vector_env_rates(problem, partial(original_environment, member.name, goal), repeats),
    }
