"""extend(): one more domain for a finished run, without touching those that are live.

Only the new domain's own parameters are trained: its sets in every bank, its norms' statistics, its
calibration, its value statistics, and the rows of ids that nobody had seen. All else is frozen, and the
result is proved: see `isthmus.extending.proof`. The new run stands in a folder of its own.

The rows of the new table are split as the run's own rows were. Train rows teach, validation rows stop the
training early, and test rows compare what came out with the answer that the run had before: that of the
unknown domain. Where no look at the validation rows is better than that answer, its parameters stay.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.bundle import Bundle
from isthmus.bundle.calibration import Calibration, fit_later_pair
from isthmus.data import open_table
from isthmus.disk import whole_folder, writing
from isthmus.errors import BundleError, RunError
from isthmus.extending.extension_folder import ExtensionFolder, summary
from isthmus.extending.grown import grown_calibration, grown_encoder, grown_part
from isthmus.extending.later_run import free_target
from isthmus.extending.learning import Learnt, learn
from isthmus.extending.new_table import EncodedTable, NewTable
from isthmus.extending.own_statistics import teach_own
from isthmus.metrics import Comparison
from isthmus.models import AbstractModel
from isthmus.run import Listener, Notice, Run
from isthmus.run.folder import RunFolder
from isthmus.run.notice import silent
from isthmus.train import TrainConfig, score_rows


@dataclass(frozen=True, slots=True)
class Extended:
    """A run with one more domain. ``content``: what ``extension.json`` holds.

    ``comparison``: the new domain's test rows, as the unknown domain's before, and as its own.
    """

    run: Run
    content: Mapping[str, Any]
    comparison: Comparison

    def __str__(self) -> str:
        return f"{self.comparison}\n{summary(self.content)}"


def extend(
    run: str | Path | Run,
    table: Any,
    *,
    domain: str,
    out: str | Path | None = None,
    progress: Listener | None = None,
) -> Extended:
    """Add a domain to a finished run, and write the result as a run of its own.

    ``table``: a path or a frame with the columns of the run's table, which holds rows of the new domain.
    Rows of other domains are left out. ``domain``: the name of the new domain. ``out``: the new run folder,
    which must not exist; ``RUN-DOMAIN`` by default. ``progress``: is called with each `Notice`.

    The run itself is not changed. Scores of its domains, and of rows of none, keep every bit, for batches
    of the same rows; ids that come with the table are seen by the new domain's rows alone.

    Raises RunError where the domain is there already and where the folder cannot be written, BundleError
    for a bundle that cannot be extended, SchemaError for what the table lacks.
    """
    begun = time.perf_counter()
    tell = progress or silent
    opened_run = run if isinstance(run, Run) else Run.open(run)
    target = free_target(opened_run, out, domain)
    before = opened_run.bundle
    _check(before, opened_run, domain)
    opened = open_table(table)
    new = NewTable(before.encoder, opened, (domain,))
    encoder = grown_encoder(before.encoder, new.vocabularies(), domain)
    sizes = {name: one.rows for name, one in before.encoder.vocabularies.items()}
    encoded = teach_own(new.encoded(encoder), sizes)
    encoder = encoded.encoder
    rows = {str(split): len(encoded.rows(split)) for split in encoded.splits}
    tell(Notice("encode", f"{', '.join(f'{n:,} {split}' for split, n in rows.items())} rows"))
    after, learnt = extended_bundle(before, opened_run.config.train, encoded, tell)
    tell(Notice("score", "the other domains, before and after"))
    filled = ExtensionFolder(opened_run, domain, before, after, new, encoded, learnt)
    with writing("run folder", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(target) as folder:
            content, comparison = filled.write(RunFolder(folder), target.name, begun)
    return Extended(Run.open(target), content, comparison)


def extended_bundle(
    before: Bundle, settings: TrainConfig, encoded: EncodedTable, tell: Listener = silent
) -> tuple[Bundle, Learnt]:
    """Train the new domain's own parameters, and give the bundle with one more domain.

    ``settings``: the run's. ``encoded``: the new domain's rows, by an encoder that has grown. Raises
    BundleError for a model that cannot grow.
    """
    encoder = encoded.encoder
    learnt = learn(before, settings, encoded, tell)
    calibration = grown_calibration(before.calibration)
    if calibration is not None:
        calibration = _calibrated(calibration, learnt.model, encoded)
    after = Bundle(
        config=before.config.model_copy(update={"data": encoder.config}),
        encoder=encoder,
        model=learnt.model,
        calibration=calibration,
        parts={
            name: grown_part(part, encoder, before.encoder.n_domains)
            for name, part in before.parts.items()
        },
        routes=before.routes,
        history=before.history,
    )
    return after, learnt


def _check(before: Bundle, run: Run, domain: str) -> None:
    if domain in before.domains:
        raise RunError(
            f"the domain to add must be new to run {run.path}, got {domain!r}; isthmus refresh trains"
            " on newer rows of a domain that is there"
        )
    if before.detector is not None:
        raise BundleError(
            "a bundle to extend must have no detector, which tells the domains of its own fit apart, got"
            f" one in {run.path}; fit with model.detector false"
        )


def _calibrated(
    calibration: Calibration, model: AbstractModel, encoded: EncodedTable
) -> Calibration:
    """The calibration with the new domain's own pair, of its validation rows."""
    rows = encoded.rows("validation")
    label = (np.asarray(rows.label) > 0).astype(np.float64)
    weight = None if rows.weight is None else np.asarray(rows.weight)
    return fit_later_pair(calibration, score_rows(model, rows), label, weight)
