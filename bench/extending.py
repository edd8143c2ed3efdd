"""A new domain on MovieLens-1M: what `extend` takes, and what it brings against the ways around it.

The base run knows two of the three age groups; the third is the new domain. All its users are new. Its test
rows are drawn once; its other rows are drawn in one order, of which the first 500, 5,000 and 50,000 teach.
Each way is scored on the same test rows:

    unknown    the base run's answer for a domain that it does not know
    extended   `isthmus.extend` of the base run
    solo       the same network fitted on the new domain's rows alone
    again      the same network fitted on the base rows and the new domain's rows together

``python -m bench.extending`` prints the table of docs/shipping.md.
"""

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import isthmus
from bench.benchmark_page import movielens_config
from bench.measure import Row, at_most
from isthmus.metrics import auc
from isthmus.metrics.formulas.logloss import row_logloss

NEW = "under-25"
BASE_ROWS, TEST_ROWS = 200_000, 20_000
SIZES = (500, 5_000, 50_000)
WAYS = ("unknown", "extended", "solo", "again")
DRAW = 7  # seed of which rows are the base's, the test's, the new domain's
BOUND = 10.0  # seconds of `extend` with 5,000 rows


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way with one seed: AUC and logloss of the test rows, and seconds of the call that made it."""

    way: str
    rows: int
    seed: int
    auc: float
    logloss: float
    seconds: float
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Tables:
    """Rows of the base domains, and those of the new domain that teach and that test."""

    base: pl.DataFrame
    new: pl.DataFrame
    test: pl.DataFrame

    @classmethod
    def drawn(cls, path: str, new: str, base_rows: int = BASE_ROWS) -> "Tables":
        """Draw them from MovieLens-1M."""
        rows = pl.read_parquet(path).sample(fraction=1.0, shuffle=True, seed=DRAW)
        own = rows.filter(pl.col("domain") == new)
        others = rows.filter(pl.col("domain") != new)
        return cls(others[:base_rows], own[TEST_ROWS:], own[:TEST_ROWS])


def config_of(folder: Path, seed: int) -> dict[str, Any]:
    """The config that ``isthmus data movielens-1m`` writes, calibrated per domain."""
    config = copy.deepcopy(movielens_config(folder))
    config["data"].pop("table")
    config["model"]["calibration"] = "per_domain"
    config["train"]["seed"] = seed
    return config


def judged(bundle: isthmus.Bundle, test: pl.DataFrame) -> tuple[float, float]:
    """AUC and logloss of the test rows."""
    logits, label = bundle.logits(test), test["rating"].to_numpy() > 3
    return auc(logits, label), float(row_logloss(logits, label).mean())


def study(folder: Path, seeds: int, new: str = NEW, ways: tuple[str, ...] = WAYS) -> list[Outcome]:
    """Every way at every size, for each seed."""
    data = movielens_config(folder)["data"]["table"]
    tables = Tables.drawn(data, new)
    found: list[Outcome] = []
    for seed in range(seeds):
        config, place = config_of(folder, seed), folder / f"seed-{seed}"
        base = place / "base"
        if not base.exists():
            isthmus.fit(config, tables.base, out=base)
        run = isthmus.Run.open(base)
        unknown = judged(run.bundle, tables.test)
        for rows in SIZES:
            some = tables.new[:rows]
            found.append(Outcome("unknown", rows, seed, *unknown, 0.0))
            for way in ways:
                if way == "unknown":
                    continue
                out, begun, kept = (
                    place / f"{way}-{rows}-{time.time_ns()}",
                    time.perf_counter(),
                    True,
                )
                if way == "extended":
                    made = isthmus.extend(run, some, domain=new, out=out)
                    bundle, kept = made.run.bundle, made.content["training"]["kept"]
                else:
                    table = some if way == "solo" else pl.concat([tables.base, some])
                    bundle = isthmus.fit(config, table, out=out).bundle
                seconds = time.perf_counter() - begun
                one = Outcome(way, rows, seed, *judged(bundle, tables.test), seconds, kept)
                print(json.dumps(asdict(one)), flush=True)
                found.append(one)
    return found


def to_markdown(found: list[Outcome]) -> str:
    """The table of docs/shipping.md: means over the seeds."""
    lines = [
        "| rows of the new domain | way | AUC | logloss | seconds |",
        "|---:|---|---:|---:|---:|",
    ]
    for rows in SIZES:
        for way in WAYS:
            own = [one for one in found if (one.rows, one.way) == (rows, way)]
            if own:
                mean = {
                    name: statistics.mean(getattr(one, name) for one in own)
                    for name in ("auc", "logloss", "seconds")
                }
                spread = np.ptp([one.auc for one in own])
                lines.append(
                    f"| {rows:,} | {way} | {mean['auc']:.4f} ({spread:.4f}) | {mean['logloss']:.4f} |"
                    f" {mean['seconds']:.1f} |"
                )
    return "\n".join(lines)


def seconds_of_extend(folder: Path, runs: int = 3) -> list[Row]:
    """The time of `extend` with 5,000 rows on a run of MovieLens-1M's other two age groups."""
    data = movielens_config(folder)["data"]["table"]
    tables = Tables.drawn(data, NEW, base_rows=1_000_000)
    config = config_of(folder, 0)
    config["train"]["epochs"] = 1  # the bundle is as large as after twenty
    run = isthmus.fit(config, tables.base, out=folder / "movielens-base")
    taken = []
    for turn in range(runs + 1):
        begun = time.perf_counter()
        isthmus.extend(run.path, tables.new[:5_000], domain=NEW, out=folder / f"extended-{turn}")
        taken.append(time.perf_counter() - begun)
    seconds = statistics.median(taken[1:])
    parameters = f"{run.state.parameters:,}"
    return [
        at_most(
            "13 extend by 5,000 rows, MovieLens-1M, seconds", seconds, BOUND, parameters=parameters
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep tables and runs here [default: not]")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--new", default=NEW)
    parser.add_argument("--ways", default=",".join(WAYS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="isthmus-extending-") as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["ISTHMUS_CACHE"] = str(folder / "cache")
        found = study(folder, options.seeds, options.new, tuple(options.ways.split(",")))
        print(to_markdown(found))


if __name__ == "__main__":
    main()
