"""Tables as text: Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Mapping, Sequence

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "²": "$^2$",
    "–": "--",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table in Markdown, from rows with the same columns."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join([*lines, *("| " + " | ".join(row.values()) + " |" for row in rows)])


def latex_table(rows: Sequence[Mapping[str, str]], caption: str) -> str:
    r"""A table in LaTeX with `\usepackage{booktabs}`, from rows with the same columns."""
    cells = [list(rows[0]), *([*row.values()] for row in rows)]
    head, *body = (" & ".join(map(_to_latex, row)) + r" \\" for row in cells)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_to_latex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def csv_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as CSV; a column that a row lacks is empty in it."""
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _to_latex(text: str) -> str:
    # a hyphen before a digit is a minus sign
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)
