"""When a domain counts as drifted: its served numbers, compared with those of training.

Three kinds of number are compared with the bundle's profile, for each domain:

    score_mean           mean of the scores
    unknown_rate:COLUMN  share of unknown ids among the values of a column
    mix:COLUMN           half the sum over the cells of |share served - share in training|, known values

A number is flagged where it leaves ``expected ± max(margin, q SE)``: by more than matters, and by more
than chance explains. SE^2 is the variance of the served number plus that of the profile's own. A request's
rows belong together (one user, many items), so the served variance is that of a ratio over requests:

    V = sum over requests of w^2 (x - expected n)^2 / (sum of w n)^2

q is Student's t quantile for ``LEVEL`` over all comparisons together (Bonferroni). So of many looks at
served rows that are drawn as in training, at most one in a hundred flags anything. The mix has no sign: its
``expected`` is what chance alone gives, ``sqrt(1 / 2 pi) * sum of sd`` over the cells, and it passes
that by q of the standard deviation ``sqrt(1/n + 1/n') / 2`` with at most the probability of a normal
variable (Borell's inequality). n and n' are the independent values that the two mixes are worth.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import stdtrit

from isthmus.bundle.profile import Profile

LEVEL = 0.01  # chance that a look flags anything while nothing has changed
SCORE_MARGIN = 0.1  # of the mean score, or of 1 - mean where that is smaller
UNKNOWN_MARGIN = 0.01  # share of unknown ids
MIX_MARGIN = 0.1  # share of the values that would have to move to other cells

LEAST_ROWS = 200  # served ones, before anything is said of a domain
LEAST_REQUESTS = 30  # of equal size
LEAST_TRAINING_ROWS = 100  # of the profile
LEAST_CLUSTERS = 30


@dataclass(frozen=True, slots=True)
class Drift:
    """A number of a domain that left its training interval.

    ``domain``: None for the unknown domain. ``what``: ``score_mean``, ``unknown_rate:COLUMN`` or
    ``mix:COLUMN``. ``rows``: of the window, recent ones in full, older ones by their weight.
    """

    domain: str | None
    what: str
    expected: float
    interval: tuple[float, float]
    seen: float
    rows: int

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.what} of domain {self.domain!r} is {self.seen:.4g}, outside {low:.4g} to"
            f" {high:.4g} (training {self.expected:.4g}; {self.rows:,} recent rows)"
        )


@dataclass(frozen=True, slots=True)
class Shares:
    """What is expected of each domain; 0 where nothing is known. The last row: domains of later."""

    score: Float64[np.ndarray, " domains"]
    unknown: Float64[np.ndarray, "domains columns"]
    mix: Float64[np.ndarray, "domains cells"]  # of the known values; 0 in the cells of unknown ones

    @staticmethod
    def of(profile: Profile) -> "Shares":
        """Read them from a profile."""
        counts, starts = np.pad(profile.cells, ((0, 1), (0, 0))), profile.starts
        score = np.nan_to_num(np.append(profile.score, 0.0))
        if not len(starts):
            return Shares(score, np.zeros((len(counts), 0)), counts)
        values = np.add.reduceat(counts, starts, axis=1)
        unknown = counts[:, starts]
        sizes = [column.cells for column in profile.columns]
        known = np.repeat(values - unknown, sizes, axis=1)
        mix = counts / np.where(known > 0, known, 1.0)
        mix[:, starts] = 0
        return Shares(score, unknown / np.where(values > 0, values, 1.0), mix)


@dataclass(frozen=True, slots=True)
class Sums:
    """The state by name. Each sum runs over requests, with their weight w, or w^2 where it says so."""

    rows: np.ndarray  # (domains, 5): the columns below
    cells: np.ndarray  # (domains, cells): values
    unknown_away: np.ndarray  # (domains, columns): w^2 (unknown - expected)^2
    mix_away: np.ndarray  # (domains, columns): w^2 times the sum over the cells of the same

    ROWS = 0
    ROWS_ONCE = 1  # w^2 n
    ROWS_SQUARED = 2  # w^2 n^2
    SCORES = 3
    SCORE_AWAY = 4  # w^2 (sum of scores - expected)^2
    HEAD = 5  # how many columns there are

    @staticmethod
    def of(table: np.ndarray, cells: int) -> "Sums":
        """Name the columns of a state. ``cells``: of all columns together."""
        head, held, rest = np.split(table, [Sums.HEAD, Sums.HEAD + cells], axis=1)
        unknown, mix = np.split(rest, 2, axis=1)
        return Sums(head, held, unknown, mix)

    def at(self, name: int) -> Float64[np.ndarray, " domains"]:
        """One of the columns of ``rows``."""
        return self.rows[:, name]


def flagged(profile: Profile, expected: Shares, window: Sums) -> tuple[Drift, ...]:
    """Tell which numbers left their training interval, by domain and then by column.

    ``expected``: of the profile. ``window``: of all domains of the profile, the unknown one first.
    """
    tested = [_scores(profile, window)]
    if profile.columns:
        tested += [_unknown(profile, expected, window), _mix(profile, expected, window)]
    count = max(sum(int(one.enough.sum()) for one in tested), 1)
    found: list[tuple[int, int, Drift]] = []
    for kind, one in enumerate(tested):
        low, high = one.interval(count)
        outside = one.enough & ((one.seen < low) | (one.seen > high))
        for domain, column in zip(*np.nonzero(outside), strict=True):
            at = domain, column
            drift = Drift(
                domain=profile.names[domain - 1] if domain else None,
                what=one.names[column],
                expected=float(one.expected[at]),
                interval=(float(low[at]), float(high[at])),
                seen=float(one.seen[at]),
                rows=round(float(window.at(Sums.ROWS)[domain])),
            )
            found.append((int(domain), kind, drift))
    return tuple(drift for _, _, drift in sorted(found, key=lambda each: each[:2]))


@dataclass(frozen=True, slots=True)
class _Tested:
    """Numbers of one kind, (domains, numbers): what is seen, what is expected, how sure both are.

    ``enough``: whether there are rows enough to say anything. ``df``: degrees of freedom of ``se``.
    """

    names: tuple[str, ...]
    enough: Bool[np.ndarray, "domains numbers"]
    seen: Float64[np.ndarray, "domains numbers"]
    expected: Float64[np.ndarray, "domains numbers"]
    margin: Float64[np.ndarray, "domains numbers"]
    se: Float64[np.ndarray, "domains numbers"]
    df: Float64[np.ndarray, "domains numbers"]
    is_distance: bool = False  # at least 0, and only too much of it is a change

    def interval(self, comparisons: int) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the training interval, among so many comparisons in all."""
        sides = 1 if self.is_distance else 2
        chance = stdtrit(self.df, 1 - LEVEL / (sides * comparisons)) * self.se
        if self.is_distance:
            return np.zeros_like(chance), np.maximum(self.margin, self.expected + chance)
        reach = np.maximum(self.margin, chance)
        return np.maximum(self.expected - reach, 0.0), np.minimum(self.expected + reach, 1.0)


def _scores(profile: Profile, window: Sums) -> _Tested:
    rows = np.maximum(window.at(Sums.ROWS), 1.0)
    expected = np.nan_to_num(profile.score)
    # A few requests may agree by chance: never surer than if all rows were independent.
    alone = np.nan_to_num(profile.score_spread) * window.at(Sums.ROWS_ONCE) / rows**2
    served = np.maximum(window.at(Sums.SCORE_AWAY) / rows**2, alone)
    training = np.nan_to_num(profile.score_variance)
    return _Tested(
        names=("score_mean",),
        enough=_enough(profile, window)[:, None],
        seen=(window.at(Sums.SCORES) / rows)[:, None],
        expected=expected[:, None],
        margin=SCORE_MARGIN * np.minimum(expected, 1 - expected)[:, None],
        se=np.sqrt(served + training)[:, None],
        df=_df(profile, window, served[:, None], training[:, None]),
    )


def _unknown(profile: Profile, shares: Shares, window: Sums) -> _Tested:
    values = np.add.reduceat(window.cells, profile.starts, axis=1)
    some = np.maximum(values, 1.0)
    held = np.add.reduceat(profile.cells, profile.starts, axis=1)
    expected = shares.unknown[:-1]
    # One unknown value more than were met: none among 200 does not mean that there are none at all.
    careful = (expected * held + 1) / (held + 2)
    spread = careful * (1 - careful)
    served = np.maximum(window.unknown_away / some**2, spread * _once(window) / some)
    training = np.maximum(np.nan_to_num(profile.unknown_variance), spread / np.maximum(held, 1.0))
    of_ids = np.array([column.of_ids for column in profile.columns])
    enough = _enough(profile, window)[:, None] & of_ids
    return _Tested(
        names=tuple(f"unknown_rate:{column.name}" for column in profile.columns),
        enough=enough & (values >= LEAST_ROWS) & (held >= LEAST_TRAINING_ROWS),
        seen=window.cells[:, profile.starts] / some,
        expected=expected,
        margin=np.full_like(some, UNKNOWN_MARGIN),
        se=np.sqrt(served + training),
        df=_df(profile, window, served, training),
    )


def _mix(profile: Profile, shares: Shares, window: Sums) -> _Tested:
    starts, sizes = profile.starts, [column.cells for column in profile.columns]
    cells = window.cells.copy()
    cells[:, starts] = 0
    known = np.add.reduceat(cells, starts, axis=1)
    some = np.maximum(known, 1.0)
    held = np.add.reduceat(profile.cells, starts, axis=1) - profile.cells[:, starts]
    mix = shares.mix[:-1]
    mixed = 1 - np.add.reduceat(mix**2, starts, axis=1)
    # What the values are worth; where all are of one cell, each request says it once.
    worth = mixed * known**2 / np.maximum(window.mix_away, 1e-12)
    worth = np.where(window.mix_away > 0, worth, _requests(window)[:, None])
    served = np.clip(worth, 1.0, some / _once(window))
    training = np.maximum(profile.mix_values, 1.0)
    apart = np.abs(cells / np.repeat(some, sizes, axis=1) - mix)
    # A cell that held no value in training might have held half a one.
    careful = (mix * np.repeat(held, sizes, axis=1) + 0.5) / (np.repeat(held, sizes, axis=1) + 1)
    careful[:, starts] = 0
    noise = 1 / served + 1 / training
    cell_sd = np.sqrt(careful * (1 - np.minimum(careful, 1.0)) * np.repeat(noise, sizes, axis=1))
    return _Tested(
        names=tuple(f"mix:{column.name}" for column in profile.columns),
        enough=_enough(profile, window)[:, None]
        & (known >= LEAST_ROWS)
        & (held >= LEAST_TRAINING_ROWS),
        seen=np.add.reduceat(apart, starts, axis=1) / 2,
        expected=np.add.reduceat(cell_sd, starts, axis=1) / np.sqrt(2 * np.pi),
        margin=np.full_like(some, MIX_MARGIN),
        se=np.sqrt(noise) / 2,
        df=_df(profile, window, 1 / served, 1 / training),
        is_distance=True,
    )


def _enough(profile: Profile, window: Sums) -> Bool[np.ndarray, " domains"]:
    """Which domains have rows and requests enough, here and in the profile."""
    return (
        (window.at(Sums.ROWS) >= LEAST_ROWS)
        & (_requests(window) >= LEAST_REQUESTS)
        & (profile.rows >= LEAST_TRAINING_ROWS)
        & (profile.clusters >= LEAST_CLUSTERS)
    )


def _requests(window: Sums) -> Float64[np.ndarray, " domains"]:
    """How many requests of equal size and weight each domain's rows are worth."""
    squared = window.at(Sums.ROWS_SQUARED)
    return window.at(Sums.ROWS) ** 2 / np.where(squared > 0, squared, 1.0)


def _once(window: Sums) -> Float64[np.ndarray, "domains one"]:
    """The mean weight of the rows, (domains, 1), weighted by itself; 1 where there is no row."""
    rows = window.at(Sums.ROWS)
    return np.where(rows > 0, window.at(Sums.ROWS_ONCE) / np.where(rows > 0, rows, 1.0), 1.0)[
        :, None
    ]


def _df(
    profile: Profile,
    window: Sums,
    served: Float64[np.ndarray, "domains numbers"],
    training: Float64[np.ndarray, "domains numbers"],
) -> Float64[np.ndarray, "domains numbers"]:
    """Welch's degrees of freedom of the sum of two variances."""
    here = np.maximum(_requests(window) - 1, 1.0)[:, None]
    there = np.maximum(profile.clusters - 1, 1.0)[:, None]
    below = served**2 / here + training**2 / there
    return np.where(below > 0, (served + training) ** 2 / np.where(below > 0, below, 1.0), here)
