"""What names stand for: `maml`, `ant-goal`, `conv4`, or `package.module:Class` of one's own.

A registry holds import strings, so that nothing is imported before it is asked for, and no two
packages need to import each other to be known to both.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from metarl.errors import UserError, did_you_mean


class Registry(Mapping[str, str]):
    """Import strings by name, in the order in which they are to be listed.

    Args:
        kind: what is registered, in a word or two, for messages.
        entries: `module:attribute` by name.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, name: str, members: tuple[str, ...] = ()) -> Any:
        """What a name stands for, imported.

        Args:
            name: one of this registry's, or `package.module:Class`, found on the Python path or in
                the working directory.
            members: what a class of one's own must have. A function, or a class without them, is
                refused before it could be called.

        Raises:
            UserError: if there is no such name, it stands for something else, or it needs a package
                that is not installed.
        """
        if name in self._entries:
            module, _, attribute = self._entries[name].partition(":")
            try:
                return getattr(importlib.import_module(module), attribute)
            except ModuleNotFoundError as error:
                if error.name is None or error.name.startswith("metarl"):
                    raise
                raise UserError(
                    f"{self.kind} {name!r} needs {error.name}, which is not installed: "
                    f"pip install {error.name}"
                ) from error
        if ":" not in name:
            raise UserError(
                f"there is no {self.kind} {name!r}{did_you_mean(name, self)}; there are "
                f"{', '.join(self)}, or package.module:Class for one of your own"
            )
        return self._imported(name, members)

    def _imported(self, name: str, members: tuple[str, ...]) -> Any:
        module_name, _, attribute = name.partition(":")
        if (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)
        try:
            if module_name.startswith("."):
                raise ImportError("it is relative to nothing")
            module = importlib.import_module(module_name)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"{self.kind} {name!r}: cannot import {module_name!r} ({error}); run from the "
                "folder that holds it, or put that on PYTHONPATH"
            ) from error
        except (Exception, SystemExit) as error:  # a stranger's module may raise whatever it likes
            raise UserError(
                f"{self.kind} {name!r}: importing {module_name!r} raised {type(error).__name__} "
                f"({error}); mend that module"
            ) from error
        found = getattr(module, attribute, None)
        if not isinstance(found, type):
            classes = [known for known, value in vars(module).items() if isinstance(value, type)]
            raise UserError(
                f"{self.kind} {name!r}: module {module_name!r} has no class {attribute!r}"
                f"{did_you_mean(attribute, classes)}"
            )
        if lacking := [member for member in members if not hasattr(found, member)]:
            raise UserError(f"{name!r} is not a {self.kind}: it lacks {', '.join(lacking)}")
        return found


def make(
    kind: str,
    name: str,
    factory: Callable[..., Any],
    settings: Mapping[str, Any],
    offered: Mapping[str, Any] | None = None,
) -> Any:
    """What a name stands for, made with its settings.

    Args:
        kind: what it is, in a word or two, for messages.
        name: as the user gave it.
        factory: the class, or a function.
        settings: keyword arguments.
        offered: more of them, each given only where the factory takes it and no setting does.

    Raises:
        UserError: if there is no such setting, or it cannot be made with these.
    """
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError as error:
        raise UserError(f"{kind} {name!r} is not a Python class: {error}") from error
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for setting in settings:
        if setting not in parameters and not takes_any:
            raise UserError(
                f"{kind} {name!r} has no setting {setting!r}"
                f"{did_you_mean(setting, parameters)}; it has {', '.join(parameters) or 'none'}"
            )
    taken = {word: value for word, value in (offered or {}).items() if word in parameters}
    try:
        return factory(**{**taken, **settings})
    except (TypeError, ValueError) as error:
        raise UserError(f"{kind} {name!r} does not accept its settings: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{kind} {name!r} cannot be made: its constructor raised "
            f"{type(error).__name__} ({error})"
        ) from error
