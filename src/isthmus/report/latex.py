"""LaTeX of any result that has a table, for the package ``booktabs``."""

from isthmus.metrics import Comparison, Evaluation, TextTable
from isthmus.printable import printable

MARKS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "…": r"\ldots{}",
}


def to_latex(result: Evaluation | Comparison | TextTable) -> str:
    """Render as a ``table`` with a caption and a booktabs ``tabular``; notes stand below as small text.

    Every mark of LaTeX in a name is escaped.
    """
    table = result if isinstance(result, TextTable) else result.table()
    columns = "".join("l" if at in table.left else "r" for at in range(len(table.header)))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _line(table.header),
        r"\midrule",
    ]
    for place, row in enumerate(table.rows):
        if place and place in table.rules:
            lines.append(r"\midrule")
        lines.append(_line(row))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        notes = r" \\ ".join(map(tex, table.notes))
        lines += ["", rf"\par\smallskip{{\footnotesize {notes}}}"]
    return "\n".join([*lines, r"\end{table}"])


def _line(cells: tuple[str, ...]) -> str:
    return rf"{' & '.join(map(tex, cells))} \\"


def tex(text: str) -> str:
    """Text as LaTeX shows it: one printable line, with its marks taken as they are."""
    return "".join(MARKS.get(mark, mark) for mark in " ".join(printable(text).split()))
