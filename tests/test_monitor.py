"""The monitor: what labels say later of scores that were logged."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from chromium import Browser
from command_line import isthmus_in_process, told
from isthmus.bundle.profile import Profile
from isthmus.bundle.validation_profile import measure_profile
from isthmus.data.store.arrays import Arrays
from isthmus.errors import RunError, SchemaError
from isthmus.metrics import ScoredRows, auc
from isthmus.monitoring import ScoreLog
from page_reading import check_looks, check_structure
from small_runs import clicks, settings

NAMES = ("home", "search", "mail")
TIME = 1_795_824_000  # 2026-11-28, midnight
DAY = 86_400


def drawn(
    rng: np.random.Generator, rows: int, *, noise: float = 0.0, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels of which they are the chance; or of which they know less, or promise more."""
    truth = rng.normal(-1.0, 1.2, rows)
    label = rng.random(rows) < 1 / (1 + np.exp(-truth))
    logit = truth + noise * rng.normal(size=rows) + shift
    return 1 / (1 + np.exp(-logit)), label


def profile_of(domain: np.ndarray, score: np.ndarray, label: np.ndarray) -> Profile:
    nothing = np.zeros((len(score), 0), np.float32)
    arrays = Arrays(nothing, nothing, (), domain, label.astype(np.float32), None)
    scored = ScoredRows(
        split="validation",
        row=np.arange(len(score)),
        logits=np.log(score / (1 - score)),
        label=label,
        domain=domain,
        names=NAMES,
    )
    return measure_profile([], arrays, scored)


@pytest.fixture(scope="module")
def profile() -> Profile:
    domain = np.repeat([1, 2, 3], 4_000)
    return profile_of(domain, *drawn(np.random.default_rng(0), len(domain)))


def serve(
    folder: Path,
    profile: Profile | None,
    changes: Mapping[str, Mapping[str, float]],
    *,
    days: int = 3,
    requests: int = 300,
    rows: int = 5,
    seed: int = 1,
) -> tuple[Path, pl.DataFrame]:
    """A log of some days, and its labels: a request is of one domain."""
    rng = np.random.default_rng(seed)
    log = ScoreLog(folder / "log", max_bytes=200_000, kept=50)
    log.describe("b" * 64, profile)
    labels = []
    for number in range(days * requests):
        name = NAMES[number % 3]
        score, label = drawn(rng, rows, **changes.get(name, {}))
        time = TIME + DAY * (number // requests) + number % DAY
        log.write(f"r{number}", domains=[name] * rows, scores=score, bundle="b" * 64, time=time)
        labels += [(f"r{number}", row, int(value)) for row, value in enumerate(label)]
    return folder / "log", pl.DataFrame(labels, schema=["id", "row", "label"], orient="row")


def test_domains_that_do_as_before_are_silent_and_figures_are_the_rows_own(
    tmp_path: Path, profile: Profile
):
    log, labels = serve(tmp_path, profile, {})
    found = isthmus.monitor(log, labels)
    assert found.fell == ()
    assert "None of 3 domains fell beyond the margin" in str(found)
    assert (found.first, found.last) == ("2026-11-28", "2026-11-30")
    joined = pl.read_ndjson([*sorted(tmp_path.glob("log.*[0-9]")), log], ignore_errors=True)
    joined = joined.drop_nulls("id").join(labels, on=["id", "row"])
    assert len(joined) == found.counts.with_label == 4_500
    for of in found.domains:
        mine = joined.filter(pl.col("domain") == of.domain)
        score, label = mine["score"].to_numpy(), mine["label"].to_numpy()
        assert of.served.rows == len(mine) == 1_500
        assert of.served.positives == label.sum()
        assert of.served.auc == pytest.approx(auc(score, label), abs=1e-9)
        assert of.served.calibration == pytest.approx(score.sum() / label.sum(), rel=1e-6)
        assert [day for day, _ in found.days[of.domain]] == [
            "2026-11-28",
            "2026-11-29",
            "2026-11-30",
        ]
        day = mine.filter(pl.col("time").str.starts_with("2026-11-29"))
        served = found.days[of.domain][1][1]
        assert served.auc == pytest.approx(
            auc(day["score"].to_numpy(), day["label"].to_numpy()), abs=1e-9
        )
        assert served.rows == len(day)
        assert served.auc is not None
        assert served.auc_ci is not None
        assert served.auc_ci[0] < served.auc < served.auc_ci[1]


def test_a_domain_whose_order_is_lost_fell_in_auc_and_one_that_promises_more_in_calibration(
    tmp_path: Path, profile: Profile
):
    log, labels = serve(tmp_path, profile, {"search": {"noise": 3.0}, "mail": {"shift": 0.8}})
    found = isthmus.monitor(log, labels, out=tmp_path / "page.html")
    fell = {of.domain: of.fell for of in found.fell}
    assert "AUC" in fell["search"]
    assert fell["mail"] == ("calibration",)
    assert "home" not in fell
    assert "2 of 3 domains fell beyond the margin" in found.headline
    page = (tmp_path / "page.html").read_text()
    assert "fell: calibration" in page
    assert page.count("<svg") == 6
    # What is put up with decides.
    assert isthmus.monitor(log, labels, margin=0.5, calibration_margin=9.0).fell == ()


def test_chance_alone_lets_few_domains_fall(tmp_path: Path, profile: Profile):
    # Truly at the margin of AUC: the level is 5 % of logs, and margins 0 leave all of it to chance.
    fell = 0
    for seed in range(40):
        (folder := tmp_path / str(seed)).mkdir()
        rng = np.random.default_rng(100 + seed)
        domain = np.repeat([1, 2, 3], 600)
        before = profile_of(domain, *drawn(rng, len(domain)))
        log, labels = serve(folder, before, {}, days=1, requests=120, seed=200 + seed)
        fell += bool(isthmus.monitor(log, labels, margin=0, calibration_margin=0).fell)
    assert fell <= 6  # 2 are the level


def test_every_row_is_accounted_for(tmp_path: Path, profile: Profile):
    log, labels = serve(tmp_path, profile, {}, days=1)
    writer = ScoreLog(log)
    again = {"domains": ["home"], "time": TIME + 400.0}
    writer.write("r0", scores=np.array([0.5]), bundle="b" * 64, **again)  # sent once more
    writer.write("old", scores=np.array([0.5]), bundle="a" * 64, **{**again, "time": TIME - DAY})
    with log.open("ab") as file:
        file.write(b'{"time": "2026-')
    labels = labels.with_columns(label=labels["label"].cast(pl.Int8))
    first, second, third = labels[0:1], labels[5:6], labels[10:11]
    other = second.with_columns(label=(1 - pl.col("label")).cast(pl.Int8))
    later = third.with_columns(label=pl.lit(None, pl.Int8))
    stranger = first.with_columns(id=pl.lit("nobody"))
    given = pl.concat([labels.filter(pl.col("id") != "r2"), first, other, later, stranger])
    found = isthmus.monitor(log, given)
    counts = found.counts.to_dict()
    assert counts == {
        "logged": 1_502,
        "other_bundles": 1,
        "logged_again": 1,
        "torn": 1,
        "ambiguous": 0,
        "without_label": 6,  # those of r2, and the row whose labels contradict each other
        "with_label": 1_494,
        "labels": 1_498,
        "labels_again": 1,
        "labels_at_odds": 2,
        "labels_unused": 1,
    }
    text = str(found)
    for sentence in (
        "1 line of the log could not be read.",
        "1 row of the log came from another bundle.",
        "2 labels contradicted another one of the same row.",
    ):
        assert sentence in text
    assert found.to_dict()["counts"] == counts


def test_ids_of_single_rows_need_no_place(tmp_path: Path, profile: Profile):
    log, labels = serve(tmp_path, profile, {}, days=1, rows=1)
    whole = isthmus.monitor(log, labels)
    alone = isthmus.monitor(log, labels.drop("row"))
    assert alone.domains == whole.domains
    ScoreLog(log).write(
        "two", domains=["home"] * 2, scores=np.full(2, 0.5), bundle="b" * 64, time=TIME + 1.0
    )
    more = pl.concat([labels.drop("row"), pl.DataFrame({"id": ["two"], "label": [1]})])
    found = isthmus.monitor(log, more)
    assert found.counts.ambiguous == 2
    assert found.domains == whole.domains


def test_ids_may_be_numbers_and_columns_have_other_names(tmp_path: Path, profile: Profile):
    log = ScoreLog(tmp_path / "log")
    log.describe("b" * 64, profile)
    rng = np.random.default_rng(5)
    score, label = drawn(rng, 400)
    for number in range(400):
        log.write(
            str(number),
            domains=["home" if number % 2 else None],
            scores=score[number : number + 1],
            bundle="b" * 64,
            time=TIME,
        )
    table = pl.DataFrame({"key": np.arange(400), "clicked": label})
    found = isthmus.monitor(tmp_path / "log", table, id="key", label="clicked")
    assert found.counts.with_label == 400
    by_name = {of.domain: of for of in found.domains}
    assert by_name["home"].auc is not None
    assert by_name["(none)"].why == "no validation rows to compare with"


def test_few_labels_are_not_judged(tmp_path: Path, profile: Profile):
    log, labels = serve(tmp_path, profile, {"home": {"noise": 9.0}}, days=1, requests=60)
    found = isthmus.monitor(log, labels)
    assert found.fell == ()
    assert all("are needed" in (of.why or "") for of in found.domains)
    assert found.headline.startswith("No domain has labels enough")


def test_days_of_one_class_have_no_auc(tmp_path: Path, profile: Profile):
    log, labels = serve(tmp_path, profile, {}, days=2)
    second = labels["id"].str.slice(1).cast(pl.Int64) >= 300
    found = isthmus.monitor(log, labels.with_columns(label=pl.col("label") * (~second)))
    served = found.days["home"][1][1]
    assert (served.auc, served.calibration, served.positives) == (None, None, 0)
    assert "–" in str(found.by_day())
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    folder = tmp_path_factory.mktemp("monitor")
    config = isthmus.load_config(settings(epochs=1), ["model.adapter.name=none"])
    return isthmus.fit(config, clicks(), out=folder / "run", cache=folder / "cache")


def logged_run(run: isthmus.Run, folder: Path, *, describe: bool = True) -> tuple[Path, Path]:
    """The log of a server that met the run's own table, and the labels as a file."""
    bundle, table = run.bundle, clicks()
    assert bundle.checksum is not None
    log = ScoreLog(folder / "log")
    log.describe(bundle.checksum, bundle.profile if describe else None)
    scores = bundle.score(table)
    for start in range(0, len(table), 4):
        some = slice(start, start + 4)
        log.write(
            f"r{start}",
            domains=table["tab"][some].to_pylist(),
            scores=scores[some],
            bundle=bundle.checksum,
            time=TIME + start * 100.0,
        )
    place = np.arange(len(table))
    labels = {
        "id": [f"r{row - row % 4}" for row in place],
        "row": place % 4,
        "label": table["click"],
    }
    pq.write_table(pa.table(labels), folder / "labels.parquet")
    return folder / "log", folder / "labels.parquet"


def test_the_command_says_how_a_run_does(run: isthmus.Run, tmp_path: Path):
    log, labels = logged_run(run, tmp_path)
    page, target = tmp_path / "page.html", tmp_path / "found.json"
    words = ("monitor", log, "--labels", labels, "--out", page, "--json", target)
    result = isthmus_in_process(*words)
    assert result.exit_code == 0, result.output
    assert "1,200 rows with a label, 2026-11-28 to 2026-11-29" in result.output
    assert f"page: {page}" in result.output
    content = json.loads(target.read_text())
    assert content["fell"] == {}
    assert content["bundle"] == run.bundle.checksum
    assert content["domains"]["home"]["auc"]["training"] == pytest.approx(
        run.evaluate("validation").domains["home"].auc, abs=1e-6
    )
    # The run says of its validation rows what the log said.
    for place in (run.path, run.path / "bundle"):
        again = isthmus_in_process(
            "monitor", log, "--labels", labels, "--run", place, "--json", "-"
        )
        assert json.loads(again.stdout)["domains"] == content["domains"]


def test_the_command_fails_where_a_domain_fell(tmp_path: Path, profile: Profile):
    log, labels = serve(tmp_path, profile, {"mail": {"shift": 1.5}}, days=1)
    labels.write_csv(tmp_path / "labels.csv")
    result = isthmus_in_process("monitor", log, "--labels", tmp_path / "labels.csv")
    assert result.exit_code == 1
    assert "1 of 3 domains fell beyond the margin: mail (calibration)." in result.output
    result = isthmus_in_process(
        "monitor", log, "--labels", tmp_path / "labels.csv", "--calibration-margin", 9
    )
    assert result.exit_code == 0


def test_a_run_of_before_profiles_still_has_a_baseline(run: isthmus.Run, tmp_path: Path):
    old = isthmus.Run.open(shutil.copytree(run.path, tmp_path / "old"))
    bundle = isthmus.Bundle(
        config=run.bundle.config,
        encoder=run.bundle.encoder,
        model=run.bundle.model,
        calibration=run.bundle.calibration,
    )
    bundle.save(old.path / "bundle")
    log, labels = logged_run(old, tmp_path)
    with pytest.raises(RunError, match="has no profile in the log to compare with; name its run"):
        isthmus.monitor(log, labels)
    found = isthmus.monitor(log, labels, run=old.path)
    expected = run.evaluate("validation").domains
    for of in found.domains:
        if of.auc is not None:
            assert of.auc.training == pytest.approx(expected[of.domain].auc, abs=1e-6)
    with pytest.raises(RunError, match="a bundle must have a profile to compare with"):
        isthmus.monitor(log, labels, run=old.path / "bundle")
    with pytest.raises(RunError, match=r"the log must hold rows of bundle .* got rows of"):
        isthmus.monitor(log, labels, run=run.path)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no label column": ({"id": ["r0"], "row": [0]}, "column 'label' must be in the table"),
    "no id column": ({"label": [1]}, "column 'id' must be in the table"),
    "odd label": ({"id": ["r0"], "row": [0], "label": [2]}, "column 'label' must be 0 or 1"),
    "odd row": ({"id": ["r0"], "row": [0.5], "label": [1]}, "column 'row' must hold whole numbers"),
    "null row": ({"id": ["r0"], "row": pa.array([None], pa.int8()), "label": [1]}, "got null"),
    "nobody's": ({"id": ["x"], "row": [0], "label": [1]}, "none of 1 labels"),
    "none": ({"id": pa.array([], pa.string()), "label": pa.array([], pa.int8())}, "got none"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, profile: Profile, fault: str):
    log, _ = serve(tmp_path, profile, {}, days=1, requests=3)
    columns, text = FAULTS[fault]
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    said = told(isthmus_in_process("monitor", log, "--labels", tmp_path / "labels.parquet"))
    assert text in said
    if fault == "odd label":
        with pytest.raises(SchemaError, match="row 0"):
            isthmus.monitor(log, pa.table(columns))


def test_logs_and_margins_that_do_not_fit_are_refused(tmp_path: Path):
    said = told(isthmus_in_process("monitor", tmp_path / "none", "--labels", "x.parquet"))
    assert "a score log must exist, got none at" in said
    (tmp_path / "log").write_text("")
    said = told(isthmus_in_process("monitor", tmp_path / "log", "--labels", "x.parquet"))
    assert "a score log must hold rows, got none" in said
    said = told(isthmus_in_process("monitor", tmp_path / "log", "--labels", "x", "--margin", -1))
    assert "must be at least 0, got -1 and 0.1" in said
    with pytest.raises(ValueError, match="margins must be at least 0"):
        isthmus.monitor(tmp_path / "log", pa.table({}), margin=-1.0)


def test_a_page_can_be_read_by_anyone(tmp_path: Path, profile: Profile, browser: Browser):
    log, labels = serve(tmp_path, profile, {"mail": {"shift": 0.8}}, days=2)
    isthmus.monitor(log, labels, out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<script") == 1  # the theme's
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    check_looks(browser, tmp_path / "page.html", width=360, dark=True)
    check_looks(browser, tmp_path / "page.html", width=1200, dark=False)
    check_structure(browser)
