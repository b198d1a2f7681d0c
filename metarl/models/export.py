"""Policies in formats that need no metarl: stable-baselines3, ONNX, TorchScript, torch.export."""

import io
import logging
import warnings
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metarl.baselines.stable_baselines import save_model
from metarl.errors import UserError
from metarl.io import check_writable, report_os_errors, write_atomically
from metarl.rl.policies import FeedforwardPolicy
from metarl.rl.policy_agent import PolicyAgent
from metarl.rng import make_rng
from metarl.step_sizes import split

NUM_ROWS = 16  # the observations on which an exported policy is compared
TOLERANCE = 1e-4  # of actions, absolute and relative: other libraries sum in another order
ONNX = ("onnx", "onnxscript", "onnxruntime")  # the packages that it needs
OPSET = 20  # of ONNX: supported by onnxruntime since 1.17 (2024)


class DeterministicPolicy(nn.Module):
    """The most probable actions of a feedforward policy, as a module with constant weights."""

    scale: Tensor
    noise: Tensor

    def __init__(self, agent: PolicyAgent) -> None:
        super().__init__()
        _, scale = agent.problem.unscaled_family_and_scale
        theta, _ = split(agent.params)
        self._policy = agent.policy
        self._buffers_of = {name: f"theta_{number}" for number, name in enumerate(theta)}
        for name, leaf in theta.items():  # the name of a buffer has no dots
            self.register_buffer(self._buffers_of[name], leaf.detach().clone())
        self.register_buffer("scale", torch.tensor(scale or (1.0,)))
        # a distribution's most probable action is the one without noise
        noise = torch.from_numpy(agent.policy.noise(make_rng(0, "export"), (1,)))
        self.register_buffer("noise", torch.zeros_like(noise))

    def forward(self, observations: Tensor) -> Tensor:
        """Actions (N, A), or indices (N,), for observations (N, S)."""
        theta = {name: getattr(self, buffer) for name, buffer in self._buffers_of.items()}
        distribution, _ = self._policy.step(theta, (), observations * self.scale)
        return self._policy.act(distribution, self.noise)


def check_export(agent: PolicyAgent, path: Path) -> None:
    """Check that a policy can be written into a file, before it is adapted or converted.

    Raises:
        UserError: if the file exists or cannot be written, its format needs a package that is not
            installed, or does not support the policy.
    """
    if path.suffix not in FORMATS:
        raise UserError(
            f"{path}: the suffix selects the format of an exported policy: {', '.join(FORMATS)}"
        )
    if path.exists():
        raise UserError(f"{path} exists already; name another file")
    check_writable(path, "; name another file")
    problem, policy = agent.problem, agent.policy
    if not isinstance(policy, FeedforwardPolicy):
        raise UserError(
            "a policy with a memory cannot be exported: these formats keep nothing between "
            "actions; use metarl.load"
        )
    if path.suffix != ".zip" and (problem.task_conditioned or policy.image):
        inputs = "images" if policy.image else "the task"
        raise UserError(f"a policy that observes {inputs} can only be exported as .zip")
    missing = [name for name in ONNX if not find_spec(name)]
    if path.suffix == ".onnx" and missing:
        raise UserError(
            f"an .onnx file needs {missing[0]}, which is not installed: pip install "
            "'metarl-maml[onnx]'; or export a .pt file"
        )


def export(agent: PolicyAgent, path: Path) -> None:
    """Write a policy into a new file; see `AdaptivePolicy.export`."""
    check_export(agent, path)
    try:
        content = FORMATS[path.suffix](agent)
    except UserError:
        raise
    except Exception as error:  # torch's exporters raise many kinds for a user's module
        raise UserError(
            f"the network cannot be exported as {path.suffix} ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); use metarl.load"
        ) from error
    with report_os_errors(f"cannot write {path}", "; name another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def _stable_baselines(agent: PolicyAgent) -> bytes:
    family, scale = agent.problem.unscaled_family_and_scale
    content = io.BytesIO()
    with closing(family.make()) as env:  # for its spaces, which a model contains
        save_model(content, agent.policy, agent.params, env, scale)
    return content.getvalue()


def _onnx(agent: PolicyAgent) -> bytes:
    # torch reports operators of torchvision that no policy has, and deprecates its own code
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            _exported_program(agent),
            input_names=["observations"],
            output_names=["actions"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    providers = ["CPUExecutionProvider"]  # those of GPUs round in another way
    session = import_module("onnxruntime").InferenceSession(content, providers=providers)
    _check(agent, lambda rows: session.run(None, {"observations": rows})[0])
    return content


def _torchscript(agent: PolicyAgent) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        # torch recommends torch.export; libtorch and older robots load TorchScript
        warnings.simplefilter("ignore", DeprecationWarning)
        jit: Any = torch.jit  # untyped
        jit.save(jit.trace(DeterministicPolicy(agent), _rows(agent)), content)
        return _checked(agent, content, jit.load)


def _program(agent: PolicyAgent) -> bytes:
    content = io.BytesIO()
    torch.export.save(_exported_program(agent), content)
    return _checked(agent, content, lambda file: torch.export.load(file).module())


def _checked(agent: PolicyAgent, content: io.BytesIO, load: Callable[[io.BytesIO], Any]) -> bytes:
    content.seek(0)
    loaded = load(content)
    _check(agent, lambda rows: loaded(torch.from_numpy(rows)).numpy())
    return content.getvalue()


FORMATS = {".zip": _stable_baselines, ".onnx": _onnx, ".pt": _torchscript, ".pt2": _program}


def _exported_program(agent: PolicyAgent) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("N")  # files take any number of observations
    return torch.export.export(
        DeterministicPolicy(agent), (_rows(agent),), dynamic_shapes=({0: batch},)
    )


def _rows(agent: PolicyAgent) -> Tensor:
    """Observations (NUM_ROWS, S), of order one once they are scaled."""
    _, scale = agent.problem.unscaled_family_and_scale
    size = agent.policy.observation_size
    rows = make_rng(0, "export", size).standard_normal((NUM_ROWS, size), dtype=np.float32)
    return torch.from_numpy(rows / np.array(scale or 1.0, dtype=np.float32))


def _check(agent: PolicyAgent, act: Callable[[NDArray[np.float32]], NDArray[Any]]) -> None:
    """Raise UserError if an exported policy acts differently from the agent."""
    rows = _rows(agent).numpy()
    for observations in (rows, rows[:1]):  # one row too: traces may have fixed the batch size
        actions = act(observations)
        if agent.takes_arrays:
            expected = agent.fork(0).act(observations, deterministic=True)
        else:  # the agent would flatten rows that are flat already
            with torch.no_grad():
                expected = DeterministicPolicy(agent)(torch.from_numpy(observations)).numpy()
        tolerance = TOLERANCE * (1.0 + np.abs(expected))
        # so that NaN is no equal action
        agrees = actions.shape == expected.shape and (np.abs(actions - expected) <= tolerance).all()
        if not agrees:
            raise UserError(
                "the exported policy does not act as this one: its network cannot be exported; "
                "use metarl.load, or export a .zip file"
            )
