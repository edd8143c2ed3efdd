"""What a training left on disk: logits, looks and weights. All is written, or nothing.

FOLDER/outcome.json            the description, looks, steps, seconds
FOLDER/logits.safetensors      float64 logits of the scored rows, by split, in table order
FOLDER/weights.safetensors     the best look's weights
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from scipy.special import logit

from isthmus.data.store.dataset import Dataset
from isthmus.data.store.rows import Rows
from isthmus.data.store.split import SplitName
from isthmus.disk import reason, whole_folder
from isthmus.errors import BundleError, ConfigError, RunError
from isthmus.experiments.training import Training
from isthmus.models import AbstractModel, ModelConfig, build_model, sized
from isthmus.train import End
from isthmus.train.generators import seeded, turn

FORMAT = 1
SPLITS: tuple[SplitName, ...] = ("validation", "test")
RESTART_SEED = 1_000_003  # far from the seeds that people choose
FILE = "outcome.json"
LOGITS = "logits.safetensors"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class Told:
    """How a training went.

    ``best``: the monitor at the best look. ``rows``: the number of train rows. ``restarts``: how
    often the training was begun again because the network gave every row the same answer.
    """

    best: float
    best_step: int
    steps: int
    epochs: float
    looks: int
    stopped: str
    seconds: float
    rows: int
    metrics: dict[str, float | None]  # every monitor metric at the best look
    restarts: int = 0


def told(training: Training, end: End, rows: int, seconds: float, restarts: int) -> Told:
    """Take from a training's end what is kept of it."""
    best = end.best.metrics[training.train.monitor]
    assert best is not None
    return Told(
        best=best,
        best_step=end.best.step,
        steps=end.step,
        epochs=end.epoch,
        looks=len(end.history),
        stopped=end.stopped,
        seconds=round(seconds, 3),
        rows=rows,
        metrics=end.best.metrics,
        restarts=restarts,
    )


def write(
    folder: Path,
    training: Training,
    summary: Told,
    logits: dict[str, np.ndarray],
    weights: dict[str, torch.Tensor],
) -> None:
    """Write one outcome. A reader meets all of the outcome or nothing.

    A whole outcome that stands in ``folder`` stays: somebody may read it, and has the same numbers.
    Raises RunError where the disk does not take the outcome.
    """
    content = {"format": FORMAT, "told": asdict(summary), "training": training.describe()}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder, keep=is_whole) as temporary:
            save_arrays(logits, temporary / LOGITS)
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()},
                temporary / WEIGHTS,
            )
            (temporary / FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    except (OSError, SafetensorError) as fault:
        raise RunError(f"an outcome must be writable at {folder}, got: {reason(fault)}") from fault


def is_whole(folder: Path) -> bool:
    """Whether ``folder`` holds an outcome of this version."""
    try:
        _read(folder)
    except BundleError:
        return False
    return all((folder / name).exists() for name in (LOGITS, WEIGHTS))


def _read(folder: Path) -> Told:
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise BundleError(
                f"an outcome must have format {FORMAT}, got {content['format']} in {folder}"
            )
        return Told(**content["told"])
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise BundleError(f"an outcome must be whole, got none in {folder}: {fault}") from fault


class Outcome:
    """A finished training. ``told``: how the training went."""

    def __init__(self, folder: Path, training: Training, dataset: Dataset) -> None:
        self.folder = folder
        self.training = training
        self.dataset = dataset
        self.told = _read(folder)

    @cached_property
    def _logits(self) -> dict[str, np.ndarray]:
        try:
            return load_arrays(self.folder / LOGITS)
        except (OSError, SafetensorError) as fault:
            raise BundleError(f"logits in {self.folder} are damaged: {fault}") from fault

    def logits(self, split: str, domain: str | None = None) -> np.ndarray:
        """Give the logits, float64, of a domain's rows in a split, in table order.

        ``domain``: None stands for all rows that were scored. Raises ValueError for a split or a
        domain whose rows were not scored.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        logits = self._logits[split]
        if domain is None:
            return logits
        names, scored = self.dataset.domain_names, self.training.scored
        if domain not in (names if scored is None else scored):
            raise ValueError(
                f"domain must be among the scored ones,"
                f" {', '.join(names if scored is None else scored)}, got {domain!r}"
            )
        of = np.asarray(self.dataset.rows(split).domain)
        if scored is not None:
            ids = [names.index(name) + 1 for name in scored]
            of = of[np.isin(of, ids)]
        return logits[of == names.index(domain) + 1]

    def weights(self) -> dict[str, torch.Tensor]:
        """Give the weights of the best look."""
        try:
            return load_file(self.folder / WEIGHTS)
        except (OSError, SafetensorError) as fault:
            raise BundleError(f"weights in {self.folder} are damaged: {fault}") from fault

    def model(self) -> AbstractModel:
        """Give the trained model, in eval mode."""
        model = build(self.training, self.dataset)
        model.load_state_dict(self.weights())
        return model.eval()

    def facts(self) -> dict[str, Any]:
        """Give what a table of choices shows of the training."""
        train = self.training.train
        return {
            "batch_rows": train.batch_rows,
            "lr": train.lr,
            "validation": self.told.best,
            "stopped": self.told.stopped,
            "epochs": round(self.told.epochs, 2),
        }


def build(training: Training, dataset: Dataset, restart: int = 0) -> AbstractModel:
    """Build the model with its first weights, which are drawn with the training's seed.

    ``restart``: the number of the attempt, from 0. Each attempt draws other weights. Raises
    ConfigError where the model does not fit the dataset's features.
    """
    with seeded(training.train.seed + restart * RESTART_SEED):
        try:
            return build_model(training.model, dataset.encoder.fields, dataset.n_domains)
        except ValueError as fault:
            raise ConfigError(f"model: {fault}") from fault


def sized_for(model: ModelConfig, dataset: Dataset) -> ModelConfig:
    """Give the model with widths in place of its ``sizes``: see `isthmus.models.sized`.

    Raises ConfigError, which names the smallest possible, for a budget that no size meets.
    """
    with turn():
        try:
            return sized(model, dataset.encoder.fields, dataset.n_domains)
        except ValueError as fault:
            raise ConfigError(f"model: {fault}") from fault


def build_to_train(
    training: Training, dataset: Dataset, rows: Rows, restart: int = 0
) -> AbstractModel:
    """Build as `build` does, and let the first logits stand around the train rows' log-odds.

    ``rows``: the train rows. Where one row in a hundred is positive, a network that starts at one
    half spends its first looks on the rate alone, and a training that stops early then keeps it.
    """
    model = build(training, dataset, restart)
    half = 0.5 / max(len(rows), 1)  # one class alone counts as if half a row were of the other
    rate = np.average(rows.label, weights=rows.weight) if len(rows) else 0.5
    model.start_at(float(logit(np.clip(rate, half, 1 - half))))
    return model
