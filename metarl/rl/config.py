"""What an experiment in reinforcement learning is."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from metarl.config.registry import Registry
from metarl.config.sections import (
    Count,
    Device,
    Experiment,
    Fraction,
    InnerSection,
    MethodSection,
    Name,
    Natural,
    OuterSection,
    Plain,
    Positive,
    PositiveInt,
    Section,
    Unit,
    Widths,
    one_of,
    sentence,
)
from metarl.errors import UserError
from metarl.optim import OPTIMIZERS, TrustRegion
from metarl.rl.methods import MEMBERS, METHODS, SETTINGS

if TYPE_CHECKING:
    from metarl.envs import TaskFamily

PERCEPTRON, IMAGE_NETWORK = "mlp", "cnn"
PERCEPTRONS = ("hidden_sizes", "activation", "output_scale")  # settings of its alone
POLICY_NETWORKS = Registry("policy network", {IMAGE_NETWORK: "metarl.networks.cnn:CNN"})


class FamilyConfig(Section):
    """The tasks: a family of this package or `package.module:Class`, and its settings."""

    name: Name
    settings: dict[str, Any] = Field(default_factory=dict)

    def load(self) -> "TaskFamily":
        """The family itself."""
        # imported here: with it come MuJoCo and gymnasium, which a config alone does not need
        from metarl.envs import load_family

        return load_family(self.name, self.settings)


def _scale_in_a_sentence(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validated(value)
    except ValidationError as error:  # of each alternative, where one sentence says it
        raise ValueError(
            f"must be `measured`, or a positive number for each that is observed, not {value!r}"
        ) from error


class PolicyConfig(Section):
    """The network: hidden layers, and the standard deviation of a continuous action.

    Where observations are images, convolutions come before the hidden layers (`network: cnn`, whose
    number of `filters` is among `settings`), unless `network: mlp` says otherwise.

    `output_scale` is a factor on the last layer's weights at initialisation. Xavier's (1) saturates
    the actuators of a robot whose velocities are tens, for some seeds: then nothing is learned for
    a long time.

    `observation_scale` has a factor for each number that is observed, by which the policy, and
    every baseline's, sees it multiplied; `measured`, which becomes these factors when a training
    begins, is one over the standard deviation under random actions, at most 5, and at most 1 for
    what spreads as an episode goes on (`metarl.envs.scaling`). It is worth the more the more units
    an observation has.

    `network` names a `torch.nn.Module` of one's own in place of these layers, `module:Class`, and
    `settings` what its constructor is told; see docs/own_networks.md.
    """

    observation_scale: Annotated[
        Literal["measured"] | tuple[Positive, ...] | None, WrapValidator(_scale_in_a_sentence)
    ] = None
    hidden_sizes: Widths = (100, 100)
    activation: Literal["relu", "tanh"] = "relu"
    output_scale: Positive = 1.0
    init_std: Positive = 1.0
    min_std: Positive = 1e-6
    network: Name | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def settings_of(cls, network: str) -> set[str]:
        """Which settings a network has, where another one may have had others."""
        own = network not in (PERCEPTRON, *POLICY_NETWORKS, str(None))
        return cls.model_fields.keys() - {"settings", *(PERCEPTRONS if own else ())}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.network in (None, PERCEPTRON):
            if self.settings:
                raise ValueError("settings: are those of a network of one's own; name it too")
            return self
        # imported here: torch takes a second, which only a network of one's own should cost
        from metarl.networks.module import load_module

        try:
            load_module(POLICY_NETWORKS, self.network)
        except UserError as error:
            raise ValueError(f"network: {error}") from error
        if self.network in POLICY_NETWORKS:
            return self
        for name in PERCEPTRONS:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name}: is the multilayer perceptron's; what {self.network} is to be told "
                    "stands in policy.settings"
                )
        return self


class InnerConfig(InnerSection):
    """Adaptation: gradient steps on a few trajectories of one task.

    `gamma` and `lam` are γ and λ of the advantages (Schulman et al. 2016, equation 16), also of
    those that the outer step learns from. λ 1, the paper's, is return minus baseline; with less,
    advantages are less noisy, and biased towards what the linear baseline knows.
    """

    trajectories: PositiveInt = 20
    gamma: Fraction = 0.99
    lam: Unit = 1.0
    estimator: Literal["likelihood_ratio", "log_likelihood"] = "likelihood_ratio"


class EvaluationConfig(Section):
    """Adaptation to tasks never trained on.

    A batch has so many `trajectories` of a task; or, with `count: steps`, as many time steps as so
    many whole episodes have, in up to four times as many trajectories where they end early, as the
    paper's batches do.

    Without step sizes of its own, it takes α for the first step and α/2 for the others, three in
    all, as the paper's evaluation does.
    """

    tasks: Annotated[int, Field(ge=2)] = 40
    trajectories: PositiveInt = 20
    count: Count = "episodes"
    step_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    seed: Natural = 1


class BaselineConfig(Section):
    """What meta-training is measured against: PPO on all tasks mixed, and its fine-tuning.

    The step size of fine-tuning is the best of `step_sizes` on validation tasks, which are neither
    trained nor tested on, by the return after so many steps as `chosen_after` says, 0 for the mean
    over all of them. Where none are given, each is √2 times the one before. Where the evaluation's
    step sizes change from step to step, those of fine-tuning change in proportion.
    """

    learning_rate: Positive = 3e-4
    lam: Unit = 0.95
    epochs: PositiveInt = 4
    minibatch: Annotated[int, Field(ge=2)] = 4000
    clip_range: Fraction = 0.2
    normalize_advantages: bool = True
    value_hidden_sizes: Widths = (64, 64)
    step_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = tuple(
        round(0.1 * 2 ** (n / 2), 3) for n in range(-6, 10)
    )
    validation_tasks: PositiveInt = 20
    chosen_after: Natural = 1


class Config(Experiment):
    """One experiment in meta-reinforcement learning.

    From Python, sections are plain values, as YAML has them, or objects; what is left out has its
    default, and where YAML names `package.module:Class`, the class itself may stand:

        Config(family={"name": "ant-goal"}, inner={"step_size": 0.2}, seed=2)
        Config(family={"name": Poles}, outer={"algorithm": "trpo", "iterations": 100})

    Raises:
        UserError: with one sentence for each mistake. That there is no such family is said once it
            is needed: it may be given otherwise, see `metarl.rl.PolicyProblem`.
    """

    method: Annotated[
        SerializeAsAny[MethodSection],
        one_of(METHODS, "name", "maml", MEMBERS, settings=SETTINGS),
    ] = Field(default="maml", validate_default=True)
    family: FamilyConfig
    policy: PolicyConfig = PolicyConfig()
    inner: InnerConfig = InnerConfig()
    outer: Annotated[SerializeAsAny[OuterSection], one_of(OPTIMIZERS, "algorithm", "trpo")] = (
        TrustRegion()
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()
    seed: Natural = 1
    device: Device = "auto"
    checkpoint_every: PositiveInt = 10
    report_every: PositiveInt = 1

    domain: ClassVar[str] = "rl"

    if TYPE_CHECKING:  # what pydantic takes, which is more than what it keeps

        def __init__(
            self,
            *,
            family: FamilyConfig | Plain,
            method: MethodSection | Plain | str | type = ...,
            policy: PolicyConfig | Plain = ...,
            inner: InnerConfig | Plain = ...,
            outer: OuterSection | Plain | str = ...,
            evaluation: EvaluationConfig | Plain = ...,
            baseline: BaselineConfig | Plain = ...,
            seed: int = ...,
            device: Device = ...,
            checkpoint_every: int = ...,
            report_every: int = ...,
        ) -> None: ...

    @field_validator("family")
    @classmethod
    def _is_family(cls, family: FamilyConfig, info: ValidationInfo) -> FamilyConfig:
        if info.context is None:  # made in Python, where a family of any name may be given
            return family
        try:
            family.load()
        except (ValueError, UserError) as error:
            raise sentence(str(error)) from error
        return family

    def check(self) -> None:
        """Raise ValueError where the outer step does not serve the method."""
        method, algorithm = self.method, self.outer.algorithm
        own = METHODS.load(method.name) if method.name not in METHODS else method
        steps = getattr(own, "outer_steps", tuple(OPTIMIZERS))
        if algorithm not in steps:
            raise ValueError(
                f"outer.algorithm: must be {' or '.join(map(repr, steps))} for method "
                f"{method.name}, not {algorithm!r}"
            )

    @property
    def evaluation_step_sizes(self) -> tuple[float, ...]:
        """Step sizes of the evaluation."""
        alpha = self.inner.step_size
        return self.evaluation.step_sizes or (alpha, alpha / 2, alpha / 2)
