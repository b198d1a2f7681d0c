"""Code, configs, commands, links and figures in the README and the documentation are right."""

import inspect
import re
import runpy
import shlex
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import metarl
from metarl.cli import main
from metarl.config.files import trained_runs
from metarl.envs import FAMILIES
from metarl.envs.rand_params import Hopper
from metarl.experiment import load_config

ROOT = Path(__file__).parent.parent
HOOKS = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
included = HOOKS["included"]
PICTURES = (".png", ".gif")
DEEP = re.DOTALL | re.MULTILINE
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
    if "notes" not in path.parts  # parts of docs/results.md
}
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGES["docs/library.md"], re.DOTALL)
ADAPTING, TRAINING, CALLBACKS, STREAMING, INNER_LOOP = SNIPPETS
NAMES = ["adapting", "training", "callbacks", "streaming", "inner-loop"]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=NAMES)
def test_the_snippets_are_short(snippet: str) -> None:
    assert len(snippet.splitlines()) <= 25


@pytest.mark.slow
def test_the_snippet_that_adapts_a_policy_is_in_the_readme_and_adapts() -> None:
    without_comments = re.compile(r" +#.*")
    assert without_comments.sub("", ADAPTING) in without_comments.sub("", PAGES["README.md"])
    namespace = run(ADAPTING)
    before, after = (
        sum(episode.total for episode in policy.play(namespace["env"], [-1.0], episodes=2)) / 2
        for policy in (namespace["policy"], namespace["adapted"])
    )
    assert after > before + 100.0
    assert namespace["action"].shape == (6,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["point_navigation", "point_navigation_rl2"])
def test_the_snippet_that_streams_adapts_to_each_of_two_tasks(
    name: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    snippet = STREAMING.replace('"point_navigation"', f'"{name}"')
    if name == "point_navigation_rl2":  # trained on tasks of two episodes
        snippet = snippet.replace("range(20)", "range(1)")
    namespace = run(snippet)
    lines = [line.split(" → ") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2
    assert all(float(after) > float(before) for before, after in lines)
    restored = metarl.load(name).load("adapted.safetensors")
    assert restored.steps == namespace["policy"].steps


def test_the_snippet_on_the_inner_loop_learns() -> None:
    def loss(snippet: str) -> float:
        torch.manual_seed(0)
        return float(run(snippet)["losses"].mean().detach())

    # compared on the same waves with an untrained network, which adapts as well
    assert loss(INNER_LOOP) < 0.8 * loss(INNER_LOOP.replace("adam.step()", "pass"))


def test_the_snippets_that_train_and_compare_with_a_baseline(capsys, tmp_path, monkeypatch) -> None:
    small = '"inner": {"episodes_per_task": 2}, "outer": {"iterations": 1, "meta_batch": 2}'
    small += ', "baseline": {"step_sizes": [0.1]}, "evaluation": {"tasks": 2}'
    monkeypatch.chdir(tmp_path)
    for code in (TRAINING, blocks("docs/index.md").partition("\nimport metarl\n")[2]):
        assert '"outer": {"iterations": 50}' in code
        run(code.replace('"outer": {"iterations": 50}', small).replace("runs/", f"{len(code)}/"))
        assert "| MAML | " in capsys.readouterr().out
    assert Path("adaptation.png").exists()


def test_the_snippet_with_a_callback_trains(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = CALLBACKS.replace("20}", "5}").replace(": 5}", ": 2}")
    run("import metarl\n" + code.replace("    outer=", "    evaluation={'tasks': 2},\n    outer="))
    assert capsys.readouterr().out.startswith("1 ")


def run(snippet: str, **names: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "snippet", "metarl": metarl, **names}
    exec(compile(snippet, "a page", "exec"), namespace)
    return namespace


def blocks(page: str) -> str:
    """All blocks of Python of a page, one after the other."""
    return "\n".join(re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL))


def test_the_readme_is_short_and_the_first_page_has_its_snippet() -> None:
    assert len(Path(ROOT / "README.md").read_text().splitlines()) <= 90
    assert blocks("docs/index.md").startswith(blocks("README.md"))


@pytest.mark.slow
def test_the_blocks_on_concepts_run(capsys) -> None:
    run(blocks("docs/concepts.md"))
    assert capsys.readouterr().out == "0 1\n"


@pytest.mark.slow
def test_the_blocks_on_robots_save_load_and_stream(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(blocks("docs/robot.md"))
    assert re.fullmatch(r"\d+ µs per action\n", capsys.readouterr().out)
    assert names["restored"].steps == names["policy"].steps == 1
    before = metarl.load("half_cheetah_direction").params
    assert all((names["policy"].params[name] != leaf).any() for name, leaf in before.items())


@pytest.mark.slow
def test_the_blocks_on_environments_adapt_train_and_register_a_family(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)  # evaluations of shipped runs are stored in the working directory
    env = gymnasium.make("metarl/HalfCheetahDirection-v0")
    adapting, evaluating, own_family, native = re.findall(
        r"```python\n(.*?)```", PAGES["docs/own_environments.md"], re.DOTALL
    )
    names = run(
        adapting.replace("episodes=20", "episodes=3"),
        env=env,
        observation=env.reset(options={"task": [1.0]})[0],
    )
    assert names["action"].shape == (6,)
    run(evaluating.replace('"runs/cheetah", ', '"point_navigation", tasks=2, '))
    Path("my_poles.py").write_text(own_family)  # a class that a run names is in a module
    trained = runpy.run_path("my_poles.py", run_name="__main__")["run"]
    metrics = trained.metrics()
    assert [line["iteration"] for line in metrics] == [1, 2, 3]
    assert all(1.0 <= line["return/after_1_steps"] <= 50.0 for line in metrics)  # 1 for each step
    try:
        names = run(native, Hopper=Hopper)
        tasks = names["random_hopper"]().sample_tasks(np.random.default_rng(0), 2)
        assert tasks.shape[0] == 2
    finally:
        FAMILIES._entries.pop("random-hopper", None)


@pytest.mark.slow
def test_the_blocks_on_data_train_and_predict(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = torch.rand(60, 1, 8, 8)
    small = "size=8, channels=1, shares=(0.4, 0.3, 0.3)"
    settings = 'network={"kind": "mlp"}, outer={"iterations": 2}, inner={"shots": 1, "queries": 1}'
    snippet = blocks("docs/own_data.md").replace("ways=5, size=84", f"ways=2, {small}")
    snippet = snippet.replace('network={"kind": "conv4"}', settings + ', evaluation={"tasks": 2}')
    names = run(
        snippet,
        my_dataset=[(image, number % 10) for number, image in enumerate(images)],
        images=images[:2].numpy(),
        labels=[0, 1],
        others=images[2:5].numpy(),
    )
    assert names["labels"].shape == (3,)


def test_the_blocks_on_sweeps_have_the_parameters_of_the_functions(monkeypatch) -> None:
    calls = []

    class Table:
        def to_frame(self) -> None:
            calls.append("to_frame")

    for name in ("train_seeds", "sweep", "search"):
        signature = inspect.signature(getattr(metarl, name))

        def call(*args: Any, _name=name, _signature=signature, **settings: Any) -> Table:
            _signature.bind(*args, **settings)
            calls.append(_name)
            return Table()

        monkeypatch.setattr(metarl, name, call)
    run(blocks("docs/running.md"))
    assert calls == ["train_seeds", "sweep", "search", "to_frame"]


def test_a_network_of_the_documentation_is_a_module() -> None:
    net = run(blocks("docs/own_networks.md"))["Net"](3, 2, width=4)
    assert net(torch.zeros(5, 3)).shape == (5, 2)


def test_the_page_of_settings_has_every_setting_with_its_default() -> None:
    tables = HOOKS["settings_tables"]("metarl.rl.config:Config")
    assert "| `max_kl` | number > 0 | `0.01` |" in tables
    assert "| `device` | `auto` or `cpu` or `cuda` | `cpu` |" in tables
    assert "| `observation_scale` | `measured` or list of number > 0 or null | `null` |" in tables
    sections = {"policy": metarl.Config.model_fields["policy"].annotation}
    for name in sections["policy"].model_fields:
        assert f"| `{name}` |" in tables
    assert "### `data: {name: omniglot}`" in HOOKS["settings_tables"](
        "metarl.supervised.config:SupervisedConfig"
    )


def test_the_gallery_shows_every_trained_policy() -> None:
    page = HOOKS["gallery"]()
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert titles == list(trained_runs())
    pictures = re.findall(r"\]\((.*?)\)", page)
    if (ROOT / ".git").exists():
        assert len(pictures) == len(titles)
        assert all((ROOT / "docs" / picture).exists() for picture in pictures)


def test_the_tables_of_families_are_complete() -> None:
    for page in ("docs/usage.md", "docs/protocols.md"):
        assert re.findall(r"^\| `([\w-]+)` \|", PAGES[page], re.MULTILINE)[: len(FAMILIES)] == list(
            FAMILIES
        )


def test_the_figures_of_the_readme_are_in_the_results() -> None:
    row = r"^\| ([\w-]+) \| (\d) \| (\S+) \| \*\*(\S+)\*\* (\[.*?\]) \| (\S+) \|$"
    rows = re.findall(row, PAGES["README.md"], re.MULTILINE)
    assert {tasks for tasks, *_ in rows} <= set(FAMILIES)
    assert len(rows) == 6
    for tasks, seeds, before, after, interval, figure in rows:
        page = PAGES[f"docs/results/{tasks}.md"]
        section = re.split(rf"^## {tasks}\n", page, flags=re.MULTILINE)[-1].split("<details")[0]
        lines = section.splitlines()
        headings = next(line for line in lines if " | seeds | " in line).split(" | ")
        maml_rows = [line for line in lines if line.startswith("| MAML")]
        cells = f" {before} [", f" {after} {interval} |"
        match, *_ = (line for line in maml_rows if all(cell in line for cell in cells))
        assert len(match.split(" | ")[headings.index("seeds")].split(", ")) == int(seeds)
        published = [line for line in lines if line.startswith("| *published: MAML")]
        assert len(published) == (figure != "none")
        assert all(f" {figure} |" in line for line in published)


def find_in_pages(pattern: str) -> list[Any]:
    """Test parameters (page, match) for all matches in all pages."""
    return [
        pytest.param(page, match, id=f"{page}:{number}")
        for page, text in PAGES.items()
        for number, match in enumerate(re.findall(pattern, text, re.DOTALL | re.MULTILINE))
    ]


@pytest.mark.parametrize(("page", "config"), find_in_pages(r"```yaml\n(.*?)```"))
def test_configs_in_the_documentation_are_valid(
    page: str, config: str, in_users_folder: Path, monkeypatch
) -> None:
    for module, code in re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGES[page], re.DOTALL):
        (in_users_folder / f"{module}.py").write_text(code)
        monkeypatch.delitem(sys.modules, module, raising=False)
    path = in_users_folder / "shown.yaml"
    path.write_text(config.replace("my_tasks:Poles", "my_tasks:LineFamily"))
    load_config(str(path))


@pytest.mark.parametrize(("page", "code"), find_in_pages(r"```python\n(.*?)```"))
def test_code_in_the_documentation_is_python(page: str, code: str) -> None:
    compile(code, page, "exec")


@pytest.mark.parametrize(("page", "link"), find_in_pages(HOOKS["CODE"].pattern))
def test_code_that_pages_include_exists(page: str, link: tuple[str, str]) -> None:
    name, file = link
    compile(included(file, name), page, "exec")


def test_included_code_is_current_and_must_exist() -> None:
    code = included("metarl/rl/losses.py", "surrogate")
    assert code.startswith("def surrogate(policy: ")
    assert '"""' not in code
    assert code.endswith("    return (samples.weights * ratio * samples.advantages).sum()")
    with pytest.raises(KeyError, match=r"losses.py has no Loss\.of"):
        included("metarl/rl/losses.py", "Loss.of")


@pytest.mark.parametrize("page", PAGES)
def test_links_have_a_target(page: str) -> None:
    text = re.sub(r"^(```.*?^```|    .*?$)", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        if path.suffix in PICTURES and not (ROOT / ".git").exists():
            continue  # a source distribution has no pictures
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w-]", "", t.lower().replace(" ", "-")) for t in titles]


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert {f"docs/{page}" for page in listed} == {page for page in PAGES if "docs/" in page}


class Parsed(Exception):
    """Raised after the arguments are parsed, instead of running the command."""


@pytest.mark.parametrize(
    ("page", "line"), find_in_pages(r"^ {4}((?:torchrun [^\n]* )?metarl [a-z]+[^\n]*)$")
)
def test_commands_in_the_documentation_are_parsed(page: str, line: str, monkeypatch) -> None:
    def parse(self: ArgumentParser, *arguments: Any) -> None:
        parsed.append(parse_args(self, *arguments))
        raise Parsed

    parsed: list[Any] = []
    parse_args = ArgumentParser.parse_args
    monkeypatch.setattr(ArgumentParser, "parse_args", parse)
    words = shlex.split(line, comments=True)
    with pytest.raises(Parsed):
        main(words[words.index("metarl") + 1 :])
    (options,) = parsed
    training = words[words.index("metarl") + 1] in ("train", "baseline")
    if training and options.config and not options.config.endswith(".yaml"):
        kind = [f"method={options.kind}"] if options.kind else []
        load_config(options.config, [*options.set, *kind])
