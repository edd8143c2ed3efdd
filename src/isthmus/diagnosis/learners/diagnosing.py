"""From a learner and its domains to a finished diagnosis: everything is checked before it begins."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from isthmus.diagnosis.finished import Diagnosis, measured, told, writable, write_report
from isthmus.diagnosis.learners.content import content_of
from isthmus.diagnosis.learners.learner import (
    ChoosingLearner,
    ContinuingLearner,
    CrossScoringLearner,
    DomainRows,
    IdentifyingLearner,
    Learner,
    ScaledLearner,
    WeighingLearner,
)
from isthmus.diagnosis.learners.learner_engine import LearnerEngine
from isthmus.diagnosis.learners.learner_phases import LearnerPhases
from isthmus.diagnosis.learners.learner_study import LearnerStudy
from isthmus.diagnosis.learners.row_metrics import LearnerMetric, RowMean, metrics_for
from isthmus.diagnosis.level import Level, level_named
from isthmus.diagnosis.support import Measured, Support, measured_of, too_few
from isthmus.errors import ConfigError, SchemaError
from isthmus.metrics.crossed import Replicate
from isthmus.metrics.effects import too_few_for_a_mean
from isthmus.printable import shown
from isthmus.run.notice import Listener, Notice, silent

LEAST_SEEDS = 2  # one training says nothing of another seed


@contextmanager
def prepared_learner(
    learner: Learner,
    domains: Mapping[str, DomainRows],
    out: str | Path,
    *,
    level: str,
    margin: float | Mapping[str, float],
    metrics: Sequence[str | RowMean] | None,
    seeds: int | None,
    progress: Listener | None,
) -> Iterator[LearnerStudy]:
    """Check everything, and open the engine. Give the study. The arguments are those of `diagnose`.

    Raises ConfigError, SchemaError or RunError, which names the argument, domain or folder.
    """
    tell = progress or silent
    _check_learner(learner, domains)
    labels = {name: _labels(learner, name, rows, "test") for name, rows in domains.items()}
    checked = {
        name: _labels(learner, name, rows, "validation")
        for name, rows in domains.items()
        if rows.validation_labels is not None
    }
    chosen = metrics_for(metrics, [*labels.values(), *checked.values()])
    missing = [name for name in domains if name not in checked]
    if isinstance(learner, ChoosingLearner) and missing:
        raise ConfigError(
            f"a learner with choices needs validation_labels of every domain, got none of {missing[0]!r}"
        )
    asked = _level(level, seeds, learner)
    binary = any(metric.name == "auc" for metric in chosen)
    rows = _test_rows(domains, labels, binary=binary)
    found = _measured(learner, domains, rows, chosen[0], binary=binary, pairs=asked.dear)
    content = {name: _content(learner, name, one) for name, one in domains.items()}
    folder = Path(out)
    with (
        writable(folder),
        LearnerEngine(
            domains,
            folder / "trainings",
            content=content,
            labels=labels,
            metrics=chosen,
            tell=lambda what, done, of: tell(
                Notice("diagnose", f"{what}: {done} of {of}", done / of)
            ),
        ) as engine,
    ):
        yield LearnerStudy(
            phases=LearnerPhases(learner, domains, found, asked),
            engine=engine,
            metrics=chosen,
            margins=_margins(margin, chosen),
            rows=rows,
            labels=labels,
            checked={} if missing else checked,
            clustered=any(one.clusters is not None for one in domains.values()),
            notes=_notes(learner, asked, grouped=not missing),
            tell=lambda text, done: tell(Notice("diagnose", text, done)),
        )


def diagnose_learner(study: LearnerStudy, out: str | Path) -> Diagnosis:
    """Train, measure, judge and write."""
    plan = study.plan()
    study.tell(str(shown(plan)), None)
    found = measured(
        study, crossed=_crosses(study.learner_phases.learner), groups=bool(study.checked)
    )
    advised = dict.fromkeys(study.measured.names, (None, None))
    report = told(study, plan, found, advised=advised)
    write_report(report, Path(out), study.tell)
    return Diagnosis(Path(out), report)


def _check_learner(learner: Learner, domains: Mapping[str, DomainRows]) -> None:
    for name in ("fingerprint", "count", "train", "score"):
        if not callable(getattr(learner, name, None)):
            raise ConfigError(
                f"a learner must have {name}, got {type(learner).__name__} without it"
            )
    if not isinstance(domains, Mapping) or len(domains) < 2:
        raise ConfigError("domains must be a mapping of at least 2 names to DomainRows")
    for name, rows in domains.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"a domain's name must be a text, got {name!r}")
        if not isinstance(rows, DomainRows):
            raise ConfigError(f"domain {name!r} must be DomainRows, got {type(rows).__name__}")
        for part in ("train", "test"):
            if learner.count(getattr(rows, part)) < 1:
                raise SchemaError(f"domain {name!r} must have {part} rows, got 0")


def _labels(learner: Learner, name: str, rows: DomainRows, part: str) -> np.ndarray:
    """Give the labels of one part as float64. Raises SchemaError where they do not fit its rows."""
    key = "labels" if part == "test" else "validation_labels"
    try:
        labels = np.asarray(getattr(rows, key), dtype=np.float64)
    except (TypeError, ValueError) as fault:
        raise SchemaError(f"domain {name!r}: {key} must be numbers: {fault}") from fault
    many = learner.count(getattr(rows, part))
    if labels.shape != (many,):
        raise SchemaError(
            f"domain {name!r}: {key} must be one for each of its {many:,} {part} rows, got shape"
            f" {labels.shape}"
        )
    if not np.isfinite(labels).all():
        at = int((~np.isfinite(labels)).argmax())
        raise SchemaError(f"domain {name!r}: {key} must be finite, got {labels[at]} for row {at}")
    return labels


def _test_rows(
    domains: Mapping[str, DomainRows],
    labels: Mapping[str, np.ndarray],
    *,
    binary: bool,
) -> dict[str, Replicate]:
    """Number the test rows of all domains, and their clusters; rows without one have -1.

    ``binary``: whether the labels are of two classes. A mean over rows does not read them.
    """
    given = {}
    for name, rows in domains.items():
        if rows.clusters is not None:
            given[name] = np.asarray(rows.clusters).astype(str)
            if given[name].shape != labels[name].shape:
                raise SchemaError(
                    f"domain {name!r}: clusters must be one for each of its"
                    f" {len(labels[name]):,} test rows, got shape {given[name].shape}"
                )
    known = np.unique(np.concatenate(list(given.values()))) if given else np.empty(0, dtype=str)
    found, first = {}, 0
    for name, of in labels.items():
        cluster = None
        if given:
            alone = np.full(len(of), -1)
            cluster = np.searchsorted(known, given[name]) if name in given else alone
        numbers = np.arange(first, first + len(of))
        label = of > 0 if binary else np.zeros(len(of), dtype=bool)
        found[name] = Replicate(row=numbers, label=label, cluster=cluster)
        first += len(of)
    return found


def _measured(
    learner: Learner,
    domains: Mapping[str, DomainRows],
    rows: Mapping[str, Replicate],
    lead: LearnerMetric,
    *,
    binary: bool,
    pairs: bool,
) -> Measured:
    """Choose the domains to measure: those that the leading metric can test."""
    support, left_out = {}, {}
    for name, held in rows.items():
        known = held.cluster
        clusters = len(held) if known is None or known[0] < 0 else len(np.unique(known))
        support[name] = Support(
            rows=len(held),
            positives=int(held.label.sum()) if binary else None,
            clusters=clusters,
            train_rows=learner.count(domains[name].train),
        )
        mean = too_few_for_a_mean(len(held), clusters)
        why = too_few(support[name]) if lead.name == "auc" else mean
        if why is not None:
            left_out[name] = why
    return measured_of(tuple(domains), support, left_out, pairs=pairs)


def _content(learner: Learner, name: str, rows: DomainRows) -> str:
    """Give a hash of all that a domain brings."""
    parts = [rows.train, rows.validation, rows.test]
    if isinstance(learner, IdentifyingLearner):
        parts = [learner.identify(part) for part in parts]
    try:
        return content_of([name, *parts])
    except TypeError as fault:
        raise ConfigError(f"domain {name!r}: {fault}") from fault


def _level(name: str, seeds: int | None, learner: Learner) -> Level:
    """Give the level as far as the learner goes."""
    level = level_named(name)
    if seeds is not None and seeds < LEAST_SEEDS:
        raise ConfigError(f"seeds must be at least {LEAST_SEEDS}, got {seeds}")
    many = seeds or level.seeds
    stages = level.stages and isinstance(learner, ContinuingLearner)
    return replace(level, seeds=many, few=min(level.few, many), stages=stages, adapted=False)


def _margins(
    margin: float | Mapping[str, float], metrics: Sequence[LearnerMetric]
) -> dict[str, float]:
    names = [metric.name for metric in metrics]
    held = dict(margin) if isinstance(margin, Mapping) else dict.fromkeys(names, margin)
    if set(held) != set(names):
        raise ConfigError(f"margin must be one number, or one for each of {names}, got {held}")
    for name, value in held.items():
        if not 0 < value < np.inf:
            raise ConfigError(f"margin must be above 0, got {value} for {name}")
    return {name: float(held[name]) for name in names}


def _crosses(learner: Learner) -> bool:
    return isinstance(learner, CrossScoringLearner)


def _notes(learner: Learner, level: Level, *, grouped: bool) -> list[str]:
    """Say what is not measured, and why."""
    notes = [
        "the learner decides batch, rate and patience of each arm; intervals do not cover another"
        " draw of train rows"
    ]
    absent: list[tuple[bool, str]] = [
        (
            level.name != "quick" and not isinstance(learner, ContinuingLearner),
            "transfer T and interference I: the learner has no second_stage_steps",
        ),
        (not _crosses(learner), "cross-scores: the learner has no score_unseen"),
        (level.dear and not grouped, "groups: they are chosen by validation_labels"),
        (
            level.dear and not isinstance(learner, ScaledLearner),
            "capacity: the learner has no at_widths",
        ),
        (
            level.dear and not isinstance(learner, WeighingLearner),
            "weightings of losses: the learner has no weightings",
        ),
        (level.dear, "pairs of equal rows: only the learner could cut its rows"),
        (True, "adapters, early gradients and likeness: they need one of our networks"),
    ]
    return notes + [f"not measured: {text}" for there, text in absent if there]
