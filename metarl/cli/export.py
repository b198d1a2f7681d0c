"""`metarl export`."""

import argparse
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_run, add_trust, describe
from metarl.errors import UserError

DESCRIPTION = """\
Write a run's policy as a model of stable-baselines3, before any adaptation: `PPO.load` reads it,
`evaluate_policy` runs it, and `learn` fine-tunes it."""

EXAMPLES = """\
examples:
  metarl export runs/mine meta_policy.zip
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    describe(parser, DESCRIPTION, EXAMPLES, _export)
    add_run(parser)
    add_trust(parser)
    parser.add_argument("model", type=Path, metavar="ZIP", help="the file to write; it must be new")


def _export(options: argparse.Namespace, console: Console) -> int:
    # imported here: it takes two seconds, which the help should not wait for
    from metarl.baselines.stable_baselines import save_model
    from metarl.report.adapted_policy import policy_method
    from metarl.report.evaluations import load_checked_state
    from metarl.rl.policies import Memoryless
    from metarl.runs.run import Run

    run = Run.open(options.run, trust_code=options.trust_code)
    method = policy_method(run)
    if not isinstance(method.policy, Memoryless):
        raise UserError(
            f"{run.path} has a policy with a memory, which PPO of stable-baselines3 has not: "
            "film it or evaluate it here"
        )
    state = load_checked_state(run, method)
    path: Path = options.model
    if path.suffix != ".zip":
        raise UserError(f"{path}: the name of a stable-baselines3 model ends in .zip")
    if path.exists():
        raise UserError(f"{path} exists already; name another file")
    family, scale = method.problem.observed
    env = family.make()
    try:
        save_model(path, method.policy, state.params, env, scale)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})") from error
    finally:
        env.close()
    console.print(f"model: {path}", highlight=False, soft_wrap=True)
    return 0
