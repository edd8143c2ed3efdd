"""Batches out of encoded rows: in order, or in a block shuffle that can start anywhere.

Block shuffle: blocks of contiguous rows are put in random order, some of them are read into a
buffer, and the rows of the buffer are permuted. A split that fits one buffer is shuffled
completely. What is read depends on (seed, epoch) only, never on threads or on where one starts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from isthmus.data.batch import Batch, Jagged
from isthmus.data.store.arrays import Arrays

Sampling = Literal["proportional", "uniform"] | float | np.ndarray

# Contiguous rows that travel together into a buffer.
SHUFFLE_BLOCK_ROWS = 4096
# A buffer takes what fits in this many bytes, and this many rows at most.
BUFFER_BYTES = 64 << 20
BUFFER_ROWS = 1 << 20
WHOLE = (0, 1)


def part_of(rows: int, part: tuple[int, int]) -> tuple[int, int]:
    """Which rows ``first .. last`` of a batch are the r-th of n parts of about equal length.

    The n parts are the batch. A batch of fewer rows than parts leaves some parts empty.

    >>> [part_of(5, (r, 2)) for r in range(2)]
    [(0, 2), (2, 5)]
    """
    number, parts = part
    return rows * number // parts, rows * (number + 1) // parts


@dataclass(frozen=True, slots=True)
class _Span:
    """The rows ``first .. last`` of the stream that a part takes of one batch, which ends at ``end``."""

    first: int
    last: int
    end: int

    @classmethod
    def of(cls, begin: int, rows: int, part: tuple[int, int]) -> "_Span":
        """The part of a batch of so many rows that begins there."""
        first, last = part_of(rows, part)
        return cls(begin + first, begin + last, begin + rows)

    @property
    def rows(self) -> int:
        return self.last - self.first

    def within(self, first: int, last: int) -> "_Span":
        """What of the span lies between two places of the stream; none of it may."""
        start = min(max(self.first, first), last)
        return _Span(start, max(start, min(self.last, last)), self.end)

    def moved(self, by: int) -> "_Span":
        """The span counted from another place."""
        return _Span(self.first - by, self.last - by, self.end - by)


def in_order(
    arrays: Arrays, batch_rows: int, start: int, stop: int, n_domains: int
) -> Iterator[Batch]:
    """Batches of rows ``start .. stop`` in the order of the arrays. The last batch may be short."""
    for first in range(start, stop, batch_rows):
        last = min(first + batch_rows, stop)
        yield arrays.gather([(first, last)]).tensors(n_domains)


class Shuffle:
    """The order of one epoch: a stream of as many rows as there are, read buffer by buffer.

    ``sampling``: ``proportional`` gives every row once. A number ``e`` gives domain ``d``, with
    ``n_d`` rows, a share of the stream proportional to ``n_d ** e`` (``uniform`` is 0), and each
    of its rows as often as the others, to within one. The shares are exact in every epoch. An array
    of positive numbers, one a domain id from 0, gives shares proportional to ``n_d`` times these.
    """

    def __init__(
        self, arrays: Arrays, *, seed: int, epoch: int, sampling: Sampling, n_domains: int
    ) -> None:
        self.arrays = arrays
        self.n_domains = n_domains
        self.rows = rows = len(arrays.domain)
        self._seed = (seed, epoch)
        n_blocks = -(-rows // SHUFFLE_BLOCK_ROWS)
        order = self._random(0).permutation(n_blocks)
        fitting = min(BUFFER_ROWS, BUFFER_BYTES // arrays.row_bytes) // SHUFFLE_BLOCK_ROWS
        # Buffers of about equal size: none is so small that its rows stay together.
        n_buffers = max(1, -(-n_blocks // max(1, fitting)))
        self._buffers = np.array_split(order, n_buffers)
        weights = _weights(sampling)
        self._plan = None
        if weights is not None:
            self._plan = _Plan(arrays.domain, weights, self._random(1))

    def _random(self, *place: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([*self._seed, *place])))

    def _runs(self, blocks: np.ndarray) -> list[tuple[int, int]]:
        starts = (blocks * SHUFFLE_BLOCK_ROWS).tolist()
        return [(start, min(start + SHUFFLE_BLOCK_ROWS, self.rows)) for start in starts]

    def batches(
        self, batch_rows: int, start: int, stop: int, part: tuple[int, int] = WHOLE
    ) -> Iterator[Batch]:
        """Batches of the rows ``start .. stop`` of the stream. The last batch may be short.

        ``part`` (r, n): of each batch give the r-th of n parts alone, see `part_of`. A batch may hold
        rows of two buffers. Of skipped buffers only the domains are read, and of the others the rows
        of the part.
        """
        reached = 0
        pieces: list[Batch] = []
        for number, blocks in enumerate(self._buffers):
            if reached >= stop:
                return
            runs = self._runs(blocks)
            domain = np.concatenate([self.arrays.domain[start:stop] for start, stop in runs])
            emitted = len(domain) if self._plan is None else self._plan.emitted(domain)
            if not emitted or reached + emitted <= start:
                if self._plan is not None:
                    self._plan.advance(domain)
                reached += emitted
                continue
            order = self._order(domain, number)
            first, last = max(start, reached), min(stop, reached + emitted)
            spans = [
                _Span.of(begin, min(batch_rows, stop - begin), part).within(first, last)
                for begin in range(first - (first - start) % batch_rows, last, batch_rows)
            ]
            order = order[first - reached : last - reached]
            buffer, order = self._held(runs, order, [span.moved(first) for span in spans], part)
            reached += emitted
            at = 0
            for span in spans:
                pieces.append(buffer.batch(order[at : at + span.rows], self.n_domains))
                at += span.rows
                if span.end <= last:
                    yield pieces[0] if len(pieces) == 1 else join(pieces)
                    pieces = []

    def _held(
        self,
        runs: list[tuple[int, int]],
        order: np.ndarray,
        spans: "list[_Span]",
        part: tuple[int, int],
    ) -> tuple[Arrays, np.ndarray]:
        """The rows of a buffer in memory, and their order; for a part of the batches its rows alone."""
        if part == WHOLE:
            return self.arrays.gather(runs), order
        own = np.concatenate([order[span.first : span.last] for span in spans])
        places = np.concatenate([np.arange(start, stop) for start, stop in runs])[own]
        by_place = np.argsort(places, kind="stable")  # a mapped file is read in its order
        there = np.empty_like(by_place)
        there[by_place] = np.arange(len(own))
        return self.arrays.take(places[by_place]), there

    def _order(self, domain: np.ndarray, number: int) -> np.ndarray:
        """The rows of a buffer in the order in which they are given."""
        random = self._random(2, number)
        order = random.permutation(len(domain))
        if self._plan is None:
            return order
        order = np.repeat(order, self._plan.copies(domain.take(order)))
        random.shuffle(order)
        return order


def _weights(sampling: Sampling) -> Callable[[np.ndarray], np.ndarray] | None:
    """What makes relative shares of the domains' numbers of rows; None where each row comes once."""
    if isinstance(sampling, np.ndarray):
        if not (np.isfinite(sampling).all() and (sampling > 0).all()):
            raise ValueError(f"sampling must hold positive numbers, got {sampling.tolist()}")
        equal = bool((sampling == sampling[0]).all())
        return None if equal else lambda have: have * sampling[: len(have)]
    exponent = {"proportional": 1.0, "uniform": 0.0}.get(sampling, sampling)  # type: ignore[arg-type]
    if not isinstance(exponent, int | float) or not 0 <= exponent <= 1:
        raise ValueError(
            f"sampling must be 'proportional', 'uniform' or from 0 to 1, got {sampling!r}"
        )
    if exponent == 1.0:
        return None
    return lambda have: np.where(
        have > 0, np.power(np.maximum(have, 1).astype(np.float64), exponent), 0.0
    )


class _Plan:
    """How many copies of each row an epoch takes, so that each domain gets its exact share.

    Row ``j`` of the ``n`` of a domain, counted in the order of the stream, is taken
    ``floor(((j + 1) m + o) / n) - floor((j m + o) / n)`` times: ``m`` in all, whatever the
    offset ``o`` in ``0 .. n - 1``, and each row as often as the others to within one.
    """

    def __init__(
        self,
        domain: np.ndarray,
        weights: Callable[[np.ndarray], np.ndarray],
        random: np.random.Generator,
    ) -> None:
        self.have = _count(domain)
        self.want = _shares(self.have, weights(self.have))
        self.offset = (random.random(len(self.have)) * self.have).astype(np.int64)
        self.seen = np.zeros(len(self.have), dtype=np.int64)

    def _taken(self, domain: np.ndarray, upto: np.ndarray) -> np.ndarray:
        have = np.maximum(self.have[domain], 1)
        return (upto * self.want[domain] + self.offset[domain]) // have

    def emitted(self, domain: np.ndarray) -> int:
        """Rows of the stream that the coming rows of these domains give."""
        every = np.arange(len(self.have))
        after = self.seen + np.bincount(domain, minlength=len(self.have))
        return int((self._taken(every, after) - self._taken(every, self.seen)).sum())

    def advance(self, domain: np.ndarray) -> None:
        """Pass these rows by."""
        self.seen += np.bincount(domain, minlength=len(self.have))

    def copies(self, domain: np.ndarray) -> np.ndarray:
        """Copies int64 (rows,) of the coming rows, which are then passed."""
        # NumPy sorts 16-bit integers by radix, several times faster than wider ones.
        small = domain.astype(np.uint16) if len(self.have) <= 1 << 16 else domain
        order = np.argsort(small, kind="stable")
        counts = np.bincount(domain, minlength=len(self.have))
        first = np.repeat(np.cumsum(counts) - counts, counts)
        sorted_domain = domain.take(order)
        rank = self.seen[sorted_domain] + np.arange(len(domain)) - first
        copies = np.empty(len(domain), dtype=np.int64)
        copies[order] = self._taken(sorted_domain, rank + 1) - self._taken(sorted_domain, rank)
        self.seen += counts
        return copies


def _count(domain: np.ndarray) -> np.ndarray:
    """Rows int64 of each domain id, from 0; a mapped array is read piece by piece."""
    counts = np.zeros(0, dtype=np.int64)
    for start in range(0, len(domain), BUFFER_ROWS):
        more = np.bincount(domain[start : start + BUFFER_ROWS], minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    return counts


def _shares(have: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Rows int64 of each domain in an epoch as long as the split, by largest remainder."""
    exact = share / share.sum() * have.sum()
    want = np.floor(exact).astype(np.int64)
    missing = int(have.sum() - want.sum())
    most = np.lexsort((np.arange(len(have)), want - exact))
    want[most[:missing]] += 1
    return want


def join(batches: list[Batch]) -> Batch:
    """One batch of all rows, batch after batch."""
    lists = []
    for column in zip(*(batch.lists for batch in batches), strict=True):
        lengths = torch.cat([jagged.offsets.diff() for jagged in column])
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
        torch.cumsum(lengths, 0, out=offsets[1:])
        lists.append(Jagged(torch.cat([jagged.values for jagged in column]), offsets))
    weights = [batch.weight for batch in batches if batch.weight is not None]
    return Batch(
        categorical=torch.cat([batch.categorical for batch in batches]),
        numeric=torch.cat([batch.numeric for batch in batches]),
        lists=tuple(lists),
        domain=torch.cat([batch.domain for batch in batches]),
        label=torch.cat([batch.label for batch in batches]),
        weight=torch.cat(weights) if weights else None,
    )
