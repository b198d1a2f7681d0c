"""Any `torch.nn.Module` as a pure function of a parameter dictionary, for one task or for many.

Each call replaces the module's parameters (`torch.func.functional_call`); stacked tasks use `vmap`.
Buffers and parameters that require no gradients are constants. Checkpoints do not contain them: the
constructor creates them again, with the run's seed.
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

SEE_DOCS = "; see docs/own_networks.md"
RESERVED = ("step_size", "log_std")  # names of other meta-parameters


class FunctionalModule:
    """A module as a pure function of its parameters.

    Args:
        name: name for messages.
        construct: constructs the module; called with a seeded random state.
        shape: shape of an input, (S,) or (C, H, W).
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
        """The module; its own parameters are not used."""
        if self._module is None:
            self.init(torch.Generator().manual_seed(0))
        assert self._module is not None
        return self._module

    @property
    def head(self) -> list[str]:
        """The names of the parameters of the last submodule that has any."""
        return [name for name in self._trainable(self.module) if _owner(name) == self._last]

    def init(self, generator: torch.Generator) -> Params:
        """Initial parameters.

        Raises:
            UserError: if the module is not supported; see `check_module`.
        """
        seed = int(torch.randint(2**31, (), generator=generator))
        # modules initialise themselves from torch's global generator: seed it, and restore it after
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self._construct()
        params = {name: leaf.detach().clone() for name, leaf in self._trainable(module).items()}
        check_module(self.name, module, self.shape, self.outputs)
        self._module, self._copies = module, threading.local()
        return params

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (M, O) for inputs (M, ...), or (N, M, O) if parameters are stacked."""
        return self._forward(params, inputs)

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """The inputs of the last layer, (M, F), or (N, M, F)."""
        return self._forward(params, inputs, features=True)

    def new_head(self, params: Params, outputs: int) -> Params:
        """Replace the last layer by zeros, with another number of outputs."""
        zeros = {
            name: params[name].new_zeros(outputs, *params[name].shape[1:]) for name in self.head
        }
        return params | zeros

    def _forward(
        self, params: Mapping[str, Tensor], inputs: Tensor, features: bool = False
    ) -> Tensor:
        module = self._thread_copy()
        module_params = self._trainable(module)
        constants = {name: leaf.to(inputs.device) for name, leaf in _constants(module).items()}

        def forward_one(params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
            last_inputs: list[Tensor] = []
            last = module.get_submodule(self._last)
            hook = last.register_forward_pre_hook(lambda _, args: last_inputs.append(args[0]))
            try:
                outputs: Tensor = functional_call(module, ({**params}, constants), (inputs,))
            finally:
                hook.remove()
            return last_inputs[-1].flatten(1) if features else outputs

        params = {name: params[name] for name in module_params}
        name = next(iter(module_params))
        stacked = params[name].dim() > module_params[name].dim()
        result: Tensor = (vmap(forward_one) if stacked else forward_one)(params, inputs)
        return result

    def _thread_copy(self) -> nn.Module:
        # a call replaces the parameters of the module temporarily: each thread needs its own
        module: nn.Module | None = getattr(self._copies, "module", None)
        if module is None:
            # the copies share their tensors, which are never written to
            tensors = [*self.module.parameters(), *self.module.buffers()]
            module = copy.deepcopy(self.module, {id(tensor): tensor for tensor in tensors})
            self._copies.module = module
        return module

    @property
    def _last(self) -> str:
        return _owner(list(self._trainable(self.module))[-1])

    def _trainable(self, module: nn.Module) -> Params:
        params: Params = {
            name: leaf for name, leaf in module.named_parameters() if leaf.requires_grad
        }
        if not params:
            raise UserError(f"network {self.name!r} has no parameters that require gradients")
        for name in params:
            if name.split(".")[0] in RESERVED:
                raise UserError(
                    f"network {self.name!r} has a parameter {name!r}, which is a reserved name; "
                    "rename it"
                )
        return params


class ModuleNetwork(Section):
    """A custom `torch.nn.Module`, `module:Class`, and the settings of its constructor.

    The constructor receives `inputs` (the size of an input, or its shape (C, H, W)) and `outputs`
    if it has parameters of these names.
    """

    kind: ImportString
    settings: dict[str, Any] = Field(default_factory=dict)

    for_images: ClassVar[str | None] = None

    @field_validator("kind")
    @classmethod
    def _is_module(cls, kind: str) -> str:
        load_module(CUSTOM, kind)
        return kind

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        function = functional_module(CUSTOM, self.kind, self.settings, shape, outputs)
        self.__dict__["function"] = function  # sections are frozen
        return function.init(generator)

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return self._function(params, inputs)

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return self._function.features(params, inputs)

    def head(self, params: Mapping[str, Tensor]) -> list[str]:
        return self._function.head

    def new_head(self, params: Params, outputs: int) -> Params:
        return self._function.new_head(params, outputs)

    @property
    def _function(self) -> FunctionalModule:
        function: FunctionalModule = self.__dict__["function"]  # set by `init`
        return function


CUSTOM = Registry("network", {})


def load_module(registry: Registry, name: str) -> type[nn.Module]:
    """Load a subclass of `torch.nn.Module`.

    Raises:
        UserError: if there is no such class, or it is not a `torch.nn.Module`.
    """
    cls: type[nn.Module] = registry.load(name, ())
    if not issubclass(cls, nn.Module):
        raise UserError(
            f"{registry.kind} {name!r} must be a torch.nn.Module; derive {cls.__name__} from it"
        )
    return cls


def functional_module(
    registry: Registry,
    name: str,
    settings: Mapping[str, Any],
    shape: tuple[int, ...],
    outputs: int,
    optional: Mapping[str, Any] | None = None,
) -> FunctionalModule:
    """The module of a name as a function; see `ModuleNetwork`.

    The constructor also receives `optional` arguments, if it has parameters of their names.
    """
    inputs: int | tuple[int, ...] = shape[0] if len(shape) == 1 else shape

    def construct() -> nn.Module:
        cls, sizes = load_module(registry, name), {"inputs": inputs, "outputs": outputs}
        module: nn.Module = make(registry.kind, name, cls, settings, {**(optional or {}), **sizes})
        return module

    return FunctionalModule(name, construct, shape, outputs)


def check_module(name: str, module: nn.Module, shape: tuple[int, ...], outputs: int) -> None:
    """Check that a module can be adapted, and the adaptation differentiated, under `vmap`.

    Known unsupported layers have their own messages. All others are tested: the meta-gradient of
    two tasks under `vmap` must equal the sum of their separate meta-gradients. For some layers,
    such as torch's affine batch normalisation, it is silently wrong.

    Args:
        name: name for messages.
        module: the module.
        shape: shape of an input.
        outputs: O.

    Raises:
        UserError: with the problem and the fix.
    """
    for place, layer in module.named_modules():
        if reason := _unsupported(layer):
            where = f"layer {place!r} " if place else "it "
            raise UserError(f"network {name!r} is not supported: {where}{reason}{SEE_DOCS}")
    trial = copy.deepcopy(module).double()  # so that rounding does not look like an error
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(2, 3, *shape, generator=generator, dtype=torch.float64)
    constants = _constants(trial)
    params = {n: leaf.detach() for n, leaf in trial.named_parameters() if leaf.requires_grad}

    def outputs_of(params: Params, inputs: Tensor) -> Tensor:
        result: Tensor = functional_call(trial, (params, constants), (inputs,))
        return result

    def adapted_loss(params: Params, inputs: Tensor) -> Tensor:
        grads = grad(lambda p: outputs_of(p, inputs).square().mean())(params)
        return outputs_of({n: params[n] - 0.1 * grads[n] for n in params}, inputs).square().mean()

    try:
        result = outputs_of(params, inputs[0])
        second_result = outputs_of(params, inputs[0])
    except Exception as error:  # user code may raise any exception
        raise UserError(
            f"network {name!r} raised {type(error).__name__} on inputs of shape "
            f"{tuple(inputs[0].shape)} ({_first_line(error)}); fix its forward, or its settings"
        ) from error
    if not isinstance(result, Tensor) or result.shape != (3, outputs):
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise UserError(
            f"network {name!r} must map inputs of shape {tuple(inputs[0].shape)} to outputs of "
            f"shape {(3, outputs)}, not {got}; its constructor receives `inputs` and `outputs`"
        )
    if not torch.equal(result, second_result):
        raise UserError(
            f"network {name!r} returns different outputs for the same inputs: it is random or has "
            f"state, but must be a function of its parameters and inputs only{SEE_DOCS}"
        )
    try:
        grads = grad(lambda p: vmap(adapted_loss, in_dims=(None, 0))(p, inputs).sum())(params)
    except Exception as error:
        raise UserError(
            f"network {name!r} is not supported: vmap or a second derivative raised "
            f"{type(error).__name__} ({_first_line(error)}); replace that layer{SEE_DOCS}"
        ) from error
    expected = grad(lambda p: adapted_loss(p, inputs[0]) + adapted_loss(p, inputs[1]))(params)
    for leaf, value in grads.items():
        if not torch.allclose(value, expected[leaf], rtol=1e-6, atol=1e-8, equal_nan=True):
            raise UserError(
                f"network {name!r} is not supported: torch's vmap gives a wrong meta-gradient of "
                f"{leaf!r}, as for normalisation layers with a fused scale; apply the scale in a "
                f"separate operation{SEE_DOCS}"
            )


def _unsupported(layer: nn.Module) -> str:
    """The reason why a layer is not supported, and the fix; empty if it is supported."""
    kind = type(layer).__name__
    if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0.0:
        return (
            f"({kind}) is random, but an inner step must be a function of its data; remove it, or "
            "set p=0"
        )
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (
        layer.track_running_stats or layer.affine
    ):
        return (
            f"({kind}) keeps running statistics, which tasks cannot share, or has a wrong "
            "meta-gradient under torch's vmap; use metarl.networks.normalisation.BatchNorm, or "
            "GroupNorm"
        )
    if type(layer) is nn.LayerNorm and layer.elementwise_affine:
        return (
            "(LayerNorm) has a silently wrong meta-gradient under torch's vmap; use "
            "metarl.networks.normalisation.LayerNorm"
        )
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm) and (
        layer.track_running_stats or layer.affine
    ):
        return (
            f"({kind}) has a silently wrong meta-gradient under torch's vmap; use GroupNorm with "
            "one group for each channel, or affine=False"
        )
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        return (
            f"({kind}) does not support torch's vmap; write its step with Linear layers, or use "
            "method rl2 for a recurrent policy"
        )
    return ""


def _constants(module: nn.Module) -> Params:
    frozen = {name: leaf for name, leaf in module.named_parameters() if not leaf.requires_grad}
    return {**dict(module.named_buffers()), **frozen}


def _owner(name: str) -> str:
    """The name of the submodule that a parameter belongs to."""
    return name.rpartition(".")[0]


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return lines[0][:200]
