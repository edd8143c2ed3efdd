"""A finished run: evaluate the run, predict with the run, compare the run with another."""

from dataclasses import replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.bundle import MANIFEST, Bundle, DetectBy
from isthmus.config import Config
from isthmus.data import open_table
from isthmus.disk import sha256
from isthmus.errors import RunError
from isthmus.metrics import Comparison, Evaluation, ScoredRows, TextTable, evaluate_rows
from isthmus.metrics import compare as compare_rows
from isthmus.printable import printable
from isthmus.run.between_domains import BetweenDomains, read_between
from isthmus.run.external import fingerprint, predict, score_external
from isthmus.run.folder import RunFolder, RunState
from isthmus.run.gate_shares import GateShares, external_gates, gates_of, read_gates
from isthmus.run.guard.gains import guard_table, read_guard
from isthmus.run.notice import Listener, silent
from isthmus.run.output.predicting import predict_to
from isthmus.run.reporting.ended import CONTENT
from isthmus.run.reporting.made_later import page_of, write_figures
from isthmus.run.robustness import DomainAs, Robustness, robustness
from isthmus.run.scores import read_scores

SPLITS = ("test", "validation")


class Run:
    """A finished run in its folder. `isthmus.fit` and `Run.open` give one.

    ``path``: the folder. ``config``: the config with every default filled in. ``state``: what
    ``run.json`` says.
    """

    def __init__(self, path: Path, config: Config, state: RunState) -> None:
        self.path = path
        self.config = config
        self.state = state

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run folder. Raises RunError where it is no run, or the run is not finished."""
        folder = RunFolder(Path(path))
        state = folder.read_state()
        if state.state != "finished":
            raise RunError(
                f"run {path} must be finished, got one that was stopped or still trains;"
                f" go on with: isthmus fit {folder.config_file} --resume --out {path}"
            )
        return cls(Path(path), folder.read_config(), state)

    @property
    def name(self) -> str:
        """The name of the folder. Tables call the run by this name."""
        return self.path.absolute().name

    @cached_property
    def bundle(self) -> Bundle:
        """The model with its encoder. Raises BundleError where the model must not be served."""
        return Bundle.load(RunFolder(self.path).bundle)

    def scored(self, split: str = "test") -> ScoredRows:
        """Give the ``test`` or ``validation`` rows with the logits that they had after training.

        Raises RunError for another split, and where the scored rows are missing or damaged.
        """
        if split not in SPLITS:
            raise RunError(f"split must be test or validation, got {split!r}")
        return read_scores(RunFolder(self.path).scores / f"{split}.parquet", source=self.name)

    def guard(self) -> TextTable | None:
        """Tell what serves each domain, and what that choice gained and cost.

        None for a run without a guard. Raises RunError where ``guard.json`` is missing or damaged.
        """
        if not self.state.guard:
            return None
        return guard_table(read_guard(self.path))

    def gates(
        self, split: str = "test", *, data: Any = None, progress: Listener | None = None
    ) -> GateShares:
        """Give the mean weight of each expert in each domain, for every gate of the network.

        ``split``, ``data``, ``progress``: as for `evaluate`; ``data`` needs no labels. Domains of
        ``data`` that were not trained count as unknown. Raises RunError for a network without gates,
        for a guarded run, whose domains have networks of their own, and for a split of a run of an
        isthmus that did not look at gates yet.
        """
        if split not in SPLITS:
            raise RunError(f"split must be test or validation, got {split!r}")
        if self.state.guard:
            raise RunError(
                f"gates can be shown of a run with one network, got run {self.path} with guard"
                f" {self.state.guard}"
            )
        if data is None and (kept := read_gates(self.path, split, source=self.name)) is not None:
            return kept
        bundle = Bundle.load(RunFolder(self.path).bundle, reproduction=True)
        if not gates_of(bundle.model):
            raise RunError(
                f"gates can be shown of a network that has some, got backbone"
                f" {self.config.model.backbone.name!r} in run {self.path}"
            )
        if data is None:
            raise RunError(
                f"gates of a split are kept by fit, but isthmus {self.state.isthmus}, which made run"
                f" {self.path}, kept none; --data TABLE looks at them now"
            )
        return external_gates(bundle, data, source=self.name, progress=progress or silent)

    def between_domains(self) -> tuple[BetweenDomains, ...]:
        """Give what each objective found between domains; none where no objective looks for that.

        A guarded run has many trainings and keeps nothing of the kind. Raises RunError for a damaged
        file.
        """
        return read_between(self.path)

    def evaluate(
        self, split: str = "test", *, data: Any = None, progress: Listener | None = None
    ) -> Evaluation:
        """Give the metrics of every domain with 95 % intervals.

        ``split``: ``test`` or ``validation``. ``data``: a path or a frame. The whole labelled table
        is then scored in place of the split, and its split is named ``external``. ``progress``: is
        called with each `Notice` while ``data`` is scored. Raises RunError, or SchemaError for what
        the table lacks.
        """
        if data is None:
            return evaluate_rows(self.scored(split))
        bundle = Bundle.load(RunFolder(self.path).bundle, reproduction=True)
        tell = progress or silent
        return evaluate_rows(score_external(bundle, data, source=self.name, progress=tell))

    def page(self, *, progress: Listener | None = None) -> Path:
        """Give the path of the run's page, ``report.html``. A run that lacks one gets one.

        The config's table is read again for what is then measured; where it is not as it was, the page
        says so. ``progress``: is called with each `Notice`. Raises RunError.
        """
        folder = RunFolder(self.path)
        return page_of(folder, self.config, self.state, tell=progress or silent)

    def figures(self, folder: str | Path, *, progress: Listener | None = None) -> list[Path]:
        """Write the charts of the run's page as PNG and SVG files; give their paths.

        ``progress``: as for `page`, which is written first. Raises RunError, also where matplotlib is
        missing.
        """
        content = RunFolder(self.path).path / CONTENT
        if not content.exists():
            self.page(progress=progress)
        return write_figures(content, folder)

    def robustness(
        self,
        domain_as: DomainAs,
        split: str = "test",
        *,
        data: Any = None,
        seed: int = 0,
        progress: Listener | None = None,
    ) -> Robustness:
        """Score rows with their domain hidden, permuted or told, and compare with the ordinary scores.

        ``domain_as``: ``hidden``, ``permuted`` or ``detected``, see `isthmus.run.robustness`. ``seed``: of the
        permutation. ``split``, ``data``, ``progress``: as for `evaluate`. The rows of a split are read
        again from the config's table. Raises RunError for another word, where the config names no table,
        and where the table is not the one that was trained on.
        """
        if domain_as not in ("hidden", "permuted", "detected"):
            raise RunError(f"domain_as must be hidden, permuted or detected, got {domain_as!r}")
        tell = progress or silent
        bundle = Bundle.load(RunFolder(self.path).bundle, reproduction=True)
        if data is not None:
            opened = open_table(data)
            ordinary = score_external(bundle, opened, source=self.name, progress=tell)
        else:
            ordinary = self.scored(split)
            if self.config.data.table is None:
                raise RunError(
                    f"rows can be scored again where the config names their table, but run {self.path}"
                    " was given one from Python; give data, a table with labels"
                )
            opened = open_table(self.config.data.table)
            if fingerprint(opened) != ordinary.fingerprint:
                raise RunError(
                    f"rows can be scored again while their table is as it was, but {opened.source} is"
                    f" not the table of run {self.path}"
                )
        return robustness(bundle, opened, ordinary, domain_as, seed=seed, progress=tell)

    def predict(
        self,
        table: Any,
        *,
        strength: float | None = None,
        detect_domain: DetectBy | None = None,
    ) -> np.ndarray:
        """Give the probability of a positive label for each row, (rows,) float64, in table order.

        ``table``: a path or a frame. Warns of domains that were never trained. Their rows get the
        answer of the unknown domain. ``strength``: of the adapter, see `Bundle.at_strength`; raises
        BundleError where the model has no adapter with one. ``detect_domain``: tell the domain of rows
        that name none, by ``row`` or by ``group``, see `Bundle.score`.
        """
        return predict(self._bundle_at(strength), table, detect_domain=detect_domain)

    def predict_to(
        self,
        table: Any,
        output: str | Path,
        *,
        strength: float | None = None,
        detect_domain: DetectBy | None = None,
        resume: bool = False,
        progress: Listener | None = None,
    ) -> int:
        """Write ``table`` with a column ``score`` added, as one file. Give the number of rows.

        The file is CSV where its name ends in ``.csv`` or ``.tsv``, and Parquet otherwise. Rows
        keep their order. Columns stay as they are, in one type over all files. Memory is bounded.
        Raises SchemaError where the table has a column ``score``, or types that do not go together.
        ``output`` may be an address (``s3://bucket/scored.parquet``): the object is whole or not there, and
        ``resume`` is refused.
        Raises RunError where ``output`` exists or cannot be written. ``strength``, ``detect_domain``: as
        in `predict`; what is told stands in a column ``detected_domain``, null where a row names its own.

        ``resume``: where a call with this ``output`` was stopped, score only the rows that it did not.
        The file has the same bytes as that of a call that nobody stopped. Raises RunError, naming what
        differs, where bundle, table, options or versions are others. Without ``resume`` it begins again.
        """
        return predict_to(
            self._bundle_at(strength),
            table,
            output,
            detect_domain=detect_domain,
            about={"bundle": sha256(RunFolder(self.path).bundle / MANIFEST), "strength": strength},
            resume=resume,
            progress=progress or silent,
        )

    def _bundle_at(self, strength: float | None) -> Bundle:
        return self.bundle if strength is None else self.bundle.at_strength(strength)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """The path, and the table of the test rows where there are any."""
        where = f"<p>Run <code>{escape(printable(str(self.path)))}</code></p>"
        if not RunFolder(self.path).has_scores("test"):
            return where
        return f"{where}{self.evaluate()._repr_html_()}"


def compare(a: Run | str | Path, b: Run | str | Path, *, split: str = "test") -> Comparison:
    """Give the paired difference b - a per domain, on the same rows, with intervals.

    ``a``, ``b``: runs, or run folders. ``split``: ``test`` or ``validation``. Raises RunError,
    which says what differs, unless both runs scored the same rows of one table.
    """
    runs = [run if isinstance(run, Run) else Run.open(run) for run in (a, b)]
    left, right = (run.scored(split) for run in runs)
    if left.source == right.source:
        left, right = (
            replace(rows, source=str(run.path))
            for rows, run in zip((left, right), runs, strict=True)
        )
    return compare_rows(left, right)
