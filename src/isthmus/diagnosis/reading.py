"""The test rows of a table's domains in every replicate, and our networks' arms on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Int64

from isthmus.data.encoding.roles import vocabulary_name
from isthmus.data.store.dataset import Dataset
from isthmus.data.store.split import SplitName
from isthmus.data.tables import values as v
from isthmus.diagnosis.abstract_reading import AbstractReading
from isthmus.errors import ConfigError
from isthmus.experiments import Outcome
from isthmus.metrics.crossed import Replicate
from isthmus.metrics.effects import MeasuredArm, Reader
from isthmus.metrics.formulas import PAIRED, Metric
from isthmus.metrics.scored_rows import corrected, effective_weight

METRICS: Mapping[str, Metric] = {**PAIRED}


@dataclass(frozen=True, slots=True)
class Margins:
    """Differences that do not matter: in AUC, and as a share of the solo's logloss."""

    auc: float = 0.005
    logloss: float = 0.005

    def of(self, metric: str, solo: float | None) -> float:
        """The margin in the metric's own unit; ``solo``: the solo's mean."""
        return self.auc if metric == "auc" else self.logloss * (solo or 1.0)


class ReplicateRows:
    """The rows of every domain in every replicate, cut out once.

    ``item``: a categorical feature whose values are the second way of clustering, or None.
    Clusters and items have the same numbers in every replicate, whatever their keys and ids there.
    Raises ConfigError where there is no such feature, or where it is the domain or the group.
    """

    def __init__(self, datasets: Sequence[Dataset], item: str | None) -> None:
        self.datasets = tuple(datasets)
        self.negative_rate = datasets[0].config.negative_rate
        self.item_column = None if item is None else _column(datasets[0], item)
        self.items = None if item is None else _item_numbers(datasets, item)
        self._cut: dict[tuple[str, SplitName, int], Replicate] = {}

    @cached_property
    def groups(self) -> Int64[np.ndarray, " groups"]:
        """Keys of all groups that are tested, ascending: hashes of any sign, or numbers."""
        keys = [
            np.unique(group)
            for dataset in dict.fromkeys(self.datasets)
            for split in ("validation", "test")
            if (group := dataset.rows(split).group) is not None
        ]
        return np.unique(np.concatenate(keys))

    def positions(self, domain: str, k: int, split: SplitName = "test") -> np.ndarray:
        """Positions of a domain's rows in a split of replicate ``k``."""
        dataset = self.datasets[k]
        number = dataset.domain_names.index(domain) + 1
        return np.flatnonzero(np.asarray(dataset.rows(split).domain) == number)

    def replicate(self, domain: str, k: int, split: SplitName = "test") -> Replicate:
        """A domain's rows in replicate ``k``."""
        key = (domain, split, k)
        if key not in self._cut:
            rows, at = self.datasets[k].rows(split), self.positions(domain, k, split)
            item = None
            if self.item_column is not None and self.items is not None:
                item = self.items[k][rows.arrays.categorical[at, self.item_column]]
            cluster = None
            if rows.group is not None:
                cluster = np.searchsorted(self.groups, rows.group[at])
            self._cut[key] = Replicate(
                row=rows.row[at],
                label=rows.label[at] > 0,
                cluster=cluster,
                item=item,
                weight=None if rows.weight is None else rows.weight[at].astype(np.float64),
            )
        return self._cut[key]

    def seen(self, domain: str, k: int, solo: Outcome) -> np.ndarray:
        """Which test rows hold only values that the domain's own solo knew.

        Of single categorical values; the domain's own column and lists are left aside.
        """
        dataset = self.datasets[k]
        known = solo.training.subset(dataset).masks
        assert known is not None
        at = self.positions(domain, k)
        ids = dataset.rows("test").arrays.categorical[at]
        fields = [field for field in dataset.encoder.fields if field.kind == "categorical"]
        kept = np.ones(len(at), dtype=bool)
        for column, field in enumerate(fields):
            if not field.is_domain:
                kept &= known.categorical[column][ids[:, column]] & (ids[:, column] > 0)
        return kept


def _column(dataset: Dataset, item: str) -> int:
    fields = [field.name for field in dataset.encoder.fields if field.kind == "categorical"]
    taken = (dataset.config.domain, dataset.config.group)
    able = [name for name in fields if name in dataset.config.features and name not in taken]
    if item not in able:
        raise ConfigError(
            f"item must be a categorical feature beside domain and group, {', '.join(able)},"
            f" got {item!r}"
        )
    return fields.index(item)


def _item_numbers(datasets: Sequence[Dataset], item: str) -> tuple[Int64[np.ndarray, " ids"], ...]:
    """By replicate: the number of each of the item's ids; -1 for the unknown, which is no item.

    An id means another value in another fold, whose vocabulary has seen other train rows.
    """
    keys = {}
    for dataset in dict.fromkeys(datasets):
        words = dataset.encoder.vocabularies[vocabulary_name(dataset.config, item)]
        if words.hash_buckets is not None:
            keys[dataset] = np.arange(1, words.rows, dtype=np.int64)
        else:
            given = v.hash_text(words.values) if words.is_text else words.values.to_numpy()
            keys[dataset] = given
    known = np.unique(np.concatenate(list(keys.values())))
    return tuple(np.append(-1, np.searchsorted(known, keys[dataset])) for dataset in datasets)


class DomainReading(AbstractReading[Outcome]):
    """All arms of one domain on its rows in ``split``, for the first ``replicates`` of them."""

    def __init__(
        self,
        rows: ReplicateRows,
        domain: str,
        replicates: int,
        margins: Margins,
        *,
        keep: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.domain = domain
        self.margins = margins
        self.many = replicates
        self.keep = keep
        self.rate = rows.negative_rate
        held = [rows.replicate(domain, k) for k in range(replicates)]
        if keep is not None:
            held = [one.take(mask) for one, mask in zip(held, keep, strict=True)]
        self.held = held

    @property
    def readers(self) -> dict[str, Reader]:
        """One reader a metric, AUC first."""
        return self._readers

    @cached_property
    def _readers(self) -> dict[str, Reader]:
        """One reader a metric; a logloss is that of the table before its negatives were thinned."""
        whole = self.held
        if self.rate != 1.0:
            whole = [
                replace(one, weight=effective_weight(one.label, one.weight, self.rate))
                for one in self.held
            ]
        return {
            of: Reader(whole if metric.unthinned else self.held, metric)
            for of, metric in METRICS.items()
        }

    def measure(self, metric: str, outcomes: Sequence[Outcome]) -> MeasuredArm:
        """One arm, from its outcome in each replicate."""
        return self.measure_logits(
            metric, [outcome.logits("test", self.domain) for outcome in outcomes[: self.many]]
        )

    def measure_logits(self, metric: str, logits: Sequence[np.ndarray]) -> MeasuredArm:
        """One arm, from the logits of the domain's test rows in each replicate, in table order."""
        if self.keep is not None:
            logits = [one[mask] for one, mask in zip(logits, self.keep, strict=True)]
        if METRICS[metric].unthinned:
            logits = [corrected(one, self.rate) for one in logits]
        return self.readers[metric].measure(logits)

    def margin_of(self, metric: str, solo: float | None) -> float:
        """Give the margin in AUC, or in nats."""
        return self.margins.of(metric, solo)
