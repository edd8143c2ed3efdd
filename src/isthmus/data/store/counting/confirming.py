"""Which pairs of columns validation rows confirm, of those that the config asks for.

The rows that judge are the half of the validation rows that stops trainings (`stopping_half`): a guard
decides by the other half, which no model that it judges may have seen. The regressions that are
compared (`isthmus.data.encoding.counted.trial`) read what train rows are told out of fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from scipy.special import logit

from isthmus.data.encoding.counted.counted_columns import columns_of
from isthmus.data.encoding.counted.trial import CrossTrial, TrialRows, holm, judge, losses
from isthmus.data.store.counting.out_of_fold import FoldCounts, SplitRows
from isthmus.data.store.rows import stopping_half
from isthmus.data.tables import values as v
from isthmus.schema import DataConfig, FittedField, cross_name, statistics_field

TEACHING = 250_000  # train rows at most, drawn by a hash: they fit a dozen coefficients
JUDGING = 1_000_000  # validation rows at most
DRAW_SEED = 0xC055


def confirm(
    train: SplitRows,
    validation: SplitRows,
    fields: Sequence[FittedField],
    config: DataConfig,
    domains: Sequence[str],
) -> tuple[CrossTrial, ...]:
    """Try every pair of ``config.crosses``, each beside its own two columns.

    ``domains``: names of the trained domains.
    """
    sides = dict.fromkeys(name for pair in config.crosses for name in pair)
    features = [field for field in fields if field.kind not in ("statistics", "trees")]
    wanted = [*map(statistics_field, sides), *(statistics_field(*pair) for pair in config.crosses)]
    counted = FoldCounts(train, columns_of([*features, *wanted]), config.negative_rate)
    statistics = counted.statistics()
    teaching = _Sample.of(train, np.ones(len(train.row), dtype=bool), TEACHING)
    judging = _Sample.of(validation, stopping_half(validation), JUDGING)
    told, found = {}, {}
    for one, column in zip(counted.told(statistics), statistics.columns, strict=True):
        ids, _ = one.column.items(teaching.categorical, ())
        told[one.column.name] = one.numbers(ids, None, teaching.rows.domain, teaching.fold)
        ids, _ = one.column.items(judging.categorical, ())
        found[one.column.name] = column.numbers(ids, None, judging.rows.domain)
    # A domain's rate is told in sample: two numbers a domain say next to nothing of a row.
    rates = logit(statistics.rates)

    trials = []
    for left, right in config.crosses:
        lost = []
        for names in ((left, right), (left, right, cross_name(left, right))):
            x, held = (
                np.column_stack(
                    [rates[sample.rows.domain], *(numbers[name] for name in names)],
                ).astype(np.float64)
                for sample, numbers in ((teaching, told), (judging, found))
            )
            lost.append(losses(x, teaching.rows, held, judging.rows))
        trials.append(judge((left, right), *lost, rows=judging.rows, domains=domains))
    return holm(trials)


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Some rows of a split. ``fold``: 0 for rows that are no train rows."""

    categorical: Int32[np.ndarray, "rows columns"]
    fold: UInt8[np.ndarray, " rows"]
    rows: TrialRows

    @classmethod
    def of(cls, rows: SplitRows, wanted: Bool[np.ndarray, " rows"], most: int) -> "_Sample":
        """The wanted rows, or about ``most`` of them."""
        share = most / max(1, int(wanted.sum()))
        if share < 1:
            hashed = v.mix(np.asarray(rows.row, dtype=np.int64), seed=DRAW_SEED)
            wanted = wanted & (hashed < np.uint64(int(share * 2.0**64)))
        at = np.flatnonzero(wanted)
        arrays = rows.arrays
        weight = np.ones(len(at)) if arrays.weight is None else arrays.weight[at]
        owner = rows.row if rows.group is None else rows.group
        return cls(
            categorical=np.asarray(arrays.categorical[at]),
            fold=np.zeros(len(at), np.uint8) if rows.fold is None else np.asarray(rows.fold[at]),
            rows=TrialRows(
                label=np.asarray(arrays.label[at]),
                weight=np.asarray(weight, dtype=np.float64),
                domain=rows.domains(slice(None))[at],
                cluster=np.asarray(owner[at]),
            ),
        )
