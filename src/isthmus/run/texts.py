"""Sentences of a fit: what it tells while it trains, and what stands in its report."""

from collections.abc import Iterator

from isthmus.bundle import Detector
from isthmus.config import Config
from isthmus.data import SPLITS, Dataset
from isthmus.data.encoding.counted.trial import LEVEL, CrossTrial
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.trees import unread
from isthmus.models import AbstractModel
from isthmus.printable import printable
from isthmus.run.folder import RunState
from isthmus.schema import cross_name
from isthmus.train import End, Look, Progress, TrainConfig
from isthmus.train.methods import PhasesConfig


def dataset_text(dataset: Dataset) -> str:
    """Say how many rows and domains the encoded table has."""
    rows = ", ".join(f"{len(dataset.rows(split)):,} {split}" for split in SPLITS)
    untrained = len(dataset.domain_names) - dataset.n_domains
    more = f", {untrained} more without train rows" if untrained else ""
    left = f"; {weightless_text(dataset)}" if dataset.weightless else ""
    left += f"; {unlabelled_text(dataset)}" if dataset.config.keeps_unlabelled else ""
    return f"{rows} rows; {dataset.n_domains} domains{more}{left}"


def weightless_text(dataset: Dataset) -> str:
    """Say how many rows take no part because their weight is 0."""
    return f"{dataset.weightless:,} rows of weight 0 were left out"


def detector_text(detector: Detector) -> str:
    """Say how often the detector told the right domain."""
    return (
        f"told the domain of {detector.accuracy:.1%} of the train rows that it did not learn from"
    )


def unlabelled_text(dataset: Dataset) -> str:
    """Say how many rows have no label, and what becomes of them."""
    kept = 0 if dataset.unlabelled is None else len(dataset.unlabelled)
    left_out = dataset.unlabelled_left_out
    more = f", {left_out:,} more were left out by the split" if left_out else ""
    return f"{kept:,} unlabelled train rows{more}"


def progress_text(event: Progress) -> str:
    """Say how far the training is."""
    return (
        f"step {event.step:,}, epoch {event.epoch:.2f}, loss {event.loss:.4f},"
        f" {event.rows_per_second:,.0f} rows/s"
    )


def look_text(look: Look, monitor: str) -> str:
    """Say what a look at the validation rows gave."""
    value = look.metrics[monitor]
    shown = "undefined" if value is None else f"{value:.4f}"
    best = ", the best so far" if look.better else ""
    if look.start:
        return f"phase {look.phase} begins at {monitor} {shown}, with the best weights so far"
    return f"look at epoch {look.epoch:.2f}: {monitor} {shown}, train loss {look.loss:.4f}{best}"


def unread_text(dataset: Dataset) -> str:
    """Say which features the forest does not read, and why; "" where there is none, or no forest."""
    if not dataset.config.trees:
        return ""
    left = unread(dataset.encoder.fields).items()
    told = "; ".join(f"{printable(name)!r} {why}" for name, why in left)
    return f"the forest does not read: {told}" if told else ""


def cross_text(trial: CrossTrial) -> str:
    """Say what validation rows said of a pair of columns."""
    if trial.confirmed:
        end = "confirmed, an input"
    elif trial.loses is not None and trial.p < LEVEL:
        end = f"not confirmed, no input: domain {trial.loses!r} loses"
    else:
        end = "not confirmed, no input"
    return (
        f"cross {cross_name(trial.left, trial.right)}: {end}; logloss of {trial.rows:,} validation"
        f" rows lower by {trial.gain:.5f}, p {trial.p:.2g}"
    )


def model_text(config: Config, encoder: Encoder) -> str:
    """Describe the model in a few words."""
    model = config.model
    if model.is_trees:
        forest = encoder.taught.trees
        assert forest is not None
        return f"a forest of {forest.size:,} trees, calibration {model.calibration}"
    return (
        f"backbone {model.backbone.name}, towers {model.towers}, adapter {model.adapter.name},"
        f" calibration {model.calibration}"
    )


def parameters_text(model: AbstractModel) -> str:
    """Say how many parameters a model has, and how many of them each domain owns."""
    own = sum(bank[0].numel() for bank in model.domain_parameters().values())
    each = f", {own:,} of them for each domain and for the unknown one" if own else ""
    return f"{model.parameter_report().total:,} parameters{each}"


def sizes_text(trunk: int, config: Config, model: AbstractModel) -> str:
    """Say which widths a budget for the trunk led to. ``config``: with these widths."""
    widths = ", ".join(map(str, config.model.backbone.sizes))
    found = model.parameter_report().trunk
    return f"widths {widths} give a trunk of {found:,} parameters, at most {trunk:,} were asked for"


def method_text(settings: TrainConfig, end: End) -> str:
    """Say by which method the training went, and what each phase brought."""
    method = settings.method
    if not isinstance(method, PhasesConfig):
        return method.name
    told = []
    for number, phase in enumerate(method.phases, start=1):
        best = [look for look in end.history if look.phase == number and look.better][-1]
        value = best.metrics[settings.monitor]
        if best.start:
            went = "no look was better than its start, so the weights before it came back"
        else:
            went = f"{settings.monitor} {value:.4f} at epoch {best.epoch:.2f}"
        told.append(f"phase {number} trains {', '.join(phase.trains)}: {went}")
    return f"{method.name}; {'; '.join(told)}"


def end_text(end: End) -> str:
    """Say how the training ended."""
    if end.stopped == "no parameters":
        return f"nothing is left to learn: the forest was grown with the encoded table; {end.seconds:.1f} s"
    why = "no better look came" if end.stopped == "patience" else "all epochs are done"
    return (
        f"{why}: {end.step:,} steps in {end.seconds:.1f} s,"
        f" best weights from epoch {end.best.epoch:.2f}"
    )


def fit_facts(
    config: Config,
    dataset: Dataset,
    model: AbstractModel,
    end: End,
    state: RunState,
    *,
    detector: Detector | None,
) -> Iterator[str]:
    """Give the lines of the report that tell of the training."""
    train = config.train
    yield f"- Training: {end_text(end)}; monitor {train.monitor}, seed {train.seed}."
    if state.processes > 1:
        yield f"- Processes: {state.processes}."
    if state.recipe:
        yield f"- Recipe: {printable(state.recipe)}."
    if not config.model.is_trees:
        yield f"- Method: {method_text(train, end)}."
    yield f"- Model: {parameters_text(model)}; {model_text(config, dataset.encoder)}."
    if state.trunk:
        yield f"- Sizes: {sizes_text(state.trunk, config, model)}."
    if not config.model.is_trees:
        yield f"- Embedding update: {train.embedding_update}, L2 {train.embedding_l2:g}."
    if detector is not None:
        yield f"- Detector: {detector_text(detector)}."
    if dataset.weightless:
        yield f"- {weightless_text(dataset)}."
    if dataset.config.keeps_unlabelled:
        yield f"- {unlabelled_text(dataset)}."
