"""Mistakes of the user's, as opposed to bugs of ours."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can mend. The message is for them: what is wrong, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class StorageError(Exception):
    """A run's directory could not be written to: a full disk, or a directory that went away.

    The command line prints it without a traceback and exits with status 1.
    """


class ProcessLost(Exception):
    """Another process that shares this training died, so that this one cannot go on.

    The command line prints it without a traceback and exits with status 1.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
