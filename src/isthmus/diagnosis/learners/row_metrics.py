"""What the scores of a learner are measured by: AUC, and means over rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from isthmus.errors import ConfigError
from isthmus.metrics.formulas import PAIRED, Metric, row_mean
from isthmus.report.diagnosis.words import METRICS, MetricWords

Values = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class RowMean:
    """A metric that is a mean over rows, with one value a row.

    ``name``: its key in the report, of small letters, digits and ``_``. ``of``: from labels (rows,)
    and scores (rows,) or (rows, classes), both float64, the value of each row. ``unit``: of a
    value, such as ``nats``.

    >>> RowMean("absolute_error", lambda y, s: abs(y - s), larger_is_better=False).words.title
    'absolute error'
    """

    name: str
    of: Values
    larger_is_better: bool
    unit: str = ""

    def __post_init__(self) -> None:
        plain = self.name.replace("_", "")
        if not (plain.isascii() and plain.isalnum() and plain == plain.lower()):
            raise ConfigError(
                f"a metric's name must be of small letters, digits and _, got {self.name!r}"
            )

    @property
    def words(self) -> MetricWords:
        """What the metric is called."""
        title = self.name.replace("_", " ")
        unit = f" {self.unit}" if self.unit else ""
        return MetricWords(self.name, title, title, unit, self.larger_is_better)

    @property
    def metric(self) -> Metric:
        """The metric as a reader takes it."""
        title = self.name.replace("_", " ")
        return row_mean(self.name, title, larger_is_better=self.larger_is_better)

    def read(self, labels: Float64[np.ndarray, " rows"], scores: np.ndarray) -> np.ndarray:
        """Give the value of each row, (rows,). Raises ValueError for any other shape."""
        values = np.asarray(self.of(labels, scores), dtype=np.float64)
        if values.shape != labels.shape:
            raise ValueError(f"{self.name} must give shape {labels.shape}, got {values.shape}")
        if not np.isfinite(values).all():
            at = int((~np.isfinite(values)).argmax())
            raise ValueError(f"{self.name} must be finite, got {values[at]} for row {at}")
        return values


@dataclass(frozen=True, slots=True, eq=False)
class RankedRows:
    """The AUC: labels of 0 and 1, and scores of which order alone counts."""

    name: str = "auc"
    larger_is_better: bool = True

    @property
    def words(self) -> MetricWords:
        """What the metric is called."""
        return METRICS["auc"]

    @property
    def metric(self) -> Metric:
        """The metric as a reader takes it."""
        return PAIRED["auc"]

    def read(self, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """Give the score of each row, (rows,); of two columns, the last."""
        if scores.ndim == 2 and scores.shape[1] == 2:
            return scores[:, 1]
        if scores.ndim != 1:
            raise ValueError(f"auc needs scores (rows,) or (rows, 2), got {scores.shape}")
        return scores


LearnerMetric = RowMean | RankedRows


def _right(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    found = scores.argmax(1) if scores.ndim == 2 else scores > 0.5
    return found == labels


def _logloss(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    if scores.ndim == 1:
        scores = np.stack([1 - scores, scores], axis=1)
    if labels.max(initial=0) >= scores.shape[1]:
        raise ValueError(f"a label must be below {scores.shape[1]} classes, got {labels.max():g}")
    chance = scores[np.arange(len(labels)), labels.astype(np.int64)]
    if not ((scores >= 0) & (scores <= 1)).all() or (chance <= 0).any():
        raise ValueError(
            "logloss needs probabilities of 0 to 1, and above 0 for the label, got"
            f" {scores.min():g} to {scores.max():g}, {chance.min():g} for a label"
        )
    return -np.log(chance)


def _squared(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    if scores.ndim != 1:
        raise ValueError(f"squared_error needs scores (rows,), got {scores.shape}")
    return (labels - scores) ** 2


NAMED: dict[str, LearnerMetric] = {
    "auc": RankedRows(),
    "accuracy": RowMean("accuracy", _right, larger_is_better=True),
    "logloss": RowMean("logloss", _logloss, larger_is_better=False, unit="nats"),
    "squared_error": RowMean("squared_error", _squared, larger_is_better=False),
}
OF_CLASSES = ("accuracy", "logloss")  # of the named ones: labels are classes from 0


def metrics_for(
    asked: Sequence[str | RowMean] | None, labels: Sequence[np.ndarray]
) -> list[LearnerMetric]:
    """Give the metrics that were asked for.

    The default is AUC where all labels are 0 or 1, accuracy where they are whole and at least 0,
    and squared error elsewhere. Raises ConfigError for a name that is not known or comes twice, and
    where labels do not suit a metric.
    """
    every = np.concatenate(labels)
    binary = bool(((every == 0) | (every == 1)).all())
    classes = bool(((every >= 0) & (every == np.floor(every))).all())
    if asked is None:
        asked = ["auc" if binary else "accuracy" if classes else "squared_error"]
    found: list[LearnerMetric] = []
    for one in asked:
        if isinstance(one, str) and one not in NAMED:
            raise ConfigError(f"metrics must be of {', '.join(NAMED)} or a RowMean, got {one!r}")
        found.append(NAMED[one] if isinstance(one, str) else one)
    names = [metric.name for metric in found]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"metrics must be at least one, and differ, got {names}")
    if "auc" in names and not binary:
        raise ConfigError("auc needs labels of 0 and 1; accuracy takes classes")
    if not classes and any(name in OF_CLASSES for name in names):
        raise ConfigError(f"{' and '.join(OF_CLASSES)} need labels that are classes from 0")
    return found
