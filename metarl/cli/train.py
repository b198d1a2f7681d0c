"""`metarl train` and `metarl baseline`: what to train, all of it valid before any work is spent."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import (
    add_config,
    add_data,
    add_seeds,
    add_set,
    add_trust,
    add_wandb,
    describe,
    no_config,
    seeds_of,
)
from metarl.errors import UserError
from metarl.experiment import CONFIG, AnyConfig, load_config, resolve_run_dir
from metarl.launch.weights_and_biases import require_wandb
from metarl.rl.methods import METHODS as RL_METHODS
from metarl.runs.hub import PREFIX
from metarl.supervised.methods import METHODS as SUPERVISED_METHODS
from metarl.threads import is_main_process

KINDS = list(dict.fromkeys([*RL_METHODS, *SUPERVISED_METHODS]))

RUNS = """
A run is a directory with the whole config, the weights (safetensors), metrics (JSON lines and
TensorBoard), and the evaluation. Ctrl-C saves and stops; --resume continues so that the result
is bit for bit that of an uninterrupted run."""

TRAIN = f"""\
Meta-train a policy or a network from a config: a YAML file, or the name of one that comes with the
package (`metarl list`). At the end it is evaluated on tasks it never saw.

The config's `method` says how, with its own settings (`method: {{name: …, …}}`):
  policies     {", ".join(RL_METHODS)}
  networks     {", ".join(SUPERVISED_METHODS)}
  your own     package.module:Class, see CONTRIBUTING.md
{RUNS}"""

TRAIN_EXAMPLES = """\
examples:
  metarl train quickstart
  metarl train point_navigation --seed 2 --out runs/point-2
  metarl train point_navigation --seeds 5      1 to 5 side by side, runs/point_navigation/seed-1 …
  metarl train --resume runs/point_navigation  go on with those that are unfinished
  metarl train omniglot_5way_1shot --data data
  metarl train half_cheetah_direction --set family.settings.dynamics=gymnasium
  metarl train --resume runs/point-2
  metarl train --resume runs/point-2 --set outer.iterations=500    (train for longer)
  torchrun --nproc-per-node 4 -m metarl train ant_goal             (share the tasks)
"""

BASELINE = f"""\
Train what meta-learning is to be compared with: the same network, the same tasks, the same budget
of environment steps or examples, the same evaluation.

  pretrained          one model for all tasks mixed, fine-tuned on new tasks: a policy by PPO of
                      stable-baselines3, one network for all waves, a classifier of all classes
  random              no training at all; fine-tuned on new tasks
  oracle              as pretrained, but it is told the task; not fine-tuned; not of images
  nearest_neighbour   of images alone: the class of the most similar support image, by the features
                      of a classifier of all classes

The step size of fine-tuning is the best of `baseline.step_sizes` on validation tasks. Give the
config, the seed and the settings of the run that is to be compared.
{RUNS}"""

BASELINE_EXAMPLES = """\
examples:
  metarl baseline quickstart --kind pretrained
  metarl baseline point_navigation --kind oracle --seed 2 --out runs/oracle-2
  metarl baseline quickstart --kind random --seeds 5
  metarl baseline half_cheetah_direction --kind pretrained --model my_ppo.zip
  metarl baseline omniglot_5way_1shot --kind nearest_neighbour --data data
  metarl baseline --resume runs/oracle-2
"""


def declare_train(parser: argparse.ArgumentParser) -> None:
    """Declare `train`."""
    describe(parser, TRAIN, TRAIN_EXAMPLES, _train)
    parser.set_defaults(name="train", kind=None, model=None)
    _add_arguments(parser)


def declare_baseline(parser: argparse.ArgumentParser) -> None:
    """Declare `baseline`."""
    describe(parser, BASELINE, BASELINE_EXAMPLES, _train)
    parser.set_defaults(name="baseline")
    _add_arguments(parser)
    parser.add_argument("--kind", choices=KINDS, help="which baseline")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="ZIP",
        help="take a model that stable-baselines3 saved (PPO or A2C) instead of training one",
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_set(parser, "SECTION.SETTING=VALUE", "change a setting of the config")
    parser.add_argument("--seed", type=int, metavar="N", help="the same as --set seed=N")
    add_seeds(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="RUN",
        help="directory of the run (default: runs/NAME); of several seeds, RUN/seed-N is one's",
    )
    add_data(parser)
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="continue the run in RUN, or those of its seeds"
    )
    add_wandb(parser)
    add_trust(parser)


def _train(options: argparse.Namespace, console: Console) -> int:
    if options.wandb:
        require_wandb()
    if options.seed is not None:
        if options.seeds:
            raise UserError("--seed and --seeds contradict each other; give one of them")
        options.set.append(f"seed={options.seed}")
    if options.seeds or (options.resume and _holds_several(options.resume)):
        return _train_several(options, console)
    if options.resume:
        _check_resumed(options)
    config = None if options.resume or not is_main_process() else _config(options, options.set)
    # imported here: torch takes a second, which a mistake in the config should not wait for
    from metarl.cli.training import train_one

    return train_one(options, config, console)


def _train_several(options: argparse.Namespace, console: Console) -> int:
    if options.model:
        raise UserError("--model is one run; leave --seeds out")
    planned = {
        Path(f"seed-{seed}"): _config(options, [*options.set, f"seed={seed}"])
        for seed in seeds_of(options)
    }
    # imported here: torch takes a second, which a mistake in the config should not wait for
    from metarl.cli.multi_run import show_together, train_several

    return train_several(options, planned, console, show_together)


def _check_resumed(options: argparse.Namespace) -> None:
    """Raise UserError if there is nothing to resume, or it is to be something else."""
    for flag in ("out", "kind", "model"):
        if getattr(options, flag):
            raise UserError(
                f"--{flag} and --resume contradict each other; a resumed run stays what and where "
                "it is"
            )
    if not str(options.resume).startswith(PREFIX):
        resolve_run_dir(options.resume)


def _holds_several(folder: Path) -> bool:
    """Whether a directory is that of several runs, and of none itself."""
    return not (folder / CONFIG).exists() and any(folder.glob(f"*/{CONFIG}"))


def _config(options: argparse.Namespace, overrides: Sequence[str]) -> AnyConfig:
    """What to train, and as `options.out` where to keep it."""
    if not options.config:
        if options.resume:
            raise UserError(f"name the config of {options.resume} as well, to add seeds to it")
        raise no_config("--resume RUN")
    if options.name == "baseline":
        if options.kind is None:
            raise UserError(f"say which baseline: --kind {', --kind '.join(KINDS)}")
        overrides = [*overrides, f"method={options.kind}"]
    suffix = f"-{options.kind}" if options.kind else ""
    if not options.resume:
        options.out = options.out or Path("runs") / (Path(options.config).stem + suffix)
    return load_config(options.config, overrides)
