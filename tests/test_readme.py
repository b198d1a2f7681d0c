"""What the README shows works as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.envs import FAMILIES
from metarl.runs.config import load_config, shipped_configs

README = (Path(__file__).parent.parent / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


INNER_LOOP, OWN_ENVIRONMENT = SNIPPETS


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["inner-loop", "own-environment"])
def test_the_snippets_are_short(snippet: str) -> None:
    assert len(snippet.splitlines()) <= 25


def test_the_snippet_on_the_inner_loop_learns() -> None:
    def loss(snippet: str) -> float:
        torch.manual_seed(0)
        return float(run(snippet)["losses"].mean().detach())

    # of the same waves, and adapted all the same
    assert loss(INNER_LOOP) < 0.8 * loss(INNER_LOOP.replace("adam.step()", "pass"))


@pytest.mark.slow
def test_the_snippet_with_an_environment_of_ones_own_trains(capsys) -> None:
    run(OWN_ENVIRONMENT)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [number for number, _ in lines] == ["1", "2", "3"]
    assert all(1.0 <= float(steps) <= 50.0 for _, steps in lines)  # a reward for each step


def run(snippet: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet, "README.md", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("shown", re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
def test_the_configs_it_shows_are_valid(shown: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(shown)
    load_config(str(path))


def test_the_configs_and_families_that_it_names_exist() -> None:
    for name in re.findall(r"metarl train (\w+)(?!\.yaml)\b", README):
        assert name in {*shipped_configs(), "my"}
    assert re.findall(r"^\| `([\w-]+)` \|", README, re.MULTILINE) == list(FAMILIES)
