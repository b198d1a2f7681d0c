"""Predictions for the queries of an episode, transductive or inductive.

Batch normalisation uses the statistics of the batch. In a transductive evaluation the queries of a
task are one batch (Finn et al. 2017). In an inductive one each query is predicted separately, so
that the prediction for a query does not depend on the other queries (Nichol et al. 2018, section
6.1).
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from metarl.networks import Network
from metarl.params import Params
from metarl.supervised.tasks import Examples

Mode = Literal["transductive", "inductive"]


def predict(
    network: Network, params: Params, support: Examples, inputs: Tensor, mode: Mode
) -> Tensor:
    """The outputs of an adapted network, (N, M, O).

    An inductive prediction evaluates each query in one batch with the support set, from which the
    statistics of batch normalisation then come.

    Args:
        network: the network.
        params: its parameters, stacked over N tasks.
        support: the support sets.
        inputs: the queries, (N, M, ...).
        mode: whether queries are predicted together.
    """
    if mode == "transductive":
        return network(params, inputs)

    def predict_one(query: Tensor) -> Tensor:
        # K + 1 examples of a task in one batch, of which the query is the last
        return network(params, torch.cat([support[0], query], dim=1))[:, -1:]

    return map_queries(predict_one, inputs, mode)


def map_queries(function: Callable[[Tensor], Tensor], inputs: Tensor, mode: Mode) -> Tensor:
    """Apply a function of queries (N, M, ...) to all of them together, or to one at a time."""
    if mode == "transductive":
        return function(inputs)
    return torch.cat([function(query) for query in torch.split(inputs, 1, dim=1)], dim=1)


def __getattr__(name: str) -> Any:
    # functions of version 0.1, which custom methods may import
    if name not in ("predict_with", "queries_of"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    current = {"predict_with": "predict", "queries_of": "map_queries"}[name]
    warnings.warn(f"{name} is deprecated: use {current}", DeprecationWarning, stacklevel=2)

    def mode(transductive: bool) -> Mode:
        return "transductive" if transductive else "inductive"

    def queries_of(function: Callable[..., Tensor], transductive: bool) -> Callable[..., Tensor]:
        return lambda network, params, support, inputs: map_queries(
            partial(function, network, params, support), inputs, mode(transductive)
        )

    return {
        "predict_with": lambda transductive: partial(predict, mode=mode(transductive)),
        "queries_of": queries_of,
    }[name]
