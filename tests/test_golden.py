"""Refactoring keeps the numbers: weights and evaluations of small trainings, bit for bit.

They were recorded by `python tests/test_golden.py NAME` with every setting spelled out in the
config, so that no default matters. Products round differently on other kinds of processors, so each
kind has checksums of its own in tests/golden. On a processor without any, trainings with a smooth
outer step must come close to values.safetensors, which has the tensors of at most 2000 numbers; a
trust region's line search amplifies rounding beyond comparison. A first step of Adam keeps a tenth
of the meta-gradient as its first moment: a recorded optimiser state is a recorded meta-gradient.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from metarl.cli import main
from metarl.config.files import trained_runs

FOLDER = Path(__file__).parent / "golden"
# what was shipped before another was
OLDER = {run.name: run for run in (Path(__file__).parent / "older_runs").iterdir()}
TRPO = "{algorithm: trpo, iterations: 3, meta_batch: 4, max_kl: 0.01, cg_iterations: 10, "
POINT = """\
family: {name: point-navigation, settings: {horizon: 20}}
policy: {hidden_sizes: [16, 16], activation: relu, init_std: 1.0, min_std: 1.0e-6}
inner: {step_size: 0.5, steps: STEPS, trajectories: 5, gamma: 0.99, lam: 1.0,
        estimator: ESTIMATOR, first_order: FIRST}
outer: OUTER
evaluation: {tasks: 4, trajectories: 5, step_sizes: [0.5, 0.25], seed: 1}
baseline: {step_sizes: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0], chosen_after: 0}
device: cpu
"""
MUJOCO = """\
family: {name: FAMILY, settings: {horizon: 20, dynamics: DYNAMICS}}
policy: {hidden_sizes: [16], activation: tanh, init_std: 1.0, min_std: 1.0e-6}
inner: {step_size: 0.1, steps: 1, trajectories: 4, gamma: 0.99, lam: 0.97,
        estimator: likelihood_ratio, first_order: false}
outer: OUTER
evaluation: {tasks: 2, trajectories: 3, step_sizes: [0.1, 0.05], seed: 1}
baseline: {step_sizes: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0], chosen_after: 0}
device: cpu
"""
SINE = """\
data: {name: sinusoid}
network: {kind: mlp, hidden_sizes: [16, 16]}
inner: {step_size: 0.01, steps: STEPS, shots: 5, queries: 6, MORE}
outer: {learning_rate: 1.0e-3, iterations: 3, meta_batch: 4}
evaluation: {tasks: 5, shots: 4, queries: 7, steps: 3, seed: 1}
baseline: {step_sizes: [0.001, 0.01], validation_tasks: 5, chosen_after: 0}
device: cpu
report_every: 1
"""
OMNIGLOT = """\
data: {name: omniglot, ways: 5, split_seed: 0}
network: NETWORK
inner: {step_size: 0.5, steps: 2, shots: 1, queries: 2, MORE}
outer: {learning_rate: 1.0e-3, iterations: 3, meta_batch: 3, anneal: true}
evaluation: {tasks: 4, shots: 1, queries: 3, steps: 3, transductive: TRANSDUCTIVE, seed: 1}
baseline: {step_sizes: [0.1, 1.0], validation_tasks: 4, chosen_after: 0}
device: cpu
"""


def fill(template: str, **values: str) -> str:
    for name, value in values.items():
        template = template.replace(name, value)
    return template


def point(estimator: str, steps: str = "1", first: str = "false", outer: str = "") -> str:
    trpo = TRPO + "damping: 1.0e-5, curvature_fraction: 0.5}"
    return fill(POINT, ESTIMATOR=estimator, STEPS=steps, FIRST=first, OUTER=outer or trpo)


def mujoco(family: str, dynamics: str) -> str:
    trpo = TRPO + "damping: 0.1, curvature_fraction: 0.1, anneal: true}"
    return fill(MUJOCO, FAMILY=family, DYNAMICS=dynamics, OUTER=trpo)


def omniglot(
    more: str = "first_order: false", transductive: str = "true", mlp: bool = False
) -> str:
    network = (
        "{kind: mlp, hidden_sizes: [8, 8], norm: true}"
        if mlp
        else "{kind: conv4, filters: 4, pool: false}"
    )
    return fill(OMNIGLOT, NETWORK=network, MORE=more, TRANSDUCTIVE=transductive)


ADAM = "{algorithm: adam, iterations: 1, meta_batch: 4, learning_rate: 1.0e-3}"
PAPER = "first_order: false"
BASELINES = ("pretrained", "random", "oracle", "nearest_neighbour")
CASES: dict[str, tuple[str, str]] = {  # by name: the method and its config
    "point": ("maml", point("likelihood_ratio")),
    "point-gradient": ("maml", point("likelihood_ratio", outer=ADAM)),
    "point-log": ("maml", point("log_likelihood")),
    "point-two-steps": ("maml", point("likelihood_ratio", steps="2")),
    "point-first-order": ("maml", point("log_likelihood", steps="2", first="true")),
    "point-cavia": ("{name: cavia, context: 3}", point("likelihood_ratio")),
    "point-e-maml": ("{name: e_maml, credit: 0.5}", point("likelihood_ratio", steps="2")),
    "point-random": ("random", point("likelihood_ratio")),
    "point-pretrained": ("pretrained", point("likelihood_ratio")),
    "point-oracle": ("oracle", point("likelihood_ratio")),
    "cheetah-direction": ("maml", mujoco("half-cheetah-direction", "paper")),
    "cheetah-velocity": ("maml", mujoco("half-cheetah-velocity", "gymnasium")),
    "ant-velocity": ("maml", mujoco("ant-velocity", "gymnasium")),
    "ant-direction": ("maml", mujoco("ant-direction", "paper")),
    "ant-goal": ("maml", mujoco("ant-goal", "paper")),
    "sine": ("maml", fill(SINE, STEPS="1", MORE=PAPER)),
    "sine-first-order": ("maml", fill(SINE, STEPS="2", MORE="first_order: true")),
    "sine-meta-sgd": ("maml", fill(SINE, STEPS="2", MORE="learned_step_sizes: meta_sgd")),
    "sine-lslr": ("maml", fill(SINE, STEPS="2", MORE="learned_step_sizes: lslr")),
    "sine-head": ("maml", fill(SINE, STEPS="2", MORE="adapt: head")),
    "sine-multi-step": ("maml", fill(SINE, STEPS="3", MORE="multi_step_iterations: 2")),
    "sine-cavia": ("{name: cavia, context: 3}", fill(SINE, STEPS="2", MORE=PAPER)),
    "sine-reptile": ("{name: reptile, batch: 3}", fill(SINE, STEPS="2", MORE=PAPER)),
    "sine-meta-lstm": ("{name: meta_lstm, hidden_size: 3}", fill(SINE, STEPS="2", MORE=PAPER)),
    "sine-pretrained": ("pretrained", fill(SINE, STEPS="1", MORE=PAPER)),
    "sine-oracle": ("oracle", fill(SINE, STEPS="1", MORE=PAPER)),
    "sine-random": ("random", fill(SINE, STEPS="1", MORE=PAPER)),
    "omniglot": ("maml", omniglot()),
    "omniglot-meta-sgd": ("maml", omniglot("learned_step_sizes: meta_sgd")),
    "omniglot-inductive": ("maml", omniglot(transductive="false")),
    "omniglot-mlp": ("maml", omniglot(mlp=True)),
    "omniglot-reptile": ("{name: reptile, batch: 3}", omniglot()),
    "omniglot-meta-lstm": ("{name: meta_lstm, hidden_size: 3}", omniglot()),
    "omniglot-pretrained": ("pretrained", omniglot()),
    "omniglot-nearest-neighbour": ("nearest_neighbour", omniglot()),
    "omniglot-prototypical": ("{name: prototypical, ways: 6}", omniglot()),
    "omniglot-matching": ("{name: matching, ways: 6, context_steps: 2}", omniglot()),
    "omniglot-siamese": ("{name: siamese, ways: 6}", omniglot()),
    "omniglot-mann": ("{name: mann, size: 6, hidden: 8, slots: 9}", omniglot()),
}
SHIPPED = ("point_navigation", "half_cheetah_direction", "sinusoid")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products are divided among threads, and their sums depend on where."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def result(case: str, folder: Path) -> dict[str, torch.Tensor]:
    """The weights, the optimiser state and the evaluation of a training."""
    method, config = CASES[case]
    (folder / "config.yaml").write_text(config)
    out = folder / "run"
    kind = ["baseline", "--kind", method]
    command = kind if method in BASELINES else ["train", f"--set=method={method}"]
    assert main([*command, str(folder / "config.yaml"), "--out", str(out)]) == 0
    (weights,) = out.glob("weights-*.safetensors")
    return {**load_file(weights), "scores": scores(out)}


def evaluation(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """The evaluation of a shipped run on a few tasks."""
    run = folder / name
    shutil.copytree((trained_runs() | OLDER)[name], run)
    command = ["evaluate", str(run), "--set", "evaluation.tasks=6"]
    assert main(command) == 0
    return {"scores": scores(run)}


def scores(run: Path) -> torch.Tensor:
    evaluated = json.loads((run / "evaluation.json").read_text())
    return torch.from_numpy(np.array(evaluated["scores"]))


def recording() -> dict[str, str] | None:
    """The checksums recorded on this kind of processor, if there are any."""
    files = [json.loads(file.read_text()) for file in FOLDER.glob("*.json")]
    return next((file for file in files if file["processor"] == processor()), None)


def checksum(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def processor() -> str:
    """The kind of processor and the version of torch, which decide how products are rounded."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = dict.fromkeys(("model name", "cpu family", "model", "stepping"), platform.processor())
    for line in reversed(lines):
        name, _, value = line.partition(":")
        if name.strip() in fields:
            fields[name.strip()] = value.strip()
    return f"{', '.join(fields.values())}, torch {torch.__version__}"


def check(case: str, result: dict[str, torch.Tensor]) -> None:
    if recorded := recording():
        prefix = f"{case}/"
        expected = {
            name.removeprefix(prefix): value
            for name, value in recorded.items()
            if name.startswith(prefix)
        }
        assert {name: checksum(leaf) for name, leaf in result.items()} == expected
        return
    values = load_file(FOLDER / "values.safetensors")
    for name, leaf in result.items():
        if f"{case}/{name}" in values:
            torch.testing.assert_close(leaf, values[f"{case}/{name}"], rtol=0.1, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_training_equals_its_recording(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "omniglot" in case:
        if not Path(os.environ.get("METARL_DATA", ""), "omniglot").is_dir():
            pytest.skip("needs the real Omniglot: METARL_DATA=folder")
        monkeypatch.setenv("METARL_CACHE", str(tmp_path.parent / "cache"))
    check(case, result(case, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_the_evaluation_of_a_shipped_run_equals_its_recording(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check(name, evaluation(name, tmp_path))


RESUMED = ("half_cheetah_direction", "sinusoid")


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_a_run_of_an_older_version_resumes_with_the_recorded_numbers(
    name: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree((trained_runs() | OLDER)[name], run)
    iteration = json.loads((run / "state.json").read_text())["iteration"]
    further = f"--set=outer.iterations={iteration + 1}"
    assert main(["train", "--resume", str(run), further, "--set=evaluation.tasks=2"]) == 0
    (weights,) = run.glob("weights-*.safetensors")
    if recorded := recording():
        sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        assert sha256 == recorded[f"resumed-{name}"]


def record(name: str, *cases: str) -> None:
    """Write tests/golden/NAME.json, or only these cases of it, on this kind of processor.

    For a new kind of processor, or where numbers are meant to change.
    """
    torch.set_num_threads(1)
    recorded = recording() if cases else None
    recorded = recorded or {"processor": processor()}
    for case in cases or (*CASES, *SHIPPED):
        with TemporaryDirectory() as folder:
            os.chdir(folder)
            results = (result if case in CASES else evaluation)(case, Path(folder))
        recorded = {k: value for k, value in recorded.items() if not k.startswith(f"{case}/")}
        recorded |= {f"{case}/{key}": checksum(leaf) for key, leaf in results.items()}
    (FOLDER / f"{name}.json").write_text(json.dumps(recorded, indent=0) + "\n")


if __name__ == "__main__":
    record(*sys.argv[1:])
