"""The command line on bad tables, bad configs and full disks: it says so and leaves nothing."""

import json
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from command_line import ISTHMUS, SRC, isthmus_in_process, told, written
from small_runs import ROWS, clicks, content


def put(name: str, values: Any) -> pa.Table:
    table = clicks()
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def changed(name: str, row: int, value: Any) -> pa.Table:
    values: list[Any] = clicks()[name].to_pylist()
    values[row] = value
    return put(name, values)


DOUBLED = pa.Table.from_arrays(
    [*clicks().columns, clicks()["user"]], names=[*clicks().column_names, "user"]
)
BAD_TABLES = {
    "missing column": (clicks().drop_columns(["age"]), ("'age'", "clicks.parquet", "must be in")),
    "missing label": (clicks().drop_columns(["click"]), ("'click'", "clicks.parquet")),
    "wrong dtype": (put("age", ["old"] * ROWS), ("'age'", "numeric", "string", "clicks.parquet")),
    "label outside": (changed("click", 17, 2), ("'click'", "got 2", "clicks.parquet", "row 17")),
    "null label": (changed("click", 17, None), ("'click'", "null", "clicks.parquet", "row 17")),
    "null domain": (changed("tab", 30, None), ("'tab'", "null", "clicks.parquet", "row 30")),
    "empty table": (clicks().slice(0, 0), ("at least one row", "clicks.parquet")),
    "nan": (changed("age", 8, float("nan")), ("'age'", "nan", "clicks.parquet", "row 8")),
    "inf": (changed("age", 9, float("inf")), ("'age'", "inf", "clicks.parquet", "row 9")),
    "duplicate columns": (DOUBLED, ("'user'", "once", "clicks.parquet")),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_refused_by_name_and_leaves_nothing(
    name: str, tmp_path: Path, isolated_cache: Path
):
    table, words = BAD_TABLES[name]
    config = written(tmp_path, table)
    before = content(tmp_path)
    text = told(isthmus_in_process("fit", config, "--out", tmp_path / "run"))
    for word in words:
        assert word in text, text
    assert content(tmp_path) == before
    assert not (tmp_path / "run").exists()
    assert not list(isolated_cache.rglob("meta.json")), "no encoded table may stay either"


def test_a_table_cut_off_in_the_middle_is_refused_by_name(tmp_path: Path):
    config = written(tmp_path)
    whole = (tmp_path / "clicks.parquet").read_bytes()
    (tmp_path / "clicks.parquet").write_bytes(whole[: len(whole) // 2])
    text = told(isthmus_in_process("fit", config, "--out", tmp_path / "run"))
    assert "clicks.parquet must be a whole Parquet file" in text
    assert not (tmp_path / "run").exists()


def test_a_missing_table_is_refused_by_name(tmp_path: Path):
    config = written(tmp_path)
    (tmp_path / "clicks.parquet").unlink()
    text = told(isthmus_in_process("fit", config, "--out", tmp_path / "run"))
    assert "must be a file, a folder or a glob that exists" in text
    assert "clicks.parquet" in text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("train.batch_row=3", "unknown key 'train.batch_row'; did you mean 'train.batch_rows'?"),
        ("train.epochs=0", "train.epochs must be greater than or equal to 1, got 0"),
        ("model.adapter.condition=[x]", "adapter.condition must be 'all' or name features"),
        ("train.device=cuda", "train.device must name a device that is there, got 'cuda'"),
    ],
)
def test_a_bad_config_is_refused_and_leaves_nothing(change: str, text: str, tmp_path: Path):
    config = written(tmp_path)
    out = tmp_path / "run"
    assert text in told(isthmus_in_process("fit", config, "--set", change, "--out", out))
    assert not out.exists()


def test_a_domain_of_one_class_is_reported_and_not_fatal(tmp_path: Path):
    labels = clicks()["click"].to_numpy().copy()
    labels[np.array(clicks()["tab"].to_pylist()) == "mail"] = 1
    config = written(tmp_path, put("click", labels))
    result = isthmus_in_process("fit", config, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    (line,) = [
        line for line in result.stdout.splitlines() if "(mail" in line and "auc" in line.lower()
    ]
    assert "class" in line or "negative" in line
    found = json.loads(isthmus_in_process("evaluate", tmp_path / "run", "--json", "-").stdout)
    assert found["domains"]["mail"]["auc"] is None


@pytest.mark.parametrize("limit", [2_000, pytest.param(20_000, marks=pytest.mark.soak)])
def test_a_full_disk_is_told_and_leaves_nothing(limit: int, tmp_path: Path):
    """No file may grow beyond ``limit`` bytes: the first that wants to meets a full disk."""
    config = written(tmp_path)
    before = content(tmp_path)
    quick = ("--set", "train.epochs=1", "--set", "model.backbone.widths=[256]")

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [*ISTHMUS, "fit", str(config), "--out", str(tmp_path / "run"), *quick],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=no_room,
        env={
            **os.environ,
            "PYTHONPATH": str(SRC),
            "OMP_NUM_THREADS": "1",
            # Python would cut its own compiled files short, for every later process.
            "PYTHONDONTWRITEBYTECODE": "1",
            "ISTHMUS_CACHE": str(tmp_path.with_name(f"{tmp_path.name}-cache")),
        },
    )
    assert done.returncode == 2, done.stderr
    assert "error:" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert content(tmp_path) == before


def test_a_run_that_is_none_is_refused_by_name(tmp_path: Path):
    for words in (("evaluate", tmp_path), ("compare", tmp_path, tmp_path)):
        assert "is not a run folder: it has no run.json" in told(isthmus_in_process(*words))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, its table, a run, and a file that no folder can stand below."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(folder / "cache"))
        quick = ("--set", "train.epochs=1")
        result = isthmus_in_process("fit", written(folder), "--out", folder / "run", *quick)
    assert result.exit_code == 0, result.output
    (folder / "file").write_text("")
    return folder


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("fit", "config.yaml", "--out", "OUT"), "run folder OUT cannot be written: WHY"),
        (
            ("fit", "config.yaml", "--guard", "strict", "--out", "OUT"),
            "run folder OUT cannot be wr",
        ),
        (("demo", "--data", "synthetic", "--out", "OUT"), "cannot write to OUT/synthetic: WHY"),
        (("data", "synthetic", "--out", "OUT"), "cannot write to OUT: WHY"),
        (
            ("init", "clicks.parquet", "--domain", "tab", "--label", "click", "-o", "OUT"),
            "config OUT cannot be written: WHY",
        ),
        (("evaluate", "run", "--json", "OUT"), "JSON file OUT cannot be written: WHY"),
        (("compare", "run", "run", "--json", "OUT"), "JSON file OUT cannot be written: WHY"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize(
    ("out", "why"),
    [("file/out", "Not a directory"), ("/proc/isthmus", "No such file or directory")],
)
def test_what_cannot_be_written_is_named_with_the_reason(
    words: tuple[str, ...],
    what: str,
    out: str,
    why: str,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Where nobody may write, whoever asks: below a file, and in a folder of the kernel."""
    monkeypatch.chdir(made)
    before = content(made)
    text = told(isthmus_in_process(*(word.replace("OUT", out) for word in words)))
    assert what.replace("OUT", out).replace("WHY", why) in text
    assert "Errno" not in text
    after = {name: data for name, data in content(made).items() if not name.startswith("cache")}
    assert after == {name: data for name, data in before.items() if not name.startswith("cache")}


def test_a_prediction_that_cannot_be_written_is_named(made: Path):
    words = ("predict", made / "run", made / "clicks.parquet", "-o")
    text = told(isthmus_in_process(*words, "/proc/scored.parquet"))
    assert "/proc/scored.parquet" in text
    assert "No such file or directory" in text
    assert str(made / "file") in told(isthmus_in_process(*words, made / "file" / "scored.parquet"))


def test_a_fit_below_a_file_is_refused_before_the_table_is_read(made: Path):
    result = isthmus_in_process("fit", made / "config.yaml", "--out", made / "file" / "run")
    assert "encode" not in result.stderr
    long = isthmus_in_process("fit", made / "config.yaml", "--out", made / ("a" * 300))
    assert told(long).endswith("cannot be written: File name too long")


def test_a_device_and_a_link_are_written_to_and_stay(made: Path, tmp_path: Path):
    """A link to the full device, so that no fault of ours can take the device's place."""
    full, linked = tmp_path / "full", tmp_path / "linked"
    full.symlink_to("/dev/full")
    linked.symlink_to(tmp_path / "found.json")
    (tmp_path / "found.json").write_text("{}")
    text = told(isthmus_in_process("evaluate", made / "run", "--json", full))
    assert text == f"JSON file {full} cannot be written: No space left on device"
    assert full.is_symlink()
    assert isthmus_in_process("evaluate", made / "run", "--json", linked).exit_code == 0
    assert linked.is_symlink()
    assert "pooled" in json.loads((tmp_path / "found.json").read_text())


def test_standard_output_that_is_full_is_named(made: Path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*ISTHMUS, "evaluate", str(made / "run")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"},
        )
    assert done.returncode != 0
    assert "error: standard output cannot be used: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
