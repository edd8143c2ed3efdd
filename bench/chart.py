"""A picture of differences with their intervals, a line each."""

import io
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """One line. ``ci``: the 95 % interval of ``difference``, an AUC. ``least``: its bound.

    ``tie``: the difference is none, once it is corrected for the number of lines.
    """

    title: str
    difference: float
    ci: tuple[float, float]
    least: float
    tie: bool = False


def drawn(bars: Sequence[Bar], label: str, edge: float) -> str:
    """The picture as SVG, the same text for the same bars.

    ``label``: of the axis. ``edge``: a difference beyond it stands at the edge, with its number.
    A difference below its bound is red, and a tie is grey.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "isthmus", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 1.2 + 0.38 * len(bars)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color="black", linewidth=0.8)
        for height, bar in zip(range(len(bars), 0, -1), bars, strict=True):
            colour = "tab:blue" if bar.difference >= bar.least else "tab:red"
            colour = "grey" if bar.tie else colour
            low, high = (min(max(end, -edge), edge) for end in bar.ci)
            axes.plot([low, high], [height, height], color=colour, linewidth=2)
            axes.plot([bar.least] * 2, [height - 0.3, height + 0.3], color="grey", linewidth=1)
            if abs(bar.difference) <= edge:
                axes.plot([bar.difference], [height], "o", color=colour)
            else:
                side, marker = (edge, ">") if bar.difference > 0 else (-edge, "<")
                axes.plot([side], [height], marker, color=colour)
                shift = -8 if bar.difference > 0 else 8
                axes.annotate(
                    f"{bar.difference:+.3f}",
                    (side, height),
                    (shift, 5),
                    textcoords="offset points",
                    ha="right" if bar.difference > 0 else "left",
                )
        axes.set_yticks(range(len(bars), 0, -1), [bar.title for bar in bars])
        axes.set_xlim(-edge * 1.05, edge * 1.05)
        axes.set_ylim(0.4, len(bars) + 0.6)
        axes.set_xlabel(label)
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()
