"""What all experiments' settings are made of."""

import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

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
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from metarl.config.registry import Registry
from metarl.errors import UserError, did_you_mean

PositiveInt = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0.0, le=1e30)]  # a number in single precision
Bounded = Annotated[float, Field(ge=0.0, le=1e30)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Device = Literal["auto", "cpu", "cuda"]
Count = Literal["episodes", "steps"]
LearnedStepSizes = Literal["none", "meta_sgd", "lslr"]


Plain = Mapping[str, Any]  # a section as YAML would have it


def import_string(value: Any) -> Any:
    """`module:Class` of a class; everything else as it is."""
    return f"{value.__module__}:{value.__qualname__}" if isinstance(value, type) else value


Name = Annotated[str, BeforeValidator(import_string)]  # from Python, a class names itself


class Section(BaseModel):
    """Settings that belong together. What they don't know they refuse, and they never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SectionError(ValueError):
    """Mistakes in a section whose kind is looked up: each is one of the section's own."""

    def __init__(self, section: type[Section], mistakes: ValidationError) -> None:
        super().__init__(str(mistakes))
        self.section = section
        self.mistakes = mistakes


def section_of(
    registry: Registry,
    name: str,
    members: tuple[str, ...] = ("model_validate",),
    own: str = "",
    settings: Mapping[str, type["Section"]] | None = None,
) -> type[Section]:
    """The section of what a name stands for; the arguments are those of `one_of`."""
    if settings is not None and name in registry:
        return settings.get(name, MethodSection)
    found: Any = registry.load(name, () if own else members)
    if own and not issubclass(found, Section):
        module, _, attribute_of_own = own.partition(":")
        found = getattr(importlib.import_module(module), attribute_of_own)
    schema: type[Section] = found if settings is None else found.Settings
    return schema


def one_of(
    registry: Registry,
    tag: str,
    default: str,
    members: tuple[str, ...] = ("model_validate",),
    own: str = "",
    settings: Mapping[str, type["Section"]] | None = None,
) -> WrapValidator:
    """Validates a section whose schema is that of what it names.

    Args:
        registry: where the names stand.
        tag: the setting that names, such as `algorithm`; the name alone is a section of defaults.
        default: the name where the section has none.
        members: what a class of one's own must have.
        own: the import string of the section for classes of one's own that are no sections.
        settings: the sections of methods, which are none themselves, and may take long to import:
            who is registered and not here has a name alone. A class of one's own has `Settings`.
    """

    def validate(value: Any, as_section: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, str | type):
            value = {tag: value}
        if not isinstance(value, Mapping):
            if isinstance(value, Section):
                return as_section(value)
            raise ValueError(f"must be a section with settings of its own, not {value!r}")
        name = import_string(value.get(tag, default))
        if not isinstance(name, str):
            raise ValueError(f"{tag}: must be a name, not {name!r}")
        value = {**value, tag: name}
        try:
            schema = section_of(registry, name, members, own, settings)
        except UserError as error:
            if ":" in name:
                raise ValueError(f"{tag}: {error}") from error
            names = " or ".join(map(repr, registry))
            raise ValueError(f"{tag}: must be {names}, not {name!r}") from error
        try:
            section = schema.model_validate(value)
        except ValidationError as error:
            raise SectionError(schema, error) from error
        return as_section(section)

    return WrapValidator(validate)


class OuterSection(Section):
    """Meta-training: how long, and on how many tasks an iteration."""

    algorithm: str
    iterations: PositiveInt = 100
    meta_batch: PositiveInt = 20
    anneal: bool = False

    def annealed(self, value: float, iteration: int) -> float:
        """A step's size at an iteration: with `anneal` it falls to zero by half a cosine."""
        progress = iteration / self.iterations
        return value * 0.5 * (1.0 + math.cos(math.pi * progress)) if self.anneal else value


class InnerSection(Section):
    """Adaptation: gradient steps on a little data of one task.

    `adapt: head` adapts the last layer alone (ANIL, Raghu et al. 2020). Step sizes are learned with
    θ one for each single parameter (`meta_sgd`, Li et al. 2017) or one for each tensor and step
    (`lslr`, Antoniou et al. 2019).
    """

    step_size: Positive = 0.1
    steps: PositiveInt = 1
    first_order: bool = False
    adapt: Literal["all", "head"] = "all"
    learned_step_sizes: LearnedStepSizes = "none"

    @property
    def maml(self) -> str:
        """What the literature calls MAML with these settings, such as `ANIL` and `Meta-SGD`."""
        learned = {"none": "", "meta_sgd": "Meta-SGD", "lslr": "LSLR"}[self.learned_step_sizes]
        names = ["ANIL" if self.adapt == "head" else "", learned]
        called = [name for name in names if name] or ["MAML"]
        return ", ".join([*called, *["first order"] * self.first_order])


class MethodSection(Section):
    """Which method, and what it alone can be told."""

    name: str


def leave_out(
    settings: Section,
    names: Iterable[str],
    method: MethodSection,
    why: str,
    section: str = "inner",
) -> None:
    """Refuse what a method cannot make use of, rather than say nothing and do without.

    Args:
        settings: of the inner loop, or of another section.
        names: of those that must have their defaults.
        method: whose settings they are not.
        why: what about it is in their way, such as `which has no second derivatives`.
        section: what a config calls it.

    Raises:
        UserError: if one of them has another value.
    """
    for name in names:
        value = getattr(settings, name)
        if value != type(settings).model_fields[name].default:
            raise UserError(
                f"{section}.{name}: {value} is not for method {method.name}, {why}; leave it out"
            )


class ContextSettings(MethodSection):
    """`context` parameters that adapt, from zeros; all others are the same for every task.

    Those of CAVIA, in every domain. Their step size is `inner.step_size`: a few numbers, far from
    the output, want a larger one than a whole network.
    """

    context: PositiveInt = 5


# what a class must have to be a method, see `metarl.method.Method`
METHOD_MEMBERS = ("Settings", "role", "label", "initial_state", "step")


class Experiment(Section):
    """All settings of an experiment. Every mistake in them is told at once, as a `UserError`.

    The context of a validation is what to call the experiment in messages; from Python there is
    none.
    """

    def check(self) -> None:
        """Raise ValueError where settings contradict each other.

        Everything else is right then, and what takes long to import may be imported.
        """

    @model_validator(mode="wrap")
    @classmethod
    def _in_sentences(
        cls, values: Any, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            experiment = validate(values)
            experiment.check()
            return experiment
        except ValueError as error:
            problems = (
                _sentences(cls, error) if isinstance(error, ValidationError) else [str(error)]
            )
            mistakes = "a mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
            lines = [
                f"{info.context or 'the config'} has {mistakes}:",
                *map("  - {}".format, problems),
            ]
            raise UserError("\n".join(lines)) from error


def sentence(said: str) -> PydanticCustomError:
    """What to raise of a section as a whole, where its mistake is no single setting's."""
    return PydanticCustomError("sentence", "{said}", {"said": said})


def first_mistake(error: ValidationError, file: str) -> str:
    """What is wrong with a file that nobody writes by hand, such as `state.json.sha256: …`."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join([file, *map(str, first['loc'])])}: {first['msg']}"


def _sentences(schema: type[BaseModel], error: ValidationError, prefix: str = "") -> list[str]:
    """A sentence for each mistake; those of a section whose schema was looked up are its own."""
    sentences = []
    for detail in error.errors():
        inner = detail.get("ctx", {}).get("error")
        if isinstance(inner, SectionError):
            name = ".".join(map(str, detail["loc"]))
            sentences += _sentences(inner.section, inner.mistakes, f"{prefix}{name}.")
        else:
            sentences.append(_sentence(schema, detail, prefix))
    return sentences


def _sentence(schema: type[BaseModel], detail: ErrorDetails, prefix: str) -> str:
    location = [str(part) for part in detail["loc"]]
    name, given = prefix + ".".join(location), detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            known = list(_section(schema, location).model_fields)
            return (
                f"{name}: there is no such setting{did_you_mean(location[-1], known)}; "
                f"there are {', '.join(known)}"
            )
        case "model_type" | "model_attributes_type":
            return f"{name}: must be a section with settings of its own, not {given!r}"
        case "missing":
            return f"{name}: this setting is required"
        case "sentence":
            return f"{name}: {detail['msg']}"
        case "value_error":  # of a check of ours, which names what is in the section itself
            said = detail["msg"].removeprefix("Value error, ")
            if not location:
                return prefix + said
            return f"{name}: {said}" if said.startswith("must") else f"{name}.{said}"
        case _:
            what, should, message = detail["msg"].partition("should ")
            if not should:
                return f"{name}: {what[0].lower()}{what[1:]}: {given!r}"
            return f"{name}: must {message}, not {given!r}"


def _section(schema: type[BaseModel], location: Sequence[str]) -> type[BaseModel]:
    """The section that a setting is in."""
    for part in location[:-1]:
        field = schema.model_fields.get(part)
        if field and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            schema = field.annotation
    return schema
