"""Bundles: what was trained is what is served, and what is damaged says so."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

import isthmus
from isthmus.bundle import MANIFEST, Bundle, to_score
from isthmus.errors import BundleError, SchemaError
from small_runs import ROWS, clicks, content, settings, write_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    folder = tmp_path_factory.mktemp("bundle")
    config = isthmus.load_config(
        settings(), ["model.calibration=per_domain", "data.negative_rate=0.25"]
    )
    return isthmus.fit(config, clicks(), out=folder / "run", cache=folder / "cache")


@pytest.fixture
def folder(run: isthmus.Run, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(run.path / "bundle", tmp_path / "bundle"))


def test_a_loaded_bundle_gives_the_logits_that_the_run_wrote(run: isthmus.Run):
    bundle = Bundle.load(run.path / "bundle")
    scored = run.scored("test")
    # The run scored encoded rows from its cache; the bundle reads the raw ones.
    np.testing.assert_allclose(bundle.logits(clicks())[scored.row], scored.logits, atol=1e-5)


def test_scores_are_probabilities_at_the_rate_before_sampling(run: isthmus.Run):
    bundle = Bundle.load(run.path / "bundle")
    score, logits = bundle.score(clicks()), bundle.logits(clicks())
    assert score.dtype == np.float64
    assert score.shape == (len(clicks()),)
    # A quarter of the negatives was kept, so the true odds are a quarter of the table's.
    np.testing.assert_allclose(score / (1 - score), np.exp(logits) * 0.25, rtol=1e-6)
    np.testing.assert_allclose(to_score(np.array([-800.0, 0.0, 800.0]), 1.0), [0, 0.5, 1])


def test_calibration_is_part_of_what_is_served(run: isthmus.Run):
    bundle = Bundle.load(run.path / "bundle")
    plain = Bundle(config=bundle.config, encoder=bundle.encoder, model=bundle.model)
    assert bundle.calibration is not None
    raw, served = plain.logits(clicks()), bundle.logits(clicks())
    ids = np.array([bundle.domains.index(tab) + 1 for tab in clicks()["tab"].to_pylist()])
    slope, offset = bundle.calibration.slope, bundle.calibration.offset
    np.testing.assert_allclose(served, slope[ids] * raw + offset[ids], rtol=1e-12)
    assert not np.allclose(served, raw)


def test_a_row_scores_the_same_whatever_carries_it_and_whatever_stands_beside_it(run: isthmus.Run):
    bundle = Bundle.load(run.path / "bundle")
    table = clicks().slice(0, 50)
    whole = bundle.score(table)
    # Neither label nor group is needed, and further columns do no harm.
    frame = pl.DataFrame(table.drop_columns(["click", "day"])).with_columns(extra=1)
    assert isinstance(frame, pl.DataFrame)
    np.testing.assert_allclose(bundle.score(frame), whole, atol=1e-6)
    np.testing.assert_allclose(bundle.score(frame.to_pandas()), whole, atol=1e-6)
    alone = np.concatenate([bundle.score(table.slice(row, 1)) for row in range(10)])
    np.testing.assert_allclose(alone, whole[:10], atol=1e-6)


def test_what_was_never_seen_has_a_finite_answer(run: isthmus.Run):
    bundle = Bundle.load(run.path / "bundle")
    strange = pa.table(
        {
            "user": pa.array([10**9, None], pa.int64()),
            "item": ["never", None],
            "tab": ["mars", None],
            "age": pa.array([None, 60.0]),
            "history": pa.array([None, ["never"]], pa.list_(pa.string())),
        }
    )
    score = bundle.score(strange)
    assert np.isfinite(score).all()
    assert ((score > 0) & (score < 1)).all()


def test_the_rows_to_score_are_checked(run: isthmus.Run):
    bundle = Bundle.load(run.path / "bundle")
    with pytest.raises(SchemaError, match="column 'age' must be in the table"):
        bundle.score(clicks().drop_columns(["age"]))
    broken = clicks().set_column(3, "age", pa.array([float("nan")] * ROWS))
    with pytest.raises(SchemaError, match=r"column 'age' must be finite.*row 0"):
        bundle.score(broken)


def test_a_bundle_saved_again_is_the_same_bundle(run: isthmus.Run, tmp_path: Path):
    bundle = Bundle.load(run.path / "bundle")
    bundle.save(tmp_path / "again")
    assert content(tmp_path / "again") == content(run.path / "bundle")


def test_a_bundle_holds_no_path_of_the_machine_and_no_pickle(run: isthmus.Run):
    for name, held in content(run.path / "bundle").items():
        assert str(run.path.parent).encode() not in held, name
        assert Path(name).suffix in (".json", ".safetensors", ".parquet")


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "encoder/encoder.json", "encoder/vocabulary-0.parquet"]
)
def test_a_file_that_is_missing_or_damaged_is_named(folder: Path, name: str):
    whole = (folder / name).read_bytes()
    middle = len(whole) // 2
    (folder / name).write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        Bundle.load(folder)
    (folder / name).write_bytes(whole[:middle])
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        Bundle.load(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.load(folder)


def test_a_damaged_manifest_is_named(folder: Path):
    path = folder / MANIFEST
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "domains": ["home"]}))
    with pytest.raises(BundleError, match=r"bundle\.json is damaged: its checksum"):
        Bundle.load(folder)
    path.write_text(path.read_text()[:100])
    with pytest.raises(BundleError, match=r"bundle\.json is damaged"):
        Bundle.load(folder)
    path.unlink()
    with pytest.raises(BundleError, match=r"is not a bundle: it has no bundle\.json"):
        Bundle.load(folder)
    with pytest.raises(BundleError, match="bundle folder must exist"):
        Bundle.load(folder / "none")


def test_a_bundle_of_another_format_says_who_wrote_it(folder: Path):
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 9, "isthmus": "7.0"}))
    with pytest.raises(
        BundleError, match=r"must have format 1 or 2, got 9 .*written by isthmus 7\.0"
    ):
        Bundle.load(folder)


def test_the_released_form_is_evaluated_but_never_served(tmp_path: Path):
    config = isthmus.load_config(settings(epochs=1), ["model.adapter.name=hamur_released"])
    with pytest.warns(UserWarning, match="hamur_released is for reproduction only") as told:
        run = isthmus.fit(config, clicks(), out=tmp_path / "run")
    assert len(told) == 1
    assert run.evaluate().pooled.rows == len(run.scored())
    assert run.evaluate(data=clicks()).split == "external"
    for serve in (lambda: run.predict(clicks()), lambda: Bundle.load(run.path / "bundle")):
        with pytest.raises(
            BundleError, match="must be sound, but hamur_released is for reproduction only"
        ):
            serve()
    assert Bundle.load(run.path / "bundle", reproduction=True).reproduction


def test_scoring_reads_a_table_block_by_block(
    run: isthmus.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bundle = Bundle.load(run.path / "bundle")
    table = write_table(tmp_path)
    whole = bundle.logits(table)
    monkeypatch.setattr("isthmus.bundle.served.BLOCK_ROWS", 100)
    blocks = list(bundle.score_blocks(table))
    assert [len(block.logits) for block in blocks] == [100] * 12
    np.testing.assert_allclose(np.concatenate([block.logits for block in blocks]), whole, atol=1e-5)


def test_scoring_in_pieces_and_from_a_row_on(run: isthmus.Run, monkeypatch: pytest.MonkeyPatch):
    """A block is scored in pieces, lists and all; the blocks before a row are left out."""
    bundle = Bundle.load(run.path / "bundle")
    whole = bundle.logits(clicks())
    monkeypatch.setattr("isthmus.bundle.served.BLOCK_ROWS", 500)
    monkeypatch.setattr("isthmus.bundle.served.SCORED_ROWS", 64)
    blocks = list(bundle.score_blocks(clicks(), first_row=500))
    assert [(block.block.first_row, len(block.logits)) for block in blocks] == [
        (500, 500),
        (1000, 200),
    ]
    found = np.concatenate([block.logits for block in blocks])
    np.testing.assert_allclose(found, whole[500:], atol=1e-5)
    batch = blocks[0].encoded.batch()
    assert [piece.rows for piece in batch.pieces(64)] == [64] * 7 + [52]
    assert list(batch.pieces(500)) == [batch]
    lists = [piece.lists[0].values for piece in batch.pieces(64)]
    assert torch.cat(lists).equal(batch.lists[0].values)
