"""Siamese networks (Koch, Zemel and Salakhutdinov 2015): verification of pairs of images."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.baselines.embedding import (
    EmbeddingMethod,
    EmbeddingSettings,
    embed,
    embedding_size,
    reduce_classes,
)
from metarl.config.sections import MethodSection
from metarl.params import Params, repeat, with_added
from metarl.supervised.tasks import Episodes

WEIGHT, BIAS = "pair.weight", "pair.bias"
# about the distance of embeddings of a new network: pairs initially have a probability of one half
INITIAL_BIAS = 4.0


class SiameseSettings(EmbeddingSettings):
    """The settings of all metric-based methods."""

    name: Literal["siamese"] = "siamese"


class Siamese(EmbeddingMethod):
    """Learns whether two images have the same class; predicts the class of the best match."""

    label: ClassVar[str] = "Siamese networks"
    Settings: ClassVar[type[MethodSection]] = SiameseSettings

    def init(self, generator: torch.Generator) -> Params:
        params = super().init(generator)
        features = embedding_size(self.problem.network, params, self.problem.tasks("train").shape)
        # −1: the logit of a pair decreases with every difference
        pair = {WEIGHT: torch.full((features,), -1.0), BIAS: torch.tensor(INITIAL_BIAS)}
        return with_added(params, pair)

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """Cross-entropy of all pairs of a support image and a query (section 3.2)."""
        (x, labels), (inputs, targets) = episodes.support, episodes.query
        stacked = repeat(params, len(inputs))
        logits = pair_logits(params, *embed(self.problem.network, stacked, x, inputs))
        same = targets.unsqueeze(-1) == labels.unsqueeze(1)
        return verification_loss(logits, same), reduce_classes(torch.amax, logits, labels)

    def compare(self, params: Params, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """The logit of the best pair of each class (section 4.3, one shot)."""
        return reduce_classes(torch.amax, pair_logits(params, support, queries), labels)


def pair_logits(params: Params, support: Tensor, queries: Tensor) -> Tensor:
    """Logits that two images have the same class: a weighted L1 distance (section 3.1).

    Args:
        params: with `pair.weight` (F,) and `pair.bias` ().
        support: embeddings of N tasks, (N, K, F).
        queries: embeddings, (N, M, F).

    Returns:
        Logits (N, M, K).
    """
    # every query with every support example: (N, M, K, F)
    differences = (queries.unsqueeze(2) - support.unsqueeze(1)).abs()
    # p = σ(Σ_j α_j |h₁_j − h₂_j| + b); the sigmoid is in the loss
    return differences @ params[WEIGHT] + params[BIAS]


def verification_loss(logits: Tensor, same: Tensor) -> Tensor:
    """Σ over tasks of the binary cross-entropy; matching pairs have half of the weight.

    Koch et al. sample as many matching pairs as others. All pairs are used here, with weights that
    give the expectation over such samples.

    Args:
        logits: (N, M, K).
        same: whether both images have the same class, (N, M, K).
    """
    # each kind of pair has a total weight of one half in each task, whatever its number of pairs
    target = same.to(logits.dtype)
    weight = 0.5 * (target / target.sum((1, 2), keepdim=True))
    weight += 0.5 * ((1.0 - target) / (1.0 - target).sum((1, 2), keepdim=True))
    return F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
