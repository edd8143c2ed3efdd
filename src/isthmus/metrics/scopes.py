"""Scopes: each domain, all rows pooled, two means over the domains, the worst domain."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from isthmus.metrics.formulas import AUC
from isthmus.metrics.formulas.metric import ScopeCounts
from isthmus.metrics.intervals import LEVEL
from isthmus.metrics.scored_rows import ScoredRows
from isthmus.metrics.spread import Cells, Seeds
from isthmus.metrics.text_table import TextTable, count_text, largest

Told = TypeVar("Told", bound=Any)  # Figures, or a Pair of them


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One scope: its counts, and value, variance and degrees of freedom by a value's name.

    ``defined``: of a mean, the number of domains that it covers, by a value's name.
    """

    counts: ScopeCounts
    spreads: Mapping[str, tuple[float, float, float]]
    defined: Mapping[str, int] | None = None


class Scopes:
    """The scopes of some rows; reads the estimates of any model that scored them."""

    def __init__(self, rows: ScoredRows) -> None:
        width = len(rows.names) + 1
        self.cells = Cells.of(rows.domain, rows.group, len(rows.names))
        self.rows = np.bincount(rows.domain, minlength=width)
        self.positives = np.bincount(rows.domain[rows.label], minlength=width)
        self.clusters = np.bincount(self.cells.domain, minlength=width)
        self.grouped, self.weighted = rows.group is not None, rows.weight is not None

    def _counts(self, at: slice, clusters: int) -> ScopeCounts:
        rows, positives = int(self.rows[at].sum()), int(self.positives[at].sum())
        return ScopeCounts(rows, positives, clusters, grouped=self.grouped, weighted=self.weighted)

    def domains(self, seeds: Mapping[str, Seeds]) -> list[Scope]:
        """Every domain, in the order of the names."""
        spreads = {name: of.domains() for name, of in seeds.items()}
        return [
            Scope(
                self._counts(slice(at, at + 1), int(self.clusters[at])),
                {name: spread.at(at) for name, spread in spreads.items()},
            )
            for at in range(1, len(self.rows))
        ]

    def pooled(self, seeds: Mapping[str, Seeds]) -> Scope:
        """All rows together, those without a domain too."""
        counts = self._counts(slice(None), self.cells.n_clusters)
        return Scope(counts, {name: of.pooled().at(0) for name, of in seeds.items()})

    def mean(self, seeds: Mapping[str, Seeds], *, by_rows: bool) -> Scope:
        """Mean over the domains where each value is defined: equal shares, or by rows."""
        rows = self.rows if by_rows else np.ones(len(self.rows))
        shares = {name: of.share(rows) for name, of in seeds.items()}
        with_auc = (shares[AUC.name] > 0)[self.cells.domain]
        clusters = np.count_nonzero(np.bincount(self.cells.cluster[with_auc]))
        return Scope(
            self._counts(slice(1, None), int(clusters)),
            {name: of.mean(shares[name]).at(0) for name, of in seeds.items()},
            {name: int((share > 0).sum()) for name, share in shares.items()},
        )


def worst_domain(seeds: Mapping[str, Seeds], names: Sequence[str]) -> str | None:
    """Name of the domain with the lowest AUC, the first of equals; None where there is none."""
    value = seeds[AUC.name].value[1:]
    return None if np.isnan(value).all() else names[int(np.nanargmin(value))]


@dataclass(frozen=True, slots=True, kw_only=True)
class AbstractResult(ABC, Generic[Told]):
    """What is told of every scope of one split, as a table and as plain values."""

    split: str
    seeds: int
    clusters: str  # "group" or "row": what the intervals treat as drawn independently
    domains: dict[str, Told]
    pooled: Told
    macro: Told
    weighted: Told
    worst: Told
    notes: tuple[str, ...] = ()
    level: float = LEVEL

    @property
    @abstractmethod
    def title(self) -> str:
        """The title of every table of this result."""

    @abstractmethod
    def _header(self) -> tuple[str, ...]:
        """Heads of the columns, from the third on."""

    @abstractmethod
    def _cells(self, of: Told) -> tuple[str, ...]:
        """Cells of one scope, from the third column on."""

    @abstractmethod
    def _remarks(self, shown: Sequence[tuple[str, Told]]) -> Iterable[str]:
        """Lines below the table; ``shown``: every scope in it, by name."""

    @property
    def _rows_and_seeds(self) -> str:
        rows, seeds = count_text(self.pooled.rows, "row"), count_text(self.seeds, "seed")
        return (
            f"{self.split} split, {rows}, {seeds};"
            f" {self.level:.0%} intervals, {self.clusters}s drawn independently"
        )

    def scopes(self) -> dict[str, Told]:
        """Pooled, macro, weighted and worst, by the names that tables give them."""
        worst = f"worst ({self.worst.domain})" if self.worst.domain is not None else "worst"
        return {
            "pooled": self.pooled,
            "macro": self.macro,
            "weighted": self.weighted,
            worst: self.worst,
        }

    def table(self) -> TextTable:
        """Show the domains, then the scopes over them, as text."""
        names, left = largest({name: of.rows for name, of in self.domains.items()})
        shown = [*((name, self.domains[name]) for name in names), *self.scopes().items()]
        return TextTable(
            title=self.title,
            header=("domain", "rows", *self._header()),
            rows=tuple((name, f"{of.rows:,}", *self._cells(of)) for name, of in shown),
            notes=(*self._remarks(shown), *([left] if left else [])),
            rules=(len(names),),
        )

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def _scopes_to_dict(self) -> dict[str, Any]:
        return {
            "domains": {name: of.to_dict() for name, of in self.domains.items()},
            "pooled": self.pooled.to_dict(),
            "macro": self.macro.to_dict(),
            "weighted": self.weighted.to_dict(),
            "worst": self.worst.to_dict(),
        }


def names_by_remark(remarks: Iterable[tuple[str, str | None]]) -> dict[str, list[str]]:
    """Names of the scopes that share a remark, from pairs of a name and its remark, if any."""
    found: dict[str, list[str]] = {}
    for name, told in remarks:
        if told:
            found.setdefault(told, []).append(name)
    return found


def coverage_note(seeds: int) -> str:
    """Say what the intervals cover, as every report must."""
    if seeds == 1:
        return "Intervals cover the draw of test rows, not retraining (1 seed)."
    return f"Intervals cover the draw of test rows and retraining ({seeds} seeds)."
