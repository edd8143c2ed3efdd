"""Value statistics from fit to served score: plain, under a guard, in a diagnosis."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from isthmus.bundle import Bundle, Part
from isthmus.data import Subset
from isthmus.models import build_model
from isthmus.run.scores import read_scores
from isthmus.train import score_rows
from small_runs import clicks, content, settings

FEATURES = ("user", "item", "history")
CHANGES = [*(f"data.features.{name}.statistics=true" for name in FEATURES), "data.trees=true"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("statistics")


@pytest.fixture(scope="module", params=[None, "balanced"])
def run(request: pytest.FixtureRequest, folder: Path) -> isthmus.Run:
    config = isthmus.load_config(settings(), CHANGES)
    out = folder / f"run-{request.param}"
    return isthmus.fit(config, clicks(), out=out, cache=folder / "cache", guard=request.param)


def test_a_raw_row_gets_the_score_that_was_evaluated(run: isthmus.Run):
    bundle = Bundle.load(run.path / "bundle")
    assert bundle.encoder.taught.statistics is not None
    logits = bundle.logits(clicks())
    for split in ("validation", "test"):
        scored = read_scores(run.path / "scores" / f"{split}.parquet")
        np.testing.assert_allclose(logits[scored.row], scored.logits, atol=1e-5)
    alone = [bundle.logits(clicks().slice(row, 1))[0] for row in range(12)]
    np.testing.assert_allclose(alone, logits[:12], atol=1e-5)


def test_a_models_own_statistics_are_saved_with_it(run: isthmus.Run, tmp_path: Path):
    bundle = Bundle.load(run.path / "bundle")
    bundle.save(tmp_path / "one")
    assert content(tmp_path / "one") == content(run.path / "bundle")


def test_a_part_scores_by_the_statistics_of_its_own_rows(folder: Path, tmp_path: Path):
    config = isthmus.load_config(settings(), CHANGES)
    dataset = isthmus.Dataset.from_table(config.data, clicks(), cache=folder / "cache")
    model = build_model(config.model, dataset.encoder.fields, dataset.n_domains)
    subset = Subset(dataset, domains=["home"])
    bundle = Bundle(
        config=config,
        encoder=dataset.encoder,
        model=model,
        parts={"mine": Part(model, config.model, subset.known)},
        routes={"home": "mine"},
    )
    bundle.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle")
    rows = subset.scored("test", ["home"])
    expected = score_rows(model, rows)
    for one in (bundle, again):
        np.testing.assert_allclose(one.logits(clicks())[rows.row], expected, atol=1e-5)
    plain = Bundle(config=config, encoder=dataset.encoder, model=model)
    assert np.abs(plain.logits(clicks())[rows.row] - expected).max() > 1e-3


def test_a_row_of_an_unknown_domain_is_scored(run: isthmus.Run):
    bundle = Bundle.load(run.path / "bundle")
    strange = clicks().slice(0, 50)
    strange = strange.set_column(2, "tab", pa.array(["mars", None] * 25))
    assert np.isfinite(bundle.logits(strange)).all()


def test_a_diagnosis_counts_for_each_arm(folder: Path):
    table = folder / "clicks.parquet"
    pq.write_table(clicks(4000), table)
    config = isthmus.load_config(settings(), [*CHANGES, f"data.table={table}"])
    found = isthmus.diagnose(config, out=folder / "out", level="quick", cache=folder / "cache")
    assert set(found.report["domains"]) == {"home", "mail", "search"}
    assert all(one["auc"]["net"] is not None for one in found.report["domains"].values())
