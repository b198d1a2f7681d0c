"""Custom tasks and data sets of a user."""

import numpy as np


class Lines:
    """y = a x + b."""

    kind = "regression"

    def __init__(self, spread=1.0):
        self.spread = spread

    def sample_tasks(self, rng, num_tasks, split):
        return rng.normal(0.0, self.spread, (num_tasks, 2))

    def sample(self, rng, tasks, num_examples):
        x = rng.uniform(-1.0, 1.0, (len(tasks), num_examples, 1))
        return x, tasks[:, None, :1] * x + tasks[:, None, 1:]

    def describe(self, task):
        return f"{task[0]:.2f} x + {task[1]:.2f}"


class Blobs:
    """Classification of three out of thirty clouds in the plane; the last ten are for testing."""

    kind = "classification"
    classes = 30

    def sample_tasks(self, rng, num_tasks, split):
        low, high = {"train": (0, 15), "validation": (15, 20), "test": (20, 30)}[split]
        return np.stack([rng.choice(np.arange(low, high), 3, False) for _ in range(num_tasks)])

    def sample(self, rng, tasks, num_examples):
        angles = tasks * 2.4
        centres = np.stack([np.cos(angles), np.sin(angles)], -1)
        return centres[:, :, None] + rng.normal(0.0, 0.05, (*tasks.shape, num_examples, 2))

    def describe(self, task):
        return ", ".join(f"cloud {number:.0f}" for number in task)


class Shapes:
    """A data set like torchvision's: ten classes of noisy images (1, H, W)."""

    def __init__(self, images_per_class=6):
        self.images_per_class = images_per_class

    def __len__(self):
        return 10 * self.images_per_class

    def __getitem__(self, index):
        label = index % 10
        rng = np.random.default_rng(index)
        picture = np.random.default_rng(label).random((1, 9, 9)) * 0.8
        return (picture + 0.2 * rng.random((1, 9, 9))).astype(np.float32), label
