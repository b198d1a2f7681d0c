"""Siamese networks (Koch, Zemel and Salakhutdinov 2015): are two images of one class?"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.baselines.embedding import (
    EmbeddingMethod,
    embedded,
    over_classes,
    width,
)
from metarl.config.sections import MethodSection
from metarl.params import Params, repeat
from metarl.supervised.methods import SiameseSettings
from metarl.supervised.tasks import Episodes

WEIGHT, BIAS = "pair.weight", "pair.bias"
START = 4.0  # about how far apart fresh embeddings are: pairs are undecided at first


class Siamese(EmbeddingMethod):
    """Learns to verify pairs; a query has the class of the support image it most likely matches."""

    label: ClassVar[str] = "Siamese networks"
    Settings: ClassVar[type[MethodSection]] = SiameseSettings

    def init(self, generator: torch.Generator) -> Params:
        """A fresh network, and a pair's weights, by which any difference speaks against it."""
        params = super().init(generator)
        features = width(self.problem.network, params, self.problem.tasks("train").shape)
        pair = {WEIGHT: torch.full((features,), -1.0), BIAS: torch.tensor(START)}
        return params | pair

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """Cross-entropy of all pairs of a support image and a query (section 3.2)."""
        (known, labels), (inputs, targets) = episodes.support, episodes.query
        network = self.problem.network
        ours, theirs = embedded(network, repeat(params, len(inputs)), known, inputs)
        logits = pair_logits(params, ours, theirs)
        same = targets.unsqueeze(-1) == labels.unsqueeze(1)
        return verification_loss(logits, same), over_classes(torch.amax, logits, labels)

    def compare(self, params: Params, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Of each class the likeliest pair: for one shot as in section 4.3, for more the same."""
        return over_classes(torch.amax, pair_logits(params, support, queries), labels)


def pair_logits(params: Params, support: Tensor, queries: Tensor) -> Tensor:
    """How much speaks for one class: a weighted L1 distance of embeddings (section 3.1).

    Args:
        params: with `pair.weight` (F,) and `pair.bias` ().
        support: embeddings of N tasks, (N, K, F).
        queries: the same, (N, M, F).

    Returns:
        Logits (N, M, K) of the probability that both are of one class.
    """
    differences = (queries.unsqueeze(2) - support.unsqueeze(1)).abs()
    return differences @ params[WEIGHT] + params[BIAS]


def verification_loss(logits: Tensor, same: Tensor) -> Tensor:
    """Σ over tasks of the binary cross-entropy, of which half is for pairs of one class.

    Koch et al. draw as many pairs of one class as of two. Here every pair counts, and both kinds
    weigh the same: the mean over such draws.

    Args:
        logits: (N, M, K).
        same: whether a pair is of one class, (N, M, K).
    """
    of_one = same.to(logits.dtype)
    weight = 0.5 * (of_one / of_one.sum((1, 2), keepdim=True))
    weight += 0.5 * ((1.0 - of_one) / (1.0 - of_one).sum((1, 2), keepdim=True))
    return F.binary_cross_entropy_with_logits(logits, of_one, weight, reduction="sum")
