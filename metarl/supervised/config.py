"""What an experiment in few-shot regression or classification is."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metarl.compute import Device
from metarl.settings import (
    Natural,
    OuterSection,
    Positive,
    PositiveInt,
    Section,
    Widths,
)

Learned = Literal["none", "meta_sgd", "lslr"]


class SinusoidConfig(Section):
    """Sine waves of random amplitude and phase."""

    name: Literal["sinusoid"]


class ImagesConfig(Section):
    """Classes of images: which, and how many to tell apart.

    The seed draws which classes of Omniglot are for training, validation and test; MiniImagenet's
    split is published.
    """

    name: Literal["omniglot", "miniimagenet"]
    ways: Annotated[int, Field(ge=2)] = 5
    split_seed: Natural = 0


class MLPConfig(Section):
    """A multilayer perceptron, with batch normalisation or without."""

    kind: Literal["mlp"]
    hidden_sizes: Widths = (40, 40)
    norm: bool = False


class Conv4Config(Section):
    """Four convolutional blocks, which halve the picture by pooling or by a stride."""

    kind: Literal["conv4"]
    filters: PositiveInt = 64
    pool: bool = False


class InnerConfig(Section):
    """Adaptation: gradient steps on the support set of one task.

    `shots` and `queries` count points of a sine, or images of each class.
    """

    step_size: Positive = 0.01
    steps: PositiveInt = 1
    shots: PositiveInt = 10
    queries: PositiveInt = 10
    first_order: bool = False
    adapt: Literal["all", "head"] = "all"
    learned_step_sizes: Learned = "none"
    multi_step_iterations: Natural = 0


class AdamConfig(OuterSection):
    """Meta-training by Adam."""

    algorithm: Literal["adam"] = "adam"
    learning_rate: Positive = 1e-3
    clip: Positive | None = None


class EvaluationConfig(Section):
    """Adaptation to tasks never trained on; what is not given is as in training."""

    tasks: Annotated[int, Field(ge=2)] = 600
    shots: PositiveInt | None = None
    queries: PositiveInt | None = None
    steps: PositiveInt = 3
    transductive: bool = True
    seed: Natural = 1


class BaselineConfig(Section):
    """Fine-tuning of what was not meta-trained: its step size is the best on validation tasks."""

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


class SupervisedConfig(Section):
    """One experiment in supervised meta-learning."""

    method: Literal["maml", "pretrained", "random", "oracle", "nearest_neighbour"] = "maml"
    data: Annotated[SinusoidConfig | ImagesConfig, Field(discriminator="name")]
    network: Annotated[MLPConfig | Conv4Config, Field(discriminator="kind")]
    inner: InnerConfig = InnerConfig()
    outer: AdamConfig = AdamConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()
    seed: Natural = 1
    device: Device = "auto"
    checkpoint_every: PositiveInt = 1000
    report_every: PositiveInt = 10

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.data, SinusoidConfig):
            if isinstance(self.network, Conv4Config):
                raise ValueError("network.kind: a sine wave needs an mlp, conv4 is for images")
            elif self.network.norm:
                raise ValueError("network.norm: is for images, a sine wave is learned without")
            if self.method == "nearest_neighbour":
                raise ValueError("method: nearest_neighbour classifies images, not sine waves")
        elif self.method == "oracle":
            raise ValueError("method: there is an oracle for sinusoid alone")
        if self.inner.multi_step_iterations and self.inner.steps == 1:
            raise ValueError("inner.multi_step_iterations: needs inner.steps above 1")
        return self

    @property
    def anneals(self) -> bool:
        """Whether every iteration depends on how many there will be."""
        return self.outer.anneal

    @property
    def updates(self) -> int:
        """How many updates training takes."""
        return 0 if self.method == "random" else self.outer.iterations
