"""What the page of a run tells: bins, curves, distributions, importances; of every kind of run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isthmus
import small_runs
from isthmus.data import Dataset
from isthmus.data.encoding.taught import Taught
from isthmus.data.store.arrays import Arrays
from isthmus.data.store.rows import Rows
from isthmus.errors import RunError
from isthmus.metrics import ScoredRows, evaluate_rows
from isthmus.metrics.formulas.reliability import reliability
from isthmus.report.fitted import fitted_page
from isthmus.run.reporting.distributions import distributions
from isthmus.run.reporting.importance import (
    SampledRows,
    importance,
    read_columns,
    sample,
    work_of,
)
from isthmus.schema import FittedField
from run_reports import content, drawn


def test_bins_written_out():
    # Fifteen rows of fifteen scores: each is a bin of its own.
    chance = np.linspace(0.05, 0.75, 15)
    label = np.arange(15) % 3 == 0
    rows = ScoredRows(
        split="test",
        row=np.arange(15),
        logits=np.log(chance / (1 - chance)),
        label=label,
        domain=np.ones(15, dtype=np.int64),
        names=("home",),
    )
    whole, domains = reliability(rows)
    points = whole.diagram(0)
    assert [point.promised for point in points] == pytest.approx(chance.tolist())
    assert [point.observed for point in points] == pytest.approx(label.astype(float).tolist())
    half = 1.959964 * np.sqrt(chance * (1 - chance))
    assert [point.noise[1] for point in points] == pytest.approx(np.minimum(chance + half, 1))
    assert points[0].noise[0] == 0.0
    assert domains.diagram(1) == points
    assert domains.diagram(0) == []  # no row is without a domain


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([1.0, 0.25]))
def test_the_gaps_of_a_diagram_are_the_ece(seed: int, weighted: bool, rate: float):
    rng = np.random.default_rng(seed)
    rows = drawn(("a", "b"), 90, seed=seed, negative_rate=rate)
    if weighted:
        rows = drawn(("a", "b"), 90, seed=seed, negative_rate=rate, weight=rng.random(90) + 0.1)
    evaluation = evaluate_rows(rows)
    whole, domains = reliability(rows)
    for points, figures in (
        (whole.diagram(0), evaluation.pooled),
        (domains.diagram(1), evaluation.domains["a"]),
    ):
        gaps = sum(point.mass * abs(point.promised - point.observed) for point in points)
        mass = sum(point.mass for point in points)
        assert gaps / mass == pytest.approx(figures.ece, abs=1e-12)
        assert sum(point.rows for point in points) == figures.rows


def test_the_band_holds_a_calibrated_model_as_often_as_it_says():
    names = tuple(map(str, range(60)))
    _, domains = reliability(drawn(names, 200_000))
    points = [point for at in range(1, 60) for point in domains.diagram(at)]
    inside = [point.noise[0] <= point.observed <= point.noise[1] for point in points]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_distributions_count_every_row_once_where_its_score_is():
    rows = drawn(("a", "b"), 500)
    found = distributions(rows)
    held = found.of(1)
    mine = rows.domain == 1
    assert sum(held["positives"]) == (mine & rows.label).sum()
    assert sum(held["negatives"]) == (mine & ~rows.label).sum()
    place = np.searchsorted(found.edges, rows.logits[0], side="right") - 1
    side = "positives" if rows.label[0] else "negatives"
    assert found.of(None)[side][np.clip(place, 0, 39)] > 0
    alike = distributions(drawn(("a",), 3).take(np.zeros(2, dtype=np.int64)))
    assert np.diff(alike.edges).min() > 0  # one score still has an axis


def test_a_sample_has_equally_many_rows_of_each_domain_as_far_as_it_can():
    domain = np.repeat([1, 2, 3], [1000, 40, 500])
    at = sample(domain, 300, 0)
    assert np.bincount(domain[at])[1:].tolist() == [130, 40, 130]
    assert (np.diff(at) > 0).all()
    assert len(sample(domain, 10_000, 0)) == len(domain)
    assert (sample(domain, 300, 0) == at).all()
    assert (sample(domain, 300, 1) != at).any()


def test_the_work_follows_the_training_within_bounds():
    assert work_of(0) == 100_000
    assert work_of(1_000_000) == 300_000
    assert work_of(1e12) == 2_000_000


class Reader:
    """A bundle whose answer is known: the first number, of domain 1 only."""

    def __init__(self) -> None:
        fields = (FittedField("x", "numeric", 1), FittedField("y", "numeric", 1))
        self.encoder: Any = SimpleNamespace(fields=fields, n_domains=3, taught=Taught())

    def logits_of(self, batch: Any) -> np.ndarray:
        x = batch.numeric[:, 0].numpy().astype(np.float64)
        return np.where(batch.domain.numpy() == 1, x, 0.0)


def rows_for(domain: np.ndarray, x: np.ndarray, label: np.ndarray) -> Rows:
    arrays = Arrays(
        categorical=np.zeros((len(x), 0), dtype=np.int32),
        numeric=np.stack([x, x], axis=1).astype(np.float32),
        lists=(),
        domain=domain.astype(np.int32),
        label=label.astype(np.float32),
        weight=None,
    )
    return Rows(arrays, row=np.arange(len(x)), group=None, n_domains=3)


def test_what_is_read_falls_and_what_is_not_read_does_not():
    rng = np.random.default_rng(0)
    x = rng.normal(size=3_000)
    domain = np.repeat([1, 2, 3], 1_000)
    label = (x + rng.normal(size=3_000) > 0) & (domain < 3)
    names = ["reads", "ignores", "one class"]
    told: list[Any] = []
    bundle: Any = Reader()
    given = {"names": names, "kept": names, "work": 100_000, "seed": 0, "tell": told.append}
    found = importance(bundle, rows_for(domain, x, label), **given)
    assert found["rows"] == found["of"] == 3_000
    x_read, y_read = found["columns"]
    base = found["auc"]["reads"]
    assert base > 0.75
    # A shuffled column is worth a coin's throw.
    assert x_read["domains"]["reads"] == pytest.approx(base - 0.5, abs=0.05)
    assert 0 < x_read["spreads"]["reads"] < 0.05
    assert x_read["domains"]["ignores"] == y_read["fall"] == y_read["domains"]["reads"] == 0
    assert x_read["domains"]["one class"] is None
    assert x_read["fall"] == pytest.approx(x_read["domains"]["reads"] / 2)
    assert found["domain"]["domains"]["reads"] > 0.1  # other domains' rows have no score
    assert found["rough"] == ["one class"]
    assert [notice.done for notice in told] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert importance(bundle, rows_for(domain, x, label), **given) == found
    short = importance(bundle, rows_for(domain, x, label), **given, seconds=0.0)
    assert [one["name"] for one in short["columns"]] == ["x"]  # the first is always measured
    assert short["left_out"] == ["y"]
    assert short["columns"][0]["spread"] is None


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_runs.write_table(tmp_path_factory.mktemp("table"))


def config(table: Path, **model: Any) -> dict[str, Any]:
    settings = small_runs.settings()
    settings["data"]["table"] = str(table)
    settings["model"] = {"backbone": {"name": "mlp", "widths": [8]}, **model}
    return settings


@pytest.fixture(scope="module")
def run(table: Path) -> isthmus.Run:
    """A run with gates, statistics and a forest: all that follows from a column."""
    settings = config(table, backbone={"name": "mmoe", "widths": [8], "experts": 2})
    settings["data"]["features"]["item"]["statistics"] = True
    settings["data"]["features"]["history"]["statistics"] = True
    settings["data"]["features"]["user"]["statistics"] = True
    settings["data"]["trees"] = True
    return isthmus.fit(settings, out=table.parent / "run", cache=table.parent / "cache")


def report_of(run: isthmus.Run) -> dict[str, Any]:
    return json.loads((run.path / "report.json").read_text(encoding="utf-8"))


def test_a_fit_writes_what_its_page_shows(run: isthmus.Run):
    report = report_of(run)
    assert report["evaluation"] == json.loads(json.dumps(run.evaluate().to_dict()))
    gates = run.gates().to_dict()
    assert report["gates"] == json.loads(json.dumps(gates))
    assert [line["step"] for line in report["curves"]] == [
        json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()
    ]
    best = next(look for look in report["curves"] if look["step"] == run.state.best_step)
    domains = run.evaluate("validation").domains
    assert best["auc_by_domain"] == pytest.approx({n: of.auc for n, of in domains.items()})
    assert report["importance"]["rows"] == len(run.scored("validation"))
    assert report["cost"]["parameters"] == run.state.parameters
    assert report["cost"]["peak_mebibytes"] > 50
    assert report["missing"] == {}
    assert (run.path / "report.html").read_text(encoding="utf-8") == fitted_page(report)


def test_a_shuffled_column_is_a_table_whose_column_is_shuffled(run: isthmus.Run, table: Path):
    """Whatever the encoder makes of the column follows: ids, lists, statistics, the forest's score."""
    bundle = run.bundle
    dataset = Dataset.from_table(run.config.data, table, cache=table.parent / "cache")
    rows = dataset.rows("validation")
    some = np.arange(0, len(rows), 2)
    asked = SampledRows(bundle, rows.arrays.take(some), rows.domain[some], 3)
    raw = small_runs.clicks().take(rows.row[some])
    order = np.random.default_rng(1).permutation(len(some))
    columns = {column.name: column for column in read_columns(bundle.encoder.fields)}
    assert list(columns) == ["user", "item", "history", "age"]
    plain = bundle.logits(raw)
    for name in ("user", "item", "history", "age", "tab"):
        place = raw.schema.get_field_index(name)
        changed = raw.set_column(place, name, raw[name].take(pa.array(order)))
        expected = bundle.logits(changed)
        assert not np.allclose(expected, plain)
        found = (
            asked.logits_of_domains(order) if name == "tab" else asked.logits(columns[name], order)
        )
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)


def test_a_page_that_is_lacking_is_made_and_says_what_it_cannot_know(
    run: isthmus.Run, table: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ISTHMUS_CACHE", str(table.parent / "cache"))
    before, page = report_of(run), run.path / "report.html"
    drawn_before = page.read_bytes()
    page.unlink()
    assert run.page() == page  # drawn again from the content
    assert page.read_bytes() == drawn_before
    (run.path / "report.json").write_text("{")
    page.unlink()
    with pytest.raises(RunError, match=r"report\.json is damaged"):
        run.page()
    (run.path / "report.json").unlink()
    run.page()
    after = report_of(run)
    assert after["cost"].pop("peak_mebibytes") is None
    assert before["cost"].pop("peak_mebibytes") > 0
    assert after == before
    assert "this page was made after the fit" in page.read_text(encoding="utf-8")


def test_without_its_table_a_run_has_a_page_without_importances(run: isthmus.Run, tmp_path: Path):
    for path in (run.path / "report.html", run.path / "report.json"):
        path.rename(tmp_path / path.name)
    config_file = run.path / "config.yaml"
    text = config_file.read_text()
    try:
        config_file.write_text(text.replace(str(run.config.data.table), str(tmp_path / "gone.csv")))
        isthmus.Run.open(run.path).page()
        report = report_of(run)
        assert report["importance"] is None
        assert report["missing"]["importance"].startswith("the table cannot be read: ")
        assert report["evaluation"] is not None
    finally:
        config_file.write_text(text)
        for name in ("report.html", "report.json"):
            (tmp_path / name).replace(run.path / name)


def test_a_guarded_run_tells_what_is_served_and_why_it_has_no_curves(table: Path):
    out = table.parent / "guarded"
    settings = config(table)
    run = isthmus.fit(settings, out=out, cache=table.parent / "cache", guard="balanced")
    report = report_of(run)
    assert report["evaluation"] == json.loads(json.dumps(run.evaluate().to_dict()))
    assert report["curves"] is report["gates"] is None
    assert report["missing"].keys() == {"curves", "gates"}
    assert report["guard"]["header"][2] == "served by"
    assert report["importance"]["columns"]
    assert report["cost"]["rows_per_second"] is None
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "a guarded run trains several models" in page
    assert 'id="guard"' in page


def test_trees_have_importances_and_no_curves(table: Path):
    settings = config(table)
    settings["model"] = {"name": "trees"}
    settings["data"]["trees"] = True
    del settings["data"]["features"]["history"]
    run = isthmus.fit(settings, out=table.parent / "trees", cache=table.parent / "cache")
    report = report_of(run)
    assert report["curves"] is None
    assert "a forest" in report["missing"]["curves"]
    assert {one["name"] for one in report["importance"]["columns"]} == {"user", "item", "age"}
    assert report["model"].startswith("a forest of")


def test_one_domain_has_no_chapter_of_domains_and_is_not_shuffled(table: Path):
    settings = config(table)
    settings["data"]["domains"] = ["home"]
    run = isthmus.fit(settings, out=table.parent / "one", cache=table.parent / "cache")
    report = report_of(run)
    assert report["shown"] == ["home"]
    assert report["importance"]["domain"] is None
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert 'id="each"' not in page
    assert "The lowest of" not in page


def test_validation_rows_take_the_place_of_test_rows_that_are_not_there(
    run: isthmus.Run, tmp_path: Path
):
    for name in ("report.html", "report.json", "scores/test.parquet"):
        (run.path / name).rename(tmp_path / Path(name).name)
    try:
        run.page()
        report = report_of(run)
        assert report["evaluation"]["split"] == "validation"
        assert "237 validation rows" in (run.path / "report.html").read_text(encoding="utf-8")
    finally:
        for name in ("report.html", "report.json", "scores/test.parquet"):
            (tmp_path / Path(name).name).replace(run.path / name)


def test_a_run_without_scored_rows_says_so():
    nothing = content(scored=None) | {
        "evaluation": None,
        "reliability": None,
        "scores": None,
        "shown": [],
        "missing": {"evaluation": "the run holds no scored rows", "gates": "none"},
    }
    page = fitted_page(nothing)
    assert "Nothing was measured: the run holds no scored rows." in page
    assert page.count("Not shown: the run holds no scored rows.") == 2


def test_a_page_of_a_hundred_domains_stays_small():
    names = tuple(f"shop {at:03d} with a long name" for at in range(100))
    page = fitted_page(content(names, 40_000, columns=40, count=200))
    assert len(page.encode()) < 3_000_000
    assert page.count('<article class="each">') == 100
    more = tuple(f"shop {at}" for at in range(1_000))
    report = content(more, 20_000, columns=3)
    assert len(report["shown"]) == 100
    page = fitted_page(report)
    assert len(page.encode()) < 3_000_000
    assert "500 domains with a higher AUC, or none, stand in report.json." in page
