"""CSV of any result: full numbers, one column each, for other programs."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.metrics import Comparison, Evaluation, TextTable

SCOPES = ("pooled", "macro", "weighted", "worst")
ENDS = ("low", "high")


def to_csv(result: Evaluation | Comparison | TextTable) -> str:
    """Render as CSV (RFC 4180, but for lines that end in a line feed).

    An evaluation or a comparison has a line for each domain, and one for each scope over them: ``scope``
    is ``domain``, ``pooled``, ``macro``, ``weighted`` or ``worst``. Numbers have all digits. An interval
    is two columns, ``_low`` and ``_high``. What is undefined is empty. A table of text stays as it is.
    """
    if isinstance(result, TextTable):
        return _written([result.header, *result.rows])
    content = result.to_dict()
    lines = [
        *(
            {"scope": "domain", **_flat(of), "domain": name}
            for name, of in content["domains"].items()
        ),
        *({"scope": name, **_flat(content[name])} for name in SCOPES),
    ]
    columns = dict.fromkeys(["scope", "domain", *(name for of in lines for name in of)])
    rows = [["" if of.get(name) is None else of[name] for name in columns] for of in lines]
    return _written([list(columns), *rows])


def _flat(of: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Plain values by name: those of a section bear its name, and an interval has two."""
    found: dict[str, Any] = {}
    for key, value in of.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}_")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found |= {f"{name}_{end}": one for end, one in zip(ENDS, value, strict=True)}
        else:
            found[name] = value
    # An interval that is undefined has its two columns all the same.
    undefined = [name for name, value in found.items() if value is None and name.endswith("_ci")]
    for name in undefined:
        del found[name]
        found |= {f"{name}_{end}": None for end in ENDS}
    return found


def _written(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().rstrip("\n")
