"""What an experiment is: one validated description, from one YAML file.

Everything is checked before any work is spent, and every mistake is reported at once.
"""

import math
import re
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import ErrorDetails

from metarl.devices import Device
from metarl.envs import Informed, TaskFamily, load_family
from metarl.errors import UserError, did_you_mean

PositiveInt = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Method = Literal["maml", "pretrained", "random", "oracle"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FamilyConfig(_Section):
    """The tasks: a family of this package or `package.module:Class`, and its settings."""

    name: str
    settings: dict[str, Any] = {}

    def load(self) -> TaskFamily:
        """The family itself."""
        return load_family(self.name, self.settings)


class PolicyConfig(_Section):
    """The network: hidden layers, and the standard deviation of a continuous action."""

    hidden_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (100, 100)
    activation: Literal["relu", "tanh"] = "relu"
    init_std: Positive = 1.0
    min_std: Positive = 1e-6


class InnerConfig(_Section):
    """Adaptation: gradient steps on a few trajectories of one task."""

    step_size: Positive = 0.1
    steps: PositiveInt = 1
    trajectories: PositiveInt = 20
    gamma: Fraction = 0.99
    lam: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    estimator: Literal["likelihood_ratio", "log_likelihood"] = "likelihood_ratio"
    first_order: bool = False


class _Outer(_Section):
    iterations: PositiveInt = 100
    meta_batch: PositiveInt = 20
    anneal: bool = False

    def annealed(self, value: float, iteration: int) -> float:
        """A step's size at an iteration: with `anneal` it falls to zero by half a cosine."""
        progress = iteration / self.iterations
        return value * 0.5 * (1.0 + math.cos(math.pi * progress)) if self.anneal else value


class TRPOConfig(_Outer):
    """Meta-training by trust region steps (the paper's)."""

    algorithm: Literal["trpo"] = "trpo"
    max_kl: Positive = 0.01
    cg_iterations: PositiveInt = 10
    damping: Annotated[float, Field(ge=0.0)] = 1e-5
    backtrack_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    max_backtracks: PositiveInt = 15
    curvature_fraction: Fraction = 0.1

    @property
    def curvature_stride(self) -> int:
        """Of so many time steps one estimates the curvature."""
        return max(1, round(1.0 / self.curvature_fraction))


class AdamConfig(_Outer):
    """Meta-training by plain policy gradient steps with Adam."""

    algorithm: Literal["adam"] = "adam"
    learning_rate: Positive = 1e-3


def _algorithm(outer: Any) -> Any:
    """Which outer step a section describes: the paper's where it doesn't say."""
    if isinstance(outer, Mapping):
        return outer.get("algorithm", "trpo")
    return getattr(outer, "algorithm", "trpo")


class EvaluationConfig(_Section):
    """Adaptation to tasks never trained on.

    Without step sizes of its own, it takes α for the first step and α/2 for the others, three in
    all, as the paper's evaluation does.
    """

    tasks: Annotated[int, Field(ge=2)] = 40
    trajectories: PositiveInt = 20
    step_sizes: tuple[Positive, ...] | None = None
    seed: Annotated[int, Field(ge=0)] = 1


class BaselineConfig(_Section):
    """What meta-training is measured against: PPO on all tasks mixed, and its fine-tuning.

    The step size of fine-tuning is the best of `step_sizes` on validation tasks, which are neither
    trained nor tested on. Where the evaluation's step sizes change from step to step, those of
    fine-tuning change in proportion.
    """

    learning_rate: Positive = 3e-4
    lam: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    epochs: PositiveInt = 4
    minibatch: Annotated[int, Field(ge=2)] = 4000
    clip_range: Fraction = 0.2
    value_hidden_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 64)
    step_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (
        0.01,
        0.02,
        0.05,
        0.1,
        0.2,
        0.5,
        1.0,
        2.0,
    )
    validation_tasks: PositiveInt = 20


class Config(_Section):
    """One experiment."""

    method: Method = "maml"
    family: FamilyConfig
    policy: PolicyConfig = PolicyConfig()
    inner: InnerConfig = InnerConfig()
    outer: Annotated[
        Annotated[TRPOConfig, Tag("trpo")] | Annotated[AdamConfig, Tag("adam")],
        Discriminator(_algorithm),
    ] = TRPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()
    seed: Annotated[int, Field(ge=0)] = 1
    device: Device = "auto"
    checkpoint_every: PositiveInt = 10

    def load_family(self) -> TaskFamily:
        """The family as the method sees it: an oracle is told its task."""
        family = self.family.load()
        return Informed(family) if self.method == "oracle" else family

    @property
    def updates(self) -> int:
        """How many updates training takes.

        Pretraining does one for every time that meta-training would have sampled, so that both see
        the same number of environment steps.
        """
        if self.method == "random":
            return 0
        return self.outer.iterations * (1 if self.method == "maml" else self.inner.steps + 1)

    def budget(self, horizon: int) -> int:
        """The most environment steps that training takes, of episodes of this length."""
        if self.method == "random":
            return 0
        batch = self.outer.meta_batch * self.inner.trajectories * horizon
        return self.outer.iterations * (self.inner.steps + 1) * batch

    @property
    def evaluation_step_sizes(self) -> tuple[float, ...]:
        """Step sizes of the evaluation."""
        alpha = self.inner.step_size
        return self.evaluation.step_sizes or (alpha, alpha / 2, alpha / 2)


class _Loader(yaml.SafeLoader):
    """YAML, in which 1e-2 is a number as everybody expects; PyYAML alone reads a string."""


_Loader.yaml_implicit_resolvers = {
    key: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:float"]
    for key, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the package, by name."""
    folder = Path(str(resources.files("metarl.configs")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_config(source: str, overrides: Sequence[str] = ()) -> Config:
    """Read and validate an experiment.

    Args:
        source: a YAML file, or the name of a config that comes with the package.
        overrides: settings such as `inner.step_size=0.2`.

    Raises:
        UserError: if the file cannot be read, or with one sentence for each mistake in it.
    """
    path = Path(source)
    if not path.is_file():
        known = shipped_configs()
        if source not in known:
            raise UserError(
                f"there is no config file {source!r}{did_you_mean(source, known)}; give a path, or "
                f"one of the names {', '.join(known)}"
            )
        path = known[source]
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the config {str(path)!r}: {error}") from error
    values = _parse(text, f"{str(path)!r}")
    if not isinstance(values, dict):
        raise UserError(f"the config {str(path)!r} must be a mapping of settings")
    for override in overrides:
        _override(values, override)
    return validate_config(values, str(path))


def validate_config(values: Mapping[str, Any], origin: str = "the config") -> Config:
    """An experiment from plain values, with every mistake reported at once.

    Args:
        values: as read from YAML.
        origin: what to call it in messages.

    Raises:
        UserError: with one sentence for each mistake.
    """
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems = [_sentence(detail) for detail in error.errors()]
        # a family can be checked although something else is wrong
        if isinstance(values.get("family"), Mapping):
            problems += _family_problems(values["family"])
    else:
        problems = _family_problems(values["family"])
    if problems:
        raise UserError(
            "\n".join([f"{origin} has {_count(problems)}:", *map("  - {}".format, problems)])
        )
    return config


def dump_config(config: Config) -> str:
    """The whole experiment as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def differences(old: Config, new: Config, ignore: Sequence[str] = ()) -> list[str]:
    """Which settings differ, as `name: old → new`, but for those whose names start as ignored."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [
        f"{name}: {before.get(name)} → {after.get(name)}"
        for name in {**before, **after}
        if before.get(name) != after.get(name) and not name.startswith(tuple(ignore))
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: it constructs plain values alone
    except yaml.YAMLError as error:
        raise UserError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from error


def _override(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise UserError(f"--set {override!r} must have the form section.setting=value")
    *sections, setting = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override!r}: {section!r} is a setting, not a section")
    values[setting] = _parse(text, f"--set {override!r}")


def _family_problems(values: Mapping[str, Any]) -> list[str]:
    try:
        FamilyConfig.model_validate(values).load()
    except ValidationError:
        return []  # already among the problems
    except ValueError as error:
        return [f"family: {error}"]
    return []


def _count(problems: Sequence[str]) -> str:
    return "a mistake" if len(problems) == 1 else f"{len(problems)} mistakes"


def _sentence(detail: ErrorDetails) -> str:
    # the union's tag stands in the location, though not in the file
    location = [str(part) for part in detail["loc"] if part not in ("trpo", "adam")]
    name = ".".join(location)
    given = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            known = _known_settings(detail["loc"][:-1])
            return (
                f"{name}: there is no such setting{did_you_mean(location[-1], known)}; "
                f"there are {', '.join(known)}"
            )
        case "model_type" | "model_attributes_type":
            return f"{name}: must be a section with settings of its own, not {given!r}"
        case "missing":
            return f"{name}: this setting is required"
        case "union_tag_invalid":
            return f"{name}.algorithm: must be 'trpo' or 'adam', not {given['algorithm']!r}"
        case _:
            message = detail["msg"].removeprefix("Input ").removeprefix("should ")
            return f"{name}: must {message}, not {given!r}"


def _known_settings(location: Sequence[int | str]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        if part in ("trpo", "adam"):
            model = TRPOConfig if part == "trpo" else AdamConfig
        elif isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            options = [a for a in (annotation, *typing.get_args(annotation)) if _is_model(a)]
            model = options[0] if options else model  # of a union the next part tells which
    return list(model.model_fields)


def _is_model(annotation: Any) -> typing.TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
