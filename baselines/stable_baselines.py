"""Conversion of policies to and from stable-baselines3: the same functions under other names."""

import io
import json
import pickletools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from metarl.errors import UserError
from metarl.io import read_zip, unzip
from metarl.networks.layers import ACTIVATIONS
from metarl.params import Params
from metarl.rl.policies import GaussianPolicy, Policy

# the members of a model's file that are read; all others are ignored
DATA, WEIGHTS = "data", "policy.pth"
MAX_BYTES = 2**28  # of the file, packed or not; a policy of two layers with 100 units has 2**16
MAX_STEPS = 2**53
# the only functions that the pickle of a state dictionary of float32 calls; torch would allow more,
# such as bytearray, which allocates as much memory as the file asks for
ALLOWED_CALLS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"}
CALL_OPCODES = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}

MODULES = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
assert MODULES.keys() == ACTIVATIONS.keys()


def policy_keywords(policy: Policy, value_hidden_sizes: tuple[int, ...]) -> dict[str, Any]:
    """The `policy_kwargs` of stable-baselines3's "MlpPolicy" for the network of a policy.

    Args:
        policy: of this package.
        value_hidden_sizes: of the separate value network.
    """
    check_perceptron(policy)
    sizes, activation = policy.hidden_sizes, policy.activation  # type: ignore[attr-defined]
    return {
        "net_arch": {"pi": list(sizes), "vf": list(value_hidden_sizes)},
        "activation_fn": MODULES[activation],
        "ortho_init": False,
    }


def check_perceptron(policy: Policy) -> None:
    """Refuse a policy whose network is not a multilayer perceptron."""
    if getattr(policy, "network", None) is not None:
        raise UserError(
            f"the network {policy.network.name} is unsupported by stable-baselines3's MlpPolicy; "  # type: ignore[attr-defined]
            "use hidden_sizes and activation for what goes through PPO (the baselines pretrained "
            "and oracle, and export)"
        )
    if getattr(policy, "context", 0):
        raise UserError(
            "context parameters are unsupported by stable-baselines3's MlpPolicy: a policy trained "
            "by method cavia cannot be exported"
        )


def to_params(weights: Mapping[str, Tensor]) -> Params:
    """Parameters of this package's policy from the weights of an `ActorCriticPolicy`.

    Args:
        weights: its state dictionary; weights of the value network are ignored.

    Raises:
        KeyError: if the weights are of another kind of policy.
    """
    params: Params = {}
    for layer, name in enumerate(_actor_layers(weights)):
        params[f"weight{layer}"] = weights[f"{name}.weight"].detach().T.clone()
        params[f"bias{layer}"] = weights[f"{name}.bias"].detach().clone()
    if "log_std" in weights:
        params["log_std"] = weights["log_std"].detach().clone()
    return params


def load_params(actor: ActorCriticPolicy, params: Mapping[str, Tensor]) -> None:
    """Write parameters into an `ActorCriticPolicy`; its value network keeps its weights."""
    weights = actor.state_dict()
    for layer, name in enumerate(_actor_layers(weights)):
        weights[f"{name}.weight"] = params[f"weight{layer}"].T
        weights[f"{name}.bias"] = params[f"bias{layer}"]
    if "log_std" in weights:
        weights["log_std"] = params["log_std"]
    actor.load_state_dict(weights)


def _actor_layers(weights: Mapping[str, Tensor]) -> list[str]:
    prefix = "mlp_extractor.policy_net."
    hidden = {int(name.split(".")[2]) for name in weights if name.startswith(prefix)}
    return [*(f"{prefix}{index}" for index in sorted(hidden)), "action_net"]


def load_model(
    path: Path, policy: Policy, scale: Sequence[float] | None = None
) -> tuple[Params, int]:
    """The policy of a model saved by stable-baselines3, and its number of training steps.

    Nothing in the file is unpickled, so an untrusted model runs no code.

    Args:
        path: a .zip of PPO or A2C with an "MlpPolicy".
        policy: the policy whose network the model must have.
        scale: factors (S,) by which this package's policy multiplies observations; the model takes
            them unscaled.

    Raises:
        UserError: if the file is no such model, or its network differs from the policy's.
    """
    try:
        members = read_zip(path, lambda name: name in (DATA, WEIGHTS), MAX_BYTES)
        data = _settings(members[DATA])
        params = to_params(_weights(members[WEIGHTS]))
    except KeyError as error:
        raise UserError(
            f"{path} is not a model of stable-baselines3's PPO or A2C with an MlpPolicy (it lacks "
            f"{error})"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path} is not a model of stable-baselines3's PPO or A2C with an MlpPolicy ({error})"
        ) from error
    activation = _activation(path, data["policy_kwargs"])
    expected = policy.init(torch.Generator())
    shapes = {name: tuple(leaf.shape) for name, leaf in params.items()}
    expected_shapes = {name: tuple(leaf.shape) for name, leaf in expected.items()}
    if shapes != expected_shapes or activation != policy.activation:  # type: ignore[attr-defined]
        hidden = [shapes[f"bias{i}"][0] for i in range(sum("bias" in n for n in shapes) - 1)]
        raise UserError(
            f"the network in {path} has inputs and outputs {_ends(shapes)}, hidden layers {hidden} "
            f"and {activation}; the config has {_ends(expected_shapes)}. If only the hidden layers "
            f"or the activation differ, add --set policy.hidden_sizes={hidden} "
            f"--set policy.activation={activation}"
        )
    if scale is not None:
        params["weight0"] = params["weight0"] / torch.tensor(scale).unsqueeze(-1)
    return params, data["num_timesteps"]


def _activation(path: Path, keywords: Mapping[str, Any]) -> str:
    """The activation of a model, tanh unless its `policy_kwargs` name another one.

    Raises:
        UserError: if this package's networks do not have it, or the model has a features extractor.
    """
    if extractor := keywords.get("features_extractor_class"):
        name = _class_name(extractor)
        if name != "FlattenExtractor":
            raise UserError(f"{path} has the features extractor {name}, which is unsupported")
    name = _class_name(keywords.get("activation_fn", "Tanh"))
    for activation, module in MODULES.items():
        if name == module.__name__:
            return activation
    names = " and ".join(module.__name__ for module in MODULES.values())
    raise UserError(f"{path} has the activation {name}; supported are {names}")


def _class_name(serialized: Any) -> str:
    """The name of a class that stable-baselines3 wrote into its JSON: {":type:": ..., repr}."""
    text = (
        " ".join(map(str, serialized.values())) if isinstance(serialized, dict) else str(serialized)
    )
    named = re.search(r"<class '[\w.]*?(\w+)'>", text)
    return named.group(1) if named else text


def _settings(content: bytes) -> dict[str, Any]:
    """The settings of a model that are used here.

    Raises:
        ValueError: if they are not JSON, or not as stable-baselines3 writes them.
    """
    try:
        data = json.loads(content)
    except RecursionError as error:
        raise ValueError("its settings are nested too deeply") from error
    if not isinstance(data, dict):
        raise ValueError("its settings are not a dictionary")
    keywords, steps = data.get("policy_kwargs", {}), data.get("num_timesteps", 0)
    if not isinstance(keywords, dict):
        raise ValueError("its policy_kwargs are not a dictionary")
    if type(steps) is not int or not 0 <= steps <= MAX_STEPS:
        raise ValueError("its num_timesteps is not a number of steps")
    return {"policy_kwargs": keywords, "num_timesteps": steps}


def _weights(content: bytes) -> dict[str, Tensor]:
    """A state dictionary, read by torch without running code from it.

    Raises:
        ValueError: if it is not one, or its tensors are not finite float32 in memory.
    """
    try:
        # the weights are an archive inside the archive
        for name, member in unzip(content, lambda name: True, MAX_BYTES).items():
            if name.endswith("data.pkl"):
                _check_calls(member)
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch promises no kind of error for a file that is damaged
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"its weights are damaged: {reason}") from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()
    ):
        raise ValueError("its weights are not a dictionary of tensors")
    for name, weight in weights.items():
        if weight.dtype != torch.float32:
            raise ValueError(f"its weights {name!r} are of {weight.dtype} instead of float32")
        if weight.dim() != (2 if name.endswith("weight") else 1):
            raise ValueError(f"its weights {name!r} have {weight.dim()} dimensions")
        if weight.numel() > weight.untyped_storage().nbytes() // 4:
            raise ValueError(f"its weights {name!r} are larger than their storage")
        if not torch.isfinite(weight).all():
            raise ValueError(f"its weights {name!r} are not finite")
    return weights


def _check_calls(content: bytes) -> None:
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in CALL_OPCODES and argument not in ALLOWED_CALLS:
            raise ValueError(f"they hold {argument or operation.name}")


def _ends(shapes: Mapping[str, tuple[int, ...]]) -> str:
    weights = [shape for name, shape in shapes.items() if name.startswith("weight")]
    return f"{weights[0][0]} → {weights[-1][1]}"


def save_model(
    file: Path | io.BytesIO,
    policy: Policy,
    params: Params,
    env: gym.Env[Any, Any],
    scale: Sequence[float] | None = None,
) -> None:
    """Write a policy as a model that `PPO.load` reads and `evaluate_policy` runs.

    If the policy takes scaled observations, the weights of the model's first layer include the
    scale.

    Args:
        file: the .zip to write.
        policy: of this package.
        params: its parameters.
        env: an environment with the policy's spaces.
        scale: factors (S,) by which the policy multiplies observations.
    """
    model = PPO("MlpPolicy", env, policy_kwargs=policy_keywords(policy, (64, 64)), device="cpu")
    if isinstance(policy, GaussianPolicy):
        min_log_std = torch.tensor(policy.min_std).log()
        params = {**params, "log_std": params["log_std"].clamp(min=min_log_std)}
    if scale is not None:
        params = {**params, "weight0": params["weight0"] * torch.tensor(scale).unsqueeze(-1)}
    load_params(model.policy, params)
    model.save(file)
