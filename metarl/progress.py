"""How far long work is: a bar on a terminal, plain lines in a log.

A log is any output that is no terminal. It gets lines soon after work began, and then one every
minute, whether or not the work said anything meanwhile; each is there to be read at once.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column

FIRST = (5.0, 5.0, 10.0, 10.0, 30.0)  # seconds between the first lines of a log
USUAL = 60.0  # and between those that follow


class Task:
    """Counted work; see `Progress.add`.

    Attributes:
        done: how many are done.
    """

    def __init__(self, what: str, unit: str, total: int, done: int, bars: Bars | None) -> None:
        self.done = done
        self._what, self._unit, self._total, self._before = what, unit, total, done
        self._said = ""
        self._began = time.monotonic()
        self._told = -1 if done < total else done  # of what was complete before, nothing is said
        self._ended = False
        self._bars = bars
        if bars is not None:
            self._bar = bars.add_task(what, total=total, completed=done, said="")

    def update(self, done: int, said: str = "") -> None:
        """So many are done, and this is what is seen meanwhile."""
        self.done, self._said = done, said
        if self._bars is not None:
            self._bars.update(self._bar, completed=done, said=said)

    def end(self) -> None:
        """Nothing more comes, whether or not all is done: of a bar a line is what stays."""
        self._ended = True
        if self._bars is not None:
            self._bars.update(self._bar, visible=False)
            if line := self.line():
                _say(self._bars.console, line)

    def line(self, at_the_end: bool = False) -> str | None:
        """Such as `MAML: iteration 120/500, pre / post return -20 / -9, 2:10 elapsed, ETA 6:51`.

        None where it was said already: of what is over, and at the end of all the rest.
        """
        over = at_the_end or self._ended or self.done == self._total
        if self._told == self.done and over:
            return None
        self._told = self.done
        elapsed = time.monotonic() - self._began
        parts = [f"{self._what}: {self._unit} {self.done}/{self._total}"]
        parts += [self._said] if self._said else []
        parts.append(f"{_clock(elapsed)} elapsed")
        if self._before < self.done < self._total:
            each = elapsed / (self.done - self._before)
            parts.append(f"ETA {_clock(each * (self._total - self.done))}")
        return ", ".join(parts)


class Progress:
    """Shows counted work, one piece or several side by side, while it is entered.

    Args:
        console: where to.
        transient: whether a terminal forgets it at the end.
    """

    def __init__(self, console: Console, transient: bool = False) -> None:
        self._console = console
        self._tasks: list[Task] = []
        self._bars = _bars(console, transient) if console.is_terminal else None
        self._lines = _Lines(self._tell)

    def add(self, what: str, total: int, done: int = 0, unit: str = "iteration") -> Task:
        """Begin some work.

        Args:
            what: what is done, in a word or two.
            total: how many there are to do.
            done: how many are done already.
            unit: what is counted.

        Returns:
            What is to be told how far it is.
        """
        task = Task(what, unit, total, done, self._bars)
        self._tasks.append(task)
        return task

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        else:
            self._lines.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()
        else:
            self._lines.stop()
            self._tell(at_the_end=True)

    def _tell(self, at_the_end: bool = False) -> None:
        for task in [*self._tasks]:
            if line := task.line(at_the_end):
                _say(self._console, line)


@contextmanager
def working(console: Console, what: str) -> Iterator[None]:
    """Show that something goes on of which nobody knows how long it takes."""
    if console.is_terminal:
        with console.status(f"{what} ..."):
            yield
        return
    began = time.monotonic()
    lines = _Lines(lambda: _say(console, f"{what}, {_clock(time.monotonic() - began)} elapsed"))
    lines.start()
    try:
        yield
    finally:
        lines.stop()


class _Lines:
    """Calls a function now and then: often at first, and later every minute."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        for seconds in chain(FIRST, repeat(USUAL)):
            if self._ended.wait(seconds):
                return
            self._tell()


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)  # and it flushes


def _clock(seconds: float) -> str:
    """Such as `0:07`, `12:30` or `3:04:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bars(console: Console, transient: bool) -> Bars:
    def fixed() -> Column:
        return Column(no_wrap=True)

    return Bars(
        TextColumn("{task.description}", table_column=fixed()),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(table_column=fixed()),
        TimeElapsedColumn(table_column=fixed()),
        TextColumn("ETA", table_column=fixed()),
        TimeRemainingColumn(compact=True, table_column=fixed()),
        TextColumn("{task.fields[said]}", table_column=fixed()),
        console=console,
        expand=True,
        transient=transient,
    )
