"""The drift watch: counts served rows, so that a change against training can be seen.

Served rows are counted by domain in the cells of the bundle's profile (`isthmus.bundle.profile`).
`isthmus.monitoring.flagging` says which numbers are compared, and when one is flagged.

The window: whenever a domain has more than `WINDOW_ROWS` rows, worth more than `WINDOW_REQUESTS` requests
of equal size, the weight w of all its rows is halved. Weights are part of the sums, so states of several
processes add up.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int, Int64, Shaped

from isthmus.bundle.profile import Profile
from isthmus.monitoring.flagging import Drift, Shares, Sums, flagged

WINDOW_ROWS = 10_000
WINDOW_REQUESTS = 100
REQUEST_ROWS = 1_000  # a longer request counts as several


class DriftWatch:
    """Counts served rows and compares them with the profile.

    ``profile``: of the bundle. ``state``: float64 (`state_size`,), zeros at first, where the counts are
    kept; it may be mapped from a file, so that another process reads it. Raises ValueError for a state
    of another shape or dtype. One thread may add at a time; reading needs no lock.
    """

    def __init__(self, *, profile: Profile, state: np.ndarray | None = None) -> None:
        self.profile = profile
        size = self.state_size(profile)
        if state is None:
            state = np.zeros(size)
        if state.shape != (size,) or state.dtype != np.float64:
            raise ValueError(
                f"state must be float64 of shape ({size},), got {state.dtype} of {state.shape}"
            )
        self.state = state
        self._rows = state.reshape(len(profile.names) + 2, -1)
        columns = profile.columns
        self._starts, self._stride = profile.starts, profile.cells.shape[1]
        self._sizes = np.array([column.cells for column in columns], dtype=np.int64)
        self._column_of = np.repeat(np.arange(len(columns)), self._sizes)
        self._expected = Shares.of(profile)
        single = [place for place, column in enumerate(columns) if column.kind == "categorical"]
        tables = [self._table(place) for place in single]
        lengths = np.array([len(table) for table in tables], dtype=np.int64)
        self._table_of_ids = np.concatenate([np.empty(0, dtype=np.int64), *tables])
        self._last_ids = lengths - 1
        self._table_starts = np.cumsum(lengths) - lengths
        self._id_columns = np.array([columns[place].place for place in single], dtype=np.int64)
        self._numbers = [
            (column.place, np.array(column.edges, dtype=np.float32), int(start) + 1)
            for column, start in zip(columns, self._starts, strict=True)
            if column.kind == "numeric"
        ]
        self._lists = [
            (column, int(start), self._table(place) if column.of_ids else None)
            for place, (column, start) in enumerate(zip(columns, self._starts, strict=True))
            if column.is_list
        ]
        self._local = np.zeros(len(profile.names) + 2, dtype=np.int64)
        self._nowhere = np.zeros(REQUEST_ROWS, dtype=np.int64)
        # Sums halve; sums of squares, which hold the squared weight, are quartered.
        self._halved = np.full(self._rows.shape[1], 0.25)
        self._halved[[Sums.ROWS, Sums.SCORES]] = 0.5
        self._halved[Sums.HEAD : Sums.HEAD + self._stride] = 0.5

    @staticmethod
    def state_size(profile: Profile) -> int:
        """How many numbers the state has: for each domain, the unknown one, and one of later domains."""
        width = Sums.HEAD + profile.cells.shape[1] + 2 * len(profile.columns)
        return (len(profile.names) + 2) * width

    def _table(self, place: int) -> Int64[np.ndarray, " ids"]:
        return self.profile.columns[place].table() + self._starts[place]

    def add(
        self,
        *,
        domain: Int[np.ndarray, " rows"],
        scores: Float64[np.ndarray, " rows"],
        categorical: Int[np.ndarray, "rows columns"],
        numeric: Shaped[np.ndarray, "rows columns"],
        lists: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    ) -> None:
        """Count the rows of one request, as `EncodedRows` has them.

        ``domain``: model ids, 0 for the unknown domain; domains that the profile lacks are not
        watched. ``scores``: as served. ``lists``: values and offsets of each list column.
        """
        rows = len(domain)
        for start in range(0, rows, REQUEST_ROWS):
            some = slice(start, min(start + REQUEST_ROWS, rows))
            cut = [(values, offsets[start : some.stop + 1]) for values, offsets in lists]
            self._add(domain[some], scores[some], categorical[some], numeric[some], cut)

    def _add(
        self,
        domain: np.ndarray,
        scores: np.ndarray,
        categorical: np.ndarray,
        numeric: np.ndarray,
        lists: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        met, where, n = self._met(np.minimum(domain, len(self._local) - 1))
        total = np.bincount(where, scores, minlength=len(n))
        away = total - self._expected.score[met] * n
        block = np.empty((len(n), self._rows.shape[1]))
        block[:, Sums.ROWS] = block[:, Sums.ROWS_ONCE] = n
        block[:, Sums.ROWS_SQUARED] = n * n
        block[:, Sums.SCORES] = total
        block[:, Sums.SCORE_AWAY] = away * away
        if len(self._sizes):
            held = self._held(len(n), where, categorical, numeric, lists)
            self._count(block[:, Sums.HEAD :], held, met)
        rows = self._rows[met] + block
        now = rows[:, Sums.ROWS]
        full = now > WINDOW_ROWS
        if full.any():
            full &= now * now > WINDOW_REQUESTS * rows[:, Sums.ROWS_SQUARED]
            rows[full] *= self._halved
        self._rows[met] = rows

    def _met(self, domain: np.ndarray) -> tuple[slice | np.ndarray, np.ndarray, np.ndarray]:
        """The domains of a request, the place of each row's among them, and their rows, float64."""
        first = int(domain[0])
        if (domain == first).all():  # most requests are of one domain
            only = slice(first, first + 1)
            return only, self._nowhere[: len(domain)], np.array([float(len(domain))])
        counts = np.bincount(domain, minlength=len(self._local))
        met = np.flatnonzero(counts)
        self._local[met] = np.arange(len(met))
        return met, self._local[domain], counts[met].astype(np.float64)

    def _held(
        self,
        domains: int,
        where: np.ndarray,
        categorical: np.ndarray,
        numeric: np.ndarray,
        lists: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> Float64[np.ndarray, "domains cells"]:
        """How many values of a request are in each cell."""
        base = where * self._stride
        parts = []
        if len(self._id_columns):
            if categorical.shape[1] != len(self._id_columns):
                categorical = categorical[:, self._id_columns]
            ids = np.minimum(categorical, self._last_ids)
            ids += self._table_starts
            cells = self._table_of_ids[ids]
            cells += base[:, None]
            parts.append(cells.ravel())
        for place, edges, start in self._numbers:
            cells = edges.searchsorted(numeric[:, place], side="right")
            cells += base
            cells += start
            parts.append(cells)
        for column, start, table in self._lists:
            values, offsets = lists[column.place]
            values = values[offsets[0] : offsets[-1]]
            if table is None:
                cells = column.cells_of(values) + start
            else:
                cells = table[np.minimum(values, column.size)]
            parts.append(cells + np.repeat(base, np.diff(offsets)))
        held = np.bincount(np.concatenate(parts), minlength=domains * self._stride)
        return held.reshape(domains, self._stride).astype(np.float64)

    def _count(
        self,
        out: Float64[np.ndarray, "domains numbers"],
        held: Float64[np.ndarray, "domains cells"],
        met: slice | np.ndarray,
    ) -> None:
        """Fill in what a request holds, and squares of how far that is off what is expected."""
        cells, columns = self._stride, len(self._sizes)
        values = np.add.reduceat(held, self._starts, axis=1)
        unknown = held[:, self._starts]
        away = unknown - self._expected.unknown[met] * values
        mixed = (values - unknown)[:, self._column_of] * self._expected.mix[met]
        mixed -= held
        mixed[:, self._starts] = 0
        mixed *= mixed
        out[:, :cells] = held
        out[:, cells : cells + columns] = away * away
        out[:, cells + columns :] = np.add.reduceat(mixed, self._starts, axis=1)

    def flags(self, states: Sequence[np.ndarray] | None = None) -> tuple[Drift, ...]:
        """Tell what left its training interval, by domain.

        ``states``: of all processes that serve the bundle; the watch's own by default. Raises
        ValueError where one has another shape.
        """
        held = [self.state] if states is None else states
        for state in held:
            if state.shape != self.state.shape:
                raise ValueError(
                    f"states must have shape {self.state.shape}, got {state.shape}: one is of"
                    " another bundle"
                )
        summed = np.sum([np.asarray(state) for state in held], axis=0)
        window = Sums.of(summed.reshape(self._rows.shape)[:-1], self._stride)
        return flagged(self.profile, self._expected, window)
