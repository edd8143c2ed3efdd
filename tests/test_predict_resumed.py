"""predict is killed, or the disk is full: no half file, and --resume scores only what is left."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

import isthmus
from command_line import isthmus_in_process, told
from isthmus.disk import only_writer
from isthmus.errors import RunError
from small_runs import ROWS, clicks, content, settings

SRC = Path(isthmus.__file__).parents[1]
BLOCK, PIECE = 100, 300  # rows: a piece is written with the third block


def strange() -> pa.Table:
    """Rows of which some name no domain, and some one that was never trained."""
    tabs: list[Any] = clicks()["tab"].to_pylist()
    tabs[::7] = [None] * len(tabs[::7])
    tabs[3], tabs[1_100] = "mars", "mars"
    return clicks().set_column(2, "tab", pa.array(tabs))


class Killer:
    """Predicts in processes of their own, which can be killed."""

    def __init__(self, folder: Path) -> None:
        self.run, self.table = folder / "run", folder / "strange.parquet"
        self.csv = folder / "strange.csv"
        config = settings(epochs=1)
        del config["data"]["features"]["history"]  # CSV has no lists
        config["model"]["detector"] = True
        isthmus.fit(config, clicks(), out=self.run, cache=folder / "cache")
        pq.write_table(strange(), self.table)
        pyarrow.csv.write_csv(strange().drop_columns(["history"]), self.csv)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SRC)}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("predictions_to_kill.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def predict(self, out: Path, **order: Any) -> dict[str, Any]:
        """Order one prediction; the answer says whether it was killed."""
        order = {"run": str(self.run), "table": str(self.table), "out": str(out), **order}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    killer = Killer(tmp_path_factory.mktemp("predict"))
    yield killer
    killer.process.communicate(timeout=60)
    assert killer.process.returncode == 0


@pytest.fixture
def stopped(killer: Killer, tmp_path: Path) -> Path:
    """An output that was killed with two pieces on the disk."""
    out = tmp_path / "stopped" / "out.parquet"
    out.parent.mkdir()
    assert killer.predict(out, kill_scoring=9)["killed"]
    (left,) = out.parent.glob(".out.parquet.part-*")
    left.unlink()
    return out


def pieces(folder: Path) -> dict[str, bytes]:
    return {name: held for name, held in content(folder).items() if not name.endswith(".lock")}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["out.parquet", "out.tsv"])
def test_killed_before_any_renaming_and_resumed(killer: Killer, tmp_path: Path, name: str):
    options = {"detect_domain": "row"} if name == "out.parquet" else {}
    (tmp_path / "whole").mkdir()
    whole = killer.predict(tmp_path / "whole" / name, options=options)
    assert whole["rows"] == whole["scored"] == ROWS
    assert names(tmp_path / "whole") == [name]
    assert len(whole["warned"]) == (1 if name == "out.parquet" else 2)  # of lists, too
    assert "'mars' (2 rows, first in strange.parquet, row 3)" in whole["warned"][-1]
    # what it is about, a piece for each 300 rows, the word that all is written, the output
    assert whole["renames"] == 1 + ROWS // PIECE + 1 + 1
    every = range(1, whole["renames"] + 1)
    for moment in every if options else (3, whole["renames"]):
        folder = tmp_path / f"killed-{moment}"
        folder.mkdir()
        assert killer.predict(folder / name, options=options, kill_at=moment)["killed"]
        assert not (folder / name).exists()
        again = killer.predict(folder / name, options={"resume": True, **options})
        pieces = min(max(0, moment - 2), ROWS // PIECE)
        assert again["scored"] == ROWS - pieces * PIECE
        assert again["warned"] == whole["warned"]
        assert content(folder) == content(tmp_path / "whole"), moment


def test_killed_again_and_again_while_it_scores(killer: Killer, tmp_path: Path):
    """Two tables, of Parquet and of CSV; each attempt gets four blocks further, and a piece is kept."""
    for table in (killer.table, killer.csv):
        folder = tmp_path / table.suffix
        (folder / "whole").mkdir(parents=True)
        (folder / "killed").mkdir()
        killer.predict(folder / "whole" / "out.csv", table=str(table))
        order = {
            "out": folder / "killed" / "out.csv",
            "table": str(table),
            "options": {"resume": True},
        }
        for _ in range(3):
            assert killer.predict(**order, kill_scoring=5)["killed"], order
        assert killer.predict(**order)["scored"] == ROWS - 3 * PIECE
        assert content(folder / "killed") == content(folder / "whole")


def test_where_the_disk_is_full_what_is_scored_stays(killer: Killer, tmp_path: Path):
    (tmp_path / "whole").mkdir()
    killer.predict(tmp_path / "whole" / "out.csv")
    size = (tmp_path / "whole" / "out.csv").stat().st_size
    out = tmp_path / "full" / "out.csv"
    out.parent.mkdir()
    fault = killer.predict(out, limit=size * 2 // 3)["fault"]
    assert fault == (
        f"{out} must be a file that can be written, got: File too large; --resume goes on after"
        " what is scored"
    )
    assert names(out.parent) == [".out.csv.unfinished"]
    again = killer.predict(out, options={"resume": True})
    assert again["fault"] is None
    assert again["scored"] <= ROWS - 2 * PIECE
    assert content(out.parent) == content(tmp_path / "whole")


def test_a_disk_that_is_full_at_once_leaves_nothing(killer: Killer, tmp_path: Path):
    fault = killer.predict(tmp_path / "out.csv", limit=4_000)["fault"]
    assert (
        fault == f"{tmp_path / 'out.csv'} must be a file that can be written, got: File too large"
    )
    assert names(tmp_path) == []


def test_another_table_bundle_or_option_is_refused_by_name(
    killer: Killer, stopped: Path, tmp_path: Path
):
    def refused(**order: Any) -> str:
        before = pieces(stopped.parent)
        options = {"resume": True, **order.pop("options", {})}
        fault = killer.predict(stopped, options=options, **order)["fault"]
        assert pieces(stopped.parent) == before
        begin = "a prediction must go on with the "
        assert fault.startswith(begin)
        assert fault.endswith(f" for {stopped}; without --resume it begins again")
        return fault.removeprefix(begin).split(" that it began with")[0]

    changed = tmp_path / "strange.parquet"
    pq.write_table(strange().slice(0, ROWS - 1), changed)
    assert refused(table=str(changed)) == "table"
    shutil.copytree(killer.run, tmp_path / "run")
    bundle = isthmus.Bundle.load(tmp_path / "run" / "bundle")
    with torch.no_grad():
        bundle.model.get_parameter("head.bias").add_(1)
    bundle.save(tmp_path / "run" / "bundle")
    assert refused(run=str(tmp_path / "run")) == "bundle"
    assert refused(options={"detect_domain": "row"}) == "detect_domain"
    about = stopped.parent / ".out.parquet.unfinished" / "about.json"
    whole = about.read_text()
    about.write_text(json.dumps(json.loads(whole) | {"libraries": {"torch": "1.0"}}))
    assert refused() == "libraries"
    about.write_text(whole)
    # The same table elsewhere is the same table, and a call without resume begins again.
    shutil.copy2(killer.table, changed)
    assert killer.predict(stopped, table=str(changed))["scored"] == ROWS


def test_the_command_goes_on(
    killer: Killer, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ("predict", killer.run, killer.table, "-o", stopped, "--resume")
    # Blocks of another size would have other last bits.
    assert "must come in the blocks that were scored" in told(isthmus_in_process(*words))
    monkeypatch.setattr("isthmus.bundle.served.BLOCK_ROWS", BLOCK)
    damaged = stopped.parent / ".out.parquet.unfinished" / "1.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    assert f"{damaged} must hold scored rows, but it is damaged" in told(isthmus_in_process(*words))
    damaged.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = isthmus_in_process(*words)
    assert result.exit_code == 0, result.output
    assert "warning: column 'tab' holds domains that were never trained" in result.stderr
    assert "600 of 1,200 rows were scored before" in result.stderr
    assert f"wrote {ROWS:,} rows with their score to {stopped}" in result.stdout
    killer.predict(tmp_path / "whole.parquet")
    assert stopped.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_killed_when_all_is_written_it_has_nothing_left_to_do(killer: Killer, stopped: Path):
    folder = stopped.parent / ".out.parquet.unfinished"
    stopped.write_bytes(b"a file of somebody else")
    assert "must not exist yet" in killer.predict(stopped, options={"resume": True})["fault"]
    (folder / "ended").touch()
    again = killer.predict(stopped, options={"resume": True})
    assert (again["rows"], again["scored"]) == (ROWS, 0)
    assert names(stopped.parent) == ["out.parquet"]


def test_two_processes_do_not_write_one_output(killer: Killer, stopped: Path):
    before = pieces(stopped.parent)
    with (
        only_writer(stopped.parent / ".out.parquet.unfinished"),
        pytest.raises(RunError, match=f"must have one writer at a time, and process {os.getpid()}"),
    ):
        isthmus.Run.open(killer.run).predict_to(killer.table, stopped)
    assert pieces(stopped.parent) == before
