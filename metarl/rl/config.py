"""The config of an experiment in reinforcement learning."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
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
    SHARED,
    Arguments,
    BatchUnit,
    ConfigMapping,
    Device,
    Discriminated,
    EarlyStopping,
    Experiment,
    Fraction,
    HiddenSizes,
    ImportString,
    InitialWeights,
    InnerSection,
    MethodSection,
    NonNegativeInt,
    OuterSection,
    PositiveFloat,
    PositiveInt,
    Precision,
    Section,
    UnitInterval,
    check_selection_step,
    config_error,
    reason_unused,
    text_or,
    to_import_string,
    true_or,
)
from metarl.errors import UserError
from metarl.optim import OPTIMIZERS, GradientSection, TrustRegion
from metarl.rl.methods import MEMBERS, METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metarl.envs import TaskFamily

PAPER_STEPS = 3
MLP, IMAGE_NETWORK = "mlp", "cnn"
MLP_SETTINGS = ("hidden_sizes", "activation", "output_scale")
METHOD = Discriminated(METHODS, "name", "maml", MEMBERS)
OUTER = Discriminated(OPTIMIZERS, "algorithm", "trpo", base="metarl.optim.GradientSection")
ESTIMATORS = Registry(
    "estimator",
    {
        "likelihood_ratio": "metarl.rl.losses:likelihood_ratio",
        "log_likelihood": "metarl.rl.losses:log_likelihood",
    },
    functions=True,
)
BASELINES = Registry(
    "baseline",
    {
        "linear": "metarl.rl.advantages:baseline_features",
        "time": "metarl.rl.advantages:time_features",
        "linear_prior": "metarl.rl.advantages:baseline_features",
    },
    functions=True,
)
POLICY_NETWORKS = Registry("policy network", {IMAGE_NETWORK: "metarl.networks.cnn:CNN"})


class FamilyConfig(Section):
    """The task distribution.

    Its `name` is that of a family of this package, or `package.module:Class`; alone it may stand
    for the section. The arguments of its constructor are `settings`, such as `horizon`.
    """

    name: ImportString
    settings: Arguments = Field(default_factory=dict)

    def load(self) -> "TaskFamily":
        """Construct the family with its settings."""
        # imported here: with it come MuJoCo and gymnasium, which a config alone does not need
        from metarl.envs import load_family

        return load_family(self.name, self.settings)


def _validate_scale(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError as error:  # one message instead of one for each member of the union
        raise ValueError(
            f"must be `measured`, or one positive number per observation, not {value!r}"
        ) from error


class PolicyConfig(Section):
    """The policy network, and the standard deviation of continuous actions.

    `hidden_sizes` are the widths of the hidden layers, with the `activation` between them. The
    standard deviation starts at `init_std`, adapts like every other parameter, and has the lower
    bound `min_std`.

    For image observations, convolutions precede the hidden layers (`network: cnn`; their `filters`
    are among `settings`), unless `network: mlp` is set.

    `output_scale` multiplies the initial weights of the last layer (Xavier's in a perceptron).
    Below 1, robots whose observations are large do not saturate their actuators at the start.

    `observation_scale` has a factor for each observation; policies and value functions, also those
    of the baselines, receive the products. With `measured`, the factors are computed when training
    starts: one over the standard deviation under random actions, at most 5, and at most 1 for
    observations whose spread grows during an episode (`metarl.envs.scaling`). It matters most where
    observations have different units.

    `network` may also be a `torch.nn.Module`, `module:Class`, with `settings` as the arguments of
    its constructor; see docs/own_networks.md.
    """

    observation_scale: Annotated[
        Literal["measured"] | tuple[PositiveFloat, ...] | None, WrapValidator(_validate_scale)
    ] = None
    hidden_sizes: HiddenSizes = (100, 100)
    activation: Literal["relu", "tanh"] = "relu"
    output_scale: PositiveFloat = 1.0
    init_std: PositiveFloat = 1.0
    min_std: PositiveFloat = 1e-6
    network: ImportString | None = None
    settings: Arguments = Field(default_factory=dict)

    @classmethod
    def settings_of(cls, network: str) -> set[str]:
        """The settings that a network shares with others. A custom network has no MLP settings."""
        is_custom = network not in (MLP, *POLICY_NETWORKS, str(None))
        return cls.model_fields.keys() - {"settings", *(MLP_SETTINGS if is_custom else ())}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.init_std < self.min_std:
            raise ValueError(
                f"init_std: {self.init_std:g} is below min_std={self.min_std:g}, where it gets no "
                "gradient; raise it, or lower min_std"
            )
        if self.network in (None, MLP):
            if self.settings:
                raise ValueError("settings: needs a custom network; set policy.network as well")
            return self
        from metarl.networks.module import load_module

        try:
            load_module(POLICY_NETWORKS, self.network)
        except UserError as error:
            raise ValueError(f"network: {error}") from error
        if self.network in POLICY_NETWORKS:
            return self
        for name in MLP_SETTINGS:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name}: belongs to the multilayer perceptron; the arguments of "
                    f"{self.network} are in policy.settings"
                )
        return self


class InnerConfig(InnerSection):
    """The inner loop: gradient steps on `episodes_per_task` episodes of one task.

    `gamma` and `gae_lambda` are γ and λ of generalised advantage estimation (Schulman et al. 2016,
    equation 16), in the inner and in the outer loss. λ = 1, as in the paper, is return minus
    baseline. A smaller λ reduces the variance, and adds a bias towards the baseline.

    The `estimator` of the inner loss is the surrogate with likelihood ratios, `likelihood_ratio`
    (LVC, Rothfuss et al. 2019), or log π · A, `log_likelihood`, as in the paper, whose second
    derivative lacks the term E[∇log π ∇log πᵀ A]. A function of policy, parameters and samples,
    `module:function`, may take its place; see `metarl.rl.losses`.

    With `bootstrap`, the return of an episode that was truncated by a time limit includes the
    baseline's value of the last observation, and the baseline is a function of the observation
    alone. By default that value is 0, as in the paper.

    `baseline` predicts the returns, by least squares on each batch of a task: `linear` from
    features of observation and time (Duan et al. 2016), `time` from those of time alone. With very
    few episodes, `linear` overfits the batch. `linear_prior` adds `prior_samples` pseudo-samples of
    training tasks to the fit: in training those of the meta-batch, in an evaluation those of a
    meta-batch that is simulated for it. A function from the observations of a task (B, H, S) to
    features (B, H, F), `module:function`, may take their place.
    """

    episodes_per_task: PositiveInt = 20
    gamma: UnitInterval = 0.99
    gae_lambda: UnitInterval = 1.0
    estimator: ImportString = "likelihood_ratio"
    bootstrap: bool = False
    baseline: ImportString = "linear"
    prior_samples: PositiveFloat = 200.0

    @field_validator("estimator", "baseline")
    @classmethod
    def _is_function(cls, name: str, info: ValidationInfo) -> str:
        registry = ESTIMATORS if info.field_name == "estimator" else BASELINES
        if name not in registry:  # others come with torch, which a config does not need
            try:
                registry.load(name)
            except UserError as error:
                raise ValueError(f"must name a function; {error}") from error
        return name

    @model_validator(mode="after")
    def _check_baseline(self) -> Self:
        default = type(self).model_fields["prior_samples"].default
        if self.baseline != "linear_prior" and self.prior_samples != default:
            raise ValueError(
                f"prior_samples: is a setting of baseline=linear_prior, not of {self.baseline}; "
                "leave it out"
            )
        if self.bootstrap and self.baseline != "linear":
            raise ValueError(
                f"bootstrap: needs baseline=linear, not {self.baseline}; set only one of them"
            )
        return self


class EvaluationConfig(Section):
    """The evaluation: adaptation to `tasks` held-out tasks, which `seed` determines.

    A gradient step uses `episodes_per_task` episodes of a task. With `batch_unit: steps` it uses as
    many time steps as that number of full-length episodes, collected in up to four times as many
    episodes if they end early. The paper's code counts this way.

    Without `step_sizes` there are `steps` gradient steps: those of training with α, and further
    ones with α/2. By default there are three, as in the paper, or as many as in training if that is
    more. If step sizes are learned, only `steps` can be set.

    With `deterministic`, actions in the episodes after the last step are the mean, or the most
    probable action. Actions in earlier episodes are sampled, since the policy adapts to them.
    `deterministic: always` is for policies with memory, which take such actions in all episodes, as
    VariBAD's code does.

    A family may have test tasks of another distribution than its training tasks. `split: train`
    evaluates on training tasks.
    """

    tasks: Annotated[int, Field(ge=2)] = 40
    episodes_per_task: PositiveInt = 20
    batch_unit: BatchUnit = "episodes"
    step_sizes: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    steps: PositiveInt | None = None
    deterministic: bool | Literal["always"] = False
    split: Literal["test", "train"] = "test"
    seed: NonNegativeInt = 1

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.steps and self.step_sizes and self.steps != len(self.step_sizes):
            raise ValueError(
                f"steps: is {self.steps}, but step_sizes has {len(self.step_sizes)} numbers; set "
                "only one of them"
            )
        return self


class BaselineConfig(Section):
    """The baselines: PPO on all tasks jointly (multi-task pretraining), then fine-tuning.

    PPO has the arguments of stable-baselines3: `learning_rate`, `gae_lambda`, `epochs` per batch of
    rollouts, the `batch_size` of a minibatch, `clip_range`, and `normalize_advantages` per
    minibatch. `value_hidden_sizes` are the hidden layers of its value function. The method
    `multi_task` is trained by the outer step instead, and `random` not at all.

    The step size of fine-tuning is the one among `step_sizes` with the highest return on validation
    tasks after `selection_step` steps, or with the highest mean over all steps if that is 0. The
    `validation_tasks` are drawn as training tasks are, by another seed. If the evaluation's step
    sizes vary between steps, those of fine-tuning vary in proportion. The default is a grid with
    factor √2.
    """

    learning_rate: PositiveFloat = 3e-4
    gae_lambda: UnitInterval = 0.95
    epochs: PositiveInt = 4
    batch_size: Annotated[int, Field(ge=2)] = 4000
    clip_range: Fraction = 0.2
    normalize_advantages: bool = True
    value_hidden_sizes: HiddenSizes = (64, 64)
    step_sizes: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = tuple(
        round(0.1 * 2 ** (n / 2), 3) for n in range(-6, 10)
    )
    validation_tasks: PositiveInt = 20
    selection_step: NonNegativeInt = 1


# of baselines: those of PPO, without those of fine-tuning
PPO_SETTINGS = tuple(
    f"baseline.{name}"
    for name in BaselineConfig.model_fields
    if name not in ("step_sizes", "validation_tasks", "selection_step")
)


def default_outer_step(values: Mapping[str, Any]) -> str | None:
    """Of a config without `outer.algorithm`: TRPO, or the first that its method supports.

    Returns:
        None if the config names one, or has no valid method.
    """
    outer, method = values.get("outer", {}), values.get("method")
    if not isinstance(outer, Mapping) or "algorithm" in outer:
        return None
    name = method if isinstance(method, type) else getattr(method, "name", method)
    try:
        name = to_import_string(name.get("name") if isinstance(name, Mapping) else name)
        supported = METHODS.load(name, MEMBERS).outer_steps
    except (AttributeError, TypeError, ValueError, UserError):  # reported with the other settings
        return None
    return OUTER.default if OUTER.default in supported else supported[0]


class PolicyEarlyStopping(EarlyStopping):
    """Early stopping, with validations every 10 iterations: those of policies take longer."""

    every: PositiveInt = 10


class Stage(Section):
    """Settings of the first part of training: those in `set` hold before iteration `until`."""

    until: PositiveInt
    set: Annotated[dict[str, Any], Field(min_length=1)]


# settings that may differ in a stage: they leave parameters and evaluations as they are
STAGE_SETTINGS = (
    "outer.meta_batch",
    "outer.max_kl",
    "outer.learning_rate",
    "inner.episodes_per_task",
    "inner.gae_lambda",
    "method.entropy_weight",
)


class Config(Experiment):
    """The settings of an experiment in meta-reinforcement learning.

    Sections are mappings, as in YAML, or objects of the classes below, whose help describes their
    settings. Only `family` is required. Names in place of custom code are `package.module:Class`,
    or in Python the class itself:

        Config(family={"name": "ant-goal"}, inner={"step_size": 0.2}, seed=2)
        Config(family={"name": Poles}, outer={"algorithm": "trpo", "iterations": 100})

    - `method`: the algorithm, such as "maml" or "rl2".
    - `family`: the distribution of tasks, `metarl.rl.config.FamilyConfig`.
    - `policy`: the network, `metarl.rl.config.PolicyConfig`.
    - `inner`: adaptation to a task, `metarl.rl.config.InnerConfig`.
    - `outer`: meta-training, `metarl.optim.TrustRegion` or `metarl.optim.Adam`.
    - `evaluation`: adaptation to held-out tasks, `metarl.rl.config.EvaluationConfig`.
    - `baseline`: PPO, to compare with, `metarl.rl.config.BaselineConfig`.
    - `seed`: the seed of all random numbers.
    - `device`: "cpu", "cuda" (experimental), or "auto", which is CUDA if it is available.
    - `checkpoint_every`: the number of iterations between checkpoints.
    - `report_every`: the number of iterations between metrics.
    - `record_every`: the number of iterations between videos of the policy before and after
      adaptation to a held-out task; by default there are none.
    - `init_from`: a run from whose weights training starts.
    - `precision`: "float32", the only one for policies.
    - `early_stopping`: true, or settings (`metarl.rl.config.PolicyEarlyStopping`), to end training
      when validation scores no longer improve.
    - `stages`: other settings for the first iterations, `metarl.rl.config.Stage`. After the last
      stage, and in evaluations, the settings are those of the sections above:

        stages:
          - {until: 100, set: {outer.meta_batch: 10, inner.gae_lambda: 0.98}}
          - {until: 200, set: {outer.meta_batch: 20}}

    Raises:
        UserError: with one line for each invalid setting. An unknown family is reported when
            training starts.
    """

    method: Annotated[SerializeAsAny[MethodSection], WrapValidator(METHOD.validate)] = Field(
        default="maml", validate_default=True
    )
    family: Annotated[FamilyConfig, text_or(FamilyConfig, "name")]
    policy: PolicyConfig = PolicyConfig()
    inner: InnerConfig = InnerConfig()
    outer: Annotated[SerializeAsAny[OuterSection], WrapValidator(OUTER.validate)] = TrustRegion()
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()
    seed: NonNegativeInt = 1
    device: Device = "cpu"
    checkpoint_every: PositiveInt = 10
    report_every: PositiveInt = 1
    record_every: PositiveInt | None = None
    init_from: Annotated[InitialWeights | None, text_or(InitialWeights | None, "run")] = None
    precision: Precision = "float32"
    early_stopping: Annotated[PolicyEarlyStopping | None, true_or(PolicyEarlyStopping)] = None
    stages: tuple[Stage, ...] = ()

    domain: ClassVar[str] = "rl"
    methods: ClassVar[Registry] = METHODS

    if TYPE_CHECKING:  # the arguments before validation

        def __init__(
            self,
            *,
            family: FamilyConfig | ConfigMapping | str | type,
            method: MethodSection | ConfigMapping | str | type = ...,
            policy: PolicyConfig | ConfigMapping = ...,
            inner: InnerConfig | ConfigMapping = ...,
            outer: OuterSection | ConfigMapping | str | type = ...,
            evaluation: EvaluationConfig | ConfigMapping = ...,
            baseline: BaselineConfig | ConfigMapping = ...,
            seed: int = ...,
            device: Device = ...,
            checkpoint_every: int = ...,
            report_every: int = ...,
            record_every: int | None = ...,
            init_from: InitialWeights | ConfigMapping | str | Path | None = ...,
            precision: Precision = ...,
            early_stopping: EarlyStopping | ConfigMapping | bool | None = ...,
            stages: Sequence[Stage | ConfigMapping] = ...,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _choose_outer_step(cls, values: Any) -> Any:
        algorithm = default_outer_step(values) if isinstance(values, dict) else None
        if algorithm is None:
            return values
        return {**values, "outer": {"algorithm": algorithm, **values.get("outer", {})}}

    @field_validator("family")
    @classmethod
    def _is_family(cls, family: FamilyConfig, info: ValidationInfo) -> FamilyConfig:
        if info.context is None:  # constructed in Python: PolicyProblem may get another family
            return family
        try:
            family.load()
        except (ValueError, UserError) as error:
            raise config_error(str(error)) from error
        return family

    def check(self) -> None:
        """Check that the method supports the outer step and the stages."""
        if self.precision != "float32":
            raise ValueError(
                "precision: bf16 is for networks of supervised learning; a policy's likelihood "
                "ratios and the values that a line search compares differ in digits that it lacks"
            )
        method, algorithm = self.method, self.outer.algorithm
        steps = METHODS.load(method.name).outer_steps
        # a custom step along the gradient fits every method, others those that support TRPO
        is_supported = isinstance(self.outer, GradientSection) or OUTER.default in steps
        is_custom = algorithm not in OPTIMIZERS
        if algorithm not in steps and not (is_custom and is_supported):
            raise ValueError(
                f"outer.algorithm: must be {' or '.join(map(repr, steps))} for method "
                f"{method.name}, not {algorithm!r}"
            )
        unit = getattr(METHODS.load(method.name), "adaptation_unit", None)
        if self.evaluation.deterministic == "always" and not (unit and unit.counts_episodes):
            raise ValueError(
                "evaluation.deterministic: always is for policies with memory; method "
                f"{method.name} needs sampled actions to adapt: set true for those after the last "
                "step"
            )
        check_selection_step(self, self.baseline.selection_step, len(self.evaluation_step_sizes))
        if self.stages:
            self._check_stages()

    def _check_stages(self) -> None:
        unused = self.unused_settings()
        if "stages" in unused:  # an error, or dropped for a baseline of this config
            return
        ends = [*self.stage_starts, self.outer.iterations]
        if not all(first < second for first, second in pairwise(ends)):
            raise ValueError(
                f"stages: `until` must increase, and stay below outer.iterations={ends[-1]}: "
                f"{', '.join(map(str, ends[1:-1]))}"
            )
        for stage in self.stages:
            for name in stage.set:
                if name not in STAGE_SETTINGS:
                    raise ValueError(f"stages: cannot set {name}, only {', '.join(STAGE_SETTINGS)}")
                reason = reason_unused(name, unused)
                if reason and name not in SHARED:
                    raise ValueError(
                        f"stages: {name} is not supported by method {self.method.name}, "
                        f"{reason}; leave it out"
                    )
            self._of_stage(stage)

    def at(self, iteration: int) -> Self:
        for stage in self.stages:
            if iteration < stage.until:
                return self._of_stage(stage)
        return self

    def _of_stage(self, stage: Stage) -> Self:
        """The settings of a stage.

        Raises:
            ValueError: if one of them has an invalid value.
        """
        sections: dict[str, Section] = {}
        for name, value in stage.set.items():
            section, _, setting = name.partition(".")
            old = sections.get(section, getattr(self, section))
            if setting not in type(old).model_fields:
                kind = self.method.name if section == "method" else self.outer.algorithm
                raise ValueError(f"stages: {kind} has no {name}")
            try:
                sections[section] = type(old).model_validate(old.model_dump() | {setting: value})
            except ValidationError as error:
                raise ValueError(f"stages: {name}: {error.errors()[0]['msg']}") from error
        return self.model_copy(update={**sections, "stages": ()})

    @property
    def episodes_per_stage(self) -> int:
        """The episodes of a meta-batch at one stage of adaptation."""
        return self.outer.meta_batch * self.inner.episodes_per_task

    @property
    def stage_starts(self) -> list[int]:
        return [0, *(stage.until for stage in self.stages)]

    def episodes_in(self, iterations: int) -> int:
        """The episodes of so many iterations at one stage of adaptation."""
        ends = pairwise([*self.stage_starts, iterations])
        return sum((end - start) * self.at(start).episodes_per_stage for start, end in ends)

    @property
    def iterations_without_stages(self) -> int:
        """The iterations with the final settings that have as many episodes as all stages."""
        return round(self.episodes_in(self.outer.iterations) / self.episodes_per_stage)

    @property
    def evaluation_step_sizes(self) -> tuple[float, ...]:
        """The step sizes of the evaluation's gradient steps."""
        alpha, trained = self.inner.step_size, self.inner.steps
        steps = self.evaluation.steps or max(PAPER_STEPS, trained)
        sizes = (*[alpha] * trained, *[alpha / 2] * steps)[:steps]
        return self.evaluation.step_sizes or sizes
