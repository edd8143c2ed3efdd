"""extend: a new domain beside those that are live. Their scores keep every bit; the new one learns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import isthmus
from command_line import isthmus_in_process, told
from grown_tables import as_domain, clicks, config_of, model_sections, new_clicks
from isthmus.bundle import to_score
from isthmus.data import Encoder, open_table
from isthmus.data.requests import RowEncoder
from isthmus.disk import sha256
from isthmus.errors import BundleError, RunError, SchemaError
from isthmus.exporting.graph_file import TRACED, tensors, traced
from isthmus.exporting.served_graph import ServedGraph, graph_inputs
from isthmus.extending import extend, learning
from isthmus.extending.extension import extended_bundle
from isthmus.extending.grown import grown_encoder
from isthmus.extending.new_table import EncodedTable, NewTable
from isthmus.layers import domain_tensors
from isthmus.metrics import auc as area
from small_runs import content, settings

REFUSED = {"tal": "mixture"}


@pytest.fixture(scope="module")
def dataset_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoded")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, dataset_cache: Path) -> isthmus.Run:
    """A run with lists, an adapter and calibration."""
    folder = tmp_path_factory.mktemp("run")
    pq.write_table(clicks(), folder / "clicks.parquet")
    config = isthmus.load_config(
        settings(epochs=4),
        ["model.calibration=per_domain", f"data.table={folder / 'clicks.parquet'}"],
    )
    return isthmus.fit(config, out=folder / "run", cache=dataset_cache)


@pytest.fixture(scope="module")
def extended(run: isthmus.Run, tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    """The same with the domain ``app``, whose taste is turned round."""
    folder = tmp_path_factory.mktemp("extended")
    pq.write_table(new_clicks(3000), folder / "app.parquet")
    return extend(run, folder / "app.parquet", domain="app", out=folder / "run2").run


def bits(scores: np.ndarray) -> bytes:
    return np.ascontiguousarray(scores).tobytes()


OLD = ["home", None, "search", "mail", "never seen"]


@pytest.fixture(scope="module")
def encoder(dataset_cache: Path) -> Encoder:
    """Of the old domains, all ids of one width."""
    data = isthmus.load_config(config_of({})).data
    return isthmus.Dataset.from_table(data, clicks(), cache=dataset_cache).encoder


@pytest.fixture(scope="module")
def new_rows(encoder: Encoder) -> EncodedTable:
    """The new domain's rows, by the encoder that has grown."""
    new = NewTable(encoder, open_table(new_clicks(200)), ("app",))
    return new.encoded(grown_encoder(encoder, new.vocabularies(), "app"))


@pytest.mark.parametrize("name", model_sections())
def test_old_domains_keep_every_bit_whatever_the_network(
    name: str, encoder: Encoder, new_rows: EncodedTable, monkeypatch: pytest.MonkeyPatch
):
    """Rows of old domains, of none and of a stranger, with ids that came with the new table."""
    config = isthmus.load_config(config_of(model_sections()[name]))
    before = a_bundle(config, encoder)
    # What a few rows teach is kept, whatever it is worth.
    monkeypatch.setattr(learning, "is_better", lambda *_: True)
    if name in REFUSED:
        with pytest.raises(BundleError, match=REFUSED[name]):
            extended_bundle(before, config.train, new_rows)
        return
    after, learnt = extended_bundle(before, config.train, new_rows)
    assert after.domains == (*before.domains, "app")
    new = new_clicks(200)
    for rows in (3, 4, 200):  # fewer and more rows than domains: layers choose their way by that
        probe = as_domain(new.slice(0, rows), OLD)
        assert bits(before.logits(probe)) == bits(after.logits(probe))
    assert np.isfinite(after.logits(new)).all()
    assert learnt.kept
    assert bits(after.logits(new)) != bits(before.logits(new))
    banks, state = domain_tensors(after.model), after.model.state_dict()
    for key, tensor in before.model.state_dict().items():
        grown = state[key]
        assert (grown[: len(tensor)] if tensor.ndim else grown).equal(tensor), key
        if key in banks:
            assert len(grown) == len(tensor) + 1, key
        elif ".tables." not in key:
            assert grown.shape == tensor.shape, key


def a_bundle(config: isthmus.Config, encoder: Encoder) -> isthmus.Bundle:
    """A bundle whose parameters are anything but as they are drawn."""
    torch.manual_seed(0)
    model = isthmus.build_model(config.model, encoder.fields, encoder.n_domains)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return isthmus.Bundle(config=config, encoder=encoder, model=model)


def test_an_extended_bundle_is_one_like_any_other(
    run: isthmus.Run, extended: isthmus.Run, tmp_path: Path
):
    """Saved and loaded again it scores the same, and the run answers what runs are asked."""
    bundle, probe = extended.bundle, as_domain(new_clicks(300), [*OLD, "app"])
    bundle.save(tmp_path / "bundle")
    again = isthmus.Bundle.load(tmp_path / "bundle")
    assert bits(again.logits(probe)) == bits(bundle.logits(probe))
    assert content(tmp_path / "bundle") == content(extended.path / "bundle")
    assert str(extended.config.data.table).endswith("app.parquet")
    found = extended.evaluate()
    assert list(found.domains) == ["app"]
    assert found.domains["app"].rows == len(extended.scored("test"))
    scored = extended.scored("test")
    rows = pl.from_arrow(new_clicks(3000))[scored.row.tolist()]
    np.testing.assert_allclose(bundle.logits(rows), scored.logits, rtol=0, atol=1e-6)
    assert (
        len(extended.scored("validation"))
        == json.loads((extended.path / "extension.json").read_text())["rows"]["validation"]
    )


def test_the_new_domain_learns_what_is_its_own(run: isthmus.Run, extended: isthmus.Run):
    fresh = new_clicks(4000, seed=77)
    label = fresh.column("click").to_numpy()
    before = area(run.bundle.logits(fresh), label > 0)
    after = area(extended.bundle.logits(fresh), label > 0)
    assert before < 0.55
    assert after > 0.65


def test_new_ids_are_the_new_domains_alone(run: isthmus.Run, extended: isthmus.Run):
    """A new user is unknown to rows of old domains, of none and of strangers; in lists too."""
    old, grown = run.bundle.encoder, extended.bundle.encoder
    new = new_clicks(300)
    (block,) = extended.bundle.score_blocks(new)
    own = block.encoded
    sizes = {field.name: field.table_rows for field in old.fields if field.table}
    assert (own.categorical[:, 0] >= sizes["user"]).any()
    assert (own.lists[0][0] >= sizes["item"]).any()
    for names in ([name] for name in OLD):
        probe = as_domain(new, names)
        (block,) = extended.bundle.score_blocks(probe)
        (before,) = run.bundle.score_blocks(probe)
        np.testing.assert_array_equal(block.encoded.categorical, before.encoded.categorical)
        for ours, theirs in zip(block.encoded.lists, before.encoded.lists, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
    values = old.vocabularies["item"].values
    assert grown.vocabularies["item"].values.slice(0, len(values)).equals(values)


def test_the_drift_watch_knows_the_new_domain(run: isthmus.Run, extended: isthmus.Run):
    """Old domains are watched as before, the new one by its own validation rows."""
    before, after = run.bundle.profile, extended.bundle.profile
    assert before is not None
    assert after is not None
    assert after.names == extended.bundle.domains
    old, new = slice(0, len(before.names) + 1), len(after.names)
    np.testing.assert_array_equal(after.cells[old], before.cells)
    np.testing.assert_array_equal(after.score[old], before.score)
    scored = extended.scored("validation")
    assert after.rows[new] == len(scored)
    rate = extended.config.data.negative_rate
    mean = to_score(scored.logits, rate)
    np.testing.assert_allclose(after.score[new], mean.mean(), rtol=0.05)


def test_single_rows_see_the_same_ids(extended: isthmus.Run):
    """Requests are encoded without a frame, by the same rule."""
    encoder = extended.bundle.encoder
    probe = as_domain(new_clicks(60), [*OLD, "app"])
    (block,) = extended.bundle.score_blocks(probe)
    found = RowEncoder(encoder).encode(probe.to_pylist())
    np.testing.assert_array_equal(found.categorical, block.encoded.categorical)
    np.testing.assert_array_equal(found.lists[0][0], block.encoded.lists[0][0])
    assert (found.categorical[5::6, 0] > 60).any()


def test_the_proof_can_be_repeated_from_the_files(run: isthmus.Run, extended: isthmus.Run):
    (record,) = extended.bundle.history
    proof, probe = record["proof"], extended.path / "probe.parquet"
    assert proof["probe_sha256"] == sha256(probe)
    logits = run.bundle.logits(probe)
    assert bits(logits) == bits(extended.bundle.logits(probe))
    assert proof["probe_rows"] == len(logits)
    assert proof["probe_rows_with_new_ids"] > 0
    assert proof["probe_domains"] == 3
    assert proof["probe_rows_without_domain"] > 0
    told_domains = set(pq.read_table(probe).column("tab").to_pylist())
    assert told_domains == {"home", "search", "mail", None}
    assert {f"model.{name}" for name in run.bundle.model.state_dict()} <= proof["tensors"].keys()
    assert json.loads((extended.path / "extension.json").read_text())["proof"] == proof


def test_an_extended_bundle_is_exported_as_it_scores(
    extended: isthmus.Run, without_shape_checks: None
):
    """The graph that export writes, rows of old domains and of the new one beside each other."""
    bundle = extended.bundle
    (block,) = bundle.score_blocks(as_domain(new_clicks(200), [*OLD, "app"]))
    batch = block.encoded.batch()
    inputs = graph_inputs(bundle.encoder.fields, batch)
    graph = ServedGraph(bundle.model, inputs, calibration=bundle.calibration, negative_rate=1.0)
    program = traced(graph, inputs, batch.take(torch.arange(TRACED))).module()
    for rows in (1, 7, 200):
        logits, _ = program(*tensors(inputs, batch.take(torch.arange(rows))))
        found = logits.detach().numpy()
        np.testing.assert_allclose(found, block.logits[:rows], rtol=1e-5, atol=1e-5)


def test_the_run_stays_and_the_same_table_gives_the_same_bundle(
    run: isthmus.Run, tmp_path: Path, one_thread: None
):
    """Rows of other domains in the table play no part. Labels by chance teach nothing: the start stays."""
    before = content(run.path)
    new = new_clicks(300)
    label = np.random.default_rng(0).integers(0, 2, 300).astype(np.int8)
    new = new.set_column(new.schema.get_field_index("click"), "click", pa.array(label))
    mixed = pa.concat_tables([new, as_domain(new_clicks(100, seed=6), ["home", "mail"])])
    found = [
        extend(run, table, domain="app", out=tmp_path / name).content
        for name, table in {"a": new, "b": mixed}.items()
    ]
    assert content(run.path) == before
    a, b = (content(tmp_path / name / "bundle") for name in ("a", "b"))
    assert a == b
    assert sum(found[1]["rows"].values()) == 300
    assert not found[0]["training"]["kept"]
    for table in domain_tensors(isthmus.Run.open(tmp_path / "a").bundle.model).values():
        assert table[-1].equal(table[0])


def test_a_bundle_can_be_extended_twice(extended: isthmus.Run, tmp_path: Path):
    """The second domain sees the ids that the first one brought, the others do not."""
    new = new_clicks(600, seed=9, domain="web")
    twice = extend(extended, new, domain="web", out=tmp_path / "run3").run.bundle
    assert twice.domains == ("home", "mail", "search", "app", "web")
    assert [record["domain"] for record in twice.history] == ["app", "web"]
    probe = as_domain(new, [*OLD, "app"])
    assert bits(twice.logits(probe)) == bits(extended.bundle.logits(probe))
    again = isthmus.Bundle.load(tmp_path / "run3" / "bundle")
    both = as_domain(new, [*OLD, "app", "web"])
    assert bits(again.logits(both)) == bits(twice.logits(both))
    (block,) = twice.score_blocks(new)
    first = extended.bundle.encoder.vocabularies["user"].rows
    ids = block.encoded.categorical[:, 0]
    assert ((ids >= 61) & (ids < first)).any()


@pytest.mark.parametrize(
    ("domain", "table", "fault", "text"),
    [
        ("home", new_clicks(100, domain="home"), RunError, "must be new to run"),
        ("ap", new_clicks(100), SchemaError, "the nearest is 'app'"),
        ("app", new_clicks(100).drop(["age"]), SchemaError, "age"),
        ("app", new_clicks(1), SchemaError, "every split must have at least one row"),
    ],
)
def test_refused_by_name(
    run: isthmus.Run, tmp_path: Path, domain: str, table: pa.Table, fault: Any, text: str
):
    with pytest.raises(fault, match=text):
        extend(run, table, domain=domain, out=tmp_path / "run2")
    assert not (tmp_path / "run2").exists()


def test_a_network_without_anything_of_a_domain(tmp_path: Path, dataset_cache: Path):
    """New ids can be learnt; without them, nothing can, and that is said."""
    config = config_of({"backbone": {"name": "mlp", "widths": [8]}}, epochs=1)
    del config["data"]["features"]["tab"]
    run = isthmus.fit(config, clicks(), out=tmp_path / "run", cache=dataset_cache)
    after = extend(run, new_clicks(200), domain="app", out=tmp_path / "run2").run.bundle
    probe = as_domain(new_clicks(200), OLD)
    assert bits(run.bundle.logits(probe)) == bits(after.logits(probe))
    with pytest.raises(BundleError, match="something of each domain's own"):
        extend(run, as_domain(clicks(300), ["app"]), domain="app", out=tmp_path / "run3")


def test_from_the_command_line(run: isthmus.Run, tmp_path: Path):
    pq.write_table(new_clicks(200), tmp_path / "app.parquet")
    target = tmp_path / "named"
    done = isthmus_in_process(
        "extend", run.path, tmp_path / "app.parquet", "--domain", "app", "--out", target
    )
    assert done.exit_code == 0, done.output
    assert "domain 'app' added in" in done.output
    assert "the same bits on" in done.output
    assert isthmus.Run.open(target).bundle.domains[-1] == "app"
    again = isthmus_in_process(
        "extend", run.path, tmp_path / "app.parquet", "--domain", "app", "--out", target
    )
    assert "run folder must not exist yet" in told(again)
