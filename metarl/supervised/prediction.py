"""How an adapted network answers: what its batch normalisation may see at the test."""

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.params import Params
from metarl.supervised.models import Model
from metarl.supervised.tasks import Examples

# model, parameters of N tasks, their support sets, inputs (N, M, ...) -> outputs (N, M, O)
Predict = Callable[[Model, Params, Examples, Tensor], Tensor]


def together(model: Model, params: Params, support: Examples, inputs: Tensor) -> Tensor:
    """All queries of a task in one batch, as in Finn et al. (2017): transductive."""
    return model(params, inputs)


def beside_support(model: Model, params: Params, support: Examples, inputs: Tensor) -> Tensor:
    """Queries in one batch with the support set."""
    known = support[0]
    return model(params, torch.cat([known, inputs], dim=1))[:, known.shape[1] :]


def one_by_one(predict: Predict) -> Predict:
    """The same for one query at a time, so that none tells anything about another.

    Nichol et al. (2018), section 6.1: with `beside_support` the statistics are those of the support
    set and of the one query.
    """

    def alone(model: Model, params: Params, support: Examples, inputs: Tensor) -> Tensor:
        answers = [predict(model, params, support, one[:, None]) for one in inputs.unbind(1)]
        return torch.cat(answers, dim=1)

    return alone
