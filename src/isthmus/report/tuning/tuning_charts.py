"""The charts of a study: the history of its trials, the importances, the domains of the best trial.

A chart is a tree of SVG elements, with each mark told in its title.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import count_text, number, shorten
from isthmus.report.svg import Scale, box, element, label, line, picture, short, ticks
from isthmus.report.tuning.told import Report, changed_text, state_text

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, FOOT = 52, 12, 26, 34
ROW = 27
NAME = 190  # width that names of keys and domains take
LETTERS = 26


def history_chart(report: Report) -> Element | None:
    """Each trial's score by its number, and the best feasible one so far; None without a score.

    Trials far below the others would press the rest into one line. They stand at the foot of the
    chart, and their titles tell the score.
    """
    trials = report["trials"]
    scores = [trial["score"] for trial in trials if trial["score"] is not None]
    if not scores:
        return None
    low, high = _span(scores, minimised=report["minimised"])
    across = Scale(-0.5, max(len(trials) - 0.5, 0.5), LEFT, WIDTH - RIGHT)
    up = Scale(low, high, HEIGHT - FOOT, TOP)
    parts: list[Element] = []
    portfolio = sum(trial["recipe"] is not None for trial in trials)
    if portfolio:
        end = across.at(portfolio - 0.5)
        parts.append(box(LEFT, TOP, end, HEIGHT - FOOT, "band"))
        parts.append(label(LEFT + 4, TOP - 8, "portfolio", "end"))
        if portfolio < len(trials):
            parts.append(label(end + 4, TOP - 8, "TPE", "end"))
    for value in ticks(low, high, 5):
        parts.append(line(LEFT, up.at(value), WIDTH - RIGHT, up.at(value), "grid"))
        parts.append(
            label(LEFT - 6, up.at(value) + 4, short(value, 4, signed=False), "tick", "end")
        )
    step = max(1, round(len(trials) / 12))
    for number_ in range(0, len(trials), step):
        parts.append(label(across.at(number_), HEIGHT - FOOT + 16, str(number_), "tick", "middle"))
    parts.append(label((LEFT + WIDTH) / 2, HEIGHT - 2, "trial", "end", "middle"))
    parts += _best_line(report, across, up)
    parts += [_trial_mark(report, trial, across, up) for trial in trials]
    title = f"{report['monitor']} of {count_text(len(trials), 'trial')}, in their order"
    return picture(WIDTH, HEIGHT, title, parts, "chart history", **up.data)


def importance_chart(report: Report) -> Element | None:
    """A bar for each key's importance; None where importances are not known."""
    found = report["importances"]
    if found is None:
        return None
    across = Scale(0.0, max(*found.values(), 1e-9), NAME, WIDTH - 60)
    parts = []
    for place, (name, share) in enumerate(found.items()):
        y = 6 + place * ROW
        parts.append(label(NAME - 8, y + 16, name, "name", "end"))
        parts.append(box(NAME, y + 4, across.at(share), y + 20, "share-bar"))
        parts.append(label(across.at(share) + 6, y + 16, f"{share:.0%}", "tick"))
    return picture(WIDTH, 12 + ROW * len(found), "Importance of each key", parts, "chart bars")


def domain_chart(report: Report, gains: Mapping[str, Mapping[str, Any]]) -> Element | None:
    """The gain of each domain over the reference with its interval; None without a gain.

    Intervals of small domains are cut at the edge of the chart, which the largest of the gains and
    the median interval set.
    """
    told = {name: of for name, of in gains.items() if of["gain"] is not None}
    if not told:
        return None
    names = sorted(told, key=lambda name: -told[name]["rows"])
    halves = sorted(of["half"] for of in told.values() if of["half"] is not None)
    middle = halves[len(halves) // 2] if halves else 0.0
    reach = max(2.5 * middle, *(1.3 * abs(of["gain"]) for of in told.values()), 1e-3)
    across = Scale(-reach, reach, NAME, WIDTH - 20)
    foot = 8 + ROW * len(names)
    parts: list[Element] = []
    for value in ticks(-reach, reach, 6):
        name = "zero" if value == 0 else "grid"
        parts.append(line(across.at(value), 4, across.at(value), foot, name))
        parts.append(label(across.at(value), foot + 15, short(value, 4), "tick", "middle"))
    for place, name in enumerate(names):
        parts += _domain_mark(name, told[name], 8 + ROW * (place + 0.5), across)
    parts.append(label(NAME, foot + 32, "worse", "end"))
    parts.append(label(WIDTH - 20, foot + 32, "better", "end", "end"))
    title = f"Gain of each domain in {report['metric']}"
    return picture(WIDTH, foot + 38, title, parts, "chart domains", **across.data)


def _span(scores: Sequence[float], *, minimised: bool) -> tuple[float, float]:
    """The ends of the axis: all scores, or the better three quarters where the rest is far off."""
    ordered = sorted(scores, reverse=not minimised)  # the best first
    best, edge = ordered[0], ordered[(3 * (len(ordered) - 1)) // 4]
    reach = max(2.0 * abs(best - edge), 1e-4)
    worst = (
        ordered[-1] if abs(best - ordered[-1]) <= reach else best + (1 if minimised else -1) * reach
    )
    pad = max(0.06 * abs(best - worst), 5e-5)
    return min(best, worst) - pad, max(best, worst) + pad


def _best_line(report: Report, across: Scale, up: Scale) -> list[Element]:
    """The best feasible completed trial so far, as steps."""
    sign = -1 if report["minimised"] else 1
    best: float | None = None
    corners: list[str] = []
    for trial in report["trials"]:
        if trial["state"] == "complete" and trial["feasible"]:
            score = trial["score"]
            best = score if best is None or sign * score > sign * best else best
        if best is not None:
            x, y = across.at(trial["number"]), up.at(best)
            corners.append(f"{'H' if corners else 'M'}{x}{'V' if corners else ' '}{y}")
    return [element("path", d=" ".join(corners), class_="best-line")] if len(corners) > 1 else []


def _trial_mark(report: Report, trial: Mapping[str, Any], across: Scale, up: Scale) -> Element:
    """One trial: filled where feasible, open where not, a cross where pruned, below where failed."""
    x = across.at(trial["number"])
    name = trial["recipe"] or "TPE"
    ended = state_text(trial)
    told = f"trial {trial['number']}, {name}: {number(trial['score'])}"
    told += "".join(f"; {text}" for text in (changed_text(trial), ended) if text)
    title = element("title", told)
    if trial["score"] is None:
        mark = label(x, HEIGHT - FOOT - 4, "!", "failed", "middle")
        return element("g", title, mark, class_="trial")
    y = up.at(trial["score"])
    if trial["state"] == "pruned":
        cross = f"M{x - 3.5} {y - 3.5}l7 7m0 -7l-7 7"
        return element("g", title, element("path", d=cross, class_="pruned"), class_="trial")
    kind = "feasible" if trial["feasible"] else "infeasible"
    if trial["number"] == report["best"]:
        kind += " best"
    radius = 6 if trial["number"] == report["best"] else 4.5
    dot = element("circle", cx=x, cy=y, r=radius, class_=kind)
    return element("g", title, dot, class_="trial")


def _domain_mark(name: str, gain: Mapping[str, Any], y: float, across: Scale) -> list[Element]:
    value, half = gain["gain"], gain["half"]
    tone = "flat"
    if half is not None and abs(value) > half:
        tone = "up" if value > 0 else "down"
    told = f"{name}: {number(value, signed=True)}"
    told += f" ± {number(half)}" if half is not None else f"; {gain['reason']}"
    parts: list[Element] = [element("title", f"{told}, {count_text(gain['rows'], 'row')}")]
    if half is not None:
        ends = across.at(value - half), across.at(value + half)
        parts.append(line(ends[0], y, ends[1], y, "interval"))
        for end, at, turn in ((value - half, ends[0], 1), (value + half, ends[1], -1)):
            if not across.holds(end):
                parts.append(
                    element(
                        "path", d=f"M{at + 5 * turn} {y - 4}L{at} {y}l{5 * turn} 4", class_="arrow"
                    )
                )
    parts.append(element("circle", cx=across.at(value), cy=y, r=4.5, class_="dot"))
    return [
        label(NAME - 8, y + 4, shorten(name, LETTERS), "name", "end"),
        element("g", *parts, class_=f"mark {tone}"),
    ]
