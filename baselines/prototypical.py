"""Prototypical networks (Snell et al. 2017): the nearest class mean in embedding space."""

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from metarl.baselines.embedding import EmbeddingMethod, EmbeddingSettings, squared_distances
from metarl.config.sections import MethodSection
from metarl.params import Params
from metarl.supervised.losses import LossSettings


class PrototypicalSettings(EmbeddingSettings, LossSettings):
    """The settings of all metric-based methods."""

    name: Literal["prototypical"] = "prototypical"


class Prototypical(EmbeddingMethod):
    """Learns embeddings for classification by the nearest class mean."""

    label: ClassVar[str] = "prototypical networks"
    Settings: ClassVar[type[MethodSection]] = PrototypicalSettings

    def compare(self, params: Params, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        return nearest_prototype(support, labels, queries)


def nearest_prototype(support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """The negative squared distance to each class's mean embedding (equations 1 and 2).

    The arguments and the logits are those of `EmbeddingMethod.compare`.
    """
    # cₖ = Σ z / |Sₖ| over the examples of class k (equation 1); the softmax of −d(z, cₖ) is the
    # class probability (equation 2)
    members = F.one_hot(labels).to(support.dtype)  # (N, K, ways)
    prototypes = (members.mT @ support) / members.sum(1).unsqueeze(-1)  # (N, ways, F)
    return -squared_distances(queries, prototypes)
