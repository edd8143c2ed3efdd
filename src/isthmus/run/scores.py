"""The scored rows of a run: made of logits, calibrated, written to the run's folder, and read again.

Evaluation and comparison read the files, and so need no table. A file has one row for each row of
the split. Its columns are ``row`` (the number in the table), ``domain``, ``label``, ``logit``
(calibrated, not corrected for ``negative_rate``), and ``weight`` and ``group`` where the config
names them.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64

from isthmus.bundle import Bundle
from isthmus.bundle.calibration import Calibration, fit_calibration
from isthmus.bundle.profile import Profile
from isthmus.bundle.validation_profile import measure_profile
from isthmus.config import Config
from isthmus.data import Dataset, SplitName, Table
from isthmus.disk import whole_file
from isthmus.errors import RunError
from isthmus.metrics import ScoredRows
from isthmus.run.external import fingerprint, group_numbers
from isthmus.run.folder import RunFolder

NOTE = b"isthmus"  # key in the metadata of the Parquet file


class SplitScores:
    """Makes and keeps the scored rows of one run."""

    def __init__(self, config: Config, dataset: Dataset, table: Table, folder: RunFolder) -> None:
        self.config, self.dataset, self.folder = config, dataset, folder
        self.fingerprint = fingerprint(table)

    def of(self, split: SplitName, logits: Float64[np.ndarray, " rows"]) -> ScoredRows:
        """Give the rows of a split with their logits, which are not calibrated yet.

        ``logits``: one for each row of the split, in the order of the rows.
        """
        rows = self.dataset.rows(split)
        return ScoredRows(
            split=split,
            row=rows.row,
            logits=logits,
            label=rows.label > 0,
            domain=rows.domain,
            names=self.dataset.domain_names,
            weight=rows.weight,
            group=group_numbers(rows.group),
            negative_rate=self.config.data.negative_rate,
            fingerprint=self.fingerprint,
            source=self.folder.path.name,
        )

    def calibration(self, validation: ScoredRows) -> Calibration | None:
        """Fit a slope and an offset for each domain. None where the config asks for none."""
        if self.config.model.calibration != "per_domain":
            return None
        return fit_calibration(
            validation.logits,
            validation.label.astype(np.float64),
            self._model_ids(validation.domain),
            n_domains=self.dataset.n_domains,
            weight=validation.weight,
        )

    def profile(self, validation: ScoredRows, calibration: Calibration | None) -> Profile:
        """Measure what each domain looks like, with the scores that will be served."""
        domain = self._model_ids(validation.domain)
        logits = validation.logits
        return measure_profile(
            self.dataset.encoder.fields,
            self.dataset.rows("validation").arrays,
            replace(
                validation,
                logits=logits if calibration is None else calibration.apply(logits, domain),
                domain=domain,
                names=self.dataset.encoder.domains,
            ),
        )

    def write(self, bundle: Bundle, scored: ScoredRows) -> ScoredRows:
        """Calibrate the logits of a split as the bundle does. Write the rows, and give them."""
        logits = bundle.calibrated(scored.logits, self._model_ids(scored.domain))
        scored = replace(scored, logits=logits)
        self.folder.scores.mkdir(exist_ok=True)
        write_scores(self.folder.scores / f"{scored.split}.parquet", scored)
        return scored

    def _model_ids(self, domain: np.ndarray) -> np.ndarray:
        """Turn report ids into model ids. A domain without train rows is unknown, id 0."""
        return np.where(domain <= self.dataset.n_domains, domain, 0)


def write_scores(path: Path, scored: ScoredRows) -> None:
    """Write scored rows as one Parquet file, whole or not at all."""
    columns = {
        "row": pa.array(scored.row),
        "domain": pa.DictionaryArray.from_arrays(
            pa.array(scored.domain - 1, pa.int32(), mask=scored.domain == 0),
            pa.array(scored.names, pa.string()),
        ),
        "label": pa.array(scored.label.astype(np.int8)),
        "logit": pa.array(scored.logits),
    }
    if scored.weight is not None:
        columns["weight"] = pa.array(scored.weight)
    if scored.group is not None:
        columns["group"] = pa.array(scored.group)
    note = {
        "split": scored.split,
        "names": scored.names,
        "negative_rate": scored.negative_rate,
        "fingerprint": scored.fingerprint,
    }
    table = pa.table(columns).replace_schema_metadata({NOTE: json.dumps(note).encode()})
    # Files that Python opens: Arrow takes no path that the locale's encoding cannot hold.
    with whole_file(path) as temporary, temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd")


def read_scores(path: Path, *, source: str = "") -> ScoredRows:
    """Read what `write_scores` wrote. ``source``: the name of the model in tables.

    Raises RunError where the file is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            table = pq.read_table(file).combine_chunks()
        note = json.loads((table.schema.metadata or {})[NOTE])
        return ScoredRows(
            split=note["split"],
            row=table["row"].to_numpy(),
            logits=table["logit"].to_numpy(),
            label=table["label"].to_numpy(),
            domain=_domain_ids(table["domain"], tuple(note["names"])),
            names=tuple(note["names"]),
            weight=table["weight"].to_numpy() if "weight" in table.column_names else None,
            group=table["group"].to_numpy() if "group" in table.column_names else None,
            negative_rate=note["negative_rate"],
            fingerprint=note["fingerprint"],
            source=source,
        )
    except FileNotFoundError:
        raise RunError(f"scored rows must exist, got none at {path}") from None
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise RunError(f"scored rows must be readable, but {path} is damaged: {error}") from error


def _domain_ids(column: pa.ChunkedArray, names: tuple[str, ...]) -> np.ndarray:
    """Give the id of each domain name, int64 (rows,): 1 for the first of ``names``, 0 for null."""
    number = {name: place for place, name in enumerate(names, start=1)}
    ids = [np.empty(0, dtype=np.int64)]
    for chunk in column.chunks:
        known = np.array([*(number[name] for name in chunk.dictionary.to_pylist()), 0])
        ids.append(known[chunk.indices.fill_null(len(known) - 1).to_numpy()])
    return np.concatenate(ids)
