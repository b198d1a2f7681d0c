"""Any `torch.nn.Module` as a network: a function of a parameter dictionary, of one task or of many.

The module itself is a shell whose parameters are replaced in every call (`functional_call`); tasks
side by side go through `vmap`. Buffers, and parameters that require no gradients, are constants: a
run does not keep them, the constructor makes them again, from the run's seed where it draws them.
"""

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from metarl.config.registry import Registry, make
from metarl.config.sections import ImportString, Section
from metarl.errors import UserError
from metarl.params import Params

WAY_OUT = "; docs/own_networks.md says more"
RESERVED = ("step_size", "log_std")  # names of what stands beside a network's parameters


class Stateless:
    """A module as a function of its parameters.

    Args:
        name: what to call it in messages.
        construct: makes the module. What it draws is drawn from a seed.
        shape: of an input, (S,) or (C, H, W).
        outputs: O.
    """

    def __init__(
        self, name: str, construct: Callable[[], nn.Module], shape: tuple[int, ...], outputs: int
    ) -> None:
        self.name = name
        self.shape = shape
        self.outputs = outputs
        self._construct = construct
        self._module: nn.Module | None = None
        self._copies = threading.local()

    @property
    def module(self) -> nn.Module:
        """The shell."""
        if self._module is None:
            self.init(torch.Generator().manual_seed(0))
        assert self._module is not None
        return self._module

    @property
    def head(self) -> list[str]:
        """The names of the last layer's parameters: of the last submodule that has any."""
        return [name for name in self._trained(self.module) if _owner(name) == self._last]

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters, once it is sure that tasks side by side can be differentiated.

        Raises:
            UserError: if the module does not fit, or has layers with which they cannot.
        """
        seed = int(torch.randint(2**31, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self._construct()
        params = {name: leaf.detach().clone() for name, leaf in self._trained(module).items()}
        check_module(self.name, module, self.shape, self.outputs)
        self._module, self._copies = module, threading.local()
        return params

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (M, O) for inputs (M, ...), or (N, M, O) where parameters are stacked."""
        return self._through(params, inputs, lambda module, output, _: output)

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """What the last layer sees, (M, F), or (N, M, F)."""
        return self._through(params, inputs, lambda module, _, seen: seen[-1].flatten(1))

    def new_head(self, params: Params, outputs: int) -> Params:
        """The same parameters, with a last layer of zeros and another number of outputs."""
        zeros = {
            name: params[name].new_zeros(outputs, *params[name].shape[1:]) for name in self.head
        }
        return params | zeros

    def _through(
        self,
        params: Mapping[str, Tensor],
        inputs: Tensor,
        select: Callable[[nn.Module, Tensor, list[Tensor]], Tensor],
    ) -> Tensor:
        module = self._mine()
        own = self._trained(module)
        fixed = {name: leaf.to(inputs.device) for name, leaf in _constants(module).items()}

        def one(params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
            seen: list[Tensor] = []
            last = module.get_submodule(self._last)
            hook = last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
            try:
                output = functional_call(module, ({**params}, fixed), (inputs,))
            finally:
                hook.remove()
            return select(module, output, seen)

        params = {name: params[name] for name in own}
        first = next(iter(own))
        stacked = params[first].dim() > own[first].dim()
        result: Tensor = vmap(one)(params, inputs) if stacked else one(params, inputs)
        return result

    def _mine(self) -> nn.Module:
        """This thread's copy: a call replaces the parameters of the module for its duration."""
        mine: nn.Module | None = getattr(self._copies, "module", None)
        if mine is None:
            # the tensors are those of the shell: nothing ever writes into them
            tensors = [*self.module.parameters(), *self.module.buffers()]
            mine = copy.deepcopy(self.module, {id(tensor): tensor for tensor in tensors})
            self._copies.module = mine
        return mine

    @property
    def _last(self) -> str:
        return _owner(list(self._trained(self.module))[-1])

    def _trained(self, module: nn.Module) -> Params:
        params: Params = {
            name: leaf for name, leaf in module.named_parameters() if leaf.requires_grad
        }
        if not params:
            raise UserError(f"network {self.name!r} has no parameters that require gradients")
        for name in params:
            if name.split(".")[0] in RESERVED:
                raise UserError(
                    f"network {self.name!r} has a parameter {name!r}, whose name means something "
                    "else here; call it otherwise"
                )
        return params


class ModuleNetwork(Section):
    """A `torch.nn.Module` of one's own, `module:Class`, and the settings of its constructor.

    The constructor is given `inputs`, the size of an input or its shape (C, H, W), and `outputs`,
    where it takes arguments of these names.
    """

    kind: ImportString
    settings: dict[str, Any] = Field(default_factory=dict)

    for_images: ClassVar[str | None] = None

    @field_validator("kind")
    @classmethod
    def _is_module(cls, kind: str) -> str:
        load_module(OWN, kind)
        return kind

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        """Parameters for inputs of a shape and O outputs."""
        self.__dict__["stateless"] = stateless(OWN, self.kind, self.settings, shape, outputs)
        return self._stateless.init(generator)

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (N, M, O) for inputs (N, M, ...)."""
        return self._stateless(params, inputs)

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """What the last layer sees, (N, M, F)."""
        return self._stateless.features(params, inputs)

    def head(self, params: Mapping[str, Tensor]) -> list[str]:
        """The names of the last layer's parameters."""
        return self._stateless.head

    def new_head(self, params: Params, outputs: int) -> Params:
        """The same parameters, with a last layer of zeros and another number of outputs."""
        return self._stateless.new_head(params, outputs)

    @property
    def _stateless(self) -> Stateless:
        found: Stateless = self.__dict__["stateless"]  # `init` comes first
        return found


OWN = Registry("network", {})


def load_module(registry: Registry, name: str) -> type[nn.Module]:
    """The class of this name.

    Raises:
        UserError: if there is none, or it is no `torch.nn.Module`.
    """
    found: type[nn.Module] = registry.load(name, ())
    if not issubclass(found, nn.Module):
        raise UserError(
            f"{registry.kind} {name!r} must be a torch.nn.Module; derive {found.__name__} from that"
        )
    return found


def stateless(
    registry: Registry,
    name: str,
    settings: Mapping[str, Any],
    shape: tuple[int, ...],
    outputs: int,
    offered: Mapping[str, Any] | None = None,
) -> Stateless:
    """The module of this name, as a function; see `ModuleNetwork`.

    Its constructor is given what is `offered`, too, where it takes that.
    """
    inputs: int | tuple[int, ...] = shape[0] if len(shape) == 1 else shape

    def construct() -> nn.Module:
        factory = load_module(registry, name)
        made: nn.Module = make(
            registry.kind,
            name,
            factory,
            settings,
            {**(offered or {}), "inputs": inputs, "outputs": outputs},
        )
        return made

    return Stateless(name, construct, shape, outputs)


def check_module(name: str, module: nn.Module, shape: tuple[int, ...], outputs: int) -> None:
    """Find out whether tasks side by side can be adapted, and the adaptation differentiated.

    Layers that are known not to work have a sentence of their own. Everything else is tried: the
    meta-gradient of two tasks under `vmap` must be that of one after the other. There are layers,
    such as torch's affine batch normalisation, with which it is another one without a word.

    Args:
        name: what to call it in messages.
        module: the module.
        shape: of an input.
        outputs: O.

    Raises:
        UserError: saying what is wrong, and the way out.
    """
    for place, layer in module.named_modules():
        if reason := _unfit(layer):
            where = f"layer {place!r} " if place else "it "
            raise UserError(f"network {name!r} does not serve: {where}{reason}{WAY_OUT}")
    trial = copy.deepcopy(module).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(2, 3, *shape, generator=generator, dtype=torch.float64)
    fixed = _constants(trial)
    params = {n: leaf.detach() for n, leaf in trial.named_parameters() if leaf.requires_grad}

    def outputs_of(params: Params, inputs: Tensor) -> Tensor:
        result: Tensor = functional_call(trial, (params, fixed), (inputs,))
        return result

    def adapted(params: Params, inputs: Tensor) -> Tensor:
        slope = grad(lambda p: outputs_of(p, inputs).square().mean())(params)
        return outputs_of({n: params[n] - 0.1 * slope[n] for n in params}, inputs).square().mean()

    try:
        result = outputs_of(params, inputs[0])
        again = outputs_of(params, inputs[0])
    except Exception as error:  # whatever somebody's forward raises
        raise UserError(
            f"network {name!r} raised {type(error).__name__} on inputs of shape "
            f"{tuple(inputs[0].shape)} ({_line(error)}); mend its forward, or its settings"
        ) from error
    if not isinstance(result, Tensor) or result.shape != (3, outputs):
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise UserError(
            f"network {name!r} must turn inputs of shape {tuple(inputs[0].shape)} into outputs of "
            f"shape {(3, outputs)}, not {got}; its constructor is given `inputs` and `outputs`"
        )
    if not torch.equal(result, again):
        raise UserError(
            f"network {name!r} gives other outputs for the same inputs when it is called again: it "
            f"draws, or remembers; it must be a function of parameters and inputs alone{WAY_OUT}"
        )
    try:
        slopes = grad(lambda p: vmap(adapted, in_dims=(None, 0))(p, inputs).sum())(params)
    except Exception as error:
        raise UserError(
            f"network {name!r} does not serve: tasks side by side, or a second derivative, raised "
            f"{type(error).__name__} ({_line(error)}); replace the layer that does{WAY_OUT}"
        ) from error
    expected = grad(lambda p: adapted(p, inputs[0]) + adapted(p, inputs[1]))(params)
    for leaf, slope in slopes.items():
        if not torch.allclose(slope, expected[leaf], rtol=1e-6, atol=1e-8, equal_nan=True):
            raise UserError(
                f"network {name!r} does not serve: with tasks side by side torch computes a wrong "
                f"meta-gradient of {leaf!r}, as it does with some layers that scale what they "
                f"normalise; scale in an operation of its own{WAY_OUT}"
            )


def _unfit(layer: nn.Module) -> str:
    """Why a layer doesn't serve, and what does; nothing where it does."""
    kind = type(layer).__name__
    if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0.0:
        return (
            f"({kind}) draws in every call, and a gradient step must be a function of its data; "
            "leave it out, or set p=0"
        )
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (
        layer.track_running_stats or layer.affine
    ):
        return (
            f"({kind}) keeps statistics that tasks side by side cannot share, and torch's vmap "
            "derives its scale wrongly; take metarl.networks.normalisation.BatchNorm in its place, "
            "or GroupNorm"
        )
    if type(layer) is nn.LayerNorm and layer.elementwise_affine:
        return (
            "(LayerNorm) has a wrong meta-gradient under torch's vmap, without a word; take "
            "metarl.networks.normalisation.LayerNorm in its place"
        )
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm) and (
        layer.track_running_stats or layer.affine
    ):
        return (
            f"({kind}) has a wrong meta-gradient under torch's vmap, without a word; take "
            "GroupNorm with a group for each channel, or affine=False"
        )
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        return (
            f"({kind}) has no vmap in torch; write its step with Linear layers, or for a policy "
            "with a memory take method rl2"
        )
    return ""


def _constants(module: nn.Module) -> Params:
    fixed = {name: leaf for name, leaf in module.named_parameters() if not leaf.requires_grad}
    return {**dict(module.named_buffers()), **fixed}


def _owner(name: str) -> str:
    """The submodule that a parameter is of."""
    return name.rpartition(".")[0]


def _line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return lines[0][:200]
