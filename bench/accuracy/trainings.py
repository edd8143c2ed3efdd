"""Train what is missing, each training in a process of its own. A stopped command goes on."""

import json
import os
import shutil
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from bench.accuracy.alone import is_finished, noted, run_alone, take_note
from bench.accuracy.contestants import (
    FORESTS,
    RECIPES,
    TRIALS,
    TUNED_FOREST,
    Recipe,
    is_tuned,
    seeds_of,
)
from bench.accuracy.forests import FIRST, SEARCHED, SETTINGS, grow_alone, tune_alone
from bench.accuracy.shelf import READ_AS, Shelf
from isthmus.config import Config, load_config
from isthmus.data import Dataset, open_table
from isthmus.data.store.cache import entry_folder
from isthmus.data.store.dataset import dataset_key
from isthmus.disk import write_whole
from isthmus.run import Run, fit

Search = Callable[[Config, Path], Path]
Tell = Callable[[str], None]


def search(config: Config, study: Path) -> Path:
    """Let ``tune`` search from ``config``; give the config that it found."""
    import_module("isthmus").tune(config, out=study, trials=TRIALS)
    return study / "best.yaml"


def train_missing(shelf: Shelf, seeds: int, tell: Tell, *, search: Search = search) -> None:
    """Train every contestant of a table that is not finished."""
    for recipe in RECIPES:
        place = shelf.encoding(recipe)
        _once(place, tell, _encode, shelf.cache, shelf.config(recipe), place)
    for name in FORESTS:
        place = shelf.forest(name, SETTINGS[name])
        config = shelf.config(READ_AS[name])
        _once(place, tell, grow_alone, shelf.cache, config, name, place)
    for seed in range(seeds_of(shelf.subject, seeds)):
        for recipe in RECIPES:
            _train_network(shelf, recipe, seed, tell)
    if is_tuned(shelf.subject):
        place, name = tuned_forest(shelf), better_forest(shelf)
        config = shelf.config(READ_AS[name])
        _once(place, tell, tune_alone, shelf.cache, config, name, place)
        _tune_network(shelf, seeds, tell, search)


def _once(place: Path, tell: Tell, work: Callable[..., None], *arguments: object) -> None:
    if not is_finished(place):
        run_alone(work, *arguments)
        tell(str(place))


def better_forest(shelf: Shelf) -> str:
    """The forest with the higher AUC on validation rows. Both must be finished."""
    return max(FORESTS, key=lambda name: noted(shelf.forest(name, SETTINGS[name])).auc or 0.0)


def tuned_forest(shelf: Shelf) -> Path:
    """The folder of the tuned forest."""
    return shelf.forest(TUNED_FOREST, {"searched": SEARCHED, "first": FIRST, "trials": TRIALS})


def _train_network(shelf: Shelf, recipe: Recipe, seed: int, tell: Tell) -> None:
    place = shelf.network(recipe, seed)
    _once(place, tell, _fit, shelf.cache, shelf.config(recipe, seed), place)


def _tune_network(shelf: Shelf, seeds: int, tell: Tell, search: Search) -> None:
    place = shelf.tuned()
    found = place / "search"
    _once(found, tell, _search, shelf.cache, shelf.config(RECIPES[0]), place, search)
    for seed in range(seeds_of(shelf.subject, seeds)):
        config = load_config(place / "best.yaml", [f"train.seed={seed}"])
        out = place / f"seed-{seed}"
        _once(out, tell, _fit, shelf.cache, config, out)


def _encode(cache: Path, config: Config, out: Path) -> None:
    """Encode a table that the cache does not hold, so that the seconds are those of all the work."""
    assert config.data.table is not None
    key = dataset_key(config.data, open_table(config.data.table).fingerprint(verify_content=False))
    shutil.rmtree(entry_folder(key, cache), ignore_errors=True)
    began = time.process_time()
    Dataset.from_table(config.data, cache=cache)
    take_note(out, time.process_time() - began)


def _fit(cache: Path, config: Config, out: Path) -> None:
    """Fit one network. A run that was stopped begins again: its seconds would not be whole."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.process_time()
    run = fit(config, out=out, cache=cache)
    take_note(out, time.process_time() - began, validation_auc(run))


def _search(cache: Path, config: Config, place: Path, search: Search) -> None:
    """Search with the cache of this command, and keep the config that was found."""
    os.environ["ISTHMUS_CACHE"] = str(cache)
    place.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    best = load_config(search(config, place / "study"))
    write_whole(place / "best.yaml", best.to_yaml())
    take_note(place / "search", time.process_time() - began)


def validation_auc(run: Run) -> float:
    """The pooled AUC on validation rows of the weights that a run kept."""
    looks = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    (auc,) = (
        look["auc_pooled"] for look in map(json.loads, looks) if look["step"] == run.state.best_step
    )
    return float(auc)
