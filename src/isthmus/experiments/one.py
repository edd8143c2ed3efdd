"""Run one training to its end and write its outcome, or go on where a killed process stopped."""

import shutil
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from torch import Tensor

from isthmus import checkpoint
from isthmus.data.store.dataset import Dataset
from isthmus.data.store.rows import Rows
from isthmus.data.store.subset import Subset
from isthmus.errors import BundleError, RunError
from isthmus.experiments.outcome import SPLITS, Outcome, build_to_train, told, write
from isthmus.experiments.training import Training
from isthmus.layers.per_domain import domain_tensors
from isthmus.models import AbstractModel
from isthmus.train import CheckpointDue, End, TrainState, score_rows, train

ADAPTER = "adapter."  # begins the names of an adapter's weights
CHECKPOINT = ".checkpoint"  # folders of this suffix stand beside the outcome to come
ROUNDING = 1e-5  # of a sum of 32-bit numbers
STARTS = 5  # first weights that are tried before a network that learns nothing is kept


def run_one(
    training: Training,
    dataset: Dataset,
    folder: Path,
    start: Path | None,
    saved: Path | None = None,
) -> None:
    """Train, score the rows, and write ``folder``. ``start``: the outcome of ``training.start``.

    A checkpoint stands at ``saved`` until the training is done, by default beside the folder. A network that ends by giving
    every row the same answer was dead from its first weights: every unit of a narrow layer was at
    0. Such a network is trained again from other first weights, in `STARTS` attempts at most, and
    the outcome says how often. Raises what `train` raises. Raises RunError where the start does not
    fit, where a logit is not finite, or where the disk does not take the outcome.
    """
    began = time.perf_counter()
    subset = training.subset(dataset)
    saved = saved or folder.with_name(f"{folder.name}{CHECKPOINT}")
    for restart in range(STARTS):
        model = build_to_train(training, dataset, subset.rows("train"), restart)
        if training.start is not None:
            assert start is not None
            weights = Outcome(start, training.start, dataset).weights()
            if training.extends:
                weights = _extended(model, weights, training, dataset)
            _begin_with(model, weights)
        end = _train(training, model, subset, saved)
        logits = _scored(training, model, subset)
        drawn = training.start is None and not training.model.is_trees
        held = subset.scored("validation", training.scored)
        alive = not drawn or says_anything(model, held, logits["validation"])
        if alive or restart == STARTS - 1:
            rows = len(subset.rows("train"))
            summary = told(training, end, rows, time.perf_counter() - began, restart)
            write(folder, training, summary, logits, model.state_dict())
        shutil.rmtree(saved, ignore_errors=True)
        if alive:
            return


def says_anything(model: AbstractModel, rows: Rows, logits: np.ndarray) -> bool:
    """Whether a network tells some rows from others; what it adds to a forest's score counts."""
    place = model.domain_places.score
    if place is not None:
        logits = logits - rows.arrays.numeric[:, place]
        return bool(np.ptp(logits) > ROUNDING * max(1.0, float(np.abs(logits).max())))
    return bool(np.ptp(logits) > 0)


def _scored(training: Training, model: AbstractModel, subset: Subset) -> dict[str, np.ndarray]:
    """Give the finite logits of the rows that are to be scored, by split."""
    logits = {split: score_rows(model, subset.scored(split, training.scored)) for split in SPLITS}
    for split, scores in logits.items():
        if not np.isfinite(scores).all():
            raise RunError(f"logits of the {split} rows must be finite, got nan or inf")
    return {str(split): scores for split, scores in logits.items()}


def _train(training: Training, model: AbstractModel, subset: Subset, saved: Path) -> End:
    """Train to the end. Checkpoints go to ``saved``."""
    state = _state(saved)
    events = train(model, subset, training.train, budget=training.budget, state=state, exact=False)
    del state
    end = None
    with closing(events):
        for event in events:
            match event:
                case CheckpointDue():
                    checkpoint.save(saved, event.state)
                case End():
                    end = event
    assert end is not None
    return end


def _state(saved: Path) -> TrainState | None:
    """Give the state of a killed training, or None where the training must begin again."""
    try:
        return checkpoint.load(saved) if checkpoint.exists(saved) else None
    except BundleError:
        return None


def _extended(
    model: AbstractModel, weights: dict[str, Tensor], training: Training, dataset: Dataset
) -> dict[str, Tensor]:
    """The weights to extend from: a fresh adapter beside them, and new domains as the unknown one."""
    fresh = {name: t for name, t in model.state_dict().items() if name.startswith(ADAPTER)}
    found = {name: tensor.clone() for name, tensor in {**fresh, **weights}.items()}
    new = [dataset.domain_names.index(name) + 1 for name in training.domains or ()]
    for name in domain_tensors(model):
        if name in found:
            found[name][new] = found[name][0].clone()
    return found


def _begin_with(model: AbstractModel, weights: dict[str, Tensor]) -> None:
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise RunError(
                f"a training must start from one of the same model, whose {name!r} has shape"
                f" {here.get(name)}, got {there.get(name)}"
            )
    model.load_state_dict(weights)
