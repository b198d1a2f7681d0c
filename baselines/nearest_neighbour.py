"""Nearest-neighbour classification in the feature space of a pretrained network."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.baselines.embedding import embed, reduce_classes
from metarl.baselines.pretrained_network import Pretrained, without_steps
from metarl.method import AdaptationUnit
from metarl.networks import Network
from metarl.params import Params, repeat
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.losses import CLASSIFICATION, TaskType
from metarl.supervised.prediction import map_queries
from metarl.supervised.tasks import Examples


class NearestNeighbour(Pretrained):
    """Predicts the class of the most similar support image, without fine-tuning."""

    label: ClassVar[str] = "nearest neighbour"
    adaptation_unit: ClassVar[AdaptationUnit | None] = None
    kinds: ClassVar[tuple[TaskType, ...]] = (CLASSIFICATION,)
    supports_other_ways: ClassVar[bool] = True
    needs_validation: ClassVar[bool] = False

    @classmethod
    def unused_settings(cls, config: SupervisedConfig) -> dict[str, str]:
        return without_steps()

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        stacked = repeat(params, len(inputs))
        predict = partial(nearest_neighbour, self.problem.network, stacked, support)
        yield map_queries(predict, inputs, self.problem.prediction_mode)


def nearest_neighbour(
    network: Network, params: Params, support: Examples, inputs: Tensor
) -> Tensor:
    """The cosine similarity to the most similar support example of each class.

    Ravi and Larochelle (2017), section 4.1.

    Args:
        network: a classifier of all training classes, whose features are compared.
        params: its parameters, stacked over tasks.
        support: of N tasks, inputs (N, K, ...) and labels (N, K).
        inputs: (N, M, ...).

    Returns:
        Logits (N, M, ways).
    """
    x, labels = support
    embeddings, query_embeddings = embed(network, params, x, inputs)
    # cosine similarities (N, M, K)
    similarities = F.normalize(query_embeddings, dim=-1) @ F.normalize(embeddings, dim=-1).mT
    return reduce_classes(torch.amax, similarities, labels)
