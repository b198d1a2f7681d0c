"""The structure of the package, which keeps a new method to one new file."""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from metarl.config.sections import MethodSection
from metarl.envs import FAMILIES
from metarl.method import ADAPTATION_UNITS, PROBLEMS
from metarl.networks import NETWORKS
from metarl.optim import OPTIMIZERS
from metarl.rl.methods import METHODS as RL_METHODS
from metarl.supervised.config import DATA
from metarl.supervised.methods import METHODS as SUPERVISED_METHODS

ROOT = Path(__file__).parent.parent
REGISTRIES = [PROBLEMS, RL_METHODS, SUPERVISED_METHODS, OPTIMIZERS, NETWORKS, DATA, FAMILIES]
METHODS = [
    pytest.param(registry, name, id=f"{entry.split(':')[0]}-{name}")
    for registry in (RL_METHODS, SUPERVISED_METHODS)
    for name, entry in registry.items()
]


def modules() -> dict[str, ast.Module]:
    """The code of the library, by its path in the repository; other folders are linked into it."""
    paths = [*ROOT.glob("metarl/**/*.py"), *ROOT.glob("baselines/*.py")]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def path_of(entry: str) -> str:
    """The file of an import string."""
    path = entry.split(":")[0].replace(".", "/") + ".py"
    return path.removeprefix("metarl/") if path.startswith("metarl/baselines/") else path


def loops(tree: ast.Module) -> Iterator[ast.For | ast.While]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.For, ast.While)))


@pytest.mark.slow
def test_names_of_methods_occur_only_in_their_files_and_the_registries() -> None:
    files: dict[str, set[str]] = {}
    for registry in (RL_METHODS, SUPERVISED_METHODS):
        for name, entry in registry.items():
            files.setdefault(name, set()).add(path_of(entry))
    registered = {"metarl/rl/methods.py", "metarl/supervised/methods.py"}
    # with a default, and with the module of that name
    configs = {"metarl/rl/config.py", "metarl/supervised/config.py", "metarl/rl/__init__.py"}
    misplaced = [
        f"{path}:{node.lineno}: {node.value!r}"
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and node.value in files
        and path not in files[node.value] | registered | configs
    ]
    assert not misplaced
    # the search finds what it looks for
    mentions = {path for path, tree in modules().items() if "'maml'" in ast.unparse(tree)}
    assert mentions == registered | configs


@pytest.mark.slow
def test_there_is_one_training_loop() -> None:
    training = [
        path
        for path, tree in modules().items()
        for loop in loops(tree)
        if re.search(r"\.step\((\w+\.)?state\b", ast.unparse(loop))
        or re.search(
            r"\.(iterations|num_iterations)\b",
            ast.unparse(loop.test if isinstance(loop, ast.While) else loop.iter),
        )
    ]
    assert training == ["metarl/method.py"]


def test_the_file_of_algorithm_3_is_short() -> None:
    assert len((ROOT / "metarl/rl/maml.py").read_text().splitlines()) < 200


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_all_registered_names_can_be_imported(registry) -> None:
    present = [name for name, entry in registry.items() if find_spec(entry.split(":")[0])]
    assert present
    for name in present:
        assert callable(registry.load(name))


@pytest.mark.parametrize(("registry", "name"), METHODS)
def test_every_method_has_the_members_of_the_protocol(registry, name: str) -> None:
    if not find_spec(registry[name].split(":")[0]):
        pytest.skip("its file is not here")
    method = registry.load(name)
    assert method.role in ("meta-learner", "baseline")
    assert method.adaptation_unit in (*ADAPTATION_UNITS.values(), None)
    assert method.label
    assert issubclass(method.Settings, MethodSection)
    assert method.Settings(name=name).name == name
    for member in ("num_iterations", "max_samples", "uses_lr_schedule", "supports_distributed"):
        assert hasattr(method, member)
    for verb in ("initial_state", "step", "evaluate", "close"):
        assert callable(getattr(method, verb))
