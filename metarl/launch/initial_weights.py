"""The weights that a training starts from: those of another run, or those of its method."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from metarl.config.files import CONFIG, read_values
from metarl.errors import UserError
from metarl.experiment import AnyConfig, diff_recorded
from metarl.method import Method, TrainingState, load_method, resolve
from metarl.rl.config import Config
from metarl.runs.checkpoint import Checkpoint, read_checkpoint
from metarl.runs.run import locate

# they shape the initial weights only
WITHOUT_EFFECT = ("policy.output_scale", "policy.init_std")


def prepare(config: AnyConfig) -> AnyConfig:
    """A config with everything that a training measures or looks up once, before it starts.

    Raises:
        UserError: if it cannot be measured, or there is no run that `init_from` names.
    """
    source = config.init_from
    if source is None or source.sha256:
        return resolve(config)
    folder = locate(Path(source.run))
    # recorded, since the run that `init_from` names may be trained on while this one is resumed
    description = read_checkpoint(folder).description
    source = source.model_copy(
        update={name: getattr(description, name) for name in ("iteration", "sha256", "commit")}
    )
    update: dict[str, object] = {"init_from": source}
    if isinstance(config, Config) and config.policy.observation_scale == "measured":
        # the weights belong to the factors that they were trained with
        values = description.config or read_values(folder / CONFIG)
        scale = values.get("policy", {}).get("observation_scale")
        changed = {"observation_scale": scale and tuple(scale)}
        update["policy"] = config.policy.model_copy(update=changed)
    return resolve(config.model_copy(update=update))


def initial_state(method: Method) -> TrainingState:
    """The state before the first iteration, with the weights that `init_from` names, if any.

    Raises:
        UserError: if the run is not there, has other weights than when training began, or a network
            that does not fit.
    """
    state, source = method.initial_state(), method.problem.config.init_from
    if source is None:
        return state
    folder = locate(Path(source.run))
    checkpoint = read_checkpoint(folder)
    if checkpoint.description.sha256 != source.sha256:
        raise UserError(
            f"init_from: the weights of {source.run} have changed since they were read (sha256 "
            f"{str(source.sha256)[:12]}…); start again in another directory"
        )
    if reason := _mismatch(checkpoint, folder, method, state):
        raise UserError(
            f"init_from: the weights of {source.run} do not fit this config: {reason}; they need "
            "the same network and the same spaces of observations and actions"
        )
    recorded = checkpoint.description.config or read_values(folder / CONFIG)
    if not _has_constants_of(method, recorded.get("seed", method.problem.config.seed)):
        raise UserError(
            f"init_from: the network has buffers or frozen parameters that depend on the seed, and "
            f"are not part of the weights; set seed={recorded['seed']}, that of {source.run}"
        )
    params = checkpoint.state.params
    # in the order of this network: flattened parameters depend on it
    return replace(state, params={name: params[name] for name in state.params})


def _has_constants_of(method: Method, seed: int) -> bool:
    """Whether what a custom network does not train is the same with another seed."""
    constants = _constants(method)
    if not constants or seed == method.problem.config.seed:
        return True
    update = {"seed": seed, "init_from": None}
    other = load_method(method.problem.config.model_copy(update=update))
    other.initial_state()  # binds its network
    return all(torch.equal(leaf, constants[name]) for name, leaf in _constants(other).items())


def _constants(method: Method) -> Mapping[str, Tensor]:
    config = method.problem.config
    if isinstance(config, Config):
        network = getattr(method.policy, "network", None)  # type: ignore[attr-defined]
    else:
        network = vars(config.network).get("function")
    return network.constants if network else {}


def _mismatch(checkpoint: Checkpoint, folder: Path, method: Method, state: TrainingState) -> str:
    """The reason why weights are not those of the config's network; empty if they are."""
    params = checkpoint.state.params
    if names := sorted(params.keys() ^ state.params.keys()):
        owner = "the run" if names[0] in params else "the config"
        return f"only {owner} has a tensor {names[0]}"
    for name, leaf in state.params.items():
        if params[name].shape != leaf.shape:
            return f"{name} has shape {tuple(params[name].shape)}, not {tuple(leaf.shape)}"
    # equal shapes can be other functions, such as of tanh units or of scaled observations
    values = checkpoint.description.config or read_values(folder / CONFIG)
    changed = diff_recorded(values, method.problem.config, WITHOUT_EFFECT)
    return next((text for text in changed if text.startswith(("policy.", "network."))), "")
