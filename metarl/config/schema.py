"""The JSON schema of configs, by which editors complete, explain and check YAML files."""

import inspect
import re
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from metarl.config.sections import RENAMED, Discriminated, Experiment, Section, discriminators

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(configs: Sequence[type[Experiment]]) -> dict[str, Any]:
    """The schema of a YAML file that holds one of these configs.

    A file that extends another one may lack settings that are required otherwise.
    """
    choices = {
        (config, name): choice
        for config in configs
        for name, field in config.model_fields.items()
        for choice in discriminators(field)
    }
    sections = {choice.schema(tag) for choice in choices.values() for tag in choice.registry}
    classes: list[type[BaseModel]] = [*configs, *sorted(sections, key=lambda cls: cls.__qualname__)]
    # in one call, so that classes of the same name get different definitions
    keyed, schema = models_json_schema([(cls, "validation") for cls in classes])
    references = {cls: keyed[cls, "validation"]["$ref"] for cls in classes}
    definitions: dict[str, Any] = schema["$defs"]
    for (config, name), choice in choices.items():
        properties = definitions[references[config].rpartition("/")[2]]["properties"]
        # pydantic sees the base class of the sections only
        properties[name] = {"anyOf": _alternatives(choice, references)}
    # a section of a config that extends another one may be incomplete
    required = {name: definition.pop("required", []) for name, definition in definitions.items()}
    sections |= {
        section
        for config in configs
        for field in config.model_fields.values()
        for section in (field.annotation, *get_args(field.annotation))  # also `Section | None`
        if isinstance(section, type) and issubclass(section, Section)
    }
    for name, definition in definitions.items():
        # of two classes with one name, pydantic's name has the module too
        names = {name, name.rpartition("__")[2]}
        owners = [
            cls
            for cls in {*configs, *sections}
            if cls.__name__ in names
            and ("__" not in name or name.startswith(cls.__module__.replace(".", "__")))
        ]
        _describe_properties(definition, owners)
    for choice in choices.values():
        for tag in choice.registry:
            name = references[choice.schema(tag)].rpartition("/")[2]
            text = f"The {choice.registry.kind}, on which the other settings here depend."
            definitions[name]["properties"][choice.tag].setdefault("description", text)
    for config in configs:
        name = references[config].rpartition("/")[2]
        definition = definitions[name]
        definition["anyOf"] = [{"required": required[name]}, {"required": ["extends"]}]
        definition["properties"]["extends"] = {
            "type": "string",
            "description": "A config whose settings this one changes: a name, or a path.",
        }
    return {
        "$schema": DIALECT,
        "title": "metarl config",
        "anyOf": [{"$ref": references[config]} for config in configs],
        "$defs": definitions,
    }


def _alternatives(
    choice: Discriminated, references: dict[type[BaseModel], str]
) -> list[dict[str, Any]]:
    """A tag alone, the sections of the registered tags, and those of custom classes."""
    tags: dict[type[Section], list[str]] = {}
    for tag in choice.registry:
        tags.setdefault(choice.schema(tag), []).append(tag)
    sections = [
        {"$ref": references[section], "properties": {choice.tag: {"enum": names}}}
        for section, names in tags.items()
    ]
    custom = {"type": "string", "pattern": ":", "description": "package.module:Class"}
    return [
        {"enum": [*choice.registry]},
        *sections,
        custom,
        {"type": "object", "properties": {choice.tag: custom}, "required": [choice.tag]},
    ]


def _describe_properties(definition: dict[str, Any], owners: Sequence[type[BaseModel]]) -> None:
    """Describe each setting by the sentences of the section's docstrings that mention it."""
    bases = dict.fromkeys(base for owner in owners for base in owner.__mro__)
    texts = [
        inspect.cleandoc(base.__doc__ or "").replace("\n", " ")
        for base in bases
        if issubclass(base, Section) and base not in (Section, Experiment)
    ]
    definition["description"] = next(iter(texts), "")
    sentences = [part for text in texts for part in re.split(r"(?<=[.:]) +(?:- )?(?=[A-Z`])", text)]
    properties = definition.get("properties", {})
    for name, setting in properties.items():
        mentions = [sentence for sentence in sentences if re.search(rf"`{name}\b", sentence)]
        if mentions:
            setting.setdefault("description", " ".join(mentions))
    for old, new in RENAMED.items():  # still accepted, and struck through in editors
        if new in properties:
            properties[old] = {**properties[new], "deprecated": True}
