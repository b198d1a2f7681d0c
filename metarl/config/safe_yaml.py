"""YAML of which nothing is expected but plain values: it may come from somebody else."""

import re
from typing import Any

import yaml

from metarl.errors import UserError

LARGEST = 100_000  # bytes; PyYAML takes a second for so many
DEEPEST = 20
MOST_VALUES = 10_000


class _Loader(yaml.SafeLoader):
    """YAML, in which 1e-2 is a number as everybody expects; PyYAML alone reads a string.

    It is no deeper and no larger than a config may be, where what an alias stands for counts as
    often as it is used: a few lines of aliases can stand for billions of values.
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
            if node is None or node not in self._sizes:
                raise self._refusal(f"the alias *{event.anchor} stands for what it is in", event)
            self._values += self._sizes[node]
        else:
            if getattr(event, "tag", None) is not None:
                raise self._refusal(f"tags such as {event.tag!r} have no meaning here", event)
            before = self._values
            self._values += 1
            self._depth += 1
            if self._depth > DEEPEST:
                raise self._refusal(f"it is nested deeper than {DEEPEST} levels", event)
            node = super().compose_node(parent, index)
            self._depth -= 1
            assert node is not None
            self._sizes[node] = self._values - before
        if self._values > MOST_VALUES:
            raise self._refusal(f"it has more than {MOST_VALUES} values", event)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise self._refusal(f"{twice[0]!r} is given twice", node)
        return node

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """An integer of 64 bits."""
        if len(node.value) > 70 or not -(2**63) <= (value := self.construct_yaml_int(node)) < 2**63:
            raise self._refusal("an integer must have 64 bits at most", node)
        return value

    @staticmethod
    def _refusal(problem: str, where: Any) -> yaml.YAMLError:
        return yaml.composer.ComposerError(None, None, problem, where.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
_Loader.yaml_implicit_resolvers = {
    key: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:float"]
    for key, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, origin: str) -> Any:
    """The plain values that a text says.

    Args:
        text: at most `LARGEST` bytes of it.
        origin: what the text is, for the error.

    Raises:
        UserError: if it is not valid, or more than plain values.
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: it constructs plain values alone
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-99-99
        raise UserError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from error
