"""Speed and memory of the data part: encoding a Parquet table, and reading it back to train.

``python -m bench.data`` prints both; ``--memory`` encodes 10 and 20 million rows in processes of
their own and prints the peak of their anonymous memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isthmus.data import Dataset
from isthmus.schema import DataConfig

ROWS = 3_000_000
BATCH_ROWS = 4096
REPEATS = 5

INTEGERS = (1_000_000, 200_000, 50_000, 1000, 100, 10)
TEXTS = (100_000, 500)


def zipf(random: np.random.Generator, rows: int, values: int) -> np.ndarray:
    """Numbers below ``values`` whose frequencies fall as 1 / rank, in no order of size."""
    chance = np.cumsum(1 / np.arange(1, values + 1))
    rank = np.searchsorted(chance, random.random(rows) * chance[-1])
    return np.random.default_rng(values).permutation(values)[np.minimum(rank, values - 1)]


def write_table(path: Path, rows: int, *, seed: int = 0, chunk: int = 1 << 20) -> None:
    """The table that is measured: Zipf integers and texts, two numbers, a domain and a label."""
    random = np.random.default_rng(seed)
    words = {n: pa.array([f"value-{i:08d}" for i in range(n)]) for n in TEXTS}
    writer = None
    for start in range(0, rows, chunk):
        size = min(chunk, rows - start)
        columns: dict[str, Any] = {f"int_{n}": zipf(random, size, n) for n in INTEGERS}
        columns |= {f"text_{n}": words[n].take(pa.array(zipf(random, size, n))) for n in TEXTS}
        columns |= {"x": random.normal(size=size), "y": random.exponential(size=size)}
        columns |= {"domain": zipf(random, size, 20), "label": random.integers(0, 2, size)}
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def config(path: Path) -> DataConfig:
    """Every column of the table in its role."""
    features: dict[str, Any] = {f"int_{n}": "categorical" for n in INTEGERS}
    features |= {f"text_{n}": "categorical" for n in TEXTS}
    features |= {"x": "numeric", "y": {"kind": "numeric", "scale": "log"}}
    given = {"table": str(path), "domain": "domain", "label": "label", "features": features}
    return DataConfig.model_validate(given)


def timed(work: Callable[[], int], repeats: int) -> dict[str, float]:
    """Median rows/s, and rows/s of processor time, which other work on the machine hardly moves."""
    wall, processor = [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        rows = work()
        wall.append(rows / (time.perf_counter() - start))
        processor.append(rows / (time.process_time() - busy))
    return {
        "rows_per_second": statistics.median(wall),
        "rows_per_processor_second": statistics.median(processor),
    }


def encoding(rows: int = ROWS, repeats: int = REPEATS) -> dict[str, float]:
    """Encode the table from Parquet to disk: both passes, validation and writing; no cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        write_table(path, rows)

        def work() -> int:
            with tempfile.TemporaryDirectory(dir=folder) as cache:
                Dataset.from_table(config(path), cache=cache)
            return rows

        return {"rows": rows, "goal": 1e6} | timed(work, repeats)


def reading(rows: int = ROWS, repeats: int = REPEATS) -> dict[str, float]:
    """Read shuffled train batches of 4096 as tensors, a new epoch each time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        write_table(path, rows)
        train = Dataset.from_table(config(path), cache=Path(folder) / "cache").rows("train")
        epochs = iter(range(repeats))

        def work() -> int:
            batches = train.batches(BATCH_ROWS, seed=0, epoch=next(epochs))
            return sum(batch.rows for batch in batches)

        return {"rows": len(train), "goal": 3e6} | timed(work, repeats)


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status must have RssAnon, got none")


def encoding_peak(path: str, cache: str) -> int:
    """Peak of the anonymous memory while a table is encoded and one epoch is read, in bytes."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        rows = Dataset.from_table(config(Path(path)), cache=cache).rows("train")
        for _ in rows.batches(BATCH_ROWS, seed=0):
            pass
    finally:
        done.set()
        thread.join()
    return peak


def memory(sizes: tuple[int, ...] = (10_000_000, 20_000_000)) -> dict[str, float]:
    """Peak anonymous memory in MiB for tables of these sizes with the same vocabularies."""
    found: dict[str, float] = {}
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.parquet"
            write_table(path, rows)
            code = f"from bench.data import encoding_peak; print(encoding_peak({str(path)!r}, {folder!r}))"
            done = subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True
            )
            found[str(rows)] = int(done.stdout) / 2**20
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    results: dict[str, Any] = {
        "encoding": encoding(given.rows, given.repeats),
        "reading": reading(given.rows, given.repeats),
    }
    if given.memory:
        results["memory_mib"] = memory()
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
