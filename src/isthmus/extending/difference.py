"""diff(): what changed from one bundle to another: domains, vocabularies, settings, metrics, scores."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.stats import rankdata

from isthmus.bundle import MANIFEST, Bundle, to_score
from isthmus.config import differences
from isthmus.data import Vocabulary, open_table
from isthmus.errors import RunError
from isthmus.metrics import TextTable
from isthmus.metrics.text_table import NOTHING, largest, number
from isthmus.run import Run
from isthmus.run.fit_plan import without_table
from isthmus.run.folder import RunFolder

NONE = "(no domain)"
NOT_TRAINED = "(not trained)"


@dataclass(frozen=True, slots=True)
class VocabularyChange:
    """Ids of one vocabulary. ``moved``: values that both know, by another id."""

    a: int
    b: int
    added: int
    removed: int
    moved: int


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """Scores of the rows of one domain, b - a, as probabilities. ``same``: rows with the same bits.

    ``rank_correlation``: Spearman's; None where all scores of a side are equal.
    """

    rows: int
    same: int
    mean: float
    largest: float
    rank_correlation: float | None


@dataclass(frozen=True, slots=True)
class BundleDifference:
    """What changed from bundle a to bundle b.

    ``metrics``: AUC of the test rows by domain, of a and of b, where both are runs. ``scores``: by domain, of
    the table that was given.
    """

    a: str
    b: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    vocabularies: Mapping[str, VocabularyChange]
    config: tuple[str, ...]
    metrics: Mapping[str, tuple[float | None, float | None]]
    scores: Mapping[str, ScoreChange]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"a = {self.a}, b = {self.b}", ""]
        for word, names in (("added", self.added), ("removed", self.removed)):
            lines.append(f"domains {word}: {', '.join(names) or 'none'}")
        lines.append(f"domains in both: {len(self.kept):,}")
        lines += [f"config: {text}" for text in self.config]
        parts = ["\n".join(lines), str(self._vocabulary_table())]
        if self.metrics:
            parts.append(str(self._metric_table()))
        if self.scores:
            parts.append(str(self._score_table()))
        return "\n\n".join(parts)

    def _vocabulary_table(self) -> TextTable:
        rows = [
            (name, *(f"{value:,}" for value in (of.a, of.b, of.added, of.removed, of.moved)))
            for name, of in self.vocabularies.items()
        ]
        header = ("vocabulary", "ids a", "ids b", "added", "removed", "moved")
        return TextTable("ids, the unknown one counted", header, tuple(rows))

    def _metric_table(self) -> TextTable:
        rows = [(name, number(a), number(b)) for name, (a, b) in self.metrics.items()]
        note = "Each run's own test rows, which need not be the same."
        return TextTable("AUC of the test rows", ("domain", "a", "b"), tuple(rows), (note,))

    def _score_table(self) -> TextTable:
        shown, more = largest({name: of.rows for name, of in self.scores.items()})
        rows = []
        for name in shown:
            of = self.scores[name]
            correlation = NOTHING if of.rank_correlation is None else f"{of.rank_correlation:.4f}"
            change = number(of.mean, signed=True), f"{of.largest:.2g}"
            rows.append((name, f"{of.rows:,}", f"{of.same:,}", *change, correlation))
        header = ("domain", "rows", "same bits", "mean b - a", "largest", "rank corr.")
        notes = () if more is None else (more,)
        return TextTable("scores of the table", header, tuple(rows), notes)


def diff(
    a: str | Path | Run | Bundle, b: str | Path | Run | Bundle, *, table: Any = None
) -> BundleDifference:
    """Say what changed from bundle ``a`` to bundle ``b``.

    ``a``, ``b``: bundles, their folders, runs, or run folders. ``table``: rows that both score; a path or a
    frame. Raises RunError where something is neither a run nor a bundle, and what `Bundle.load` and
    `Bundle.score` raise.
    """
    left, right = _opened(a), _opened(b)
    first, second = left.bundle, right.bundle
    old, new = first.domains, second.domains
    return BundleDifference(
        a=left.name,
        b=right.name,
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        kept=tuple(name for name in old if name in new),
        vocabularies=_vocabularies(first.encoder.vocabularies, second.encoder.vocabularies),
        config=tuple(differences(without_table(first.config), without_table(second.config))),
        metrics=_metrics(left.run, right.run),
        scores={} if table is None else _scores(first, second, table),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    name: str
    bundle: Bundle
    run: Run | None = None


def _opened(given: str | Path | Run | Bundle) -> _Side:
    if isinstance(given, Bundle):
        return _Side("bundle", given)
    if isinstance(given, Run):
        return _Side(given.name, given.bundle, given)
    path = Path(given)
    if (path / MANIFEST).is_file():
        return _Side(str(path), Bundle.load(path))
    if not path.is_dir():
        raise RunError(f"a run folder or a bundle must exist, got {path}")
    run = Run.open(path)
    return _Side(str(path), run.bundle, run)


def _metrics(a: Run | None, b: Run | None) -> dict[str, tuple[float | None, float | None]]:
    """AUC of the test rows by domain, where both are runs that have some."""
    runs = [one for one in (a, b) if one is not None and RunFolder(one.path).has_scores("test")]
    if len(runs) < 2:
        return {}
    ours, theirs = (one.evaluate().domains for one in runs)
    return {
        name: (
            ours[name].auc if name in ours else None,
            theirs[name].auc if name in theirs else None,
        )
        for name in dict.fromkeys([*ours, *theirs])
    }


def _vocabularies(
    a: Mapping[str, Vocabulary], b: Mapping[str, Vocabulary]
) -> dict[str, VocabularyChange]:
    found = {}
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            rows = (a[name].rows if name in a else 0, b[name].rows if name in b else 0)
            found[name] = VocabularyChange(*rows, max(rows[1] - 1, 0), max(rows[0] - 1, 0), 0)
            continue
        old, new = a[name], b[name]
        if old.hash_buckets is not None or new.hash_buckets is not None or old.kind != new.kind:
            found[name] = VocabularyChange(old.rows, new.rows, 0, 0, 0)
            continue
        place = new.ids_of_values(old.values)  # where b has each value of a
        both = int(np.count_nonzero(place))
        moved = int(np.count_nonzero((place != np.arange(1, len(place) + 1)) & (place > 0)))
        found[name] = VocabularyChange(
            old.rows, new.rows, new.rows - 1 - both, old.rows - 1 - both, moved
        )
    return found


def _scores(a: Bundle, b: Bundle, table: Any) -> dict[str, ScoreChange]:
    """How the scores of each domain changed; rows are counted under names that either bundle knows."""
    opened = open_table(table)
    ours = a.score(opened)
    names = [*dict.fromkeys([*a.domains, *b.domains]), NOT_TRAINED, NONE]
    places = {name: place for place, name in enumerate(names)}
    codes, scores = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    for scored in b.score_blocks(opened):
        encoded = scored.encoded
        told = encoded.domain_names.to_pylist()
        code = np.array([*(places.get(name, len(names) - 2) for name in told), len(names) - 1])
        codes.append(code[encoded.domain_codes])
        scores.append(to_score(scored.logits, b.config.data.negative_rate))
    domain, theirs = np.concatenate(codes), np.concatenate(scores)
    found = {}
    for place, name in enumerate(names):
        at = np.flatnonzero(domain == place)
        if len(at):
            found[name] = _change(ours[at], theirs[at])
    return found


def _change(a: Float64[np.ndarray, " rows"], b: Float64[np.ndarray, " rows"]) -> ScoreChange:
    ranks = np.stack([rankdata(a), rankdata(b)])
    varied = np.ptp(ranks, axis=1).min() > 0
    return ScoreChange(
        rows=len(a),
        same=int(np.count_nonzero(a.view(np.int64) == b.view(np.int64))),
        mean=float((b - a).mean()),
        largest=float(np.abs(b - a).max()),
        rank_correlation=float(np.corrcoef(ranks)[0, 1]) if varied else None,
    )
