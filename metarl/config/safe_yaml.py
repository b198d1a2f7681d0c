"""YAML with plain values only, safe for files of unknown origin."""

import json
import re
from typing import Any

import yaml

from metarl.errors import UserError

MAX_BYTES = 100_000  # PyYAML takes a second for this many
MAX_DEPTH = 20
MAX_VALUES = 10_000


class _Loader(yaml.SafeLoader):
    """A safe loader with the numbers of YAML 1.2 in decimal, and limits of depth and size.

    YAML 1.1, which PyYAML follows, reads 1e-2 as text, 010 as 8 and 1:30 as 90.

    The limit is checked while nodes are composed, before anything is constructed. An alias counts
    as all values that it stands for, since a few lines of nested aliases can stand for billions
    (the "billion laughs" attack). The C loader composes nodes without such a hook.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if node is None or node not in self._sizes:  # its size is known once it is complete
                raise self._error(f"the alias *{event.anchor} stands for what it is in", event)
            self._values += self._sizes[node]
        else:
            if getattr(event, "tag", None) is not None:
                raise self._error(f"tags such as {event.tag!r} have no meaning here", event)
            before = self._values
            self._values += 1
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise self._error(f"it is nested deeper than {MAX_DEPTH} levels", event)
            node = super().compose_node(parent, index)
            self._depth -= 1
            assert node is not None
            self._sizes[node] = self._values - before
        if self._values > MAX_VALUES:
            raise self._error(f"it has more than {MAX_VALUES} values", event)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        # PyYAML keeps the last value of a repeated key, and the first would be ignored
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise self._error(f"{repeated[0]!r} is given twice", node)
        return node

    def _construct_integer(self, node: yaml.ScalarNode) -> int:
        # the length is checked first: Python refuses thousands of digits with an error of its own
        if len(node.value) > 70 or not -(2**63) <= (value := int(node.value)) < 2**63:
            raise self._error("an integer must have 64 bits at most", node)
        return value

    @staticmethod
    def _error(problem: str, where: Any) -> yaml.YAMLError:
        return yaml.composer.ComposerError(None, None, problem, where.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader._construct_integer)
_NUMBERS = {
    "tag:yaml.org,2002:int": r"[-+]?[0-9]+",
    "tag:yaml.org,2002:float": r"[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\.inf|\.nan)",
}
_Loader.yaml_implicit_resolvers = {
    key: [pair for pair in pairs if pair[0] not in _NUMBERS]
    for key, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():  # the first that matches counts
    _Loader.add_implicit_resolver(_tag, re.compile(f"^({_pattern})$"), list("-+0123456789."))


def as_json(value: Any) -> str:
    """A value as JSON, which is YAML; numbers may be numpy's.

    Raises:
        UserError: if it holds an object that is no number, text, list or mapping.
    """

    def plain(part: Any) -> Any:
        if hasattr(part, "tolist"):  # numbers, arrays and tensors
            return part.tolist()
        raise UserError(f"{part!r} is not a number, a text, a list or a dict")

    return json.dumps(value, default=plain)


def parse_yaml(text: str, origin: str) -> Any:
    """Parse YAML of at most `MAX_BYTES` bytes; `origin` is its source in error messages.

    Raises:
        UserError: if it is not valid YAML, has tags, or exceeds a limit.
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-99-99
        raise UserError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from error
