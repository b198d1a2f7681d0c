"""Mutation testing of the core: change one operator or constant, run the tests that cover it.

    make mutants                          # 200 mutants, two at a time
    python tests/mutants.py --count 50 --seed 7 --only rl/sampler

A mutant that no test notices (a survivor) is either equivalent to the original, or a missing test.
The mutations are Cosmic Ray's; its own runner executes one test command for all mutants, and is
replaced by the tests whose coverage includes the mutated line, the most specific first.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from cosmic_ray.ast import Visitor, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from coverage import CoverageData

ROOT = Path(__file__).parent.parent
CORE = [
    *("metarl/inner_loop.py", "metarl/evaluation.py", "metarl/optim/trust_region.py"),
    *("metarl/supervised/maml.py", "metarl/rl/*.py", "envs/*.py"),
]
COSMETIC = {"envs/drawing.py", "envs/rendering.py", "envs/images.py"}  # colours, cameras
OPERATORS = [
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul")),
    *("ReplaceBinaryOperator_Pow_Mul", "ReplaceBinaryOperator_FloorDiv_Mul"),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt")),
    *(
        f"ReplaceComparisonOperator_{pair}"
        for pair in ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")
    ),
    *("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not", "AddNot"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("NumberReplacer", "ZeroIterationForLoop"),
]
MAX_TEST_SECONDS = 60.0  # of the covering tests that are run for one mutant, as measured without it


class Mutant(NamedTuple):
    """One change of one module."""

    path: str
    operator: str
    occurrence: int
    line: int

    def code(self) -> str | None:
        """The module's source with the change."""
        operator = get_operator(f"core/{self.operator}")()
        changed: str | None = mutate_code((ROOT / self.path).read_text(), operator, self.occurrence)
        return changed


class Positions(Visitor):  # type: ignore[misc]
    """Lines at which an operator applies, in the order in which Cosmic Ray counts occurrences."""

    def __init__(self, operator: Any) -> None:
        self.operator, self.lines = operator, list[int]()

    def visit(self, node: Any) -> Any:
        self.lines += [start[0] for start, _ in self.operator.mutation_positions(node)]
        return node


def mutants(only: str) -> Iterator[Mutant]:
    """All mutants of the modules whose path contains `only`."""
    for path in sorted(path for pattern in CORE for path in ROOT.glob(pattern)):
        name = str(path.relative_to(ROOT))
        if only in name and name not in COSMETIC:
            tree = get_ast(path.read_text())
            for operator in OPERATORS:
                positions = Positions(get_operator(f"core/{operator}")())
                positions.walk(tree)
                for occurrence, line in enumerate(positions.lines):
                    yield Mutant(name, operator, occurrence, line)


def one_per_line(population: list[Mutant], count: int, rng: random.Random) -> list[Mutant]:
    """A mutant of each of `count` random lines; lines with many constants do not dominate."""
    lines = defaultdict(list)
    for mutant in population:
        lines[mutant.path, mutant.line].append(mutant)
    return [rng.choice(lines[line]) for line in rng.sample(sorted(lines), min(count, len(lines)))]


class Tests:
    """The quick tests: which lines each of them runs, and how long it takes."""

    def __init__(self, work: Path) -> None:
        data = CoverageData(str(work / ".coverage"))
        data.read()
        self.by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.num_lines: dict[str, int] = defaultdict(int)
        for file in data.measured_files():
            path = str(Path(file).resolve().relative_to(work / "source"))
            for line, contexts in data.contexts_by_lineno(file).items():
                for test in (context.split("|")[0] for context in contexts if context):
                    self.by_line[path, line].add(test)
                    self.num_lines[test] += 1
        self.seconds = {
            f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}": float(
                case.get("time", 0)
            )
            for case in ElementTree.parse(work / "tests.xml").iter("testcase")
        }

    def select(self, mutant: Mutant) -> list[str]:
        """Tests that run the mutated line, the most specific first, up to `MAX_TEST_SECONDS`."""
        covering = self.by_line[mutant.path, mutant.line]
        if not covering:  # runs at import: every test of the module
            covering = set().union(
                *(t for (path, _), t in self.by_line.items() if path == mutant.path)
            )
        selected, total = [], 0.0
        for test in sorted(covering, key=lambda test: (self.num_lines[test], test)):
            total += self.seconds.get(test, 1.0)
            if total > MAX_TEST_SECONDS and selected:
                break
            selected.append(test)
        return selected


def copy_sources(target: Path) -> Path:
    """Copy the tracked files to a directory in which they can be changed."""
    shutil.rmtree(target, ignore_errors=True)
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in files.stdout.split("\0"):
        source = ROOT / name
        if name and (source.is_file() or source.is_symlink()):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
    return target


def pytest(source: Path, *arguments: str, timeout: float | None = None) -> int:
    """Run tests on a copy of the sources; the exit status, or -1 after `timeout` seconds."""
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    log = source.parent / f"{source.name}.log"
    with log.open("w") as output:
        try:
            return subprocess.run(
                command, cwd=source, env=environment, stdout=output, stderr=output, timeout=timeout
            ).returncode
        except subprocess.TimeoutExpired:
            return -1


def main() -> int:
    """Sample mutants, test each, and print the survivors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="number of mutants (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--only", default="", help="modules whose path contains this text")
    parser.add_argument(
        "--jobs", type=int, default=2, help="mutants tested in parallel (default: 2)"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "mutants", help="working directory"
    )
    options = parser.parse_args()
    work: Path = options.work.resolve()
    if not (work / "tests.xml").exists():
        print("measuring the coverage of the quick tests", flush=True)
        source = copy_sources(work / "source")
        # by directories: metarl/envs is a link, whose files coverage counts as those of envs
        sources = [f"--cov={directory}" for directory in ("metarl", "envs", "baselines")]
        coverage = [*sources, "--cov-context=test", "--cov-report=", "--numprocesses=2"]
        status = pytest(source, "-m", "not slow", *coverage, f"--junitxml={work / 'tests.xml'}")
        if status:
            (work / "tests.xml").unlink(missing_ok=True)
            print(f"the tests fail without a mutation: {work / 'source.log'}", file=sys.stderr)
            return 1
        shutil.move(source / ".coverage", work / ".coverage")
    tests = Tests(work)
    population = list(mutants(options.only))
    sample = one_per_line(population, options.count, random.Random(options.seed))
    copies = [copy_sources(work / f"copy{job}") for job in range(options.jobs)]

    def kill(job: int) -> list[tuple[Mutant, str]]:
        results = []
        for mutant in sample[job :: options.jobs]:
            module, code, selected = copies[job] / mutant.path, mutant.code(), tests.select(mutant)
            if code is None or not selected:
                outcome = "not covered"
            else:
                module.write_text(code)
                status = pytest(copies[job], "-x", "-n0", *selected, timeout=5 * MAX_TEST_SECONDS)
                outcome = {0: "survived", -1: "killed (timeout)"}.get(status, "killed")
                module.write_text((ROOT / mutant.path).read_text())
            print(
                f"{mutant.path}:{mutant.line} {mutant.operator} #{mutant.occurrence}: {outcome}",
                flush=True,
            )
            results.append((mutant, outcome))
        return results

    with ThreadPoolExecutor(options.jobs) as pool:
        results = [result for part in pool.map(kill, range(options.jobs)) for result in part]
    killed = sum(outcome.startswith("killed") for _, outcome in results)
    print(f"{killed} of {len(results)} mutants killed (a population of {len(population)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
