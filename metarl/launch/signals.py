"""Stopping a training by a signal, such as Ctrl-C, without losing completed iterations."""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

INTERRUPTED = 130  # the exit status that shells use after Ctrl-C
# Windows has no SIGHUP
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


# two classes: a thread of a user's program cannot handle signals, but trains by the same code
class StopRequest:
    """A request to stop training after the current iteration; never made by this base class."""

    requested = False

    def interruptible(self) -> AbstractContextManager[None]:
        """A block that KeyboardInterrupt may end, because nothing is lost in it."""
        return nullcontext()


class StopSignal(StopRequest):
    """A request to stop, made by SIGINT, SIGTERM or SIGHUP.

    In an `interruptible` block the first signal raises KeyboardInterrupt; later ones don't, so that
    clean-up code is not interrupted. Elsewhere, such as while a checkpoint is written, and where
    Python ignores exceptions, such as in a finaliser, the signal sets `requested` only.
    """

    _raises = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.requested = True
        if self._raises:
            self._raises = False
            raise KeyboardInterrupt

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that a signal ends by KeyboardInterrupt, also one that came before."""
        try:
            self._raises = True
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """A block in which signals make a request to stop; only Python's main thread handles them."""
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest()
        return
    stop = StopSignal()
    before = {
        number: signal.signal(number, stop)
        for number in STOP_SIGNALS
        # nohup ignores SIGHUP; a shell ignores SIGINT in the background, which must stop as well
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
