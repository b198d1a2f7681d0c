"""Classification by the nearest neighbour, in the feature space of a pretrained network."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.baselines.embedding import embedded, over_classes
from metarl.baselines.pretrained_network import Pretrained
from metarl.evaluation import AdaptationCurve
from metarl.method import AdaptationUnit
from metarl.networks import Network
from metarl.parallel import one_thread
from metarl.params import Params, repeat
from metarl.supervised.losses import CLASSIFICATION, Kind
from metarl.supervised.prediction import queries_of
from metarl.supervised.tasks import Examples


class NearestNeighbour(Pretrained):
    """The class of the most similar support image. Nothing is fine-tuned."""

    label: ClassVar[str] = "nearest neighbour"
    adaptation_unit: ClassVar[AdaptationUnit | None] = None
    kinds: ClassVar[tuple[Kind, ...]] = (CLASSIFICATION,)
    any_ways: ClassVar[bool] = True
    validates: ClassVar[bool] = False

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """Similarities, of a single stage."""
        predict = queries_of(nearest_neighbour, self.problem.config.evaluation.transductive)
        yield predict(self.problem.network, repeat(params, len(inputs)), support, inputs)

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """The accuracy, of a single stage."""
        return self.curve("test", self.problem.config.evaluation.tasks, params, ())


def nearest_neighbour(
    network: Network, params: Params, support: Examples, inputs: Tensor
) -> Tensor:
    """Of each class, the cosine similarity of the support example that is most similar.

    Ravi and Larochelle (2017), section 4.1. Nothing is learned from the support set.

    Args:
        network: one that was trained to tell many classes apart.
        params: its parameters, stacked over tasks.
        support: of N tasks, inputs (N, K, ...) and labels (N, K).
        inputs: (N, M, ...).

    Returns:
        (N, M, ways).
    """
    known, labels = support
    ours, theirs = embedded(network, params, known, inputs)
    similarities = F.normalize(theirs, dim=-1) @ F.normalize(ours, dim=-1).mT  # (N, M, K)
    return over_classes(torch.amax, similarities, labels)
