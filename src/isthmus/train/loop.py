"""Training: the only loop of the package. It knows no file; whoever runs it saves what it yields.

    for event in train(model, dataset, config):
        match event:
            case Progress(): ...       # a few times a second: step, loss, rows per second
            case Look(): ...           # the validation metrics at a step
            case CheckpointDue(): ...  # event.state is all that a resumed training needs
            case End(): ...            # the best weights are back in the model

Two trainings with one seed are equal bit for bit in fp32 eager on one machine and one thread count,
and so is a training that was stopped anywhere and resumed from a ``TrainState``.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch, DomainPlaces
from isthmus.data.store.dataset import Dataset
from isthmus.data.store.subset import Subset
from isthmus.errors import ConfigError, RunError
from isthmus.layers.sites import SiteSpec
from isthmus.models import AbstractModel, Output
from isthmus.objectives import Objectives
from isthmus.optimisers import build_optimiser, clip_gradients, resolve_embedding_update
from isthmus.train.allocator import keep_freed_memory
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
from isthmus.train.generators import Generators, seeded
from isthmus.train.resuming import check_state
from isthmus.train.scoring import (
    check_monitor,
    move,
    resolve_device,
    score_rows,
    watch_metrics,
)
from isthmus.train.stopwatch import Stopwatch
from isthmus.train.train_config import TrainConfig
from isthmus.train.unlearned import check_rows, look_once
from isthmus.train.weighting import build_weighting


def train(
    model: nn.Module,
    dataset: Dataset | Subset,
    config: TrainConfig,
    *,
    budget: Budget | None = None,
    state: TrainState | None = None,
    exact: bool = True,
) -> Generator[TrainEvent, None, None]:
    """Train ``model`` in place on ``dataset.rows("train")`` and yield what happens.

    A model without parameters has one look and the end: see `isthmus.train.unlearned`.

    ``budget``: exactly so many steps with so many looks, in place of epochs and patience.
    ``state``: go on from here; the model may hold any weights then. ``exact``: refuse a state from
    another thread count or torch version, since the result would not be the same bit for bit.
    Raises RunError when the state does not fit the dataset, the config or the model, or when the
    loss is no longer finite; ConfigError when ``monitor`` is undefined on the validation rows;
    SchemaError when a split is too small. Torch's global generator serves dropout, seeded with
    ``config.seed``; between events the caller finds it as it was. Trainings in threads take turns
    from event to event, and each gives what it gives alone. Initialising ``model`` is the caller's.
    """
    check_rows(dataset)
    if next(model.parameters(), None) is None:
        yield from look_once(model, dataset, config)
        return
    loop = _Loop(model, dataset, config, budget)
    if state is not None:
        check_state(
            state,
            dataset_key=loop.dataset_key,
            config=config,
            model=loop.model,
            exact=exact,
        )
        loop.restore(state)
        del state
    events = loop.run()
    while True:
        with loop.random.swapped():  # never across a yield: the caller may not come back
            event = next(events, None)
        if event is None:
            break
        yield event
    yield loop.end()


class _Loop:
    """The living state of one training, and what is done to it."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset | Subset,
        config: TrainConfig,
        budget: Budget | None,
    ) -> None:
        self.config, self.budget = config, budget
        self.device = resolve_device(config.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.model = model.to(self.device).train()
        self.objectives = _objectives(model, config).to(self.device)
        self.score = _scorer(model, self.objectives, compiled=config.compile)
        update = resolve_embedding_update(model, config.embedding_update)
        self.optimiser = build_optimiser(
            model,
            lr=config.lr,
            embedding_l2=config.embedding_l2,
            embedding_update=update,
            beside=self.objectives,
        )
        self.dataset_key = str(dataset.key)
        self.rows = dataset.rows("train")
        self.validation = dataset.rows("validation")
        self.n_domains = len(dataset.domain_names)
        self.domain_places = DomainPlaces.of(dataset.encoder.fields)
        self.steps_per_epoch = self.rows.steps(config.batch_rows)
        self.last_step = self.steps_per_epoch * config.epochs
        period, looks = self.steps_per_epoch, config.looks_per_epoch
        if budget is not None:
            self.last_step = period = budget.steps
            looks = budget.looks
        looks = min(looks, period)
        self.period = period  # steps after which the pattern of looks begins again
        self.look_steps = {math.ceil(k * period / looks) for k in range(1, looks + 1)}
        self.patience = config.patience * looks if budget is None else looks + 1
        self.random = Generators(self.device, config.seed)
        self.weighting = build_weighting(
            config.weighting,
            self.model,
            n_domains=self.n_domains,
            lr=config.lr,
            seed=config.seed,
            compiled=config.compile,
            beside=self.objectives,
        )
        self.watch = Stopwatch()
        self.step = self.epoch = self.step_in_epoch = 0
        self.best: dict[str, Tensor] = {}
        self.best_look: Look | None = None
        self.stale_looks = 0
        self.history: tuple[Look, ...] = ()
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.loss_sums: dict[str, Tensor] = {}
        self.loss_steps = 0
        check_monitor(config.monitor, self.validation, self.n_domains)

    @property
    def stopped(self) -> Stopped | None:
        """Why training is over, or None while it is not."""
        if self.stale_looks >= self.patience:
            return "patience"
        if self.step < self.last_step:
            return None
        return "epochs" if self.budget is None else "budget"

    def run(self) -> Iterator[TrainEvent]:
        """Step after step to the end, while training's random states are the global ones."""
        self.watch.resume(self.watch.before)  # the wait for the first turn is no training
        while self.stopped is None:
            for batch in self.batches():
                self.take_step(batch)
                for event in self.events():
                    with self.watch.stopped():
                        yield event
                if self.stopped is not None:
                    break

    def batches(self) -> Iterator[Batch]:
        """Batches of what is left of this epoch."""
        return self.rows.batches(
            self.config.batch_rows,
            seed=self.config.seed,
            epoch=self.epoch,
            start=self.step_in_epoch,
            sampling=self.config.domain_sampling,
        )

    def take_step(self, batch: Batch) -> None:
        """One forward, backward and update. Only gradients per domain wait for the device."""
        domain = batch.domain  # a row whose domain is hidden still counts for its domain
        hidden = self.random.hidden(batch.rows, self.config.domain_dropout)
        if hidden is not None:
            batch = batch.hide_domain(hidden, self.domain_places)
        batch = move(batch, self.device)
        self.optimiser.zero_grad()
        output = self.score(batch)
        losses = {**output.losses, **self.objectives(output.hidden, batch, domain)}
        beside = self.objectives.total(losses)
        loss = self.weighting.backward(output.logits, batch, domain, beside)
        if self.config.clip_norm is not None:
            parameters = [*self.model.parameters(), *self.objectives.parameters()]
            clip_gradients(parameters, self.config.clip_norm)
        self.optimiser.step()
        self.loss_sum += loss
        for name, one in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0) + one.detach().double()
        self.loss_steps += 1
        self.watch.rows += batch.rows
        self.step += 1
        self.step_in_epoch += 1
        if self.step_in_epoch == self.steps_per_epoch:
            self.epoch, self.step_in_epoch = self.epoch + 1, 0
            self.weighting.end_epoch()

    def events(self) -> Iterator[TrainEvent]:
        """What is due after a step."""
        if (self.step - 1) % self.period + 1 in self.look_steps:
            with self.watch.stopped():
                look = self.look()
            yield look
        elif self.watch.progress_is_due():
            yield self.progress()
        if self.watch.since_checkpoint() >= self.config.checkpoint_minutes * 60:
            self.mean_loss()  # refuses weights that are no longer finite
            yield CheckpointDue(self.snapshot())
            self.watch.checkpoint_at = time.perf_counter()

    def mean_loss(self) -> float:
        """Mean loss of the rows since the last look; waits for the device."""
        return self.finite("the training loss", self.loss_sum)

    def finite(self, what: str, total: Tensor) -> float:
        """The mean behind a sum over the steps since the last look; RunError where not finite."""
        loss = total.item() / max(self.loss_steps, 1)
        if not math.isfinite(loss):
            raise RunError(
                f"{what} must stay finite, got {loss} by step {self.step};"
                " a lower train.lr or a train.clip_norm may help"
            )
        return loss

    def progress(self) -> Progress:
        """Where training stands."""
        return Progress(
            step=self.step,
            steps=self.last_step,
            epoch=self.step / self.steps_per_epoch,
            loss=self.mean_loss(),
            rows_per_second=self.watch.rate(),
        )

    def measure(self, logits: np.ndarray) -> dict[str, float | None]:
        """Every monitor metric of the validation rows."""
        return watch_metrics(logits, self.validation, self.n_domains)

    def is_better(self, metrics: dict[str, float | None]) -> bool:
        """Whether a look with these metrics would be the best so far; a tie is not."""
        if self.best_look is None:
            return True
        now, best = metrics[self.config.monitor], self.best_look.metrics[self.config.monitor]
        assert now is not None  # defined by the labels alone, which were checked at the start
        assert best is not None
        return now < best if self.config.monitor.startswith("logloss") else now > best

    def look(self) -> Look:
        """Score the validation rows; keep the weights when they are the best so far."""
        loss = self.mean_loss()
        logits = score_rows(self.model, self.validation)
        if not np.isfinite(logits).all():
            raise RunError(
                f"validation logits must stay finite, got nan or inf at step {self.step}"
            )
        metrics = self.measure(logits)
        look = Look(
            step=self.step,
            epoch=self.step / self.steps_per_epoch,
            loss=loss,
            metrics=metrics,
            better=self.is_better(metrics),
            losses={n: self.finite(f"the loss {n!r}", s) for n, s in self.loss_sums.items()},
        )
        self.history += (look,)
        self.stale_looks += 1
        if look.better:
            self.stale_looks = 0
            self.best_look = look
            for name, tensor in self.model.state_dict().items():
                if name in self.best:
                    self.best[name].copy_(tensor)
                else:
                    self.best[name] = tensor.detach().clone()
        self.loss_sum.zero_()
        self.loss_sums = {}
        self.loss_steps = 0
        return look

    def snapshot(self) -> TrainState:
        """All that `restore` needs."""
        return TrainState(
            step=self.step,
            epoch=self.epoch,
            step_in_epoch=self.step_in_epoch,
            model=self.model.state_dict(),
            best=self.best,
            optimiser=self.optimiser.state_dict(),
            random=self.random.read(),
            weighting=self.weighting.state_dict(),
            objectives=self.objectives.state_dict(),
            loss_sums=self.loss_sums,
            loss_sum=self.loss_sum,
            loss_steps=self.loss_steps,
            history=self.history,
            stale_looks=self.stale_looks,
            seconds=self.watch.seconds(),
            dataset_key=self.dataset_key,
            threads=torch.get_num_threads(),
            torch_version=torch.__version__,
            config=self.config.model_dump(mode="json"),
        )

    def restore(self, state: TrainState) -> None:
        """Go back to the moment of ``state``, whose tensors are copied."""
        self.model.load_state_dict(state.model)
        self.optimiser.load_state_dict(state.optimiser)
        self.best = {name: tensor.to(self.device, copy=True) for name, tensor in state.best.items()}
        self.random.write(state.random)
        self.weighting.load_state_dict(state.weighting)
        self.objectives.load_state_dict(state.objectives)
        self.loss_sums = {
            name: total.to(self.device, copy=True) for name, total in state.loss_sums.items()
        }
        self.loss_sum.copy_(state.loss_sum)
        self.loss_steps = state.loss_steps
        self.step, self.epoch = state.step, state.epoch
        self.step_in_epoch = state.step_in_epoch
        self.history = state.history
        self.best_look = next((look for look in reversed(state.history) if look.better), None)
        self.stale_looks = state.stale_looks
        self.watch.resume(state.seconds)

    def end(self) -> End:
        """Put the best weights back, leave the model in eval mode, and say how it went."""
        assert self.best_look is not None
        assert self.stopped is not None
        self.model.load_state_dict(self.best)
        self.model.eval()
        self.optimiser.zero_grad()
        return End(
            step=self.step,
            epoch=self.step / self.steps_per_epoch,
            best=self.best_look,
            history=self.history,
            stopped=self.stopped,
            seconds=self.watch.seconds(),
        )


def _objectives(model: nn.Module, config: TrainConfig) -> Objectives:
    """The config's objectives with their first weights, drawn apart from all other random numbers."""
    if not config.objectives:
        return Objectives((), SiteSpec((), 0))
    if not isinstance(model, AbstractModel):
        raise ConfigError(
            "train.objectives need a model whose hidden states can be met, an AbstractModel, got"
            f" {type(model).__name__}"
        )
    with seeded(config.seed + 2**42):
        try:
            return Objectives(config.objectives, model.spec)
        except ValueError as fault:
            raise ConfigError(f"train: {fault}") from fault


def _scorer(
    model: nn.Module, objectives: Objectives, *, compiled: bool
) -> Callable[[Batch], Output]:
    """What a step of training asks of a model; a module without sites gives its logits alone."""
    if isinstance(model, AbstractModel):
        score = torch.compile(model.score) if compiled else model.score
        return lambda batch: score(batch, objectives.sites)
    forward = torch.compile(model) if compiled else model
    return lambda batch: Output(forward(batch), {}, {})
