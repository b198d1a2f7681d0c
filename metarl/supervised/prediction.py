"""How an adapted network predicts: what its batch normalisation may see at the test."""

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.networks import Network
from metarl.params import Params
from metarl.supervised.tasks import Examples

# network, parameters of N tasks, their support sets, inputs (N, M, ...) -> outputs (N, M, O)
Predict = Callable[[Network, Params, Examples, Tensor], Tensor]


def transductive(network: Network, params: Params, support: Examples, inputs: Tensor) -> Tensor:
    """All queries of a task in one batch, as in Finn et al. (2017)."""
    return network(params, inputs)


def beside_support(network: Network, params: Params, support: Examples, inputs: Tensor) -> Tensor:
    """Queries in one batch with the support set."""
    known = support[0]
    return network(params, torch.cat([known, inputs], dim=1))[:, known.shape[1] :]


def inductive(predict: Predict) -> Predict:
    """The same for one query at a time, so that none tells anything about another.

    Nichol et al. (2018), section 6.1: with `beside_support` the statistics are those of the support
    set and of the one query.
    """

    def alone(network: Network, params: Params, support: Examples, inputs: Tensor) -> Tensor:
        outputs = [predict(network, params, support, one[:, None]) for one in inputs.unbind(1)]
        return torch.cat(outputs, dim=1)

    return alone


def queries_of(predict: Predict, together: bool) -> Predict:
    """The same for all queries of a task together, as it is, or for each alone."""
    return predict if together else inductive(predict)


def predict_with(all_queries: bool) -> Predict:
    """`transductive`, or one query beside the support set."""
    return queries_of(transductive if all_queries else beside_support, all_queries)
