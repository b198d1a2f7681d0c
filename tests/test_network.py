"""A trained few-shot network takes examples in every form that users have, or names the mistake."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import metarl
from metarl.errors import UserError
from metarl.models.network import AdaptiveNetwork

TRAINED_ON = np.random.default_rng(0).integers(0, 256, (120, 12, 12), dtype=np.uint8)
BYTES, QUERIES = TRAINED_ON[:4, None], TRAINED_ON[4:9, None]
FLOATS = torch.from_numpy(BYTES) / 255.0
LABELS = [0, 1, 1, 0]


def small_data(images=TRAINED_ON, **settings) -> metarl.Dataset:
    pairs = [(image, number % 12) for number, image in enumerate(images)]
    return metarl.Dataset.of(pairs, **{"ways": 2, "size": 12, "channels": 1, **settings})


def train(folder: Path, **settings) -> metarl.Run:
    values = {
        "data": small_data(),
        "network": {"kind": "mlp", "hidden_sizes": [8]},
        "inner": {"shots": 2, "queries": 2, "step_size": 0.1},
        "outer": {"iterations": 1, "meta_batch": 2},
        "evaluation": {"tasks": 3, "steps": 2},
    }
    if "method" in settings:  # one without gradient steps
        del values["inner"]["step_size"]
    return metarl.train(metarl.SupervisedConfig(**{**values, **settings}), folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> metarl.Run:
    return train(tmp_path_factory.mktemp("network") / "run")


@pytest.fixture(scope="module")
def network(run: metarl.Run) -> AdaptiveNetwork:
    return metarl.load_network(run)


@pytest.fixture(scope="module")
def prototypes(tmp_path_factory: pytest.TempPathFactory) -> AdaptiveNetwork:
    folder = tmp_path_factory.mktemp("prototypes") / "run"
    return metarl.load_network(train(folder, method={"name": "prototypical", "ways": 4}))


@pytest.mark.parametrize(
    "inputs",
    [
        BYTES,
        torch.from_numpy(BYTES),
        FLOATS.double().requires_grad_(),
        list(FLOATS),
        [Image.fromarray(image[0]) for image in BYTES],
        [Image.fromarray(image[0]).convert("RGB") for image in BYTES],
        [Image.fromarray(np.uint16(image[0]) * 257) for image in BYTES],
    ],
    ids=["bytes", "tensor", "gradients", "list", "PIL", "colour", "16 bits"],
)
def test_predictions_do_not_depend_on_the_form_of_the_images(network, inputs) -> None:
    expected = network.adapt(FLOATS.numpy(), LABELS).predict(QUERIES / 255)
    predicted = network.adapt(inputs, torch.tensor(LABELS).float()).predict(QUERIES)
    np.testing.assert_allclose(predicted, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_low_precision_are_accepted(network, dtype) -> None:
    expected = network.adapt(FLOATS, LABELS).predict(QUERIES)
    predicted = network.adapt(FLOATS.to(dtype), LABELS).predict(QUERIES)
    np.testing.assert_allclose(predicted, expected, atol=0.02)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (255 * FLOATS, r"bytes in 0\.\.\.255 .* not numbers in 0\.\.\.255"),
        (BYTES.astype(np.int64), r"not numbers in 0\.\.\.255"),
        (FLOATS - 0.5, r"not numbers in -0\.5"),
        ((FLOATS > 0.5).byte(), r"not bytes in 0\.\.\.1"),
        (FLOATS / 0.0, "inputs must be finite"),
        (FLOATS.movedim(1, -1), r"shape \(examples, 1, 12, 12\) \(channels first\), not"),
        (FLOATS[0], r"shape \(examples, 1, 12, 12\), not \(1, 12, 12\)"),
        (FLOATS[..., :6], r"not \(4, 1, 12, 6\)"),
        (FLOATS.to(torch.complex64), "inputs must be numbers"),
        (["cat.png"], "inputs must be numbers"),
        ([[0.0], [0.0, 1.0]], "inputs must be numbers"),
        (Image.fromarray(BYTES[0, 0]), "or a list of PIL images"),
    ],
)
def test_images_that_are_not_like_those_of_the_training_are_refused(
    network, inputs, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        network.adapt(inputs, LABELS)
    with pytest.raises(UserError, match=sentence):
        network.adapt(FLOATS, LABELS).predict(inputs)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0.2, 1.0, 0.0, 1.0], "integers from 0 to 1, not 0.2"),
        ([np.nan, 1, 0, 1], "integers from 0 to 1, not nan"),
        ([np.inf, 1, 0, 1], "integers from 0 to 1, not inf"),
        (["owl", "fox", "owl", "fox"], "integers from 0 to 1; number the classes"),
        (np.eye(2)[LABELS], r"not \(4, 2\); convert one-hot vectors"),
        ([-1, 0, 0, 1], r"integers from 0 to 1, not -1\.\.\.1"),
        ([0, 1, 2, 1], r"integers from 0 to 1, not 0\.\.\.2"),
        ([0, 1], "one target for each input"),
    ],
)
def test_labels_that_are_not_class_numbers_are_refused(network, labels, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        network.adapt(FLOATS, labels)


def test_metric_based_networks_take_any_number_of_classes_but_no_gap(prototypes) -> None:
    assert prototypes.adapt(FLOATS, [0, 1, 2, 3]).predict(BYTES).argmax(-1).tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="without a gap, not 0, 2"):
        prototypes.adapt(FLOATS, [0, 2, 2, 0])


def test_predictions_that_diverge_are_refused() -> None:
    network = metarl.load_network("sinusoid")
    with pytest.raises(UserError, match=r"are not finite; scale inputs and targets"):
        network.adapt([0.0, 1.0], [1e30, -1e30]).predict([0.5])


@pytest.mark.parametrize("steps", [-1, 3, 0.5, "1"])
def test_the_number_of_steps_is_an_integer(network, steps) -> None:
    with pytest.raises(UserError, match="steps must be an integer from 0 to 2"):
        network.adapt(FLOATS, LABELS, steps)


def test_a_run_on_a_data_set_from_python_is_evaluated_with_other_settings(run, network) -> None:
    chosen = {"shots": 3, "queries": np.int64(4), "steps": 1, "tasks": 5}
    curve = network.evaluate(**chosen)
    assert curve.scores.shape == (5, 2)
    assert network.evaluate().scores.shape == (3, 3)  # the run's own evaluation is still stored
    for opened in (run, run.path):
        again = metarl.evaluate(opened, data=small_data(), **chosen)
        np.testing.assert_array_equal(again.scores, curve.scores)
    metarl.evaluate(run)


@pytest.mark.parametrize(
    ("data", "settings", "sentence"),
    [
        (None, {"shots": 3}, r"metarl\.evaluate\(run, data="),
        (small_data(ways=3), {}, r"trained on other data \(data\.ways: 2 → 3\)"),
        (small_data(255 - TRAINED_ON), {}, "trained on other data: its data_sha256"),
        ([(BYTES, 0)], {}, r"data must be Dataset\.of\(\.\.\.\)"),
        (small_data(), {"ways": 3}, "is trained to distinguish 2 classes"),
        (small_data(), {"shots": 9}, r"lower evaluation\.shots or evaluation\.queries"),
        (small_data(), {"shot": 9}, "did you mean 'shots'"),
    ],
)
def test_an_evaluation_on_other_data_is_refused(run, data, settings, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        metarl.evaluate(run.path, data=data, **settings)


@pytest.mark.parametrize("method", ["prototypical", "matching", "siamese"])
def test_an_error_names_the_setting_that_has_too_many_classes(tmp_path: Path, method) -> None:
    with pytest.raises(UserError, match=r"^method\.ways=60 is more than the 8 classes for train"):
        train(tmp_path / "run", method=method)
    with pytest.raises(UserError, match=r"^evaluation\.ways=4 is more than the 2 classes for test"):
        train(
            tmp_path / "run",
            method={"name": method, "ways": 3},
            evaluation={"tasks": 2, "ways": 4},
        )
    with pytest.raises(UserError, match=r"^data\.ways=9 is more than the 8 classes for train"):
        train(tmp_path / "run", data=small_data(ways=9))


class Stains:
    """Custom classes of images in 0...`largest`."""

    kind = "classification"
    classes = 6

    def __init__(self, largest=1.0):
        self.largest = largest

    def sample_tasks(self, rng, num_tasks, split):
        return np.stack([rng.choice(6, 2, False) for _ in range(num_tasks)])

    def sample(self, rng, tasks, num_examples):
        noise = rng.random((*tasks.shape, num_examples, 1, 3, 3))
        return self.largest * (0.8 * noise + 0.04 * tasks[..., None, None, None, None])

    def describe(self, task):
        return str(task)


@pytest.mark.parametrize(("largest", "factor"), [(1.0, 255), (255.0, 1)])
def test_images_of_custom_tasks_are_of_the_scale_of_the_training(
    tmp_path: Path, monkeypatch, largest: float, factor: int
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    data = {"name": "test_network:Stains", "settings": {"largest": largest}}
    network = metarl.load_network(train(tmp_path / "run", data=data), trust_code=True)
    images = np.random.default_rng(0).random((2, 1, 3, 3))
    network.adapt(largest * images, [0, 1])
    other = (255 * images).astype(np.uint8) if factor == 255 else images
    with pytest.raises(UserError, match="scale them alike"):
        network.adapt(other, [0, 1])


@pytest.mark.parametrize("inputs", [1, 2])
def test_a_single_input_cannot_be_normalised_by_its_batch(tmp_path: Path, inputs: int) -> None:
    network = {"kind": "mlp", "hidden_sizes": [8], "norm": True}
    adapted = metarl.load_network(train(tmp_path / "run", network=network)).adapt(FLOATS, LABELS)
    if inputs == 2:
        assert adapted.predict(FLOATS[:2]).shape == (2, 2)
    else:
        with pytest.raises(UserError, match=r"predict several inputs at once.*transductive=false"):
            adapted.predict(FLOATS[:1])
