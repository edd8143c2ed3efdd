"""refresh(): a run trained on with newer rows of its domains, kept only where it is not worse.

The training begins with the run's weights, and has the run's own settings, a fresh optimiser and an early
stop. Values that are new get ids of their own, which from now on every domain sees. Scales of numbers, value
statistics and the forest stay as they were fitted.

Both models are compared on the same rows: the newer table's test rows. The new one is *worse* where the 95 %
interval of its AUC or of its logloss minus the old one's lies wholly on the wrong side of 0, over all rows or
within a domain after Holm's adjustment. A model that is worse is not written.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from isthmus.bundle import Bundle
from isthmus.bundle.calibration import Calibration, fit_calibration
from isthmus.data import SPLITS, Encoder, SplitName, Table, open_table
from isthmus.data.encoding.roles import as_used
from isthmus.data.tables import columns as c
from isthmus.disk import whole_folder, writing
from isthmus.errors import BundleError, SchemaError
from isthmus.extending.grown import grown_encoder, grown_model
from isthmus.extending.later_run import free_target, later_profile, scored_rows, write_state
from isthmus.extending.new_table import EncodedTable, NewTable, encode
from isthmus.metrics import Comparison, evaluate_rows
from isthmus.metrics import compare as compare_rows
from isthmus.metrics.comparison import ALARM
from isthmus.models import AbstractModel
from isthmus.report import to_markdown
from isthmus.run import Listener, Notice, Run
from isthmus.run.folder import RunFolder
from isthmus.run.notice import silent
from isthmus.run.scores import write_scores
from isthmus.train import End, Progress, score_rows, train
from isthmus.version import VERSION

CONTENT = "refreshing.json"
SCORED: tuple[SplitName, ...] = ("validation", "test")


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What came of a refresh. ``run``: the new run, None where it was worse and nothing was written.

    ``comparison``: the old model (a) and the new one (b) on the newer table's test rows. ``worse``: where the
    new one is.
    """

    run: Run | None
    comparison: Comparison
    worse: tuple[str, ...]
    content: Mapping[str, Any]

    def __str__(self) -> str:
        if self.run is None:
            told = f"nothing was written: the new model is worse on {', '.join(self.worse)}"
        else:
            told = "the new model is not worse"
        return f"{self.comparison}\n{told}"


def refresh(
    run: str | Path | Run,
    table: Any,
    *,
    out: str | Path | None = None,
    progress: Listener | None = None,
) -> Refreshed:
    """Train a finished run on with newer rows, and write the result as a run unless it is worse.

    ``table``: a path or a frame with the columns of the run's table. Rows of domains that were not trained are
    left out. ``out``: the new run folder, which must not exist; ``RUN-refreshed`` by default. ``progress``: is
    called with each `Notice`. The run itself is not changed.

    Raises RunError where the folder cannot be written, BundleError for a bundle of several models, of trees, or
    with a detector, SchemaError for what the table lacks, and what training raises.
    """
    begun, tell = time.perf_counter(), progress or silent
    opened_run = run if isinstance(run, Run) else Run.open(run)
    target = free_target(opened_run, out, "refreshed")
    before = opened_run.bundle
    _check(before, opened_run)
    opened = open_table(table)
    new = NewTable(before.encoder, opened, present_domains(before.encoder, opened))
    encoded = _encoded(new, grown_encoder(before.encoder, new.vocabularies()))
    rows = {str(split): len(encoded.rows(split)) for split in SPLITS}
    tell(Notice("encode", ", ".join(f"{count:,} {split}" for split, count in rows.items())))
    model, end = _trained(before, opened_run, encoded, tell)
    record = {"what": "refresh", "isthmus": VERSION, "rows": rows}
    after = Bundle(
        config=before.config,
        encoder=encoded.encoder,
        model=model,
        calibration=_calibration(before, model, encoded),
        history=(*before.history, record),
    )
    tell(Notice("score", "the test rows, by the old model and the new"))
    logits = {split: _logits(after, encoded, split) for split in SCORED}
    comparison = _compared(before, new, encoded, logits["test"], (opened_run.name, target.name))
    worse = tuple(_worse(comparison))
    content = {
        **record,
        "run": opened_run.name,
        "worse": list(worse),
        "seconds": round(time.perf_counter() - begun, 3),
        "test": comparison.to_dict(),
    }
    if worse:
        return Refreshed(None, comparison, worse, content)
    with writing("run folder", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(target) as place:
            folder = RunFolder(place)
            scored = [
                scored_rows(new, encoded, split, logits[split], target.name) for split in SCORED
            ]
            validation = next(one for one in scored if one.split == "validation")
            after.profile = later_profile(before, after, encoded, validation)
            after.save(folder.bundle)
            folder.scores.mkdir()
            for one in scored:
                write_scores(folder.scores / f"{one.split}.parquet", one)
            parts = [to_markdown(evaluate_rows(scored[-1])), to_markdown(comparison)]
            folder.write_report("\n\n".join(parts))
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
            (place / CONTENT).write_text(text + "\n", encoding="utf-8")
            method, seconds = opened_run.config.train.method.name, content["seconds"]
            write_state(folder, opened_run, after, new, end, seconds=seconds, method=method)
    return Refreshed(Run.open(target), comparison, worse, content)


def _check(before: Bundle, run: Run) -> None:
    held = {
        "networks of domains' own (fit --guard)": bool(before.parts),
        "a forest alone": before.config.model.is_trees,
        "a detector": before.detector is not None,
    }
    for what, there in held.items():
        if there:
            raise BundleError(
                f"a run to refresh must have one network alone, got {what} in {run.path}"
            )


def present_domains(encoder: Encoder, table: Table) -> Sequence[str]:
    """The trained domains that a table has rows of, in the order of their ids.

    Raises SchemaError where there is none.
    """
    column, held = encoder.config.domain, set()
    used = as_used(table, encoder.config, encoder.kinds)
    used.check_usable([column])
    for block in used.blocks([column]):
        codes, names = c.domains(block.batch.column(column), encoder.domain_kind)
        held |= {names[int(code)].as_py() for code in np.unique(codes[codes >= 0])}
    found = [name for name in encoder.domains if name in held]
    if not found:
        raise SchemaError(
            f"column {column!r} must name a trained domain in some row,"
            f" {', '.join(encoder.domains[:5])}, got none in {table.source}"
        )
    return found


def _encoded(new: NewTable, encoder: Encoder) -> EncodedTable:
    """The rows with the numbers that were taught; train rows have the forest's second score, too."""
    encoded, taught = new.encoded(encoder), encoder.taught
    encoded.fill(taught, *SPLITS)
    if taught.trees is not None:
        train, columns = encoded.split_rows("train"), taught.trees.columns
        domain = train.domains(slice(0, len(train.row)))
        matrix = columns.matrix(train.arrays.numeric, train.arrays.categorical, domain)
        columns.hide(matrix, np.arange(len(domain)))
        train.arrays.numeric[:, columns.score + 1] = taught.trees.score(matrix)
    return encoded


def _trained(
    before: Bundle, run: Run, encoded: EncodedTable, tell: Listener
) -> tuple[AbstractModel, End]:
    model = grown_model(before.model, before.config.model, encoded.encoder)
    end = None
    with closing(train(model, encoded, run.config.train)) as events:
        for event in events:
            if isinstance(event, Progress):
                tell(Notice("train", f"step {event.step:,}", event.step / event.steps))
            elif isinstance(event, End):
                end = event
    assert end is not None
    return model.cpu().eval(), end


def _calibration(before: Bundle, model: AbstractModel, encoded: EncodedTable) -> Calibration | None:
    """Slopes and offsets of the new model; a domain without newer rows keeps the pair that it had."""
    old = before.calibration
    if old is None:
        return None
    rows = encoded.rows("validation")
    domain = np.asarray(rows.domain, dtype=np.int64)
    found = fit_calibration(
        score_rows(model, rows),
        (np.asarray(rows.label) > 0).astype(np.float64),
        domain,
        n_domains=encoded.encoder.n_domains,
        weight=None if rows.weight is None else np.asarray(rows.weight),
    )
    newer = np.bincount(domain, minlength=len(found.slope)) > 0
    newer[0] = True  # the pooled pair is of all rows
    return Calibration(
        slope=np.where(newer, found.slope, old.slope),
        offset=np.where(newer, found.offset, old.offset),
    )


def _logits(after: Bundle, encoded: EncodedTable, split: SplitName) -> Float64[np.ndarray, " rows"]:
    rows = encoded.rows(split)
    domain = np.asarray(rows.domain, dtype=np.int64)
    return after.calibrated(score_rows(after.model, rows), domain)


def _compared(
    before: Bundle,
    new: NewTable,
    encoded: EncodedTable,
    logits: Float64[np.ndarray, " rows"],
    names: tuple[str, str],
) -> Comparison:
    """The old model and the new one on the test rows. ``logits``: the new one's."""
    was = [
        before.logits_of(encode(before.encoder, piece).batch()) for piece in new.pieces_of("test")
    ]
    sides = zip((np.concatenate(was), logits), names, strict=True)
    rows = [scored_rows(new, encoded, "test", found, source) for found, source in sides]
    there = np.unique(rows[0].domain)  # only domains with newer rows can be compared
    kept = tuple(rows[0].names[number - 1] for number in there)
    place = np.searchsorted(there, rows[0].domain) + 1
    return compare_rows(*(replace(one, names=kept, domain=place) for one in rows))


def _worse(comparison: Comparison) -> list[str]:
    """Where the new model is worse: domains, or all rows."""
    found = [
        f"domain {name}"
        for name, pair in comparison.domains.items()
        if any(
            one.better == "a" and one.p_holm is not None and one.p_holm <= ALARM
            for one in pair.differences.values()
        )
    ]
    if any(one.better == "a" for one in comparison.pooled.differences.values()):
        found.append("all rows")
    return found
