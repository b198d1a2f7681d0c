"""Our policies and those of stable-baselines3 are the same functions; only the names differ."""

import io
import json
import pickletools
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

# what a model's file needs of us: its settings and its weights; whatever else is in it stays there
DATA, WEIGHTS = "data", "policy.pth"
MOST_BYTES = 2**28  # of the file, packed or not; a policy of two layers with 100 units has 2**16
MOST_STEPS = 2**53
# all that the pickle of a state dictionary of float32 calls; torch itself would call more, such as
# bytearray, which sets aside as much memory as it is told to
CALLED = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"}
CALLING = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}

MODULES = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
assert MODULES.keys() == ACTIVATIONS.keys()


def policy_keywords(policy: Policy, value_hidden_sizes: tuple[int, ...]) -> dict[str, Any]:
    """`policy_kwargs` of stable-baselines3's "MlpPolicy" for a network like ours.

    Args:
        policy: ours.
        value_hidden_sizes: of the value network, which we have no counterpart of.
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
            f"the network of this policy is {policy.network.name}, which stable-baselines3's "  # type: ignore[attr-defined]
            "MlpPolicy has no counterpart of: take one with hidden_sizes and activation alone for "
            "what goes through PPO (the baselines pretrained and oracle, and export)"
        )
    if getattr(policy, "context", 0):
        raise UserError(
            "this policy has context parameters, which stable-baselines3's MlpPolicy has no place "
            "for: what method cavia trained cannot be exported"
        )


def to_params(weights: Mapping[str, Tensor]) -> Params:
    """Our parameters from the weights of an `ActorCriticPolicy`.

    Args:
        weights: its state dictionary; what belongs to the value network is left out.

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
    """Write our parameters into an `ActorCriticPolicy`; its value network stays as it is."""
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
    """The policy in a model that stable-baselines3 saved, and the steps that it was trained for.

    Nothing of the file is unpickled, so that a stranger's model runs no code.

    Args:
        path: a .zip of PPO or A2C with an "MlpPolicy".
        policy: what it must be, but for its sizes and activation, which are the file's.
        scale: factors (S,) by which our policy sees observations multiplied; the model's does not.

    Raises:
        UserError: if it is none, or doesn't fit the policy.
    """
    try:
        members = read_zip(path, lambda name: name in (DATA, WEIGHTS), MOST_BYTES)
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
    activation = "relu" if "ReLU" in str(data["policy_kwargs"].get("activation_fn")) else "tanh"
    expected = policy.init(torch.Generator())
    shapes = {name: tuple(leaf.shape) for name, leaf in params.items()}
    wanted = {name: tuple(leaf.shape) for name, leaf in expected.items()}
    if shapes != wanted or activation != policy.activation:  # type: ignore[attr-defined]
        hidden = [shapes[f"bias{i}"][0] for i in range(sum("bias" in n for n in shapes) - 1)]
        raise UserError(
            f"the network in {path} has inputs and outputs {_ends(shapes)}, hidden layers {hidden} "
            f"and {activation}; the config wants {_ends(wanted)}. If only the hidden layers or the "
            f"activation differ, add --set policy.hidden_sizes={hidden} "
            f"--set policy.activation={activation}"
        )
    if scale is not None:
        params["weight0"] = params["weight0"] / torch.tensor(scale).unsqueeze(-1)
    return params, data["num_timesteps"]


def _settings(content: bytes) -> dict[str, Any]:
    """What of a model's settings matters here.

    Raises:
        ValueError: if they are no JSON, or not as stable-baselines3 writes them.
    """
    try:
        data = json.loads(content)
    except RecursionError as error:
        raise ValueError("its settings are nested too deeply") from error
    if not isinstance(data, dict):
        raise ValueError("its settings are no dictionary")
    keywords, steps = data.get("policy_kwargs", {}), data.get("num_timesteps", 0)
    if not isinstance(keywords, dict):
        raise ValueError("its policy_kwargs are no dictionary")
    if type(steps) is not int or not 0 <= steps <= MOST_STEPS:
        raise ValueError("its num_timesteps is no number of steps")
    return {"policy_kwargs": keywords, "num_timesteps": steps}


def _weights(content: bytes) -> dict[str, Tensor]:
    """A state dictionary, unpickled by torch without running anything.

    Raises:
        ValueError: if it is none, or its tensors are anything but finite float32 in memory.
    """
    try:
        # an archive in itself
        for name, member in unzip(content, lambda name: True, MOST_BYTES).items():
            if name.endswith("data.pkl"):
                _check_calls(member)
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch promises no kind of error for a file that is damaged
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"its weights are damaged: {reason}") from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()
    ):
        raise ValueError("its weights are no dictionary of tensors")
    for name, weight in weights.items():
        if weight.dtype != torch.float32:
            raise ValueError(f"its weights {name!r} are of {weight.dtype} instead of float32")
        if weight.dim() != (2 if name.endswith("weight") else 1):
            raise ValueError(f"its weights {name!r} have {weight.dim()} dimensions")
        if weight.numel() > weight.untyped_storage().nbytes() // 4:
            raise ValueError(f"its weights {name!r} are larger than what is stored of them")
        if not torch.isfinite(weight).all():
            raise ValueError(f"its weights {name!r} are not finite")
    return weights


def _check_calls(content: bytes) -> None:
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in CALLING and argument not in CALLED:
            raise ValueError(f"they hold {argument or operation.name}")


def _ends(shapes: Mapping[str, tuple[int, ...]]) -> str:
    weights = [shape for name, shape in shapes.items() if name.startswith("weight")]
    return f"{weights[0][0]} → {weights[-1][1]}"


def save_model(
    path: Path,
    policy: Policy,
    params: Params,
    env: gym.Env[Any, Any],
    scale: Sequence[float] | None = None,
) -> None:
    """Write our policy as a model that `PPO.load` reads and `evaluate_policy` runs.

    Where ours sees scaled observations, the model's first layer scales them.

    Args:
        path: where to write the .zip.
        policy: ours.
        params: its parameters.
        env: an environment with the spaces that it is for.
        scale: factors (S,) by which our policy sees observations multiplied.
    """
    model = PPO("MlpPolicy", env, policy_kwargs=policy_keywords(policy, (64, 64)), device="cpu")
    if isinstance(policy, GaussianPolicy):
        floor = torch.tensor(policy.min_std).log()
        params = {**params, "log_std": params["log_std"].clamp(min=floor)}
    if scale is not None:
        params = {**params, "weight0": params["weight0"] * torch.tensor(scale).unsqueeze(-1)}
    load_params(model.policy, params)
    model.save(path)
