"""Names in configs: `maml`, `ant-goal`, `conv4`, or `package.module:Class` for custom classes.

A registry maps names to import strings. A module is imported when one of its names is loaded, so
that packages can be registered without importing each other.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from metarl.errors import UserError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


class Registry(Mapping[str, str]):
    """Import strings `module:attribute` by name, in the order in which they are listed.

    `kind` is that of the entries in error messages, such as "task family". `decorator` registers
    functions, if custom functions are supported; `functions` are entries that are no classes.
    """

    def __init__(
        self, kind: str, entries: Mapping[str, str], decorator: str = "", functions: bool = False
    ) -> None:
        self.kind = kind
        self.functions = functions
        self.decorator = decorator
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def register(self, name: str) -> Callable[[F], F]:
        """Return a decorator that registers a class or a function.

        Raises:
            ValueError: if the name is taken.
        """

        def decorator(factory: F) -> F:
            entry = f"{factory.__module__}:{factory.__qualname__}"
            # the same entry again is no error: a module may be reloaded, as in a notebook
            if self._entries.setdefault(name, entry) != entry:
                raise ValueError(f"{self.kind} {name!r} is already {self._entries[name]}")
            return factory

        return decorator

    def load(self, name: str, members: Sequence[str] = ()) -> Any:
        """Import the object that a name stands for.

        Args:
            name: a registered name, or `package.module:Class` on the Python path or in the working
                directory; a function must be registered by its module.
            members: the attributes that a custom class must have, such as `"step"`, or
                `"evaluate or adaptation_curve"` for alternatives.

        Raises:
            UserError: if the name is unknown, the class lacks a member, or a package is missing.
        """
        if name in self._entries:
            module, _, attribute = self._entries[name].partition(":")
            try:
                return getattr(importlib.import_module(module), attribute)
            except ModuleNotFoundError as error:
                # a module of this package that is missing is a bug; others are optional
                if error.name is None or error.name.startswith("metarl"):
                    raise
                raise UserError(
                    f"{self.kind} {name!r} needs {error.name}, which is not installed: "
                    f"pip install {error.name}"
                ) from error
        if ":" not in name:  # an import string of a custom class has one
            raise UserError(
                f"there is no {self.kind} {name!r}{did_you_mean(name, self)}; there are "
                f"{', '.join(self)}, or package.module:"
                f"{'function' if self.functions else 'Class'} for a custom one"
            )
        return self._load_custom(name, members)

    def _load_custom(self, name: str, members: Sequence[str]) -> Any:
        module_name, _, attribute = name.partition(":")
        # the console script `metarl` does not search the working directory, unlike python -m
        if (directory := os.getcwd()) not in sys.path:
            sys.path.insert(0, directory)
        try:
            if module_name.startswith("."):
                raise ImportError("relative imports are not supported")
            module = importlib.import_module(module_name)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"{self.kind} {name!r}: cannot import {module_name!r} ({error}); run from the "
                "folder that contains it, or add that folder to PYTHONPATH"
            ) from error
        except (Exception, SystemExit) as error:  # a custom module may raise anything
            raise UserError(
                f"{self.kind} {name!r}: importing {module_name!r} raised {type(error).__name__} "
                f"({error}); fix that module"
            ) from error
        loaded = getattr(module, attribute, None)
        # the import has registered it: then it may be a function
        if name in self._entries.values():
            return loaded
        if self.decorator and inspect.isfunction(loaded):
            raise UserError(
                f"{self.kind} {name!r} is a function: decorate it with @{self.decorator}(name)"
            )
        is_entry = inspect.isfunction if self.functions else inspect.isclass
        if not is_entry(loaded):
            word = "function" if self.functions else "class"
            entries = [key for key, value in vars(module).items() if is_entry(value)]
            raise UserError(
                f"{self.kind} {name!r}: module {module_name!r} has no {word} {attribute!r}"
                f"{did_you_mean(attribute, entries)}"
            )
        if missing := [
            member
            for member in members
            if not any(hasattr(loaded, alternative) for alternative in member.split(" or "))
        ]:
            raise UserError(f"{name!r} is not a {self.kind}: it lacks {', '.join(missing)}")
        return loaded


def make(
    kind: str,
    name: str,
    factory: Callable[..., Any],
    settings: Mapping[str, Any],
    optional: Mapping[str, Any] | None = None,
) -> Any:
    """Construct an object by `factory(**settings)`; `kind` and `name` are for error messages.

    Each of the `optional` keyword arguments is passed only if the factory has a parameter of this
    name and `settings` has no value for it.

    Raises:
        UserError: if the factory has no such parameter, or raises an error.
    """
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError as error:  # some classes of C extensions have no signature
        raise UserError(f"{kind} {name!r} is not a Python class: {error}") from error
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for setting in settings:  # checked first: the TypeError of a call has no suggestion
        if setting not in parameters and not takes_any:
            raise UserError(
                f"{kind} {name!r} has no setting {setting!r}"
                f"{did_you_mean(setting, parameters)}; it has {', '.join(parameters) or 'none'}"
            )
    arguments = {key: value for key, value in (optional or {}).items() if key in parameters}
    try:
        return factory(**{**arguments, **settings})
    except (TypeError, ValueError) as error:
        raise UserError(f"{kind} {name!r} does not accept its settings: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{kind} {name!r} cannot be constructed: it raised {type(error).__name__} ({error})"
        ) from error
