"""A model's logits for the rows of a split, and the few numbers that training watches."""

from collections.abc import Sequence
from itertools import chain, islice
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float64
from torch import nn

from isthmus.data.batch import Batch
from isthmus.data.store.order import part_of
from isthmus.data.store.rows import Rows
from isthmus.errors import ConfigError, RunError
from isthmus.layers.tables import tables_of
from isthmus.metrics.formulas.auc import segment_auc
from isthmus.metrics.formulas.logloss import row_logloss
from isthmus.metrics.formulas.ranking import Ranking
from isthmus.ranks import ALONE, Ranks
from isthmus.train.device import move

Monitor = Literal[
    "auc_pooled",
    "auc_macro",
    "auc_weighted",
    "auc_worst",
    "logloss_pooled",
    "logloss_macro",
    "logloss_worst",
]
"""The metric of the validation rows by which a training stops."""
SCORE_ROWS = 16384
CURVES = 100  # domains whose AUC each look tells


def score_batch(model: nn.Module, batch: Batch) -> Float64[np.ndarray, " rows"]:
    """Logits of one batch, float64, in eval mode, on the device where the model is."""
    device = next(chain(model.parameters(), model.buffers()), torch.empty(0)).device
    training = [part for part in _modules(model) if part.training]
    if training:
        model.eval()
    with torch.inference_mode():
        logits = model(move(batch, device)).cpu().numpy().astype(np.float64)
    for part in training:  # a part that stood in eval goes on in eval
        part.training = True
    return logits


def _modules(model: nn.Module) -> list[nn.Module]:
    """All modules, some more than once; ``modules()`` takes ten times as long, as long as a row's score."""
    found = [model]
    for part in found:  # which grows meanwhile
        found += [child for child in part._modules.values() if child is not None]
    return found


def score_rows(
    model: nn.Module, rows: Rows, *, batch_rows: int = SCORE_ROWS, ranks: Ranks = ALONE
) -> Float64[np.ndarray, " rows"]:
    """Logits of one split in its order. Memory: one batch and the result.

    ``ranks``: each scores some of the batches, and all get the whole. Where there are as many batches
    as ranks, the batches and so the logits are those of one process, bit for bit.
    """
    batch_rows = max(1, min(batch_rows, -(-len(rows) // ranks.size)))
    batches = -(-len(rows) // batch_rows)
    first, last = part_of(batches, (ranks.rank, ranks.size))
    logits = np.empty(min(last * batch_rows, len(rows)) - first * batch_rows, dtype=np.float64)
    done = 0
    for batch in islice(rows.batches(batch_rows, start=first), last - first):
        logits[done : done + batch.rows] = score_batch(model, batch)
        done += batch.rows
    if not ranks.many:
        return logits
    if any(table.sharded for table in tables_of(model)):
        # All ranks must ask for rows equally often, and some may have a batch less.
        for _ in range(-(-batches // ranks.size) - (last - first)):
            score_batch(model, next(rows.batches(1)).first(0))
    return torch.cat(ranks.gather(torch.from_numpy(logits))).numpy()


def check_monitor(monitor: Monitor, rows: Rows, n_domains: int) -> None:
    """Raise ConfigError where the labels of ``rows`` leave the monitor undefined."""
    # Constant scores have every metric that these labels allow.
    if watch_metrics(np.zeros(len(rows)), rows, n_domains)[monitor] is None:
        raise ConfigError(
            "train.monitor must be defined on the validation rows, whose labels do not allow"
            f" {monitor!r}; a logloss is always defined"
        )


def domain_aucs(
    logits: Float64[np.ndarray, " rows"], rows: Rows, n_domains: int, ranks: Ranks = ALONE
) -> Float64[np.ndarray, " sets"]:
    """The AUC of each domain's scored rows, by report id from 0; nan where it is not defined.

    ``ranks``: what rank 0 finds is what all get.
    """
    return np.array(ranks.first(lambda: _aucs(logits, rows, n_domains).tolist()))


def _aucs(logits: np.ndarray, rows: Rows, n_domains: int) -> np.ndarray:
    domain = np.asarray(rows.domain, dtype=np.int64)
    weight = None if rows.weight is None else np.asarray(rows.weight, dtype=np.float64)
    ranking = Ranking.of(logits, domain, n_domains + 1, Ranking.of(logits).order)
    return segment_auc(ranking, np.asarray(rows.label) > 0, weight).value


def checked_metrics(
    logits: Float64[np.ndarray, " rows"], rows: Rows, names: Sequence[str], step: int
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """`watch_metrics`, and the AUC of each domain by its name; None where it is not defined.

    ``names``: of all domains, report id 1 first. Of more than `CURVES` domains, those with the most rows
    have their AUC told. RunError, naming the step, where a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise RunError(f"validation logits must stay finite, got nan or inf at step {step}")
    metrics, auc = _watched(logits, rows, len(names))
    counts = np.bincount(np.asarray(rows.domain, dtype=np.int64), minlength=len(names) + 1)[1:]
    kept = np.sort(np.argsort(-counts, kind="stable")[:CURVES])
    return metrics, {names[int(at)]: _defined(float(auc[at])) for at in kept}


def watch_metrics(
    logits: Float64[np.ndarray, " rows"], rows: Rows, n_domains: int
) -> dict[str, float | None]:
    """Every `Monitor` of scored rows; None where the labels leave it undefined.

    ``rows``: the split, of which labels, report ids of domains (1 to ``n_domains``, 0 for none) and
    weights are read. ``macro`` is the mean over the domains where the metric is defined,
    ``weighted`` that mean with the domains' numbers of rows as weights, ``worst`` the lowest AUC or
    the highest logloss of a domain. Logits are taken as they are: ``negative_rate`` and calibration
    come later. All domains cost one sort.
    """
    return _watched(logits, rows, n_domains)[0]


def _watched(
    logits: np.ndarray, rows: Rows, n_domains: int
) -> tuple[dict[str, float | None], Float64[np.ndarray, " domains"]]:
    """Every `Monitor`, and the AUC of each domain, nan where undefined."""
    label = np.asarray(rows.label) > 0
    domain = np.asarray(rows.domain, dtype=np.int64)
    weight = None if rows.weight is None else np.asarray(rows.weight, dtype=np.float64)
    # Each array of a row's length goes before the next one comes: rows are many.
    mass = np.ones(len(label)) if weight is None else weight
    weighted_loss = mass * row_logloss(logits, label)
    pooled_loss = float(weighted_loss.sum()) / mass.sum()
    masses = np.bincount(domain, mass, minlength=n_domains + 1)[1:]
    losses = np.bincount(domain, weighted_loss, minlength=n_domains + 1)[1:]
    del mass, weighted_loss
    ranking = Ranking.of(logits)
    pooled_auc = segment_auc(ranking, label, weight).value[0]
    order = ranking.order
    del ranking
    ranking = Ranking.of(logits, domain, n_domains + 1, order)
    auc = segment_auc(ranking, label, weight).value[1:]
    del ranking, order
    with_rows = masses > 0
    logloss = losses[with_rows] / masses[with_rows]
    defined = np.isfinite(auc)
    support = np.bincount(domain, minlength=n_domains + 1)[1:][defined]
    values = {"auc_pooled": pooled_auc, "logloss_pooled": pooled_loss}
    if defined.any():
        values["auc_macro"] = auc[defined].mean()
        values["auc_weighted"] = np.average(auc[defined], weights=support)
        values["auc_worst"] = auc[defined].min()
    if with_rows.any():
        values["logloss_macro"] = logloss.mean()
        values["logloss_worst"] = logloss.max()
    return {name: _defined(values.get(name, np.nan)) for name in get_args(Monitor)}, auc


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
