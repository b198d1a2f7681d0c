"""What was seen in training: a line of JSON an iteration, and the same for TensorBoard.

TensorBoard sorts by name, capitals first: there the scores are `Return/…`, `Error/…` or
`Accuracy/…`, so that they are what one sees first.
"""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from metarl.errors import UserError
from metarl.evaluation import short
from metarl.io import read_bytes, translate_os_errors, write_atomically

NAME = "metrics.jsonl"
LARGEST = 2**30
LONGEST = 2**16  # bytes, of a line


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """What was logged in a run's directory, a dictionary for each iteration; empty if nothing was.

    A last line that is not whole yet is none: a run is being trained, or was killed.

    Raises:
        UserError: if something else is not whole.
    """
    path = folder / NAME
    if not path.exists():
        return []
    try:
        return list(_parsed(read_bytes(path, LARGEST)))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({error}); restore it from a copy, or delete it: the weights do "
            "not depend on it"
        ) from error


def last_metrics(folder: Path) -> dict[str, float] | None:
    """The last whole line of what was logged in a run's directory; None if there is none."""
    try:
        with (folder / NAME).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST))
            *_, last, _ = [b"", b"", *file.read().split(b"\n")]
        return _values(last) if last else None
    except FileNotFoundError:
        return None


def in_words(metrics: Mapping[str, float], metric: str) -> str:
    """The loss where there is one, and the scores of this name before and after adaptation."""
    said = [f"loss {metrics['loss']:.3g}"] if "loss" in metrics else []
    scores = [value for name, value in metrics.items() if name.startswith(f"{metric}/")]
    if scores:
        ends = scores[:1] + scores[1:][-1:]
        said.append(f"{metric} {' → adapted '.join(short(score) for score in ends)}")
    return ", ".join(said)


class Log(Protocol):
    """Where metrics go."""

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Add one iteration."""

    def close(self) -> None:
        """Nothing more comes."""


class MetricsLog:
    """Metrics of every iteration, as JSON lines and for TensorBoard.

    Opened at an iteration, it forgets what a run that was killed had written beyond it.

    Args:
        folder: a run's directory.
        iteration: how many iterations are done.
        metric: the name of the scores, which TensorBoard is to show first.
        config: the experiment in YAML, which TensorBoard shows as text.

    Raises:
        UserError: if what is there is damaged.
        StorageError: if it cannot be written; so do the methods.
    """

    def __init__(self, folder: Path, iteration: int, metric: str, config: str) -> None:
        self._folder, self._metric = folder, metric
        path = folder / NAME
        kept = [line for line in read_metrics(folder) if line["iteration"] <= iteration]
        with translate_os_errors(folder):
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
            self._lines = path.open("a")
            # written here and now: the writers that come with TensorBoard do it in a thread, which
            # cannot tell anybody that the disk is full
            name = f"events.out.tfevents.{time.time():017.6f}.{platform.node()}.{os.getpid()}"
            self._events = RecordWriter((folder / name).open("wb"))
            self._event(file_version="brain.Event:2")
            # so TensorBoard forgets it as well
            self._event(step=iteration + 1, session_log=SessionLog(status=SessionLog.START))
            self._event(step=iteration, summary=Summary(value=[_text("config", config)]))

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Add one iteration."""
        values = [
            Summary.Value(tag=self._tag(name), simple_value=value)
            for name, value in metrics.items()
        ]
        line = json.dumps({"iteration": iteration, **metrics}) + "\n"
        with translate_os_errors(self._folder):
            self._lines.write(line)
            self._lines.flush()
            self._event(step=iteration, summary=Summary(value=values))

    def close(self) -> None:
        """Close both."""
        with translate_os_errors(self._folder):
            try:
                self._lines.close()
            finally:
                self._events.close()

    def _tag(self, name: str) -> str:
        return name.capitalize() if name.startswith(f"{self._metric}/") else name

    def _event(self, **what: object) -> None:
        self._events.write(Event(wall_time=time.time(), **what).SerializeToString())
        self._events.flush()


def _text(tag: str, yaml: str) -> Summary.Value:
    shown = TensorProto(dtype=DT_STRING, string_val=[f"```\n{yaml}```".encode()])
    return Summary.Value(tag=tag, metadata=create_summary_metadata(tag, ""), tensor=shown)


def _parsed(content: bytes) -> Iterator[dict[str, float]]:
    *lines, last = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            yield _values(line)
        except (ValueError, RecursionError, OverflowError) as error:
            raise ValueError(f"line {number}: {error}") from error
    try:
        whole = _values(last)
    except (ValueError, RecursionError, OverflowError):
        return
    yield whole


def _values(line: bytes) -> dict[str, float]:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("it is not a mapping")
    iteration = values.get("iteration")
    if type(iteration) is not int or iteration < 0:
        raise ValueError(f"iteration {iteration!r} is not a natural number")
    for name, value in values.items():
        if type(value) not in (int, float):
            raise ValueError(f"{name} is not a number")
        float(value)  # an OverflowError, where an integer is beyond every number
    return values


def training_minutes(metrics: Sequence[Mapping[str, float]]) -> float:
    """How long training took, without evaluations and pauses."""
    seconds, before = 0.0, 0.0
    for line in metrics:  # times are means over the iterations that a line stands for
        parts = ("iteration", "sampling", "learning", "communication")
        spent = sum(line.get(f"time/{part}", 0.0) for part in parts)
        seconds += spent * (line["iteration"] - before)
        before = line["iteration"]
    return seconds / 60
