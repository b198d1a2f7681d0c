"""The arguments and the help of every command.

Nothing here imports torch: help, completion and errors in arguments don't wait for it. The
module that runs a command is imported when it is chosen.
"""

import argparse
import re
import textwrap
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from metarl.config.files import (
    DATA_VARIABLE,
    EVALUATION_NAME,
    EVALUATION_NAMES,
    TRUST_VARIABLE,
)
from metarl.errors import did_you_mean
from metarl.rl.methods import METHODS as RL_METHODS
from metarl.supervised.methods import METHODS as SUPERVISED_METHODS

DESCRIPTION = """\
Meta-learning with MAML (Finn et al., 2017): train a policy, a regression or a classifier that
adapts to a new task within a few gradient steps; evaluate, compare and visualise its adaptation.

examples:
  metarl list                                    the configs and trained runs of the package
  metarl train quickstart                        a few minutes; writes runs/quickstart
  metarl train my.yaml --set inner.step_size=0.2 --out runs/mine
  metarl train quickstart --seeds 5              five seeds in parallel, and their table
  metarl train my.yaml --from runs/quickstart    start from the weights of a run
  metarl sweep quickstart --set inner.step_size=0.1,0.5 --seeds 3
  metarl train --resume runs/mine                continue, bit for bit
  metarl baseline my.yaml --kind pretrained      multi-task PPO with the same budget
  metarl evaluate runs/mine                      scores after 0, 1, 2, ... gradient steps
  metarl compare runs/mine runs/my-pretrained    tables and plots
  metarl render runs/mine                        a video before and after adaptation
  metarl report runs/*                           one HTML page with tables, plots and videos
  metarl train omniglot_5way_1shot --data data   few-shot classification
  tensorboard --logdir runs                      plot returns, KL divergence, entropy and speed
"""


def _lines(names: Iterable[str]) -> str:
    return textwrap.fill(", ".join(names), 84, subsequent_indent=" " * 15)


RUN = "a run directory, the name of a trained run from `metarl list`, or hf:USER/NAME"

RUN_CONTENT = """
A run is a directory with the complete config, the weights (safetensors), the metrics (JSON lines
and TensorBoard) and the evaluation. Ctrl-C saves the run and stops. --resume continues it, with
the same result, bit for bit, as a training that was not interrupted."""

TRAIN = f"""\
Meta-train a policy or a network, and evaluate it on held-out tasks. CONFIG is a YAML file, or the
name of a config of the package (`metarl list`).

`method` in the config selects the method; `method: {{name: …, …}}` also changes its settings:
  policies     {_lines(RL_METHODS)}
  networks     {_lines(SUPERVISED_METHODS)}
  custom       package.module:Class, see docs/extending.md
{RUN_CONTENT}

examples:
  metarl train quickstart
  metarl train point_navigation --seed 2 --out runs/point-2
  metarl train point_navigation --seeds 5      seeds 1 to 5, in runs/point_navigation/seed-1 ...
  metarl train half_cheetah_direction --iterations 50 --device cpu
  metarl train half_cheetah_direction --set family.settings.dynamics=gymnasium
  metarl train omniglot_5way_1shot --data data
  metarl train --resume runs/point-2           continue after Ctrl-C or a crash
  metarl train my.yaml --from runs/point-2     other settings, from these weights
  metarl train point_navigation --from runs/point-2 --out runs/point-3 train for longer
  torchrun --nproc-per-node 4 -m metarl train ant_goal                 distribute the tasks
"""

BASELINE = f"""\
Train a baseline with the network, the tasks and the evaluation of CONFIG, and with the same number
of environment steps or examples. An iteration of MAML collects inner.steps + 1 batches of episodes,
one of PPO a single batch, so that PPO has more iterations.

  pretrained          one model, trained on all tasks jointly and fine-tuned on each new task: a
                      policy by PPO of stable-baselines3, a regression, or a classifier
  multi_task          policies only: as pretrained, but by the outer step of MAML (TRPO) in place of
                      PPO, with the settings of `outer`
  random              random initial weights, fine-tuned on each new task
  oracle              trained as pretrained, but the task is an input; not fine-tuned; not for
                      images
  nearest_neighbour   images only: the class of the most similar support image, in the features of
                      a pretrained classifier

The step size of fine-tuning is the one of `baseline.step_sizes` with the best score on validation
tasks. For a fair comparison use the config, seed and settings of the run to compare with.
{RUN_CONTENT}

examples:
  metarl baseline quickstart --kind pretrained
  metarl baseline point_navigation --kind oracle --seed 2 --out runs/oracle-2
  metarl baseline quickstart --kind random --seeds 5
  metarl baseline half_cheetah_direction --kind pretrained --model my_ppo.zip
  metarl baseline omniglot_5way_1shot --kind nearest_neighbour --data data
  metarl baseline --resume runs/oracle-2
"""

SWEEP = """\
Train every combination of values of settings, each with the same seeds. Runs are trained in
parallel: one process with one thread per run, as many at a time as there are processors.

A setting with a single value is the same for all runs. Each run has a directory of its own,
OUT/SETTING=VALUE/seed-1. Ctrl-C saves all runs and stops. --resume OUT continues unfinished runs;
with CONFIG, --set and --seeds it also adds values or seeds. The final table ranks the combinations
by their mean score after adaptation; OUT/sweep.csv has all scores with their intervals.

With --search N, a setting has a range LOW..HIGH, and optuna chooses N combinations, more of them
near good ones (pip install 'metarl-maml[search]'). --prune stops a combination whose score in
training is below the median of the others at the same iteration.

examples:
  metarl sweep quickstart --set inner.step_size=0.05,0.1,0.2 --seeds 3
  metarl sweep my.yaml --set outer.max_kl=0.01,0.02 --set inner.steps=1,2 --seeds 1 2 --out runs/try
  metarl sweep my.yaml --set policy.hidden_sizes=[64,64],[100,100] --iterations 50
  metarl sweep --resume runs/try
  metarl sweep quickstart --set inner.step_size=0.01..0.5 --seeds 2 --search 20 --prune
"""

EVALUATE = """\
Evaluate runs on held-out tasks: return, error or accuracy after 0, 1, 2, ... gradient steps. The
tasks depend on `evaluation.seed` only: they are the same for all methods and training seeds.

Writes evaluation.json, evaluation.csv and adaptation.png into each run, for policies also
rewards.png, the mean reward at each time step of an episode, and success.png where environments
report success. They replace those of an earlier evaluation; with --name NAME, they are called
evaluation-NAME.json and so on. For several seeds of one experiment, the mean over the runs is
printed as well.

examples:
  metarl evaluate runs/quickstart
  metarl evaluate point_navigation                 a trained run of the package
  metarl evaluate runs/point-1 runs/point-2 runs/point-3
  metarl evaluate runs/point-1 --set evaluation.tasks=200 --set evaluation.step_sizes=[0.5,0.5]
  metarl evaluate runs/point-1 --schedule paper    with the step sizes of Finn et al. (2017)
  metarl evaluate runs/omniglot --data data --set evaluation.queries=15 --name 15-queries
"""

COMPARE = """\
Compare runs on the same held-out tasks: score against gradient steps, and score in training against
environment steps or examples. Runs that differ only in their seed are one experiment. Runs without
an evaluation are evaluated first.

Prints the scores, and the paired differences between a meta-learner and each other method. Writes
the tables (comparison.md, and comparison.tex for a paper), the numbers (comparison.csv) and plots
(adaptation and training, .png, .svg and .pdf) into a directory; for functions of one variable also
fits.png, the predictions on a task.

examples:
  metarl compare runs/quickstart runs/quickstart-pretrained runs/quickstart-oracle
  metarl compare runs/point-* --out results/point --many-steps 50
"""

RENDER = """\
Render a policy before and after adaptation to a task: one video, as MP4 and GIF; for point
navigation also a plot of the paths. Actions are sampled, as in training; with
`evaluation.deterministic`, the adapted policy takes mean actions. No display is needed: MuJoCo
renders through EGL or OSMesa.

For a regression of functions of one variable, such as sine waves, plot a task and the predictions;
for a run on images, plot an episode and the predictions.

examples:
  metarl render point_navigation                     a trained run of the package
  metarl render runs/mine --task 0.3 -0.4            for this task
  metarl render runs/cheetah --task -1 --steps 0 1 3
  metarl render runs/cheetah --live                  in a window
  metarl render runs/sinusoid --task 3.0 1.5         amplitude and phase; writes fit.png
  metarl render runs/omniglot_5way_1shot             writes episode.png
"""

REPORT = """\
Write one self-contained HTML page about runs: tables, curves of adaptation and training, videos or
plots of predictions, and configs. It has a section for each family of tasks.

examples:
  metarl report runs/quickstart runs/quickstart-pretrained
  metarl report runs/point-* --out point.html
  metarl report point_navigation half_cheetah_direction sinusoid
"""

RESULTS = """\
Write a results page in Markdown. It has for each family of tasks a table of the runs beside the
published figures, a plot, and the command, commit and hardware of each run. Every evaluation of a
run has a row (`metarl evaluate RUN --name NAME`). Runs that differ only in their seed are
aggregated, and also listed.

--notes names a folder of hand-written notes to include: `introduction.md`, and one file for each
section, with the name of its plot. --publish copies runs instead, without their weights: config,
provenance, scores, and a training curve of at most 100 points, about 50 KB for each run.

--verify evaluates runs again instead, on the tasks and with the settings of their evaluations, and
says whether the stored scores hold: bitwise identical, or, if another processor rounds otherwise,
without a difference of their means beyond chance. The exit status is 1 if one does not hold.

examples:
  metarl results runs/point-1 runs/point-2
  metarl results half_cheetah_direction --verify
  metarl results runs/point-1 runs/point-2 --publish results
  metarl results results/* configs/trained/* --out docs/results.md --notes docs/notes
"""

PUSH = """\
Upload a run to the Hugging Face hub: config, weights, evaluation, metrics, and a model card with a
table and plots. Every command that takes a run also takes its address, hf:USER/NAME.

Needs the extra `hub` (pip install 'metarl-maml[hub]') and a login (hf auth login).

examples:
  metarl push runs/mine me/half-cheetah
  metarl evaluate hf:me/half-cheetah
  metarl render hf:me/half-cheetah@v1              a revision: a branch, a tag or a commit
"""

EXPORT = """\
Export a run's policy for use without metarl. The suffix of FILE selects the format:

  .zip     a stable-baselines3 model: `PPO.load` reads it, `learn` fine-tunes it
  .onnx    ONNX, for onnxruntime and others (pip install 'metarl-maml[onnx]')
  .pt      TorchScript, for `torch.jit.load` and libtorch
  .pt2     an exported program, for `torch.export.load`

All but .zip map observations (N, S) to deterministic actions, not clipped. They are compared with
the policy's own actions before they are written. With --task, the policy first adapts to this task,
in the family's environment; without, the policy before adaptation is exported.

examples:
  metarl export runs/mine meta_policy.zip
  metarl export half_cheetah_direction backward.onnx --task -1
  metarl export runs/mine goal.pt --task 0.3 -0.4 --steps 3
"""

LIST = "List the configs and the trained runs of the package.\n\nexamples:\n  metarl list\n"

DATA = "Manage data sets for few-shot classification.\n\nexamples:\n  metarl data check data\n"

CHECK = """\
Look for Omniglot and MiniImagenet in a folder, convert them once (into METARL_CACHE or the user's
cache directory), verify their checksums, and report missing and damaged files. Every run on images
stores the hash of its data and split.

examples:
  metarl data check data                       both data sets, in the folder data
  metarl data check data --only omniglot       an error if Omniglot is missing
  export METARL_DATA=data                      the default folder of all commands

files, in the folder or in a subfolder with the name of the data set:
  omniglot/        images_background.zip and images_evaluation.zip, or their content; from
                   https://github.com/brendenlake/omniglot, folder python
  miniimagenet/    one of
                   train/CLASS/*.jpg, val/CLASS/*.jpg, test/CLASS/*.jpg
                   images/*.jpg, train.csv, val.csv, test.csv
                   mini-imagenet-cache-{train,val,test}.pkl
                   miniImageNet_category_split_{train_phase_train,val,test}.pickle
"""

BENCH = """\
Measure speed and memory on this machine: medians, and shares of the hardware limits (roofline),
which are measured first. All but the last take about twenty minutes on two idle processors.

  sampling    the sampler, compared with plain MuJoCo physics and Gymnasium's vector environments
  iteration   a meta-iteration and its parts
  growth      time and memory against tasks N, trajectories B and horizon H
  supervised  a meta-iteration on waves and on images (noise: no data set is needed)
  contention  an iteration of every method, alone and beside another training
  metaworld   Meta-World's scenes, compared with its own environments (needs metaworld)
  target      trainings until MAML's published return after one step is reached, with the seeds 1
              to R (only if named)

examples:
  metarl bench
  metarl bench iteration --repeats 9 --out today.json
  metarl bench target
"""

SCHEMA = """\
Print the JSON schema of configs. Editors use it to complete and check settings. With the YAML
extension of VS Code, or any other that runs yaml-language-server, begin a config with the line

  # yaml-language-server: $schema=metarl.schema.json

examples:
  metarl schema > metarl.schema.json
"""

COMPLETION = """\
Print a script for the shell that completes commands, options, and names of configs and runs (pip
install 'metarl-maml[completion]').

examples:
  metarl completion bash > ~/.local/share/bash-completion/completions/metarl
  metarl completion zsh > ~/.zsh/_metarl         in a folder of $fpath
  metarl completion fish > ~/.config/fish/completions/metarl.fish
"""


class Parser(argparse.ArgumentParser):
    """A parser that prints help as it is written, and an error as one sentence.

    `text` is the description of the command, and after an empty line its examples.
    """

    def __init__(self, text: str, **settings: Any) -> None:
        # the examples come after the options, which argparse prints after the description
        settings["description"], heading, examples = text.partition("\n\nexamples:\n")
        settings["epilog"] = heading.lstrip() + examples
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        # private, but otherwise argparse takes -1e-3 for an option
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # argparse hands unknown options on to the main parser, which does not know the command
        options, extra = super().parse_known_args(args, namespace)
        if extra:
            kind = "unknown option" if extra[0].startswith("-") else "unexpected argument"
            hint = did_you_mean(extra[0].partition("=")[0], self._option_string_actions)
            self.error(f"{kind} {extra[0]}{hint}")
        return options, extra

    def error(self, message: str) -> NoReturn:
        """Print the error in the words of this package, and exit with status 2."""
        # argparse has no types of errors: the parts are read from its English messages
        if choice := re.fullmatch(
            r"argument (.+?): invalid choice: '(.*)' \(.*? from (.*)\)", message
        ):
            argument, word, choices = choice.groups()
            hint = did_you_mean(word, names := re.findall(r"[\w-]+", choices))
            message = f"{argument}: must be {' or '.join(names)}, not {word!r}{hint}"
            if argument == "COMMAND":  # of which there are many
                message = f"there is no command {word}{hint}"
        if value := re.fullmatch(r"argument (.+?): invalid (int|float) value: (.*)", message):
            kind = "a whole number" if value[2] == "int" else "a number"
            message = f"{value[1]}: must be {kind}, not {value[3]}"
        self.exit(2, f"metarl: {message}; see {self.prog} --help\n")

    @property
    def commands(self) -> dict[str, "Parser"]:
        """The parsers of the commands of this parser."""
        # private, but the only way to the parsers that `add_subparsers` made
        groups = [a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        return {name: parser for group in groups for name, parser in group.items()}

    def all_arguments(self) -> Iterator[argparse.Action]:
        """The arguments of this parser, then those of its commands."""
        yield from self._actions
        for parser in self.commands.values():
            yield from parser.all_arguments()


def make_parser() -> Parser:
    """The parser of all commands. `command` of the parsed options is a module of `metarl.cli`."""
    parser = Parser(DESCRIPTION, prog="metarl")
    parser.add_argument("--version", action="version", version=f"metarl {version('metarl-maml')}")
    # the metavar is COMMAND in messages, by which `error` recognises them
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, summary: str, text: str) -> Parser:
        added: Parser = commands.add_parser(name, help=summary, text=text)
        added.set_defaults(command=name)
        return added

    train = add("train", "meta-train from a config", TRAIN)
    # one module runs `train` and `baseline`: it reads the options of both
    train.set_defaults(verb="train", kind=None, model=None)
    _add_training(train, "change a setting of the config")
    train.add_argument("--seed", type=int, metavar="N", help="the same as --set seed=N")
    train.add_argument(
        "--from",
        dest="init_from",
        metavar="RUN",
        help=f"start from the weights of a run with the same network: {RUN}",
    )
    baseline = add("baseline", "train a baseline", BASELINE)
    baseline.set_defaults(verb="baseline", command="train")
    _add_training(baseline, "change a setting of the config")
    baseline.add_argument("--seed", type=int, metavar="N", help="the same as --set seed=N")
    # all methods, not baselines only: which is which would need their modules, and torch
    kinds = list(dict.fromkeys([*RL_METHODS, *SUPERVISED_METHODS]))
    baseline.add_argument("--kind", choices=kinds, metavar="KIND", help="one of the above")
    baseline.add_argument(
        "--model",
        type=Path,
        metavar="ZIP",
        help="a saved stable-baselines3 model (PPO or A2C) in place of a training",
    )
    sweep = add("sweep", "train all combinations of settings and seeds, and rank them", SWEEP)
    sweep.set_defaults(verb="sweep")
    _add_training(sweep, "the values of a setting, or its range LOW..HIGH", "VALUE[,VALUE...]")
    sweep.add_argument(
        "--search",
        type=_positive,
        metavar="N",
        help="try N combinations from the ranges of settings, such as 0.01..0.5",
    )
    sweep.add_argument("--prune", action="store_true", help="stop bad combinations of a search")

    evaluate = add("evaluate", "evaluate runs on held-out tasks", EVALUATE)
    _add_runs(evaluate)
    _add_set(evaluate, "evaluation.SETTING=VALUE", "change a setting of the evaluation")
    evaluate.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="the last parameters, or those of the best validation of a training with "
        "early_stopping, under the name best (default: last)",
    )
    evaluate.add_argument(
        "--schedule",
        choices=("own", "paper"),
        default="own",
        help="the step sizes of the config, or those of Finn et al. (2017): α, α/2, α/2, with "
        "batches of a fixed number of time steps, and the name paper (default: own)",
    )
    evaluate.add_argument(
        "--name",
        type=_name,
        help="write evaluation-NAME.json and so on, and keep the evaluations that are there",
    )

    compare = add("compare", "compare runs: tables and plots", COMPARE)
    _add_runs(compare)
    compare.add_argument(
        "--many-steps",
        type=_positive,
        metavar="K",
        help="also count the gradient steps, up to K, that pretrained and random policies need to "
        "reach the score of MAML, or another method of gradient steps, after one step",
    )
    _add_out(
        compare,
        "DIR",
        "directory of the files; those of an earlier comparison are replaced",
        "comparison",
    )

    render = add(
        "render", "render a policy or plot predictions before and after adaptation", RENDER
    )
    _add_runs(render, several=False)
    _add_task(render, "(default: the first held-out task of the evaluation)")
    render.add_argument(
        "--steps",
        type=int,
        nargs="+",
        metavar="K",
        help="the numbers of adaptation steps to show (default: 0 1 3; for waves 0 1 10)",
    )
    _add_out(render, "DIR", "directory of the files (default: the run)")
    render.add_argument("--live", action="store_true", help="play in a window, and write no file")

    report = add("report", "write an HTML page about runs", REPORT)
    _add_runs(report)
    _add_out(report, "FILE", "the page; an existing file is replaced", "report.html")

    results = add("results", "write a results page of runs and published figures", RESULTS)
    _add_runs(results)
    _add_out(results, "FILE", "the page; its plots go into a folder of the same name", "results.md")
    results.add_argument(
        "--notes", type=Path, metavar="DIR", help="folder of hand-written notes (default: none)"
    )
    results.add_argument(
        "--publish", type=Path, metavar="DIR", help="copy the runs to DIR, without their weights"
    )
    results.add_argument(
        "--weights", action="store_true", help="with --publish: copy the weights as well"
    )
    results.add_argument(
        "--verify", action="store_true", help="evaluate the runs again, and compare the scores"
    )

    push = add("push", "upload a run to the Hugging Face hub, with a model card", PUSH)
    _add_runs(push, several=False)
    push.add_argument("name", metavar="USER/NAME", help="the repository; created if missing")
    push.add_argument("--private", action="store_true", help="make a new repository private")

    export = add("export", "export a policy to stable-baselines3, ONNX or TorchScript", EXPORT)
    _add_runs(export, several=False, data=False)
    export.add_argument("file", type=Path, metavar="FILE", help="a new file")
    _add_task(export, "to adapt to before the export")
    export.add_argument(
        "--steps",
        type=_positive,
        metavar="K",
        help="gradient steps on the task (default: as in training)",
    )

    add("list", "list the configs and trained runs of the package", LIST)

    data = commands.add_parser(
        "data", help="manage data sets for few-shot classification", text=DATA
    )
    actions = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = actions.add_parser(
        "check", help="find the image data sets in a folder, and verify them", text=CHECK
    )
    check.set_defaults(command="data")
    check.add_argument("path", type=Path, metavar="PATH", help="the folder with the data")
    check.add_argument(
        "--only", choices=("omniglot", "miniimagenet"), help="look for this data set only"
    )

    bench = add("bench", "measure speed and memory", BENCH)
    bench.add_argument("parts", nargs="*", metavar="PART", help="one of the above (default: all)")
    bench.add_argument(
        "--repeats", type=_positive, default=5, metavar="R", help="number of repeats (default: 5)"
    )
    _add_out(bench, "FILE", "a JSON file of all figures", "bench.json")

    add("schema", "print the JSON schema of configs, for editors", SCHEMA)
    completion = add("completion", "print a script for completion in the shell", COMPLETION)
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh", "powershell"))
    return parser


def _add_training(parser: Parser, set_help: str, values: str = "VALUE") -> None:
    """The arguments that `train`, `baseline` and `sweep` share."""
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a YAML file, or a name from `metarl list`"
    )
    _add_set(parser, f"SECTION.SETTING={values}", set_help)
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="N",
        help="train several seeds in parallel: 3 for the seeds 1, 2 and 3, or a list such as 4 8",
    )
    parser.add_argument(
        "--iterations", type=int, metavar="N", help="the same as --set outer.iterations=N"
    )
    parser.add_argument("--device", metavar="cpu|cuda|auto", help="the same as --set device=...")
    _add_out(
        parser,
        "OUT",
        "the new run directory (default: runs/NAME), or the directory of several runs",
    )
    _add_data(parser)
    parser.add_argument(
        "--resume", type=Path, metavar="OUT", help="continue the run, or runs, in OUT"
    )
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="also log to this project of Weights & Biases (pip install 'metarl-maml[wandb]')",
    )
    _add_trust(parser)


def _add_set(parser: Parser, metavar: str, help_text: str) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar=metavar, help=f"{help_text}; may be repeated"
    )


def _add_out(parser: Parser, metavar: str, help_text: str, default: str | None = None) -> None:
    suffix = f" (default: {default})" if default else ""
    parser.add_argument(
        "--out",
        type=Path,
        default=default and Path(default),
        metavar=metavar,
        help=help_text + suffix,
    )


def _add_runs(parser: Parser, several: bool = True, data: bool = True) -> None:
    """One run, as `options.run`, or several, as `options.runs`."""
    if several:
        parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=RUN)
    else:
        parser.add_argument("run", type=Path, metavar="RUN", help=RUN)
    _add_trust(parser)
    if data:
        _add_data(parser)


def _add_trust(parser: Parser) -> None:
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="import and execute code outside metarl that a run's config names, such as a custom "
        f"task family (or set {TRUST_VARIABLE}=1)",
    )


def _add_data(parser: Parser) -> None:
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help=f"the folder with Omniglot and MiniImagenet (default: the variable {DATA_VARIABLE})",
    )


def _add_task(parser: Parser, purpose: str) -> None:
    parser.add_argument(
        "--task",
        type=float,
        nargs="+",
        metavar="NUMBER",
        help=f"the task, such as a goal, a velocity or a direction {purpose}",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:  # int() would accept "1_000" and " 3"
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def _name(text: str) -> str:
    if not re.fullmatch(EVALUATION_NAME, text):
        raise argparse.ArgumentTypeError(f"{text!r} must be {EVALUATION_NAMES}")
    return text
