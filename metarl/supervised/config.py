"""The config of an experiment in few-shot regression or classification."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field, SerializeAsAny, WrapValidator

from metarl.config.registry import Registry
from metarl.config.sections import (
    INNER_STEP,
    NO_STEPS,
    ConfigMapping,
    Device,
    Discriminated,
    EarlyStopping,
    Experiment,
    InitialWeights,
    InnerSection,
    MethodSection,
    NonNegativeInt,
    OuterSection,
    PositiveFloat,
    PositiveInt,
    Precision,
    Section,
    check_selection_step,
    text_or,
    true_or,
)
from metarl.errors import UserError
from metarl.networks import NETWORKS, Network
from metarl.optim import GRADIENT_OPTIMIZERS, Adam
from metarl.supervised.losses import REGRESSION, loss_function
from metarl.supervised.methods import MEMBERS, METHODS
from metarl.supervised.tasks import Data

DATA = Registry(
    "data set",
    {
        "sinusoid": "metarl.supervised.sinusoid:Sinusoid",
        "omniglot": "metarl.supervised.data:Omniglot",
        "miniimagenet": "metarl.supervised.data:MiniImagenet",
        "folder": "metarl.supervised.data:Folder",
        "dataset": "metarl.supervised.data:Dataset",
    },
)
METHOD = Discriminated(METHODS, "name", "maml", MEMBERS)
TASKS = Discriminated(DATA, "name", fallback="metarl.supervised.custom_tasks:CustomTasks")
NETWORK = Discriminated(NETWORKS, "kind", fallback="metarl.networks.module:ModuleNetwork")
OUTER = Discriminated(GRADIENT_OPTIMIZERS, "algorithm", "adam", base="metarl.optim.GradientSection")
# the settings without effect on a method that takes no gradient steps on a task
NO_INNER_STEPS = dict.fromkeys(
    (*INNER_STEP, "inner.multi_step_iterations", "evaluation.steps"), NO_STEPS
)


class InnerConfig(InnerSection):
    """The inner loop: gradient steps on the support set of one task.

    `shots` and `queries` are numbers of points of a sinusoid, or of images per class. In the first
    `multi_step_iterations` iterations, the losses after every step enter the outer loss (MAML++,
    Antoniou et al. 2019, section 4).
    """

    step_size: PositiveFloat = 0.01
    shots: PositiveInt = 10
    queries: PositiveInt = 10
    multi_step_iterations: NonNegativeInt = 0


MIN_EVALUATION_STEPS = 3


class EvaluationConfig(Section):
    """The evaluation: adaptation to `tasks` held-out tasks, which `seed` determines.

    A task has `ways` classes, with `shots` examples and `queries` queries of each class; null
    stands for the value in training. There are `steps` gradient steps: by default three, or as many
    as in training if that is more. With `transductive: false`, each query is predicted alone, so
    that batch normalisation does not use the other queries.
    """

    tasks: Annotated[int, Field(ge=2)] = 600
    ways: Annotated[int, Field(ge=2)] | None = None
    shots: PositiveInt | None = None
    queries: PositiveInt | None = None
    steps: PositiveInt | None = None
    transductive: bool = True
    seed: NonNegativeInt = 1


class BaselineConfig(Section):
    """Fine-tuning of baselines.

    The step size is the one among `step_sizes` with the best score on `validation_tasks` tasks
    after `selection_step` steps, or with the best mean over all steps if that is 0.
    """

    step_sizes: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (
        0.001,
        0.003,
        0.01,
        0.03,
        0.1,
        0.3,
        1.0,
    )
    validation_tasks: PositiveInt = 100
    selection_step: NonNegativeInt = 1


def _name_to_kind(network: Any) -> Any:
    """Accept `name`, as in other sections, for `kind`."""
    if isinstance(network, Mapping) and "name" in network:
        if "kind" in network:
            raise ValueError("name: is an alias of `kind`; set only one of them")
        return {"kind" if key == "name" else key: value for key, value in network.items()}
    return network


class SupervisedConfig(Experiment):
    """The settings of an experiment in few-shot regression or classification.

    Sections are mappings or objects, as in `metarl.Config`. `data` and `network` are required:

        SupervisedConfig(data={"name": "sinusoid"}, network={"kind": "mlp"}, seed=2)

    - `method`: the algorithm, such as "maml" or "prototypical".
    - `data`: the distribution of tasks: "sinusoid", "omniglot", "miniimagenet", "folder", a
      `metarl.Dataset`, or your own class.
    - `network`: `kind` "mlp" or "conv4", or your own `torch.nn.Module`.
    - `inner`: adaptation to a task, `metarl.supervised.config.InnerConfig`.
    - `outer`: meta-training, `metarl.optim.Adam`.
    - `evaluation`: adaptation to held-out tasks, `metarl.supervised.config.EvaluationConfig`.
    - `baseline`: fine-tuned baselines, `metarl.supervised.config.BaselineConfig`.
    - `seed`: the seed of all random numbers.
    - `device`: "cpu", "cuda" (experimental), or "auto", which is CUDA if it is available.
    - `checkpoint_every`: the number of iterations between checkpoints.
    - `report_every`: the number of iterations between metrics.
    - `init_from`: a run from whose weights training starts.
    - `precision`: "float32", or "bf16" for matrix products and convolutions in bfloat16.
    - `early_stopping`: true, or settings (`metarl.config.sections.EarlyStopping`), to end training
      when validation scores no longer improve.

    Raises:
        UserError: with one line for each invalid setting.
    """

    method: Annotated[SerializeAsAny[MethodSection], WrapValidator(METHOD.validate)] = Field(
        default="maml", validate_default=True
    )
    data: Annotated[SerializeAsAny[Section], WrapValidator(TASKS.validate)]
    network: Annotated[
        SerializeAsAny[Section], WrapValidator(NETWORK.validate), BeforeValidator(_name_to_kind)
    ]
    inner: InnerConfig = InnerConfig()
    outer: Annotated[SerializeAsAny[OuterSection], WrapValidator(OUTER.validate)] = Adam()
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()
    seed: NonNegativeInt = 1
    device: Device = "cpu"
    checkpoint_every: PositiveInt = 1000
    report_every: PositiveInt = 10
    init_from: Annotated[InitialWeights | None, text_or(InitialWeights | None, "run")] = None
    precision: Precision = "float32"
    early_stopping: Annotated[EarlyStopping | None, true_or(EarlyStopping)] = None

    domain: ClassVar[Literal["supervised"]] = "supervised"
    methods: ClassVar[Registry] = METHODS

    if TYPE_CHECKING:  # the arguments before validation

        def __init__(
            self,
            *,
            data: Section | ConfigMapping | str | type,
            network: Section | ConfigMapping | str | type,
            method: MethodSection | ConfigMapping | str | type = ...,
            inner: InnerConfig | ConfigMapping = ...,
            outer: OuterSection | ConfigMapping | str | type = ...,
            evaluation: EvaluationConfig | ConfigMapping = ...,
            baseline: BaselineConfig | ConfigMapping = ...,
            seed: int = ...,
            device: Device = ...,
            checkpoint_every: int = ...,
            report_every: int = ...,
            init_from: InitialWeights | ConfigMapping | str | Path | None = ...,
            precision: Precision = ...,
            early_stopping: EarlyStopping | ConfigMapping | bool | None = ...,
        ) -> None: ...

    def check(self) -> None:
        """Check that method, network and inner loop support these data."""
        data, network = cast(Data, self.data), cast(Network, self.network)
        if data.kind not in METHODS.load(self.method.name).kinds:
            raise ValueError(f"method: {self.method.name} does not support {data.kind.name}")
        try:
            loss_function(data.kind, self.method)
        except UserError as error:
            raise ValueError(str(error)) from error
        if data.kind is REGRESSION and network.for_images:
            raise ValueError(
                f"network.{network.for_images}: is for images, not for {data.kind.name}; use an "
                "mlp without norm"
            )
        if self.inner.multi_step_iterations and self.inner.steps == 1:
            raise ValueError("inner.multi_step_iterations: needs inner.steps above 1")
        check_selection_step(self, self.baseline.selection_step, self.evaluation_steps)

    @property
    def evaluation_steps(self) -> int:
        """The number of gradient steps of the evaluation."""
        return self.evaluation.steps or max(MIN_EVALUATION_STEPS, self.inner.steps)
