"""`make soak`: long randomised tests of the installed package, about half an hour.

    python tests/soak.py                       everything, about 30 minutes on two cores
    python tests/soak.py --minutes 3           a tenth of everything
    python tests/soak.py kills --count 50      one part, 50 times
    python tests/soak.py --seed 7              another seed

Prints a table of checks and failures; the exit status is 1 after a failure. Parts that this machine
does not support (mounting a small disk) are skipped with a message.

Trainings are forked from this process, which has imported everything and computed nothing. Each
takes a fraction of a second and can be killed by SIGKILL like any other process. The parts in
`soak_inputs.py` compute in this process, and come last.
"""

import argparse
import json
import os
import pickle
import random
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

import soak_inputs
from killed_at import kill_at
from soak_inputs import Part

import metarl
from metarl.baselines import ppo  # noqa: F401  imported before anything is forked
from metarl.cli import main
from metarl.config.files import shipped_configs
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.report.evaluations import load_or_evaluate
from metarl.runs.metrics import read_metrics
from metarl.runs.run import Run

POLICY = [
    "family.settings.horizon=5",
    "outer.meta_batch=2",
    "outer.anneal=false",
    "inner.episodes_per_task=3",
    "evaluation.tasks=3",
    "evaluation.episodes_per_task=2",
    "policy.hidden_sizes=[4]",
    "checkpoint_every=3",
]
PPO = ["baseline.value_hidden_sizes=[4]", "baseline.step_sizes=[0.1]", "baseline.batch_size=10"]
WAVES = ["outer.meta_batch=2", "evaluation.tasks=3", "network.hidden_sizes=[4]"]
WAVES += ["checkpoint_every=10", "report_every=10"]
ADAM = "outer={algorithm: adam, meta_batch: 2, iterations: 12}"


def _sets(*settings: str) -> list[str]:
    return [f"--set={setting}" for setting in settings]


TRAININGS: dict[str, list[str]] = {
    "maml (TRPO)": ["train", "point_navigation_small", *_sets(*POLICY, "outer.iterations=12")],
    "maml (Adam)": ["train", "point_navigation_small", *_sets(*POLICY, ADAM)],
    "ProMP": ["train", "point_navigation_promp", *_sets(*POLICY, "outer.iterations=12")],
    "RL²": [
        *("train", "point_navigation_rl2"),
        *_sets(*POLICY, "method.hidden_size=4", "outer.iterations=12"),
    ],
    "pretrained": [
        *("baseline", "point_navigation_small", "--kind", "pretrained"),
        *_sets(*POLICY, *PPO, "outer.iterations=6"),
    ],
    "oracle": [
        *("baseline", "point_navigation_small", "--kind", "oracle"),
        *_sets(*POLICY, *PPO, "outer.iterations=6"),
    ],
    "random": ["baseline", "point_navigation_small", "--kind", "random", *_sets(*POLICY, *PPO)],
    "sinusoid": ["train", "sinusoid", *_sets(*WAVES, "outer.iterations=60")],
    "E-MAML": ["train", "point_navigation_e_maml", *_sets(*POLICY, "outer.iterations=12")],
    "CAVIA": ["train", "point_navigation_cavia", *_sets(*POLICY, "outer.iterations=12")],
    "sinusoid, CAVIA": ["train", "sinusoid_cavia", *_sets(*WAVES, "outer.iterations=60")],
    "meta-LSTM": [
        *("train", "sinusoid", "--set=method={name: meta_lstm, hidden_size: 4}"),
        *_sets(*WAVES, "inner.steps=2", "outer.iterations=60"),
    ],
    "Reptile": ["train", "sinusoid_reptile", *_sets(*WAVES, "outer.iterations=60")],
    "sinusoid, pretrained": [
        *("baseline", "sinusoid", "--kind", "pretrained"),
        *_sets(*WAVES, "outer.iterations=60", "baseline.step_sizes=[0.01]"),
    ],
}
PICTURES = ["inner.queries=1", "outer.meta_batch=1", "outer.iterations=20", "checkpoint_every=4"]
PICTURES += ["report_every=4", "evaluation.tasks=3", "evaluation.queries=1"]


def trainings(folder: Path) -> dict[str, list[str]]:
    """One training of every method. Those that classify use images, generated in the folder."""
    pictures = folder / "pictures"
    if not pictures.exists():
        noise = np.random.default_rng(0)
        for number in range(60):
            path = pictures / f"class{number % 10}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(256, size=(9, 9), dtype=np.uint8)).save(path)
    data = f"data={{name: folder, path: {pictures}, size: 9, channels: 1, ways: 2}}"
    small = _sets(data, *PICTURES, "network={kind: conv4, filters: 4}")
    memory = "method={name: mann, size: 4, hidden: 4, slots: 4}"
    base = "omniglot_5way_1shot"
    return TRAININGS | {
        "images": ["train", base, *small],
        "prototypical": ["train", f"{base}_prototypical", *small, "--set=method.ways=4"],
        "matching": ["train", f"{base}_matching", *small, "--set=method.ways=4"],
        "Siamese": ["train", f"{base}_siamese", *small, "--set=method.ways=4"],
        "MANN": ["train", f"{base}_mann", *_sets(data, *PICTURES, memory)],
        "nearest neighbour": ["baseline", base, "--kind", "nearest_neighbour", *small],
    }


# processes


def start(arguments: list[str], log: Path, prepare: Callable[[], object] = int) -> int:
    """Start `metarl ARGUMENTS...` in a subprocess and return its process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the soak itself may run under nohup
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        prepare()
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001  whatever it is, it is written down and judged
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def finish(child: int, limit: float = 120.0) -> int:
    """The exit status of a process, negative where a signal ended it; killed after `limit` s."""
    deadline = time.monotonic() + limit
    while True:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 124
        time.sleep(0.002)


def continued(path: Path, arguments: list[str]) -> list[str]:
    """The command that resumes a run, whatever its state."""
    if (path / "config.yaml").exists():
        return [arguments[0], "--resume", str(path)]
    return [*arguments, "--out", str(path)]


def outcome(path: Path) -> tuple[object, ...]:
    """The parts of a run that must be reproducible bit for bit."""
    state = Run.open(path).load()
    weights = [
        (name, leaf.numpy().tobytes()) for name, leaf in {**state.params, **state.opt_state}.items()
    ]
    lines = [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(path)
    ]
    return state.iteration, state.samples, weights, lines, (path / "evaluation.json").read_bytes()


REFERENCES: dict[str, tuple[float, tuple[object, ...]]] = {}


def reference(folder: Path, name: str, arguments: list[str]) -> tuple[float, tuple[object, ...]]:
    """The duration of an uninterrupted training, in seconds, and its outcome; computed once."""
    if name not in REFERENCES:
        path, log = folder / f"reference-{len(REFERENCES)}", folder / "reference.log"
        started = time.monotonic()
        if finish(start([*arguments, "--out", str(path)], log)):
            sys.exit(f"the uninterrupted training {name!r} failed:\n{log.read_text()}")
        REFERENCES[name] = time.monotonic() - started, outcome(path)
    return REFERENCES[name]


# the parts


def kills(folder: Path, count: int, chance: random.Random) -> Part:
    """SIGKILL at random moments, and at random file operations; then resumed to the end."""
    part, killed, methods = Part(), 0, set()
    while killed < count:
        name, arguments = chance.choice(list(trainings(folder).items()))
        seconds, expected = reference(folder, name, arguments)
        path, log = folder / "killed", folder / "killed.log"
        shutil.rmtree(path, ignore_errors=True)
        log.unlink(missing_ok=True)
        for _ in range(chance.randint(1, 4)):
            if chance.random() < 0.5:
                number = chance.randint(1, 40)
                child = start(continued(path, arguments), log, lambda n=number: kill_at(n))
            else:
                child = start(continued(path, arguments), log)
                time.sleep(chance.uniform(0.0, seconds))
                os.kill(child, signal.SIGKILL)
            killed += finish(child) == -signal.SIGKILL
        status = finish(start(continued(path, arguments), log))
        complete = status == 2 and "is complete" in " ".join(log.read_text().split())
        same = (status == 0 or complete) and outcome(path) == expected
        methods.add(name)
        part.expect(same, f"{name}: another end than without kills (status {status})")
        left = [file.name for file in path.glob(".*.tmp")]
        part.expect(complete or not left, f"{name}: left {left}")
    part.notes.append(f"{killed} kills in {part.done // 2} runs of {len(methods)} methods")
    return part


def ranks(folder: Path, count: int, chance: random.Random) -> Part:
    """SIGKILL of one rank or all of two started by torchrun, which restarts them."""
    part = Part()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node=2", "--max-restarts=3", "--monitor-interval=0.1"]
    launcher += [f"--log-dir={folder / 'logs'}"]  # else in the system's /tmp, for ever
    arguments = ["train", "point_navigation_small", *_sets(*POLICY, "outer.iterations=300")]
    reference = folder / "two-ranks"
    command = [*launcher, "-m", "metarl", *arguments, "--out"]
    subprocess.run([*command, str(reference)], check=True, capture_output=True)
    for number in range(count):
        path = folder / f"two-ranks-{number}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([*command, str(path)], **quiet)
        until = chance.choice(["config.yaml", "state.json", "metrics.jsonl"])
        while not (path / until).exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 2.0) if until == "metrics.jsonl" else 0.0)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children if chance.random() < 0.3 else children[-2:][:1]:
            os.kill(int(child), signal.SIGKILL)
        _, errors = process.communicate()
        part.expect(process.returncode == 0, f"torchrun ended with {errors[-300:]}")
        if process.returncode == 0:
            part.expect(outcome(path) == outcome(reference), "another end than without kills")
    return part


def interruptions(folder: Path, count: int, chance: random.Random) -> Part:
    """One signal, or two within 30 ms: no finished iteration is lost."""
    part = Part()
    names = ["maml (TRPO)", "sinusoid", "pretrained"]
    more = _sets("outer.iterations=1000000", "checkpoint_every=1000000")
    for number in range(count):
        name = chance.choice(names)
        path, log = folder / f"interrupted-{number}", folder / f"interrupted-{number}.log"
        arguments = [a for a in TRAININGS[name] if not a.startswith("--set=outer.iterations")]
        child = start([*arguments, *more, "--out", str(path)], log)
        num_lines = chance.randint(1, 20)
        while not (path / "metrics.jsonl").exists() or _lines(path) < num_lines:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.05))
        signals = chance.choices([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], k=number % 2 + 1)
        for signal_number in signals:
            os.kill(child, signal_number)
            time.sleep(chance.uniform(0.0, 0.03))
        status = finish(child)
        state, logged = Run.open(path).load(), _lines(path)
        iterations = [line["iteration"] for line in read_metrics(path)]
        is_saved = state.iteration >= iterations[-1] and len(iterations) == logged
        has_hint = "continue with" in log.read_text()
        which = "+".join(signal_number.name for signal_number in signals)
        sentence = f"{name}, {which}: status {status}, {state.iteration} saved of {iterations[-1]}"
        part.expect(status == 130 and is_saved and has_hint, sentence)
        shutil.rmtree(path)
    return part


def _lines(path: Path) -> int:
    return (path / "metrics.jsonl").read_bytes().count(b"\n")


def disks(folder: Path, count: int, chance: random.Random) -> Part:
    """A disk that is full at once or after some iterations, and has space again later."""
    part = Part()
    if os.geteuid() or not _mounts(folder):
        part.notes.append("left out: only root may mount a small disk")
        return part
    for _ in range(count):
        name, arguments = chance.choice(list(trainings(folder).items()))
        _, expected = reference(folder, name, arguments)
        kilobytes = 4 * chance.randint(2, 24)
        with small_disk(folder / "disk", kilobytes) as disk:
            path, log = disk / "run", folder / "disk.log"
            log.unlink(missing_ok=True)
            status = finish(start([*arguments, "--out", str(path)], log))
            text = " ".join(log.read_text().split())
            what = f"{name} in {kilobytes} kB: status {status}"
            part.expect("Traceback" not in text, f"{what}: {text[-300:]}")
            full = "No space left on device" in text
            part.expect(status in ((1, 2) if full else (0,)), f"{what}: {text[-300:]}")
            subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
            status = finish(start(continued(path, arguments), log))
            complete = "is complete" in log.read_text()
            same = (status == 0 or complete) and outcome(path) == expected
            part.expect(same, f"{what}, and another end with room: {log.read_text()[-300:]}")
    part.notes.append(f"{count} small disks")
    return part


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """A file system in memory."""
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _mounts(folder: Path) -> bool:
    try:
        with small_disk(folder / "disk", 64):
            return True
    except subprocess.CalledProcessError:
        return False


def configs(folder: Path, count: int, chance: random.Random) -> Part:
    """Random configs: each is valid, or rejected with clear messages."""
    part, accepted = Part(), 0
    texts = [path.read_text() for path in shipped_configs().values()]
    file = folder / "fuzzed.yaml"
    slowest = 0.0
    for _ in range(count):
        content = fuzzed_config(chance, chance.choice(texts))
        file.write_bytes(content)
        started = time.monotonic()
        try:
            load_config(str(file))
            accepted += 1
            problem = ""
        except UserError as error:
            problem = "" if str(error).strip() else "an empty sentence"
        except Exception as error:  # noqa: BLE001  what is looked for
            problem = f"{type(error).__name__}: {error}"
        slowest = max(slowest, time.monotonic() - started)
        part.expect(not problem, f"{problem} for {content[:300]!r}")
    part.notes.append(f"{accepted} accepted; the slowest took {slowest:.1f} s")
    return part


VALUES: list[Any] = [None, True, 0, -1, 1, 2, 1e-3, 0.5, 1e308, -1e308, float("inf"), float("nan")]
VALUES += [2**62, 2**64, 10**30, "", "x", "maml", "adam", "trpo", "ant-goal", "a:b", "\x85", "é"]
VALUES += [[], [1], [-1], [0.1, "x"], [[1]], {}, {"a": 1}, {"name": "omniglot"}, {1: 2}, "1e3"]


def fuzzed_config(chance: random.Random, text: str) -> bytes:
    """A config with some settings changed, removed, moved, or with some characters changed."""
    if chance.random() < 0.3:
        return mutated(chance, text.encode())
    values = yaml.safe_load(text)
    sections = [values, *(part for part in values.values() if isinstance(part, dict))]
    for _ in range(chance.randint(1, 3)):
        section = chance.choice(sections)
        match chance.randrange(4):
            case 0 if section:
                section[chance.choice(list(section))] = chance.choice(VALUES)
            case 1 if section:
                del section[chance.choice(list(section))]
            case 2:
                section[_word(chance)] = chance.choice(VALUES)
            case _:
                section[chance.choice(SETTINGS)] = chance.choice(VALUES)
    return yaml.dump(values, allow_unicode=True).encode()


SETTINGS = ["method", "family", "data", "network", "inner", "outer", "evaluation", "baseline"]
SETTINGS += [
    "seed",
    "device",
    "step_size",
    "steps",
    "iterations",
    "tasks",
    "kind",
    "name",
    "settings",
]
SETTINGS += ["algorithm", "anneal", "step_sizes", "hidden_sizes", "horizon", "gamma", "damping"]


def _word(chance: random.Random) -> str:
    return "".join(chance.choices(string.ascii_lowercase + "_.:é\n", k=chance.randint(0, 8)))


def mutated(chance: random.Random, content: bytes) -> bytes:
    """The content with some bytes changed, removed, duplicated or inserted."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        length = chance.choice([1, 1, 2, 8, 64, len(data)])
        match chance.randrange(5):
            case 0 if place < len(data):
                data[place] ^= 1 << chance.randrange(8)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length]
            case 3:
                data[place:place] = chance.randbytes(length % 65)
            case _:
                odd = [b"[" * 500, b"-", b"9" * 400, b"null", b"NaN", b"1e999", b"\0", b"&a *a"]
                data[place:place] = chance.choice(odd)
    return bytes(data)


def commands(folder: Path, count: int, chance: random.Random) -> Part:
    """Random command lines; the accepted ones, at least a fifth, are run with tiny sizes."""
    part, accepted = Part(), 0
    run = folder / "sound"
    log = folder / "commands.log"
    finish(start([*TRAININGS["maml (TRPO)"], "--out", str(run)], log))
    for number in range(count):
        log.unlink(missing_ok=True)
        out = folder / f"command-{number}"
        arguments = (sensible_command if number % 4 == 1 else fuzzed_command)(chance, run, out)
        status = finish(start(arguments, log, lambda: os.chdir(folder)), limit=60.0)
        text = log.read_text(errors="replace")
        accepted += status == 0
        fine = status in (0, 1, 2) and "Traceback" not in text and (status == 0 or text.strip())
        part.expect(bool(fine), f"status {status} for {arguments}: {text[-400:]}")
        shutil.rmtree(out, ignore_errors=True)
    if accepted < count // 5:
        part.failures.append(f"{accepted} of {count} were accepted, and a fifth should be")
    part.notes.append(f"{accepted} accepted and run")
    return part


# settings that can be as chance has them: of any method, of policies, of waves
SENSIBLE = {
    "inner.step_size": ["0.01", "0.5", "1e-3"],
    "inner.steps": ["1", "2"],
    "inner.first_order": ["true", "false"],
    "inner.adapt": ["head", "all"],
    "inner.learned_step_sizes": ["lslr", "meta_sgd", "none"],
    "evaluation.tasks": ["2", "4"],
    "evaluation.seed": ["0", "9"],
    "outer.meta_batch": ["1", "3"],
    "seed": ["0", "7", "123456789"],
    "report_every": ["1", "3"],
    "checkpoint_every": ["1", "2"],
}
OF_POLICIES = {
    "inner.episodes_per_task": ["1", "2"],
    "inner.gamma": ["0.5", "1"],
    "evaluation.step_sizes": ["[0.1]", "[0.5, 0.2]"],
    "policy.activation": ["tanh", "relu"],
    "policy.hidden_sizes": ["[3]", "[3, 2]"],
    "policy.observation_scale": ["measured", "null"],
    "family.settings.half_width": ["0.2", "2"],
}
OF_WAVES = {
    "inner.shots": ["1", "5"],
    "network.hidden_sizes": ["[3]", "[3, 2]"],
    "evaluation.queries": ["4", "20"],
    "data.amplitude": ["[0.5, 1]", "[1, 9]"],
}


def sensible_command(chance: random.Random, run: Path, out: Path) -> list[str]:
    """A plausible command with random settings; most are accepted."""
    few = ["evaluation.tasks=2", "evaluation.episodes_per_task=1"]
    match chance.choice(["train", "train", "train", "evaluate", "compare", "export"]):
        case "evaluate":
            more = chance.sample(["evaluation.seed=5", "evaluation.step_sizes=[0.1]"], k=1)
            return ["evaluate", str(run), *_sets(*few, *more)]
        case "compare":
            return ["compare", str(run), "--out", str(out)]
        case "export":
            return ["export", str(run), f"{out}.zip"]
    training = chance.choice(list(TRAININGS.values()))
    sensible = SENSIBLE | (OF_WAVES if training[1] == "sinusoid" else OF_POLICIES)
    overrides = [
        f"{name}={chance.choice(sensible[name])}" for name in chance.sample(list(sensible), k=3)
    ]
    return [*training, *_sets(*overrides, "outer.iterations=2"), "--out", str(out)]


def fuzzed_command(chance: random.Random, run: Path, out: Path) -> list[str]:
    """A command with random arguments, which may not belong to it, and the tiny sizes last."""
    name = chance.choice(["train", "train", "baseline", "evaluate", "compare", "export", "trian"])
    runs = [str(run), str(run), "point_navigation", "absent", "", "/dev/null", ".", "\udcff"]
    if name in ("train", "baseline"):
        training = chance.choice(list(TRAININGS.values()))
        arguments = [name, training[1], *(a for a in training if a.startswith("--set"))]
        if name == "baseline":
            kinds = ["pretrained", "random", "oracle", "nearest_neighbour", "best", ""]
            arguments += ["--kind", chance.choice(kinds)]
        for _ in range(chance.randint(0, 2)):
            setting = chance.choice(SETTINGS)
            if chance.random() < 0.5:
                setting = f"{chance.choice(SETTINGS)}.{setting}"
            value = yaml.dump(chance.choice(VALUES), default_flow_style=True).split("\n")[0]
            arguments.append(f"--set={setting}={value}")
        arguments += ["--out", str(out)]
        if chance.random() < 0.1:
            arguments += ["--resume", chance.choice(runs)]
    else:
        arguments = [name, chance.choice(runs)]
        tiny = [
            "evaluation.tasks=2",
            "evaluation.episodes_per_task=1",
            "evaluation.tasks=-1",
            "seed=2",
        ]
        if name == "evaluate":
            arguments += _sets("evaluation.tasks=3", *chance.choices(tiny, k=chance.randint(0, 2)))
        elif name == "compare":
            arguments += [chance.choice(runs), "--out", str(out)][chance.randrange(2) :]
        elif name == "export":
            arguments += [str(out) + chance.choice([".zip", ".pt", ""])]
    if chance.random() < 0.2:
        arguments.insert(
            chance.randint(0, len(arguments)), chance.choice(["--", "-x", "--set", "é"])
        )
    # what would train for hours is no fuzz: a second setting of the same name wins
    short = _sets("outer.iterations=2") if arguments[0] in ("train", "baseline") else []
    return arguments if "--" in arguments else [*arguments, *short]


def files(folder: Path, count: int, chance: random.Random) -> Part:
    """Corrupt files of a run: they are refused, or their content is read correctly."""
    part, refused = Part(), 0
    sound = {}
    for name in ("maml (TRPO)", "maml (Adam)", "sinusoid"):
        path = folder / f"sound-{len(sound)}"
        finish(start([*TRAININGS[name], "--out", str(path)], folder / "sound.log"))
        sound[path] = outcome(path)
    for _ in range(count):
        source = chance.choice(list(sound))
        path = folder / "damaged"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source, path)
        names = ["state.json", "config.yaml", "weights-*", "metrics.jsonl", "evaluation.json"]
        file = next(path.glob(chance.choice(names)))
        before = file.read_bytes()
        file.write_bytes(mutated(chance, before))
        what = f"{source.name}/{file.name}"
        try:
            run = Run.open(path)
            iteration, samples, weights, _, _ = sound[source]
            state = run.load()
            tensors = {**state.params, **state.opt_state}
            same = [(name, leaf.numpy().tobytes()) for name, leaf in tensors.items()] == weights
            run.metrics()
            if json.loads(before) if file.name == "evaluation.json" else True:
                _evaluation(run)
            # a number in state.json that is another, and still one, cannot be known to be wrong
            fits = file.name == "state.json" or (state.iteration, state.samples) == (
                iteration,
                samples,
            )
            part.expect(same and fits, f"{what}: other weights, silently")
        except UserError:
            refused += 1
            part.done += 1
        except Exception as error:  # noqa: BLE001  what is looked for
            part.expect(False, f"{what}: {type(error).__name__}: {error}")
    part.notes.append(f"{refused} refused, the others sound")
    return part


def untrusted(folder: Path, count: int, chance: random.Random) -> Part:
    """Long forms of the tests on corrupt data sets, models and pickles."""
    part, tests = Part(done=count), Path(__file__).parent / "test_untrusted_files.py"
    per_kind = str(max(1, count // 8))  # there are eight kinds
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    result = subprocess.run(
        command, env={**os.environ, "METARL_MUTATIONS": per_kind}, capture_output=True, text=True
    )
    if result.returncode:
        part.failures.append(result.stdout[-2000:])
    return part


def _evaluation(run: Run) -> None:
    """Read the evaluation if it belongs to these weights; never evaluate again."""
    text = (run.path / "evaluation.json").read_bytes()
    if run.weights_sha256().encode() in text:
        load_or_evaluate(run)


def iterations(folder: Path, min_count: int, chance: random.Random) -> Part:
    """Many iterations in one process: memory, descriptors and threads do not grow."""
    part = Part()
    for name, fewest_watched in (("maml (TRPO)", 50), ("sinusoid", 2000), ("pretrained", 50)):
        path, log = folder / f"long-{name}", folder / "long.log"
        count = max(min_count, fewest_watched)  # fewer are over before their memory is flat
        arguments = [a for a in TRAININGS[name] if not a.startswith("--set=outer.iterations")]
        updates = count // 2 if name == "pretrained" else count  # which has two an iteration
        more = _sets(f"outer.iterations={updates}", "checkpoint_every=100")
        child = start([*arguments, *more, "--out", str(path)], log)
        usage: list[tuple[int, tuple[int, int, int]]] = []
        while (status := os.waitpid(child, os.WNOHANG))[0] == 0:
            with suppress(OSError, LookupError, ValueError):  # it has just begun, or ended
                usage.append((read_metrics(path)[-1]["iteration"], _use(child)))
            time.sleep(0.05)
        code = os.waitstatus_to_exitcode(status[1])
        part.expect(code == 0, f"{name}: status {code}: {log.read_text()[-300:]}")
        # the beginning and the evaluation take their own
        early = [use for done, use in usage if 0.1 * count < done <= 0.5 * count]
        late = [use for done, use in usage if 0.5 * count < done < 0.97 * count]
        if not early or not late:
            part.expect(False, f"{name}: too short to be watched")
            continue
        grown = (late[-1][0] - early[-1][0]) / 1024
        part.expect(grown < 8.0, f"{name}: {grown:.1f} MB more after {count} iterations")
        # the fewest: one more is open while a checkpoint is written
        fewest = [[min(use[which] for use in uses) for which in (1, 2)] for uses in (early, late)]
        part.expect(fewest[0] == fewest[1], f"{name}: descriptors, threads: {fewest}")
        part.notes.append(f"{name}: {count} iterations, {late[-1][0] / 1024:.0f} MB ({grown:+.1f})")
    return part


def _use(process: int) -> tuple[int, int, int]:
    """Memory in kB, open descriptors, threads."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    descriptors = len(os.listdir(f"/proc/{process}/fd"))
    return int(status["VmRSS"].split()[0]), descriptors, int(status["Threads"])


def seeds(folder: Path, count: int, chance: random.Random) -> Part:
    """Every config twice with the same seed, and with 1, 2 and 4 threads: the same outcome."""
    omniglot = Path(os.environ.get("METARL_DATA", "absent"), "omniglot").is_dir()
    meta_world = find_spec("metaworld") is not None
    noise = folder / "noise"
    noise_like_miniimagenet(noise / "miniimagenet")
    part = Part()
    skipped = []
    for name in list(shipped_configs())[: max(1, count)]:
        values = load_config(name).model_dump(mode="json")
        needs_omniglot = values.get("data", {}).get("name") == "omniglot"
        needs_meta_world = values.get("family", {}).get("name", "").startswith("metaworld")
        if (needs_omniglot and not omniglot) or (needs_meta_world and not meta_world):
            skipped.append(name)
            continue
        data_options = []
        if values.get("data", {}).get("name") in ("omniglot", "miniimagenet"):
            tiny = ["outer.meta_batch=2", "evaluation.tasks=3", "outer.iterations=2"]
            if values["data"]["name"] == "miniimagenet":
                tiny += ["network.filters=8", "inner.steps=2", "evaluation.steps=3"]
                data_options = ["--data", str(noise)]
        elif "data" in values:
            tiny = [*WAVES, "outer.iterations=20"]
        else:
            tiny = [*POLICY, "outer.iterations=2"]
        ends = []
        for threads in (1, 1, 2, 4):
            path, log = folder / f"{name}-{len(ends)}", folder / "seeds.log"
            native = ["family.settings.num_threads=" + str(threads)]
            mujoco = values.get("family", {}).get("name", "").startswith(("ant", "half"))
            arguments = [
                "train",
                name,
                "--out",
                str(path),
                *data_options,
                *_sets(*tiny, *(native if mujoco else [])),
            ]
            child = start(arguments, log, lambda n=threads: _alone(n, folder / "converted"))
            if status := finish(child):
                part.expect(False, f"{name}: status {status}: {log.read_text()[-300:]}")
                break
            ends.append(outcome(path))
        part.expect(all(end == ends[0] for end in ends[:2]), f"{name}: the same seed, another end")
        part.expect(all(end == ends[0] for end in ends[2:]), f"{name}: threads change the end")
    if skipped:
        part.notes.append(f"left out, since their data are not installed: {len(skipped)}")
    return part


def _alone(threads: int, cache: Path) -> None:
    torch.set_num_threads(threads)
    os.environ["METARL_CACHE"] = str(cache)


def noise_like_miniimagenet(folder: Path) -> None:
    """Five classes per split, with the images of one episode each, in the format of the caches."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    classes, images = 5, 20
    for split in ("train", "val", "test"):
        content = {
            "image_data": rng.integers(0, 256, (classes * images, 84, 84, 3), dtype=np.uint8),
            "class_dict": {
                f"{split}{number}": list(range(number * images, (number + 1) * images))
                for number in range(classes)
            },
        }
        (folder / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(content))


INPUTS = {
    "networks": (soak_inputs.networks, 400),
    "images": (soak_inputs.images, 4000),
    "predictions": (soak_inputs.predictions, 1500),
    "models": (soak_inputs.models, 800),
    "environments": (soak_inputs.environments, 5000),
    "settings": (soak_inputs.settings, 500),
    "divergence": (soak_inputs.divergence, 500),
    "statistics": (soak_inputs.statistics, 300),
}
# the number of repetitions of each part in thirty minutes
PARTS: dict[str, tuple[Callable[[Path, int, random.Random], Part], int]] = {
    "kills": (kills, 200),
    "ranks": (ranks, 6),
    "interruptions": (interruptions, 100),
    "disks": (disks, 40),
    "configs": (configs, 5000),
    "commands": (commands, 500),
    "files": (files, 2000),
    "untrusted": (untrusted, 2000),
    "iterations": (iterations, 5000),
    "seeds": (seeds, len(shipped_configs())),
    **INPUTS,
}


def soak() -> int:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=30.0, help="for all parts (default: 30)")
    parser.add_argument("--count", type=int, help="how often, instead")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all chances")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    console = Console()
    console.print(f"metarl from {Path(metarl.__file__).parent}, seed {options.seed}")
    table = Table("part", "done", "failed", "seconds", "figures", title="soak")
    failed = 0
    # a process that has computed with threads must not fork
    for name in sorted(options.parts or PARTS, key=[*PARTS].index):
        part, often = PARTS[name]
        count = options.count or max(1, round(often * options.minutes / 30.0))
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="soak-") as folder, warnings.catch_warnings():
            if name in INPUTS:  # whose odd inputs warn, as they should
                warnings.simplefilter("ignore")
            result = part(Path(folder), count, random.Random(f"{options.seed} {name}"))
        seconds = time.monotonic() - started
        failed += len(result.failures)
        for failure in result.failures[:20]:
            console.print(f"{name}: {failure}", style="red", markup=False, soft_wrap=True)
        figures = "; ".join(result.notes)
        row = [name, str(result.done), str(len(result.failures)), f"{seconds:.0f}", figures]
        console.print(f"{name}: {', '.join(row[1:])}", highlight=False, soft_wrap=True)
        table.add_row(*row)
    console.print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(soak())
