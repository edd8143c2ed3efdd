"""Bins of a number's piecewise-linear embedding.

Source: Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022,
arXiv:2203.05556, section 3.2.1: the edges are quantiles of the train rows.

Departures
- A value with much mass has an edge of its own, and so have its two neighbours among the train
  rows: the code then tells "exactly this value" from all others. The quantiles are those of the
  other rows. Of nine zeros in ten rows, plain quantiles would leave one tenth of the bins.
- Where there are few distinct values, each of them is an edge.
- An edge that lies too close to another is left out: 32-bit floats could not tell a place
  between the two.
- There are two bins at least, around a column's only value, or around the middle of two.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

BINS = 48
CLOSEST = 2.0**-14  # of an edge's own size: so near must the next one not be
LEAST = 2.0**-40  # the same around 0


def bin_edges(x: Float32[np.ndarray, " rows"], bins: int = BINS) -> tuple[float, ...]:
    """The edges, in rising order, for these scaled train numbers, which rise; at least three.

    A value holds much mass where more than 1 in ``bins`` rows have it. The other rows make at most
    ``bins`` bins. Rows count alike, whatever their weight.
    """
    values, counts = np.unique(x, return_counts=True)
    first = np.empty(0, dtype=np.int64)
    if len(values) <= bins + 1:
        wanted = np.arange(len(values))
    else:
        is_heavy = counts > len(x) / bins
        first = np.flatnonzero(is_heavy)
        rest = np.repeat(np.flatnonzero(~is_heavy), counts[~is_heavy])
        steps = rest[np.linspace(0, len(rest) - 1, bins + 1).round().astype(np.int64)]
        wanted = np.concatenate([first - 1, first + 1, steps])
        wanted = np.unique(wanted[(wanted >= 0) & (wanted < len(values))])
    return _apart(values[first].tolist(), values[wanted].tolist())


def _apart(first: Sequence[float], wanted: Sequence[float]) -> tuple[float, ...]:
    """Edges that 32-bit floats tell apart; those of ``first`` stay where a wanted one is too close."""
    kept: list[float] = []
    for edge in sorted({*first, *wanted}):
        if kept and edge - kept[-1] < max(LEAST, CLOSEST * max(abs(edge), abs(kept[-1]))):
            if edge not in first or kept[-1] in first:
                continue
            kept.pop()
        kept.append(edge)
    low, high = (kept[0], kept[-1]) if kept else (0.0, 0.0)
    if len(kept) < 2:
        if abs(low) <= 1:
            return (low - 1, low, low + 1)
        return (0.0, low / 2, low) if low > 0 else (low, low / 2, 0.0)
    return tuple(kept) if len(kept) > 2 else (low, low / 2 + high / 2, high)


def check_edges(name: str, edges: Sequence[float]) -> tuple[float, ...]:
    """The edges of a column, read from a file. Raises ValueError unless three or more rise."""
    found = np.asarray(edges, dtype=np.float32)
    if found.ndim != 1 or len(found) < 3 or not np.isfinite(found).all():
        raise ValueError(f"the bins of {name!r} must have three finite edges or more, got {edges}")
    if (np.diff(found) <= 0).any():
        raise ValueError(f"the edges of the bins of {name!r} must rise, got {edges}")
    return tuple(edges)
