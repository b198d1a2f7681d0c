"""What all experiments' settings are made of."""

import importlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from metarl.errors import UserError
from metarl.registry import Registry

PositiveInt = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0.0, le=1e30)]  # a number in single precision
Bounded = Annotated[float, Field(ge=0.0, le=1e30)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Device = Literal["auto", "cpu", "cuda"]
LearnedStepSizes = Literal["none", "meta_sgd", "lslr"]


NAMES_ALONE = "names alone"  # a context of validation, see `one_of`
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
    own: str = "",
    attribute: str = "",
    members: tuple[str, ...] = ("model_validate",),
) -> type[Section]:
    """The section of what a name stands for; the arguments are those of `one_of`."""
    found: Any = registry.load(name, () if own else members)
    if own and not issubclass(found, Section):
        module, _, attribute_of_own = own.partition(":")
        found = getattr(importlib.import_module(module), attribute_of_own)
    schema: type[Section] = getattr(found, attribute) if attribute else found
    return schema


def one_of(
    registry: Registry,
    tag: str,
    default: str,
    attribute: str = "",
    members: tuple[str, ...] = ("model_validate",),
    own: str = "",
) -> WrapValidator:
    """Validates a section whose schema is that of what it names.

    In the context `NAMES_ALONE` a section that says nothing but a registered name is left as it is:
    there can be no mistake in it, and what it names may take long to import.

    Args:
        registry: where the names stand.
        tag: the setting that names, such as `algorithm`; the name alone is a section of defaults.
        default: the name where the section has none.
        attribute: of what is registered, that holds the schema; empty where it is one itself.
        members: what a class of one's own must have.
        own: the import string of the section for classes of one's own that are no sections.
    """

    def validate(value: Any, as_section: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if isinstance(value, str | type):
            value = {tag: value}
        if not isinstance(value, Mapping):
            if isinstance(value, Section):
                return as_section(value)
            raise ValueError(f"must be a section with settings of its own, not {value!r}")
        name = import_string(value.get(tag, default))
        if not isinstance(name, str):
            raise ValueError(f"{tag}: must be a name, not {name!r}")
        if info.context == NAMES_ALONE and name in registry and not value.keys() - {tag}:
            return value
        value = {**value, tag: name}
        try:
            schema = section_of(registry, str(name), own, attribute, members)
        except UserError as error:
            if ":" in str(name):
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


class MethodSection(Section):
    """Which method, and what it alone can be told."""

    name: str


# what a class must have to be a method, see `metarl.method.Method`
METHOD_MEMBERS = ("Settings", "role", "label", "axis", "initial_state", "step", "adaptation_curve")
