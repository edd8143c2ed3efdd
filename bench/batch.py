"""Number 12: speed and memory of ``isthmus predict`` on a table far larger than memory. ``-m bench.batch``.

The shared MLP with widths [256, 128] over four categorical columns of 16 numbers each and one number, in
20 domains, trained on 300,000 rows. The table to score has six columns; it and the output are Parquet. A
turn is one command, from the start of Python to the output under its name.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import isthmus
from bench.data import MIB, anonymous_bytes, zipf
from bench.measure import RUNS, Row, at_least, at_most

ROWS = 20_000_000
TRAIN_ROWS = 300_000
CATEGORIES = {"user": 1_000_000, "item": 50_000, "city": 500, "domain": 20}
COMMAND = "from isthmus.cli import app; app(prog_name='isthmus')"


def write_table(path: Path, rows: int, *, seed: int, chunk: int = 1 << 20) -> None:
    """Zipf integers and texts, a number and a label, written piece by piece."""
    random = np.random.default_rng(seed)
    words = pa.array([f"city-{i:03d}" for i in range(CATEGORIES["city"])])
    writer = None
    for start in range(0, rows, chunk):
        size = min(chunk, rows - start)
        columns: dict[str, Any] = {name: zipf(random, size, n) for name, n in CATEGORIES.items()}
        columns["city"] = words.take(pa.array(columns["city"]))
        columns |= {"x": random.normal(size=size), "label": random.integers(0, 2, size)}
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def fit(folder: Path) -> Path:
    """The run whose bundle scores."""
    write_table(folder / "train.parquet", TRAIN_ROWS, seed=0)
    features = {**dict.fromkeys(CATEGORIES, "categorical"), "x": "numeric"}
    data = {"table": str(folder / "train.parquet"), "domain": "domain", "label": "label"}
    config = {
        "data": data | {"features": features},
        "model": {"backbone": {"name": "mlp", "widths": [256, 128]}},
        "train": {"epochs": 1},
    }
    return isthmus.fit(config, out=folder / "run", cache=folder / "cache").path


def predict(run: Path, table: Path, output: Path) -> tuple[float, int]:
    """Seconds and peak anonymous bytes of one command."""
    output.unlink(missing_ok=True)
    start, peak = time.perf_counter(), 0
    words = [sys.executable, "-c", COMMAND, "predict", str(run), str(table), "-o", str(output)]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None:
        peak = max(peak, anonymous_bytes(child.pid))
        time.sleep(0.02)
    if child.returncode:
        raise RuntimeError(f"predict must succeed, got exit code {child.returncode}")
    return time.perf_counter() - start, peak


def everything(folder: Path, rows: int = ROWS, runs: int = RUNS) -> list[Row]:
    """Number 12."""
    folder = folder / "batch"
    folder.mkdir(exist_ok=True)
    run, table = fit(folder), folder / "table.parquet"
    write_table(table, rows, seed=1)
    turns = [predict(run, table, folder / "scored.parquet") for _ in range(runs)]
    seconds, peak = (statistics.median(values) for values in zip(*turns, strict=True))
    threads = f"{torch.get_num_threads()}"
    return [
        at_least(
            "12 predict, shared MLP, thousand rows/s",
            rows / seconds / 1e3,
            200.0,
            rows=f"{rows:,}",
            seconds=f"{seconds:.1f} from the start of the command to the output, median of {runs}",
            threads=threads,
        ),
        at_most(
            "12 predict, peak anonymous memory, GiB",
            peak / 2**30,
            1.0,
            rows=f"{rows:,}",
            peak=f"{peak / MIB:,.0f} MiB",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = everything(Path(folder), given.rows, given.runs)
    print(json.dumps([line.to_dict() for line in lines], indent=2))


if __name__ == "__main__":
    main()
