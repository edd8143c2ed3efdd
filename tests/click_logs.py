"""A log of clicks with one honest column of each kind, and what the first look says of it."""

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from isthmus.schema import DataConfig

ROWS = 3_000


def clicks(rows: int = ROWS, **more: Any) -> pa.Table:
    """A log with one honest column of each kind; ``more`` columns are added or replaced."""
    rng = np.random.default_rng(0)
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    items = [[f"v{i}" for i in rng.integers(90, size=n)] for n in rng.integers(4, size=rows)]
    columns = {
        "tab": rng.choice(["home", "search", "feed"], rows, p=[0.6, 0.3, 0.1]),
        "user_id": rng.integers(400, size=rows),
        "videoId": rng.integers(10**14, size=200)[rng.integers(200, size=rows)],
        "clicked": rng.integers(2, size=rows),
        "at": [start + dt.timedelta(seconds=60 * i) for i in range(rows)],
        "duration_ms": rng.lognormal(9, 2, rows).astype(np.int64),
        "price": rng.normal(10, 2, rows),
        "device": pa.array(
            rng.choice(["ios", "android", "tv"], rows), mask=rng.random(rows) < 0.2
        ).dictionary_encode(),
        "is_new": rng.random(rows) < 0.3,
        "w": rng.random(rows) + 0.1,
        "history": items,
        "vector": pa.FixedSizeListArray.from_arrays(rng.normal(size=rows * 4), 4),
        "scores": [list(rng.normal(size=n)) for n in rng.integers(1, 4, size=rows)],
    }
    return pa.table(columns | more)


def uses(found) -> dict[str, str]:
    return {column.name: column.use for column in found.columns}


def note(found, name: str) -> str:
    return next(column.note for column in found.columns if column.name == name)


def data_section(found, table: str | None = None) -> DataConfig:
    return DataConfig.model_validate(yaml.safe_load(found.config_text(table))["data"])
