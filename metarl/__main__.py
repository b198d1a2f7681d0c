"""`python -m metarl` is `metarl`."""

from metarl.cli import run

run()
