"""Number 5: speed of encoding and reading, and the memory of a whole fit. ``-m bench.data``."""

import argparse
import json
import shutil
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
import yaml

from bench.measure import RUNS, Row, alternate, at_least, at_most
from isthmus.data import Dataset
from isthmus.schema import DataConfig

ROWS = 3_000_000
LARGE = 10_000_000  # and twice that
BATCH_ROWS = 4096

INTEGERS = (1_000_000, 200_000, 50_000, 1000, 100, 10)
TEXTS = (100_000, 500)
MIB = 2**20


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


def section(path: Path) -> dict[str, Any]:
    """The data section with every column of the table in its role."""
    features: dict[str, Any] = {f"int_{n}": "categorical" for n in INTEGERS}
    features |= {f"text_{n}": "categorical" for n in TEXTS}
    features |= {"x": "numeric", "y": {"kind": "numeric", "scale": "log"}}
    return {"table": str(path), "domain": "domain", "label": "label", "features": features}


def speed(folder: Path, rows: int = ROWS, runs: int = RUNS) -> list[Row]:
    """Encode from Parquet to disk, and read shuffled train batches as tensors."""
    path = folder / "speed.parquet"
    write_table(path, rows)
    config = DataConfig.model_validate(section(path))
    cache = folder / "speed-cache"

    def encode() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        Dataset.from_table(config, cache=cache)

    encoding = alternate({"encode": encode}, runs)["encode"]
    train = Dataset.from_table(config, cache=cache).rows("train")
    epochs = iter(range(runs + 1))

    def read() -> None:
        for _ in train.batches(BATCH_ROWS, seed=0, epoch=next(epochs)):
            pass

    reading = alternate({"read": read}, runs)["read"]
    return [
        at_least(
            "5 encoding, million rows/s, both passes and validation",
            rows / encoding / 1e6,
            1.0,
            rows=f"{rows:,}",
            seconds=f"{encoding:.2f}",
        ),
        at_least(
            "5 reading to train, million rows/s",
            len(train) / reading / 1e6,
            3.0,
            rows=f"{len(train):,}",
            seconds=f"{reading:.3f}",
        ),
    ]


def own_bytes(process: int) -> int:
    """Memory of one process that no file stands behind (Linux); 0 where it has ended."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended while it was looked at
    return 0


def children(process: int) -> list[int]:
    """Children of a process that live now (Linux)."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(number) for number in text.split()]


def anonymous_bytes(process: int) -> int:
    """Memory of a process and its children that no file stands behind."""
    return own_bytes(process) + sum(map(anonymous_bytes, children(process)))


def fit_peak(folder: Path, table: Path, data: dict[str, Any] | None = None) -> tuple[int, float]:
    """Peak anonymous bytes and seconds of a fit in a process of its own: encoding, one epoch.

    ``data``: the data section, by default that of `section`.
    """
    config = {
        "data": data or section(table),
        "model": {"backbone": {"name": "mlp", "widths": [64, 32]}},
        "train": {"epochs": 1, "batch_rows": 16_384, "looks_per_epoch": 1},
    }
    place = Path(tempfile.mkdtemp(dir=folder))
    file = place / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    code = (
        "import sys, isthmus;"
        "isthmus.fit(sys.argv[1], out=sys.argv[2], cache=sys.argv[3]).evaluate()"
    )
    start, peak = time.perf_counter(), 0
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(file), str(place / "run"), str(place / "cache")]
    )
    while child.poll() is None:
        peak = max(peak, anonymous_bytes(child.pid))
        time.sleep(0.02)
    if child.returncode:
        raise RuntimeError(f"fit must succeed, got exit code {child.returncode}")
    seconds = time.perf_counter() - start
    shutil.rmtree(place)
    return peak, seconds


def memory(folder: Path, rows: int = LARGE) -> list[Row]:
    """Peak of a whole fit on ``rows`` rows and on the same table twice over."""
    once, twice = folder / "once", folder / "twice"
    for place in (once, twice):
        place.mkdir()
    write_table(once / "part-0.parquet", rows)
    for part in range(2):
        (twice / f"part-{part}.parquet").hardlink_to(once / "part-0.parquet")
    # What encoding leaves with its allocators differs by some 40 MiB from one process to the next.
    turns = [(*fit_peak(folder, once), *fit_peak(folder, twice)) for _ in range(RUNS)]
    medians = [statistics.median(values) for values in zip(*turns, strict=True)]
    small, small_seconds, large, large_seconds = medians
    return [
        at_most(
            f"5 peak memory of fit on {2 * rows:,} rows, GiB",
            large / 2**30,
            2.0,
            peak=f"{large / MIB:,.0f} MiB",
            seconds=f"{large_seconds:.0f}",
        ),
        at_most(
            f"5 peak memory of fit, {2 * rows:,} rows / {rows:,}",
            large / small,
            1.1,
            small=f"{small / MIB:,.0f} MiB",
            seconds=f"{small_seconds:.0f}",
        ),
    ]


def everything(folder: Path) -> list[Row]:
    """Number 5."""
    return speed(folder) + memory(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--large", type=int, default=LARGE)
    parser.add_argument("--only", choices=["speed", "memory"])
    given = parser.parse_args()
    lines: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "memory":
            lines += speed(Path(folder), given.rows)
        if given.only != "speed":
            lines += memory(Path(folder), given.large)
    print(json.dumps([line.to_dict() for line in lines], indent=2))


if __name__ == "__main__":
    main()
