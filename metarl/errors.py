"""Exceptions whose messages are meant for users; all others are bugs."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """An error that the user can fix; the message names the problem and the fix.

    The command line prints it without a traceback and exits with status 2.
    """


class StorageError(Exception):
    """A run directory cannot be written: the disk is full, or the directory was deleted.

    The command line prints it without a traceback and exits with status 1.
    """


class ProcessLost(Exception):
    """Another process of a distributed training died, so that this one cannot continue.

    The command line prints it without a traceback and exits with status 1.
    """


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the candidate most similar to `word`, or an empty string."""
    return ask(difflib.get_close_matches(word, list(candidates), n=1))


def ask(candidates: Sequence[str]) -> str:
    """` (did you mean 'x' or 'y'?)`, or an empty string without candidates."""
    return f" (did you mean {' or '.join(map(repr, candidates))}?)" if candidates else ""
