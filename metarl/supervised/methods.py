"""The methods of supervised learning: where each is, and what it alone can be told.

The settings stand here and not with their methods, which import torch: a mistake in a config should
not wait a second for it.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metarl.config.registry import Registry
from metarl.config.sections import (
    METHOD_MEMBERS,
    Fraction,
    MethodSection,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

MEMBERS = (*METHOD_MEMBERS, "kinds")  # what a method of one's own must have
METHODS = Registry(
    "method of supervised learning",
    {
        "maml": "metarl.supervised.maml:MAML",
        "reptile": "metarl.supervised.reptile:Reptile",
        "cavia": "metarl.supervised.cavia:CAVIA",
        "meta_lstm": "metarl.baselines.meta_lstm:MetaLSTM",
        "prototypical": "metarl.baselines.prototypical:Prototypical",
        "matching": "metarl.baselines.matching:Matching",
        "siamese": "metarl.baselines.siamese:Siamese",
        "mann": "metarl.baselines.mann:MANN",
        "pretrained": "metarl.baselines.pretrained_network:Pretrained",
        "random": "metarl.baselines.pretrained_network:Random",
        "oracle": "metarl.baselines.pretrained_network:Oracle",
        "nearest_neighbour": "metarl.baselines.nearest_neighbour:NearestNeighbour",
    },
)


class ReptileSettings(MethodSection):
    """`batch` examples an inner step of training; all of the support set where null.

    The paper's outer step is `outer: {algorithm: sgd, learning_rate: 1.0, anneal: true}`, which
    moves θ to the mean at first, and by less and less. An evaluation adapts to the whole support
    set in every step.
    """

    name: Literal["reptile"] = "reptile"
    batch: Annotated[int, Field(ge=1)] | None = None


class EmbeddingSettings(MethodSection):
    """`ways` classes an episode in training: more than at the test make better embeddings."""

    ways: Annotated[int, Field(ge=2)] = 60


class PrototypicalSettings(EmbeddingSettings):
    """As every method of embeddings has them."""

    name: Literal["prototypical"] = "prototypical"


class MatchingSettings(EmbeddingSettings):
    """`distance` of embeddings: others reproduce the paper's figures with the squared Euclidean.

    With `context_steps` above 0, each embedding sees the whole support set (full context
    embeddings, section 2.1.2): the support by a bidirectional LSTM, a query by so many steps of an
    LSTM with attention. They are best trained with as many `ways` as at the test.
    """

    name: Literal["matching"] = "matching"
    distance: Literal["euclidean", "cosine"] = "euclidean"
    context_steps: NonNegativeInt = 0


class SiameseSettings(EmbeddingSettings):
    """As every method of embeddings has them."""

    name: Literal["siamese"] = "siamese"


class MANNSettings(MethodSection):
    """A controller of `hidden` units, with `reads` heads on a memory of `slots` times `width`.

    `size` is the side of the square that images are shrunk to. The usage of a slot decays by
    `decay` a step. `strength` multiplies the cosines by which a head finds slots (the key strength
    of Graves et al. 2014); the paper has none, and a softmax of cosines reads all slots nearly
    alike: with more the network begins to remember after fewer iterations.
    """

    name: Literal["mann"] = "mann"
    size: PositiveInt = 20
    hidden: PositiveInt = 200
    slots: PositiveInt = 128
    width: PositiveInt = 40
    reads: PositiveInt = 4
    decay: Fraction = 0.95
    strength: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.reads > self.slots:
            raise ValueError(
                f"reads: {self.reads} heads write to {self.reads} slots at once, of which there "
                f"are {self.slots}; lower reads, or raise slots"
            )
        return self


class MetaLSTMSettings(MethodSection):
    """`hidden_size` of the LSTM that sees gradients and losses.

    The paper's outer step is `outer: {learning_rate: 1e-3, clip: 0.25, meta_batch: 1}`, its number
    of steps `inner: {steps: 12}` of one shot and 5 of five.
    """

    name: Literal["meta_lstm"] = "meta_lstm"
    hidden_size: PositiveInt = 20
