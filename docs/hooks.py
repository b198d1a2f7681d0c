"""Extensions of Markdown for the site: included code, tables made from code, and equations.

A line may consist of a link, which leads to the source where the pages are read in the repository.
The site replaces it:

    [`surrogate` in metarl/rl/losses.py](../metarl/rl/losses.py)    by the code without docstring
    [CONTRIBUTING.md](../CONTRIBUTING.md)                           by the file
    [Settings of metarl.rl.config:Config](../metarl/rl/config.py)   by a table of all settings
    [Trained policies and networks](../configs/trained)             by the gallery

A name that does not exist fails the build.
"""

import ast
import importlib
import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter

ROOT = Path(__file__).parent.parent
CODE = re.compile(r"^\[`([\w.]+)` in (\S+)\]\((?:\.\./)+\2\)$", re.MULTILINE)
FILE = re.compile(r"^\[(\S+)\]\((?:\.\./)+\1\)$", re.MULTILINE)
SETTINGS = re.compile(r"^\[Settings of (\S+)\]\(\S+\)$", re.MULTILINE)
GALLERY = re.compile(r"^\[Trained policies and networks\]\(\S+\)$", re.MULTILINE)


def included(file: str, name: str) -> str:
    """The code of a function, class or method, without its docstring.

    Args:
        file: path relative to the root of the repository.
        name: such as `MAML.step`.

    Raises:
        KeyError: if the name does not exist.
    """
    text = (ROOT / file).read_text()
    node: Any = ast.parse(text)
    for part in name.split("."):
        children = {child.name: child for child in node.body if hasattr(child, "name")}
        if part not in children:
            raise KeyError(f"{file} has no {name}")
        node = children[part]
    lines = text.splitlines()
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    body = lines[node.body[0].end_lineno : node.end_lineno]
    head = lines[first - 1 : node.body[0].lineno - 1]
    if ast.get_docstring(node) is None:
        body = lines[node.body[0].lineno - 1 : node.end_lineno]
    return textwrap.dedent("\n".join([*head, *body]))


def settings_tables(config: str) -> str:
    """Every setting of a config with its type and default, a table for each section.

    Args:
        config: import string, such as `metarl.rl.config:Config`.
    """
    module_name, _, name = config.partition(":")
    module = importlib.import_module(module_name)
    schema = getattr(module, name)
    # sections whose settings depend on a name in them
    tagged = {"method": "METHOD", "outer": "OUTER", "data": "TASKS", "network": "NETWORK"}
    parts, top = [], []
    for field, info in schema.model_fields.items():
        if field in tagged:
            choice = getattr(module, tagged[field])
            for value in choice.registry:
                section = choice.schema(value)
                if len(section.model_fields) > 1:  # it has more settings than its name
                    parts.append(section_table(f"{field}: {{{choice.tag}: {value}}}", section))
        elif inspect.isclass(info.annotation) and hasattr(info.annotation, "model_fields"):
            parts.append(section_table(field, info.annotation))
        else:
            top.append(field)
    return "\n\n".join([*parts, section_table("top level", schema, top)])


def section_table(title: str, section: Any, names: list[str] | None = None) -> str:
    """The heading, the docstring and the settings of a section; all if `names` is None."""
    types = section.model_json_schema()["properties"] if names is None else {}
    rows = ["| setting | type | default |", "|---|---|---|"]
    for name in names or section.model_fields:
        info = section.model_fields[name]
        default = info.get_default(call_default_factory=True)
        shown = "required" if info.is_required() else f"`{_yaml(default)}`"
        type_ = _type(
            types.get(name) or TypeAdapter(Annotated[info.annotation, info]).json_schema()
        )
        rows.append(f"| `{name}` | {type_} | {shown} |")
    table = "\n".join(rows)
    documentation = inspect.cleandoc(section.__doc__ or "") if names is None else ""
    return f"### `{title}`\n\n{documentation}\n\n{table}"


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in words, such as `number > 0`."""
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " or ".join(f"`{value}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    bounds = [
        f"{sign} {schema[key]:g}" for key, sign in signs.items() if schema.get(key, 1e30) < 1e30
    ]
    return f"{schema.get('type', 'any')} {', '.join(bounds)}".strip()


def gallery() -> str:
    """A section for each trained policy of the package, with its returns and its command."""
    parts = []
    for path in sorted((ROOT / "configs" / "trained").iterdir()):
        evaluation = json.loads((path / "evaluation.json").read_text())
        scores = " → ".join(f"{mean:.4g}".replace("-", "−") for mean in evaluation["mean"][:4])
        stages = ", ".join(map(str, range(len(evaluation["mean"][:4]))))
        command = RENDER.get(path.name, f"metarl render {path.name}")
        files = (ROOT / "docs" / "gallery").glob(f"{path.name}.*")
        picture = PICTURES.get(path.name, next((f"gallery/{file.name}" for file in files), None))
        parts += [
            f"## {path.name}",
            f"{evaluation['method']}, {len(evaluation['tasks'])} held-out tasks: **{scores}** "
            f"after {stages} steps of adaptation.",
            f"    {command}\n    metarl evaluate {path.name}",
        ]
        if picture:
            parts.append(f"![{path.name} before and after adaptation]({picture})")
    return "\n\n".join(parts)


# the commands that made the pictures of the gallery
RENDER = {
    "ant_direction": "metarl render ant_direction --task 1",
    "ant_velocity": "metarl render ant_velocity --task 2 --steps 0 1",
    "half_cheetah_direction": "metarl render half_cheetah_direction --task 1",
    "half_cheetah_direction_gymnasium": (
        "metarl render half_cheetah_direction_gymnasium --task -1 --steps 0 1"
    ),
    "half_cheetah_velocity": "metarl render half_cheetah_velocity --task 1.8 --steps 0 1",
    "point_navigation": "metarl render point_navigation --steps 0 1",
    "sinusoid": "metarl render sinusoid --task 3 1",
}
PICTURES = {
    "ant_direction": "ant_forward.gif",
    "ant_goal": "ant_goal.gif",
    "half_cheetah_direction": "half_cheetah_forward.gif",
}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Process a page; called by MkDocs."""
    markdown = CODE.sub(lambda m: f"```python\n{included(m[2], m[1])}\n```", markdown)
    # CONTRIBUTING.md is shown as a page of docs: its links change
    markdown = FILE.sub(lambda m: (ROOT / m[1]).read_text().replace("](docs/", "]("), markdown)
    markdown = SETTINGS.sub(lambda match: settings_tables(match[1]), markdown)
    markdown = GALLERY.sub(lambda _: gallery(), markdown)
    if "/" not in page.file.src_uri:  # links to files outside docs would be broken
        markdown = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
    if page.file.src_uri.startswith("algorithms/"):
        from latex2mathml.converter import convert  # only needed to build the site (extra [docs])

        markdown = re.sub(
            r"\$\$(.+?)\$\$",
            lambda match: convert(match[1].strip(), display="block"),
            markdown,
            flags=re.DOTALL,
        )
        # in a span, because <math> at the beginning of a line would start a paragraph
        markdown = re.sub(
            r"\$([^$\n]+)\$", lambda match: f"<span>{convert(match[1])}</span>", markdown
        )
    return markdown
