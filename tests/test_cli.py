"""The command line on real files: what it prints, what it writes, and how it ends."""

import inspect
import json
import os
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from command_line import ISTHMUS, SRC, isthmus_in_process, told, written
from isthmus.cli import ProgressView, commands
from isthmus.data.tables import BLOCK_ROWS
from isthmus.run import Notice
from small_runs import ROWS, clicks, content


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, its table, and a finished run made by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(folder / "cache"))
        result = isthmus_in_process("fit", written(folder), "--out", folder / "run")
    assert result.exit_code == 0, result.output
    (folder / "fit.txt").write_text(result.stdout)
    (folder / "fit.log").write_text(result.stderr)
    return folder


@pytest.mark.usefixtures("executed")
def test_help_answers_at_once_and_names_every_command():
    begun = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [*ISTHMUS, "--help"], capture_output=True, text=True, check=True, env=environment
    )
    assert time.perf_counter() - begun < 10
    for command in ("data", "init", "fit", "evaluate", "predict", "compare", "cache", "demo"):
        assert f" {command} " in done.stdout
    imported = (
        "import sys, isthmus.cli; heavy = {'torch', 'polars', 'pyarrow', 'numpy', 'pydantic', 'rich'};"
        " print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", imported],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.strip() == "[]", "help must not wait for heavy imports"


def test_help_shows_the_defaults_that_are_words(monkeypatch: pytest.MonkeyPatch):
    # In brackets they would be markup to rich, and swallowed.
    monkeypatch.setenv("COLUMNS", "200")
    for command, default in (
        ("data", "(default: NAME)"),
        ("fit", "(default: runs/NAME-TIME)"),
        ("evaluate", "(default: test)"),
        ("diagnose", "(default: one a core)"),
    ):
        assert default in isthmus_in_process(command, "--help").stdout


def test_fit_prints_the_table_and_where_the_run_is(made: Path):
    text, log = (made / "fit.txt").read_text(), (made / "fit.log").read_text()
    for word in ("home", "mail", "search", "pooled", "macro", "worst", f"run folder: {made}"):
        assert word in text
    assert "not retraining" in text
    # No terminal here: plain lines, one a look.
    assert log.count("look at epoch") == 4
    assert "\x1b" not in text + log


def test_evaluate_prints_the_table_or_json(made: Path, tmp_path: Path):
    plain = isthmus_in_process("evaluate", made / "run")
    assert plain.stdout.strip() in (made / "fit.txt").read_text()
    as_json = json.loads(isthmus_in_process("evaluate", made / "run", "--json", "-").stdout)
    assert as_json["split"] == "test"
    assert {"pooled", "macro", "weighted", "worst", "domains"} <= as_json.keys()
    keys = {"rows", "positives", "auc", "auc_ci", "gauc", "logloss", "ne", "calibration", "ece"}
    assert all(keys <= domain.keys() for domain in as_json["domains"].values())
    into = isthmus_in_process("evaluate", made / "run", "--json", tmp_path / "e.json")
    assert "pooled" in into.stdout
    assert json.loads((tmp_path / "e.json").read_text()) == as_json
    other = isthmus_in_process("evaluate", made / "run", "--split", "validation", "--json", "-")
    assert json.loads(other.stdout)["split"] == "validation"


def test_evaluate_of_a_table_is_named_external(made: Path):
    result = isthmus_in_process(
        "evaluate", made / "run", "--data", made / "clicks.parquet", "--json", "-"
    )
    found = json.loads(result.stdout)
    assert found["split"] == "external"
    assert found["pooled"]["rows"] == ROWS
    assert "score: 100%" in result.stderr
    both = ("--data", made / "clicks.parquet", "--split", "test")
    assert "must stand without --data" in told(isthmus_in_process("evaluate", made / "run", *both))


def test_predict_writes_the_table_with_a_score(made: Path, tmp_path: Path):
    out = tmp_path / "scored.parquet"
    result = isthmus_in_process("predict", made / "run", made / "clicks.parquet", "-o", out)
    assert result.stdout == f"wrote {ROWS:,} rows with their score to {out}\n"
    scored = pq.read_table(out)
    assert scored.drop_columns(["score"]).equals(clicks())
    again = isthmus_in_process("predict", made / "run", made / "clicks.parquet", "-o", out)
    assert "must not exist yet" in told(again)
    twice = isthmus_in_process("predict", made / "run", out, "-o", tmp_path / "twice.parquet")
    assert "column 'score' must not be in the table yet" in told(twice)


def test_predict_warns_of_untrained_domains_in_one_line(made: Path, tmp_path: Path):
    tabs: list[Any] = clicks()["tab"].to_pylist()
    tabs[7] = "mars"
    pq.write_table(clicks().set_column(2, "tab", pa.array(tabs)), tmp_path / "strange.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = isthmus_in_process(
            "predict", made / "run", tmp_path / "strange.parquet", "-o", tmp_path / "out.parquet"
        )
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stderr.splitlines() if "warning:" in line]
    for word in ("'tab'", "'mars'", "1 row,", "strange.parquet", "row 7"):
        assert word in line


def test_compare_prints_each_later_run_against_the_first(made: Path, tmp_path: Path):
    others = []
    for seed in (1, 2):
        others.append(tmp_path / f"seed-{seed}")
        assert (
            isthmus_in_process(
                "fit", made / "config.yaml", "--set", f"train.seed={seed}", "--out", others[-1]
            ).exit_code
            == 0
        )
    text = isthmus_in_process("compare", made / "run", *others).stdout
    assert text.count("b - a, a = run") == 2
    result = isthmus_in_process("compare", made / "run", *others, "--json", "-")
    found = json.loads(result.stdout)["comparisons"]
    assert [(entry["a"], entry["b"]) for entry in found] == [("run", "seed-1"), ("run", "seed-2")]
    content = json.loads(result.stdout)
    assert content["settings"] == [{"key": "train.seed", "values": [0, 1, 2]}]
    assert [run["parameters"] for run in content["runs"]] == [content["runs"][0]["parameters"]] * 3
    page = tmp_path / "page.html"
    told_ = isthmus_in_process(
        "compare", made / "run", *others, "--page", page, "--split", "validation"
    )
    assert f"page: {page}" in told_.stdout
    assert "<title>seed-1, seed-2 against run</title>" in page.read_text()
    far = tmp_path / "no" / "page.html"
    assert "cannot be written" in told(
        isthmus_in_process("compare", made / "run", *others, "--page", far)
    )
    assert "must be given two runs or more" in told(isthmus_in_process("compare", made / "run"))


def test_compare_refuses_runs_on_other_rows(made: Path, tmp_path: Path):
    out = tmp_path / "moved"
    changed = ("--set", "data.split.seed=5", "--out", out)
    assert isthmus_in_process("fit", made / "config.yaml", *changed).exit_code == 0
    text = told(isthmus_in_process("compare", made / "run", out))
    assert "runs must score the same rows of split 'test'" in text


def test_resume_of_a_finished_run_says_so(made: Path):
    before = content(made / "run")
    result = isthmus_in_process("fit", made / "config.yaml", "--out", made / "run", "--resume")
    assert result.exit_code == 0
    assert "is finished already: nothing to resume" in result.stderr
    assert content(made / "run") == before


def test_a_run_folder_that_exists_is_refused_by_name(made: Path):
    before = content(made / "run")
    text = told(isthmus_in_process("fit", made / "config.yaml", "--out", made / "run"))
    assert text.replace("\n", "") == f"run folder must not exist yet, got {made / 'run'}"
    assert content(made / "run") == before


def test_the_cache_is_listed_and_cleared(made: Path, isolated_cache: Path):
    assert isthmus_in_process("cache", "list").stdout == f"cache folder: {isolated_cache}\n"
    fit = ("fit", made / "config.yaml", "--set", "train.epochs=1", "--out")
    assert isthmus_in_process(*fit, isolated_cache / "run").exit_code == 0
    listed = isthmus_in_process("cache", "list").stdout
    assert "clicks.parquet" in listed
    assert f"{ROWS:,}" in listed
    assert isthmus_in_process("cache", "clear").stdout.startswith("removed 1 encoded")
    assert "clicks.parquet" not in isthmus_in_process("cache", "list").stdout


def test_init_writes_a_config_that_fit_accepts(tmp_path: Path):
    written(tmp_path)
    config = tmp_path / "mine.yaml"
    words = ("--domain", "tab", "--label", "click", "-o", config)
    result = isthmus_in_process("init", tmp_path / "clicks.parquet", *words)
    assert result.exit_code == 0, result.output
    assert "home" in result.stdout
    assert "#" in config.read_text()
    fit = isthmus_in_process("fit", config, "--set", "train.epochs=1", "--out", tmp_path / "run")
    assert fit.exit_code == 0, fit.output
    again = isthmus_in_process("init", tmp_path / "clicks.parquet", *words)
    assert "config to write must not exist yet" in told(again)


def test_data_synthetic_is_ready_for_fit(tmp_path: Path):
    result = isthmus_in_process("data", "synthetic", "--out", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
        "config.yaml",
        "synthetic.parquet",
    ]
    assert isthmus.load_config(tmp_path / "s" / "config.yaml").data.domain == "domain"
    assert "must be one of movielens-1m, insteval, synthetic, kuairand," in told(
        isthmus_in_process("data", "movie")
    )
    text = told(isthmus_in_process("data", "movielens-1m", "--domain", "zip"))
    assert "--domain must be age, gender or occupation, got 'zip'" in text
    text = told(isthmus_in_process("data", "insteval", "--domain", "age"))
    assert "--domain must stand with movielens-1m only, got it with insteval" in text


def test_the_version_is_that_of_the_project():
    assert isthmus_in_process("--version").stdout == f"isthmus {version('isthmus')}\n"


def test_an_interrupted_command_ends_with_its_own_code(made: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(isthmus, "fit", interrupted, raising=False)
    result = isthmus_in_process("fit", made / "config.yaml")
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_a_terminal_gets_a_bar_and_messages_above_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ProgressView() as view:
        view(Notice("train", "step 1 [of] 2", 0.5))
        view(Notice("train", "look at epoch 1.00: auc [0.7]"))
        view(Notice("train", "step 2 of 2", 1.0))
        view(Notice("train", "step 1 of 2", 0.5))
    shown = capsys.readouterr().err
    assert "50 %" in shown
    assert "100 %" in shown
    assert "train: look at epoch 1.00: auc [0.7]" in shown


def test_without_a_terminal_there_is_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]):
    with ProgressView() as view:
        for step in range(1, 1001):
            view(Notice("train", f"step {step}", step / 1000))
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[-1] == "train: 100% step 1000"


def test_the_memory_setting_is_one_number():
    """The command line repeats the default, so that its help needs no torch."""
    assert inspect.signature(commands.fit).parameters["block_rows"].default == BLOCK_ROWS
