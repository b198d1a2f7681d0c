"""Conversion of policies to and from stable-baselines3: the same functions under other names."""

import base64
import io
import json
import pickletools
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
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

LAYERS = (
    "mlp_extractor.policy_net.",
    "mlp_extractor.value_net.",
    "action_net.",
    "value_net.",
    "log_std",
)
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
        # torch.nn.Linear keeps weights as (outputs, inputs), and this package as (inputs, outputs)
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
    # a Sequential of linear layers and activations, whose indices have gaps
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
        UserError: if the file is no such model, or its network differs from the policy's, which
            must be a multilayer perceptron.
    """
    check_perceptron(policy)
    try:
        members = read_zip(path, lambda name: name in (DATA, WEIGHTS), MAX_BYTES)
        data = _settings(members[DATA])
        activation = _check_settings(path, data, policy)
        weights = _weights(members[WEIGHTS])
        params = to_params(weights)
    except (KeyError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{path} is not a model of stable-baselines3's PPO or A2C with an MlpPolicy ({reason})"
        ) from error
    if others := [name for name in weights if not name.startswith(LAYERS)]:
        raise UserError(
            f"{path} has the layer {others[0].rpartition('.')[0]!r}, which an MlpPolicy lacks; "
            "supported are separate networks for actions and values, without further layers"
        )
    # the policy's clamp would raise a smaller deviation, which is another policy
    std = params["log_std"].exp().min() if "log_std" in params else torch.inf
    if std < (min_std := getattr(policy, "min_std", 0.0)):
        raise UserError(
            f"{path} has a standard deviation of {std:.2g}, below policy.min_std ({min_std:g}); "
            f"add --set policy.min_std={std / 2:.1g}"
        )
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
        # this package's network sees o · scale: (o · scale) (W / scale) = o W
        params["weight0"] = params["weight0"] / torch.tensor(scale).unsqueeze(-1)
    return params, data["num_timesteps"]


def _check_settings(path: Path, data: Mapping[str, Any], policy: Policy) -> str:
    """The activation of a model; UserError if its actions depend on more than its layers."""
    keywords, space = data["policy_kwargs"], data.get("action_space")
    refusal = f"{path} cannot be used: it has "
    if isinstance(policy_class := data.get("policy_class"), dict):
        name = _pickled_class(policy_class.get(":serialized:", ""))
        if name != f"{ActorCriticPolicy.__module__}.{ActorCriticPolicy.__name__}":
            raise UserError(f"{refusal}the policy class {name}; supported is MlpPolicy of PPO, A2C")
    if data.get("use_sde"):
        raise UserError(
            f"{refusal}state-dependent noise (use_sde), whose standard deviation is a function of "
            "the observation; train it with use_sde=False"
        )
    if data.get("_last_original_obs") is not None:
        raise UserError(
            f"{refusal}been trained on observations that VecNormalize scales by statistics outside "
            "of this file; fold them into the first layer, or train without VecNormalize (if it "
            "scaled rewards only: model._last_original_obs = None; model.save(...))"
        )
    if files := sorted(path.parent.glob("*normalize*.pkl")):
        warnings.warn(
            f"{files[0]} lies beside {path}: if it holds the statistics of VecNormalize for this "
            "model, fold them into its first layer, since the model is used without them",
            stacklevel=3,
        )
    if isinstance(space, dict):
        kind = _class_name(space.get(":type:")).rpartition(".")[2]
        sizes = getattr(policy, "sizes", ())
        expected = "Box" if isinstance(policy, GaussianPolicy) else "Discrete"
        expected = f"MultiDiscrete {list(sizes)}" if sizes else expected
        if kind == "MultiDiscrete":
            kind = f"{kind} {[int(size) for size in re.findall('[0-9]+', str(space.get('nvec')))]}"
        if any(map(int, starts := re.findall("[0-9]+", str(space.get("start", 0))))):
            kind = f"{kind} from {' '.join(starts)}"
        if kind != expected:
            raise UserError(f"{refusal}actions {kind}, but the family has {expected}")
    observations = data.get("observation_space")
    fields = observations if isinstance(observations, dict) else {}
    # stable-baselines3 divides bytes of this shape by 255 and moves their channels
    if fields.get("dtype") == "uint8" and len(str(fields.get("_shape")).split(",")) == 3:
        raise UserError(f"{path} cannot be used: images as observations are unsupported for models")
    extractor = _class_name(keywords.get("features_extractor_class", str(FlattenExtractor)))
    if extractor != _class_name(str(FlattenExtractor)):
        raise UserError(f"{refusal}the features extractor {extractor}, which is unsupported")
    name = _class_name(keywords.get("activation_fn", str(torch.nn.Tanh)))
    activations = {_class_name(str(module)): key for key, module in MODULES.items()}
    if name not in activations:
        names = " and ".join(module.__name__ for module in MODULES.values())
        raise UserError(f"{refusal}the activation {name}; supported are torch's {names}")
    return activations[name]


def _class_name(text: Any) -> str:
    """The full name in the repr of a class, which stable-baselines3 writes into its JSON."""
    named = re.fullmatch(r"<class '([\w.]+)'>", str(text))
    return named.group(1) if named else str(text)[:60]


def _pickled_class(serialized: Any) -> str:
    """The full name of a class in a pickle, without running it; ValueError if it is no pickle."""
    try:
        operations = [*pickletools.genops(base64.b64decode(str(serialized)))]
    except Exception as error:  # pickletools promises no kind of error
        raise ValueError(f"its policy_class is damaged: {error}") from error
    strings = [argument for _, argument, _ in operations if isinstance(argument, str)]
    # a class of the user's main module is pickled by value, with all of its code
    return ".".join(strings) if len(strings) == 2 else "of a script"


def _settings(content: bytes) -> dict[str, Any]:
    """The settings of a model, with defaults for required ones; ValueError if they are damaged."""
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
    return {**data, "policy_kwargs": keywords, "num_timesteps": steps}


def _weights(content: bytes) -> dict[str, Tensor]:
    """A state dictionary of finite float32, read without running code from it; else ValueError."""
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
        # a stride of 0 makes a huge tensor out of a few bytes
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
        # stable-baselines3 has no lower bound: write the deviation that the policy acts with
        min_log_std = torch.tensor(policy.min_std).log()
        params = {**params, "log_std": params["log_std"].clamp(min=min_log_std)}
    if scale is not None:
        params = {**params, "weight0": params["weight0"] * torch.tensor(scale).unsqueeze(-1)}
    load_params(model.policy, params)
    space = model.observation_space
    assert isinstance(space, gym.spaces.Box)
    # a class of this package, as of flattened observations, could not be read without it
    model.observation_space = gym.spaces.Box(space.low, space.high, dtype=space.dtype.type)
    model.save(file)
