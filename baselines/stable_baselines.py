"""Our policies and those of stable-baselines3 are the same functions; only the names differ."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.save_util import load_from_zip_file
from torch import Tensor

from metarl.errors import UserError
from metarl.networks.layers import ACTIVATIONS
from metarl.params import Params
from metarl.rl.policies import GaussianPolicy, Policy

MODULES = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
assert MODULES.keys() == ACTIVATIONS.keys()


def policy_keywords(policy: Policy, value_hidden_sizes: tuple[int, ...]) -> dict[str, Any]:
    """`policy_kwargs` of stable-baselines3's "MlpPolicy" for a network like ours.

    Args:
        policy: ours.
        value_hidden_sizes: of the value network, which we have no counterpart of.
    """
    sizes, activation = policy.hidden_sizes, policy.activation  # type: ignore[attr-defined]
    return {
        "net_arch": {"pi": list(sizes), "vf": list(value_hidden_sizes)},
        "activation_fn": MODULES[activation],
        "ortho_init": False,
    }


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


def load_model(path: Path, policy: Policy) -> tuple[Params, int]:
    """The policy in a model that stable-baselines3 saved, and the steps that it was trained for.

    Nothing of the file is unpickled, so that a stranger's model runs no code.

    Args:
        path: a .zip of PPO or A2C with an "MlpPolicy".
        policy: what it must be, but for its sizes and activation, which are the file's.

    Raises:
        UserError: if it is none, or doesn't fit the policy.
    """
    try:
        _, tensors, _ = load_from_zip_file(path, load_data=False)
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
        params = to_params(tensors["policy"])  # type: ignore[arg-type] # a state dictionary
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
        raise UserError(
            f"{path} is not a model of stable-baselines3's PPO or A2C with an MlpPolicy ({error})"
        ) from error
    keywords = data.get("policy_kwargs", {})
    activation = "relu" if "ReLU" in str(keywords.get("activation_fn", "Tanh")) else "tanh"
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
    return params, int(data.get("num_timesteps", 0))


def _ends(shapes: Mapping[str, tuple[int, ...]]) -> str:
    weights = [shape for name, shape in shapes.items() if name.startswith("weight")]
    return f"{weights[0][0]} → {weights[-1][1]}"


def save_model(path: Path, policy: Policy, params: Params, env: gym.Env[Any, Any]) -> None:
    """Write our policy as a model that `PPO.load` reads and `evaluate_policy` runs.

    Args:
        path: where to write the .zip.
        policy: ours.
        params: its parameters.
        env: an environment with the spaces that it is for.
    """
    model = PPO("MlpPolicy", env, policy_kwargs=policy_keywords(policy, (64, 64)), device="cpu")
    if isinstance(policy, GaussianPolicy):
        floor = torch.tensor(policy.min_std).log()
        params = {**params, "log_std": params["log_std"].clamp(min=floor)}
    load_params(model.policy, params)
    model.save(path)
