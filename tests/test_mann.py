"""Memory-augmented networks: a step against plain loops, and the inputs of predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.baselines.mann import (
    MANN,
    MANNSettings,
    Memory,
    empty_memory,
    init_mann,
    input_gates,
    step,
    with_label,
)
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.experiment import validate_config
from metarl.method import TrainingState, load_method
from metarl.report.captions import units_label
from metarl.supervised.tasks import Episodes

BLOBS = {
    "data": {"name": "my_data:Blobs"},
    "method": {"name": "mann", "hidden": 20, "slots": 9, "width": 6, "reads": 2},
    "network": {"kind": "mlp", "hidden_sizes": []},
    "inner": {"shots": 1, "queries": 3},
    "outer": {"iterations": 2, "meta_batch": 3},
    "evaluation": {"tasks": 4, "shots": 3, "queries": 2},
    "device": "cpu",
}
F, WAYS = 6, 3
SETTINGS = MANNSettings(hidden=5, slots=7, width=4, reads=2, decay=0.9, strength=3.0)


def sigmoid(values) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-values))


def slow_step(params, memory: Memory, image: np.ndarray) -> Memory:
    """Equations 2 to 8 of Santoro et al. (2016), one sequence, one head, one slot at a time."""
    heads, size = SETTINGS.reads, SETTINGS.width
    gates = image @ params["image.weight"] + params["image.bias"]
    before = np.concatenate([memory.label, memory.read, memory.hidden])
    input_gate, forget_gate, candidate, output_gate = np.split(
        gates + before @ params["recurrent.weight"], 4
    )
    cell = sigmoid(forget_gate) * memory.cell + sigmoid(input_gate) * np.tanh(candidate)
    hidden = sigmoid(output_gate) * np.tanh(cell)
    outputs = hidden @ params["heads.weight"] + params["heads.bias"]
    keys = [outputs[head * size : (head + 1) * size] for head in range(heads)]
    slots = memory.slots.copy()
    least = sorted(range(SETTINGS.slots), key=lambda slot: memory.usage[slot])[:heads]
    for slot in least:
        slots[slot] = 0.0
    usage = SETTINGS.decay * memory.usage
    for head in range(heads):
        gate = sigmoid(outputs[heads * size + head])
        for slot in range(SETTINGS.slots):
            weight = gate * memory.weights[head, slot] + (1.0 - gate) * (slot == least[head])
            slots[slot] += weight * keys[head]
            usage[slot] += weight
    weights = np.zeros((heads, SETTINGS.slots))
    read_vectors = []
    for head in range(heads):
        for slot in range(SETTINGS.slots):
            lengths = np.linalg.norm(keys[head]) * (np.linalg.norm(slots[slot]) + 1e-6)
            weights[head, slot] = np.exp(SETTINGS.strength * (keys[head] @ slots[slot]) / lengths)
        weights[head] /= weights[head].sum()
        read_vectors.append(
            sum(weights[head, slot] * slots[slot] for slot in range(SETTINGS.slots))
        )
        usage += weights[head]
    return Memory(hidden, cell, slots, usage, weights, np.concatenate(read_vectors), memory.label)


def test_a_step_follows_the_equations_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    initial = init_mann(generator, F, WAYS, SETTINGS)
    params = {name: leaf.double() + 0.05 for name, leaf in initial.items()}  # no bias is zero
    plain = {name: leaf.numpy() for name, leaf in params.items()}
    images = torch.randn(2, 6, F, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 2, 1, 0, 0, 1]])
    memory = empty_memory(params, 2, SETTINGS)
    slow = [Memory(*(leaf[task].numpy() for leaf in memory)) for task in range(2)]
    for time in range(6):
        memory = step(params, memory, input_gates(params, images)[:, time], SETTINGS)
        for task in range(2):
            slow[task] = slow_step(plain, slow[task], images[task, time].numpy())
            for name, leaf in slow[task]._asdict().items():
                np.testing.assert_allclose(getattr(memory, name)[task], leaf, rtol=1e-9)
            slow[task] = slow[task]._replace(label=np.eye(WAYS)[labels[task, time]])
        memory = with_label(memory, labels[:, time])


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> MANN:
    """An untrained method for three clouds in the plane."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return load_method(validate_config(BLOBS))


def sequence(method: MANN, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The predictions for one sequence."""
    nothing = (inputs[None, :0], labels[None, :0])
    episodes = Episodes(np.zeros((1, 3)), nothing, (inputs[None], labels[None]))
    with torch.no_grad():
        return method.loss(method.initial_state().params, episodes, 0)[1][0]


def test_a_label_is_available_one_step_later(method) -> None:
    inputs, labels = torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    before = sequence(method, inputs, labels)
    labels[3] = 1
    after = sequence(method, inputs, labels)
    assert torch.equal(before[:4], after[:4])
    assert not torch.equal(before[4], after[4])


def test_training_sequences_contain_every_example_in_random_order(method) -> None:
    episodes = method.sample_batch(0)
    inputs, labels = episodes.query
    assert labels.shape == (3, 12)
    assert labels.sort(1).values.tolist() == [[0] * 4 + [1] * 4 + [2] * 4] * 3
    assert len({tuple(row) for row in labels.tolist()}) == 3
    # an image keeps its label: examples of one cloud are near to each other
    for points, classes in zip(inputs, labels, strict=True):
        assert max(float(points[classes == label].std(0).max()) for label in range(3)) < 0.2
    assert torch.equal(method.sample_batch(0).query[1], labels)
    assert not torch.equal(method.sample_batch(1).query[1], labels)


def test_a_query_is_predicted_like_the_next_element_of_the_sequence(method) -> None:
    episodes = next(method.problem.evaluation_episodes("test", 2))
    (x, labels), (queries, targets) = episodes.support, episodes.query
    theta = method.initial_state().params
    stages = method.predictions(theta, episodes, ())
    assert stages.shape == (2, 4, 6, 3)  # tasks, 0 to 3 instances, queries, classes
    for stage in range(4):
        for query in range(6):
            inputs = torch.cat([x[1, : 3 * stage], queries[1, query : query + 1]])
            sequence_labels = torch.cat([labels[1, : 3 * stage], targets[1, query : query + 1]])
            expected = sequence(method, inputs, sequence_labels)[-1]
            torch.testing.assert_close(stages[1, stage, query], expected)


def test_the_curve_counts_instances(method) -> None:
    curve = method.evaluate(method.initial_state().params)
    assert curve.scores.shape == (4, 4)
    assert curve.step_sizes == ()
    assert curve.instances == (0, 1, 2, 3)
    assert AdaptationCurve.from_json(curve.to_json()).truncate(1).instances == (0, 1)
    assert units_label([method.adaptation_unit]) == "instances of each class"


def test_other_numbers_of_classes_and_too_few_slots_are_refused(method) -> None:
    with pytest.raises(ValueError, match="5 heads write to 5 slots at once, of which there are 2"):
        MANNSettings(reads=5, slots=2)
    config = {**BLOBS, "evaluation": {"tasks": 2, "ways": 2}}
    with pytest.raises(
        UserError, match=r"evaluation.ways=2: mann is trained to distinguish 3 classes"
    ):
        load_method(validate_config(config)).problem.check()


def test_training_does_not_depend_on_the_alignment_of_weights_in_memory() -> None:
    # as in a resumed run: how the product of a matrix and a single row is rounded depends on it
    single = {"outer": {"iterations": 6, "meta_batch": 1}}
    method = load_method(validate_config({**BLOBS, **single}))

    def misaligned(leaf: torch.Tensor) -> torch.Tensor:
        memory = torch.empty(leaf.numel() + 3, dtype=leaf.dtype)[3:].view(leaf.shape)
        return memory.copy_(leaf)

    initial = method.initial_state()
    ends = []
    for copy in (torch.Tensor.clone, misaligned):
        state = initial
        for _ in range(6):
            theta = {name: copy(leaf) for name, leaf in state.params.items()}
            state, _ = method.step(TrainingState(state.iteration, theta, state.opt_state))
        ends.append(state.params)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in initial.params)
