"""How a bundle does after it was shipped: AUC and calibration of each domain, all along and by day.

A domain's numbers are compared with those of its validation rows. Both were measured on a draw of rows, so
the difference has the variance of both, and Welch's degrees of freedom. Requests are drawn, not rows. A
domain *fell* where one of two tests says so, each corrected by Holm over both tests of all domains at 5 %:

    AUC           is lower than on the validation rows by more than ``margin``
    calibration   is another by more than a factor 1 + ``calibration_margin``, up or down
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtr

from isthmus.metrics import ScoredRows
from isthmus.metrics.formulas import AUC, CALIBRATION, seeds_of
from isthmus.metrics.intervals import holm, interval, outside, shortfalls
from isthmus.metrics.spread import Cells, Spread
from isthmus.metrics.text_table import (
    TextTable,
    count_text,
    largest,
    p_text,
    with_interval,
)
from isthmus.monitoring.labelled_rows import JoinCounts
from isthmus.version import VERSION

LEVEL = 0.05
DAYS_SHOWN = 40  # rows of the table by day
Baseline = Mapping[str, Mapping[str, float | None]]
Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Served:
    """AUC and calibration of some labelled rows. An undefined number is None, and ``why`` says why."""

    rows: int
    positives: int
    auc: float | None = None
    auc_ci: Ends | None = None
    calibration: float | None = None  # predicted over observed
    calibration_ci: Ends | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A number against the validation rows.

    ``value``: the difference of two AUCs, or the ratio of two calibrations. ``p``: of the test against
    the margin. ``fell``: whether p, corrected by Holm, is at most 5 %.
    """

    training: float
    value: float
    ci: Ends
    p: float
    p_holm: float = 1.0
    fell: bool = False


@dataclass(frozen=True, slots=True)
class DomainHealth:
    """One domain over the whole log. ``why``: why it is not compared with its validation rows."""

    domain: str
    served: Served
    auc: Change | None = None
    calibration: Change | None = None
    why: str | None = None

    @property
    def fell(self) -> tuple[str, ...]:
        """Which of AUC and calibration fell beyond the margin."""
        parts = {"AUC": self.auc, "calibration": self.calibration}
        return tuple(name for name, of in parts.items() if of is not None and of.fell)


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """What the labels say of the scores in a log. ``print`` shows tables, ``to_dict`` gives the JSON.

    ``first``, ``last``: days of the log, as text. ``days``: for each domain, its days in order.
    """

    log: str
    labels: str
    bundle: str
    margin: float
    calibration_margin: float
    first: str
    last: str
    counts: JoinCounts
    domains: tuple[DomainHealth, ...]
    days: Mapping[str, tuple[tuple[str, Served], ...]]

    @property
    def fell(self) -> tuple[DomainHealth, ...]:
        """The domains that fell beyond the margin."""
        return tuple(domain for domain in self.domains if domain.fell)

    @property
    def headline(self) -> str:
        """Say in one sentence how the domains do."""
        tested = sum(of.auc is not None or of.calibration is not None for of in self.domains)
        if self.fell:
            named = _few([f"{of.domain} ({' and '.join(of.fell)})" for of in self.fell])
            return f"{len(self.fell):,} of {count_text(tested, 'domain')} fell beyond the margin: {named}."
        if not tested:
            return "No domain has labels enough to be compared with its validation rows."
        return (
            f"None of {count_text(tested, 'domain')} fell beyond the margin, as far as can be told."
        )

    @property
    def title(self) -> str:
        """Say which rows the numbers are of."""
        return (
            f"{count_text(self.counts.with_label, 'row')} with a label, {self.first} to {self.last},"
            f" bundle {self.bundle[:12]}; 95 % intervals, requests drawn independently"
        )

    def notes(self) -> list[str]:
        """Give what to keep in mind, a sentence each."""
        return [
            f"A domain fell where its AUC is lower than on the validation rows by more than"
            f" {self.margin:g}, or its calibration another by more than a factor"
            f" {1 + self.calibration_margin:g}, both by a test at 5 % that is corrected by Holm over all.",
            *self.counts.told(),
        ]

    def table(self) -> TextTable:
        """Show the domains as text."""
        by_name = {of.domain: of for of in self.domains}
        names, left = largest({name: of.served.rows for name, of in by_name.items()})
        header = (
            "domain",
            "rows",
            "AUC [95 %]",
            "before",
            "p",
            "calib. [95 %]",
            "before",
            "p",
            "fell",
        )
        left_out: dict[str, list[str]] = {}
        for of in self.domains:
            if of.why is not None:
                left_out.setdefault(of.why, []).append(of.domain)
        reasons = [f"Not compared, {why}: {_few(names)}" for why, names in left_out.items()]
        return TextTable(
            title=self.title,
            header=header,
            rows=tuple(_cells(by_name[name]) for name in names),
            notes=(self.headline, *reasons, *self.notes(), *([left] if left else [])),
            left=(0, 8),
        )

    def by_day(self) -> TextTable:
        """Show the days of each domain as text, of domains that fell first."""
        by_fall = sorted(self.domains, key=lambda of: not of.fell)
        rows = [
            (
                of.domain,
                day,
                f"{served.rows:,}",
                with_interval(served.auc, served.auc_ci),
                with_interval(served.calibration, served.calibration_ci, 3),
            )
            for of in by_fall
            for day, served in self.days[of.domain]
        ]
        more = len(rows) - DAYS_SHOWN
        return TextTable(
            title="By day (UTC)",
            header=("domain", "day", "rows", "AUC [95 %]", "calib. [95 %]"),
            rows=tuple(rows[:DAYS_SHOWN]),
            notes=(f"{more:,} more days are on the page and in the JSON.",) if more > 0 else (),
            left=(0, 1),
        )

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.by_day()}"

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {
            "isthmus": VERSION,
            "log": self.log,
            "labels": self.labels,
            "bundle": self.bundle,
            "margin": self.margin,
            "calibration_margin": self.calibration_margin,
            "first": self.first,
            "last": self.last,
            "title": self.title,
            "headline": self.headline,
            "notes": self.notes(),
            "fell": {of.domain: list(of.fell) for of in self.fell},
            "counts": self.counts.to_dict(),
            "domains": {of.domain: asdict(of) for of in self.domains},
            "days": {
                name: [{"day": day, **asdict(served)} for day, served in days]
                for name, days in self.days.items()
            },
        }


def _few(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _cells(of: DomainHealth) -> tuple[str, ...]:
    cells = [of.domain, f"{of.served.rows:,}"]
    parts = (
        (of.served.auc, of.served.auc_ci, of.auc, 4),
        (of.served.calibration, of.served.calibration_ci, of.calibration, 3),
    )
    for value, ci, change, places in parts:
        cells.append(with_interval(value, ci, places))
        cells.append("" if change is None else f"{change.training:.{places}f}")
        cells.append("" if change is None else p_text(change.p_holm))
    return (*cells, " and ".join(of.fell))


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """AUC and calibration of each segment of some scored rows, with what comparisons need."""

    served: tuple[Served, ...]
    clusters: np.ndarray
    auc: Spread  # id 0, which holds no row, first
    calibration: Spread

    @staticmethod
    def of(rows: ScoredRows) -> "Segmented":
        """Measure every segment: the ``domain`` of the rows, from 1."""
        cells = Cells.of(rows.domain, rows.group, len(rows.names))
        found = seeds_of([rows], cells, (AUC, CALIBRATION))
        auc, calibration = (found[of.name].domains() for of in (AUC, CALIBRATION))
        size = len(rows.names) + 1
        count = np.bincount(rows.domain, minlength=size)
        positives = np.bincount(rows.domain[rows.label], minlength=size)
        clusters = np.bincount(cells.domain, minlength=size)
        served = []
        for place in range(1, size):
            low = shortfalls(
                int(positives[place]), int(count[place] - positives[place]), int(clusters[place])
            )
            served.append(
                Served(
                    rows=int(count[place]),
                    positives=int(positives[place]),
                    auc=_defined(auc.value[place]),
                    auc_ci=_ends(auc, place, "logit"),
                    calibration=_defined(calibration.value[place]),
                    calibration_ci=_ends(calibration, place, "log"),
                    why="; ".join(f"{n} {what}, {least} are needed" for n, what, least in low)
                    or None,
                )
            )
        return Segmented(tuple(served), clusters, auc, calibration)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _ends(spread: Spread, place: int, scale: Any) -> Ends | None:
    value, variance, df = spread.at(place)
    if np.isnan(value) or np.isnan(variance) or outside(value, scale) is not None:
        return None
    return interval(value, variance, df, scale)


def compare_with_training(
    names: Sequence[str],
    found: Segmented,
    baseline: Baseline,
    *,
    margin: float,
    calibration_margin: float,
) -> tuple[DomainHealth, ...]:
    """Compare each domain with its validation rows; Holm over all tests.

    ``baseline``: of `isthmus.bundle.Profile.baseline`.
    """
    domains = []
    for place, name in enumerate(names, start=1):
        served, before = found.served[place - 1], baseline.get(name)
        if before is None or (before.get("auc") is None and before.get("calibration") is None):
            domains.append(DomainHealth(name, served, why="no validation rows to compare with"))
        elif served.why is not None:
            domains.append(DomainHealth(name, served, why=served.why))
        else:
            auc = _auc_change(found, place, before, margin)
            calibration = _calibration_change(found, place, before, calibration_margin)
            domains.append(DomainHealth(name, served, auc, calibration))
    changes = [(of.auc, of.calibration) for of in domains]
    tested = [change for pair in changes for change in pair if change is not None]
    adjusted = iter(holm([change.p for change in tested]))

    def judged(change: Change | None) -> Change | None:
        if change is None:
            return None
        p = next(adjusted)
        return replace(change, p_holm=p, fell=p <= LEVEL)

    return tuple(
        replace(of, auc=judged(of.auc), calibration=judged(of.calibration)) for of in domains
    )


def _auc_change(
    found: Segmented, place: int, before: Mapping[str, float | None], margin: float
) -> Change | None:
    value, variance, df = found.auc.at(place)
    known = _known(before, "auc")
    if known is None or np.isnan(variance):
        return None
    difference = value - known[0]
    both, df = _welch(variance, df, known[1] ** 2, known[2] - 1)
    p = float(stdtr(df, (difference + margin) / both**0.5)) if both > 0 else 1.0
    return Change(known[0], difference, interval(difference, both, df), p)


def _calibration_change(
    found: Segmented, place: int, before: Mapping[str, float | None], margin: float
) -> Change | None:
    value, variance, df = found.calibration.at(place)
    known = _known(before, "calibration")
    if known is None or np.isnan(variance) or min(value, known[0]) <= 0:
        return None
    ratio = np.log(value / known[0])
    there = (known[1] / known[0]) ** 2
    both, df = _welch(variance / value**2, df, there, known[2] - 1)
    beyond = np.log1p(margin) - abs(ratio)
    # Either side may fail, so the side that does is tested at half the level.
    p = min(1.0, 2 * float(stdtr(df, beyond / both**0.5))) if both > 0 else 1.0
    low, high = interval(float(ratio), both, df)
    return Change(known[0], float(np.exp(ratio)), (float(np.exp(low)), float(np.exp(high))), p)


def _known(before: Mapping[str, float | None], name: str) -> tuple[float, float, float] | None:
    """A number of the validation rows, its standard error, and the clusters that it is of."""
    value, se, clusters = before.get(name), before.get(f"{name}_se"), before.get("clusters")
    if value is None or se is None or clusters is None or clusters < 2:
        return None
    return value, se, clusters


def _welch(here: float, here_df: float, there: float, there_df: float) -> tuple[float, float]:
    """The sum of two variances, and its degrees of freedom."""
    below = here**2 / max(here_df, 1.0) + there**2 / max(there_df, 1.0)
    return here + there, (here + there) ** 2 / below if below > 0 else max(here_df, 1.0)
