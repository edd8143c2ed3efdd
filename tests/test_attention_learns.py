"""Target attention on planted rows whose rule is known: membership in a list, and its last item."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import isthmus
from isthmus.data import Dataset
from isthmus.models import build_model
from isthmus.train import End, train

ROWS, ITEMS = 6000, 20
ASK = {"pooling": "attention", "query": "item"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Labels of a Bayes AUC of .90: nine in ten rows follow the rule of the column's name."""
    rng = np.random.default_rng(0)
    item = rng.integers(0, ITEMS, ROWS)
    history = [rng.integers(0, ITEMS, length).tolist() for length in rng.integers(0, 7, ROWS)]
    for own, asked in zip(history, item.tolist(), strict=True):
        if own and rng.random() < 0.5:
            own[rng.integers(len(own))] = asked
    good = rng.random(ITEMS) < 0.5
    rules = {
        "is_member": [asked in own for own, asked in zip(history, item.tolist(), strict=True)],
        "last_is_good": [bool(own) and bool(good[own[-1]]) for own in history],
    }
    labels = {
        name: (rng.random(ROWS) < np.where(rule, 0.9, 0.1)).astype(np.int8)
        for name, rule in rules.items()
    }
    tab = rng.choice(["home", "mail"], ROWS)
    return pa.table({"item": item, "history": history, "tab": tab.tolist(), **labels})


def best_auc(rows: pa.Table, cache: Path, label: str, history: dict[str, Any], seed: int) -> float:
    """Validation AUC of a small network."""
    listed = {"kind": "categorical_list", "shares": "item", "dim": 8, **history}
    config = isthmus.load_config(
        {
            "data": {
                "domain": "tab",
                "label": label,
                "features": {"item": {"kind": "categorical", "dim": 8}, "history": listed},
                "split": {"by": "random", "fractions": [0.6, 0.2, 0.2]},
            },
            "model": {"backbone": {"name": "mlp", "norm": "none", "widths": [16], "dropout": 0.0}},
            "train": {
                "batch_rows": 128,
                "epochs": 8,
                "looks_per_epoch": 1,
                "lr": 5e-3,
                "embedding_l2": 0.0,
                "seed": seed,
            },
        }
    )
    dataset = Dataset.from_table(config.data, rows, cache=cache)
    torch.manual_seed(seed)
    model = build_model(config.model, dataset.encoder.fields, dataset.n_domains)
    *_, end = train(model, dataset, config.train)
    assert isinstance(end, End)
    auc = end.best.metrics["auc_pooled"]
    assert auc is not None
    return auc


@pytest.mark.parametrize("seed", [0, 1])
def test_membership_in_a_list_is_learnt(rows: pa.Table, tmp_path: Path, seed: int):
    mean, asked = (best_auc(rows, tmp_path, "is_member", one, seed) for one in ({}, ASK))
    assert asked > 0.86
    assert asked > mean + 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_the_last_item_is_found_by_its_place(rows: pa.Table, tmp_path: Path, seed: int):
    plain, placed = (
        best_auc(rows, tmp_path, "last_is_good", ASK | one, seed)
        for one in ({}, {"positions": True})
    )
    assert placed > 0.88
    assert placed > plain + 0.04
