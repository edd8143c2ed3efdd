"""Rows sorted by score inside segments: the whole table, its domains or its groups at once."""

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
class Segments:
    """A metric of each segment, nan where undefined, and each row's influence on it, if known."""

    value: Float64[np.ndarray, " segments"]
    influence: Float64[np.ndarray, " rows"] | None = None
