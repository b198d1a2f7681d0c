"""Any `torch.nn.Module` as a pure function of a parameter dictionary, for one task or for many.

Each call replaces the module's parameters, as `torch.func.functional_call` does; tasks use `vmap`.
Buffers and parameters that require no gradients are constants. Checkpoints do not contain them: the
constructor creates them again, with the run's seed.
"""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.utils.stateless import _reparametrize_module

from metarl.config.registry import Registry, make
from metarl.config.sections import Arguments, ImportString, Section
from metarl.context import CONTEXT
from metarl.derivatives import ExactDerivatives
from metarl.errors import UserError
from metarl.params import Params, flatten

SEE_DOCS = "; see docs/own_networks.md"
RESERVED = ("step_size", "log_std")  # names of other meta-parameters
_SEEDING = threading.RLock()  # torch's global generator is seeded in one thread at a time


class FunctionalModule:
    """A module, made by `construct` with a seeded random state, as a pure function.

    Its inputs have the shape (S,) or (C, H, W). `name` is for messages. `constants` are the buffers
    and frozen parameters, which are those of the last `init`; before it, those that `init` gives
    with the generator that `default_generator` returns.
    """

    def __init__(
        self,
        name: str,
        construct: Callable[[], nn.Module],
        shape: tuple[int, ...],
        outputs: int,
        default_generator: Callable[[], torch.Generator] = torch.Generator,
    ) -> None:
        self.name, self.shape, self.outputs, self._construct = name, shape, outputs, construct
        self._default_generator = default_generator
        self._module: nn.Module | None = None
        self._copies = threading.local()

    @property
    def module(self) -> nn.Module:
        """The module; its own parameters are not used."""
        if self._module is None:
            self.init(self._default_generator())
        assert self._module is not None
        return self._module

    @property
    def head(self) -> list[str]:
        """The names of the parameters of the last layer: that called last of those that have any.

        A parameter that it shares with another submodule adapts in both.
        """
        _ = self.module  # initialised on first use
        return [name for place, name in self._places.items() if _owner(place) == self._last]

    def init(self, generator: torch.Generator) -> Params:
        """Initial parameters of a module that can be adapted, differentiably, under `vmap`.

        Known unsupported layers have their own messages. All others are tested: the meta-gradient
        of two tasks under `vmap` must equal the sum of their separate meta-gradients.

        Raises:
            UserError: if the module is not supported, with the problem and the fix.
        """
        seed = int(torch.randint(2**31, (), generator=generator))
        # modules initialise themselves from torch's global generator: seed it, and restore it after
        with _SEEDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self._construct()
            inputs = torch.rand(2, 3, *self.shape, generator=torch.Generator().manual_seed(0))
            inputs = inputs.to(next((leaf.dtype for leaf in module.parameters()), inputs.dtype))
            with self._errors(inputs[0]), torch.no_grad(), _recorded(module) as called:
                module(inputs[0].clone())  # lazily initialised layers take their sizes from it
        params = self._bind(module, called)
        self._check(params, inputs)
        return params

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (M, O) for inputs (M, ...), or (N, M, O) if parameters are stacked."""
        with self._errors(inputs):
            return self._forward(params, inputs)

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """The inputs of the last layer, (M, F), or (N, M, F)."""
        with self._errors(inputs):
            return self._forward(params, inputs, features=True)

    def new_head(self, params: Params, outputs: int) -> Params:
        """Replace the last layer by zeros, with another number of outputs.

        Raises:
            UserError: if the last layer cannot be replaced.
        """
        new = {name: params[name].new_zeros(outputs, *params[name].shape[1:]) for name in self.head}
        # outputs of zero show that no other layer follows
        is_shared = sum(name in new for name in self._places.values()) > len(new)
        inputs = next(iter(new.values())).new_zeros(2, *self.shape)
        try:
            is_zero = torch.equal(self(params | new, inputs), inputs.new_zeros(2, outputs))
        except UserError:
            is_zero = False
        if is_shared or not is_zero:
            raise UserError(
                f"the last layer {self._last!r} of network {self.name!r} cannot be replaced by one "
                f"with {outputs} outputs, which fine-tuning of a pretrained classifier requires; "
                "end the network with a torch.nn.Linear that shares no parameters"
            )
        return params | new

    def _bind(self, module: nn.Module, called: Sequence[str]) -> Params:
        """Use this module, whose layers were called in this order; return its parameters."""
        # `named_modules` gives each layer once: `functional_call` would leave the tensors of the
        # first call in a layer that it replaces under two names. A parameter that two layers share
        # is replaced in each of its places.
        leaves, self.constants = dict[str, nn.Parameter](), dict[str, Tensor]()
        for owner, layer in module.named_modules():
            leaves |= layer.named_parameters(owner, recurse=False, remove_duplicate=False)
            self.constants |= layer.named_buffers(owner, recurse=False, remove_duplicate=False)
        self.constants |= {name: leaf for name, leaf in leaves.items() if not leaf.requires_grad}
        params = {n: leaf.detach() for n, leaf in module.named_parameters() if leaf.requires_grad}
        if not params:
            raise UserError(f"network {self.name!r} has no parameters that require gradients")
        for name in params:
            if name.split(".")[0] in RESERVED or name == CONTEXT:
                raise UserError(
                    f"network {self.name!r} has a parameter {name!r}, which is a reserved name; "
                    "rename it"
                )
        names = {leaf: name for name, leaf in module.named_parameters()}
        self._places = {n: names[leaf] for n, leaf in leaves.items() if leaf.requires_grad}
        owners = [_owner(name) for name in params]
        # registered last, if the forward uses its parameters without calling it
        layers = [layer for layer in called if layer in owners]
        self._last = layers[-1] if owners[-1] in layers else owners[-1]
        self._module, self._copies = module, threading.local()
        return {name: leaf.clone() for name, leaf in params.items()}

    def _forward(
        self, params: Mapping[str, Tensor], inputs: Tensor, features: bool = False
    ) -> Tensor:
        module = self._thread_copy()
        constants = {name: leaf.to(inputs.device) for name, leaf in self.constants.items()}

        def forward_one(params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
            leaves = {place: params[name] for place, name in self._places.items()} | constants
            last_inputs: list[Tensor] = []
            last = module.get_submodule(self._last)
            # by a hook, since the inputs of a layer are no result of a forward
            hook = last.register_forward_pre_hook(
                lambda _, args, kwargs: last_inputs.append(*[*args, *kwargs.values()][:1]),
                with_kwargs=True,
            )
            try:
                # torch.func.functional_call does the same, but refuses to be traced (TorchScript)
                with ExactDerivatives(), _reparametrize_module(module, leaves):
                    outputs: Tensor = module(inputs)
            finally:
                hook.remove()
            if features and not last_inputs:
                raise UserError(
                    f"the forward of network {self.name!r} does not call its last layer "
                    f"{self._last!r}, whose inputs are the features; call it as a module"
                )
            return last_inputs[-1].flatten(1) if features else outputs

        params = {name: params[name] for name in self._places.values()}
        place, name = next(iter(self._places.items()))
        # a stacked parameter has one axis more, that of the tasks
        stacked = params[name].dim() > self.module.get_parameter(place).dim()
        return (vmap(forward_one) if stacked else forward_one)(params, inputs)

    @contextmanager
    def _errors(self, inputs: Tensor) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # user code may raise any exception
            raise UserError(
                f"network {self.name!r} raised {type(error).__name__} on inputs of shape "
                f"{tuple(inputs.shape)} and type {inputs.dtype} ({_first_line(error)}); fix its "
                "forward, or its settings"
            ) from error

    def _thread_copy(self) -> nn.Module:
        # a call replaces the parameters of the module temporarily: each thread needs its own
        module: nn.Module | None = getattr(self._copies, "module", None)
        if module is None:
            # the copies share their tensors, which are never written to
            tensors = [*self.module.parameters(), *self.module.buffers()]
            try:
                module = copy.deepcopy(self.module, {id(tensor): tensor for tensor in tensors})
            except Exception as error:
                raise UserError(
                    f"network {self.name!r} cannot be copied, as each thread needs a copy "
                    f"({_first_line(error)}); compute tensors in its forward, and keep nothing "
                    "else in it than layers, parameters, buffers and settings"
                ) from error
            self._copies.module = module
        return module

    def _check(self, params: Params, inputs: Tensor) -> None:
        """Refuse an unsupported module, see `init`; inputs (2, 3, ...) of two tasks."""
        refusal = f"network {self.name!r} is not supported: "
        for place, layer in self.module.named_modules():
            if reason := _unsupported(layer):
                where = f"layer {place!r} " if place else "it "
                raise UserError(f"{refusal}{where}{reason}{SEE_DOCS}")
        examples = inputs[0].clone()
        # twice: dropout and layers with state would give other outputs
        result, second_result = self(params, examples), self(params, inputs[0].clone())
        shape = (len(examples), self.outputs)
        if not isinstance(result, Tensor) or result.shape != shape:
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise UserError(
                f"network {self.name!r} must map inputs of shape {tuple(examples.shape)} to "
                f"outputs of shape {shape}, not {got}; its constructor receives `inputs` and "
                "`outputs`"
            )
        if result.dtype != inputs.dtype:
            raise UserError(
                f"network {self.name!r} must map inputs of type {inputs.dtype} to outputs of the "
                f"same type, not {result.dtype}; convert them at the end of its forward"
            )
        if not torch.equal(examples, inputs[0]):
            raise UserError(
                f"network {self.name!r} modifies its inputs in place; begin its forward with "
                "x = x.clone()"
            )
        if not torch.equal(result, second_result):
            raise UserError(
                f"{refusal}its outputs differ for the same inputs: it is random or has state, but "
                f"must be a function of its parameters and inputs only{SEE_DOCS}"
            )
        if result.requires_grad:  # although all leaves were replaced by ones that do not
            raise UserError(
                f"network {self.name!r} uses trainable tensors that are not among its parameters "
                "and would not be trained; register them as torch.nn.Parameter, and lists of "
                "layers as torch.nn.ModuleList"
            )
        # in double precision rounding does not look like an error, but a forward that converts to
        # another precision, such as x.float(), may not support it
        trial, trial_inputs, tolerance = copy.copy(self), inputs.double(), 1e-6
        try:
            trial_params = trial._bind(copy.deepcopy(self.module).double(), [self._last])
            supports_double = trial(trial_params, trial_inputs[0]).dtype == torch.float64
        except UserError:
            supports_double = False
        if not supports_double:
            trial, trial_params, trial_inputs, tolerance = self, params, inputs, 1e-2

        def loss(params: Params, inputs: Tensor) -> Tensor:
            return (trial._forward(params, inputs) - 1.0).square().mean()

        def adapted_loss(params: Params, inputs: Tensor) -> Tensor:
            grads = grad(loss)(params, inputs)
            return loss({name: params[name] - 0.1 * grads[name] for name in params}, inputs)

        def in_a_loop(params: Params) -> Tensor:
            return torch.stack([adapted_loss(params, task) for task in trial_inputs]).sum()

        # second derivatives under vmap may be silently wrong; a loop over tasks shows it
        def by_vmap(params: Params) -> Tensor:
            return vmap(adapted_loss, in_dims=(None, 0))(params, trial_inputs).sum()

        try:
            vmap_grads, grads = (grad(f)(trial_params) for f in (by_vmap, in_a_loop))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{refusal}vmap or a second derivative raised {type(error).__name__} "
                f"({_first_line(error)}); replace that layer{SEE_DOCS}"
            ) from error
        result, expected = flatten(vmap_grads), flatten(grads)
        if not expected.count_nonzero():
            raise UserError(
                f"{refusal}its outputs do not depend on its parameters; do not detach them"
            )
        # a gradient of zero is right where a parameter has no effect, such as behind dead units,
        # which so small a change does not revive
        outputs, change = trial(trial_params, trial_inputs[0]), tolerance
        for name, leaf in trial_params.items():
            shift = change * torch.linspace(0.5, 1.0, leaf.numel(), dtype=leaf.dtype).view_as(leaf)
            changed = {**trial_params, name: leaf + shift}
            effect = (trial(changed, trial_inputs[0]) - outputs).abs().max()
            if not grads[name].count_nonzero() and effect > 1e-3 * change:
                raise UserError(
                    f"{refusal}its parameter {name!r} has an effect, but gets no gradient; do not "
                    "detach what is computed from it, or call .requires_grad_(False) on it"
                )
        # relative to the whole gradient, since that of a leaf may be zero up to rounding
        atol = tolerance * float(expected.nan_to_num().norm())
        if not torch.allclose(result, expected, rtol=0.0, atol=atol, equal_nan=True):
            raise UserError(
                f"{refusal}torch's vmap gives a wrong meta-gradient; replace custom autograd "
                f"functions and fused layers by elementary operations{SEE_DOCS}"
            )


class ModuleNetwork(Section):
    """A custom `torch.nn.Module`, `module:Class`, and the settings of its constructor.

    The constructor receives `inputs` (the size of an input, or its shape (C, H, W)) and `outputs`
    if it has parameters of these names.
    """

    kind: ImportString
    settings: Arguments = Field(default_factory=dict)

    for_images: ClassVar[str | None] = None

    @field_validator("kind")
    @classmethod
    def _is_module(cls, kind: str) -> str:
        load_module(CUSTOM, kind)
        return kind

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        function = functional_module(CUSTOM, self.kind, self.settings, shape, outputs)
        params = function.init(generator)
        # sections are frozen; complete, since other threads may read it
        self.__dict__["function"] = function
        return params

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
    default_generator: Callable[[], torch.Generator] = torch.Generator,
) -> FunctionalModule:
    """The module of a name as a function; see `ModuleNetwork`.

    The constructor also receives `optional` arguments, if it has parameters of their names.
    """
    inputs: int | tuple[int, ...] = shape[0] if len(shape) == 1 else shape

    def construct() -> nn.Module:
        cls, sizes = load_module(registry, name), {"inputs": inputs, "outputs": outputs}
        module: nn.Module = make(registry.kind, name, cls, settings, {**(optional or {}), **sizes})
        for leaf_name, leaf in module.named_parameters():
            if leaf.dtype != torch.float32:
                raise UserError(
                    f"{registry.kind} {name!r} has a parameter {leaf_name!r} of {leaf.dtype}; "
                    "training is in torch.float32, so call .float() on the module"
                )
        return module

    return FunctionalModule(name, construct, shape, outputs, default_generator)


def _unsupported(layer: nn.Module) -> str:
    """The reason why a layer is not supported, and the fix; empty if it is supported."""
    kind = type(layer).__name__
    if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0.0:
        return (
            f"({kind}) is random, but an inner step must be a function of its data; remove it, or "
            "set p=0"
        )
    normalisations = nn.modules.batchnorm._BatchNorm | nn.modules.instancenorm._InstanceNorm
    if isinstance(layer, normalisations) and layer.track_running_stats:
        return (
            f"({kind}) keeps running statistics, which tasks cannot share; set "
            "track_running_stats=False, or use GroupNorm"
        )
    if isinstance(layer, nn.utils.parametrizations._SpectralNorm) and layer.training:
        return "(spectral_norm) changes with every call; call .eval() on it in the constructor"
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        return (
            f"({kind}) does not support torch's vmap; write its step with Linear layers, or use "
            "method rl2 for a recurrent policy"
        )
    return ""


@contextmanager
def _recorded(module: nn.Module) -> Iterator[list[str]]:
    """The names of the layers that are called, in this order.

    Layers are modules whose parameters are all their own: one that contains others ends after them.
    """
    called = list[str]()

    def record(place: str) -> Callable[..., None]:
        return lambda *_: called.append(place)

    hooks = [
        layer.register_forward_hook(record(place))
        for place, layer in module.named_modules()
        if all(_owner(f"{place}.{name}") == place for name, _ in layer.named_parameters())
    ]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def _owner(name: str) -> str:
    """The name of the submodule that a parameter belongs to, also if it is parametrised."""
    owner, parametrised, _ = name.partition(".parametrizations.")
    return owner if parametrised else name.rpartition(".")[0]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]  # of vmap's, some have a page
