"""What the site adds to Markdown: code by its name, and equations.

`--8<-- metarl/rl/losses.py::surrogate`, a line of its own, stands for that function as it is now,
without its docstring; without `::` for the whole file. A name that is gone fails the build.
"""

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
REFERENCE = re.compile(r"^--8<-- (\S+?)(?:::(\S+))?$", re.MULTILINE)


def included(file: str, name: str | None) -> str:
    """The text of a file of the repository, or the code of a function, class or method in it.

    Args:
        file: from the repository's root.
        name: such as `MAML.step`; the whole file where None.

    Raises:
        KeyError: if the file has no such name.
    """
    text = (ROOT / file).read_text()
    if name is None:  # a page at the root is shown in docs, as are the pages that it links to
        return text.replace("](docs/", "](")
    node: Any = ast.parse(text)
    for part in name.split("."):
        named = {child.name: child for child in node.body if hasattr(child, "name")}
        if part not in named:
            raise KeyError(f"{file} has no {name}")
        node = named[part]
    lines = text.splitlines()
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    body = lines[node.body[0].end_lineno : node.end_lineno]
    head = lines[first - 1 : node.body[0].lineno - 1]
    if ast.get_docstring(node) is None:
        body = lines[node.body[0].lineno - 1 : node.end_lineno]
    return textwrap.dedent("\n".join([*head, *body]))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs calls it with every page."""
    markdown = REFERENCE.sub(lambda found: included(found[1], found[2]), markdown)
    if "/" not in page.file.src_uri:  # links out of docs lead to files that are no pages
        markdown = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
    if page.file.src_uri.startswith("algorithms/"):
        from latex2mathml.converter import convert  # of the extra [docs], which tests do without

        markdown = re.sub(
            r"\$\$(.+?)\$\$",
            lambda found: convert(found[1].strip(), display="block"),
            markdown,
            flags=re.DOTALL,
        )
        # in a span: <math> at the beginning of a line would be a paragraph of its own
        markdown = re.sub(
            r"\$([^$\n]+)\$", lambda found: f"<span>{convert(found[1])}</span>", markdown
        )
    return markdown
