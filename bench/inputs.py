"""Number 7: what value statistics and trees cost, in encoding, memory, fitting and scoring."""

import copy
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
import yaml

from bench.data import LARGE, MIB, ROWS, fit_peak, section, write_table
from bench.measure import RUNS, Row, alternate, at_least, at_most
from isthmus.bundle import Bundle
from isthmus.data import Dataset
from isthmus.run import fit
from isthmus.schema import DataConfig
from isthmus.sources import movielens_1m

COUNTED = ("int_1000000", "int_200000", "text_100000")
SCORED = 200_000


def with_statistics(path: Path) -> dict[str, Any]:
    """The data section of number 5, with statistics on its three largest columns."""
    content = section(path)
    for name in COUNTED:
        content["features"][name] = {"kind": "categorical", "statistics": True}
    return content


def encoding(folder: Path, rows: int = ROWS, runs: int = RUNS) -> list[Row]:
    """Encode the table of number 5 with statistics, and without."""
    path = folder / "speed.parquet"
    if not path.exists():
        write_table(path, rows)
    cache = folder / "speed-cache"
    plain, counted = (
        DataConfig.model_validate(content) for content in (section(path), with_statistics(path))
    )

    def encode(config: DataConfig) -> None:
        shutil.rmtree(cache, ignore_errors=True)
        Dataset.from_table(config, cache=cache)

    seconds = alternate({"plain": lambda: encode(plain), "counted": lambda: encode(counted)}, runs)
    return [
        at_least(
            "7 encoding with statistics on three columns, million rows/s",
            rows / seconds["counted"] / 1e6,
            0.5,
            rows=f"{rows:,}",
            counted=f"{seconds['counted']:.2f} s",
            plain=f"{seconds['plain']:.2f} s",
        )
    ]


def memory(folder: Path, rows: int = LARGE, runs: int = 3) -> list[Row]:
    """Peak of a whole fit on twice ``rows`` rows with statistics on three columns."""
    table = folder / "counted"
    table.mkdir()
    write_table(table / "part-0.parquet", rows)
    write_table(table / "part-1.parquet", rows, seed=1)
    turns = [fit_peak(folder, table, with_statistics(table)) for _ in range(runs)]
    peak, seconds = (statistics.median(values) for values in zip(*turns, strict=True))
    shutil.rmtree(table)
    return [
        at_most(
            f"7 peak memory of fit on {2 * rows:,} rows with statistics on three columns, GiB",
            peak / 2**30,
            2.5,
            peak=f"{peak / MIB:,.0f} MiB",
            seconds=f"{seconds:.0f}",
        )
    ]


def whole(folder: Path) -> list[Row]:
    """Fit MovieLens-1M by age with statistics and trees, and without, and score raw rows."""
    file = movielens_1m(folder / "movielens") / "config.yaml"
    plain = yaml.safe_load(file.read_text())
    plain["data"]["table"] = str(file.parent / plain["data"]["table"])
    plain["model"]["adapter"] = {"name": "none"}
    taught = copy.deepcopy(plain)
    for name in ("user_id", "movie_id", "zip"):
        taught["data"]["features"][name] = {"kind": "categorical", "statistics": True}
    taught["data"]["trees"] = True
    seconds: dict[str, float] = {}
    bundles: dict[str, Bundle] = {}
    for name, config in (("plain", plain), ("taught", taught)):
        out = folder / f"fit-{name}"
        began = time.perf_counter()
        fit(config, out=out, cache=folder / f"cache-{name}")
        seconds[name] = time.perf_counter() - began
        bundles[name] = Bundle.load(out / "bundle")
    rows = pl.read_parquet(plain["data"]["table"]).head(SCORED)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = alternate({name: lambda b=b: b.score(rows) for name, b in bundles.items()}, 3)
    finally:
        torch.set_num_threads(threads)
    return [
        at_most(
            "7 fit of MovieLens-1M by age with statistics and trees, from the table, over the MLP's",
            seconds["taught"] / seconds["plain"],
            4.0,
            **{name: f"{value:.0f} s" for name, value in seconds.items()},
        ),
        at_least(
            "7 scoring raw rows with statistics and trees on one thread, over the MLP's rows/s",
            taken["plain"] / taken["taught"],
            0.5,
            **{name: f"{SCORED / value:,.0f} rows/s" for name, value in taken.items()},
        ),
    ]


def everything(folder: Path) -> list[Row]:
    """All of number 7."""
    return encoding(folder) + memory(folder) + whole(folder)
