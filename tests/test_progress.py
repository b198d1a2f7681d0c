"""What a log and a terminal show of long work."""

import io
import re
import threading

import pytest
from rich.console import Console

from metarl import progress
from metarl.progress import Progress, working


class Log(io.StringIO):
    """A file that tells when it was flushed with a line in it."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def flush(self) -> None:
        super().flush()
        if "elapsed" in self.getvalue():
            self.told.set()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """A log that is due a line at once, and then one an hour."""
    monkeypatch.setattr(progress, "FIRST", (0.01,))
    monkeypatch.setattr(progress, "USUAL", 3600.0)
    return Log()


def test_a_log_gets_plain_lines_while_work_goes_on_flushed_at_once(log: Log) -> None:
    shown = Progress(Console(file=log))
    task = shown.add("MAML", total=500, done=100)
    task.update(120, "pre / post return -20.1 / -9.3")
    with shown:
        assert log.told.wait(10.0)
        line = log.getvalue().splitlines()[0]
        task.update(500, "pre / post return -12.0 / -4.1")
    assert re.fullmatch(
        r"MAML: iteration 120/500, pre / post return -20.1 / -9.3, 0:00 elapsed, ETA 0:0\d", line
    )
    last = log.getvalue().splitlines()[1:]
    assert last == ["MAML: iteration 500/500, pre / post return -12.0 / -4.1, 0:00 elapsed"]


def test_a_log_hears_of_work_that_says_nothing_itself(log: Log) -> None:
    with working(Console(file=log), "evaluating runs/mine"):
        assert log.told.wait(10.0)
    assert log.getvalue() == "evaluating runs/mine, 0:00 elapsed\n"


def test_what_is_over_before_a_line_is_due_says_nothing_but_its_end() -> None:
    log = Log()
    with working(Console(file=log), "evaluating runs/mine"):
        pass
    with Progress(Console(file=log)) as shown:
        shown.add("seed-1", total=3).update(3)
        shown.add("seed-2", total=3, done=3)
    assert log.getvalue() == "seed-1: iteration 3/3, 0:00 elapsed\n"


def test_a_terminal_has_a_bar_and_no_lines(log: Log) -> None:
    with Progress(Console(file=log, force_terminal=True, width=100)) as shown:
        shown.add("MAML", total=4).update(3, "return -2")
    assert "3/4" in log.getvalue()
    assert "return -2" in log.getvalue()
    assert "elapsed" not in log.getvalue()


def test_a_bar_that_ended_leaves_a_line_and_its_place_to_others() -> None:
    screen = io.StringIO()
    with Progress(Console(file=screen, force_terminal=True, width=100)) as shown:
        task = shown.add("seed-1", total=4)
        task.update(4, "return -2")
        task.end()
        shown.add("seed-2", total=4)
    assert "seed-1: iteration 4/4, return -2, 0:00 elapsed" in screen.getvalue()
    assert "seed-1" not in screen.getvalue().rpartition("seed-2")[0].splitlines()[-1]
