"""Ctrl-C and other signals that end a training: what can be lost is saved first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # what shells report after Ctrl-C
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopping() -> Iterator["Stop"]:
    """Where signals are answered by a `Stop`."""
    stop = Stop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stop:
    """Ctrl-C, a kind kill, or a terminal that went away.

    Where nothing can be lost it stops what is going on by KeyboardInterrupt, and once: what cleans
    up then is left in peace, whatever signals follow. Anywhere else, as while a checkpoint is
    written, and where Python ignores an exception, as within a finaliser, it is remembered.
    """

    asked = False
    _strikes = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        self.asked = True
        if self._strikes:
            self._strikes = False
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Where a signal, or one that came before, is answered by KeyboardInterrupt."""
        try:
            self._strikes = True
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._strikes = False
