"""Exported graphs: the same scores as the bundle, from real files, by real processes."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

import isthmus
from command_line import ISTHMUS, isthmus_in_process, told
from isthmus.bundle import Part
from isthmus.data.batch import Batch
from isthmus.data.encoding.taught import Taught
from isthmus.data.store.subset import Known
from isthmus.disk import sha256
from isthmus.errors import BundleError, ConfigError, RunError
from isthmus.exporting import export
from isthmus.exporting.drawn_rows import drawn_rows
from isthmus.exporting.graph_file import COUNTS, parity_of, session_of
from isthmus.exporting.served_graph import GraphInput, graph_arrays
from isthmus.models import build_model
from small_runs import clicks, content, settings

CHANGES = ["model.calibration=per_domain", "data.negative_rate=0.5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    """A run with lists, an adapter, calibration and dropped negatives."""
    folder = tmp_path_factory.mktemp("export")
    pq.write_table(clicks(), folder / "clicks.parquet")
    config = isthmus.load_config(
        settings(epochs=1, monitor="auc_pooled"),
        [*CHANGES, f"data.table={folder / 'clicks.parquet'}"],
    )
    return isthmus.fit(config, out=folder / "run", cache=folder / "cache")


@pytest.fixture(scope="module")
def exported(run: isthmus.Run) -> Path:
    """Its graphs, made by the command line: the shape checks of this process cannot be traced."""
    done = subprocess.run([*ISTHMUS, "export", run.path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "model.onnx: within" in done.stdout
    assert "4,096 rows" in done.stdout
    return run.path / "onnx"


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "export.json").read_text(encoding="utf-8"))


def given(folder: Path, batch: Batch) -> dict[str, np.ndarray]:
    """The inputs of the graph, as `export.json` describes them."""
    told = read(folder)["inputs"]
    return graph_arrays(
        tuple(GraphInput(one["name"], one["dtype"], tuple(one["shape"])) for one in told), batch
    )


def answers(
    folder: Path, arrays: Mapping[str, np.ndarray], file: str = "model.onnx"
) -> dict[str, np.ndarray]:
    session = session_of(folder / file)
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(arrays)), strict=True))


def encoded(run: isthmus.Run, frame: Any) -> Batch:
    (block,) = run.bundle.score_blocks(frame)
    return block.encoded.batch()


@pytest.mark.parametrize("rows", [1, 2, 300])
def test_a_graph_scores_raw_rows_as_the_bundle(run: isthmus.Run, exported: Path, rows: int):
    frame = pl.from_arrow(clicks(rows, seed=7))
    assert isinstance(frame, pl.DataFrame)
    odd = frame.with_columns(  # values and domains that training never saw, and an empty list
        pl.when(pl.int_range(pl.len()) % 3 == 0)
        .then(pl.lit("new"))
        .otherwise("item")
        .alias("item"),
        pl.when(pl.int_range(pl.len()) % 4 == 0).then(None).otherwise("tab").alias("tab"),
    )
    for table in (frame, odd, odd.with_columns(history=pl.lit([], dtype=pl.List(pl.String)))):
        found = answers(exported, given(exported, encoded(run, table)))
        np.testing.assert_allclose(found["scores"], run.bundle.score(table), atol=1e-5, rtol=0)
        np.testing.assert_allclose(found["logits"], run.bundle.logits(table), atol=1e-5, rtol=1e-5)


def test_ids_outside_of_their_table_count_as_unknown(run: isthmus.Run, exported: Path):
    arrays = given(exported, encoded(run, clicks(50)))
    unknown = answers(exported, {**arrays, "categorical": np.zeros_like(arrays["categorical"])})
    for wild in (-1, 10**9, 2**40):
        found = answers(exported, {**arrays, "categorical": arrays["categorical"] * 0 + wild})
        np.testing.assert_array_equal(found["logits"], unknown["logits"])
    nowhere = answers(exported, {**arrays, "domain": np.zeros_like(arrays["domain"])})
    for wild in (-3, 4, 2**40):
        found = answers(exported, {**arrays, "domain": np.full_like(arrays["domain"], wild)})
        np.testing.assert_array_equal(found["logits"], nowhere["logits"])
    lists = np.zeros_like(arrays["history.values"])
    without = answers(exported, {**arrays, "history.values": lists})
    found = answers(exported, {**arrays, "history.values": lists - 5})
    np.testing.assert_array_equal(found["logits"], without["logits"])


def test_the_file_beside_tells_what_the_graph_is(run: isthmus.Run, exported: Path):
    told = read(exported)
    assert [one["name"] for one in told["inputs"]] == [
        "domain", "categorical", "numeric", "history.values", "history.lengths",
    ]  # fmt: skip
    assert told["inputs"][1]["shape"] == ["rows", 3]
    assert told["categorical"] == ["user", "item", "tab"]
    assert told["domains"] == list(run.bundle.domains)
    assert told["parity"]["model.onnx"]["rows"] == list(COUNTS)
    assert told["parity"]["model.onnx"]["scores"] <= 1e-5
    assert told["files"] == {"model.onnx": sha256(exported / "model.onnx")}
    assert not (exported / "parts").exists()


def test_a_pt2_file_is_written_for_others(run: isthmus.Run, tmp_path: Path):
    words = ["export", run.path, "--format", "pt2", "-o", tmp_path / "made"]
    done = subprocess.run([*ISTHMUS, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "made")["opset"] is None
    program = torch.export.load(tmp_path / "made" / "model.pt2").module()
    arrays = given(tmp_path / "made", encoded(run, clicks(9)))
    with torch.no_grad():
        logits, scores = program(*map(torch.from_numpy, arrays.values()))
    np.testing.assert_allclose(scores.numpy(), run.bundle.score(clicks(9)), atol=1e-5)
    np.testing.assert_allclose(logits.numpy(), run.bundle.logits(clicks(9)), atol=1e-5)


def test_a_domain_with_a_network_of_its_own_has_a_file_of_its_own(run: isthmus.Run, tmp_path: Path):
    whole = run.bundle
    rng = np.random.default_rng(0)
    tables = {f.table: rng.random(f.table_rows) < 0.5 for f in whole.encoder.fields if f.table}
    domain = np.array([True, False, True, True])
    known = Known.of_tables(whole.encoder.fields, tables, domain, Taught())
    torch.manual_seed(5)
    other = build_model(whole.config.model, whole.encoder.fields, whole.encoder.n_domains).eval()
    bundle = isthmus.Bundle(
        config=whole.config,
        encoder=whole.encoder,
        model=whole.model,
        calibration=whole.calibration,
        parts={"own": Part(other, whole.config.model, known)},
        routes={whole.domains[1]: "own"},
    )
    bundle.save(tmp_path / "bundle")
    script = "import sys, isthmus as i; i.export(i.Bundle.load(sys.argv[1]), sys.argv[2], table=sys.argv[3])"
    words = [tmp_path / "bundle", tmp_path / "made", run.state.table]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = read(tmp_path / "made")
    assert told["routes"] == {whole.domains[1]: "parts/0.onnx"}
    assert set(told["parity"]) == {"model.onnx", "parts/0.onnx"}
    batch = encoded(run, clicks(200))
    arrays = given(tmp_path / "made", batch)  # ids as they are: the graph itself forgets
    found = answers(tmp_path / "made", arrays, "parts/0.onnx")
    served = whole.calibrated(bundle.parts["own"].logits(batch), batch.domain.numpy())
    np.testing.assert_allclose(found["logits"], served, atol=1e-5, rtol=1e-5)
    assert np.abs(served - whole.logits_of(batch)).max() > 0.01


EVERY_INPUT = [
    "data.trees=true",
    "data.features.user={kind: categorical, dim: 4, statistics: true}",
    "data.features.history={kind: categorical_list, shares: item, dim: 4, pooling: attention, query: item, positions: true}",
    "data.features.age={kind: numeric, embedding: piecewise, dim: 4}",
    "model.adapter={name: none}",
    "model.backbone={name: wide_deep, widths: [8], crosses: [[user, item]]}",
]


@pytest.mark.parametrize("changes", [EVERY_INPUT, ["model.name=trees"]])
def test_every_kind_of_input_and_of_model_is_exported(
    run: isthmus.Run, changes: list[str], tmp_path: Path
):
    config = isthmus.load_config(settings(epochs=1), [*changes, f"data.table={run.state.table}"])
    other = isthmus.fit(config, out=tmp_path / "run", cache=tmp_path / "cache")
    done = subprocess.run([*ISTHMUS, "export", other.path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = answers(other.path / "onnx", given(other.path / "onnx", encoded(other, clicks(77))))
    np.testing.assert_allclose(found["scores"], other.bundle.score(clicks(77)), atol=1e-5, rtol=0)


def test_a_graph_that_differs_is_refused():
    batch = Batch(
        categorical=torch.zeros(4096, 0, dtype=torch.int32), numeric=torch.zeros(4096, 0), lists=(),
        domain=torch.zeros(4096, dtype=torch.int64), label=torch.zeros(4096),
    )  # fmt: skip

    def says(logit: float, score: float):
        return lambda rows: {
            "logits": np.full(rows.rows, logit), "scores": np.full(rows.rows, score),
        }  # fmt: skip

    found = parity_of(says(100.0005, 0.5), says(100.0, 0.5), batch)
    assert found.logits == pytest.approx(5e-6)  # a logit's difference is over its size
    assert found.scores == 0
    with pytest.raises(
        BundleError, match="network's scores to 1e-05, got a difference of 2e-05 on 1 "
    ):
        parity_of(says(1, 0.50002), says(1, 0.5), batch)
    with pytest.raises(BundleError, match="network's logits to 1e-05, got a difference of nan"):
        parity_of(says(float("nan"), 0.5), says(1, 0.5), batch)


def test_a_bundle_without_its_table_is_compared_on_drawn_rows(run: isthmus.Run, tmp_path: Path):
    rows = drawn_rows(run.bundle.encoder)
    fields = [field for field in run.bundle.encoder.fields if field.kind == "categorical"]
    sizes = [field.table_rows for field in fields]
    assert rows.categorical.amin(0).tolist() == [0] * len(sizes)
    assert rows.categorical.amax(0).tolist() == [size - 1 for size in sizes]
    assert set(rows.domain.tolist()) == set(range(run.bundle.encoder.n_domains + 1))
    words = [*ISTHMUS, "export", run.path / "bundle", "-o", tmp_path / "made"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "made")["bundle"] == run.bundle.checksum
    manifest = json.loads((run.path / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    assert run.bundle.checksum == manifest["sha256"]


def test_what_is_refused_leaves_all_as_it_was(run: isthmus.Run, tmp_path: Path, monkeypatch: Any):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    before = content(tmp_path)
    with pytest.raises(RunError, match=r"must not exist yet, or hold an export, got .*mine"):
        export(run, tmp_path / "mine")
    with pytest.raises(BundleError, match="needs a folder to write, got none"):
        export(run.bundle, table=clicks())
    with pytest.raises(BundleError, match="must have rows, got none"):
        export(run, tmp_path / "made", table=clicks()[:0])
    with pytest.raises(ConfigError, match="format must be one of onnx, pt2, got 'pdf'"):
        export(run, tmp_path / "made", format="pdf")  # type: ignore[arg-type]
    assert "--format must be onnx or pt2, got 'pdf'" in told(
        isthmus_in_process("export", run.path, "--format", "pdf")
    )
    monkeypatch.setattr("isthmus.exporting.graph_file.LIBRARIES", ("onnx", "no_such_library"))
    with pytest.raises(
        ConfigError, match=r"no_such_library, which is not installed: pip install 'isthmus\[onnx\]'"
    ):
        export(run, tmp_path / "made")
    assert content(tmp_path) == before
