"""Custom tasks from a plain class: `data: {name: "my_module:Lines", settings: {...}}`.

    class Lines:                                    # y = a x + b
        kind = "regression"                         # or "classification"
        def sample_tasks(self, rng, num_tasks, split):
            return rng.normal(size=(num_tasks, 2))  # (N, T); split: train, validation or test
        def sample(self, rng, tasks, num_examples):
            x = rng.uniform(-1, 1, (len(tasks), num_examples, 1))
            return x, tasks[:, None, :1] * x + tasks[:, None, 1:]
        def describe(self, task):
            return f"{task[0]:.2f} x + {task[1]:.2f}"

`sample` returns inputs (N, K, ...) and targets (N, K, O). In classification it returns only inputs
(N, ways, K, ...), tasks (N, ways) are class numbers, and the attribute `classes` is the number of
all classes.
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
from metarl.config.sections import Arguments, ImportString, Section
from metarl.errors import UserError
from metarl.rng import make_rng
from metarl.supervised.datasets.pixels import to_array
from metarl.supervised.losses import CLASSIFICATION, REGRESSION, TaskType
from metarl.supervised.tasks import Episodes

KINDS: Mapping[str, TaskType] = {kind.name: kind for kind in (REGRESSION, CLASSIFICATION)}
MEMBERS = ("kind", "sample_tasks", "sample", "describe")
CUSTOM_CLASSES = Registry("class of tasks", {})


class TaskSection(Section):
    """Tasks that the attribute `source` samples, an instance of a class like `Lines`."""

    name: str

    hashes: ClassVar[dict[str, str]] = {}

    @property
    def source(self) -> Any:
        raise NotImplementedError

    @property
    def title_name(self) -> str:
        return self.name

    @property
    def kind(self) -> TaskType:
        return KINDS[self.source.kind]

    @cached_property  # an example is drawn for it
    def ways(self) -> int | None:
        return self.tasks("train").outputs if self.kind is CLASSIFICATION else None

    def title(self, shots: int, ways: int | None = None) -> str:
        classes = f"{ways or self.ways}-way " if self.kind is CLASSIFICATION else ""
        return f"{self.title_name}, {classes}{shots}-shot"

    def tasks(
        self, split: str, task_conditioned: bool = False, ways: int | None = None
    ) -> "SampledTasks":
        tasks = SampledTasks(self.name, self.source, split, task_conditioned)
        if ways is not None and ways != tasks.outputs:
            section = "method" if split == "train" else "evaluation"
            raise UserError(
                f"a task of {self.name!r} has {tasks.outputs} classes, not {section}.ways={ways}; "
                f"set {section}.ways to {tasks.outputs}"
            )
        return tasks


class CustomTasks(TaskSection):
    """A custom class, `module:Class`, and the arguments of its constructor."""

    name: ImportString
    settings: Arguments = Field(default_factory=dict)

    @cached_property
    def source(self) -> Any:
        """The instance of the class.

        Raises:
            UserError: if it cannot be constructed, or lacks an attribute.
        """
        # loaded without the check of its members first, for a better message about data sets
        factory = CUSTOM_CLASSES.load(self.name)
        if hasattr(factory, "__getitem__") and not hasattr(factory, "sample"):
            raise UserError(
                f"{self.name!r} is a data set of (image, label); write data: {{name: dataset, "
                f"dataset: {self.name!r}}}"
            )
        source = make(
            CUSTOM_CLASSES.kind, self.name, CUSTOM_CLASSES.load(self.name, MEMBERS), self.settings
        )
        if source.kind not in KINDS:
            raise UserError(
                f"kind of {self.name!r} must be {' or '.join(KINDS)}, not {source.kind!r}"
            )
        classes = getattr(source, "classes", None)
        if source.kind == CLASSIFICATION.name and not isinstance(classes, int | np.integer):
            raise UserError(
                f"{self.name!r} must have an attribute `classes`, the number of all classes"
            )
        return source

    @property
    def title_name(self) -> str:
        return type(self.source).__name__


@dataclass(frozen=True)
class SampledTasks:
    """Tasks of one split; see `metarl.supervised.tasks.Tasks`.

    Attributes:
        name: the name in error messages.
        source: samples the tasks.
        split: `train`, `validation` or `test`.
        task_conditioned: whether the task is appended to the inputs, for an oracle.
    """

    name: str
    source: Any
    split: str
    task_conditioned: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._example.support[0].shape[2:])

    @property
    def outputs(self) -> int:
        episodes = self._example
        return episodes.tasks.shape[1] if self._classifies else episodes.support[1].shape[-1]

    @property
    def all_outputs(self) -> int:
        return int(self.source.classes) if self._classifies else self.outputs

    def check(self, shots: int, queries: int) -> None:
        """Sample twice, so that errors are found before training starts."""
        # a second source of randomness would break resume and the comparison of methods
        first, second = (self.sample(make_rng(0, "trial"), 2, shots, queries) for _ in range(2))
        pairs = zip((*first.support, *first.query), (*second.support, *second.query), strict=True)
        same = all(torch.equal(*pair) for pair in pairs)
        if not same or not np.array_equal(first.tasks, second.tasks):
            raise UserError(
                f"{self.name!r} must use only the generator that is passed: two calls with equal "
                "generators returned different tasks or examples"
            )

    def sample(
        self,
        rng: np.random.Generator,
        num_tasks: int,
        shots: int,
        queries: int,
        shard: slice = slice(None),
    ) -> Episodes:
        tasks = self._array("sample_tasks", self.source.sample_tasks(rng, num_tasks, self.split))
        if tasks.ndim != 2 or len(tasks) != num_tasks:
            raise self._shape_error("sample_tasks", f"a row for each of {num_tasks} tasks", tasks)
        tasks = tasks.astype(np.float64)
        # support and query are sampled together, so that they can be disjoint
        examples = self.source.sample(rng, tasks, shots + queries)
        # the shard is taken last: all processes draw the same numbers
        return self.episodes(tasks, examples, shots, shots + queries, shard)

    def episodes(
        self,
        tasks: NDArray[np.float64],
        examples: Any,
        shots: int,
        number: int,
        shard: slice = slice(None),
    ) -> Episodes:
        """Episodes of tasks (N, T) from what `source.sample` returns, `number` examples of each."""
        to_tensors = self._labelled_examples if self._classifies else self._regression_examples
        x, y = (tensor[shard] for tensor in to_tensors(tasks, examples, number))
        # shot-major order puts the support of all classes first: `shots` rows of each class
        size = shots * (tasks.shape[1] if self._classifies else 1)
        return Episodes(tasks[shard], (x[:, :size], y[:, :size]), (x[:, size:], y[:, size:]))

    def describe(self, task: NDArray[np.float64]) -> str:
        return str(self.source.describe(task))

    def _labelled_examples(
        self, tasks: NDArray[np.float64], inputs: Any, number: int
    ) -> tuple[Tensor, Tensor]:
        count, ways = tasks.shape
        classes = self.source.classes
        if (tasks != np.floor(tasks)).any() or tasks.min() < 0 or tasks.max() >= classes:
            raise UserError(
                f"sample_tasks of {self.name!r} must return class numbers from 0 to {classes - 1}"
            )
        if (np.diff(np.sort(tasks)) == 0).any():
            raise UserError(
                f"sample_tasks of {self.name!r} returned a task that has a class twice; draw the "
                "classes of a task with rng.choice(..., replace=False)"
            )
        x = self._array("sample", inputs)
        if x.shape[:3] != (count, ways, number) or x.ndim < 4:
            raise self._shape_error("sample", f"inputs ({count}, {ways}, {number}, ...)", x)
        # shot-major order: the first example of every class, then the second of every class, ...
        x = np.ascontiguousarray(np.moveaxis(x, 1, 2), np.float32)
        return torch.from_numpy(x).flatten(1, 2), torch.arange(ways).repeat(count, number)

    def _regression_examples(
        self, tasks: NDArray[np.float64], examples: Any, number: int
    ) -> tuple[Tensor, Tensor]:
        count = len(tasks)
        if not isinstance(examples, tuple | list) or len(examples) != 2:
            raise UserError(f"sample of {self.name!r} must return a pair: inputs and targets")
        x, y = (self._array("sample", part) for part in examples)
        if x.shape[:2] != (count, number) or x.ndim < 3:
            raise self._shape_error("sample", f"inputs ({count}, {number}, ...)", x)
        if y.ndim != 3 or y.shape[:2] != (count, number):
            raise self._shape_error("sample", f"targets ({count}, {number}, outputs)", y)
        if self.task_conditioned:
            if x.ndim != 3:
                raise UserError(
                    f"an oracle needs inputs (N, K, S), to which it appends the task; those of "
                    f"{self.name!r} have shape {x.shape}"
                )
            task_inputs = np.broadcast_to(tasks[:, None], (*x.shape[:2], tasks.shape[1]))
            x = np.concatenate([x, task_inputs], axis=-1)
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32))

    @property
    def _classifies(self) -> bool:
        return bool(self.source.kind == CLASSIFICATION.name)

    @cached_property
    def _example(self) -> Episodes:
        return self.sample(make_rng(0, "trial"), 1, 1, 1)

    def _array(self, member: str, value: Any) -> NDArray[Any]:
        try:
            array = to_array(value)
        except ValueError as error:
            raise UserError(
                f"{member} of {self.name!r} must return an array of numbers: {error}"
            ) from error
        if not np.isfinite(array).all():
            raise UserError(f"{member} of {self.name!r} must return finite numbers")
        return array

    def _shape_error(self, member: str, expected: str, array: NDArray[Any]) -> UserError:
        return UserError(
            f"{member} of {self.name!r} must return {expected}, not an array of shape {array.shape}"
        )
