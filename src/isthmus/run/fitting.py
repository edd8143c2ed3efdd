"""fit(): a config and a table in, a finished run folder out; safe to kill at any moment.

The order of things is the promise: config, table and model are checked and the first steps taken
before the run folder exists, so that a refused fit leaves none. Everything in the folder is written
whole. The checkpoint carries all of the training's state, so a resumed run ends with the same bits.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus import checkpoint
from isthmus.bundle import Bundle
from isthmus.calibrate import Calibration, fit_calibration
from isthmus.config import Config, load_config
from isthmus.data import Dataset, SplitName, Table, open_table
from isthmus.data.store.dataset import dataset_key
from isthmus.data.tables import BLOCK_ROWS
from isthmus.errors import ConfigError, IsthmusError, RunError
from isthmus.metrics import ScoredRows, evaluate_rows
from isthmus.models import DomainModel, build_model
from isthmus.optimisers import resolve_embedding_update
from isthmus.printable import printable
from isthmus.report import to_markdown
from isthmus.run.external import fingerprint, group_numbers
from isthmus.run.folder import LookWriter, RunState, has_tensorboard
from isthmus.run.guard.choosing import Guard
from isthmus.run.guard.guarded_fit import GuardedFit, check_guard
from isthmus.run.notice import Notice, Progress, silent
from isthmus.run.plan import Plan, target_folder
from isthmus.run.result import Run
from isthmus.run.scores import write_scores
from isthmus.run.texts import (
    dataset_text,
    end_text,
    look_text,
    model_text,
    progress_text,
    weightless_text,
)
from isthmus.train import CheckpointDue, End, Look, TrainEvent, score_rows, train
from isthmus.train import Progress as Moment
from isthmus.train.generators import seeded
from isthmus.version import VERSION


def fit(
    config: str | Path | Mapping[str, Any] | Config,
    table: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    *,
    set: Sequence[str] = (),
    cache: str | Path | None = None,
    verify_content: bool = False,
    block_rows: int = BLOCK_ROWS,
    allow_other_threads: bool = False,
    guard: Guard | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Run:
    """Train one model over the domains of a table, and score its validation and test rows.

    ``config``: YAML file, nested dict or `Config`; ``set``: changes like ``train.epochs=3``.
    ``table``: path or frame, in place of ``data.table``. ``out``: the run folder, which must not
    exist; by default ``runs/NAME-TIME``. ``resume``: go on with the run in ``out`` (by default the
    last one of that name), from its last checkpoint; where there is none it begins, and a finished
    run is given back as it is. ``allow_other_threads``: resume on another thread count or torch,
    though the last bits may differ. ``block_rows``: rows of the table that are held at once while
    it is encoded, which bounds the memory; the result is the same. ``guard``: train what else could
    serve each domain, too, and let the bundle hold what serves it best, see `isthmus.run.guard.choosing`;
    ``jobs``: processes that train side by side then. ``progress``: is called with each `Notice`; try ``print``.

    Fits in threads of one process take turns, and each gives what it gives alone; processes are the
    way to several cores.

    Raises ConfigError, SchemaError or RunError, naming key, file, column, row or folder; no run
    folder is left then, unless a checkpoint makes it worth resuming.
    """
    tell = progress or silent
    settings = load_config(config, set)
    if guard is not None:
        check_guard(settings, guard)
    target = target_folder(config, out, resume)
    plan = Plan(settings, target, resume, allow_other_threads, guard or "")
    plan.check()
    if plan.finished:
        told = f"run {printable(str(target))} is finished already: nothing to resume"
        tell(Notice("train", told))
        return Run.open(target)
    source = settings.data.table if table is None else table
    if source is None:
        raise ConfigError("data.table must name a table, or a table must be given, got neither")
    opened = open_table(source)
    plan.check_table(dataset_key(settings.data, opened.fingerprint(verify_content=verify_content)))
    dataset = Dataset.from_table(
        settings.data,
        opened,
        cache=cache,
        verify_content=verify_content,
        block_rows=block_rows,
        progress=lambda stage, done, rows: tell(
            Notice("encode", f"{stage}: {done:,} of {rows:,} rows", done / rows)
        ),
    )
    tell(Notice("encode", dataset_text(dataset)))
    model = _build(settings, dataset)
    update = resolve_embedding_update(model, settings.train.embedding_update)
    settings = settings.model_copy(
        update={"train": settings.train.model_copy(update={"embedding_update": update})}
    )
    if (why := settings.model.unsound) is not None:
        warnings.warn(f"{why}, so its bundle is not served", UserWarning, stacklevel=2)
    if guard is not None:
        return GuardedFit(settings, opened, dataset, plan, guard, jobs=jobs, tell=tell).run()
    if not has_tensorboard():
        tell(Notice("train", "tensorboard is not installed: no events are written"))
    return _Fit(settings, opened, dataset, model, plan, tell).run()


class _Fit:
    """One training with its folder."""

    def __init__(
        self,
        config: Config,
        table: Table,
        dataset: Dataset,
        model: DomainModel,
        plan: Plan,
        tell: Progress,
    ) -> None:
        self.config, self.dataset, self.model = config, dataset, model
        self.plan, self.tell = plan, tell
        self.folder = plan.folder
        self.fingerprint = fingerprint(table)
        self.state = RunState(
            state="running",
            dataset_key=dataset.key,
            table=table.source,
            domains=dataset.domain_names,
            n_domains=dataset.n_domains,
            parameters=model.parameter_report().total,
            threads=torch.get_num_threads(),
            isthmus=VERSION,
            torch=torch.__version__,
        )

    def run(self) -> Run:
        """Train to the end and fill the folder."""
        if self.plan.begun:
            with self.folder.locked():
                return self._resumed()
        events = train(self.model, self.dataset, self.config.train)
        with closing(events):
            # The first event comes after the first steps: what they refuse leaves no folder.
            first = next(events)
            if not (self.plan.resume and self.folder.path.exists()):
                self.folder.create()
            with self.folder.locked():
                return self._guarded(_chain(first, events), (), begin=True)

    def _resumed(self) -> Run:
        if not checkpoint.exists(self.folder.checkpoint):
            self.tell(Notice("train", "no checkpoint yet: the run begins again"))
            return self._guarded(train(self.model, self.dataset, self.config.train), ())
        state = checkpoint.load(self.folder.checkpoint)
        self.tell(Notice("train", f"going on after step {state.step}"))
        exact = not self.plan.allow_other_threads
        history = state.history
        events = train(self.model, self.dataset, self.config.train, state=state, exact=exact)
        del state
        return self._guarded(events, history)

    def _guarded(
        self, events: Iterator[TrainEvent], history: tuple[Look, ...], *, begin: bool = False
    ) -> Run:
        """Keep a folder that can be resumed; remove one that a fault left with nothing in it."""
        try:
            if begin:
                self.folder.begin(self.config, self.state)
            end = self._train(events, history)
            self._finish(end)
        except KeyboardInterrupt:
            self.tell(Notice("train", f"stopped; {self.folder.how_to_go_on}"))
            raise
        except Exception as fault:
            kept = checkpoint.exists(self.folder.checkpoint)
            if not kept:
                self.folder.discard()
            if not isinstance(fault, OSError | IsthmusError):
                raise
            hint = f"; {self.folder.how_to_go_on}" if kept else ""
            text = self.folder.refusal(fault) if isinstance(fault, OSError) else fault
            raise RunError(f"{text}{hint}") from fault
        return Run.open(self.folder.path)

    def _train(self, events: Iterator[TrainEvent], history: tuple[Look, ...]) -> End:
        looks = LookWriter(self.folder, history)
        end = None
        try:
            # To its very end: an exhausted training frees its optimiser before rows are scored.
            for event in events:
                match event:
                    case Moment():
                        self.tell(Notice("train", progress_text(event), event.step / event.steps))
                    case Look():
                        looks.write(event)
                        self.tell(Notice("train", look_text(event, self.config.train.monitor)))
                    case CheckpointDue():
                        looks.sync()
                        checkpoint.save(self.folder.checkpoint, event.state)
                    case End():
                        end = event
        finally:
            looks.close()
        assert end is not None
        return end

    def _finish(self, end: End) -> None:
        """Score, write what is shipped, and say that the run is finished."""
        self.tell(Notice("train", end_text(end), 1.0))
        scored = self._score("validation")
        calibration = None
        if self.config.model.calibration == "per_domain":
            calibration = self._calibration(scored)
        bundle = Bundle(
            config=self.config,
            encoder=self.dataset.encoder,
            model=self.model,
            calibration=calibration,
        )
        bundle.save(self.folder.bundle)
        self.folder.scores.mkdir(exist_ok=True)
        self._write_scores(bundle, scored)
        del scored  # one split at a time bounds the memory
        scored = self._write_scores(bundle, self._score("test"))
        table = to_markdown(evaluate_rows(scored))
        self.folder.write_report("\n".join([table, "", *self._facts(end)]))
        self.folder.write_state(
            replace(
                self.state,
                state="finished",
                best_step=end.best.step,
                steps=end.step,
                stopped=end.stopped,
                seconds=round(end.seconds, 3),
            )
        )

    def _facts(self, end: End) -> Iterator[str]:
        """What a reader of the report must know of the training."""
        settings = self.config.train
        yield f"- Training: {end_text(end)}; monitor {settings.monitor}, seed {settings.seed}."
        yield f"- Model: {self.state.parameters:,} parameters; {model_text(self.config)}."
        yield f"- Embedding update: {settings.embedding_update}, L2 {settings.embedding_l2:g}."
        if self.dataset.weightless:
            yield f"- {weightless_text(self.dataset)}."

    def _write_scores(self, bundle: Bundle, scored: ScoredRows) -> ScoredRows:
        """Calibrate the logits of a split and keep them in the folder."""
        logits = bundle.calibrated(scored.logits, self._model_ids(scored.domain))
        scored = replace(scored, logits=logits)
        write_scores(self.folder.scores / f"{scored.split}.parquet", scored)
        return scored

    def _score(self, split: SplitName) -> ScoredRows:
        self.tell(Notice("score", f"{split} rows"))
        rows = self.dataset.rows(split)
        return ScoredRows(
            split=split,
            row=rows.row,
            logits=score_rows(self.model, rows),
            label=rows.label > 0,
            domain=rows.domain,
            names=self.dataset.domain_names,
            weight=rows.weight,
            group=group_numbers(rows.group),
            negative_rate=self.config.data.negative_rate,
            fingerprint=self.fingerprint,
            source=self.folder.path.name,
        )

    def _calibration(self, validation: ScoredRows) -> Calibration:
        return fit_calibration(
            validation.logits,
            validation.label.astype(np.float64),
            self._model_ids(validation.domain),
            n_domains=self.dataset.n_domains,
            weight=validation.weight,
        )

    def _model_ids(self, domain: np.ndarray) -> np.ndarray:
        """Report ids as the model knows them: a domain without train rows is unknown."""
        return np.where(domain <= self.dataset.n_domains, domain, 0)


def _build(config: Config, dataset: Dataset) -> DomainModel:
    """A model with its first weights, drawn with the training's seed."""
    with seeded(config.train.seed):
        try:
            return build_model(config.model, dataset.encoder.fields, dataset.n_domains)
        except ValueError as error:
            raise ConfigError(f"model: {error}") from error


def _chain(first: TrainEvent, rest: Iterator[TrainEvent]) -> Iterator[TrainEvent]:
    yield first
    yield from rest
