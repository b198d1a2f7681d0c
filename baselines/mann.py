"""Memory-augmented networks (Santoro et al. 2016): an LSTM that writes what it saw into a memory.

A task is a sequence: each image comes with the label of the image before, so that the network can
only tell classes that it has seen with their labels, and remembered. Nothing is fine-tuned.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.baselines.embedding import embedded, width
from metarl.config.sections import MethodSection
from metarl.distributed import shard
from metarl.evaluation import AdaptationCurve
from metarl.method import INSTANCES, AdaptationUnit, Role
from metarl.networks import Network
from metarl.networks.layers import uniform
from metarl.params import Params, repeat
from metarl.rng import make_rng
from metarl.supervised.losses import CLASSIFICATION, Kind
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.methods import MANNSettings
from metarl.supervised.prediction import queries_of
from metarl.supervised.tasks import Episodes, Examples

EPSILON = 1e-6  # a blank slot is like nothing
FORGET = 1.0  # the bias of the forget gate: to remember is what is to be learned here
CHUNK = 16  # sequences side by side: their products are small, and a step's are many


class Memory(NamedTuple):
    """What is carried from one image to the next, of N sequences.

    Attributes:
        hidden: of the controller, (N, H).
        cell: of the controller, (N, H).
        slots: (N, S, W).
        usage: of the slots, (N, S).
        weights: with which each head read last, (N, R, S).
        read: what the heads read last, (N, R·W).
        label: of the last image, (N, ways), one-hot; it comes with the next.
    """

    hidden: Tensor
    cell: Tensor
    slots: Tensor
    usage: Tensor
    weights: Tensor
    read: Tensor
    label: Tensor


class MANN(SupervisedMethod):
    """Learns to remember: which class an image is of, from those before it and their labels."""

    role: ClassVar[Role] = "meta-learner"
    label: ClassVar[str] = "memory-augmented network"
    adaptation_unit: ClassVar[AdaptationUnit | None] = INSTANCES
    Settings: ClassVar[type[MethodSection]] = MANNSettings
    kinds: ClassVar[tuple[Kind, ...]] = (CLASSIFICATION,)
    supports_distributed: ClassVar[bool] = True
    stage: ClassVar[str] = "over_sequence"

    @property
    def settings(self) -> MANNSettings:
        """What it alone was told."""
        settings = self.problem.config.method
        assert isinstance(settings, MANNSettings)
        return settings

    def init(self, generator: torch.Generator) -> Params:
        """A fresh network, controller, heads and classifier."""
        tasks = self.problem.tasks("train")
        shape = tuple(shrunk(torch.zeros(1, 1, *tasks.shape), self.settings.size).shape[2:])
        params = self.problem.network.init(generator, shape, tasks.outputs)
        size = width(self.problem.network, params, shape)
        return params | init_mann(generator, size, tasks.outputs, self.settings)

    def chunk_size(self, episodes: Episodes) -> int:
        """A constant: what is computed together must not depend on the machine."""
        return CHUNK

    def draw(self, iteration: int) -> Episodes:
        """Sequences: the examples of each task in random order, all of them to be predicted."""
        episodes = super().draw(iteration)
        (x, y), (more_x, more_y) = episodes.support, episodes.query
        x, y = torch.cat([x, more_x], dim=1), torch.cat([y, more_y], dim=1)
        config = self.problem.config
        rng, batch = make_rng(config.seed, "order", iteration), config.outer.meta_batch
        order = torch.from_numpy(rng.random((batch, y.shape[1])).argsort(1)[shard(batch)])
        task = torch.arange(len(y)).unsqueeze(1)
        return Episodes(episodes.tasks, (x[:, :0], y[:, :0]), (x[task, order], y[task, order]))

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """Cross-entropy over whole sequences, at the first sight of a class as well."""
        inputs, targets = episodes.query
        images = shrunk(inputs, self.settings.size)
        features = self.problem.network.features(repeat(params, len(images)), images)
        memory = blank(params, len(images), self.settings)
        known = []
        for image, label in zip(drive(params, features).unbind(1), targets.unbind(1), strict=True):
            memory = told(step(params, memory, image, self.settings), label)
            known.append(torch.cat([memory.hidden, memory.read], dim=-1))
        outputs = classified(params, torch.stack(known, dim=1))
        return self.problem.kind.loss(outputs, targets), outputs

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """Logits after 0, 1, ... instances of each class were seen with their labels."""
        predict = queries_of(self.predict, self.problem.config.evaluation.transductive)
        yield from predict(self.problem.network, params, support, inputs).unbind(2)

    def curve(
        self, split: str, number: int, params: Params, step_sizes: Sequence[float]
    ) -> AdaptationCurve:
        """As every method has it, with what its stages are."""
        curve = super().curve(split, number, params, step_sizes)
        return replace(curve, instances=tuple(range(curve.scores.shape[1])))

    def predict(
        self, network: Network, params: Params, support: Examples, inputs: Tensor
    ) -> Tensor:
        """Logits of each query alone, (N, M, stages, ways), with parameters that are not stacked.

        The support set is seen in its order, an instance of each class after the other.
        """
        known, labels = support
        images = shrunk(known, self.settings.size), shrunk(inputs, self.settings.size)
        embeddings = embedded(network, repeat(params, len(inputs)), *images)
        ours, theirs = (drive(params, some) for some in embeddings)
        memory = blank(params, len(inputs), self.settings)
        stages = [self._asked(params, memory, theirs)]
        ways, shown = memory.label.shape[-1], ours.shape[1]
        for seen in range(shown):
            memory = told(step(params, memory, ours[:, seen], self.settings), labels[:, seen])
            if (seen + 1) % ways == 0 or seen + 1 == shown:
                stages.append(self._asked(params, memory, theirs))
        return torch.stack(stages, dim=2)

    def _asked(self, params: Params, memory: Memory, queries: Tensor) -> Tensor:
        """Logits (N, M, ways): each query finds the same memory, which forgets it again."""
        many = Memory(*(leaf.repeat_interleave(queries.shape[1], dim=0) for leaf in memory))
        after = step(params, many, queries.flatten(0, 1), self.settings)
        logits = classified(params, torch.cat([after.hidden, after.read], dim=-1))
        return logits.view(*queries.shape[:2], -1)


def shrunk(inputs: Tensor, size: int) -> Tensor:
    """Images (N, M, C, H, W) as squares of a side, by the mean of what falls together."""
    if inputs.dim() != 5 or not inputs.shape[1]:  # no images, or none of them
        return inputs
    return F.adaptive_avg_pool2d(inputs.flatten(0, 1), size).view(*inputs.shape[:3], size, size)


def init_mann(
    generator: torch.Generator, features: int, ways: int, settings: MANNSettings
) -> Params:
    """Controller, heads and classifier: Xavier weights, zero biases but for the forget gate's.

    Args:
        generator: the source of randomness.
        features: F, the size of an image's embedding.
        ways: classes of a task.
        settings: H hidden units, R heads, slots of width W.

    Returns:
        Of the controller `image.weight` (F, 4H), `image.bias` (4H,) and `recurrent.weight` (ways +
        R·W + H, 4H), whose gates are in torch's order; `heads.*` (H, R·W + R), keys and gates;
        `output.*` (H + R·W, ways).
    """
    hidden, keys = settings.hidden, settings.reads * settings.width
    recurrent = ways + keys + hidden
    fan_in = features + recurrent
    gates = torch.zeros(4, hidden)
    gates[1] = FORGET
    params = {
        "image.weight": uniform(generator, (features, 4 * hidden), fan_in, hidden),
        "image.bias": gates.flatten(),
        "recurrent.weight": uniform(generator, (recurrent, 4 * hidden), fan_in, hidden),
    }
    for name, shape in {
        "heads": (hidden, keys + settings.reads),
        "output": (hidden + keys, ways),
    }.items():
        params[f"{name}.weight"] = uniform(generator, shape, *shape)
        params[f"{name}.bias"] = torch.zeros(shape[1])
    return params


def blank(params: Mapping[str, Tensor], number: int, settings: MANNSettings) -> Memory:
    """The memory of so many sequences before their first image."""
    like = params["output.bias"]
    slots, width = settings.slots, settings.width
    return Memory(
        hidden=like.new_zeros(number, settings.hidden),
        cell=like.new_zeros(number, settings.hidden),
        slots=like.new_zeros(number, slots, width),
        usage=like.new_zeros(number, slots),
        weights=like.new_zeros(number, settings.reads, slots),
        read=like.new_zeros(number, settings.reads * width),
        label=like.new_zeros(number, len(like)),
    )


def told(memory: Memory, label: Tensor) -> Memory:
    """The memory, to which the label of the last image (N,) is told with the next image."""
    return memory._replace(label=F.one_hot(label, memory.label.shape[-1]).to(memory.label.dtype))


def drive(params: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """What images (N, L, F) add to the controller's gates, (N, L, 4H): of all, in one product."""
    return features @ params["image.weight"] + params["image.bias"]


def classified(params: Mapping[str, Tensor], known: Tensor) -> Tensor:
    """Logits (..., ways) from the controller and what was read, (..., H + R·W)."""
    return known @ params["output.weight"] + params["output.bias"]


def step(
    params: Mapping[str, Tensor], memory: Memory, image: Tensor, settings: MANNSettings
) -> Memory:
    """See an image: the controller runs, each head writes its key, then reads (equations 2 to 8).

    A head writes to where it read last, or to a slot of its own among those used least, as its gate
    says. What is used least is erased before.

    Args:
        params: as made by `init_mann`.
        memory: before, of N sequences.
        image: as `drive` has it, (N, 4H).
        settings: as `init_mann` had them.
    """
    heads, width = settings.reads, settings.width
    before = torch.cat([memory.label, memory.read, memory.hidden], dim=-1)
    gates = torch.addmm(image, before, params["recurrent.weight"])
    let_in, keep, new, let_out = gates.chunk(4, dim=-1)
    cell = keep.sigmoid() * memory.cell + let_in.sigmoid() * new.tanh()
    hidden = let_out.sigmoid() * cell.tanh()

    told_heads = torch.addmm(params["heads.bias"], hidden, params["heads.weight"])
    keys = told_heads[:, :-heads].reshape(-1, heads, width)
    gate = told_heads[:, -heads:].sigmoid().unsqueeze(-1)
    # which slots are used least is no matter of degree: there is nothing to differentiate
    least = memory.usage.argsort(dim=-1, stable=True)[:, :heads]
    unused = F.one_hot(least, memory.usage.shape[1]).to(keys.dtype)  # (N, R, S)
    written = gate * memory.weights + (1.0 - gate) * unused
    kept = memory.slots * (1.0 - unused.sum(1).unsqueeze(-1))
    slots = torch.baddbmm(kept, written.mT, keys)

    similarities = F.normalize(keys, dim=-1) @ slots.mT
    similarities = similarities / (slots.norm(dim=-1) + EPSILON).unsqueeze(1)
    weights = (settings.strength * similarities).softmax(-1)  # (N, R, S)
    usage = settings.decay * memory.usage + (weights + written).detach().sum(1)
    return Memory(hidden, cell, slots, usage, weights, (weights @ slots).flatten(1), memory.label)
