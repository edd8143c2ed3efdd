"""What a study has found, as the plain dict of ``trials.json``. Table and page read it alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.data import Dataset
from isthmus.tuning.constraint import metric_of
from isthmus.tuning.search import MIN_FOR_IMPORTANCE, Search, TrialRecord
from isthmus.tuning.space import point
from isthmus.version import VERSION

FORMAT = 1


def account(
    search: Search, dataset: Dataset, budget: str, left_out: Mapping[str, str]
) -> dict[str, Any]:
    """Give all that is told of a study.

    ``budget``: the budget in words. ``left_out``: recipes that were not tried, with the reason.
    """
    config = search.space.config
    records = search.records()
    best, reference = search.best(records), _reference(records)
    importances = search.importances()
    return {
        "format": FORMAT,
        "isthmus": VERSION,
        "table": config.data.table,
        "monitor": config.train.monitor,
        "minimised": search.minimised,
        "metric": metric_of(config.train.monitor),
        "budget": budget,
        "seed": config.train.seed,
        "looks_per_epoch": config.train.looks_per_epoch,
        "rows": {
            "train": len(dataset.rows("train")),
            "validation": len(dataset.rows("validation")),
        },
        "portfolio": [recipe.name for recipe in search.recipes],
        "left_out": dict(left_out),
        "as_it_stands": point(config),
        "space": search.space.to_dict(),
        "seconds": round(search.seconds, 3),
        "best": None if best is None else best.number,
        "reference": None if reference is None else reference.number,
        "trials": [_plain(record) for record in records],
        "importances": importances,
        "no_importances": (
            f"fewer than {MIN_FOR_IMPORTANCE} completed trials of TPE"
            if importances is None
            else None
        ),
    }


def _reference(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The first completed trial, which all are compared with."""
    return next((one for one in records if one.state == "complete"), None)


def _plain(record: TrialRecord) -> dict[str, Any]:
    plain = record.to_dict()
    return plain | {"looks": {str(moment): value for moment, value in record.looks.items()}}
