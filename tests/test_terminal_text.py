"""What the data holds cannot write to the terminal by itself, and its letters come through."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import diagnosis_example as examples
from command_line import ISTHMUS, SRC, isthmus_in_process, told
from isthmus.cli import ProgressView
from isthmus.cli.app import show_warning
from isthmus.diagnosis import Diagnosis
from isthmus.errors import ConfigError, SchemaError
from isthmus.metrics import TextTable
from isthmus.printable import json_text, printable, shown
from isthmus.report import to_markdown, to_rich
from isthmus.run import Notice
from small_runs import clicks, settings
from test_report import rich_text

# Each would do something to a terminal, or look like a line of ours.
NAMES = {"home": "Köln\nerror: forged", "search": "\x1b[31m東京\x00\r", "mail": "ma\u202eil"}
ROWS = 3000
TAB, AGE = "t\nqab\x1b[32m", "a\x9bge\u2028"
SHOWN = ("Köln\\nerror: forged", "\\x1b[31m東京\\x00\\r", "ma\\u202eil")


def assert_plain(text: str) -> None:
    """Nothing but printable characters and whole lines, none of which the data began."""
    assert [c for c in text if not (c.isprintable() or c == "\n")] == []
    assert not any(line.startswith(("error: forged", "qab", "ble.p")) for line in text.splitlines())


def odd_table() -> pa.Table:
    table = clicks(ROWS)
    tabs = pa.array([NAMES[name] for name in table["tab"].to_pylist()])
    table = table.set_column(table.column_names.index("tab"), "tab", tabs)
    return table.rename_columns([{"tab": TAB, "age": AGE}.get(n, n) for n in table.column_names])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, its config and a run; their names and all that is in them is odd."""
    folder = tmp_path_factory.mktemp("odd") / "fol\nder\x1b[33m"
    folder.mkdir()
    pq.write_table(odd_table(), folder / "tä\nble.parquet")
    config = settings(epochs=1)
    config["data"] |= {"domain": TAB, "table": "tä\nble.parquet"}
    features = config["data"]["features"]
    features[TAB], features[AGE] = features.pop("tab"), features.pop("age")
    (folder / "con\nfig.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(folder / "cache"))
        result = isthmus_in_process("fit", folder / "con\nfig.yaml", "--out", folder / "r\nün")
    assert result.exit_code == 0, result.output
    (folder / "fit.txt").write_text(result.stdout)
    (folder / "fit.log").write_text(result.stderr)
    return folder


def test_what_is_not_printable_is_escaped_as_by_repr():
    assert printable("a\n\r\x00\x1b[0m\x9b\u202e\u2028\ud800") == (
        r"a\n\r\x00\x1b[0m\x9b\u202e\u2028\ud800"
    )
    for text in ("Köln", "東京", "Ελλάδα", "قاهرة", "a b", "C:\\dir", "it's", "🚗", ""):
        assert printable(text) == text
    assert printable("a\nb\r", keep="\n") == "a\nb\\r"


@given(st.text())
def test_an_escaped_text_is_printable_and_stays_as_it_is(text: str):
    once = printable(text)
    assert once.isprintable()
    assert printable(once) == once
    if text.isprintable():
        assert once == text


@given(st.dictionaries(st.text(), st.text()))
def test_json_of_any_text_is_plain_and_means_the_same(content: dict[str, str]):
    for encoding in ("utf-8", "ascii", "latin-1"):
        text = json_text(content, encoding)
        assert json.loads(text) == content
        assert all(c.isprintable() or c == "\n" for c in text)
        text.encode(encoding)


def test_every_text_of_a_value_is_escaped_wherever_it_stands():
    @dataclass(frozen=True)
    class Found:
        names: tuple[str, ...]
        count: int
        more: dict[str, Any]

    given = Found(("a\n", "b"), 3, {"c\x1b": ["d\r", None, 1.5]})
    assert shown(given) == Found(("a\\n", "b"), 3, {"c\\x1b": ["d\\r", None, 1.5]})
    assert given.names == ("a\n", "b")
    assert shown({"a\n": 1, "a\\n": 2}) == {"a\\n": 1, "a\\\\n": 2}, "none may take another's place"


def test_every_form_of_a_table_escapes_its_names():
    table = TextTable("of r\nun", ("domain\x1b", "rows"), ((NAMES["home"], "1"),), ("no\nte",))
    plain, rich = str(table), rich_text(table)
    assert_plain(plain)
    assert plain.splitlines() == [
        "of r\\nun",
        "",
        "domain\\x1b           rows",
        "-" * len("Köln\\nerror: forged  rows"),
        "Köln\\nerror: forged     1",
        "",
        "no\\nte",
    ]
    for word in ("of r\\nun", "domain\\x1b", "Köln\\nerror: forged", "no\\nte"):
        assert word in rich
        assert word.replace("\\", "\\\\") in to_markdown(table)
    assert to_rich(table).row_count == 1


def test_a_fault_is_one_plain_line_also_for_python():
    fault = SchemaError("column 'a\nerror: forged\x1b[2J' must be in clicks.parquet")
    assert str(fault) == r"column 'a\nerror: forged\x1b[2J' must be in clicks.parquet"
    assert str(ConfigError("one\ntwo\x1b")) == "one\ntwo\\x1b", "a line a complaint"


def test_fit_and_evaluate_and_compare_print_plain_text(folder: Path):
    text, log = (folder / "fit.txt").read_text(), (folder / "fit.log").read_text()
    again = isthmus_in_process("evaluate", folder / "r\nün")
    run = folder / "r\nün"
    compared = isthmus_in_process("compare", run, run)
    listed = isthmus_in_process("predict", run, folder / "tä\nble.parquet", "-o", folder / "s\n.p")
    for found in (text, log, again.output, compared.output, listed.output):
        assert_plain(found)
        assert found
    for name in SHOWN:
        for found in (text, again.stdout, compared.stdout):
            assert name[:6] in found, "a table may cut a name"
    assert "der\\x1b[33m/r\\nün" in text
    assert any(line.startswith("run folder: ") for line in text.splitlines()[-3:])
    found = isthmus_in_process("evaluate", folder / "r\nün", "--json", "-").stdout
    assert_plain(found)
    assert set(json.loads(found)["domains"]) == set(NAMES.values())


def test_init_prints_plain_text_and_writes_the_names_as_they_are(folder: Path):
    config = folder / "mi\nne.yaml"
    words = ("--domain", TAB, "--label", "click", "-o", config)
    result = isthmus_in_process("init", folder / "tä\nble.parquet", *words)
    assert result.exit_code == 0, result.output
    assert_plain(result.output)
    for name in (*SHOWN, "t\\nqab\\x1b[32m ", "a\\x9bge\\u2028 ", "tä\\nble.parquet: 3,000 rows"):
        assert name in result.stdout
    assert yaml.safe_load(config.read_text())["data"]["domain"] == TAB
    again = isthmus_in_process("init", folder / "tä\nble.parquet", *words)
    assert_plain(again.output)
    assert "must not exist yet, got" in told(again)


def test_faults_of_every_command_are_plain(folder: Path):
    odd = folder / "no\nne\x1b[31m"
    words = ("--domain", "click\n", "--label", "click", "-o", folder / "x.yaml")
    for command in (
        ("fit", folder / "con\nfig.yaml", "--out", folder / "r\nün"),
        ("fit", folder / "con\nfig.yaml", "--out", folder / "con\nfig.yaml" / "x"),
        ("evaluate", odd),
        ("evaluate", folder / "r\nün", "--json", odd / "x"),
        ("init", odd, *words),
        ("init", folder / "tä\nble.parquet", *words),
        ("predict", folder / "r\nün", odd, "-o", folder / "x.parquet"),
        ("diagnose", folder / "con\nfig.yaml", "--out", folder / "con\nfig.yaml"),
        ("data", "synthetic", "--out", folder / "con\nfig.yaml"),
    ):
        result = isthmus_in_process(*command)
        assert_plain(result.output)
        assert "\n" not in told(result)


def test_a_plan_and_a_diagnosis_are_plain(folder: Path):
    words = ("diagnose", folder / "con\nfig.yaml", "--out", folder / "d", "--level", "quick")
    result = isthmus_in_process(*words, "--jobs", "1", "--dry-run")
    assert result.exit_code == 0, result.output
    assert_plain(result.output)
    for name in SHOWN:
        assert name in result.stdout.splitlines()[0]
    text = json.dumps(examples.example())
    for old, new in zip(("home", "search", "sport"), NAMES.values(), strict=True):
        text = text.replace(f'"{old}"', json.dumps(new))
    found = str(Diagnosis(folder, json.loads(text)))
    assert_plain(found)
    for name in SHOWN:
        assert found.count(name) > 1


def test_progress_and_warnings_are_plain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    show_warning(UserWarning("domain :car: [red]x\nerror: forged\x1b[2J"))
    with ProgressView() as view:
        view(Notice("train", "a :car: [red]\x1b[2J\rb"))
        view(Notice("train", "c\x1b[2J\rd", 0.5))
    plain = capsys.readouterr().err
    assert_plain(plain)
    assert plain.splitlines() == [
        "warning: domain :car: [red]x\\nerror: forged\\x1b[2J",
        "train: a :car: [red]\\x1b[2J\\rb",
        "train:  50% c\\x1b[2J\\rd",
    ]
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ProgressView() as view:
        view(Notice("train", "c\x1b[2J\nd", 0.5))
    colours = capsys.readouterr().err
    assert "c\\x1b[2J\\nd" in colours
    assert "\x1b[2J" not in colours


# A locale without the letters

UTF8_MODE = {"LC_ALL": "C"}
ASCII_NAMES = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ASCII_STREAMS = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"}


def in_locale(locale: dict[str, str], *words: Any) -> tuple[int, str, str]:
    """A command line in a process of its own, as that locale runs it."""
    kept = {name: value for name, value in os.environ.items() if name not in ("LANG", *ASCII_NAMES)}
    done = subprocess.run(
        [*ISTHMUS, *(str(word) for word in words)],
        capture_output=True,
        check=False,
        env={**kept, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", **locale},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture(scope="module")
def lettered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table and a run of it, with letters beyond ASCII in every name."""
    folder = tmp_path_factory.mktemp("letters")
    names = {"home": "Köln", "search": "東京", "mail": "mail"}
    tabs = pa.array([names[name] for name in clicks()["tab"].to_pylist()])
    table = clicks().set_column(clicks().column_names.index("tab"), "täb", tabs)
    pq.write_table(table, folder / "täble.parquet")
    config = settings(epochs=1)
    config["data"] |= {"domain": "täb", "table": "täble.parquet"}
    config["data"]["features"]["täb"] = config["data"]["features"].pop("tab")
    (folder / "cönfig.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(folder / "cache"))
        result = isthmus_in_process("fit", folder / "cönfig.yaml", "--out", folder / "rün")
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize(
    "locale",
    [
        pytest.param(UTF8_MODE, marks=pytest.mark.soak),
        ASCII_NAMES,
        pytest.param(ASCII_STREAMS, marks=pytest.mark.soak),
    ],
)
def test_an_ascii_locale_reads_every_letter(locale: dict[str, str], lettered: Path, tmp_path: Path):
    koeln = "K\\xf6ln" if locale is ASCII_STREAMS else "Köln"
    roles = ("--domain", "täb", "--label", "click", "-o", tmp_path / "cönfig.yaml")
    code, text, log = in_locale(locale, "init", lettered / "täble.parquet", *roles)
    assert (code, log) == (0, "")
    assert koeln in text
    assert yaml.safe_load((tmp_path / "cönfig.yaml").read_text())["data"]["domain"] == "täb"
    code, text, log = in_locale(locale, "evaluate", lettered / "rün", "--json", tmp_path / "ö.json")
    assert (code, log) == (0, "")
    assert koeln in text
    found = json.loads((tmp_path / "ö.json").read_text())
    assert set(found["domains"]) == {"Köln", "東京", "mail"}


def test_json_for_an_ascii_terminal_is_json(lettered: Path):
    code, text, log = in_locale(ASCII_STREAMS, "evaluate", lettered / "rün", "--json", "-")
    assert (code, log) == (0, "")
    assert text.isascii()
    assert set(json.loads(text)["domains"]) == {"Köln", "東京", "mail"}


def test_a_fit_in_an_ascii_locale(lettered: Path, tmp_path: Path):
    config, out = lettered / "cönfig.yaml", tmp_path / "öut"
    code, text, log = in_locale(ASCII_NAMES, "fit", config, "--out", out)
    assert code == 0, log
    assert "東京" in text
    assert (out / "run.json").exists()


def test_scores_are_read_where_names_of_files_are_ascii(folder: Path, tmp_path: Path):
    """From Python, which does not start itself again: a name holds bytes that stand for letters."""
    name = os.fsdecode("rün".encode("latin-1"))
    (tmp_path / name).symlink_to(folder / "r\nün")
    from isthmus.run.scores import read_scores

    scores = read_scores(tmp_path / name / "scores" / "test.parquet")
    assert set(scores.names) == set(NAMES.values())
