"""The end of a run: ``report.json`` and ``report.html`` are written into its folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus.bundle import Bundle
from isthmus.config import Config
from isthmus.data import Dataset
from isthmus.disk import write_whole
from isthmus.layers.tables import tables_of
from isthmus.metrics import Evaluation, ScoredRows, TextTable, evaluate_rows
from isthmus.models import AbstractModel
from isthmus.report.fitted import fitted_page
from isthmus.run.folder import RunFolder, RunState
from isthmus.run.gate_shares import GateShares
from isthmus.run.notice import Listener
from isthmus.run.reporting.gathering import RunContent, read_looks, shown_domains
from isthmus.run.reporting.importance import importance, work_of
from isthmus.run.scores import read_scores
from isthmus.run.texts import model_text
from isthmus.train.device import peak_mebibytes

CONTENT, PAGE = "report.json", "report.html"
NO_GATES = "the network has no gates"
NO_CURVES_OF_GUARD = "a guarded run trains several models, and keeps the looks of none"
NO_GATES_OF_GUARD = "domains of a guarded run have networks of their own"
NO_CURVES_OF_TREES = "a forest is grown with the encoded table, without epochs"


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, with what is needed to measure and to tell of it.

    ``state``: the finished one. ``dataset``: what it was trained on, or None where it is not at hand:
    ``no_dataset`` then says why.
    """

    folder: RunFolder
    config: Config
    state: RunState
    dataset: Dataset | None
    bundle: Bundle
    tell: Listener
    no_dataset: str = ""

    def write_page(
        self,
        test: ScoredRows | None,
        evaluation: Evaluation | None,
        *,
        gates: GateShares | None,
        epochs: float,
        guard: TextTable | None = None,
        at_fit: bool = True,
    ) -> None:
        """Gather, write ``report.json``, and draw the page from that.

        ``test``, ``evaluation``: of the test rows; where they hold none, validation rows take their place.
        ``epochs``: of the training, for rates. ``at_fit``: whether this process trained the run, so that
        its memory and device are those of the training.
        """
        scored = test if test is not None and len(test) else self._validation()
        if scored is not test:
            evaluation = None if scored is None else evaluate_rows(scored)
        missing = {}
        if scored is None:
            missing["evaluation"] = "the run holds no scored rows"
        shown = [] if scored is None else shown_domains(scored)
        found, missing_importance = self._importance(shown, epochs)
        looks = [] if self.state.guard or self.config.model.is_trees else self._looks()
        if found is None:
            missing["importance"] = missing_importance
        if not looks:
            missing["curves"] = NO_CURVES_OF_GUARD if self.state.guard else NO_CURVES_OF_TREES
        if gates is None:
            missing["gates"] = NO_GATES_OF_GUARD if self.state.guard else NO_GATES
        content = RunContent(
            name=self.folder.path.absolute().name,
            config=self.config,
            state=self.state,
            model=model_text(self.config, self.bundle.encoder),
            scored=scored,
            evaluation=evaluation,
            looks=looks,
            cost=self._cost(epochs, at_fit=at_fit),
            importance=found,
            gates=gates,
            guard=guard,
            missing=missing,
        ).to_dict()
        write_content(self.folder.path, content)

    def _validation(self) -> ScoredRows | None:
        """The scored validation rows, where there are any."""
        path = self.folder.scores / "validation.parquet"
        if not path.exists():
            return None
        rows = read_scores(path, source=self.folder.path.absolute().name)
        return rows if len(rows) else None

    def _looks(self) -> list[dict[str, Any]]:
        return read_looks(self.folder.metrics)

    def _importance(self, shown: list[str], epochs: float) -> tuple[Mapping[str, Any] | None, str]:
        """What the model reads, or why that is not known."""
        if self.dataset is None:
            return None, self.no_dataset
        if any(table.sharded for table in tables_of(self.bundle.model)):
            return None, "the embedding tables lie on several processes"
        rows = self.dataset.rows("validation")
        found = importance(
            self.bundle,
            rows,
            names=self.dataset.domain_names,
            kept=shown,
            work=work_of(epochs * len(self.dataset.rows("train"))),
            seed=self.config.train.seed,
            tell=self.tell,
        )
        return found, ""

    def _cost(self, epochs: float, *, at_fit: bool) -> dict[str, Any]:
        state, model = self.state, self.bundle.model
        parameters = model.parameter_report()
        trained = None if self.dataset is None else epochs * len(self.dataset.rows("train"))
        rate = trained / state.seconds if trained and state.seconds else None
        return {
            "parameters": state.parameters,
            "parts": None if state.guard else asdict(parameters),
            "of_each_domain": None if state.guard else _of_each_domain(model),
            "seconds": state.seconds,
            "steps": state.steps,
            "epochs": None if state.guard else epochs or None,
            "stopped": state.stopped,
            "rows_per_second": None if state.guard else rate,
            "peak_mebibytes": peak_mebibytes() if at_fit else None,
            "gpu_peak_mebibytes": _gpu_peak() if at_fit else None,
            "threads": state.threads,
            "processes": state.processes,
        }


def write_content(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write ``report.json`` and the page that it makes; give the path of the page."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_whole(folder / CONTENT, text + "\n")
    write_whole(folder / PAGE, fitted_page(content))
    return folder / PAGE


def _of_each_domain(model: AbstractModel) -> int:
    """Parameters that each domain has for itself."""
    return int(sum(np.prod(bank.shape[1:]) for bank in model.domain_parameters().values()))


def _gpu_peak() -> float | None:
    if not torch.cuda.is_initialized():
        return None
    return torch.cuda.max_memory_allocated() / 2**20
