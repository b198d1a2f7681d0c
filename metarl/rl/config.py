"""What an experiment in reinforcement learning is."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from metarl.compute import Device
from metarl.envs import TaskConditioned, TaskFamily, load_family
from metarl.settings import (
    Fraction,
    Natural,
    OuterSection,
    Positive,
    PositiveInt,
    Section,
    Widths,
)


class FamilyConfig(Section):
    """The tasks: a family of this package or `package.module:Class`, and its settings."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)

    def load(self) -> TaskFamily:
        """The family itself."""
        return load_family(self.name, self.settings)


class PolicyConfig(Section):
    """The network: hidden layers, and the standard deviation of a continuous action."""

    hidden_sizes: Widths = (100, 100)
    activation: Literal["relu", "tanh"] = "relu"
    init_std: Positive = 1.0
    min_std: Positive = 1e-6


class InnerConfig(Section):
    """Adaptation: gradient steps on a few trajectories of one task."""

    step_size: Positive = 0.1
    steps: PositiveInt = 1
    trajectories: PositiveInt = 20
    gamma: Fraction = 0.99
    lam: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    estimator: Literal["likelihood_ratio", "log_likelihood"] = "likelihood_ratio"
    first_order: bool = False


class TRPOConfig(OuterSection):
    """Meta-training by trust region steps (the paper's)."""

    algorithm: Literal["trpo"] = "trpo"
    max_kl: Positive = 0.01
    cg_iterations: PositiveInt = 10
    damping: Annotated[float, Field(ge=0.0)] = 1e-5
    backtrack_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    max_backtracks: PositiveInt = 15
    curvature_fraction: Fraction = 0.1

    @property
    def curvature_stride(self) -> int:
        """Of so many time steps one estimates the curvature."""
        return max(1, round(1.0 / self.curvature_fraction))


class AdamConfig(OuterSection):
    """Meta-training by plain policy gradient steps with Adam."""

    algorithm: Literal["adam"] = "adam"
    learning_rate: Positive = 1e-3


def _algorithm(outer: Any) -> Any:
    """Which outer step a section describes: the paper's where it doesn't say."""
    if isinstance(outer, Mapping):
        return outer.get("algorithm", "trpo")
    return getattr(outer, "algorithm", "trpo")


class EvaluationConfig(Section):
    """Adaptation to tasks never trained on.

    Without step sizes of its own, it takes α for the first step and α/2 for the others, three in
    all, as the paper's evaluation does.
    """

    tasks: Annotated[int, Field(ge=2)] = 40
    trajectories: PositiveInt = 20
    step_sizes: tuple[Positive, ...] | None = None
    seed: Natural = 1


class BaselineConfig(Section):
    """What meta-training is measured against: PPO on all tasks mixed, and its fine-tuning.

    The step size of fine-tuning is the best of `step_sizes` on validation tasks, which are neither
    trained nor tested on. Where the evaluation's step sizes change from step to step, those of
    fine-tuning change in proportion.
    """

    learning_rate: Positive = 3e-4
    lam: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    epochs: PositiveInt = 4
    minibatch: Annotated[int, Field(ge=2)] = 4000
    clip_range: Fraction = 0.2
    value_hidden_sizes: Widths = (64, 64)
    step_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (
        0.01,
        0.02,
        0.05,
        0.1,
        0.2,
        0.5,
        1.0,
        2.0,
    )
    validation_tasks: PositiveInt = 20


class Config(Section):
    """One experiment in meta-reinforcement learning."""

    method: Literal["maml", "pretrained", "random", "oracle"] = "maml"
    family: FamilyConfig
    policy: PolicyConfig = PolicyConfig()
    inner: InnerConfig = InnerConfig()
    outer: Annotated[
        Annotated[TRPOConfig, Tag("trpo")] | Annotated[AdamConfig, Tag("adam")],
        Discriminator(_algorithm),
    ] = TRPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()
    seed: Natural = 1
    device: Device = "auto"
    checkpoint_every: PositiveInt = 10

    def load_family(self) -> TaskFamily:
        """The family as the method sees it: an oracle is told its task."""
        family = self.family.load()
        return TaskConditioned(family) if self.method == "oracle" else family

    @property
    def anneals(self) -> bool:
        """Whether every iteration depends on how many there will be; pretraining's does not."""
        return self.outer.anneal and self.method == "maml"

    @property
    def updates(self) -> int:
        """How many updates training takes.

        Pretraining does one for every time that meta-training would have sampled, so that both see
        the same number of environment steps.
        """
        if self.method == "random":
            return 0
        return self.outer.iterations * (1 if self.method == "maml" else self.inner.steps + 1)

    def budget(self, horizon: int) -> int:
        """The most environment steps that training takes, of episodes of this length."""
        if self.method == "random":
            return 0
        batch = self.outer.meta_batch * self.inner.trajectories * horizon
        return self.outer.iterations * (self.inner.steps + 1) * batch

    @property
    def evaluation_step_sizes(self) -> tuple[float, ...]:
        """Step sizes of the evaluation."""
        alpha = self.inner.step_size
        return self.evaluation.step_sizes or (alpha, alpha / 2, alpha / 2)
