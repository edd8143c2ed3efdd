"""How scores are spread: rows of each label in bins of log-odds, for each domain and for all rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from isthmus.metrics import ScoredRows

BINS = 40
TAIL = 0.001  # share of the rows that may lie beyond the outermost edges, on each side
LEAST_REACH = 0.5  # log-odds between the outermost edges, at least


@dataclass(frozen=True, slots=True, eq=False)
class Distributions:
    """``edges``: of the bins, log-odds, rising; scores beyond them count in the outermost bins.

    ``counts``: effective weight by label (0, 1), domain (report ids, 0 for none) and bin.
    """

    edges: Float64[np.ndarray, " edges"]
    counts: Float64[np.ndarray, "labels domains bins"]

    def of(self, domain: int | None) -> dict[str, Any]:
        """The two histograms of a domain, or of all rows."""
        held = self.counts.sum(axis=1) if domain is None else self.counts[:, domain]
        return {"negatives": held[0].tolist(), "positives": held[1].tolist()}


def distributions(rows: ScoredRows) -> Distributions:
    """Count the corrected log-odds of some rows, one or more, in bins that all domains share."""
    scores = rows.corrected
    low, high = np.quantile(scores, (TAIL, 1 - TAIL))
    short = max(0.0, LEAST_REACH - (high - low)) / 2
    edges = np.linspace(low - short, high + short, BINS + 1)
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, BINS - 1)
    width = len(rows.names) + 1
    key = (rows.label * width + rows.domain) * BINS + place
    counts = np.bincount(key, rows.mass, minlength=2 * width * BINS)
    return Distributions(edges, counts.reshape(2, width, BINS))
