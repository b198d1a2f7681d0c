"""Training metrics, as JSON lines and for TensorBoard.

TensorBoard sorts tags with capitals first: scores are logged there as `Return/…`, `Success/…`,
`Error/…`, `Accuracy/…` or `Validation/…`, so that they come before all others.
"""

import json
import os
import platform
import struct
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
from metarl.evaluation import SUCCESS, VALIDATION, format_score
from metarl.io import read_bytes, translate_os_errors, write_atomically

METRICS = "metrics.jsonl"
MAX_BYTES = 2**30
MAX_LINE_BYTES = 2**16
# the parts of an iteration, of which a run records some; waiting for other processes is in them
TIMES = [f"time/{part}" for part in ("iteration", "sampling", "learning")]


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Read the metrics of a run, one dictionary per report; empty if there are none.

    An incomplete last line is ignored: the run is being trained, or was killed.

    Raises:
        UserError: if any other line is invalid.
    """
    path = folder / METRICS
    if not path.exists():
        return []
    try:
        return list(_parse_lines(read_bytes(path, MAX_BYTES)))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({error}); restore it from a copy, or delete it: the weights do "
            "not depend on it"
        ) from error


def last_metrics(folder: Path) -> dict[str, float] | None:
    """The last complete line of a run's metrics; None if there is none, or it is damaged."""
    try:
        with (folder / METRICS).open("rb") as file:
            # only the end is read: several times per second, and files grow to megabytes
            file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_LINE_BYTES))
            # what follows the last line break is incomplete: the training is writing it
            *_, last, _ = [b"", b"", *file.read().split(b"\n")]
        return _parse_line(last) if last else None
    except (FileNotFoundError, ValueError, RecursionError, OverflowError):
        return None  # of a damaged file, the process that trains the run reports what is wrong


def progress_text(metrics: Mapping[str, float], metric: str) -> str:
    """The loss, if any, and the scores: "loss 0.31, pre / post return -21.3 / 14.8".

    Success follows where environments report it.
    """
    parts = [f"loss {metrics['loss']:.3g}"] if "loss" in metrics else []
    for prefix in (metric, SUCCESS):
        scores = [value for name, value in metrics.items() if name.startswith(f"{prefix}/")]
        if len(scores) > 1:
            first, last = format_score(scores[0]), format_score(scores[-1])
            parts.append(f"pre / post {prefix} {first} / {last}")
        elif scores:
            parts.append(f"{prefix} {format_score(scores[0])}")
    return ", ".join(parts)


class Log(Protocol):
    """A destination of training metrics."""

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one iteration."""

    def write_video(self, iteration: int, path: Path) -> None:
        """Log a GIF of the policy."""

    def close(self) -> None:
        """Flush and close."""


class MetricsLog:
    """Writes metrics as JSON lines and as TensorBoard events.

    Lines after `iteration`, the number of completed iterations, are removed: a killed run had
    written them after its last checkpoint. TensorBoard shows the scores, whose name is `metric`,
    first, and the config in YAML as text.

    Raises:
        UserError: if existing metrics are damaged.
        StorageError: if a file cannot be written; also raised by the methods.
    """

    def __init__(self, folder: Path, iteration: int, metric: str, config: str) -> None:
        self._folder, self._metric = folder, metric
        path = folder / METRICS
        lines = [line for line in read_metrics(folder) if line["iteration"] <= iteration]
        with translate_os_errors(folder):
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))
            self._lines = path.open("a", encoding="utf-8")
            # TensorBoard's own writers run in a thread, which cannot report that the disk is full
            name = f"events.out.tfevents.{time.time():017.6f}.{platform.node()}.{os.getpid()}"
            self._events = RecordWriter((folder / name).open("wb"))
            self._write_event(file_version="brain.Event:2")
            # TensorBoard drops the events from this step on
            self._write_event(step=iteration + 1, session_log=SessionLog(status=SessionLog.START))
            markdown = TensorProto(dtype=DT_STRING, string_val=[f"```\n{config}```".encode()])
            metadata = create_summary_metadata("config", "")
            value = Summary.Value(tag="config", metadata=metadata, tensor=markdown)
            self._write_event(step=iteration, summary=Summary(value=[value]))

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        values = [
            Summary.Value(tag=self._tag(name), simple_value=value)
            for name, value in metrics.items()
        ]
        line = json.dumps({"iteration": iteration, **metrics}) + "\n"
        with translate_os_errors(self._folder):
            self._lines.write(line)
            self._lines.flush()  # `metarl sweep` reads the progress from the file
            self._write_event(step=iteration, summary=Summary(value=values))

    def write_video(self, iteration: int, path: Path) -> None:
        # TensorBoard has no videos, but plays a GIF under "Images"
        with translate_os_errors(self._folder):
            content = path.read_bytes()
            width, height = struct.unpack_from("<HH", content, 6)  # of the GIF's header
            image = Summary.Image(
                width=width, height=height, colorspace=3, encoded_image_string=content
            )
            value = Summary.Value(tag="policy", image=image)
            self._write_event(step=iteration, summary=Summary(value=[value]))

    def close(self) -> None:
        with translate_os_errors(self._folder):
            try:
                self._lines.close()
            finally:
                self._events.close()

    def _tag(self, name: str) -> str:
        is_score = name.startswith((f"{self._metric}/", f"{SUCCESS}/", f"{VALIDATION}/"))
        return name.capitalize() if is_score else name

    def _write_event(self, **fields: object) -> None:
        self._events.write(Event(wall_time=time.time(), **fields).SerializeToString())
        self._events.flush()


def _parse_lines(content: bytes) -> Iterator[dict[str, float]]:
    *lines, last = content.split(b"\n")  # `last` is empty, or the line that is being written
    for number, line in enumerate(lines, start=1):
        try:
            yield _parse_line(line)
        except (ValueError, RecursionError, OverflowError) as error:
            raise ValueError(f"line {number}: {error}") from error
    try:
        values = _parse_line(last)
    except (ValueError, RecursionError, OverflowError):
        return
    yield values


def _parse_line(line: bytes) -> dict[str, float]:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("it is not a mapping")
    iteration = values.get("iteration")
    if type(iteration) is not int or iteration < 0:
        raise ValueError(f"iteration {iteration!r} is not a natural number")
    for name, value in values.items():
        if type(value) not in (int, float):  # not isinstance, for which True is an integer
            raise ValueError(f"{name} is not a number")
        float(value)  # raises OverflowError for an integer that is too large
    return values


def score_names(line: Mapping[str, float], metric: str) -> tuple[list[str], list[str]]:
    """The names of a line's scores before adaptation, and after the last of its steps, if any.

    Of several inner steps the last one is what training improves.
    """
    names = [name for name in line if name.startswith(f"{metric}/")]
    before = [name for name in names if "/after_0_" in name]
    return before, [name for name in names if name not in before][-1:]


def minutes_of_training(metrics: Sequence[Mapping[str, float]]) -> list[float]:
    """The minutes of training up to each line, without evaluations and pauses."""
    minutes, previous = [0.0], 0.0
    for line in metrics:
        seconds = sum(line.get(time, 0.0) for time in TIMES)
        # a line has means over the iterations since the previous line
        minutes.append(minutes[-1] + seconds * (line["iteration"] - previous) / 60)
        previous = line["iteration"]
    return minutes[1:]
