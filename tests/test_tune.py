"""tune() on real tables: what is found, what is written, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from command_line import isthmus_in_process, told, written
from isthmus.config import Config, validate
from isthmus.disk import only_writer
from isthmus.errors import BundleError, ConfigError, RunError, SchemaError
from isthmus.run import Notice
from isthmus.tuning import running
from isthmus.tuning.attempt import SeenLook, attempt
from small_runs import clicks, content, settings


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, isthmus.Tuning, list[Notice]]:
    """A study of a config whose learning rate is far too small."""
    folder = tmp_path_factory.mktemp("slow")
    heard: list[Notice] = []
    config = written(folder, clicks(4000), lr=1e-6, epochs=4)
    return config, isthmus.tune(config, folder / "study", trials=28, progress=heard.append), heard


def test_a_learning_rate_that_is_too_small_is_found_out(slow: Any):
    config, study, _ = slow
    best, trials = study.best, study.report["trials"]
    assert len(trials) == 28
    assert trials[0]["recipe"] == "as it stands"
    assert trials[0]["changes"] == {}
    assert best is not None
    assert best["changes"]["train.lr"] > 1e-4
    assert best["score"] > trials[0]["score"] + 0.03
    assert best["score"] == max(
        one["score"] for one in trials if one["state"] == "complete" and one["feasible"]
    )
    assert isthmus.load_config(config).train.lr == 1e-6, "the user's file stays as it is"


def test_best_yaml_is_fitted_to_the_score_that_the_study_saw(slow: Any, tmp_path: Path):
    _, study, _ = slow
    run = isthmus.fit(study.path / "best.yaml", out=tmp_path / "run")
    looks = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert study.best is not None
    assert max(look["auc_pooled"] for look in looks) == study.best["score"]


def test_the_plan_comes_first_and_says_what_will_be_tried(slow: Any):
    _, _, heard = slow
    texts = [notice.text for notice in heard if notice.stage == "tune"]
    assert texts[0] == "taking a few steps to see how fast they go"
    first = texts[1].splitlines()
    assert first[0].startswith("tuning for 28 trials: ")
    assert " recipes of the portfolio, then " in first[0]
    assert "score: auc_pooled of the validation rows, larger is better" in first
    assert "  train.lr: 1e-06 to 0.01" in first
    assert first[-1].startswith("about ")
    assert texts[2].startswith("trial 0 (as it stands), epoch 0.50: auc_pooled 0.")


def test_recipes_are_never_pruned_and_others_have_a_whole_epoch(slow: Any):
    _, study, _ = slow
    pruned = [trial for trial in study.report["trials"] if trial["state"] == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial["recipe"] is None
        assert trial["score"] == max(trial["looks"].values())
        assert max(map(int, trial["looks"])) >= 2, "two looks an epoch"
    assert all(
        trial["state"] == "complete"
        for trial in study.report["trials"]
        if trial["recipe"] is not None
    )


def test_the_files_say_the_same(slow: Any):
    _, study, _ = slow
    names = {path.name for path in study.path.iterdir() if not path.name.startswith(".")}
    assert names == {
        "study.json",
        "journal.log",
        "reference.npy",
        "best.yaml",
        "trials.json",
        "trials.md",
        "report.html",
    }
    assert isthmus.Tuning.open(study.path).report == study.report
    table = str(study)
    assert "28 trials (" in table
    assert "looks better than it is" in table
    best = study.best
    assert best is not None
    assert f"Best is trial {best['number']} (" in table
    text = (study.path / "trials.md").read_text()
    page = (study.path / "report.html").read_text()
    for trial in study.report["trials"]:
        assert (trial["recipe"] or "TPE") in text
        assert f"trial {trial['number']}, {trial['recipe'] or 'TPE'}: " in page
    for name in ("home", "search", "mail"):
        assert f'<th scope="row">{name}</th>' in page


@pytest.mark.soak
def test_the_same_seed_gives_the_same_trials(slow: Any, tmp_path: Path, one_thread: None):
    config, _, _ = slow
    plain = []
    for name in ("a", "b"):
        study = isthmus.tune(config, tmp_path / name, trials=14, set=["train.epochs=1"])
        plain.append([trial | {"seconds": 0.0} for trial in study.report["trials"]])
    assert plain[0] == plain[1]
    other = isthmus.tune(config, tmp_path / "c", trials=14, set=["train.epochs=1", "train.seed=1"])
    assert [t["params"] for t in other.report["trials"]] != [t["params"] for t in plain[0]]


def test_a_larger_budget_goes_on_and_a_spent_one_trains_nothing(tmp_path: Path):
    config = written(tmp_path, epochs=1)
    first = isthmus.tune(config, tmp_path / "s", trials=2)
    more = isthmus.tune(config, tmp_path / "s", trials=4)
    assert more.report["trials"][:2] == first.report["trials"]
    assert len(more.report["trials"]) == 4
    journal = (tmp_path / "s" / "journal.log").read_bytes()
    again = isthmus.tune(config, tmp_path / "s", minutes=more.report["seconds"] / 60 / 2)
    assert again.report["trials"] == more.report["trials"]
    assert (tmp_path / "s" / "journal.log").read_bytes() == journal


def test_minutes_bound_the_time_of_trials(tmp_path: Path):
    study = isthmus.tune(written(tmp_path, epochs=1), tmp_path / "s", minutes=0.01)
    seconds = [trial["seconds"] for trial in study.report["trials"]]
    assert sum(seconds) >= 0.6
    assert sum(seconds[:-1]) < 0.6, "no trial begins after the minutes are spent"


def test_a_loss_that_is_not_finite_fails_its_trial_and_the_study_goes_on(tmp_path: Path):
    config = written(tmp_path, lr=1e30, epochs=1, embedding_l2=0.0)
    study = isthmus.tune(config, tmp_path / "s", trials=12)
    trials = study.report["trials"]
    assert trials[0]["state"] == "failed"
    assert "must stay finite" in trials[0]["reason"]
    (slower,) = [trial for trial in trials if trial["recipe"] == "slow"]
    assert slower["state"] == "complete"
    assert study.report["reference"] == slower["number"], "the first that ended is the reference"
    assert study.best is not None
    assert "failed: " in str(study)
    assert "must stay finite" in (study.path / "report.html").read_text()


def test_a_logloss_is_minimised(tmp_path: Path):
    config = written(tmp_path, monitor="logloss_pooled", epochs=1)
    study = isthmus.tune(config, tmp_path / "s", trials=6)
    scores = [one["score"] for one in study.report["trials"] if one["feasible"]]
    assert study.best is not None
    assert study.best["score"] == min(scores)
    assert study.report["metric"] == "logloss"


def test_a_recipe_that_harms_a_domain_is_never_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The second recipe has the best score of all, and turns one domain round."""
    tried: list[str] = []

    def turned(config: Any, dataset: Any, go_on: Any) -> Any:
        found = attempt(config, dataset, go_on)
        tried.append(config.model.backbone.norm)
        if len(tried) != 2 or found is None:
            return found
        rows = dataset.rows("validation")
        truth = np.where(np.asarray(rows.label) > 0, 3.0, -3.0)
        mail = dataset.domain_names.index("mail") + 1
        logits = np.where(np.asarray(rows.domain) == mail, -truth, truth)
        metrics = {**found.best.metrics, "auc_pooled": 0.99}
        best = type(found.best)(**{**_fields(found.best), "metrics": metrics})
        return type(found)(best, found.looks, found.stopped, logits + _noise(len(logits)))

    monkeypatch.setattr(running, "attempt", turned)
    study = isthmus.tune(written(tmp_path, clicks(4000), epochs=1), tmp_path / "s", trials=3)
    harmful = study.report["trials"][1]
    assert harmful["score"] == 0.99
    assert harmful["feasible"] is False
    assert harmful["worst"] == "mail"
    assert study.best is not None
    assert study.best["number"] != 1
    assert "worse in mail" in str(study)


def _fields(look: Any) -> dict[str, Any]:
    return {name: getattr(look, name) for name in type(look).__dataclass_fields__}


def _noise(rows: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=rows)


def test_looks_have_the_same_number_after_the_same_share_of_an_epoch(tmp_path: Path):
    """733 train rows: 3 steps an epoch of 256 rows, 23 of 32 rows; 4 looks an epoch are asked for."""
    seen: dict[int, list[tuple[int, float]]] = {}
    for batch_rows in (32, 256, 700):
        config = validate(
            Config, settings(batch_rows=batch_rows, epochs=2, looks_per_epoch=4, patience=9)
        )
        dataset = isthmus.Dataset.from_table(config.data, clicks(), cache=tmp_path)
        looks: list[SeenLook] = []
        attempt(config, dataset, lambda look, looks=looks: looks.append(look) is None)
        seen[batch_rows] = [(look.moment, look.epoch) for look in looks]
    for pairs in seen.values():
        for moment, epoch in pairs:
            assert moment <= 4 * epoch < moment + 1
            if float(epoch).is_integer():
                assert moment == 4 * epoch
    assert [moment for moment, _ in seen[32]] == list(range(1, 9))
    assert [moment for moment, _ in seen[256]] == [1, 2, 4, 5, 6, 8]


def test_the_command_prints_the_table_and_what_comes_next(tmp_path: Path):
    config = written(tmp_path, epochs=1)
    result = isthmus_in_process("tune", config, "--out", tmp_path / "s", "--trials", 2)
    assert result.exit_code == 0, result.output
    assert "2 trials (2 complete), auc_pooled on 237 validation rows" in result.stdout
    assert f"next: isthmus fit {tmp_path / 's' / 'best.yaml'}" in result.stdout
    assert "tuning for 2 trials: 2 recipes of the portfolio" in result.stderr


def test_without_a_folder_the_study_bears_the_name_of_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = written(tmp_path / "shop", epochs=1)
    monkeypatch.chdir(tmp_path)
    assert isthmus.tune(config, trials=1).path == Path("studies/shop")
    named = config.rename(config.with_name("home.yaml"))
    assert isthmus.tune(named, trials=1).path == Path("studies/home")


def refused(config: Path, out: Path, *words: Any) -> str:
    """What a refused command says; the folder stays as it was."""
    before = content(out) if out.exists() else None
    text = told(isthmus_in_process("tune", config, "--out", out, *words))
    assert (content(out) if out.exists() else None) == before
    return text


def test_a_folder_of_another_study_is_refused_by_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    config, out = written(tmp_path, epochs=1, lr=0.001), Path("studies/first")
    isthmus.tune(config, out, trials=1)
    text = refused(config, out, "--trials", 2, "--set", "train.dropout=1")
    assert "unknown key 'train.dropout'" in text
    text = refused(config, out, "--trials", 2, "--set", "train.lr=0.01")
    assert text == (
        "study studies/first must go on with the config it began with, got: train.lr was 0.001,"
        " is 0.01"
    )
    page = Path(__file__).parents[1] / "docs" / "tuning.md"
    assert f"`{text}`" in page.read_text(encoding="utf-8")
    text = refused(config, out, "--trials", 2, "--set", "train.monitor=auc_macro")
    assert "train.monitor was 'auc_pooled', is 'auc_macro'" in text
    pq.write_table(clicks(seed=1), tmp_path / "clicks.parquet")
    assert "must go on with the table it began with" in refused(config, out, "--trials", 2)


def test_a_study_of_another_portfolio_is_refused(tmp_path: Path):
    config, out = written(tmp_path, epochs=1), tmp_path / "s"
    isthmus.tune(config, out, trials=1)
    file = out / "study.json"
    held = json.loads(file.read_text())
    file.write_text(json.dumps(held | {"portfolio": ["as it stands", "old"]}))
    with pytest.raises(RunError, match="must go on with the portfolio it began with"):
        isthmus.tune(config, out, trials=2)
    file.write_text(json.dumps(held | {"format": 9, "isthmus": "7.0"}))
    with pytest.raises(RunError, match=r"must have format 1, got 9 in .* by isthmus 7\.0"):
        isthmus.tune(config, out, trials=2)
    file.write_text("{")
    with pytest.raises(BundleError, match=r"study\.json is damaged"):
        isthmus.tune(config, out, trials=2)


def test_damaged_files_of_a_study_are_refused(tmp_path: Path):
    config, out = written(tmp_path, epochs=1), tmp_path / "s"
    isthmus.tune(config, out, trials=1)
    reference = (out / "reference.npy").read_bytes()
    (out / "reference.npy").write_bytes(reference[:-8])
    with pytest.raises(BundleError, match=r"reference\.npy must be readable"):
        isthmus.tune(config, out, trials=2)
    (out / "reference.npy").write_bytes(reference)
    lines = (out / "journal.log").read_bytes().splitlines(keepends=True)
    (out / "journal.log").write_bytes(b"".join([lines[0], b"{half\n", *lines[1:]]))
    with pytest.raises(BundleError, match=r"journal\.log, line 2 is damaged"):
        isthmus.tune(config, out, trials=2)


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path):
    config, out = written(tmp_path), tmp_path / "s"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "must be new or hold study.json" in refused(config, out)
    assert "must be a folder, got the file" in refused(config, tmp_path / "clicks.parquet")


def test_two_processes_do_not_write_one_study(tmp_path: Path):
    config, out = written(tmp_path, epochs=1), tmp_path / "s"
    isthmus.tune(config, out, trials=1)
    with only_writer(out), pytest.raises(RunError, match="must have one writer at a time"):
        isthmus.tune(config, out, trials=2)


def test_no_validation_rows_or_no_score_is_refused_before_anything_is_written(tmp_path: Path):
    config, out = written(tmp_path), tmp_path / "s"
    days = "data.split={by: time, fractions: [0.7, 0.2, 0.1]}"
    table = clicks().to_pydict()
    table["click"] = [0 if 600 < i < 1200 else value for i, value in enumerate(table["click"])]
    pq.write_table(pa.table(table), tmp_path / "clicks.parquet")
    with pytest.raises(ConfigError, match="do not allow 'auc_pooled'; a logloss is always defined"):
        isthmus.tune(config, out, set=["data.time=day", days])
    assert not out.exists()
    one_row = "data.split={by: time, fractions: [0.9, 0.0009, 0.0991]}"
    pq.write_table(
        clicks().set_column(5, "day", pa.array(np.arange(1200))), tmp_path / "clicks.parquet"
    )
    with pytest.raises(SchemaError, match=r"validation split.* must hold at least 2 rows, got 1 "):
        isthmus.tune(config, out, set=["data.time=day", one_row])
    none = "data.split={by: random, fractions: [0.9998, 0.0001, 0.0001]}"
    with pytest.raises(SchemaError, match="got none in 'validation'"):
        isthmus.tune(config, out, set=[none])
    assert not out.exists()


def test_without_optuna_the_study_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(running, "find_spec", lambda _: None)
    text = refused(written(tmp_path), tmp_path / "s")
    assert text == "tune needs Optuna: pip install 'isthmus[tune]'"


def test_a_config_without_a_table_and_two_budgets_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"data\.table must name a table, got none"):
        isthmus.tune(settings(), tmp_path / "s")
    text = refused(written(tmp_path), tmp_path / "s", "--trials", 3, "--minutes", 2)
    assert text == "a budget must be trials or minutes, got trials 3 and minutes 2"
