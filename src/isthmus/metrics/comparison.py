"""compare(): the paired difference of two models on the same rows, with its interval."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from isthmus.metrics.differences import Comparison, Difference, Pair
from isthmus.metrics.estimates import estimate_auc, estimate_logloss
from isthmus.metrics.evaluation import coverage_note
from isthmus.metrics.intervals import (
    Cells,
    Estimate,
    Spread,
    domain_spread,
    holm,
    interval,
    mean_spread,
    p_value,
    pooled_spread,
)
from isthmus.metrics.scopes import ScopeCounts
from isthmus.metrics.scored_rows import ScoredRows, align


def compare(
    a: ScoredRows | Sequence[ScoredRows], b: ScoredRows | Sequence[ScoredRows]
) -> Comparison:
    """Paired difference b - a of AUC and logloss, with intervals from psi_b - psi_a by clusters.

    Each side is one model, or one model trained with several seeds (as many on both sides; seed k
    of a is paired with seed k of b). Raises RunError, saying what differs, unless all score the
    same rows of one split with the same labels, domains, weights and groups; ValueError where the
    numbers of seeds differ.
    """
    left = [a] if isinstance(a, ScoredRows) else list(a)
    right = [b] if isinstance(b, ScoredRows) else list(b)
    if not left or len(left) != len(right):
        raise ValueError(f"both sides must have as many seeds, got {len(left)} and {len(right)}")
    runs = align([*left, *right])
    first, seeds = runs[0], len(left)
    cells = Cells.of(first.domain, first.group, len(first.names))
    estimates = {
        "auc": tuple(estimate_auc(run, cells) for run in runs),
        "logloss": tuple(estimate_logloss(run, cells) for run in runs),
    }
    reading = _Reading(first, cells, seeds, estimates)
    domains = reading.domains()
    worst = reading.worst_at()
    name = None if worst is None else first.names[worst - 1]
    notes = [coverage_note(seeds), "p per domain: Holm-adjusted; p below the line: not adjusted."]
    return Comparison(
        split=first.split,
        seeds=seeds,
        clusters="row" if first.group is None else "group",
        a=left[0].source or "a",
        b=right[0].source or "b",
        domains=dict(zip(first.names, domains, strict=True)),
        pooled=reading.pooled(),
        macro=reading.mean(by_rows=False),
        weighted=reading.mean(by_rows=True),
        worst=_no_worst() if worst is None else replace(_plain(domains[worst - 1]), domain=name),
        notes=tuple(notes),
    )


def _plain(pair: Pair) -> Pair:
    """The same pair without Holm's p, which belongs to the list of domains."""
    return replace(
        pair, auc=replace(pair.auc, p_holm=None), logloss=replace(pair.logloss, p_holm=None)
    )


def _no_worst() -> Pair:
    why = "no domain has an AUC"
    auc = Difference(None, None, None, None, None, larger_is_better=True, reason=why)
    return Pair(0, 0, auc, replace(auc, larger_is_better=False))


class _Reading:
    """The estimates of both models, read scope by scope."""

    def __init__(
        self,
        rows: ScoredRows,
        cells: Cells,
        seeds: int,
        estimates: dict[str, tuple[Estimate, ...]],
    ) -> None:
        width = len(rows.names) + 1
        self.cells, self.names = cells, rows.names
        self.grouped, self.weighted = rows.group is not None, rows.weight is not None
        self.rows = np.bincount(rows.domain, minlength=width)
        self.positives = np.bincount(rows.domain[rows.label], minlength=width)
        self.clusters = np.bincount(cells.domain, minlength=width)
        self.a = {metric: of[:seeds] for metric, of in estimates.items()}
        self.b = {metric: of[seeds:] for metric, of in estimates.items()}
        self.paired = {
            metric: [right - left for left, right in zip(of[:seeds], of[seeds:], strict=True)]
            for metric, of in estimates.items()
        }

    def _support(self, at: slice, clusters: int) -> ScopeCounts:
        rows, positives = int(self.rows[at].sum()), int(self.positives[at].sum())
        return ScopeCounts(rows, positives, clusters, grouped=self.grouped, weighted=self.weighted)

    def domains(self) -> list[Pair]:
        spreads = {metric: domain_spread(of, self.cells) for metric, of in self.paired.items()}
        a, b = _domain_means(self.a), _domain_means(self.b)
        pairs = [
            _pair(
                self._support(slice(at, at + 1), int(self.clusters[at])),
                {metric: (float(a[metric][at]), float(b[metric][at])) for metric in spreads},
                spreads,
                at,
            )
            for at in range(1, len(self.names) + 1)
        ]
        auc = _with_holm([pair.auc for pair in pairs])
        logloss = _with_holm([pair.logloss for pair in pairs])
        return [
            replace(pair, auc=left, logloss=right)
            for pair, left, right in zip(pairs, auc, logloss, strict=True)
        ]

    def pooled(self) -> Pair:
        spreads = {metric: pooled_spread(of) for metric, of in self.paired.items()}
        values = {
            metric: (_mean_pooled(self.a[metric]), _mean_pooled(self.b[metric]))
            for metric in spreads
        }
        return _pair(self._support(slice(None), self.cells.n_clusters), values, spreads, 0)

    def mean(self, *, by_rows: bool) -> Pair:
        spreads: dict[str, Spread] = {}
        values: dict[str, tuple[float, float]] = {}
        a, b = _domain_means(self.a), _domain_means(self.b)
        for metric, paired in self.paired.items():
            defined = ~np.isnan(a[metric])
            defined[0] = False
            size = defined * (self.rows if by_rows else 1.0)
            share = size / max(size.sum(), 1.0)
            spread = mean_spread(paired, self.cells, share)
            if not defined.any():
                spread = replace(spread, value=np.array([np.nan]))
            spreads[metric] = spread
            part = share[defined]
            values[metric] = (
                float(a[metric][defined] @ part),
                float(b[metric][defined] @ part),
            )
        support = self._support(slice(1, None), int(spreads["auc"].clusters[0]))
        return _pair(support, values, spreads, 0)

    def worst_at(self) -> int | None:
        """Id of the domain where a has its lowest AUC."""
        value = _domain_means(self.a)["auc"][1:]
        return None if np.isnan(value).all() else int(np.nanargmin(value)) + 1


def _domain_means(estimates: dict[str, tuple[Estimate, ...]]) -> dict[str, np.ndarray]:
    return {
        metric: np.mean([of.value for of in each], axis=0) for metric, each in estimates.items()
    }


def _mean_pooled(estimates: Sequence[Estimate]) -> float:
    return float(np.mean([estimate.pooled for estimate in estimates]))


def _with_holm(differences: list[Difference]) -> list[Difference]:
    """Adjust the p values over the domains that have one."""
    adjusted = iter(holm([of.p for of in differences if of.p is not None]))
    return [of if of.p is None else replace(of, p_holm=next(adjusted)) for of in differences]


def _pair(
    support: ScopeCounts,
    values: dict[str, tuple[float, float]],
    spreads: dict[str, Spread],
    at: int,
) -> Pair:
    both = {
        metric: _difference(support, metric, *values[metric], spread, at)
        for metric, spread in spreads.items()
    }
    return Pair(support.rows, support.positives, both["auc"], both["logloss"])


def _difference(
    support: ScopeCounts, metric: str, a: float, b: float, spread: Spread, at: int
) -> Difference:
    larger = metric == "auc"
    difference = float(spread.value[at])
    if np.isnan(difference):
        why = support.reason(metric)
        return Difference(None, None, None, None, None, larger_is_better=larger, reason=why)
    known = Difference(a, b, difference, None, None, larger_is_better=larger)
    variance, df = float(spread.variance[at]), float(spread.df[at])
    if larger and support.weighted:
        return replace(known, reason="rows have weights: DeLong's variance holds for rows without")
    if np.isnan(variance):
        unit = "group" if support.grouped else "row"
        return replace(known, reason=f"one {unit}: nothing to estimate a spread from")
    if variance == 0 and difference != 0:
        return replace(known, reason="no spread among rows: nothing to estimate an interval from")
    return replace(
        known,
        ci=interval(difference, variance, df),
        p=p_value(difference, variance, df),
        note=support.rough() if larger else None,
    )
