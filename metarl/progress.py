"""Progress of long operations: a bar in a terminal, plain lines in a log.

A log is any output that is not a terminal. The first lines come soon after the start, the following
ones every minute, whether or not the operation reported anything in between. Each line is flushed.
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

FIRST_INTERVALS = (5.0, 5.0, 10.0, 10.0, 30.0)  # seconds between the first lines of a log
INTERVAL = 60.0  # seconds between all later lines


class Task:
    """An operation with a known number of units; see `Progress.add_task`."""

    def __init__(
        self, description: str, unit: str, total: int, completed: int, bars: Bars | None
    ) -> None:
        self.completed, self._initial, self._total = completed, completed, total
        self._description, self._unit, self._message = description, unit, ""
        self._start = time.monotonic()  # unlike time.time(), not set back by a clock adjustment
        # number of completed units in the last line; a task that was complete gets none
        self._logged = completed if completed == total else -1
        self._finished = False
        self._bars = bars
        if bars is not None:
            self._bar = bars.add_task(description, total=total, completed=completed, message="")

    def update(self, completed: int, message: str = "") -> None:
        """Set the number of completed units, and a message such as the current return."""
        self.completed, self._message = completed, message
        if self._bars is not None:
            self._bars.update(self._bar, completed=completed, message=message)

    def finish(self) -> None:
        """Replace the bar by a line; the task may be incomplete."""
        self._finished = True
        if self._bars is not None:
            self._bars.update(self._bar, visible=False)
            if line := self.log_line():
                print_line(self._bars.console, line)

    def log_line(self, final: bool = False) -> str | None:
        """A line for a log; None if it would repeat the last line of a task that has ended.

        For example `MAML: iteration 120/500, pre / post return -20 / -9, 2:10 elapsed, ETA 6:51`.
        """
        ended = final or self._finished or self.completed == self._total
        if self._logged == self.completed and ended:
            return None
        self._logged = self.completed
        elapsed = time.monotonic() - self._start
        parts = [f"{self._description}: {self._unit} {self.completed}/{self._total}"]
        parts += [self._message] if self._message else []
        parts.append(f"{_clock(elapsed)} elapsed")
        # the speed of this process: units that a resumed run had completed took no time now
        if self._initial < self.completed < self._total:
            seconds_per_unit = elapsed / (self.completed - self._initial)
            parts.append(f"ETA {_clock(seconds_per_unit * (self._total - self.completed))}")
        return ", ".join(parts)


class Progress:
    """Shows the progress of tasks on a console; `transient` bars are removed at the end."""

    def __init__(self, console: Console, transient: bool = False) -> None:
        self._console = console
        self._tasks: list[Task] = []
        self._bars = _bars(console, transient) if console.is_terminal else None
        self._display = self._bars or _log_periodically(self._log)

    def add_task(
        self, description: str, total: int, completed: int = 0, unit: str = "iteration"
    ) -> Task:
        """Add a task of `total` units, whose `update` reports its progress."""
        self._tasks.append(Task(description, unit, total, completed, self._bars))
        return self._tasks[-1]

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._display.__exit__(None, None, None)
        if self._bars is None:
            self._log(final=True)

    def _log(self, final: bool = False) -> None:
        for task in [*self._tasks]:  # a copy, because tasks are added in another thread
            if line := task.log_line(final):
                print_line(self._console, line)


@contextmanager
def show_status(console: Console, description: str) -> Iterator[None]:
    """Show that an operation of unknown duration is running."""
    if console.is_terminal:
        with console.status(f"{description} ..."):
            yield
        return
    start = time.monotonic()

    def log() -> None:
        print_line(console, f"{description}, {_clock(time.monotonic() - start)} elapsed")

    with _log_periodically(log):
        yield


@contextmanager
def _log_periodically(log: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        for seconds in chain(FIRST_INTERVALS, repeat(INTERVAL)):
            if stop.wait(seconds):
                return
            log()

    # a thread, since an operation may take minutes between two reports; it must not outlive main
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def print_line(console: Console, line: str) -> None:
    """Print a line without colours and line breaks, so that paths can be copied; flush it."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    """Such as `0:07`, `12:30` or `3:04:00`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


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
        TextColumn("{task.fields[message]}", table_column=fixed()),
        console=console,
        expand=True,
        transient=transient,
    )
