"""The score log: whole lines of whole requests, from several processes, over full files and disks."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.bundle.profile import Profile
from isthmus.bundle.validation_profile import measure_profile
from isthmus.data.store.arrays import Arrays
from isthmus.errors import RunError
from isthmus.metrics import ScoredRows
from isthmus.monitoring import ScoreLog, read_score_log
from isthmus.monitoring.logged_rows import log_files

TIME = 1_795_858_200.25  # 2026-11-28T09:30:00.250Z


def write(log: ScoreLog, request: str, rows: int = 1, **more: object) -> None:
    given = {
        "domains": ["home"] * rows,
        "scores": np.linspace(0.1, 0.9, rows),
        "bundle": "b1",
        "time": TIME,
    }
    log.write(request, **{**given, **more})  # type: ignore[arg-type]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def profile() -> Profile:
    rng = np.random.default_rng(0)
    domain = np.repeat([1, 2], 60)
    empty = np.zeros((120, 0), np.float32)
    label = rng.random(120) < 0.4
    arrays = Arrays(empty.astype(np.int32), empty, (), domain, label.astype(np.float32), None)
    scored = ScoredRows(
        split="validation",
        row=np.arange(120),
        logits=rng.normal(size=120),
        label=label,
        domain=domain,
        names=("home", "search"),
    )
    return measure_profile([], arrays, scored)


def test_one_line_a_row(tmp_path: Path):
    log = ScoreLog(tmp_path / "log")
    write(log, 'r "1"', 2, domains=["küche", None], scores=np.array([0.25, 1 / 3]))
    assert lines(tmp_path / "log") == [
        {
            "time": "2026-11-28T09:30:00.250Z",
            "id": 'r "1"',
            "row": row,
            "domain": domain,
            "score": score,
            "bundle": "b1",
        }
        for row, (domain, score) in enumerate([("küche", 0.25), (None, 0.333333333)])
    ]
    write(log, "r2", 2, row_ids=["x", "\ud800"])
    assert [(line["id"], line["row"]) for line in lines(tmp_path / "log")[2:]] == [
        ("x", 0),
        ("?", 1),
    ]


def test_values_are_written_only_where_they_were_asked_for(tmp_path: Path):
    values = {"user": [7, None], "price": [float("nan"), 2.5]}
    write(ScoreLog(tmp_path / "plain"), "r", 2, values=values)
    write(ScoreLog(tmp_path / "full", values=True), "r", 2, values=values)
    assert all("values" not in line for line in lines(tmp_path / "plain"))
    assert [line["values"] for line in lines(tmp_path / "full")] == [
        {"user": 7, "price": None},
        {"user": None, "price": 2.5},
    ]
    plain, full = (read_score_log(tmp_path / name).frame for name in ("plain", "full"))
    assert plain.equals(full)


def test_the_sample_takes_whole_requests_and_the_same_everywhere(tmp_path: Path):
    log, other = (ScoreLog(tmp_path / name, sample=0.25) for name in "ab")
    ids = [f"request {number}" for number in range(2_000)]
    for name in ids:
        write(log, name, 3)
        write(other, name, 1)
    rows = Counter(line["id"] for line in lines(tmp_path / "a"))
    assert set(rows.values()) == {3}
    assert 430 < len(rows) < 570  # 500 are a quarter; 3.6 standard deviations
    assert set(rows) == {line["id"] for line in lines(tmp_path / "b")}
    assert set(rows) == {name for name in ids if log.takes(name)}


def test_full_files_are_turned_and_the_oldest_goes(tmp_path: Path):
    log = ScoreLog(tmp_path / "log", max_bytes=500, kept=2)
    for number in range(40):
        write(log, f"r{number:02}", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2", "log.lock"]
    assert [path.name for path in log_files(tmp_path / "log")] == ["log.2", "log.1", "log"]
    assert all(path.stat().st_size <= 500 for path in log_files(tmp_path / "log"))
    found = read_score_log(tmp_path / "log")
    names = found.frame["id"].to_list()
    assert names == sorted(names)
    assert names[-2:] == ["r39", "r39"]
    assert len(names) == 12
    write(log, "long", 30)  # a request is never cut, whatever its size
    write(log, "next")
    assert Counter(read_score_log(tmp_path / "log").frame["id"].to_list())["long"] == 30


def test_the_baseline_stands_at_the_head_of_every_file(tmp_path: Path, profile: Profile):
    log = ScoreLog(tmp_path / "log", max_bytes=2_000, kept=3)
    log.describe("b1", profile)
    for number in range(60):
        write(log, f"r{number}", 2)
    for path in log_files(tmp_path / "log"):
        assert lines(path)[0]["baseline"] == profile.baseline()
    log.describe("b2", profile)
    write(log, "r", bundle="b2")
    found = read_score_log(tmp_path / "log")
    assert found.torn == 0
    assert set(found.baselines) == {"b1", "b2"}
    assert found.baselines["b2"]["search"]["auc"] == pytest.approx(profile.auc[2])
    log.describe("b3", None)
    for number in range(60):
        write(log, f"r{number}", 2, bundle="b3")
    assert read_score_log(tmp_path / "log").baselines == {}


WRITER = """
import sys
import numpy as np
from isthmus.monitoring import ScoreLog
path, who, requests = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = ScoreLog(path, max_bytes=20_000, kept=1_000)
for number in range(requests):
    log.write(f"{who}-{number}", domains=["home"] * 7, scores=np.full(7, .5), bundle="b", time=number)
assert log.lost == 0
"""


def start(path: Path, who: str, requests: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", WRITER, str(path), who, str(requests)]
    return subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_two_processes_write_and_turn_one_log_and_lose_nothing(tmp_path: Path):
    writers = [start(tmp_path / "log", who, 600) for who in ("a", "b")]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    found = read_score_log(tmp_path / "log")
    assert found.torn == 0
    rows = Counter(found.frame["id"].to_list())
    assert rows == {f"{who}-{number}": 7 for who in "ab" for number in range(600)}
    assert len(log_files(tmp_path / "log")) > 20


def test_a_file_grows_past_its_bound_only_while_another_process_turns_the_files(tmp_path: Path):
    log = ScoreLog(tmp_path / "log", max_bytes=500, kept=9)
    write(log, "r0", 4)
    with (tmp_path / "log.lock").open("w") as turning:
        fcntl.flock(turning, fcntl.LOCK_EX)
        for number in range(1, 6):
            write(log, f"r{number}", 4)
    assert [path.name for path in log_files(tmp_path / "log")] == ["log"]
    assert (tmp_path / "log").stat().st_size > 2_000
    write(log, "r6", 4)
    assert [path.name for path in log_files(tmp_path / "log")] == ["log.1", "log"]
    assert {line["id"] for line in lines(tmp_path / "log")} == {"r6"}
    found = read_score_log(tmp_path / "log")
    assert Counter(found.frame["id"].to_list()) == {f"r{number}": 4 for number in range(7)}
    assert log.lost == found.torn == 0


def test_a_log_is_read_whole_while_it_is_written_and_after_a_kill(tmp_path: Path):
    writer = start(tmp_path / "log", "a", 10**9)
    while not (tmp_path / "log.5").exists():
        assert writer.poll() is None
    try:
        for _ in range(4):
            found = read_score_log(tmp_path / "log")
            numbers = found.frame["id"].unique(maintain_order=True).str.slice(2).cast(pl.Int64)
            np.testing.assert_array_equal(numbers.to_numpy(), np.arange(len(numbers)))
            assert found.torn <= 1
    finally:
        writer.kill()
        writer.wait(timeout=60)
    found = read_score_log(tmp_path / "log")
    assert found.torn <= 7
    counts = Counter(found.frame["id"].to_list())
    assert set(list(counts.values())[:-1]) == {7}
    write(ScoreLog(tmp_path / "log"), "after")
    assert read_score_log(tmp_path / "log").frame["id"].to_list()[-1] == "after"


def test_a_full_disk_loses_rows_tells_it_once_and_fails_no_request(tmp_path: Path):
    told: list[str] = []
    log = ScoreLog(tmp_path / "log", tell=told.append)
    write(log, "first", 2)
    size = (tmp_path / "log").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 150, limits[1]))
        write(log, "second", 3)  # only a part of it has room
        write(log, "third", 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert log.lost == 5
    assert len(told) == 1
    assert "rows are lost: File too large" in told[0]
    write(log, "fourth", 2)
    found = read_score_log(tmp_path / "log")
    assert found.torn == 1
    assert found.frame["id"].to_list() == ["first"] * 2 + ["second"] + ["fourth"] * 2
    assert log.lost == 5


def test_a_file_that_was_taken_away_is_made_again(tmp_path: Path):
    log = ScoreLog(tmp_path / "log")
    write(log, "a")
    (tmp_path / "log").rename(tmp_path / "away")
    write(log, "b")
    log.close()
    write(log, "c")
    assert read_score_log(tmp_path / "log").frame["id"].to_list() == ["b", "c"]


@given(cut=st.integers(0, 400), junk=st.sampled_from([b"", b"\0\0", b"[1]\n", b'{"row": "x"}\n']))
def test_a_torn_line_takes_no_other_with_it(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
):
    path = tmp_path_factory.mktemp("torn") / "log"
    log = ScoreLog(path)
    for number in range(3):
        write(log, f"r{number}")
    log.close()
    whole = path.read_bytes()
    kept = whole[: len(whole) - cut]
    path.write_bytes(junk + kept)
    found = read_score_log(path)
    complete = kept.count(b"\n") + (kept.endswith(b"}"))
    if junk == b"\0\0":
        complete = max(complete - 1, 0)  # it stands before the first line, and on it
    assert (
        found.frame["id"].to_list()
        == [f"r{number}" for number in range(3)][-3:][(1 if junk == b"\0\0" else 0) :][:complete]
    )
    torn = (len(kept) > 0 and not kept.endswith((b"}", b"\n"))) + bool(junk)
    assert found.torn in (torn, min(torn, 1))


def test_lines_that_no_server_wrote_are_counted(tmp_path: Path):
    log = ScoreLog(tmp_path / "log")
    write(log, "a")
    good = (tmp_path / "log").read_text()
    bad = [
        good.replace("0.1", "7.5"),
        good.replace("0.1", "true, "),
        good.replace("2026-11-28T09", "yesterday"),
        good.replace('"row":0', f'"row":{10**30}'),
        '{"baseline": 3}\n',
        "[]\n",
    ]
    assert all(line != good for line in bad)
    for line in bad:  # each alone, and all together
        (tmp_path / "log").write_text(line + good)
        found = read_score_log(tmp_path / "log")
        assert (len(found.frame), found.torn) == (1, 1), line
    (tmp_path / "log").write_text("".join([*bad, good]))
    found = read_score_log(tmp_path / "log")
    assert (len(found.frame), found.torn) == (1, len(bad))


def test_what_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match=r"score log .* cannot be written: No such file"):
        ScoreLog(tmp_path / "none" / "log")
    with pytest.raises(ValueError, match="sample must be above 0 and at most 1, got 0"):
        ScoreLog(tmp_path / "log", sample=0)
    with pytest.raises(ValueError, match="must be at least 1, got 10 and 0"):
        ScoreLog(tmp_path / "log", max_bytes=10, kept=0)
    with pytest.raises(RunError, match="a score log must exist, got none at"):
        read_score_log(tmp_path / "log")
