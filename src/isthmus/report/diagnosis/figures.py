"""The charts of a diagnosis as PNG and SVG files, for papers. Needs matplotlib.

Each figure is a sheet of the charts that the page shows, see `isthmus.report.figure_files`.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import shorten
from isthmus.printable import shown
from isthmus.report.diagnosis.capacity_charts import capacity_charts, curve_keys
from isthmus.report.diagnosis.charts import LONG_NAME, effect_charts, weighting_chart
from isthmus.report.diagnosis.day_one import newcomer_charts, newcomer_keys
from isthmus.report.diagnosis.domain_map import map_chart
from isthmus.report.diagnosis.heat_map import Matrix, matrix_view
from isthmus.report.diagnosis.lookup import Report, lead_of, metrics_of
from isthmus.report.diagnosis.words import EFFECTS, MATRICES, MetricWords
from isthmus.report.figure_files import (
    DOWN,
    INK,
    LEVEL,
    PALE,
    SOFT,
    UP,
    WHITE,
    figure_sheet,
    write_sheets,
)
from isthmus.report.svg import box, element, label, picture

SCALES = {
    "cross_score": "{}, coloured by the difference from the target's own model",
    "gradients": "cosine",
    "distance": "distance",
}
AXES = ("source →", "target ↓")


def write_figures(report: Report, folder: str | Path) -> list[Path]:
    """Write what was measured as NAME.png (200 dpi) and NAME.svg; returns the paths written.

    effects-auc, effects-logloss, one for each matrix, capacity, map, weighting and new-domain. Intervals are
    95 %, unadjusted, and say so. The same report gives the same SVG bytes. Raises
    ModuleNotFoundError where matplotlib is not installed, naming the extra that brings it.
    """
    return write_sheets(_sheets(shown(report)), folder)


def _sheets(report: Report) -> Iterator[tuple[str, Element]]:
    """Each figure with its name."""
    lead = lead_of(report)
    for metric in metrics_of(report):
        charts = effect_charts(report, metric.key, list(report["domains"]), wide=True)
        if charts:
            titled = [(EFFECTS[key][0], chart) for key, chart in charts]
            unit = f"{metric.gain},{metric.unit}" if metric.unit else metric.gain
            yield f"effects-{metric.key}", figure_sheet(titled, 3, f"{unit}; 95 %, unadjusted")
    for key in MATRICES:
        view = matrix_view(report, key)
        if view is not None and any(one.path for row in view.cells for one in row):
            heat = _heat(view, lead)
            yield f"matrix-{key.replace('_', '-')}", figure_sheet([(view.words.title, heat)], 1)
    capacity = capacity_charts(report)
    if capacity:
        titled = [(shorten(name, LONG_NAME), chart) for name, chart in capacity]
        note = f"net effect in {lead.gain}; 95 %, unadjusted"
        yield "capacity", figure_sheet(titled, 3, note, keys=curve_keys(report))
    drawn = map_chart(report, wide=True)
    if drawn is not None:
        chart, missing = drawn
        note = ", ".join(shorten(name, LONG_NAME) for name in missing)
        note = note and f"no room for {len(missing)}: {note}"
        yield (
            "map",
            figure_sheet([("Likeness of domains: only distances mean something", chart)], 1, note),
        )
    weighting = weighting_chart(report)
    if weighting is not None:
        note = f"mean {lead.gain} over domains; 95 %, unadjusted"
        yield "weighting", figure_sheet([("Weighting against proportional", weighting)], 1, note)
    newcomers = newcomer_charts(report)
    if newcomers:
        titled = [(shorten(name, LONG_NAME), chart) for name, chart in newcomers]
        note = f"a new domain: {lead.gain} against the joint model; 95 %, unadjusted"
        yield "new-domain", figure_sheet(titled, 3, note, keys=newcomer_keys())


def _heat(view: Matrix, lead: MetricWords) -> Element:
    """A matrix, alike domains together, with the bar of its colours."""
    side, high = (46, 30) if view.numbers else (19, 19)
    order = view.orders["alike"]
    names = [shorten(view.names[place], LONG_NAME) for place in order]
    longest = max(map(len, names))
    margin = 26 + round(6.6 * max(longest, len(AXES[0])))
    top = 26 + round(6.6 * longest)
    right, low = margin + side * len(order), top + high * len(order)
    parts = [
        label(margin - 8, top - 22, AXES[0], "note", "end"),
        label(margin - 8, top - 6, AXES[1], "note", "end"),
    ]
    for place, name in enumerate(names):
        x, y = margin + side * (place + 0.5) + 4, top + high * (place + 0.5) + 4
        turned = {"class_": "name", "transform": f"rotate(-90 {x} {top - 8})"}
        parts.append(label(margin - 8, y, name, "name", "end"))
        parts.append(element("text", name, x=x, y=top - 8, **turned))
    for (row, target), (column, source) in product(enumerate(order), repeat=2):
        one, x, y = view.cells[target][source], margin + side * column, top + high * row
        fill = _shade(one.tone.split()[0], one.share, pale=view.numbers)
        frame = SOFT if one.tone.endswith(" own") else None
        parts.append(box(x, y, x + side - 1, y + high - 1, "cell", fill=fill, stroke=frame))
        if view.numbers or not one.path:
            parts.append(label(x + side / 2, y + high / 2 + 4, one.text or "·", "value", "middle"))
        if one.sure:
            parts.append(element("circle", cx=x + side - 6, cy=y + 5, r=1.8, fill=INK))
    y = low + 14
    for kind, told in view.legend:
        if kind == "none":
            continue
        single = view.words.own and kind == "up"
        for step in range(9):
            fill = _shade(kind, 1.0 if single else step / 8, pale=view.numbers)
            parts.append(box(12 + 8 * step, y, 20 + 8 * step, y + 11, "cell", fill=fill))
        none = dict(view.legend)["none"]
        parts.append(label(92, y + 10, told if single else f"{none} to {told}", "note"))
        y += 18
    unit = SCALES.get(view.key, lead.gain).format(lead.title)
    dots = "; a dot: stands out at a false discovery rate of 10 %" if view.marked else ""
    parts.append(label(12, y + 10, f"{unit}{dots}", "note"))
    return picture(max(right + 8, 480), y + 18, view.words.title, parts, "heat")


def _shade(tone: str, share: float, *, pale: bool) -> str:
    """A share of a tone's full colour on white; white for tones without a colour."""
    full = {"up": UP, "down": DOWN, "level": LEVEL}.get(tone, WHITE)
    full = PALE.get(full, full) if pale else full
    mixed = (round(255 - share * (255 - part)) for part in bytes.fromhex(full[1:]))
    return f"#{bytes(mixed).hex()}"
