"""Classification by the nearest neighbour, in the feature space of a pretrained network."""

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.params import Params
from metarl.supervised.models import Model
from metarl.supervised.tasks import Examples


def nearest_neighbour(model: Model, params: Params, support: Examples, inputs: Tensor) -> Tensor:
    """Of each class, the cosine similarity of the support example that is most similar.

    Ravi and Larochelle (2017), section 4.1. Nothing is learned from the support set.

    Args:
        model: a network that was trained to tell many classes apart.
        params: its parameters, stacked over tasks.
        support: of N tasks, inputs (N, K, ...) and labels (N, K).
        inputs: (N, M, ...).

    Returns:
        (N, M, ways).
    """
    known, labels = support
    # in one batch, so that both are normalised alike
    features = F.normalize(model.features(params, torch.cat([known, inputs], dim=1)), dim=-1)
    ours, theirs = features[:, : known.shape[1]], features[:, known.shape[1] :]
    similarity = theirs @ ours.mT  # (N, M, K)
    members = F.one_hot(labels).bool().mT  # (N, ways, K)
    return torch.stack(
        [
            similarity.masked_fill(~of_class.unsqueeze(1), -torch.inf).amax(-1)
            for of_class in members.unbind(1)
        ],
        dim=-1,
    )
