"""Memory-augmented networks (Santoro et al. 2016): an LSTM controller with an external memory.

A task is a sequence of images. Each comes with the label of the previous image, so that the network
can classify an image only by what it stored about earlier ones. Nothing is fine-tuned.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor

from metarl.baselines.embedding import embed, embedding_size
from metarl.config.sections import Fraction, MethodSection, PositiveFloat, PositiveInt
from metarl.distributed import shard
from metarl.evaluation import AdaptationCurve
from metarl.method import INSTANCES, AdaptationUnit, Role
from metarl.networks import Network
from metarl.networks.layers import uniform
from metarl.params import Params, repeat, with_added
from metarl.rng import make_rng
from metarl.supervised.config import NO_INNER_STEPS, SupervisedConfig
from metarl.supervised.losses import CLASSIFICATION, LossSettings, TaskType
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.prediction import map_queries
from metarl.supervised.tasks import Episodes, Examples

EPSILON = 1e-6  # in the norm of a slot: the cosine similarity to an empty slot is 0
FORGET_BIAS = 1.0  # initial bias of the forget gate, so that the cell state persists at first
CHUNK = 16  # sequences computed together: the products are small, and each step has many of them


class MANNSettings(LossSettings):
    """A controller of `hidden` units, with `reads` heads on a memory of `slots` × `width`.

    Images are averaged to squares of `size` pixels. The usage of a slot decays by the factor
    `decay` in each step. `strength` multiplies the cosine similarities by which a head addresses
    slots (the key strength of Graves et al. 2014). The paper has none: a softmax of cosines reads
    all slots almost equally, and larger values shorten the training.
    """

    name: Literal["mann"] = "mann"
    size: PositiveInt = 20
    hidden: PositiveInt = 200
    slots: PositiveInt = 128
    width: PositiveInt = 40
    reads: PositiveInt = 4
    decay: Fraction = 0.95
    strength: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.reads > self.slots:
            raise ValueError(
                f"reads: {self.reads} heads write to {self.reads} slots at once, of which there "
                f"are {self.slots}; lower reads, or raise slots"
            )
        return self


class Memory(NamedTuple):
    """The state of N sequences between two images.

    Attributes:
        hidden: hidden state of the controller, (N, H).
        cell: cell state of the controller, (N, H).
        slots: contents of the memory, (N, S, W).
        usage: usage weights of the slots, (N, S).
        weights: last read weights of each head, (N, R, S).
        read: last read vectors, (N, R·W).
        label: label of the last image, (N, ways), one-hot; an input together with the next image.
    """

    hidden: Tensor
    cell: Tensor
    slots: Tensor
    usage: Tensor
    weights: Tensor
    read: Tensor
    label: Tensor


class MANN(SupervisedMethod):
    """Learns to store images with their labels, and to classify images by what it retrieves."""

    role: ClassVar[Role] = "meta-learner"
    label: ClassVar[str] = "memory-augmented network"
    adaptation_unit: ClassVar[AdaptationUnit | None] = INSTANCES
    Settings: ClassVar[type[MethodSection]] = MANNSettings
    kinds: ClassVar[tuple[TaskType, ...]] = (CLASSIFICATION,)
    supports_distributed: ClassVar[bool] = True
    train_metric_suffix: ClassVar[str] = "over_sequence"

    @classmethod
    def unused_settings(cls, config: SupervisedConfig) -> dict[str, str]:
        return NO_INNER_STEPS | {"baseline.": "which is not a baseline"}

    def init(self, generator: torch.Generator) -> Params:
        tasks = self.problem.tasks("train")
        shape = tuple(downsample(torch.zeros(1, 1, *tasks.shape), self.settings.size).shape[2:])
        params = self.problem.network.init(generator, shape, tasks.outputs)
        size = embedding_size(self.problem.network, params, shape)
        return with_added(params, init_mann(generator, size, tasks.outputs, self.settings))

    def chunk_size(self, episodes: Episodes) -> int:
        # constant, since rounding depends on what is computed together
        return CHUNK

    def sample_batch(self, iteration: int) -> Episodes:
        """Sequences: all examples of each task in random order. All of them are queries."""
        episodes = super().sample_batch(iteration)
        (x, y), (query_x, query_y) = episodes.support, episodes.query
        x, y = torch.cat([x, query_x], dim=1), torch.cat([y, query_y], dim=1)
        config = self.problem.config
        rng, batch = make_rng(config.seed, "order", iteration), config.outer.meta_batch
        # sorting random keys permutes each row; drawn for all processes before the shard is taken
        order = torch.from_numpy(rng.random((batch, y.shape[1])).argsort(1)[shard(batch)])
        task = torch.arange(len(y)).unsqueeze(1)
        return Episodes(episodes.tasks, (x[:, :0], y[:, :0]), (x[task, order], y[task, order]))

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """Cross-entropy over whole sequences, including the first image of each class."""
        inputs, labels = episodes.query
        images = downsample(inputs, self.settings.size)
        features = self.problem.network.features(repeat(params, len(images)), images)
        # only the recurrence is a loop: features, input gates and logits are batched over time
        memory = empty_memory(params, len(images), self.settings)
        states = []
        steps = zip(input_gates(params, features).unbind(1), labels.unbind(1), strict=True)
        for image_gates, label in steps:
            memory = with_label(step(params, memory, image_gates, self.settings), label)
            states.append(torch.cat([memory.hidden, memory.read], dim=-1))
        outputs = logits(params, torch.stack(states, dim=1))
        return self.problem.loss(outputs, labels), outputs

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """Logits after 0, 1, ... labelled instances of each class."""
        predict = partial(self.predict, self.problem.network, params, support)
        yield from map_queries(predict, inputs, self.problem.prediction_mode).unbind(2)

    def curve(
        self, split: str, number: int, params: Params, step_sizes: Sequence[float]
    ) -> AdaptationCurve:
        curve = super().curve(split, number, params, step_sizes)
        return replace(curve, instances=tuple(range(curve.scores.shape[1])))

    def predict(
        self, network: Network, params: Params, support: Examples, inputs: Tensor
    ) -> Tensor:
        """Logits (N, M, stages, ways) of each query after each stage of the support set.

        The support set is processed in its order: one instance of each class, then the next ones.
        The parameters are not stacked.
        """
        x, labels = support
        images = downsample(x, self.settings.size), downsample(inputs, self.settings.size)
        embeddings = embed(network, repeat(params, len(inputs)), *images)
        support_gates, query_gates = (input_gates(params, features) for features in embeddings)
        memory = empty_memory(params, len(inputs), self.settings)
        stages = [self._query(params, memory, query_gates)]
        ways, length = memory.label.shape[-1], support_gates.shape[1]
        for index in range(length):
            memory = step(params, memory, support_gates[:, index], self.settings)
            memory = with_label(memory, labels[:, index])
            # a stage ends when every class has one more instance
            if (index + 1) % ways == 0 or index + 1 == length:
                stages.append(self._query(params, memory, query_gates))
        return torch.stack(stages, dim=2)

    def _query(self, params: Params, memory: Memory, query_gates: Tensor) -> Tensor:
        """Logits (N, M, ways), each query from the same memory, which is left unchanged."""
        copies = Memory(*(leaf.repeat_interleave(query_gates.shape[1], dim=0) for leaf in memory))
        # a query has no label of its own: the memory holds that of the last support image
        after = step(params, copies, query_gates.flatten(0, 1), self.settings)
        outputs = logits(params, torch.cat([after.hidden, after.read], dim=-1))
        return outputs.view(*query_gates.shape[:2], -1)


def downsample(inputs: Tensor, size: int) -> Tensor:
    """Images (N, M, C, H, W) averaged to (N, M, C, size, size); other inputs are unchanged."""
    if inputs.dim() != 5 or not inputs.shape[1]:
        return inputs
    return F.adaptive_avg_pool2d(inputs.flatten(0, 1), size).view(*inputs.shape[:3], size, size)


def init_mann(
    generator: torch.Generator, features: int, ways: int, settings: MANNSettings
) -> Params:
    """Controller, heads and classifier: Xavier weights, zero biases except for the forget gate.

    Args:
        generator: the source of randomness.
        features: F, the size of an image's embedding.
        ways: the number of classes of a task.
        settings: H hidden units, R heads, slots of width W.

    Returns:
        The controller's `image.weight` (F, 4H), `image.bias` (4H,) and `recurrent.weight` (ways +
        R·W + H, 4H), with gates in torch's order: input, forget, cell, output; `heads.*` (H, R·W +
        R), the keys and the write gates; `output.*` (H + R·W, ways).
    """
    hidden, keys = settings.hidden, settings.reads * settings.width
    recurrent = ways + keys + hidden
    fan_in = features + recurrent
    gates = torch.zeros(4, hidden)
    gates[1] = FORGET_BIAS
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


def empty_memory(params: Mapping[str, Tensor], number: int, settings: MANNSettings) -> Memory:
    """The state of `number` sequences before their first image: zeros."""
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


def with_label(memory: Memory, label: Tensor) -> Memory:
    """The memory with the label (N,) of the last image."""
    return memory._replace(label=F.one_hot(label, memory.label.shape[-1]).to(memory.label.dtype))


def input_gates(params: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """The part of the controller's gates (N, L, 4H) that depends on the images (N, L, F) only.

    One product for the whole sequence is faster than one in each step.
    """
    return features @ params["image.weight"] + params["image.bias"]


def logits(params: Mapping[str, Tensor], state: Tensor) -> Tensor:
    """Logits (..., ways) from the hidden state and the read vectors, (..., H + R·W)."""
    return state @ params["output.weight"] + params["output.bias"]


def step(
    params: Mapping[str, Tensor], memory: Memory, image_gates: Tensor, settings: MANNSettings
) -> Memory:
    """Process one image: the controller, then writing, then reading (equations 2 to 8).

    With keys k, memory M, usage weights w^u, read weights w^r and write weights w^w of each head:

        w^w_t = σ(α) w^r_{t−1} + (1 − σ(α)) w^lu_{t−1}      least recently used access (LRUA)
        M_t   = M_{t−1} with the least used slots erased, + w^w_t k_t
        w^r_t = softmax(strength · cos(k_t, M_t))
        w^u_t = decay · w^u_{t−1} + w^r_t + w^w_t
        r_t   = w^r_t M_t

    Args:
        params: those of `init_mann`.
        memory: the state of N sequences.
        image_gates: the images, as returned by `input_gates`, (N, 4H).
        settings: those of `init_mann`.
    """
    heads, width = settings.reads, settings.width
    before = torch.cat([memory.label, memory.read, memory.hidden], dim=-1)
    gates = torch.addmm(image_gates, before, params["recurrent.weight"])
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=-1)
    cell = forget_gate.sigmoid() * memory.cell + input_gate.sigmoid() * candidate.tanh()
    hidden = output_gate.sigmoid() * cell.tanh()

    head_outputs = torch.addmm(params["heads.bias"], hidden, params["heads.weight"])
    keys = head_outputs[:, :-heads].reshape(-1, heads, width)
    gate = head_outputs[:, -heads:].sigmoid().unsqueeze(-1)  # σ(α)
    # w^lu: head i takes the i-th least used slot, so that heads never write to the same empty one.
    # The selection is discrete and has no gradient.
    least_used = memory.usage.argsort(dim=-1, stable=True)[:, :heads]
    unused = F.one_hot(least_used, memory.usage.shape[1]).to(keys.dtype)  # (N, R, S)
    write_weights = gate * memory.weights + (1.0 - gate) * unused
    erased = memory.slots * (1.0 - unused.sum(1).unsqueeze(-1))
    slots = torch.baddbmm(erased, write_weights.mT, keys)  # Σ over heads of w^w_t k_t

    similarities = F.normalize(keys, dim=-1) @ slots.mT
    similarities = similarities / (slots.norm(dim=-1) + EPSILON).unsqueeze(1)
    weights = (settings.strength * similarities).softmax(-1)  # (N, R, S)
    # usage only selects slots, so its gradient is not needed
    usage = settings.decay * memory.usage + (weights + write_weights).detach().sum(1)
    return Memory(hidden, cell, slots, usage, weights, (weights @ slots).flatten(1), memory.label)
