"""The commands of `metarl`, one module each: its arguments, its help, and what it prints."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]
else:
    Commands = argparse._SubParsersAction  # argparse makes it generic for type checkers alone
