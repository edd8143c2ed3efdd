"""LightGBM alone: with its defaults, with our statistics, and tuned with the budget of ``tune``."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from bench.accuracy.alone import (
    Measured,
    commit,
    is_finished,
    noted,
    take_note,
    write_note,
)
from bench.accuracy.contestants import PLAIN_FOREST, TOLD_FOREST, TRIALS
from isthmus.config import Config
from isthmus.data import Dataset, Rows
from isthmus.data.encoding.trees import MOST_VALUES, threads
from isthmus.disk import write_whole

MOST_TREES = 3000
PATIENCE = 50
LOGITS = "logits.npy"
# LightGBM's defaults with early stop; and those of a user who was told what large columns say.
SETTINGS: dict[str, dict[str, Any]] = {
    PLAIN_FOREST: {"num_leaves": 31, "learning_rate": 0.1},
    TOLD_FOREST: {"num_leaves": 63, "learning_rate": 0.03},
}
STOPPED_BY_LOGLOSS = ["binary_logloss", "auc"]
STOPPED_BY_AUC = ["auc", "binary_logloss"]  # as `tune` and the networks
SEARCHED: dict[str, tuple[float, float]] = {  # all on a log scale but the shares
    "num_leaves": (8, 256),
    "learning_rate": (0.02, 0.2),
    "min_data_in_leaf": (5, 200),
    "feature_fraction": (0.4, 1.0),
    "bagging_fraction": (0.5, 1.0),
    "lambda_l2": (1e-3, 10.0),
}
FIRST = {
    "min_data_in_leaf": 20,
    "feature_fraction": 1.0,
    "bagging_fraction": 1.0,
    "lambda_l2": 1e-3,
}


@dataclass(frozen=True, slots=True, eq=False)
class Grown:
    """A forest. ``logits``: of the test rows. ``auc``: pooled, of the validation rows."""

    logits: Float64[np.ndarray, " rows"]
    auc: float
    seconds: float


def grow(dataset: Dataset, settings: dict[str, Any], *, told: bool) -> Grown:
    """Fit one forest on train rows, stopped by validation rows.

    ``told``: the dataset has statistics, which stand in place of large columns.
    """
    import lightgbm

    settings = {
        "objective": "binary",
        "metric": STOPPED_BY_LOGLOSS,
        "first_metric_only": True,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads(),
        "seed": 0,
        "verbosity": -1,
        **settings,
    }
    began = time.process_time()
    train, held = dataset.rows("train"), dataset.rows("validation")
    matrix, which = _matrix(train, dataset, told=told)
    given: dict[str, Any] = {"categorical_feature": which, "params": settings}
    data = lightgbm.Dataset(matrix, np.asarray(train.label), **given)
    stop = lightgbm.Dataset(
        _matrix(held, dataset, told=told)[0], np.asarray(held.label), reference=data, **given
    )
    callbacks = [lightgbm.early_stopping(PATIENCE, first_metric_only=True, verbose=False)]
    booster = lightgbm.train(
        settings, data, MOST_TREES, [stop], valid_names=["validation"], callbacks=callbacks
    )
    seconds = time.process_time() - began
    test, _ = _matrix(dataset.rows("test"), dataset, told=told)
    logits = booster.predict(test, num_iteration=booster.best_iteration, raw_score=True)
    auc = float(booster.best_score["validation"]["auc"])
    return Grown(np.asarray(logits, dtype=np.float64), auc, seconds)


def _matrix(
    rows: Rows, dataset: Dataset, *, told: bool
) -> tuple[Float32[np.ndarray, "rows columns"], list[int]]:
    """Numbers, then categories, the domain at the end; and which columns are categories."""
    arrays = rows.arrays
    single = [field for field in dataset.encoder.fields if field.kind == "categorical"]
    places = [
        place
        for place, field in enumerate(single)
        if not field.is_domain and not (told and field.table_rows > MOST_VALUES)
    ]
    domain = np.asarray(arrays.domain)
    domain = np.where(domain <= dataset.n_domains, domain, 0)
    numbers, ids = np.asarray(arrays.numeric), np.asarray(arrays.categorical)[:, places]
    found = np.hstack([numbers, ids, domain[:, None]]).astype(np.float32)
    return found, list(range(numbers.shape[1], found.shape[1]))


def grow_alone(cache: Path, config: Config, name: str, out: Path) -> None:
    """Fit one of `SETTINGS` and keep its test logits."""
    dataset = Dataset.from_table(config.data, cache=cache)
    _keep(out, grow(dataset, SETTINGS[name], told=name == TOLD_FOREST))


def _keep(out: Path, grown: Grown) -> None:
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / LOGITS, grown.logits, allow_pickle=False)
    take_note(out, grown.seconds, grown.auc)


def tune_alone(cache: Path, config: Config, name: str, out: Path) -> None:
    """Tune LightGBM from the settings of ``name``, by the pooled AUC of validation rows.

    Optuna's TPE draws `TRIALS` settings. The first are those of ``name``. Each trial is a folder. A
    study that was stopped draws the same settings again and finds the finished trials.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    dataset = Dataset.from_table(config.data, cache=cache)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.enqueue_trial(SETTINGS[name] | FIRST)
    places = [out / f"trial-{number:02d}" for number in range(TRIALS)]
    for place in places:
        trial = study.ask()
        drawn = _drawn(trial)
        if not is_finished(place):
            settings = {**drawn, "bagging_freq": 1, "metric": STOPPED_BY_AUC}
            _keep(place, grow(dataset, settings, told=name == TOLD_FOREST))
            write_whole(place / "settings.json", json.dumps(drawn, indent=2) + "\n")
        auc = noted(place).auc
        assert auc is not None
        study.tell(trial, auc)
    best = places[study.best_trial.number]
    np.save(out / LOGITS, np.load(best / LOGITS, allow_pickle=False), allow_pickle=False)
    notes = [noted(place) for place in places]
    seconds, peak = sum(one.seconds for one in notes), max(one.mebibytes for one in notes)
    write_note(out, Measured(seconds, peak, commit(), study.best_value))


def _drawn(trial: Any) -> dict[str, Any]:
    """One value of each setting of `SEARCHED`: whole numbers where the range's ends are whole."""
    drawn: dict[str, Any] = {}
    for name, (low, high) in SEARCHED.items():
        if isinstance(low, int):
            drawn[name] = trial.suggest_int(name, low, high, log=True)
        else:
            drawn[name] = trial.suggest_float(name, low, high, log="fraction" not in name)
    return drawn
