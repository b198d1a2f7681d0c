"""`metarl schema`."""

import argparse
import json

from rich.console import Console

from metarl.config.schema import json_schema
from metarl.rl.config import Config
from metarl.supervised.config import SupervisedConfig


def run(options: argparse.Namespace, console: Console) -> int:
    schema = json_schema([Config, SupervisedConfig])
    # to the file: the console would wrap long lines and colour the JSON
    console.file.write(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    return 0
