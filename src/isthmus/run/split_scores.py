"""The scored rows of a run. They are made of logits, calibrated, and kept in the run's folder."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from isthmus.bundle import Bundle
from isthmus.bundle.calibration import Calibration, fit_calibration
from isthmus.config import Config
from isthmus.data import Dataset, SplitName, Table
from isthmus.metrics import ScoredRows
from isthmus.run.external import fingerprint, group_numbers
from isthmus.run.folder import RunFolder
from isthmus.run.scores import write_scores


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
