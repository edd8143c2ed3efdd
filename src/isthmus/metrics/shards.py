"""Metrics from shards that cannot be gathered: sums that merge, an AUC with its error bound.

Where the scores fit in memory, ``concatenate`` the shards and evaluate: the result is exact. An AUC
is never averaged over shards. Counts of positives and negatives on one fixed grid of logits add up.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from isthmus.metrics.formulas.calibration_ratio import promised_and_observed
from isthmus.metrics.formulas.logloss import loss_and_mass
from isthmus.metrics.formulas.normalised_entropy import normalised_entropy
from isthmus.metrics.scored_rows import ScoredRows

GRID_BINS = 8192
GRID_REACH = 12.0  # logits beyond it share the outermost bins


@dataclass(frozen=True, slots=True, eq=False)
class MergedFigures:
    """Metrics per domain from merged sums; nan where undefined; the last entry is pooled.

    ``auc`` is within ``auc_error`` of the exact AUC for certain. The bound is half the share of
    pairs of a positive and a negative that fall into one bin.
    """

    names: tuple[str, ...]  # the domains, then "pooled"
    rows: Int64[np.ndarray, " scopes"]
    positives: Int64[np.ndarray, " scopes"]
    auc: Float64[np.ndarray, " scopes"]
    auc_error: Float64[np.ndarray, " scopes"]
    logloss: Float64[np.ndarray, " scopes"]
    ne: Float64[np.ndarray, " scopes"]
    calibration: Float64[np.ndarray, " scopes"]


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """Sums of one shard. 128 KiB a domain, whatever its rows; merge in any order."""

    split: str
    names: tuple[str, ...]
    negative_rate: float
    histogram: Float64[np.ndarray, "2 domains bins"]  # weight of negatives, of positives
    counts: Int64[np.ndarray, "2 domains"]  # rows, positives
    sums: Float64[np.ndarray, "4 domains"]  # mass, mass * loss, mass * chance, mass * label

    @staticmethod
    def of(scored: ScoredRows) -> "Partial":
        """Sum one shard (or one batch) of scored rows."""
        width = len(scored.names) + 1
        place = (scored.logits + GRID_REACH) * (GRID_BINS / (2 * GRID_REACH))
        place = np.clip(place, 0, GRID_BINS - 1).astype(np.int64)
        key = (scored.label * width + scored.domain) * GRID_BINS + place
        weight = np.ones(len(scored)) if scored.weight is None else scored.weight
        loss, mass = loss_and_mass(scored)
        summed = (mass, loss, *promised_and_observed(scored))
        return Partial(
            split=scored.split,
            names=scored.names,
            negative_rate=scored.negative_rate,
            histogram=np.bincount(key, weight, minlength=2 * width * GRID_BINS).reshape(
                2, width, GRID_BINS
            ),
            counts=np.stack(
                [
                    np.bincount(of, minlength=width)
                    for of in (scored.domain, scored.domain[scored.label])
                ]
            ),
            sums=np.stack([np.bincount(scored.domain, part, minlength=width) for part in summed]),
        )

    def merge(self, other: "Partial") -> "Partial":
        """Add the sums of two shards; ValueError unless both are of one split and its domains."""
        mine = (self.split, self.names, self.negative_rate)
        theirs = (other.split, other.names, other.negative_rate)
        if mine != theirs:
            raise ValueError(
                f"shards must have one split, names and negative rate, got {mine} and {theirs}"
            )
        return Partial(
            *mine,
            histogram=self.histogram + other.histogram,
            counts=self.counts + other.counts,
            sums=self.sums + other.sums,
        )

    def finish(self) -> MergedFigures:
        """Turn the sums into metrics. Rows without a domain count in pooled only."""

        def scopes(values: np.ndarray) -> np.ndarray:
            """Domains 1.. along the second axis, then the sum over all."""
            return np.concatenate([values[:, 1:], values.sum(axis=1, keepdims=True)], axis=1)

        negative, positive = scopes(self.histogram)
        rows, positives = scopes(self.counts)
        mass, loss, chance, hits = scopes(self.sums)
        pairs = negative.sum(axis=1) * positive.sum(axis=1)
        safe = np.where(pairs > 0, pairs, 1.0)
        undefined = np.where(pairs > 0, 0.0, np.nan)
        below = np.cumsum(negative, axis=1) - negative / 2
        some = np.where(mass > 0, mass, np.nan)
        return MergedFigures(
            names=(*self.names, "pooled"),
            rows=rows,
            positives=positives,
            auc=(positive * below).sum(axis=1) / safe + undefined,
            auc_error=(positive * negative).sum(axis=1) / 2 / safe + undefined,
            logloss=loss / some,
            ne=normalised_entropy(loss / some, hits / some),
            calibration=chance / np.where(hits > 0, hits, np.nan),
        )
