"""monitor(): joins a score log to later labels, and tells how each domain does since it was shipped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import logit

from isthmus.bundle import Profile, is_bundle, read_manifest
from isthmus.bundle.served import PROFILE
from isthmus.bundle.validation_profile import measure_profile
from isthmus.data import open_table
from isthmus.data.store.arrays import Arrays
from isthmus.disk import write_whole, writing
from isthmus.errors import RunError
from isthmus.metrics import ScoredRows
from isthmus.monitoring.health import Baseline, Monitoring, Segmented, compare_with_training
from isthmus.monitoring.labelled_rows import join_labels, read_labels
from isthmus.monitoring.logged_rows import LoggedRows, read_score_log
from isthmus.printable import printable
from isthmus.report.monitoring import monitoring_page
from isthmus.run import Run
from isthmus.run.folder import RunFolder

MARGIN = 0.01
CALIBRATION_MARGIN = 0.1
NO_DOMAIN = "(none)"  # rows that named no domain
NEARLY = 1e-9  # a score of 0 or 1 is told apart from all others, and has a logit


def monitor(
    log: str | Path,
    labels: Any,
    *,
    id: str = "id",
    row: str | None = None,
    label: str = "label",
    run: str | Path | None = None,
    margin: float = MARGIN,
    calibration_margin: float = CALIBRATION_MARGIN,
    out: str | Path | None = None,
) -> Monitoring:
    """Join a score log to later labels; AUC and calibration per domain and day, against training.

    ``log``: the file that ``isthmus serve --log`` writes; its rotated files are read, too. ``labels``:
    a path or a frame with the columns ``id`` (as the log has them, any type), ``label`` (0 or 1; null
    where it is not known yet) and maybe ``row``, the place in the request; None takes the column ``row``
    where there is one. Without it, only ids of a single row can be joined.
    ``run``: a run or a bundle that the rows were scored by. The default is the bundle of the newest row
    in the log, with what the log says of its validation rows.
    ``margin``: the fall in AUC, ``calibration_margin``: the share by which calibration may change; see
    `isthmus.monitoring.health`. ``out``: an HTML page to write.

    Raises RunError for a log that is missing or holds no row of the bundle, and where no row finds a
    label; SchemaError for what the labels lack; BundleError for a damaged bundle; ValueError for a margin
    below 0.
    """
    if margin < 0 or calibration_margin < 0:
        raise ValueError(f"margins must be at least 0, got {margin=}, {calibration_margin=}")
    logged = read_score_log(log)
    if not len(logged.frame):
        raise RunError(f"a score log must hold rows, got none in {log}")
    checksum, baseline = _baseline(logged, run)
    kept = logged.frame.filter(pl.col("bundle") == checksum)
    if not len(kept):
        found = ", ".join(name[:12] for name in logged.frame["bundle"].unique().sort())
        raise RunError(
            f"the log must hold rows of bundle {checksum[:12]}, that of {run}, got rows of {found}"
        )
    table = open_table(labels)
    joined, counts = join_labels(
        kept,
        read_labels(table, id=id, label=label, row=row),
        torn=logged.torn,
        other_bundles=len(logged.frame) - len(kept),
    )
    if not len(joined):
        raise RunError(
            f"labels must belong to rows of the log, but none of {counts.labels:,} labels in"
            f" {printable(table.source)} finds one of {len(kept):,} rows in {log}"
        )
    rows = _scored(joined)
    days = joined["time"].dt.strftime("%Y-%m-%d")
    result = Monitoring(
        log=str(log),
        labels=table.source,
        bundle=checksum,
        margin=margin,
        calibration_margin=calibration_margin,
        first=str(days.min()),
        last=str(days.max()),
        counts=counts,
        domains=compare_with_training(
            rows.names,
            Segmented.of(rows),
            baseline,
            margin=margin,
            calibration_margin=calibration_margin,
        ),
        days=_by_day(rows, days),
    )
    if out is not None:
        with writing("page", Path(out)):
            write_whole(Path(out), monitoring_page(result.to_dict()))
    return result


def _baseline(logged: LoggedRows, run: str | Path | None) -> tuple[str, Baseline]:
    """The checksum of the bundle that is looked at, and what its validation rows said."""
    if run is None:
        newest = logged.frame["time"].arg_max()
        assert newest is not None
        checksum = logged.frame["bundle"][newest]
        if checksum not in logged.baselines:
            raise RunError(
                f"bundle {checksum[:12]} has no profile in the log to compare with; name its run, or fit"
                " it again: a fit keeps one since isthmus has the drift watch"
            )
        return checksum, logged.baselines[checksum]
    path = Path(run)
    folder = path if is_bundle(path) else RunFolder(path).bundle
    content = read_manifest(folder)
    if PROFILE in content["files"]:
        profile = Profile.from_json((folder / PROFILE).read_text(encoding="utf-8"))
        return content["sha256"], profile.baseline()
    if folder == path:
        raise RunError(f"a bundle must have a profile to compare with, got none in {path}")
    scored = replace(Run.open(path).scored("validation"), weight=None)
    rows = len(scored)
    nothing = np.zeros((rows, 0), dtype=np.float32)
    empty = Arrays(nothing, nothing, (), scored.domain, scored.label, None)
    return content["sha256"], measure_profile([], empty, scored).baseline()


def _scored(joined: pl.DataFrame) -> ScoredRows:
    """The rows as metrics read them; the rows of a request belong together."""
    domain = joined["domain"].fill_null(NO_DOMAIN)
    names = domain.value_counts(sort=True)  # the largest first
    order = sorted(names.iter_rows(), key=lambda pair: (-pair[1], pair[0]))
    number = {name: place for place, (name, _) in enumerate(order, start=1)}
    request = joined["id"].rank("dense").to_numpy().astype(np.int64)
    score = np.clip(joined["score"].to_numpy(), NEARLY, 1 - NEARLY)
    return ScoredRows(
        split="served",
        row=np.arange(len(joined)),
        logits=logit(score),
        label=joined["label"].to_numpy(),
        domain=domain.replace_strict(number, return_dtype=pl.Int64).to_numpy(),
        names=tuple(number),
        group=request,
    )


def _by_day(rows: ScoredRows, days: pl.Series) -> dict[str, Any]:
    """Measure every domain on every day that has rows of it."""
    names = sorted(days.unique())
    number = {name: place for place, name in enumerate(names)}
    day = days.replace_strict(number, return_dtype=pl.Int64).to_numpy()
    key = (rows.domain - 1) * len(names) + day
    met, segment = np.unique(key, return_inverse=True)
    found = Segmented.of(
        replace(rows, domain=segment + 1, names=tuple(str(place) for place in met))
    )
    result: dict[str, list[Any]] = {name: [] for name in rows.names}
    for place, served in zip(met, found.served, strict=True):
        domain, at = divmod(int(place), len(names))
        result[rows.names[domain]].append((names[at], served))
    return {name: tuple(served) for name, served in result.items()}
