"""Progress of long operations in a log and in a terminal."""

import io
import re
import threading

import pytest
from rich.console import Console

from metarl import progress
from metarl.progress import Progress, show_status


class Log(io.StringIO):
    """A file that sets an event when a line is flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.line_flushed = threading.Event()

    def flush(self) -> None:
        super().flush()
        if "elapsed" in self.getvalue():
            self.line_flushed.set()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """A log with a line after 10 ms, and then one every hour."""
    monkeypatch.setattr(progress, "FIRST_INTERVALS", (0.01,))
    monkeypatch.setattr(progress, "INTERVAL", 3600.0)
    return Log()


def test_a_log_gets_plain_lines_that_are_flushed(log: Log) -> None:
    progress_bars = Progress(Console(file=log))
    task = progress_bars.add_task("MAML", total=500, completed=100)
    task.update(120, "pre / post return -20.1 / -9.3")
    with progress_bars:
        assert log.line_flushed.wait(10.0)
        line = log.getvalue().splitlines()[0]
        task.update(500, "pre / post return -12.0 / -4.1")
    assert re.fullmatch(
        r"MAML: iteration 120/500, pre / post return -20.1 / -9.3, 0:00 elapsed, ETA 0:0\d", line
    )
    last = log.getvalue().splitlines()[1:]
    assert last == ["MAML: iteration 500/500, pre / post return -12.0 / -4.1, 0:00 elapsed"]


def test_a_log_gets_lines_of_an_operation_that_reports_nothing(log: Log) -> None:
    with show_status(Console(file=log), "evaluating runs/mine"):
        assert log.line_flushed.wait(10.0)
    assert log.getvalue() == "evaluating runs/mine, 0:00 elapsed\n"


def test_an_operation_that_ends_before_the_first_line_gets_a_final_line_only() -> None:
    log = Log()
    with show_status(Console(file=log), "evaluating runs/mine"):
        pass
    with Progress(Console(file=log)) as progress_bars:
        progress_bars.add_task("seed-1", total=3).update(3)
        progress_bars.add_task("seed-2", total=3, completed=3)
    assert log.getvalue() == "seed-1: iteration 3/3, 0:00 elapsed\n"


def test_a_terminal_has_a_bar_and_no_lines(log: Log) -> None:
    with Progress(Console(file=log, force_terminal=True, width=100)) as progress_bars:
        progress_bars.add_task("MAML", total=4).update(3, "return -2")
    assert "3/4" in log.getvalue()
    assert "return -2" in log.getvalue()
    assert "elapsed" not in log.getvalue()


def test_a_finished_bar_is_replaced_by_a_line() -> None:
    screen = io.StringIO()
    with Progress(Console(file=screen, force_terminal=True, width=100)) as progress_bars:
        task = progress_bars.add_task("seed-1", total=4)
        task.update(4, "return -2")
        task.finish()
        progress_bars.add_task("seed-2", total=4)
    assert "seed-1: iteration 4/4, return -2, 0:00 elapsed" in screen.getvalue()
    assert "seed-1" not in screen.getvalue().rpartition("seed-2")[0].splitlines()[-1]
