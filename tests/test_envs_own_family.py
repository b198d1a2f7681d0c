"""A user's own environment and family, which this package knows nothing of."""

from pathlib import Path

import numpy as np
import pytest

from metarl.envs import check_family, load_family, vectorise
from metarl.errors import UserError


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_users_family_is_named_by_module_and_class(
    in_users_folder: Path, asynchronous: bool
) -> None:
    family = load_family("my_tasks:LineFamily", {"spread": 2.0, "asynchronous": asynchronous})
    check_family(family, num_envs=3)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_sub_environment_keeps_its_task_across_autoresets(
    in_users_folder: Path, asynchronous: bool
) -> None:
    family = load_family("my_tasks:LineFamily")
    envs = vectorise(family.make, 2, asynchronous)
    tasks = np.array([[-5.0], [5.0]])
    envs.reset(seed=0, options={"task": tasks})
    for _ in range(20):
        observation, reward, *_ = envs.step(np.array([1, 1]))
        moved = reward != 0.0  # the step of an autoreset pays nothing
        expected = -np.abs(observation[:, 0] - tasks[:, 0])
        np.testing.assert_allclose(reward[moved], expected[moved])
    envs.close()


def test_the_contract_checker_says_what_is_wrong(in_users_folder: Path) -> None:
    family = load_family("my_tasks:LineFamily")

    class Careless(type(family)):  # type: ignore[misc]
        def sample_tasks(self, rng, num_tasks):
            return np.zeros((num_tasks, 1))

    with pytest.raises(UserError, match="rewards must depend on the task"):
        check_family(Careless())
