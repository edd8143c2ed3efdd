"""What a run folder needs beside its bundle where no `fit` has made it."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from isthmus.bundle import Bundle, Profile
from isthmus.bundle.validation_profile import measure_profile
from isthmus.data.store.dataset import dataset_key
from isthmus.data.store.split import SplitName
from isthmus.disk import check_place, writing
from isthmus.errors import RunError
from isthmus.extending.new_table import EncodedTable, NewTable
from isthmus.metrics import ScoredRows
from isthmus.run import Run
from isthmus.run.external import fingerprint, group_numbers
from isthmus.run.folder import LookWriter, RunFolder, RunState
from isthmus.train import End
from isthmus.version import VERSION


def free_target(run: Run, out: str | Path | None, suffix: str) -> Path:
    """The folder of the new run: ``out``, or the run's own name with a suffix.

    Raises RunError where something stands there, or nothing can.
    """
    named = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in suffix)
    target = Path(out or run.path.with_name(f"{run.path.absolute().name}-{named}"))
    with writing("run folder", target):
        if target.exists():
            raise RunError(f"run folder must not exist yet, got {target}")
        check_place(target)
    return target


def later_profile(
    before: Bundle, after: Bundle, encoded: EncodedTable, scored: ScoredRows
) -> Profile | None:
    """The profile that is served with the bundle from after; None where there was none before.

    ``scored``: the new table's validation rows, ``encoded`` by the encoder from after. Their domains are
    measured on them; the others stay as they were.
    """
    if before.profile is None:
        return None
    fields, arrays = after.encoder.fields, encoded.rows("validation").arrays
    later = measure_profile(fields, arrays, scored, before.profile.columns)
    return before.profile.of_domains(after.domains, later)


def scored_rows(
    table: NewTable,
    encoded: EncodedTable,
    split: SplitName,
    logits: Float64[np.ndarray, " rows"],
    source: str,
) -> ScoredRows:
    """The rows of a split with their logits. ``source``: what to call the model."""
    rows = encoded.rows(split)
    return ScoredRows(
        split=split,
        row=rows.row,
        logits=logits,
        label=np.asarray(rows.label) > 0,
        domain=np.asarray(rows.domain, dtype=np.int64),
        names=encoded.domain_names,
        weight=None if rows.weight is None else np.asarray(rows.weight, dtype=np.float64),
        group=group_numbers(rows.group),
        negative_rate=table.config.negative_rate,
        fingerprint=fingerprint(table.table),
        source=source,
    )


def write_state(
    folder: RunFolder,
    run: Run,
    after: Bundle,
    table: NewTable,
    end: End | None,
    *,
    seconds: float,
    method: str,
) -> None:
    """Write looks, config and state. ``run``: that the new one came from. ``end``: of the training."""
    LookWriter(folder, () if end is None else end.history, method=method).close()
    source = table.table.source
    data = after.encoder.config.model_copy(
        update={"table": None if run.config.data.table is None else source}
    )
    state = RunState(
        state="finished",
        dataset_key=dataset_key(table.config, table.table.fingerprint()),
        table=source,
        domains=after.domains,
        n_domains=len(after.domains),
        threads=torch.get_num_threads(),
        isthmus=VERSION,
        torch=torch.__version__,
        parameters=after.model.parameter_report().total,
        best_step=None if end is None else end.best.step,
        steps=0 if end is None else end.step,
        seconds=seconds,
        stopped="" if end is None else end.stopped,
        guard=run.state.guard,
        recipe=run.state.recipe,
    )
    folder.begin(run.config.model_copy(update={"data": data}), state)
