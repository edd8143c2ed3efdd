"""The capacity charts of a diagnosis: the net effect on one domain at several widths."""

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from isthmus.report.diagnosis.charts import Interval, ends_of, interval
from isthmus.report.diagnosis.lookup import Report, by_size, lead_of, margin_of
from isthmus.report.svg import Scale, box, element, label, line, picture, short, ticks


def capacity_charts(report: Report) -> list[tuple[str, Element]]:
    """One small chart for each domain, by size; empty where capacity was not measured."""
    runs = enumerate(report.get("capacity") or [])
    runs = sorted(runs, key=lambda item: item[1]["parameters"])
    widths = list(dict.fromkeys(tuple(run["widths"]) for _, run in runs))
    metric = lead_of(report).key
    curves = {
        name: {
            known: [
                (
                    widths.index(tuple(run["widths"])),
                    _at_width(report, place, name, metric),
                )
                for place, run in runs
                if name in run["domains"] and (run["domain_input"] is not False) == known
            ]
            for known in (True, False)
        }
        for name in by_size(report)
    }
    curves = {name: of for name, of in curves.items() if any(of.values())}
    marks = [mark for of in curves.values() for points in of.values() for _, mark in points]
    axis = ends_of(marks, 1.25)
    labels = ["·".join(map(str, width)) for width in widths]
    return [
        (name, _capacity(name, of, labels, axis, margin_of(report, name, metric)))
        for name, of in curves.items()
    ]


def _at_width(report: Report, place: int, name: str, metric: str) -> Interval:
    path = ("capacity", place, "domains", name, metric)
    return interval(report, path, name, margin_of(report, name, metric))


Points = Sequence[tuple[int, Interval]]


def _capacity(
    name: str,
    curves: Mapping[bool, Points],
    labels: Sequence[str],
    axis: tuple[float, float],
    margin: float,
) -> Element:
    """The net effect on one domain at several widths, for models that see the domain and not."""
    left, right, top, bottom = 42, 288, 12, 150
    up = Scale(*axis, bottom, top)
    across = Scale(0, max(1, len(labels) - 1), left + 22, right - 22)
    parts = [box(left, up.at(margin), right, up.at(-margin), "band")]
    for tick in ticks(*axis, 6):
        parts.append(line(left, up.at(tick), right, up.at(tick), "zero" if tick == 0 else "grid"))
        parts.append(label(left - 6, up.at(tick) + 4, short(tick), "tick", "end"))
    for step, text in enumerate(labels):
        parts.append(label(across.at(step), bottom + 18, text, "tick", "middle"))
    parts.append(label((left + right) / 2, bottom + 35, "width of the layers", "end", "middle"))
    for known, points in curves.items():
        parts += curve(known, points, across, up)
    told = f"Net effect on {name} at {len(labels)} widths; the table below has the numbers."
    return picture(300, 190, told, parts, "chart capacity", **up.data)


def curve(known: bool, points: Points, across: Scale, up: Scale) -> list[Element]:
    """One of two curves, with its marks. ``known``: which one, by shape and colour."""
    kind, shift = ("known", -5) if known else ("unknown", 5)
    held = [
        (round(across.at(step) + shift, 2), up.at(of.estimate), of)
        for step, of in points
        if of.estimate is not None
    ]
    if not held:
        return []
    path = "L".join(f"{x} {y}" for x, y, _ in held)
    parts = [element("path", d=f"M{path}", class_=f"curve {kind}")]
    for x, y, of in held:
        inner = [element("title", of.told)]
        if of.ci is not None:
            inner.append(line(x, up.at(of.ci[0]), x, up.at(of.ci[1]), "interval"))
        inner.append(dot(known, x, y))
        parts.append(element("g", *inner, class_=f"mark {kind}", data_path=of.path))
    return parts


def dot(known: bool, x: float, y: float) -> Element:
    """The mark of one of two curves."""
    if known:
        return element("circle", cx=x, cy=y, r=4.2, class_="dot", data_x=y)
    return box(x - 3.8, y - 3.8, x + 3.8, y + 3.8, "dot", data_x=y)


def curve_keys(report: Report) -> list[tuple[Element, str]]:
    """The legend of the capacity charts: a piece of each curve, 34 wide, and what it stands for.

    Where nobody knows whether the model sees the domain, there is one curve and no legend.
    """
    if all(run["domain_input"] is None for run in report.get("capacity") or []):
        return []
    return [
        (
            element(
                "g",
                element("path", d="M2 7L32 7", class_=f"curve {kind}"),
                element("g", dot(known, 17, 7), class_=f"mark {kind}"),
            ),
            told,
        )
        for known, kind, told in (
            (True, "known", "the model sees the domain"),
            (False, "unknown", "the model does not see the domain"),
        )
    ]
