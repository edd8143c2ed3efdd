"""A forest's score in the logit: the network says what it adds, and a dead network adds nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from isthmus.config import Config, load_config
from isthmus.data import Dataset
from isthmus.experiments.one import says_anything
from isthmus.layers.routing import Routing
from isthmus.models import DomainModel, build_network
from isthmus.sources.planted import planted
from isthmus.train import score_rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Dataset]:
    table = planted(rows=3000, relation=[[1.0, 0.2], [0.2, 1.0]], seed=4, items=40)
    backbone = {"name": "mlp", "widths": [8], "norm": "none"}
    section = {"data": {**table.config(), "trees": True}, "model": {"backbone": backbone}}
    config = load_config(section)
    cache: Path = tmp_path_factory.mktemp("cache")
    return config, Dataset.from_table(config.data, table.table, cache=cache)


def built(config: Config, dataset: Dataset) -> DomainModel:
    torch.manual_seed(0)
    model = build_network(config.model, dataset.encoder.fields, dataset.n_domains)
    model.start_at(-1.0)
    return model.eval()


def test_a_network_that_says_nothing_leaves_the_forests_own_log_odds(made: tuple[Config, Dataset]):
    model, rows = built(*made), made[1].rows("validation")
    torch.nn.init.zeros_(model.head.weight)
    logits = score_rows(model, rows)
    assert made[1].encoder.taught.trees is not None
    score = rows.arrays.numeric[:, model.domain_places.score]
    np.testing.assert_allclose(logits, score - 1.0, atol=1e-6)
    # Its ranking is the forest's, which has learnt something.
    assert roc_auc_score(rows.label, logits) > 0.55
    assert not says_anything(model, rows, logits)


def test_what_the_network_says_comes_on_top(made: tuple[Config, Dataset]):
    model, rows = built(*made), made[1].rows("validation")
    batch = next(iter(rows.batches(256, seed=0, epoch=0)))
    said = model.head(model.backbone(model.inputs(batch)), Routing(batch.domain, 2))
    score = batch.numeric[:, model.domain_places.score]
    torch.testing.assert_close(model(batch), said + score)
    assert says_anything(model, rows, score_rows(model, rows))


def test_a_score_of_another_unit_moves_every_logit_by_as_much(made: tuple[Config, Dataset]):
    """Beyond the input: with the input's weights at 0 the logit still moves with the score."""
    model, rows = built(*made), made[1].rows("validation")
    batch = next(iter(rows.batches(64, seed=0, epoch=0)))
    place = model.domain_places.score
    with torch.no_grad():
        model.backbone.blocks[0].linear.weight[:, model.inputs.columns["trees"]] = 0  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
        before = model(batch)
        batch.numeric[:, place] += 2.0
        torch.testing.assert_close(model(batch), before + 2.0)
