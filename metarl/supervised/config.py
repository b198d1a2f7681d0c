"""What an experiment in few-shot regression or classification is."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field, SerializeAsAny

from metarl.config.registry import Registry
from metarl.config.sections import (
    Device,
    Experiment,
    InnerSection,
    MethodSection,
    Natural,
    OuterSection,
    Plain,
    Positive,
    PositiveInt,
    Section,
    one_of,
)
from metarl.networks import NETWORKS, Network
from metarl.optim import GRADIENT_OPTIMIZERS, Adam
from metarl.supervised.methods import MEMBERS, METHODS, SETTINGS

if TYPE_CHECKING:
    from metarl.supervised.tasks import Data

DATA_VARIABLE = "METARL_DATA"  # the folder of the images
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
OWN_TASKS = "metarl.supervised.custom_tasks:OwnTasks"
OWN_NETWORK = "metarl.networks.module:ModuleNetwork"  # of a torch.nn.Module


class InnerConfig(InnerSection):
    """Adaptation: gradient steps on the support set of one task.

    `shots` and `queries` count points of a sinusoid, or images of each class. In the first
    `multi_step_iterations` the losses before the last step count as well (MAML++, Antoniou et al.
    2019, section 4).
    """

    step_size: Positive = 0.01
    shots: PositiveInt = 10
    queries: PositiveInt = 10
    multi_step_iterations: Natural = 0


class EvaluationConfig(Section):
    """Adaptation to tasks never trained on; what is not given is as in training."""

    tasks: Annotated[int, Field(ge=2)] = 600
    ways: Annotated[int, Field(ge=2)] | None = None
    shots: PositiveInt | None = None
    queries: PositiveInt | None = None
    steps: PositiveInt = 3
    transductive: bool = True
    seed: Natural = 1


class BaselineConfig(Section):
    """Fine-tuning of what was not meta-trained: its step size is the best on validation tasks.

    The best by the score after so many steps as `chosen_after` says, 0 for the mean over all.
    """

    step_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (
        0.001,
        0.003,
        0.01,
        0.03,
        0.1,
        0.3,
        1.0,
    )
    validation_tasks: PositiveInt = 100
    chosen_after: Natural = 1


def _named(network: Any) -> Any:
    """`name` says the kind of a network as well: that is what it is called elsewhere."""
    if isinstance(network, Mapping) and "name" in network:
        if "kind" in network:
            raise ValueError("name: is what `kind` says already; give one of them")
        return {"kind" if key == "name" else key: value for key, value in network.items()}
    return network


class SupervisedConfig(Experiment):
    """One experiment in supervised meta-learning; from Python as `metarl.Config`.

        SupervisedConfig(data={"name": "sinusoid"}, network={"kind": "mlp"}, seed=2)

    Raises:
        UserError: with one sentence for each mistake.
    """

    method: Annotated[
        SerializeAsAny[MethodSection],
        one_of(METHODS, "name", "maml", MEMBERS, settings=SETTINGS),
    ] = Field(default="maml", validate_default=True)
    data: Annotated[SerializeAsAny[Section], one_of(DATA, "name", "", own=OWN_TASKS)]
    network: Annotated[
        SerializeAsAny[Section],
        one_of(NETWORKS, "kind", "", own=OWN_NETWORK),
        BeforeValidator(_named),
    ]
    inner: InnerConfig = InnerConfig()
    outer: Annotated[
        SerializeAsAny[OuterSection], one_of(GRADIENT_OPTIMIZERS, "algorithm", "adam")
    ] = Adam()
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()
    seed: Natural = 1
    device: Device = "auto"
    checkpoint_every: PositiveInt = 1000
    report_every: PositiveInt = 10

    domain: ClassVar[Literal["supervised"]] = "supervised"

    if TYPE_CHECKING:  # what pydantic takes, which is more than what it keeps

        def __init__(
            self,
            *,
            data: Section | Plain | str | type,
            network: Section | Plain | str | type,
            method: MethodSection | Plain | str | type = ...,
            inner: InnerConfig | Plain = ...,
            outer: OuterSection | Plain | str = ...,
            evaluation: EvaluationConfig | Plain = ...,
            baseline: BaselineConfig | Plain = ...,
            seed: int = ...,
            device: Device = ...,
            checkpoint_every: int = ...,
            report_every: int = ...,
        ) -> None: ...

    def check(self) -> None:
        """Raise ValueError where method, network and inner loop are not for these data."""
        # imported here: with it comes torch, which a config with a mistake does not need
        from metarl.supervised.losses import REGRESSION

        data, network = cast("Data", self.data), cast(Network, self.network)
        if data.kind not in METHODS.load(self.method.name).kinds:
            raise ValueError(f"method: {self.method.name} is not for {data.kind.name}")
        if data.kind is REGRESSION and network.for_images:
            raise ValueError(
                f"network.{network.for_images}: is for images, not for {data.kind.name}; take an "
                "mlp, without norm"
            )
        if self.inner.multi_step_iterations and self.inner.steps == 1:
            raise ValueError("inner.multi_step_iterations: needs inner.steps above 1")
