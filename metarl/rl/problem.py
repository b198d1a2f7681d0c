"""A problem of meta-reinforcement learning: a family of tasks, a policy, and the return."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.distributed import shard
from metarl.envs import TaskConditioned, TaskFamily
from metarl.envs.checker import check_single
from metarl.envs.family import check_members, checked_tasks, releases_gil
from metarl.envs.observations import flat_family
from metarl.envs.scaling import ScaledObservations, measure_scale
from metarl.errors import UserError
from metarl.evaluation import Metric
from metarl.method import Method
from metarl.parallel import device_for
from metarl.params import Params
from metarl.rl.config import ESTIMATORS, Config
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.losses import check_estimator
from metarl.rl.methods import METHODS
from metarl.rl.policies import Policy, policy_for
from metarl.rl.sampler import VectorEnv
from metarl.rng import RngKey, make_rng, make_torch_rng
from metarl.threads import physical_memory, processors, thread_limit

MIN_PARTED_ENVS = 800  # below, the Python of a second part takes longer than it saves
RETURN = Metric("return", "undiscounted return", "environment steps")


@dataclass(frozen=True)
class PolicyProblem:
    """Tasks, policy and evaluation of a config; see `metarl.method.Problem`.

    Attributes:
        config: the experiment. An `observation_scale` of `measured` is measured when the family is
            first used; `resolve` measures it once, for all that use the config.
        family_override: a family in place of the one named in the config.
        task_conditioned: whether the task is appended to observations, as for an oracle.
        context: the number of the policy's context parameters; see `metarl.context`.
    """

    config: Config
    family_override: TaskFamily | None = None
    task_conditioned: bool = False
    context: int = 0

    metric = RETURN
    methods = METHODS

    @staticmethod
    def resolve(config: Config) -> Config:
        """Replace `policy.observation_scale: measured` by the measured factors."""
        if config.policy.observation_scale != "measured":
            return config
        scale = PolicyProblem(config).observation_scale
        policy = config.policy.model_copy(update={"observation_scale": scale})
        return config.model_copy(update={"policy": policy})

    @cached_property
    def raw_family(self) -> TaskFamily:
        """The family of the config, with the observations of its environments."""
        family = self.family_override or self.config.family.load()
        check_members(family, self.title)
        return family

    @cached_property
    def flat_family(self) -> TaskFamily:
        """The same with images as rows of numbers."""
        return flat_family(self.raw_family)

    @cached_property
    def observation_scale(self) -> tuple[float, ...] | None:
        """The factors of observations (S,), if there are any."""
        scale = self.config.policy.observation_scale
        return measure_scale(self.flat_family) if scale == "measured" else scale

    @cached_property
    def family(self) -> TaskFamily:
        """The family as the method sees it."""
        family, scale = self.flat_family, self.observation_scale
        if self.task_conditioned:
            family = TaskConditioned(family)
        if scale is None:
            return family
        # scales are measured on observations alone; the task stays in its units
        task_scale = (1.0,) * family.task_size if self.task_conditioned else ()
        return ScaledObservations(family, (*scale, *task_scale))

    @property
    def unscaled_family_and_scale(self) -> tuple[TaskFamily, tuple[float, ...] | None]:
        """The family before observations are scaled, and the factors (S,) if there are any."""
        if isinstance(self.family, ScaledObservations):
            return self.family.family, self.family.scale
        return self.family, None

    @cached_property
    def policy(self) -> Policy:
        settings = self.config.policy.model_dump(exclude={"observation_scale"})
        with closing(self.family.make()) as env:
            spaces = env.observation_space, env.action_space
            # stages, other processes and videos construct their own: with the same buffers
            return policy_for(
                *spaces, **settings, context=self.context, default_generator=self.generator
            )

    @cached_property
    def inner(self) -> InnerLoop:
        """The policy and its inner loop."""
        return InnerLoop(self.policy, self.config.inner, device=device_for(self.config.device))

    @property
    def title(self) -> str:
        return self.config.family.name

    @property
    def data_hashes(self) -> dict[str, str]:
        return {}

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        return self.config.evaluation.model_dump(mode="json")

    def check(self) -> None:
        device_for(self.config.device)
        if not type(self.raw_family).__module__.startswith("metarl."):
            check_single(self.raw_family)  # one episode: a small part of an iteration
        has_test_tasks = hasattr(self.raw_family, "sample_test_tasks")
        if self.config.evaluation.split == "train" and not has_test_tasks:
            raise UserError(
                f"evaluation.split=train: {self.title} has one distribution for training and test "
                "tasks (no method sample_test_tasks); leave it out"
            )
        config, policy = self.config, self.policy
        if not policy.action_dtype.is_floating_point:
            for name in ("init_std", "min_std"):
                if getattr(config.policy, name) != type(config.policy).model_fields[name].default:
                    raise UserError(
                        f"policy.{name}: is for continuous actions, and those of {self.title} are "
                        "discrete; leave it out"
                    )
        if (estimator := config.inner.estimator) not in ESTIMATORS:
            check_estimator(policy, policy.init(self.generator()), estimator)
        # float32: observations and next observations, actions with their distribution's mean and
        # scale, and about eight numbers such as rewards, masks, advantages and log-probabilities
        width = 2 * policy.observation_size + 3 * math.prod(policy.action_shape) + 8
        for section, num_tasks, settings, episodes in (
            ("outer", self.shard.stop - self.shard.start, "meta_batch", config.inner),
            ("evaluation", config.evaluation.tasks, "tasks", config.evaluation),
        ):
            count = num_tasks * episodes.episodes_per_task * self.family.horizon
            size, memory = 4 * width * count, physical_memory()
            if memory is not None and size > memory:
                name = "inner" if section == "outer" else section
                raise UserError(
                    f"{section}.{settings} and {name}.episodes_per_task: the {count:.3g} time "
                    f"steps of a batch need {size / 1e9:.3g} GB, and this machine has "
                    f"{memory / 1e9:.3g} GB; lower one of them"
                )

    def describe(self, task: NDArray[np.float64]) -> str:
        return self.family.describe(task)

    @property
    def steps_per_stage(self) -> int:
        """An upper bound on the environment steps of one stage."""
        return self.config.episodes_per_stage * self.family.horizon

    @cached_property
    def shard(self) -> slice:
        """The range of this process's tasks in the meta-batch."""
        return shard(self.config.outer.meta_batch)

    @cached_property
    def envs(self) -> VectorEnv:
        """Environments for this process's share of a meta-batch."""
        return self.family.make_vec(
            (self.shard.stop - self.shard.start) * self.config.inner.episodes_per_task
        )

    @cached_property
    def env_shards(self) -> list[VectorEnv]:
        """The same environments in parts that are sampled in parallel."""
        num_tasks = self.shard.stop - self.shard.start
        return self.make_envs(num_tasks, self.config.inner.episodes_per_task)

    def make_envs(self, num_tasks: int, trajectories: int) -> list[VectorEnv]:
        """Vector environments with some of the tasks each, to be sampled in parallel.

        A family opts in with the property `releases_gil`; all other families have one part.
        """
        # a thread costs more than it gains on few simulations
        is_large = num_tasks * trajectories >= MIN_PARTED_ENVS
        parts = min(num_tasks, 2) if is_large and releases_gil(self.flat_family) else 1
        # not one part per processor: a product that is stacked over tasks may round a task by its
        # place in the stack, so that the parts must be the same on every machine
        with thread_limit(max(1, processors() // parts)):  # for the physics of each part
            return [
                self.family.make_vec(-(-(num_tasks - part) // parts) * trajectories)
                for part in range(parts)
            ]

    @contextmanager
    def temporary_envs(self, num_tasks: int, trajectories: int) -> Iterator[list[VectorEnv]]:
        """The environments of `make_envs`, which are closed at the end."""
        with ExitStack() as stack:
            envs = self.make_envs(num_tasks, trajectories)
            yield [stack.enter_context(closing(part)) for part in envs]

    def close(self) -> None:
        if "envs" in self.__dict__:
            self.__dict__.pop("envs").close()
        for part in self.__dict__.pop("env_shards", []):
            part.close()

    def sample_tasks(self, iteration: int) -> NDArray[np.float64]:
        """This process's tasks of a meta-batch, (N, T)."""
        # all processes draw the whole meta-batch, so that results do not depend on their number
        rng = make_rng(self.config.seed, "tasks", iteration)
        return checked_tasks(self.family, rng, self.config.outer.meta_batch)[self.shard]

    def key(self, iteration: int) -> RngKey:
        """The random key of an iteration."""
        return RngKey(self.config.seed).fold_in(iteration)

    def generator(self) -> torch.Generator:
        """The generator of initial parameters."""
        return make_torch_rng(self.config.seed, "initialisation")

    def test_tasks(self) -> tuple[NDArray[np.float64], RngKey]:
        """The held-out tasks of the evaluation (N, T), and their random key.

        A family whose test tasks are not distributed as its training tasks has a method
        `sample_test_tasks`.
        """
        settings = self.config.evaluation
        return self._held_out_tasks(settings.tasks, settings.seed, settings.split == "test")

    def validation_tasks(self, number: int) -> tuple[NDArray[np.float64], RngKey]:
        """Tasks for selecting settings, and their random key; independent of the test tasks."""
        # a stream of its own: equal tasks in validation and test would flatter what was selected
        seed = int(make_rng(self.config.evaluation.seed, "validation").integers(2**31))
        return self._held_out_tasks(number, seed)

    def _held_out_tasks(
        self, number: int, seed: int, test: bool = False
    ) -> tuple[NDArray[np.float64], RngKey]:
        rng = make_rng(seed, "evaluation tasks")
        return checked_tasks(self.family, rng, number, test=test), RngKey(seed)


class PolicyMethod(Method, Protocol):
    """A method of this domain."""

    @property
    def policy(self) -> Policy:
        """The policy that is trained."""

    def agent(self, params: Params, seed: int = 0, *step_sizes: Any) -> Any:
        """An agent that acts with these parameters; see `metarl.rl.agent.Agent`."""
