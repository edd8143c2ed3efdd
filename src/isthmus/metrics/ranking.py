"""AUC of many segments at once, from one sort: the whole table, its domains, its groups.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), the placement values; the
sorting form is Sun and Xu, IEEE SPL 21 (2014). Departures: rows may be split into segments, all
solved together, so that a thousand domains cost what one does; ties are runs that count half.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Rows sorted by segment, then score; rows of one segment with one score form a *run*."""

    order: Int[np.ndarray, " rows"]  # sorted place -> row
    run: Int[np.ndarray, " rows"]  # sorted place -> run
    run_segment: Int[np.ndarray, " runs"]
    run_start: Int[np.ndarray, " segments"]  # first run of a segment; 0 where it has no row
    n_segments: int

    @staticmethod
    def of(
        score: Float64[np.ndarray, " rows"],
        segment: Int[np.ndarray, " rows"] | None = None,
        n_segments: int = 1,
        order: Int[np.ndarray, " rows"] | None = None,
    ) -> "Ranking":
        """Sort once; ``order`` is a known order by score, to sort the next segments faster."""
        if order is None:
            order = np.argsort(score).astype(_place_dtype(len(score)))
        if segment is None:
            place = np.zeros(len(score), dtype=np.uint8)
        else:
            # 16-bit keys are sorted by counting, which is several times faster.
            small = np.uint16 if n_segments <= 1 << 16 else np.int64
            place = segment.astype(small)[order]
            stable = np.argsort(place, kind="stable")
            order, place = order[stable], place[stable]
            del stable
        sorted_score = score[order]
        new = np.ones(len(score), dtype=bool)
        np.not_equal(sorted_score[1:], sorted_score[:-1], out=new[1:])
        new[1:] |= place[1:] != place[:-1]
        del sorted_score
        run_segment = place[new]
        run_start = np.searchsorted(run_segment, np.arange(n_segments, dtype=place.dtype))
        return Ranking(
            order=order,
            run=_numbered(new),
            run_segment=run_segment,
            run_start=np.minimum(run_start, max(len(run_segment) - 1, 0)),
            n_segments=n_segments,
        )

    def run_sums(self, values: Shaped[np.ndarray, " rows"]) -> Float64[np.ndarray, " runs"]:
        """Sum a value of the rows, or count where it is true, over each run."""
        return np.bincount(self.run, values[self.order], minlength=len(self.run_segment))

    def segment_sums(
        self, values: Float64[np.ndarray, " runs"]
    ) -> Float64[np.ndarray, " segments"]:
        """Sum a value of the runs over each segment."""
        return np.bincount(self.run_segment, values, minlength=self.n_segments)

    def below(self, values: Float64[np.ndarray, " runs"]) -> Float64[np.ndarray, " runs"]:
        """Give what lies below each run inside its segment, and half of the run itself."""
        middle = np.cumsum(values, dtype=np.float64)
        if len(middle):
            start = middle[self.run_start] - values[self.run_start]
            middle -= start[self.run_segment]
        middle -= values / 2
        return middle


def _numbered(new: Bool[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """Number each run from 0, given where runs begin."""
    run = np.cumsum(new, dtype=_place_dtype(len(new)))
    run -= 1
    return run


def _place_dtype(rows: int) -> type[np.int32] | type[np.int64]:
    """Whole numbers wide enough for so many rows: half the memory below two thousand million."""
    return np.int32 if rows < 1 << 31 else np.int64


@dataclass(frozen=True, slots=True, eq=False)
class SegmentAuc:
    """AUC of each segment, nan where a class is missing, and each row's influence on it."""

    value: Float64[np.ndarray, " segments"]
    influence: Float64[np.ndarray, " rows"] | None


def segment_auc(
    ranking: Ranking,
    label: Bool[np.ndarray, " rows"],
    weight: Float64[np.ndarray, " rows"] | None = None,
    *,
    influence: bool = False,
) -> SegmentAuc:
    """Chance that a random positive of the segment outscores a random negative; ties count half.

    ``weight``: rows are drawn in proportion to it. ``influence``: also give DeLong's psi per row,
    (share of negatives below - AUC) / positives for a positive and (share of positives above
    - AUC) / negatives for a negative, 0 in a segment without an AUC. They sum to 0 and their
    squares to the variance of the AUC; they hold without weights only, and are refused with them.
    """
    if influence and weight is not None:
        raise ValueError("influence values of an AUC hold for rows without weights only")
    positive = ranking.run_sums(label if weight is None else label * weight)
    negative = ranking.run_sums(~label if weight is None else ~label * weight)
    positives, negatives = ranking.segment_sums(positive), ranking.segment_sums(negative)
    lower = ranking.below(negative)
    del negative  # as long as the rows, where scores seldom tie
    won = ranking.segment_sums(positive * lower)
    pairs = positives * negatives
    safe = np.where(pairs > 0, pairs, 1.0)
    value = np.where(pairs > 0, won / safe, np.nan)
    if not influence:
        return SegmentAuc(value, None)
    # Both kinds of placement on the scale of pairs, made where the counts lay; divided once.
    higher = ranking.below(positive)
    del positive
    np.subtract(positives[ranking.run_segment], higher, out=higher)
    lower -= (won / safe * negatives)[ranking.run_segment]
    higher -= (won / safe * positives)[ranking.run_segment]
    scale = np.where(pairs > 0, 1.0 / safe, 0.0)[ranking.run_segment]
    lower *= scale
    higher *= scale
    del scale
    psi = np.empty(len(label))
    psi[ranking.order] = np.where(label[ranking.order], lower[ranking.run], higher[ranking.run])
    return SegmentAuc(value, psi)


def auc(
    score: Float64[np.ndarray, " rows"],
    label: Bool[np.ndarray, " rows"] | Int[np.ndarray, " rows"] | Float64[np.ndarray, " rows"],
    weight: Float64[np.ndarray, " rows"] | None = None,
) -> float:
    """Chance that a random positive outscores a random negative; ties count half.

    Any real score. nan when one class is missing: a domain with no clicks has no AUC. Weighted
    where ``weight`` (rows,) is given. Raises ValueError for a score that is not a number.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    score = np.asarray(score, dtype=np.float64)
    if np.isnan(score).any():
        raise ValueError(f"score must be a number, got nan in row {int(np.isnan(score).argmax())}")
    if weight is not None:
        weight = np.asarray(weight, dtype=np.float64)
    return float(segment_auc(Ranking.of(score), np.asarray(label) > 0, weight).value[0])


def auc_by_domain(
    score: Float64[np.ndarray, " rows"],
    label: Bool[np.ndarray, " rows"] | Int[np.ndarray, " rows"] | Float64[np.ndarray, " rows"],
    domain: Int[np.ndarray, " rows"],
    n_domains: int,
    weight: Float64[np.ndarray, " rows"] | None = None,
) -> Float64[np.ndarray, " domains"]:
    """AUC of domains 1..n_domains (rows of domain 0 belong to none); nan where undefined.

    For a monitor inside training, where intervals are not wanted.
    """
    score = np.asarray(score, dtype=np.float64)
    if np.isnan(score).any():
        raise ValueError(f"score must be a number, got nan in row {int(np.isnan(score).argmax())}")
    if weight is not None:
        weight = np.asarray(weight, dtype=np.float64)
    ranking = Ranking.of(score, np.asarray(domain), n_domains + 1)
    return segment_auc(ranking, np.asarray(label) > 0, weight).value[1:]
