"""Tasks of one's own, as a plain class: `data: {name: "my_module:Lines", settings: {...}}`.

    class Lines:                                    # y = a x + b
        kind = "regression"                         # or "classification"
        def sample_tasks(self, rng, num_tasks, split):
            return rng.normal(size=(num_tasks, 2))  # (N, T); split: train, validation or test
        def sample(self, rng, tasks, num_examples):
            x = rng.uniform(-1, 1, (len(tasks), num_examples, 1))
            return x, tasks[:, None, :1] * x + tasks[:, None, 1:]
        def describe(self, task):
            return f"{task[0]:.2f} x + {task[1]:.2f}"

`sample` gives inputs (N, K, ...) and targets (N, K, O). In classification it gives inputs alone,
(N, ways, K, ...), and a task is the number of each of its classes, (N, ways), of `classes` in all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from metarl.config.registry import Registry, make
from metarl.config.sections import ImportString, Section
from metarl.errors import UserError
from metarl.rng import make_rng
from metarl.supervised.losses import CLASSIFICATION, REGRESSION, TaskType
from metarl.supervised.tasks import Episodes

KINDS: Mapping[str, TaskType] = {kind.name: kind for kind in (REGRESSION, CLASSIFICATION)}
MEMBERS = ("kind", "sample_tasks", "sample", "describe")
OWN = Registry("class of tasks", {})


class CustomTasks(Section):
    """A class of one's own, `module:Class`, and the settings of its constructor."""

    name: ImportString
    settings: dict[str, Any] = Field(default_factory=dict)

    hashes: ClassVar[dict[str, str]] = {}

    @cached_property
    def source(self) -> Any:
        """An instance.

        Raises:
            UserError: if it cannot be made, or is of no kind that there is.
        """
        factory = OWN.load(self.name, ())
        if hasattr(factory, "__getitem__") and not hasattr(factory, "sample"):
            raise UserError(
                f"{self.name!r} looks like a data set of (image, label); write data: {{name: "
                f"dataset, dataset: {self.name!r}}}"
            )
        made = make(OWN.kind, self.name, OWN.load(self.name, MEMBERS), self.settings)
        if made.kind not in KINDS:
            raise UserError(
                f"kind of {self.name!r} must be {' or '.join(KINDS)}, not {made.kind!r}"
            )
        if made.kind == CLASSIFICATION.name and not isinstance(getattr(made, "classes", None), int):
            raise UserError(
                f"{self.name!r} classifies, and must say as `classes` how many classes there are"
            )
        return made

    @property
    def kind(self) -> TaskType:
        """Regression or classification."""
        return KINDS[self.source.kind]

    @property
    def ways(self) -> int | None:
        """As many as its tasks have."""
        return self.tasks("train").outputs if self.kind is CLASSIFICATION else None

    def title(self, shots: int, ways: int | None = None) -> str:
        """Such as `Lines, 5-shot`."""
        classes = f"{ways or self.ways}-way " if self.kind is CLASSIFICATION else ""
        return f"{type(self.source).__name__}, {classes}{shots}-shot"

    def tasks(
        self, split: str, task_conditioned: bool = False, ways: int | None = None
    ) -> "CustomTaskSplit":
        """Those of a split.

        Raises:
            UserError: if another number of classes is asked for than its tasks have.
        """
        tasks = CustomTaskSplit(self.name, self.source, split, task_conditioned)
        if ways is not None and ways != tasks.outputs:
            raise UserError(
                f"a task of {self.name!r} has {tasks.outputs} classes, not {ways}; set method.ways "
                "or evaluation.ways to that"
            )
        return tasks


@dataclass(frozen=True)
class CustomTaskSplit:
    """Tasks of one split; see `metarl.supervised.tasks.Tasks`.

    Attributes:
        name: what to call them in messages.
        source: the user's instance.
        split: `train`, `validation` or `test`.
        task_conditioned: whether inputs tell the task, for an oracle.
    """

    name: str
    source: Any
    split: str
    task_conditioned: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an input."""
        return tuple(self._tried.support[0].shape[2:])

    @property
    def outputs(self) -> int:
        """O, or as many as classes of a task."""
        tried = self._tried
        return tried.tasks.shape[1] if self._classifies else tried.support[1].shape[-1]

    @property
    def all_outputs(self) -> int:
        """O, or as many as there are classes in all."""
        return int(self.source.classes) if self._classifies else self.outputs

    def check(self, shots: int, queries: int) -> None:
        """Draw some, twice: what is wrong is found before any work."""
        first, again = (self.sample(make_rng(0, "trial"), 2, shots, queries) for _ in range(2))
        same = torch.equal(first.query[0], again.query[0])
        if not same or not np.array_equal(first.tasks, again.tasks):
            raise UserError(
                f"{self.name!r} must draw from the passed generator alone: two equal ones gave "
                "other tasks or examples"
            )

    def sample(
        self,
        rng: np.random.Generator,
        num_tasks: int,
        shots: int,
        queries: int,
        shard: slice = slice(None),
    ) -> Episodes:
        """Draw tasks, and examples of each."""
        tasks = self._array("sample_tasks", self.source.sample_tasks(rng, num_tasks, self.split))
        if tasks.ndim != 2 or len(tasks) != num_tasks:
            raise self._refusal("sample_tasks", f"a row for each of {num_tasks} tasks", tasks)
        tasks = tasks.astype(np.float64)
        drawn = self.source.sample(rng, tasks, shots + queries)
        x, y = self._labelled(tasks, drawn, shots + queries)
        x, y, tasks = x[shard], y[shard], tasks[shard]
        per_shot = tasks.shape[1] if self._classifies else 1
        first = shots * per_shot
        return Episodes(tasks, (x[:, :first], y[:, :first]), (x[:, first:], y[:, first:]))

    def describe(self, task: NDArray[np.float64]) -> str:
        """A task in words."""
        return str(self.source.describe(task))

    def _labelled(
        self, tasks: NDArray[np.float64], drawn: Any, number: int
    ) -> tuple[Tensor, Tensor]:
        count = len(tasks)
        if self._classifies:
            classes = self.source.classes
            if (tasks != np.floor(tasks)).any() or tasks.min() < 0 or tasks.max() >= classes:
                raise UserError(
                    f"sample_tasks of {self.name!r} must return numbers of classes, from 0 to "
                    f"{classes - 1}"
                )
            x = self._array("sample", drawn)
            ways = tasks.shape[1]
            if x.shape[:3] != (count, ways, number) or x.ndim < 4:
                raise self._refusal("sample", f"inputs ({count}, {ways}, {number}, ...)", x)
            # all classes of the first shot, all of the second, ...
            inputs = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, 1, 2), np.float32))
            labels = torch.arange(ways).repeat(count, number)
            return inputs.flatten(1, 2), labels
        if not isinstance(drawn, tuple | list) or len(drawn) != 2:
            raise UserError(f"sample of {self.name!r} must return a pair: inputs and targets")
        x, y = (self._array("sample", part) for part in drawn)
        if x.shape[:2] != (count, number) or x.ndim < 3:
            raise self._refusal("sample", f"inputs ({count}, {number}, ...)", x)
        if y.ndim != 3 or y.shape[:2] != (count, number):
            raise self._refusal("sample", f"targets ({count}, {number}, outputs)", y)
        if self.task_conditioned:
            if x.ndim != 3:
                raise UserError(
                    f"inputs of {self.name!r} are no rows of numbers, in which a task could be "
                    "told: there is no oracle of them"
                )
            told = np.broadcast_to(tasks[:, None], (*x.shape[:2], tasks.shape[1]))
            x = np.concatenate([x, told], axis=-1)
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32))

    @property
    def _classifies(self) -> bool:
        return bool(self.source.kind == CLASSIFICATION.name)

    @cached_property
    def _tried(self) -> Episodes:
        return self.sample(make_rng(0, "trial"), 1, 1, 1)

    def _array(self, member: str, value: Any) -> NDArray[Any]:
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{member} of {self.name!r} must return an array: {error}") from error
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise UserError(f"{member} of {self.name!r} must return finite numbers")
        return array

    def _refusal(self, member: str, wanted: str, array: NDArray[Any]) -> UserError:
        return UserError(
            f"{member} of {self.name!r} must return {wanted}, not an array of shape {array.shape}"
        )
