"""Extensions of Markdown for the site: included code, and equations.

A line `--8<-- metarl/rl/losses.py::surrogate` is replaced by the code of that function without its
docstring; without `::`, by the entire file. A name that does not exist fails the build.
"""

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
REFERENCE = re.compile(r"^--8<-- (\S+?)(?:::(\S+))?$", re.MULTILINE)


def included(file: str, name: str | None) -> str:
    """The text of a file, or the code of a function, class or method in it.

    Args:
        file: path relative to the root of the repository.
        name: such as `MAML.step`; None for the entire file.

    Raises:
        KeyError: if the name does not exist.
    """
    text = (ROOT / file).read_text()
    if name is None:  # CONTRIBUTING.md is shown as a page of docs: its links change
        return text.replace("](docs/", "](")
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


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Process a page; called by MkDocs."""
    markdown = REFERENCE.sub(lambda match: included(match[1], match[2]), markdown)
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
