"""fit() takes a config and a table, and gives a finished run folder. Kill it at any moment.

The order of things is a promise. Config, table and model are checked and the first steps are taken
before the run folder exists, so a refused fit leaves no folder. Every file in the folder is written
whole. The checkpoint carries all of the training's state, so a resumed run ends with the same bits.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from isthmus import checkpoint
from isthmus.bundle import Bundle, Detector, check_detector, fit_detector
from isthmus.config import Config
from isthmus.data import Dataset, SplitName, Table, open_table
from isthmus.data.store.dataset import dataset_key
from isthmus.data.tables import BLOCK_ROWS
from isthmus.errors import ConfigError
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train, sized_for
from isthmus.metrics import evaluate_rows
from isthmus.metrics.text_table import DOMAIN_LIMIT
from isthmus.models import AbstractModel
from isthmus.optimisers import resolve_embedding_update
from isthmus.printable import printable
from isthmus.ranks import Ranks, agree, start_ranks
from isthmus.recipe import SettledConfig
from isthmus.report import to_markdown
from isthmus.run.between_domains import found_between, write_between
from isthmus.run.fit_plan import FitPlan, target_folder
from isthmus.run.folder import LookWriter, RunState, trackers_of
from isthmus.run.gate_shares import GateShares, GateWatch, write_gates
from isthmus.run.guard.choosing import Guard
from isthmus.run.guard.guarded_fit import GuardedFit, check_guard
from isthmus.run.notice import Listener, Notice, encoding, silent
from isthmus.run.ranked_fit import (
    boxes_to_read,
    check_same,
    deals_tables,
    restarted,
    save_bundle,
)
from isthmus.run.reporting.ended import Ended
from isthmus.run.result import Run
from isthmus.run.scores import SplitScores
from isthmus.run.texts import (
    cross_text,
    dataset_text,
    end_text,
    fit_facts,
    look_text,
    progress_text,
    sizes_text,
    unread_text,
)
from isthmus.sharding import dealt_start
from isthmus.train import CheckpointDue, End, Look, TrainEvent, score_rows, train
from isthmus.train import Progress as Moment


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
    recipe: str | None = None,
    progress: Listener | None = None,
) -> Run:
    """Train one model over the domains of a table, and score its validation and test rows.

    ``config``: a YAML file, a nested dict or a `Config`.
    ``table``: a path or a frame, in place of ``data.table``.
    ``out``: the run folder, which must not exist. The default is ``runs/NAME-TIME``. ``resume``: go
    on with the run in ``out``, from its last checkpoint. The default of ``out`` is then the last
    run of that name. Where there is no checkpoint yet, the run begins. A finished run is given back
    as it is.
    ``set``: changes of the config such as ``train.epochs=3``.
    ``cache``: the folder of encoded tables. ``verify_content``: hash the whole table to find its
    encoded copy, not only size, time and footer of its files.
    ``block_rows``: rows of the table that are held at once while the table is encoded. The number
    bounds the memory and does not change the result.
    ``allow_other_threads``: resume with another number of threads or another torch, though the last
    bits of the result may differ.
    ``guard``: train the alternatives of each domain, too, and ship what serves each domain best.
    See `isthmus.run.guard.choosing`. ``jobs``: with a guard, the number of processes that train
    side by side.
    ``recipe``: the name of a published system, whose settings take the place of the config's; ``set``
    takes the place of the recipe's. See `isthmus.recipes`.
    ``progress``: is called with each `Notice`. Try ``print``.

    Started by torchrun as one process of several, the fit is one training of all of them: see
    docs/scale.md. Every process gives the same run. A start anew goes on with the run in ``out``.

    Fits in threads of one process take turns, and each gives what it gives alone. Use processes for
    several cores.

    Raises ConfigError, SchemaError or RunError, which names the key, file, column, row or folder. A
    refused fit leaves no run folder, unless a checkpoint makes the folder worth resuming.
    """
    ranks = start_ranks()
    tell = (progress or silent) if ranks.is_first else silent
    resume = ranks.every(lambda: restarted(out)) or resume
    settled = ranks.every(lambda: SettledConfig.of(config, set, recipe))
    settings = settled.config
    if guard is not None:
        if ranks.many:
            raise ConfigError("a guard trains many models, so one process must fit, got several")
        check_guard(settings, guard)
    target = Path(ranks.first(lambda: str(target_folder(config, out, resume))))
    plan = FitPlan(settings, target, resume, allow_other_threads, guard or "", settled.told)
    ranks.first(plan.check)
    if ranks.first(lambda: plan.finished):
        told = f"run {printable(str(target))} is finished already: nothing to resume"
        tell(Notice("train", told))
        return Run.open(target)
    source = settings.data.table if table is None else table
    if source is None:
        raise ConfigError("data.table must name a table, or a table must be given, got neither")
    opened = ranks.every(lambda: open_table(source))
    check_same(ranks, settings, opened)
    files = ranks.first(
        lambda: dataset_key(settings.data, opened.fingerprint(verify_content=verify_content))
    )
    ranks.first(lambda: plan.check_table(files))
    dataset = Dataset.from_table(
        settings.data,
        opened,
        cache=cache,
        verify_content=verify_content,
        block_rows=block_rows,
        progress=encoding(tell),
        ranks=ranks,
    )
    ranks.every(lambda: settled.check(dataset, printable(opened.source)))
    ranks.every(lambda: check_detector(settings, dataset))
    tell(Notice("encode", dataset_text(dataset)))
    if plan.recipe:
        tell(Notice("train", f"recipe {plan.recipe}"))
    if told := unread_text(dataset):
        tell(Notice("encode", told))
    for trial in dataset.encoder.crosses:
        tell(Notice("encode", cross_text(trial)))
    if plan.trunk:
        chosen = sized_for(settings.model, dataset)
        settings = settings.model_copy(update={"model": chosen})
        ranks.first(lambda: plan.check_sizes(settings))
    training = Training(model=settings.model, train=settings.train)
    with dealt_start(ranks.group if deals_tables(ranks, settings.train, dataset) else None):
        model = ranks.every(lambda: build_to_train(training, dataset, dataset.rows("train")))
    if plan.trunk:
        tell(Notice("encode", sizes_text(plan.trunk, settings, model)))
    update = resolve_embedding_update(model, settings.train.embedding_update)
    settings = settings.model_copy(
        update={"train": settings.train.model_copy(update={"embedding_update": update})}
    )
    if (why := settings.model.unsound) is not None and ranks.is_first:
        warnings.warn(f"{why}, so its bundle is not served", UserWarning, stacklevel=2)
    if guard is not None:
        return GuardedFit(settings, opened, dataset, plan, guard, jobs=jobs, tell=tell).run()
    return _Fit(settings, opened, dataset, model, plan, tell, ranks).run()


class _Fit:
    """One fit of one training, with its run folder."""

    def __init__(
        self,
        config: Config,
        table: Table,
        dataset: Dataset,
        model: AbstractModel,
        plan: FitPlan,
        tell: Listener,
        ranks: Ranks,
    ) -> None:
        self.config, self.dataset, self.model = config, dataset, model
        self.plan, self.tell, self.ranks = plan, tell, ranks
        self.gates: list[GateShares] = []  # of each split that was scored
        self.detector: Detector | None = None
        self.folder = plan.folder
        self.scores = SplitScores(config, dataset, table, self.folder)
        self.state = replace(
            RunState.running(dataset, table, trunk=plan.trunk, recipe=plan.told_recipe),
            parameters=model.parameter_report().total,
            processes=ranks.size,
        )

    def run(self) -> Run:
        """Train to the end and fill the folder. All ranks come here; rank 0 writes."""
        if self.ranks.first(lambda: self.plan.begun):
            with self._locked():
                return self._resumed()
        events = train(self.model, self.dataset, self.config.train, ranks=self.ranks)
        with closing(events):
            # The first event comes after the first steps: what they refuse leaves no folder.
            first = next(events)
            self.ranks.first(self.plan.make_folder)
            with self._locked():
                return self._guarded(chain([first], events), (), begin=True)

    def _locked(self) -> AbstractContextManager[None]:
        return self.folder.locked() if self.ranks.is_first else nullcontext()

    def _resumed(self) -> Run:
        ranks, settings = self.ranks, self.config.train
        if not ranks.first(lambda: checkpoint.exists(self.folder.checkpoint)):
            self.tell(Notice("train", "no checkpoint yet: the run begins again"))
            return self._guarded(train(self.model, self.dataset, settings, ranks=ranks), ())
        boxes = boxes_to_read(self.model, settings)
        state = ranks.every(lambda: checkpoint.load(self.folder.checkpoint, boxes=boxes))
        agree(ranks, {"step of the checkpoint": state.step})
        self.tell(Notice("train", f"going on after step {state.step}"))
        exact = not self.plan.allow_other_threads
        history = state.history
        events = train(self.model, self.dataset, settings, state=state, exact=exact, ranks=ranks)
        del state
        return self._guarded(events, history)

    def _guarded(
        self, events: Iterator[TrainEvent], history: tuple[Look, ...], *, begin: bool = False
    ) -> Run:
        """Train and finish. A fault keeps a folder that can be resumed, and removes any other.

        A world that may be started anew keeps its folder: it must not vanish under the next start.
        """

        def worth() -> bool:
            return self.ranks.many or checkpoint.exists(self.folder.checkpoint)

        kept = self.folder.kept_where(worth, self.tell) if self.ranks.is_first else nullcontext()
        with kept:
            if begin:
                self.ranks.first(lambda: self.folder.begin(self.config, self.state))
            self.trackers = trackers_of(self.config, self.folder, history, self.tell, self.ranks)
            with self.trackers.following():
                self._finish(self._train(events, history))
                self.trackers.keep()
        return Run.open(self.folder.path)

    def _train(self, events: Iterator[TrainEvent], history: tuple[Look, ...]) -> End:
        looks: LookWriter | None = None
        end = None

        def open_looks() -> None:
            nonlocal looks
            looks = LookWriter(self.folder, history, method=self.config.train.method.name)

        self.ranks.first(open_looks)
        try:
            # To its very end: an exhausted training frees its optimiser before rows are scored.
            for event in events:
                match event:
                    case Moment():
                        self.tell(Notice("train", progress_text(event), event.step / event.steps))
                    case Look():
                        if looks is not None:
                            looks.write(event)
                        self.trackers.look(event)
                        self.tell(Notice("train", look_text(event, self.config.train.monitor)))
                    case CheckpointDue():
                        self._save(looks, event)
                    case End():
                        end = event
        finally:
            if looks is not None:
                looks.close()
        assert end is not None
        return end

    def _save(self, looks: LookWriter | None, due: CheckpointDue) -> None:
        """Write a checkpoint: rank 0 alone, or all of them where each holds a part of the tables."""

        def write() -> None:
            assert looks is not None
            looks.sync()
            if not due.boxes:
                checkpoint.save(self.folder.checkpoint, due.state)

        self.ranks.first(write)
        if due.boxes:
            group = self.ranks.group
            checkpoint.save(self.folder.checkpoint, due.state, boxes=due.boxes, group=group)

    def _finish(self, end: End) -> None:
        """Score the rows, write what is shipped, and mark the run as finished."""
        self.tell(Notice("train", end_text(end), 1.0))
        logits = self._score("validation")
        shipped: list[Bundle] = []  # of rank 0
        self.ranks.first(lambda: shipped.append(self._bundle(logits)))
        save_bundle(self.ranks, shipped, self.model, self.folder.bundle)
        self.ranks.first(lambda: self._write_scores(shipped[0], logits))
        del logits  # one split at a time bounds the memory
        logits = self._score("test")
        self.ranks.first(lambda: self._report(end, shipped[0], logits))

    def _bundle(self, validation: np.ndarray) -> Bundle:
        """What is shipped."""
        scored = self.scores.of("validation", validation)
        self.detector = fit_detector(self.config, self.dataset)
        calibration = self.scores.calibration(scored)
        return Bundle(
            config=self.config,
            encoder=self.dataset.encoder,
            model=self.model,
            calibration=calibration,
            detector=self.detector,
            profile=self.scores.profile(scored, calibration),
        )

    def _write_scores(self, bundle: Bundle, validation: np.ndarray) -> None:
        self.scores.write(bundle, self.scores.of("validation", validation))

    def _report(self, end: End, bundle: Bundle, test: np.ndarray) -> None:
        """Write the scores of the test rows, the report, and that the run is finished."""
        scored = self.scores.write(bundle, self.scores.of("test", test))
        evaluation = evaluate_rows(scored)
        self.trackers.tested(evaluation, end.step)
        tables = [to_markdown(evaluation)]
        found = found_between(end.between_domains, self._domains())
        write_between(self.folder.path, found)
        tables += [to_markdown(one.table()) for one in found if len(one.domains) <= DOMAIN_LIMIT]
        if self.gates:
            write_gates(self.folder.path, self.gates)
            tables += map(to_markdown, self.gates[-1].tables())
        told = (self.config, self.dataset, self.model)
        facts = fit_facts(*told, end, self.state, detector=self.detector)
        self.folder.write_report("\n".join([*(f"{table}\n" for table in tables), *facts]))
        state = replace(
            self.state,
            state="finished",
            best_step=end.best.step,
            steps=end.step,
            stopped=end.stopped,
            seconds=round(end.seconds, 3),
        )
        ended = Ended(self.folder, self.config, state, self.dataset, bundle, self.tell)
        gates = self.gates[-1] if self.gates else None
        ended.write_page(scored, evaluation, gates=gates, epochs=end.epoch)
        self.folder.write_state(state)

    def _score(self, split: SplitName) -> np.ndarray:
        """Score a split, and keep what the gates of the network said of it, where it has gates."""
        self.tell(Notice("score", f"{split} rows"))
        watch = GateWatch(self.model)
        with watch.watching():
            logits = score_rows(self.model, self.dataset.rows(split), ranks=self.ranks)
        if watch.gates:
            watch.add_up(self.ranks)
            source = self.folder.path.name
            self.gates.append(watch.shares(split, domains=self._domains(), source=source))
        return logits

    def _domains(self) -> tuple[str, ...]:
        """Names of the trained domains, in the order of their ids."""
        return self.dataset.domain_names[: self.dataset.n_domains]
