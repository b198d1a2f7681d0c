"""Sections of settings, from which configs are composed, and their error messages."""

import difflib
import importlib
import inspect
import math
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError, to_jsonable_python

from metarl.config.registry import Registry
from metarl.errors import UserError, ask, did_you_mean


def _refuse_boolean(value: Any) -> Any:
    if isinstance(value, bool):  # an integer in Python: `iterations: true` would be 1
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


NUMBER = BeforeValidator(_refuse_boolean)
# integers in YAML, in JSON and in torch have 64 bits at most
PositiveInt = Annotated[int, Field(ge=1, lt=2**63), NUMBER]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**63), NUMBER]
# at most 1e30: settings are converted to single precision
PositiveFloat = Annotated[float, Field(gt=0.0, le=1e30), NUMBER]
NonNegativeFloat = Annotated[float, Field(ge=0.0, le=1e30), NUMBER]
Fraction = Annotated[float, Field(gt=0.0, le=1.0), NUMBER]
UnitInterval = Annotated[float, Field(ge=0.0, le=1.0), NUMBER]
# two layers of a million units would have 4 TB of weights
Width = Annotated[int, Field(ge=1, le=2**20), NUMBER]
HiddenSizes = Annotated[tuple[Width, ...], Field(min_length=1)]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bf16"]
BatchUnit = Literal["episodes", "steps"]
LearnedStepSizes = Literal["none", "meta_sgd", "lslr"]


ConfigMapping = Mapping[str, Any]  # a section as plain values, as in YAML

# Settings renamed after version 0.1, by their old names. A section with the new name accepts the
# old one as well.
RENAMED = {
    "trajectories": "episodes_per_task",
    "count": "batch_unit",
    "lam": "gae_lambda",
    "chosen_after": "selection_step",
    "minibatch": "batch_size",
}


def current_name(setting: str, settings: Container[str]) -> str:
    """The present name of a setting such as `inner.lam`, if `settings` has it by that name only."""
    section, dot, name = setting.rpartition(".")
    renamed = f"{section}{dot}{RENAMED.get(name, name)}"
    return renamed if setting not in settings and renamed in settings else setting


def to_import_string(value: Any) -> Any:
    """The import string of a class or a function; other values of a config unchanged."""
    if isinstance(value, type | FunctionType):
        if "<" in value.__qualname__:
            raise ValueError(
                f"must be importable, and {value.__qualname__} is not: define it at the top level "
                "of a module"
            )
        return f"{value.__module__}:{value.__qualname__}"
    if (kind := type(value)).__module__ != "builtins":
        # a run can construct a class again, with its settings
        raise ValueError(
            f"must be the class {kind.__name__} or a name, not an instance; the arguments of its "
            "constructor go into the section's `settings`"
        )
    return value


# A class or a function is accepted in place of its import string.
ImportString = Annotated[str, BeforeValidator(to_import_string)]


def _to_plain(settings: Any) -> Any:
    """Settings with numbers and lists in place of numpy's, so that a config can be saved."""
    if not isinstance(settings, Mapping):
        return settings
    plain = {
        key: value.tolist() if hasattr(value, "tolist") else value
        for key, value in settings.items()
    }
    for key, value in plain.items():
        try:
            to_jsonable_python(value)
        except ValueError as error:
            raise ValueError(
                f"must be numbers, texts, lists or mappings of these, not {key}={value!r}"
            ) from error
    return plain


# arguments of a constructor
Arguments = Annotated[dict[str, Any], BeforeValidator(_to_plain)]


@dataclass(frozen=True)
class Source:
    """The context of a validation: where the settings come from."""

    name: str  # of the config in error messages
    # metarl wrote the settings itself: old names of settings are then no reason for a warning, and
    # settings without effect no error, unless they are overrides
    recorded: bool = False
    overrides: frozenset[str] = frozenset()  # full names of settings set on the command line
    allow_unused: bool = False  # whether settings without effect are no error


class Section(BaseModel):
    """A group of settings. Sections are immutable, and unknown settings are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        # help() then shows names and defaults, without the validators in the annotations
        signature = inspect.signature(cls)
        parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        cls.__signature__ = signature.replace(parameters=parameters)

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, Mapping):
            return values
        names = {name: current_name(str(name), cls.model_fields) for name in values}
        for old, new in names.items():
            if str(old) == new:  # YAML may have numbers as names
                continue
            if new in values:
                raise ValueError(f"{old}: was renamed to {new}; set only {new}")
            if not (isinstance(info.context, Source) and info.context.recorded):
                message = f"the setting {old} was renamed: use {new}"
                # attributed to metarl, as the callers are frames of pydantic
                warnings.warn(message, DeprecationWarning, stacklevel=1)
        return {names[name]: value for name, value in values.items()}


class SectionError(ValueError):
    """The errors of a section whose schema depends on a name in it."""

    def __init__(
        self, section: type[Section], errors: ValidationError, kinds: "Discriminated"
    ) -> None:
        super().__init__(str(errors))
        self.section, self.errors, self.kinds = section, errors, kinds


@cache
def _named(schema: type[Section], tag: str, name: str) -> type[Section]:
    """The schema of a custom class, which has inherited the name of another one.

    The settings of a class that derives from ProMP, for one, have `name: Literal["promp"]`.
    """
    names = get_args(schema.model_fields[tag].annotation) if tag in schema.model_fields else ()
    if not names or name in names:
        return schema
    fields: Any = {tag: (str, name)}
    return create_model(schema.__name__, __base__=schema, __doc__=schema.__doc__, **fields)


@dataclass(frozen=True)
class Discriminated:
    """A section whose schema depends on one of its settings, the tag.

    `validate` is for pydantic's `WrapValidator`. In place of a mapping it accepts the tag alone.
    """

    registry: Registry  # the classes that the tag can name, besides `module:Class`
    tag: str  # the setting, such as `algorithm`
    default: str = ""  # of the tag
    members: tuple[str, ...] = ()  # that a custom class must have
    base: str = ""  # the class that a custom one best derives from
    fallback: str = ""  # import string of the section for custom classes that are not sections

    def schema(self, name: str) -> type[Section]:
        """The schema for a tag: the class itself, its attribute `Settings`, or the fallback.

        Raises:
            UserError: if there is no such class, or it lacks a member.
        """
        loaded = self.registry.load(name, self.members)
        if self.fallback and not issubclass(loaded, Section):
            module, _, attribute = self.fallback.partition(":")
            loaded = getattr(importlib.import_module(module), attribute)
        schema: type[Section] = getattr(loaded, "Settings", loaded)
        if not issubclass(schema, Section):
            raise UserError(
                f"{self.registry.kind} {name!r} must derive from metarl.config.sections.Section"
                f"{self.base and f', as {self.base} does'}"
            )
        return _named(schema, self.tag, name) if ":" in name else schema

    def validate(
        self, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        """Validate the section by the schema for its tag."""
        if isinstance(value, Section):  # constructed in Python, and validated there
            return validate(value)
        if isinstance(value, str | type):
            value = {self.tag: value}
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a name or a mapping of its settings, not {value!r}")
        name = to_import_string(value.get(self.tag, self.default))
        if not isinstance(name, str):
            raise ValueError(f"{self.tag}: must be a name, not {name!r}")
        try:
            schema = self.schema(name)
        except UserError as error:
            if ":" in name:
                raise ValueError(f"{self.tag}: {error}") from error
            names = " or ".join(map(repr, self.registry))
            raise ValueError(f"{self.tag}: must be {names}, not {name!r}") from error
        try:  # by a call of its own, since pydantic's unions report the errors of every member
            section = schema.model_validate({**value, self.tag: name}, context=info.context)
        except ValidationError as error:
            raise SectionError(schema, error, self) from error
        return validate(section)

    def owners(self, setting: str) -> str:
        """The kinds that have a setting, such as "algorithm=adam or sgd"; empty if none has."""
        names = []
        for name in self.registry:
            with suppress(ImportError):  # a method whose libraries are not installed
                if setting in self.schema(name).model_fields:
                    names.append(name)
        return f"{self.tag}={' or '.join(names)}" if names else ""


class OuterSection(Section):
    """The outer loop: meta-training.

    There are `iterations` steps of the optimiser that `algorithm` names. `meta_batch` is the number
    of tasks in an iteration.

    The step size (`learning_rate`, or `max_kl` of TRPO) grows linearly in the first `warmup`
    iterations. Then it follows the `schedule`: `constant`; `linear` or `cosine` (half a period) to
    zero; or `exponential` to a hundredth. `anneal: true` is the cosine.
    """

    algorithm: str
    iterations: PositiveInt = 100
    meta_batch: PositiveInt = 20
    anneal: bool = False
    schedule: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    warmup: NonNegativeInt = 0

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.anneal and self.schedule != "constant":
            raise ValueError(
                "anneal: is the schedule `cosine`; set only one of anneal and schedule"
            )
        return self

    @property
    def depends_on_length(self) -> bool:
        """Whether step sizes depend on the number of iterations."""
        return self.anneal or self.schedule != "constant"

    def annealed(self, value: float, iteration: int) -> float:
        """A step size at an iteration.

        A closed form: torch's schedulers accumulate rounding over their steps, and would have a
        state to restore.
        """
        if iteration < self.warmup:
            return value * (iteration + 1) / self.warmup
        # from 0 at the end of the warm-up; of at least one iteration
        progress = (iteration - self.warmup) / max(1, self.iterations - self.warmup)
        if self.anneal or self.schedule == "cosine":
            return value * 0.5 * (1.0 + math.cos(math.pi * progress))  # Loshchilov and Hutter 2017
        if self.schedule == "linear":
            return value * (1.0 - progress)
        return value * 0.01**progress if self.schedule == "exponential" else value


class InnerSection(Section):
    """The inner loop: gradient steps on data of one task.

    There are `steps` steps of size α, the `step_size`. With `first_order: true` the meta-gradient
    leaves out second derivatives (Finn et al. 2017, section 5.2). `adapt: head` adapts only the
    last layer (ANIL, Raghu et al. 2020). With `learned_step_sizes`, α is learned jointly with θ,
    for each parameter (`meta_sgd`, Li et al. 2017) or for each tensor and step (`lslr`, Antoniou et
    al. 2019).

    `optimizer` adam or momentum has the constants of `torch.optim`, and a state that is zero at the
    first step of every task. `clip` is the largest norm of all gradients of a task together. The
    meta-gradient is exact with all of these.
    """

    step_size: PositiveFloat = 0.1
    steps: PositiveInt = 1
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    clip: PositiveFloat | None = None
    first_order: bool = False
    adapt: Literal["all", "head"] = "all"
    learned_step_sizes: LearnedStepSizes = "none"

    @property
    def maml(self) -> str:
        """The name of MAML with these settings in the literature, such as `ANIL`, `Meta-SGD`."""
        learned = {"none": "", "meta_sgd": "Meta-SGD", "lslr": "LSLR"}[self.learned_step_sizes]
        variants = [name for name in ("ANIL" if self.adapt == "head" else "", learned) if name]
        return ", ".join([*(variants or ["MAML"]), *["first order"] * self.first_order])


class InitialWeights(Section):
    """The run whose weights a training starts from: its directory, name or `hf:USER/NAME`.

    In a config, `init_from: RUN` stands for its only setting, `run`. Training records `iteration`,
    `sha256` and `commit` of the weights. Everything else starts anew: the iterations, the
    optimiser, the step sizes of a schedule.
    """

    run: str
    iteration: NonNegativeInt | None = None
    sha256: str | None = None
    commit: str | None = None

    @model_validator(mode="after")
    def _check_recorded(self) -> Self:
        if self.sha256 is None and (self.iteration is not None or self.commit is not None):
            raise config_error(
                "iteration and commit are recorded by training, and select nothing: a run keeps "
                "its last checkpoint only; set run alone"
            )
        return self


class EarlyStopping(Section):
    """Early stopping: training ends when the score on validation tasks no longer improves.

    Every `every` iterations the parameters are validated on `tasks` tasks, after as many inner
    steps as in training; TensorBoard shows the scores. The tasks are those of a validation split
    where there is one, and otherwise drawn as training tasks are, by another seed. The training
    ends after `patience` validations without a better score, or with null at its last iteration.
    Checkpoints also hold the best parameters: `metarl evaluate RUN --checkpoint best`.
    """

    patience: PositiveInt | None = 10
    every: PositiveInt = 100
    tasks: Annotated[int, Field(ge=2)] = 50


def true_or(section: Any) -> BeforeValidator:
    """`true` stands for an optional section with its defaults, `false` for none."""

    def to_section(value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    return BeforeValidator(to_section, json_schema_input_type=bool | section | None)


def text_or(section: Any, setting: str) -> BeforeValidator:
    """The value of one setting, a text, a path or a class, may stand for the section."""

    def to_section(value: Any) -> Any:
        if isinstance(value, Path):
            value = str(value)
        is_section = value is None or isinstance(value, Mapping | BaseModel)
        return value if is_section else {setting: value}

    return BeforeValidator(to_section, json_schema_input_type=str | section)


class MethodSection(Section):
    """The name of a method. Subclasses add the settings that only this method has."""

    name: str


# all settings of the inner step, which methods without gradient steps on a task do not use
INNER_STEP = tuple(f"inner.{name}" for name in InnerSection.model_fields)
# the sizes of training, network and evaluation, which a comparison sets for all methods alike
SHARED = (
    "outer.iterations",
    "outer.meta_batch",
    "inner.episodes_per_task",
    "policy.hidden_sizes",
    "evaluation.steps",
)
NO_STEPS = "which takes no gradient steps on a task"


def check_selection_step(config: "Experiment", step: int, steps: int) -> None:
    """Check that fine-tuning selects its step sizes by a step that the evaluation has.

    Raises:
        ValueError: if it does not, and the method selects step sizes.
    """
    name = "baseline.selection_step"
    if step > steps and not reason_unused(name, config.unused_settings()):
        raise ValueError(
            f"{name}: {step} is after the last of the {steps} steps of the evaluation; lower it, "
            "or raise evaluation.steps"
        )


def reason_unused(name: str, unused: Mapping[str, str]) -> str | None:
    """Why a setting has no effect, by names or prefixes such as `inner.`; None if it has one."""
    for prefix, reason in unused.items():
        if name == prefix or (prefix.endswith(".") and name.startswith(prefix)):
            return reason
    return None


# the members that a custom method must have, see `metarl.method.Method`
METHOD_MEMBERS = (
    "Settings",
    "role",
    "label",
    "initial_state",
    "step",
    "evaluate or adaptation_curve",  # the latter is its name in version 0.1
)


class Experiment(Section):
    """All settings of an experiment. All errors are reported together, as one `UserError`.

    The context of a validation is a `Source`, or None for objects constructed in Python.
    """

    domain: ClassVar[str]  # a name in `metarl.method.PROBLEMS`
    methods: ClassVar[Registry]

    def at(self, iteration: int) -> Self:
        """The settings of a training iteration: all have the same, unless a config has stages."""
        return self

    @property
    def stage_starts(self) -> list[int]:
        """The first iteration of each stage of training."""
        return [0]

    def unused_settings(self, method: str = "") -> dict[str, str]:
        """The settings without effect on a method, by default the config's, with the reasons.

        Its class declares full names or prefixes, such as `baseline.`; a reason is a relative
        clause.
        """
        cls = self.methods.load(method or self.method.name)  # type: ignore[attr-defined]
        declared = getattr(cls, "unused_settings", None)
        return dict(declared(self)) if declared else {}

    def settings_without_effect(self) -> dict[str, str]:
        """The settings that differ from their defaults without an effect, with the reason."""
        unused = self.unused_settings()
        reasons = {name: reason_unused(name, unused) for name in _changed_settings(self)}
        return {name: reason for name, reason in reasons.items() if reason}

    def check_settings_have_effect(self, source: Source) -> None:
        """Check that no setting is ignored.

        Methods that are compared share one config and its overrides: the section `baseline`, and
        the settings in `SHARED`, may be without effect.

        Raises:
            ValueError: if a setting without effect is set.
        """
        messages = []
        for name, reason in self.settings_without_effect().items():
            is_shared = name.startswith("baseline.") or name in SHARED
            if is_shared or (source.recorded and name not in source.overrides):
                continue
            users = [other for other in self.methods if not self._is_unused(name, other)]
            hint = f" (methods that use it: {', '.join(users)})" if users else ""
            section, _, setting = name.rpartition(".")
            value = getattr(getattr(self, section) if section else self, setting)
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            messages.append(
                f"{name}: {shown} is not supported by method "
                f"{self.method.name}, {reason}; leave it out{hint}"  # type: ignore[attr-defined]
            )
        if messages:
            raise ValueError("\n  - ".join(messages))

    def _is_unused(self, name: str, method: str) -> bool:
        try:
            unused, cls = self.unused_settings(method), self.methods.load(method)
        except UserError:  # its libraries are not installed
            return True
        section, _, setting = name.rpartition(".")
        has = section != "method" or setting in cls.Settings.model_fields
        return not has or reason_unused(name, unused) is not None

    def check(self) -> None:
        """Check that settings do not contradict each other. Each of them is valid by itself.

        Raises:
            ValueError: if they do.
        """

    @model_validator(mode="wrap")
    @classmethod
    def _report_all_errors(
        cls, values: Any, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            experiment = validate(values)
            experiment.check()
            source = info.context or Source("the config")
            if not source.allow_unused:
                experiment.check_settings_have_effect(source)
            return experiment
        except ValueError as error:
            messages = [str(error)]
            if isinstance(error, ValidationError):
                names = [*setting_names(cls, values)] if isinstance(values, Mapping) else []
                messages = _messages(cls, error, names)
            count = "an error" if len(messages) == 1 else f"{len(messages)} errors"
            source = info.context.name if info.context else "the config"
            lines = [f"{source} has {count}:", *map("  - {}".format, messages)]
            raise UserError("\n".join(lines)) from error


def _changed_settings(config: Experiment) -> Iterator[str]:
    """The full names of the settings of a config that differ from their defaults."""
    for name, field in type(config).model_fields.items():
        value, default = getattr(config, name), field.get_default(call_default_factory=True)
        if not isinstance(value, Section) or default is None:
            if value != default:
                yield name
            continue
        for setting, setting_field in type(value).model_fields.items():
            setting_default = setting_field.get_default(call_default_factory=True)
            if isinstance(default, Section) and type(default) is not type(value):
                # the tag of a section of another kind has no default that means anything
                setting_default = getattr(default, setting, setting_default)
            if getattr(value, setting) != setting_default:
                yield f"{name}.{setting}"


def config_error(message: str) -> PydanticCustomError:
    """An error of a section as a whole, to be raised in its validators."""
    return PydanticCustomError("section", "{message}", {"message": message})


def first_error(error: ValidationError, file: str) -> str:
    """The first error in a machine-written file, such as `state.json.sha256: Field required`."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join([file, *map(str, first['loc'])])}: {first['msg']}"


def setting_names(
    schema: type[BaseModel], values: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """The full names of all settings that a config with these values can have."""
    for name, field in schema.model_fields.items():
        yield f"{prefix}{name}"
        section, value = field.annotation, values.get(name)
        for choice in discriminators(field):
            tag = value.get(choice.tag) if isinstance(value, Mapping) else value
            with suppress(UserError):  # of an unknown tag, there is an error of its own
                section = choice.schema(str(tag or choice.default))
        if isinstance(section, type) and issubclass(section, BaseModel):
            settings = value if isinstance(value, Mapping) else {}
            yield from setting_names(section, settings, f"{prefix}{name}.")


def discriminators(field: FieldInfo) -> list[Discriminated]:
    """The choice of a section's schema, in a list; empty for all other settings."""
    functions = [item.func for item in field.metadata if isinstance(item, WrapValidator)]
    owners = [getattr(function, "__self__", None) for function in functions]
    return [owner for owner in owners if isinstance(owner, Discriminated)]


def _messages(
    schema: type[BaseModel],
    error: ValidationError,
    names: Sequence[str],
    prefix: str = "",
    kinds: Discriminated | None = None,
) -> list[str]:
    """One message for each error, including those in sections with a schema of their own.

    `names` are those of all settings of the config, `prefix` is that of the section's.
    """
    messages = []
    # a section validates by a call of its own, whose errors are nested in one of pydantic's
    for detail in error.errors():
        inner = detail.get("ctx", {}).get("error")
        if isinstance(inner, SectionError):
            name = ".".join(map(str, detail["loc"]))
            prefixes = f"{prefix}{name}.", inner.kinds
            messages += _messages(inner.section, inner.errors, names, *prefixes)
        else:
            messages.append(_message(schema, detail, names, prefix, kinds))
    return messages


def _similar(setting: str, settings: Iterable[str], names: Sequence[str]) -> str:
    """The settings that a user may have meant, of the same section or of others."""
    name = RENAMED.get(setting, setting)
    # the right name in the wrong section is more likely than a misspelt one
    if elsewhere := [full for full in names if full.rpartition(".")[2] == name]:
        return ask(elsewhere)
    if hint := did_you_mean(setting, settings):
        return hint
    close = difflib.get_close_matches(setting, [full.rpartition(".")[2] for full in names], n=1)
    return ask([full for full in names if full.rpartition(".")[2] in close])


def _message(
    schema: type[BaseModel],
    detail: ErrorDetails,
    names: Sequence[str],
    prefix: str,
    kinds: Discriminated | None,
) -> str:
    location = [str(part) for part in detail["loc"]]
    name, value = prefix + ".".join(location), detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            settings = list(_section_at(schema, location).model_fields)
            if kinds and (owners := kinds.owners(location[-1])):
                own = ", ".join(setting for setting in settings if setting != kinds.tag) or "none"
                return f"{name}: is a setting of {prefix}{owners}, not of this one, which has {own}"
            hint = _similar(location[-1], settings, names)
            # the arguments of the user's own family or network
            section_hint = f"; its own settings are in {name.rpartition('.')[0]}.settings"
            return (
                f"{name}: there is no such setting{hint}; there are {', '.join(settings)}"
                f"{section_hint * ('settings' in settings)}"
            )
        case "model_type" | "model_attributes_type":
            fields = _section_at(schema, [*location, ""]).model_fields
            example = f", such as {{name: {value}}}" * (isinstance(value, str) and "name" in fields)
            return f"{name}: must be a mapping of its settings{example}, not {value!r}"
        case "missing":
            return f"{name}: this setting is required"
        case "section":
            return f"{name}: {detail['msg']}"
        case "tuple_type":
            return f"{name}: must be a list, such as [64, 64], not {value!r}"
        case "int_from_float":
            return f"{name}: must be a whole number, not {value!r}"
        case "value_error":  # raised by a validator of a section: "setting: message"
            message = detail["msg"].removeprefix("Value error, ")
            if not location:
                return prefix + message
            return f"{name}: {message}" if message.startswith("must") else f"{name}.{message}"
        case _:
            subject, should, message = detail["msg"].partition("should ")
            if not should:
                return f"{name}: {subject[0].lower()}{subject[1:]}: {value!r}"
            # pydantic adds how it tried: "be a valid number, unable to parse string as a number"
            return f"{name}: must {message.partition(', unable')[0]}, not {value!r}"


def _section_at(schema: type[BaseModel], location: Sequence[str]) -> type[BaseModel]:
    """The schema of the section that contains a setting."""
    for part in location[:-1]:
        field = schema.model_fields.get(part)
        if field and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            schema = field.annotation
    return schema
