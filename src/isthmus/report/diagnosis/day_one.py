"""A new domain in a report: a sentence, a small chart and tables. What is served on day one, and later."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import NOTHING, TextTable, number
from isthmus.report.diagnosis.capacity_charts import Points, curve, dot
from isthmus.report.diagnosis.charts import Interval, ends_of, interval
from isthmus.report.diagnosis.lookup import Path, Report, by_size, dig, lead_of, margin_of
from isthmus.report.diagnosis.text_tables import UNADJUSTED, effect_text, remark_lines
from isthmus.report.diagnosis.words import listed
from isthmus.report.svg import Scale, box, element, label, line, picture, short, ticks

ANSWERS = {  # of day one -> its words in a sentence, and at the head of a column
    "unknown": ("as a row of the unknown domain", "unknown"),
    "nearest": ("as a row of the nearest domain", "nearest"),
    "mixture": ("by the mixture of all domains' norms", "mixture"),
    "trees": ("by trees of the other domains' rows", "trees"),
}
BESIDE = tuple(ANSWERS)[1:]
SURE = 0.05  # Holm's p of a claim
ARMS = {"extended": "extended", "solo": "alone"}
DRAWN = {"extended": (True, "known"), "solo": (False, "unknown")}  # which of two curves, its class


def newcomers(report: Report) -> list[str]:
    """The domains that were left out in turn, by size; none where that was not measured."""
    held = dig(report, "new_domain", "domains") or {}
    return [name for name in by_size(report) if name in held]


def answers(report: Report) -> list[str]:
    """The answers of day one beside that of the unknown domain, as far as they were measured."""
    held = (dig(report, "new_domain", "domains") or {}).values()
    return [arm for arm in BESIDE if any(arm in of["day_one"] for of in held)]


def newcomer_lines(report: Report) -> list[tuple[str, str]]:
    """For each domain, what it gets on day one and what its own rows bring."""
    return [(name, _sentence(report, name)) for name in newcomers(report)]


def _sentence(report: Report, name: str) -> str:
    of, margin = _of(report, name), margin_of(report, name, lead_of(report).key)
    unknown = of["day_one"]["unknown"]
    effect = unknown["minus_joint"]
    if effect["estimate"] is None:
        return f"Nothing can be said: {effect['reason']}."
    title = lead_of(report).title
    first = f"On day one it gets {title} {number(unknown['score'])}, {_lack(effect, margin)}"
    gain = _best_beside(of)
    beside = ""
    if gain is not None:
        more = f"{of['day_one'][gain]['minus_unknown']['estimate']:+.4f}"
        near = f" ({listed(list(dict.fromkeys(of['nearest'])))})" if gain == "nearest" else ""
        beside = f"; {ANSWERS[gain][0]}{near} {more} more"
    return f"{first}{beside}; {_later(of, margin)}."


def _lack(effect: Mapping[str, Any], margin: float) -> str:
    """The difference of an answer to the joint model in words."""
    apart = f"{abs(effect['estimate']):.4f} {'below' if effect['estimate'] < 0 else 'above'}"
    if is_reached(effect, margin):
        return f"which is not worse than the joint model ({effect['estimate']:+.4f})"
    sure = effect["p_holm"] if effect["p_holm"] is not None else effect["p"]
    if effect["estimate"] < 0 and sure is not None and sure <= SURE:
        return f"{apart} the joint model"
    return f"{apart} the joint model, which these test rows cannot tell from chance"


def _best_beside(of: Mapping[str, Any]) -> str | None:
    """The answer of day one that is surely better than that of the unknown domain, and adds most."""
    better = {
        arm: effect["estimate"]
        for arm in BESIDE
        if (effect := dig(of, "day_one", arm, "minus_unknown")) is not None
        and effect["estimate"] is not None
        and effect["estimate"] > 0
        and effect["p_holm"] is not None
        and effect["p_holm"] <= SURE
    }
    return max(better, key=lambda arm: better[arm]) if better else None


def _later(of: Mapping[str, Any], margin: float) -> str:
    """What rows of its own bring."""
    most = of["curve"][-1]["rows"]
    found = {arm: rows_to_joint(of, arm, margin) for arm in ARMS}
    extended, solo = found["extended"], found["solo"]
    if extended == 0:
        return "it needs no rows of its own"
    if extended is not None:
        told = f"extended with {extended:,} rows of its own it is not worse than the joint model"
        return f"{told}, and alone {f'with {solo:,}' if solo else f'not shown so with {most:,}'}"
    if solo is not None:
        own = f"a model of its own {solo:,} rows is not worse than the joint model"
        return f"{own}, and no extension is shown to be so"
    last, alone = (of["curve"][-1][arm]["minus_joint"] for arm in ("extended", "solo"))
    if last["ci"] is not None and last["ci"][1] < 0:
        told = f"{abs(last['estimate']):.4f} below the joint model"
        if alone["estimate"] is not None:
            where = "below" if alone["estimate"] < 0 else "above"
            told += f", and alone {abs(alone['estimate']):.4f} {where} it"
        return f"extended with all its {most:,} rows it is still {told}"
    return f"up to its {most:,} rows nothing is shown to be as good as the joint model"


def rows_to_joint(of: Mapping[str, Any], arm: str, margin: float) -> int | None:
    """The fewest own rows with which an arm is not worse than the joint model; 0 is day one."""
    if arm == "extended" and is_reached(of["day_one"]["unknown"]["minus_joint"], margin):
        return 0
    for point in of["curve"]:
        if is_reached(point[arm]["minus_joint"], margin):
            return point["rows"]
    return None


def is_reached(effect: Mapping[str, Any], margin: float) -> bool:
    """Whether an effect is not worse: the 90 % interval lies above minus the margin."""
    ci90 = effect.get("ci90")
    return ci90 is not None and ci90[0] > -margin


def _of(report: Report, name: str) -> Mapping[str, Any]:
    return report["new_domain"]["domains"][name]


def day_one_table(report: Report, *, brief: bool = False) -> TextTable | None:
    """What each domain gets on day one. ``brief``: without the other answers of that day."""
    names = newcomers(report)
    if not names:
        return None
    arms = [] if brief else answers(report)
    rows, paths = [], []
    for name in names:
        base: Path = ("new_domain", "domains", name, "day_one")
        paths.append((name, (*base, "unknown", "minus_joint")))
        of = _of(report, name)
        rows.append(
            (
                name,
                number(of["joint"]),
                number(of["day_one"]["unknown"]["score"]),
                effect_text(report, (*base, "unknown", "minus_joint")),
                *(effect_text(report, (*base, arm, "minus_unknown")) for arm in arms),
                *(rows_text(report, name, arm) for arm in ARMS),
            )
        )
    lead = lead_of(report)
    return TextTable(
        title=f"A new domain: {lead.title} on day one, and rows of its own to reach the joint model",
        header=(
            "domain",
            "joint",
            "day one",
            "minus joint [95 %]",
            *(f"{ANSWERS[arm][1]} minus day one" for arm in arms),
            *(f"rows, {ARMS[arm]}" for arm in ARMS),
        ),
        rows=tuple(rows),
        notes=(UNADJUSTED, *_notes(report), *remark_lines(report, paths)),
    )


def rows_text(report: Report, name: str, arm: str) -> str:
    """The own rows that it takes to be not worse than the joint model, or a dash."""
    found = rows_to_joint(_of(report, name), arm, margin_of(report, name, lead_of(report).key))
    return NOTHING if found is None else f"{found:,}"


def _notes(report: Report) -> list[str]:
    why = dig(report, "new_domain", "trees")
    return [f"no trees: {why}."] if why else []


def curve_table(report: Report) -> TextTable | None:
    """The curve of each domain's own rows, against the joint model."""
    names = newcomers(report)
    if not names:
        return None
    rows = []
    for name in names:
        for place, point in enumerate(_of(report, name)["curve"]):
            base: Path = ("new_domain", "domains", name, "curve", place)
            told = (effect_text(report, (*base, arm, "minus_joint")) for arm in ARMS)
            own = effect_text(report, (*base, "extended_minus_solo"))
            rows.append((name, f"{point['rows']:,}", *told, own))
    return TextTable(
        title=f"Rows of its own: {lead_of(report).gain} against the joint model",
        header=("domain", "rows", *ARMS.values(), "extended minus alone"),
        rows=tuple(rows),
        notes=(UNADJUSTED,),
    )


def newcomer_charts(report: Report) -> list[tuple[str, Element]]:
    """For each domain, what it lacks to the joint model on day one and with rows of its own.

    A domain without a number has no chart.
    """
    metric = lead_of(report).key
    held = {name: _curves(report, name, metric) for name in newcomers(report)}
    held = {
        name: curves
        for name, curves in held.items()
        if any(of.estimate is not None for points in curves.values() for _, of in points)
    }
    marks = [of for curves in held.values() for points in curves.values() for _, of in points]
    axis = ends_of(marks, 1.25)
    return [
        (name, _chart(name, curves, _steps(report, name), axis, margin_of(report, name, metric)))
        for name, curves in held.items()
    ]


def _steps(report: Report, name: str) -> list[str]:
    return ["day one", *(f"{point['rows']:,}" for point in _of(report, name)["curve"])]


def _curves(report: Report, name: str, metric: str) -> dict[str, Points]:
    base: Path = ("new_domain", "domains", name)
    margin, steps = margin_of(report, name, metric), _steps(report, name)

    def mark(path: Path, arm: str, step: int) -> tuple[int, Interval]:
        told = steps[step] if step == 0 else f"{ARMS[arm]}, {steps[step]} rows"
        return step, interval(report, (*base, *path, "minus_joint"), told, margin)

    points = range(len(steps) - 1)
    return {
        arm: [
            *([mark(("day_one", "unknown"), arm, 0)] if arm == "extended" else []),
            *(mark(("curve", place, arm), arm, place + 1) for place in points),
        ]
        for arm in ARMS
    }


def _chart(
    name: str,
    curves: Mapping[str, Points],
    steps: Sequence[str],
    axis: tuple[float, float],
    margin: float,
) -> Element:
    left, right, top, bottom = 42, 288, 12, 150
    up = Scale(*axis, bottom, top)
    across = Scale(0, len(steps) - 1, left + 24, right - 22)
    parts = [box(left, up.at(margin), right, up.at(-margin), "band")]
    for tick in ticks(*axis, 6):
        parts.append(line(left, up.at(tick), right, up.at(tick), "zero" if tick == 0 else "grid"))
        parts.append(label(left - 6, up.at(tick) + 4, short(tick), "tick", "end"))
    for step, text in enumerate(steps):
        parts.append(label(across.at(step), bottom + 18, text, "tick", "middle"))
    parts.append(label((left + right) / 2, bottom + 35, "rows of its own", "end", "middle"))
    for arm, points in curves.items():
        parts += curve(DRAWN[arm][0], points, across, up)
    told = f"{name} as a new domain, minus the joint model; the tables have the numbers."
    return picture(300, 190, told, parts, "chart capacity", **up.data)


def newcomer_keys() -> list[tuple[Element, str]]:
    """The legend of the charts: a piece of each curve, 34 wide, and what it stands for."""
    told = {
        "extended": "extended, all else stands still",
        "solo": "alone, from its own rows",
    }
    return [
        (
            element(
                "g",
                element("path", d="M2 7L32 7", class_=f"curve {kind}"),
                element("g", dot(known, 17, 7), class_=f"mark {kind}"),
            ),
            told[arm],
        )
        for arm, (known, kind) in DRAWN.items()
    ]
