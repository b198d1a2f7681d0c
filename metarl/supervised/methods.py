"""The methods of supervised learning."""

from metarl.config.registry import Registry
from metarl.config.sections import METHOD_MEMBERS

MEMBERS = (*METHOD_MEMBERS, "kinds")  # of a custom method
METHODS = Registry(
    "method of supervised learning",
    {
        "maml": "metarl.supervised.maml:MAML",
        "reptile": "metarl.supervised.reptile:Reptile",
        "cavia": "metarl.supervised.cavia:CAVIA",
        "meta_lstm": "metarl.baselines.meta_lstm:MetaLSTM",
        "learned_optimizer": "metarl.baselines.learned_optimizer:LearnedOptimizer",
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
