"""The cache of datasets: encoded once, whole or not at all, whoever else writes or is killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus.data import Dataset, cache_folder
from isthmus.data.store import cache, passes
from isthmus.data.store.dataset import dataset_key
from isthmus.errors import BundleError, IsthmusError
from small_datasets import ROWS, clicks, config, left_behind, stored


@pytest.fixture
def table() -> pa.Table:
    return clicks()


def test_a_table_is_encoded_once(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    stages = []
    first = Dataset.from_table(config(), path, progress=lambda *note: stages.append(note))
    assert stages[-1] == ("encode", ROWS, ROWS)
    monkeypatch.setattr(passes, "build", None)
    again = Dataset.from_table(config(table=str(path)))
    assert again.folder == first.folder == cache_folder() / "datasets" / first.key
    assert again.config == first.config
    monkeypatch.chdir(tmp_path)
    assert Dataset.from_table(config(table="a.parquet")).key == first.key


def test_the_key_follows_config_and_content(table: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    keys = {
        Dataset.from_table(config(), path).key,
        Dataset.from_table(config(split={"seed": 1}), path).key,
        Dataset.from_table(config(), path, verify_content=True).key,
        Dataset.from_table(config(), table).key,
    }
    pq.write_table(clicks(seed=1), path)
    keys.add(Dataset.from_table(config(), path).key)
    assert len(keys) == 5


def test_a_damaged_dataset_says_so_and_is_encoded_anew(table: pa.Table) -> None:
    dataset = Dataset.from_table(config(), table)
    want = stored(dataset)
    for name in ("train/categorical.npy", "encoder/encoder.json", "meta.json"):
        path = dataset.folder / name
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(BundleError, match="dataset"):
            Dataset.open(dataset.folder)
        assert stored(Dataset.from_table(config(), table)) == want
    with pytest.raises(BundleError, match="must be whole, got none"):
        Dataset.open(dataset.folder.parent / "nothing")


def test_the_cache_lists_and_clears(table: pa.Table, tmp_path: Path) -> None:
    assert cache.entries() == []
    assert cache.clear() == 0
    path = tmp_path / "clicks.parquet"
    pq.write_table(table, path)
    dataset = Dataset.from_table(config(), path)
    (entry,) = cache.entries()
    assert (entry.key, entry.rows, entry.table) == (dataset.key, ROWS, str(path))
    assert entry.size > ROWS * 20
    assert str(path) in str(entry)
    assert cache.clear() == 1
    assert cache.entries() == []
    assert len(dataset.rows("train").label) > 0  # what is mapped stays readable


def test_an_opened_dataset_is_the_one_that_was_written(table: pa.Table) -> None:
    dataset = Dataset.from_table(config(), table)
    again = Dataset.open(dataset.folder)
    assert stored(again) == stored(dataset)
    assert again.encoder.fields == dataset.encoder.fields
    assert again.summary() == dataset.summary()
    assert again.key == dataset.key
    with pytest.raises(ValueError, match="split must be one of"):
        again.rows("holdout")  # type: ignore[arg-type]


def test_a_dataset_of_another_version_says_so(
    table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.from_table(config(), table)
    monkeypatch.setattr(passes, "VERSION", 99)
    with pytest.raises(BundleError, match="of version 99, got 4"):
        Dataset.open(dataset.folder)
    assert dataset_key(config(), ()) != dataset.key


def test_an_unwritable_cache_is_a_clear_error(table: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IsthmusError, match="the cache must have room"):
        Dataset.from_table(config(), table, cache=tmp_path / "file")


# ---------------------------------------------------------------- other processes


ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)]),
    "OMP_NUM_THREADS": "1",
}


def script(code: str) -> list[str]:
    start = "from small_datasets import *\n"
    return [sys.executable, "-c", start + textwrap.dedent(code)]


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


SLOW = """
    import time
    mark = pathlib.Path({mark!r})
    def slow(stage, done, rows):
        if stage == "encode" and done > rows // 2:
            mark.touch()
            time.sleep({seconds})
    Dataset.from_table(config(), {path!r}, block_rows=100, progress=slow)
"""


def start_slow_writer(path: Path, mark: Path, seconds: float) -> subprocess.Popen:
    code = "    import pathlib\n" + SLOW.format(mark=str(mark), path=str(path), seconds=seconds)
    process = subprocess.Popen(script(code), env=os.environ | ENVIRONMENT)
    wait_for(mark)
    return process


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(table: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    code = f"""
        import resource, signal
        from isthmus.errors import IsthmusError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            Dataset.from_table(config(), {str(path)!r})
        except IsthmusError as fault:
            assert type(fault) is IsthmusError, fault
            assert "the cache must have room" in str(fault), fault
            assert "File too large" in str(fault), fault
        else:
            raise AssertionError("no error")
    """
    # Python would cut its own compiled files short, for every later process.
    unwritten = {"PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(script(code), env=os.environ | ENVIRONMENT | unwritten, check=True, timeout=60)
    assert left_behind() == []


def test_a_killed_writer_leaves_a_cache_that_the_next_one_cleans(
    table: pa.Table, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    process = start_slow_writer(path, tmp_path / "mark", 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (half,) = left_behind()
    assert half.endswith(".tmp")
    assert cache.entries() == []
    Dataset.from_table(config(), clicks(seed=1))  # any other writer removes what is stale
    assert half not in left_behind()
    dataset = Dataset.from_table(config(), path)
    assert sorted(left_behind()) == sorted(entry.key for entry in cache.entries())
    assert stored(dataset) == stored(Dataset.from_table(config(), table))


def test_a_second_process_waits_and_uses_what_the_first_wrote(
    table: pa.Table, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    process = start_slow_writer(path, tmp_path / "mark", 0.1)
    assert cache.clear() == 0  # nobody takes away what is being written
    stages: list[str] = []
    dataset = Dataset.from_table(config(), path, progress=lambda stage, *_: stages.append(stage))
    assert process.wait() == 0
    assert stages == []
    assert len(dataset.rows("train")) > 0
