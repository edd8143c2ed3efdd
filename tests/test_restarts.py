"""A training whose network is dead from its first weights begins again, and says so."""

from pathlib import Path

import numpy as np

from isthmus.config import load_config
from isthmus.data import Dataset
from isthmus.experiments import Engine, Training
from isthmus.experiments.one import STARTS
from isthmus.sources.planted import planted


def test_a_network_that_is_dead_at_its_start_begins_again(tmp_path: Path):
    # One unit and no norm: first weights that leave it at 0 for every row have no gradient.
    made = planted(rows=800, relation=[[1.0]], seed=1, items=50)
    backbone = {"name": "mlp", "widths": [1], "dropout": 0.0, "norm": "none"}
    train = {"batch_rows": 256, "epochs": 2}
    section = {"data": made.config(), "model": {"backbone": backbone}, "train": train}
    config = load_config(section, [])
    dataset = Dataset.from_table(config.data, made.table, cache=tmp_path / "cache")
    trainings = [
        Training(model=config.model, train=config.train.model_copy(update={"seed": seed}))
        for seed in range(8)
    ]
    with Engine([dataset], tmp_path / "out") as engine:
        outcomes = engine.run(trainings, "narrow")
    again = [outcome for outcome in outcomes if outcome.told.restarts]
    assert 0 < len(again) < len(outcomes)
    for outcome in outcomes:
        alive = np.ptp(outcome.logits("validation")) > 0
        assert alive or outcome.told.restarts == STARTS - 1
    # Trainings that lived at once are what they were: the first weights are the seed's own.
    assert all(outcome.told.restarts == 0 for outcome in outcomes if outcome not in again)
