"""Parts of whole tensors: what two of them share, and how a file says which part it holds."""

import math
from collections.abc import Mapping
from typing import Any

from isthmus.layers.tables import Box


def common_part(a: Box, b: Box) -> Box:
    """What two parts of one whole have in common."""
    left, right = max(a.columns.start, b.columns.start), min(a.columns.stop, b.columns.stop)
    return Box(a.shape, common_rows(a.rows, b.rows), range(left, max(left, right)))


def common_rows(a: range, b: range) -> range:
    """The numbers that two ranges share."""
    if not len(a) or not len(b):
        return range(0)
    step = math.lcm(a.step, b.step)
    begin, end = max(a.start, b.start), min(a[-1], b[-1]) + 1
    # The first number of a, from begin on, that b holds too: after lcm / a.step tries none will come.
    first = a.start + -(-(begin - a.start) // a.step) * a.step
    tries = range(first, min(first + step, end), a.step)
    start = next((number for number in tries if number in b), None)
    return range(0) if start is None else range(start, end, step)


def box_to_plain(box: Box) -> dict[str, Any]:
    """What JSON can say of a part."""
    rows, columns = box.rows, box.columns
    return {
        "shape": list(box.shape),
        "rows": [rows.start, rows.stop, rows.step],
        "columns": [columns.start, columns.stop],
    }


def box_from_plain(plain: Mapping[str, Any]) -> Box:
    """Undo `box_to_plain`."""
    return Box(tuple(plain["shape"]), range(*plain["rows"]), range(*plain["columns"]))
