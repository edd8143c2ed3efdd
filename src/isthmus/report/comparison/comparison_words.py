"""Words of compared runs: what the page says of them, from the dict of ``compare --json`` alone."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.metrics.text_table import NOTHING, count_text, number

Report = Mapping[str, Any]
Told = Mapping[str, Any]  # one metric of one scope
METRIC = {"auc": "AUC", "logloss": "logloss"}
SHOWN = 160  # letters of a setting
NAMED = 5  # scopes and domains of a remark


def scopes_of(of: Report) -> list[tuple[str, Report]]:
    """The scopes over the domains of one comparison, by the names that tables give them."""
    worst = of["worst"].get("domain")
    return [
        *((name, of[name]) for name in ("pooled", "macro", "weighted")),
        ("worst" if worst is None else f"worst ({worst})", of["worst"]),
    ]


def ends_of(of: Told) -> Sequence[float] | None:
    """The interval: the corrected one of a domain, the plain one of a scope."""
    return of["ci"] if of["ci_holm"] is None else of["ci_holm"]


def p_of(of: Told) -> float | None:
    """The p that goes with `ends_of`."""
    return of["p"] if of["p_holm"] is None else of["p_holm"]


def interval_text(of: Told) -> str:
    """``-0.0012 to +0.0034``."""
    ends = ends_of(of)
    return NOTHING if ends is None else " to ".join(number(end, signed=True) for end in ends)


def difference_text(of: Told) -> str:
    """A difference with its interval."""
    if of["difference"] is None:
        return NOTHING
    return f"{number(of['difference'], signed=True)} [{interval_text(of)}]"


def verdict_text(of: Told) -> str:
    """What may be said of b, or why nothing may be."""
    return of["verdict"] or of.get("reason") or "not told"


def headline(of: Report, metric: str = "auc") -> str:
    """Say in one sentence how b stands against a: pooled, and on how many domains."""
    pooled, what = of["pooled"][metric], METRIC[metric]
    said = {
        "better": f"{of['b']} is better than {of['a']}",
        "worse": f"{of['b']} is worse than {of['a']}",
        "tie": f"{of['b']} and {of['a']} tie",
        None: f"{of['b']} and {of['a']} cannot be told apart",
    }[pooled["verdict"]]
    counts = Counter(one[metric]["verdict"] for one in of["domains"].values())
    told = [
        f"{verdict or 'not told'} on {counts[verdict]:,}"
        for verdict in ("better", "worse", "tie", None)
        if counts[verdict]
    ]
    domains = count_text(len(of["domains"]), "domain")
    by = "" if pooled["difference"] is None else f": {difference_text(pooled)}"
    return f"In pooled {what}, {said}{by}. Of {domains}: {', '.join(told) or 'none told'}."


def remarks(of: Report) -> list[str]:
    """Why intervals are rough, each reason once, with the first scopes and domains that it holds for."""
    found: dict[str, list[str]] = {}
    for name, scope in (*scopes_of(of), *of["domains"].items()):
        for metric, label in METRIC.items():
            if note := scope[metric].get("note"):
                found.setdefault(f"{label}: {note}", []).append(name)
    return [
        f"{note} ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"
        for note, names in found.items()
    ]


def value_text(value: Any) -> str:
    """A setting in short."""
    if value is None:
        return NOTHING
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
