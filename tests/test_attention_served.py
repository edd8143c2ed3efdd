"""Target attention from config to served score: plain, under a guard, in a diagnosis."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import isthmus
from isthmus.bundle import MANIFEST, Bundle, Part
from isthmus.bundle.manifest import read_manifest, write_manifest
from isthmus.cli import app
from isthmus.data import Subset
from isthmus.data.encoding.encoder import Encoder
from isthmus.errors import BundleError, ConfigError
from isthmus.models import build_model
from isthmus.run.scores import read_scores
from isthmus.train import score_rows
from small_runs import clicks, content, settings, weights

ASKED = ["pooling=attention", "query=item", "positions=true", "max_length=3"]
CHANGES = [f"data.features.history.{change}" for change in ASKED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attention")


@pytest.fixture(scope="module", params=[None, "balanced"])
def run(request: pytest.FixtureRequest, folder: Path) -> isthmus.Run:
    config = isthmus.load_config(settings(), CHANGES)
    out = folder / f"run-{request.param}"
    return isthmus.fit(config, clicks(), out=out, cache=folder / "cache", guard=request.param)


def with_history(rows: pa.Table, lists: Any) -> pa.Table:
    """The rows with other histories: lists of text, or an Arrow array."""
    if not isinstance(lists, pa.Array):
        lists = pa.array(lists, pa.list_(pa.string()))
    return rows.set_column(rows.column_names.index("history"), "history", lists)


def test_a_raw_row_gets_the_score_that_was_evaluated(run: isthmus.Run):
    bundle = Bundle.load(run.path / "bundle")
    logits = bundle.logits(clicks())
    for split in ("validation", "test"):
        scored = read_scores(run.path / "scores" / f"{split}.parquet")
        np.testing.assert_allclose(logits[scored.row], scored.logits, atol=1e-5)
    alone = [bundle.logits(clicks().slice(row, 1))[0] for row in range(12)]
    np.testing.assert_allclose(alone, logits[:12], atol=1e-5)


def test_null_and_strange_lists_are_scored(run: isthmus.Run):
    bundle = Bundle.load(run.path / "bundle")
    lists = [None, [], ["never"], [None], ["never", "item 3"]]
    rows = pa.concat_tables([clicks().slice(0, 1)] * len(lists))
    logits = bundle.logits(with_history(rows, lists))
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-6)
    untyped = bundle.logits(with_history(rows, pa.nulls(len(lists))))
    np.testing.assert_allclose(untyped, logits[0], atol=1e-6)


def drawn(folder: Path) -> tuple[isthmus.Dataset, Bundle]:
    """A bundle of a model whose every parameter is large."""
    config = isthmus.load_config(settings(), CHANGES)
    dataset = isthmus.Dataset.from_table(config.data, clicks(), cache=folder / "cache")
    torch.manual_seed(0)
    model = build_model(config.model, dataset.encoder.fields, dataset.n_domains)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return dataset, Bundle(config=config, encoder=dataset.encoder, model=model.eval())


def test_the_last_items_are_kept_and_their_order_counts(folder: Path):
    _, bundle = drawn(folder)
    rows = pa.concat_tables([clicks().slice(0, 1)] * 3)
    items = [f"item {number}" for number in (3, 17, 28)]
    histories = [items, ["item 1", *items], items[::-1]]
    one, longer, turned = bundle.logits(with_history(rows, histories))
    assert abs(one - longer) < 1e-4
    assert abs(one - turned) > 1e-2


def test_a_bundle_is_saved_whole(run: isthmus.Run, tmp_path: Path):
    bundle = Bundle.load(run.path / "bundle")
    (field,) = [field for field in bundle.encoder.fields if field.name == "history"]
    assert (field.query, field.places, field.pooling) == ("item", 3, "mean")
    bundle.save(tmp_path / "one")
    assert content(tmp_path / "one") == content(run.path / "bundle")


def test_weights_without_the_unit_are_refused(run: isthmus.Run, tmp_path: Path):
    copy = Path(shutil.copytree(run.path / "bundle", tmp_path / "bundle"))
    told = read_manifest(copy)
    tensors = load_file(copy / "weights.safetensors")
    del tensors["model.inputs.attention.0.places"]
    save_file(tensors, copy / "weights.safetensors")
    body = {name: told[name] for name in told.keys() - {"format", "sha256", "files"}}
    (copy / MANIFEST).unlink()
    write_manifest(copy, told["format"], body)
    with pytest.raises(BundleError, match=r"Missing key.*inputs\.attention\.0\.places"):
        Bundle.load(copy)


def test_an_encoder_of_the_version_before_is_read(folder: Path):
    dataset = isthmus.Dataset.from_table(
        isthmus.load_config(settings()).data, clicks(), cache=folder / "cache"
    )
    dataset.encoder.save(folder / "encoder")
    path = folder / "encoder" / "encoder.json"
    told = json.loads(path.read_text())
    for key in ("query", "positions"):
        del told["config"]["features"]["history"][key]
    path.write_text(json.dumps({**told, "version": 3}))
    assert Encoder.load(folder / "encoder").fields == dataset.encoder.fields
    told["config"]["features"]["history"] |= {"pooling": "attention", "query": "nowhere"}
    path.write_text(json.dumps({**told, "version": 4}))
    with pytest.raises(BundleError, match=r"encoder is damaged.*query of feature 'history'"):
        Encoder.load(folder / "encoder")


def test_a_part_forgets_what_its_rows_did_not_teach(folder: Path):
    dataset, plain = drawn(folder)
    subset = Subset(dataset, domains=["mail"])
    mine = Part(plain.model, plain.config.model, subset.known)
    bundle = Bundle(
        config=plain.config,
        encoder=plain.encoder,
        model=plain.model,
        parts={"mine": mine},
        routes={"mail": "mine"},
    )
    rows = subset.scored("test", ["mail"])
    expected = score_rows(plain.model, rows)
    np.testing.assert_allclose(bundle.logits(clicks())[rows.row], expected, rtol=1e-4, atol=1e-4)
    assert np.abs(plain.logits(clicks())[rows.row] - expected).max() > 1e-3


@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_two_trainings_of_one_seed_are_equal_bit_for_bit(tmp_path: Path, update: str):
    config = isthmus.load_config(settings(embedding_update=update, epochs=1), CHANGES)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        runs = [isthmus.fit(config, clicks(), out=tmp_path / name) for name in ("one", "two")]
    finally:
        torch.set_num_threads(threads)
    assert weights(runs[0]) == weights(runs[1])


@pytest.mark.parametrize("name", ["dcn", "deepfm", "wide_deep"])
def test_every_backbone_is_fitted_and_served(tmp_path: Path, name: str):
    changes = [f"model.backbone={{name: {name}, widths: [8]}}", "data.features.tab.dim=4"]
    condition = ["model.adapter.condition=[history]", "train.epochs=1"]
    config = isthmus.load_config(settings(), [*CHANGES, *changes, *condition])
    run = isthmus.fit(config, clicks(), out=tmp_path / "run")
    scored = run.scored("test")
    np.testing.assert_allclose(run.bundle.logits(clicks())[scored.row], scored.logits, atol=1e-5)


def test_the_command_line_evaluates_and_predicts(run: isthmus.Run, tmp_path: Path):
    rows = clicks().slice(0, 40)
    rows = with_history(rows, [None, []] * 20)
    pq.write_table(rows, tmp_path / "new.parquet")
    scored = tmp_path / "scored.parquet"
    for arguments in (
        ["evaluate", run.path, "--data", tmp_path / "new.parquet"],
        ["predict", run.path, tmp_path / "new.parquet", "-o", scored],
    ):
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
    score = pq.read_table(scored)["score"].to_numpy()
    np.testing.assert_allclose(score, Bundle.load(run.path / "bundle").score(rows), atol=1e-6)


@pytest.mark.truth
def test_a_diagnosis_trains_arms_with_attention(folder: Path):
    table = folder / "clicks.parquet"
    pq.write_table(clicks(4000), table)
    config = isthmus.load_config(settings(), [*CHANGES, f"data.table={table}"])
    found = isthmus.diagnose(config, out=folder / "out", level="quick", cache=folder / "cache")
    assert set(found.report["domains"]) == {"home", "mail", "search"}
    assert all(one["auc"]["net"] is not None for one in found.report["domains"].values())


REFUSED: list[tuple[list[str], str]] = [
    (["pooling=attention"], "has pooling 'attention', so query must name"),
    (
        ["query=item"],
        "feature 'history' must have pooling 'attention' where it has query 'item', got 'mean'",
    ),
    (["positions=true"], "where it has positions true, got 'mean'"),
    (
        ["pooling=attention", "query=itm"],
        "the query of feature 'history' must be a feature too, got 'itm'; did you mean 'item'?",
    ),
    (["pooling=attention", "query=day"], "got 'day'; there are user, item, history, tab, age"),
    (["pooling=attention", "query=age"], "must be categorical, got 'age', which is numeric"),
    (["pooling=attention", "query=history"], "got 'history', which is categorical_list"),
    (
        ["pooling=attention", "query=tab"],
        "feature 'history' must have the dim of its query 'tab', 2, got 4",
    ),
    (
        ["pooling=attenton"],
        "history.pooling must be 'mean', 'sum', 'max' or 'attention', got 'attenton'",
    ),
]


@pytest.mark.parametrize(("changes", "told"), REFUSED, ids=[" ".join(one) for one, _ in REFUSED])
def test_what_does_not_fit_is_refused_by_name(changes: list[str], told: str):
    with pytest.raises(ConfigError) as fault:
        isthmus.load_config(settings(), [f"data.features.history.{change}" for change in changes])
    assert told in str(fault.value)


def test_a_list_of_numbers_has_no_attention():
    with pytest.raises(
        ConfigError, match=r"pooling must be 'mean', 'sum' or 'max', got 'attention'"
    ):
        isthmus.load_config(
            settings(), ["data.features.age={kind: numeric_list, pooling: attention}"]
        )
    with pytest.raises(ConfigError, match=r"unknown key 'data\.features\.age\.query'"):
        isthmus.load_config(settings(), ["data.features.age={kind: numeric_list, query: item}"])
