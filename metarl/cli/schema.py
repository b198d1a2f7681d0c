"""`metarl schema`."""

import argparse
import json

from rich.console import Console

from metarl.config.schema import json_schema
from metarl.rl.config import Config
from metarl.supervised.config import SupervisedConfig


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the JSON schema of configs."""
    schema = json_schema([Config, SupervisedConfig])
    console.file.write(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    return 0
