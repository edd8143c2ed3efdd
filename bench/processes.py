"""Number 16: one training by two processes of one thread, beside one process of two threads.

Both take the same steps: the batch is that of all processes together. The bytes are those that went over
the loopback device while the two processes were at work, looks and start included.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from bench.measure import Row, at_least, informative
from isthmus.sources.planted import angles, planted

ROWS = 100_000  # of each of two domains
TURNS = 3
BATCH = 4096
WAYS: Mapping[str, tuple[int, int]] = {"two processes": (2, 1), "one process": (1, 2)}


def everything(folder: Path) -> list[Row]:
    """All of number 16."""
    place = folder / "processes"
    place.mkdir(exist_ok=True)
    config = _config(place)
    _fit(config, place / f"warm-up-{os.getpid()}", 1, 2)  # encodes the table
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    sent: list[float] = []
    run: dict[str, Any] = {}
    for turn in range(TURNS):
        for way, (processes, threads) in WAYS.items():
            before = _loopback()
            run = _fit(config, place / f"{way}-{os.getpid()}-{turn}", processes, threads)
            if processes > 1:
                sent.append((_loopback() - before) / run["steps"] / processes)
            rates[way].append(run["steps"] * BATCH / run["seconds"])
    two, one = (statistics.median(rates[way]) for way in WAYS)
    # Gloo sums in a ring: a process sends each of its 4-byte numbers 2 (n - 1) / n times, once for two.
    formula = 4.0 * run["parameters"]
    measured = statistics.median(sent)
    return [
        at_least(
            "16 rows/s of two processes with one thread / one process with two threads",
            two / one,
            0.8,
            two_processes=f"{two:,.0f}",
            one_process=f"{one:,.0f}",
        ),
        informative(
            "16 bytes that each of two processes sends in a step / dense gradients by the formula",
            measured / formula,
            sent=f"{measured:,.0f}",
            formula=f"{formula:,.0f}",
        ),
    ]


def _config(place: Path) -> Path:
    made = planted(rows=[ROWS, ROWS], relation=angles([0, 60]), seed=1)
    pq.write_table(made.table, place / "table.parquet")
    config = {
        "data": made.config(str((place / "table.parquet").absolute())),
        "model": {"backbone": {"name": "mlp", "widths": [256, 128]}},
        "train": {"batch_rows": BATCH, "epochs": 4, "patience": 4, "looks_per_epoch": 1},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return place / "config.yaml"


def _fit(config: Path, out: Path, processes: int, threads: int) -> dict[str, Any]:
    """Fit in new processes; give what run.json says."""
    call = [sys.executable, "-m", "isthmus", "fit", str(config), "--out", str(out)]
    call += ["--processes", str(processes)] if processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(call, check=True, env=environment, capture_output=True)
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def _loopback() -> int:
    """Bytes that the loopback device has sent since the machine started."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[8])
    raise OSError("the loopback device must be listed in /proc/net/dev, got none")
