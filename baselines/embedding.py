"""Metric-based methods: classification by the similarity of embeddings, without fine-tuning.

The embedding of an example is the input of the network's last layer, which itself is not used.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from metarl.config.sections import MethodSection
from metarl.method import AdaptationUnit, Role
from metarl.networks import Network
from metarl.params import Params, repeat
from metarl.supervised.config import NO_INNER_STEPS, SupervisedConfig
from metarl.supervised.losses import CLASSIFICATION, TaskType
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.prediction import map_queries
from metarl.supervised.tasks import Episodes, Examples


class EmbeddingSettings(MethodSection):
    """`ways` is the number of classes of a training task; many classes improve the embeddings."""

    ways: Annotated[int, Field(ge=2)] = 60


class EmbeddingMethod(SupervisedMethod):
    """Learns embeddings in which examples of a class are similar. Subclasses define `compare`."""

    role: ClassVar[Role] = "meta-learner"
    adaptation_unit: ClassVar[AdaptationUnit | None] = None
    kinds: ClassVar[tuple[TaskType, ...]] = (CLASSIFICATION,)
    supports_other_ways: ClassVar[bool] = True
    supports_distributed: ClassVar[bool] = True

    @classmethod
    def unused_settings(cls, config: SupervisedConfig) -> dict[str, str]:
        return NO_INNER_STEPS | {"baseline.": "which is not a baseline"}

    @property
    def ways(self) -> int | None:
        """The number of classes of a training task, which may exceed that of test tasks."""
        return int(self.settings.ways)

    def init(self, generator: torch.Generator) -> Params:
        return self.problem.init_network(generator)

    def compare(self, params: Params, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Logits from embeddings.

        Args:
            params: the meta-parameters, not stacked.
            support: embeddings of N tasks, (N, K, F).
            labels: of the support set, (N, K).
            queries: embeddings, (N, M, F).

        Returns:
            (N, M, ways).
        """
        raise NotImplementedError

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        inputs, targets = episodes.query
        outputs = self.predict(self.problem.network, params, episodes.support, inputs)
        return self.problem.loss(outputs, targets), outputs

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        predict = partial(self.predict, self.problem.network, params, support)
        yield map_queries(predict, inputs, self.problem.prediction_mode)

    def predict(
        self, network: Network, params: Params, support: Examples, inputs: Tensor
    ) -> Tensor:
        """Logits (N, M, ways) for inputs (N, M, ...); the parameters are not stacked."""
        # nothing adapts to a task, so all tasks share the parameters
        x, labels = support
        embeddings, query_embeddings = embed(network, repeat(params, len(inputs)), x, inputs)
        return self.compare(params, embeddings, labels, query_embeddings)


def embed(
    network: Network, params: Mapping[str, Tensor], support: Tensor, queries: Tensor
) -> tuple[Tensor, Tensor]:
    """Embeddings of the support set and of the queries, (N, K, F) and (N, M, F).

    Args:
        network: its features are the embeddings.
        params: its parameters, stacked over tasks.
        support: inputs of N tasks, (N, K, ...).
        queries: inputs, (N, M, ...).
    """
    # one batch, so that batch normalisation has the same statistics for both
    features = network.features(params, torch.cat([support, queries], dim=1))
    return features[:, : support.shape[1]], features[:, support.shape[1] :]


def embedding_size(network: Network, params: Params, shape: tuple[int, ...]) -> int:
    """F, the size of an embedding of an input of this shape."""
    # two examples, since the statistics of a batch of one are degenerate
    with torch.no_grad():
        return network.features(repeat(params, 1), torch.zeros(1, 2, *shape)).shape[-1]


def squared_distances(queries: Tensor, support: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M, K) of embeddings (N, M, F) to embeddings (N, K, F)."""
    # the default mode uses a matrix product, which is inaccurate for small distances
    return torch.cdist(queries, support, compute_mode="donot_use_mm_for_euclid_dist").square()


def reduce_classes(reduce: Callable[..., Tensor], similarities: Tensor, labels: Tensor) -> Tensor:
    """Reduce similarities to support examples to one number per class, (N, M, ways).

    Args:
        reduce: a reduction such as `torch.amax`. Examples of other classes are −∞ in its input.
        similarities: of queries to support examples, (N, M, K).
        labels: of the support set, (N, K).
    """
    members = F.one_hot(labels).bool().mT  # (N, ways, K)
    # one class at a time: (N, M, ways, K) would be a large tensor
    return torch.stack(
        [
            reduce(similarities.masked_fill(~mask.unsqueeze(1), -torch.inf), -1)
            for mask in members.unbind(1)
        ],
        dim=-1,
    )
