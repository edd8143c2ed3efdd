"""The training of a model without parameters: one look at the validation rows, and the end.

Such a model is `isthmus.models.TreesModel`, whose forest was grown when the rows were encoded. There
is no step, no optimiser, no checkpoint and no device: the model stays where it is.
"""

import time
from collections.abc import Iterator

import numpy as np
from torch import nn

from isthmus.data.store.rows import Rows
from isthmus.data.store.subset import AnyRows
from isthmus.errors import RunError, SchemaError
from isthmus.metrics.formulas.logloss import row_logloss
from isthmus.train.events import End, Look, TrainEvent
from isthmus.train.scoring import check_monitor, checked_metrics, score_rows
from isthmus.train.train_config import TrainConfig

LEAST_ROWS = 2


def look_once(model: nn.Module, dataset: AnyRows, config: TrainConfig) -> Iterator[TrainEvent]:
    """Score the train and the validation rows, and leave the model in eval mode.

    The look's loss is the mean over the train rows. Raises ConfigError when ``monitor`` is undefined
    on the validation rows, RunError where a logit is not finite.
    """
    began = time.perf_counter()
    train, validation = dataset.rows("train"), dataset.rows("validation")
    check_monitor(config.monitor, validation, len(dataset.domain_names))
    model.eval()
    loss = row_logloss(_finite(model, train, "train"), np.asarray(train.label) > 0)
    logits = _finite(model, validation, "validation")
    metrics, aucs = checked_metrics(logits, validation, dataset.domain_names, step=0)
    look = Look(
        step=0,
        epoch=0.0,
        loss=float(np.average(loss, weights=train.weight)),
        metrics=metrics,
        better=True,
        auc_by_domain=aucs,
    )
    yield look
    seconds = time.perf_counter() - began
    yield End(
        step=0, epoch=0.0, best=look, history=(look,), stopped="no parameters", seconds=seconds
    )


def check_rows(dataset: AnyRows) -> None:
    """Raise SchemaError where a split has fewer than 2 rows to train on, or to look at."""
    for split in ("train", "validation"):
        if (rows := len(dataset.rows(split))) < LEAST_ROWS:
            raise SchemaError(f"the {split} split must hold at least {LEAST_ROWS} rows, got {rows}")


def _finite(model: nn.Module, rows: Rows, split: str) -> np.ndarray:
    logits = score_rows(model, rows)
    if not np.isfinite(logits).all():
        raise RunError(f"{split} logits must stay finite, got nan or inf")
    return logits
