"""What the README shows works as it stands."""

import re
from pathlib import Path

import pytest

from metarl.envs import FAMILIES
from metarl.runs.config import load_config, shipped_configs

README = (Path(__file__).parent.parent / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["adapt", "own-environment"])
def test_the_snippet_runs_and_is_short(snippet: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(snippet.splitlines()) <= 25
    namespace = {"__name__": "snippet"}
    exec(compile(snippet, "README.md", "exec"), namespace)
    if "losses" in namespace:
        assert namespace["losses"].mean() < 6.0
    else:
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2", "3"]


@pytest.mark.parametrize("shown", re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
def test_the_configs_it_shows_are_valid(shown: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(shown)
    load_config(str(path))


def test_the_configs_and_families_that_it_names_exist() -> None:
    for name in re.findall(r"metarl train (\w+)(?!\.yaml)\b", README):
        assert name in {*shipped_configs(), "my"}
    assert re.findall(r"^\| `([\w-]+)` \|", README, re.MULTILINE) == list(FAMILIES)
