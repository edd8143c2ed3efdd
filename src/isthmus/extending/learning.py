"""What of a new domain's own is trained, from the unknown domain's answer on."""

import math
from contextlib import closing
from dataclasses import dataclass

from isthmus.bundle import Bundle
from isthmus.errors import BundleError
from isthmus.extending.grown import grown_model, table_names
from isthmus.extending.new_table import EncodedTable
from isthmus.extending.own_rows import OwnRowsConfig, take_statistics
from isthmus.models import AbstractModel
from isthmus.run import Listener, Notice
from isthmus.train import End, Progress, TrainConfig, score_rows, train
from isthmus.train.scoring import watch_metrics

MONITOR = (
    "logloss_pooled"  # a few rows say more by it than by their order, and it is always defined
)
STEPS = 20  # of an epoch, where the table has rows for as many
LEAST_BATCH = 32
STATISTICS_ROWS = 16384  # train rows that give norms their statistics


@dataclass(frozen=True, slots=True)
class Learnt:
    """The grown model after its training. ``end``: None where there was nothing to train.

    ``kept``: whether what was learnt was better than the start. ``start``, ``best``: logloss of the
    validation rows.
    """

    model: AbstractModel
    end: End | None
    kept: bool
    start: float
    best: float


def learn(before: Bundle, settings: TrainConfig, encoded: EncodedTable, tell: Listener) -> Learnt:
    """Train what is the new domain's own."""
    config, encoder = before.config.model, encoded.encoder
    model = grown_model(before.model, config, encoder)
    first = {
        name: tensor.shape[0]
        for name, tensor in before.model.state_dict().items()
        if name in table_names(model)
    }
    longer = any(
        store.slices[table].stop - store.slices[table].start > first[name]
        for name, (store, table) in table_names(model).items()
    )
    start_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = _logloss(model, encoded)
    if not longer and not model.domain_parameters():
        if before.calibration is None and encoder.taught.statistics is None:
            raise BundleError(
                "a model to extend must have something of each domain's own: an adapter, towers, a head or"
                " norms per domain, the domain as a feature, value statistics, or calibration per_domain;"
                f" got backbone {config.backbone.name} without any, and a table without new ids"
            )
        return Learnt(model, None, False, start, start)
    train_rows = encoded.rows("train")
    batch_rows = min(settings.batch_rows, max(LEAST_BATCH, len(train_rows) // STEPS))
    sample = next(train_rows.batches(STATISTICS_ROWS, seed=settings.seed))
    take_statistics(model, sample, batch_rows=settings.batch_rows)
    own = settings.model_copy(
        update={
            "method": OwnRowsConfig(first=first),
            "batch_rows": batch_rows,
            "embedding_update": "lazy",
            "monitor": MONITOR,
            "domain_sampling": "proportional",
            "weighting": "proportional",
            "objectives": (),
            "domain_dropout": 0.0,
            "compile": False,
            "checkpoint_minutes": math.inf,
        }
    )
    end = None
    with closing(train(model, encoded, own)) as events:
        for event in events:
            if isinstance(event, Progress):
                tell(Notice("train", f"step {event.step:,}", event.step / event.steps))
            elif isinstance(event, End):
                end = event
    assert end is not None
    best = end.best.metrics[MONITOR]
    assert best is not None
    if best >= start:
        model.load_state_dict(start_state)
    return Learnt(model.cpu().eval(), end, best < start, start, min(best, start))


def _logloss(model: AbstractModel, encoded: EncodedTable) -> float:
    rows = encoded.rows("validation")
    found = watch_metrics(score_rows(model, rows), rows, encoded.encoder.n_domains)[MONITOR]
    assert found is not None
    return found
