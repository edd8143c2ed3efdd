"""Training: the only loop of the package. It knows no file; whoever runs it saves what it yields.

    for event in train(model, dataset, config):
        match event:
            case Progress(): ...       # a few times a second: step, loss, rows per second
            case Look(): ...           # the validation metrics at a step
            case CheckpointDue(): ...  # event.state is all that a resumed training needs
            case End(): ...            # the best weights are back in the model

The config's method (`isthmus.train.methods`) says which batches come, what each step trains and what
happens between steps. A training has one phase, or several, each with an early stop of its own.

Two trainings with one seed are equal bit for bit in fp32 eager on one machine and one thread count,
and so is a training that was stopped anywhere and resumed from a ``TrainState``.
"""

import time
from collections.abc import Generator, Iterator
from functools import partial

import torch
from torch import nn

from isthmus.data.batch import DomainPlaces
from isthmus.data.store.order import part_of
from isthmus.data.store.subset import AnyRows
from isthmus.errors import ConfigError
from isthmus.optimisers import build_optimiser, resolve_embedding_update
from isthmus.ranks import ALONE, Ranks, over_ranks
from isthmus.sharding import boxes_of_state
from isthmus.train.allocator import keep_freed_memory
from isthmus.train.asked import build_objectives, scorer
from isthmus.train.course import courses
from isthmus.train.events import (
    Budget,
    CheckpointDue,
    End,
    Look,
    Progress,
    Stopped,
    TrainEvent,
    TrainState,
)
from isthmus.train.generators import Generators
from isthmus.train.methods import Lesson
from isthmus.train.methods.unlabelled_batches import unlabelled_beside
from isthmus.train.ranked import SharedStep, check_ranks, copy_from_first
from isthmus.train.record import Record
from isthmus.train.resuming import check_state
from isthmus.train.scoring import (
    check_monitor,
    checked_metrics,
    domain_aucs,
    move,
    resolve_device,
    score_rows,
)
from isthmus.train.stopwatch import Stopwatch
from isthmus.train.train_config import TrainConfig
from isthmus.train.unlearned import check_rows, look_once
from isthmus.train.weighting import build_weighting


def train(
    model: nn.Module,
    dataset: AnyRows,
    config: TrainConfig,
    *,
    budget: Budget | None = None,
    state: TrainState | None = None,
    exact: bool = True,
    ranks: Ranks = ALONE,
) -> Generator[TrainEvent, None, None]:
    """Train ``model`` in place on ``dataset.rows("train")`` and yield what happens.

    A model without parameters has one look and the end: see `isthmus.train.unlearned`.

    ``budget``: exactly so many steps with so many looks, in place of epochs and patience.
    ``state``: go on from here; the model may hold any weights then. ``exact``: refuse a state from
    another thread count or torch version, since the result would not be the same bit for bit.
    ``ranks``: the processes that train together, each with a part of every batch. They yield the same
    events, and a state of another number of ranks is taken, too.
    Raises RunError when the state does not fit the dataset, the config or the model, or when the
    loss is no longer finite; ConfigError when ``monitor`` is undefined on the validation rows, or when
    the method suits neither the model nor the rest of the config; SchemaError when a split is too small. Torch's global generator serves dropout, seeded with
    ``config.seed``; between events the caller finds it as it was. Trainings in threads take turns
    from event to event, and each gives what it gives alone. Initialising ``model`` is the caller's.
    """
    ranks.every(lambda: check_rows(dataset))
    ranks.every(lambda: check_ranks(model, config, ranks))
    if next(model.parameters(), None) is None:
        yield from look_once(model, dataset, config)
        return
    loop = ranks.every(lambda: _Loop(model, dataset, config, budget, ranks))
    copy_from_first(loop.model, ranks)
    with over_ranks(loop.model, ranks):
        yield from _events(loop, state, exact)


def _events(
    loop: "_Loop", state: TrainState | None, exact: bool
) -> Generator[TrainEvent, None, None]:
    """All events of a training, and the model as its caller is to have it."""
    try:
        if state is not None:
            loop.ranks.every(partial(loop.restore, state, exact=exact))
            del state
        events = loop.run()
        while True:
            with loop.random.swapped():  # never across a yield: the caller may not come back
                event = next(events, None)
            if event is None:
                break
            yield event
    finally:
        loop.method.release()
    yield loop.end()


class _Loop:
    """The living state of one training, and what is done to it."""

    def __init__(
        self,
        model: nn.Module,
        dataset: AnyRows,
        config: TrainConfig,
        budget: Budget | None,
        ranks: Ranks,
    ) -> None:
        self.config, self.budget, self.ranks = config, budget, ranks
        self.device = resolve_device(config.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.model = model.to(self.device).train()
        self.objectives = build_objectives(model, config).to(self.device)
        self.score = scorer(model, self.objectives, compiled=config.compile)
        self.dataset_key = str(dataset.key)
        self.validation = dataset.rows("validation")
        self.names = dataset.domain_names
        self.n_domains = len(self.names)
        check_monitor(config.monitor, self.validation, self.n_domains)
        self.domain_places = DomainPlaces.of(dataset.encoder.fields)
        self.rows = dataset.rows("train")
        if ranks.many:
            self.rows = self.rows.part(ranks.rank, ranks.size)
        self.method = config.method.build(
            model, self.rows, config, n_domains=self.n_domains, places=self.domain_places
        )
        self.method.name_domains(self.names)
        self.phases = self.method.phases
        self.steps_per_epoch = self.method.steps_per_epoch
        self.unlabelled = unlabelled_beside(self.objectives, dataset, config, self.steps_per_epoch)
        self.courses = courses(self.phases, self.steps_per_epoch, config, budget)
        self.random = Generators(self.device, config.seed, rank=ranks.rank)
        self.record = Record(config.monitor, self.device)
        self.watch = Stopwatch()
        self.step = self.epoch = self.step_in_epoch = 0
        try:
            for phase in range(len(self.phases), 0, -1):  # a later one is refused now, not then
                self.begin(phase)
        except ConfigError:
            self.method.release()
            raise

    def begin(self, phase: int) -> None:
        """Let a phase train what it trains, with a fresh optimiser and a fresh weighting."""
        self.phase, self.phase_step = phase, self.step
        self.course, lr = self.courses[phase - 1], self.phases[phase - 1].lr
        self.method.begin(phase - 1)
        self.optimiser = build_optimiser(
            self.model,
            lr=lr,
            embedding_l2=self.config.embedding_l2,
            embedding_update=resolve_embedding_update(self.model, self.config.embedding_update),
            beside=self.objectives,
        )
        self.weighting = build_weighting(
            self.config.weighting,
            self.model,
            n_domains=self.n_domains,
            lr=lr,
            seed=self.config.seed,
            compiled=self.config.compile,
            beside=self.objectives,
            ranks=self.ranks,
        )
        self.shared = SharedStep(self.ranks, (self.model, self.objectives))

    @property
    def stopped(self) -> Stopped | None:
        """Why the phase is over, or None while it is not."""
        if self.record.stale_looks >= self.course.patience:
            return "patience"
        if self.step - self.phase_step < self.course.steps:
            return None
        return "epochs" if self.budget is None else "budget"

    def run(self) -> Iterator[TrainEvent]:
        """Phase after phase to the end, while training's random states are the global ones."""
        self.watch.resume(self.watch.before)  # the wait for the first turn is no training
        yield from self.steps()
        while self.phase < len(self.phases):
            with self.watch.stopped():
                look = self.next_phase()
            with self.watch.stopped():
                yield look
            yield from self.steps()

    def steps(self) -> Iterator[TrainEvent]:
        """Step after step to the end of the phase."""
        while self.stopped is None:
            for lesson in self.method.lessons(self.epoch, self.step_in_epoch):
                self.take_step(lesson)
                for event in self.events():
                    with self.watch.stopped():
                        yield event
                if self.stopped is not None:
                    break

    def next_phase(self) -> Look:
        """Begin the next phase, in a new epoch, with the best weights, and look at them."""
        self.model.load_state_dict(self.record.best)
        if self.step_in_epoch:
            self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.begin(self.phase + 1)
        return self.look(self.record.begin_phase())

    def take_step(self, lesson: Lesson) -> None:
        """One forward, backward and update. Gradients per domain, and mixed rows, wait for the device."""
        batch, domain = lesson.batch, lesson.domain  # a row with a hidden domain counts for its own
        share = self.config.domain_dropout if lesson.dropout else 0.0
        rows, own = batch.rows, slice(None)  # of the whole batch; which of them are here
        if self.ranks.many:
            rows = self.rows.step_rows(self.config.batch_rows, self.step_in_epoch)
            own = slice(*part_of(rows, (self.ranks.rank, self.ranks.size)))
        hidden = self.random.hidden(rows, share)
        if hidden is not None:
            batch = batch.hide_domain(hidden[own], self.domain_places)
        labelled = batch.rows
        whole = self.shared.begin(batch, self.due()) if self.ranks.many else None
        if self.unlabelled is not None:
            batch, domain = self.unlabelled.beside(batch, domain, self.epoch, self.step_in_epoch)
        batch = move(batch, self.device)
        self.optimiser.zero_grad()
        output = self.score(batch)
        answers = self.objectives.answers(self.model, output, batch)
        losses = {**output.losses, **self.objectives(output.hidden, batch, domain, answers)}
        beside = self.objectives.total(losses)
        logits = output.logits[:labelled]  # the others have no label to be compared with
        mass = None
        if whole is not None:
            mass, self.due_by_first = whole()
        loss = self.weighting.backward(
            logits, batch.first(labelled), domain[:labelled], beside, mass=mass
        )
        told = {**output.told, **lesson.told}
        if whole is not None:
            loss, told = self.shared.sum(loss, told, share=labelled / rows)
        if self.config.clip_norm is not None:
            self.optimiser.clip(self.config.clip_norm)
        self.method.update(self.optimiser)
        self.record.add(loss, losses, told)
        self.watch.rows += rows
        self.step, self.step_in_epoch = self.step + 1, self.step_in_epoch + 1
        if self.step_in_epoch == self.steps_per_epoch:
            self.epoch, self.step_in_epoch = self.epoch + 1, 0
            self.weighting.end_epoch()
            self.objectives.end_epoch()

    def due(self) -> tuple[bool, bool]:
        """Whether a progress and a checkpoint are due, by this rank's clock."""
        seconds = self.config.checkpoint_minutes * 60
        return self.watch.progress_is_due(), self.watch.since_checkpoint() >= seconds

    def events(self) -> Iterator[TrainEvent]:
        """What is due after a step."""
        if self.course.looks_after(self.step - self.phase_step):
            with self.watch.stopped():
                look = self.look()
            yield look
        elif (self.due_by_first if self.ranks.many else self.due())[0]:
            yield self.progress()
        if (self.due_by_first if self.ranks.many else self.due())[1]:
            self.loss()  # refuses weights that are no longer finite
            yield CheckpointDue(self.snapshot(), boxes_of_state(self.model, self.optimiser))
            self.watch.checkpoint_at = time.perf_counter()

    def progress(self) -> Progress:
        """Where training stands."""
        return Progress(
            step=self.step,
            steps=self.phase_step + sum(one.steps for one in self.courses[self.phase - 1 :]),
            epoch=self.step / self.steps_per_epoch,
            loss=self.loss(),
            rows_per_second=self.watch.rate(),
        )

    def loss(self) -> float:
        """Mean loss of the rows since the last look; a fault is told by rank 0 alone."""
        return self.ranks.first(lambda: self.record.loss(self.step))

    def look(self, before: Look | None = None) -> Look:
        """Score the validation rows; keep the weights when they are the best of the phase so far.

        ``before``: the look of the former phase whose weights these are, at the start of a phase.
        """
        loss = self.loss() if before is None else before.loss
        losses = self.record.losses(self.step) if before is None else before.losses
        told = self.record.told(self.step) if before is None else before.told
        with self.method.settled():
            logits = score_rows(self.model, self.validation, ranks=self.ranks)
            metrics, aucs = self.ranks.first(
                lambda: checked_metrics(logits, self.validation, self.names, self.step)
            )
            if (priority := self.method.priority) is not None:
                priority.note(domain_aucs(logits, self.validation, self.n_domains, self.ranks))
            look = Look(
                step=self.step,
                epoch=self.step / self.steps_per_epoch,
                loss=loss,
                metrics=metrics,
                better=self.record.is_better(metrics),
                losses=losses,
                told=told,
                phase=self.phase,
                start=before is not None,
                auc_by_domain=aucs,
            )
            self.record.keep(look, self.model)
        return look

    def snapshot(self) -> TrainState:
        """All that `restore` needs."""
        return TrainState(
            step=self.step,
            epoch=self.epoch,
            step_in_epoch=self.step_in_epoch,
            model=self.model.state_dict(),
            best=self.record.best,
            optimiser=self.optimiser.state_dict(),
            random=self.random.read(self.ranks),
            weighting=self.weighting.state_dict(),
            objectives=self.objectives.state_dict(),
            method=self.method.state_dict(),
            phase=self.phase,
            phase_step=self.phase_step,
            loss_sums=self.record.loss_sums,
            loss_sum=self.record.loss_sum,
            loss_steps=self.record.loss_steps,
            history=self.record.history,
            stale_looks=self.record.stale_looks,
            seconds=self.watch.seconds(),
            dataset_key=self.dataset_key,
            threads=torch.get_num_threads(),
            torch_version=torch.__version__,
            config=self.config.model_dump(mode="json"),
        )

    def restore(self, state: TrainState, *, exact: bool) -> None:
        """Go back to the moment of ``state``, whose tensors are copied."""
        check_state(
            state,
            dataset_key=self.dataset_key,
            config=self.config,
            model=self.model,
            exact=exact,
        )
        if state.phase != self.phase:
            self.begin(state.phase)
        self.phase_step = state.phase_step
        self.model.load_state_dict(state.model)
        self.optimiser.load_state_dict(state.optimiser)
        self.random.write(state.random)
        self.weighting.load_state_dict(state.weighting)
        self.objectives.load_state_dict(state.objectives)
        self.method.load_state_dict(state.method)
        self.record.restore(state)
        self.step, self.epoch = state.step, state.epoch
        self.step_in_epoch = state.step_in_epoch
        self.watch.resume(state.seconds)

    def end(self) -> End:
        """Put the best weights back, leave the model in eval mode, and say how it went."""
        assert self.record.best_look is not None
        assert self.stopped is not None
        self.model.load_state_dict(self.record.best)
        self.model.eval()
        self.optimiser.zero_grad()
        return End(
            step=self.step,
            epoch=self.step / self.steps_per_epoch,
            best=self.record.best_look,
            history=self.record.history,
            stopped=self.stopped,
            seconds=self.watch.seconds(),
            between_domains=self.objectives.between_domains(),
        )
