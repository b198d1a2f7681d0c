"""The methods of supervised learning: where each is, and what it alone can be told.

The settings stand here and not with their methods, which import torch: a mistake in a config should
not wait a second for it.
"""

from typing import Annotated, Literal

from pydantic import Field

from metarl.registry import Registry
from metarl.settings import METHOD_MEMBERS, MethodSection

MEMBERS = (*METHOD_MEMBERS, "kinds")  # what a method of one's own must have
METHODS = Registry(
    "method of supervised learning",
    {
        "maml": "metarl.supervised.maml:MAML",
        "prototypical": "metarl.baselines.prototypical:Prototypical",
        "pretrained": "metarl.baselines.pretrained_network:Pretrained",
        "random": "metarl.baselines.pretrained_network:Random",
        "oracle": "metarl.baselines.pretrained_network:Oracle",
        "nearest_neighbour": "metarl.baselines.nearest_neighbour:NearestNeighbour",
    },
)


class PrototypicalSettings(MethodSection):
    """`ways` classes an episode in training: more than at the test make better embeddings."""

    name: Literal["prototypical"] = "prototypical"
    ways: Annotated[int, Field(ge=2)] = 60


# whose name is not here has no settings but those of the whole experiment
SETTINGS: dict[str, type[MethodSection]] = {"prototypical": PrototypicalSettings}
