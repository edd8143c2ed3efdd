"""What cannot play a role is refused in one sentence that names the column; unused, it is let be."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import carried_rows as rows
import carriers as a
import isthmus
from carried_kinds import BYTES, DAYS, HOURS, KINDS, TEXTS, WHOLE, ways
from carriers import DOORS, FILES
from isthmus.errors import SchemaError
from isthmus.inspect import inspect_table
from isthmus.run.output.predicting import predict_to

N = rows.ROWS
LISTS, SCALARS = rows.LISTS, tuple(role for role in rows.ROLES if role not in rows.LISTS)
NUMERIC = (*rows.NUMERIC, "label", "weight")
i64, text = pa.int64(), pa.string()


def union(dense: bool) -> pa.Array:
    which = pa.array([i % 2 for i in range(N)], pa.int8())
    if dense:
        places = pa.array([i // 2 for i in range(N)], pa.int32())
        halves = [pa.array(range(N // 2)), pa.array(["a"] * (N // 2))]
        return pa.UnionArray.from_dense(which, places, halves)
    return pa.UnionArray.from_sparse(which, [pa.array(range(N)), pa.array(["a"] * N)])


def scalars(values: tuple[Any, ...], dtype: pa.DataType) -> Callable[[], pa.Array]:
    return lambda: a.carried([values[i % len(values)] for i in range(N)], dtype)


def lists(values: tuple[Any, ...], dtype: pa.DataType) -> Callable[[], pa.Array]:
    pairs = [[values[i % len(values)], values[0]] for i in range(N)]
    return lambda: a.listed(pairs, dtype)


_STRUCTS = [{"a": i % 3} for i in range(N)]
# A column, and the roles that it cannot play.
WRONG: dict[str, tuple[Callable[[], pa.Array], tuple[str, ...]]] = {
    "struct": (lambda: pa.array(_STRUCTS), rows.ROLES),
    "map": (lambda: pa.array([[("k", i % 3)] for i in range(N)], pa.map_(text, i64)), rows.ROLES),
    "dense-union": (lambda: union(True), rows.ROLES),
    "sparse-union": (lambda: union(False), rows.ROLES),
    "interval": (
        lambda: pa.array([(1, i % 3, 2) for i in range(N)], pa.month_day_nano_interval()),
        rows.ROLES,
    ),
    "list": (lists(WHOLE, i64), SCALARS),
    "list-of-text": (lists(TEXTS, text), (*SCALARS, "numeric_list", "vector")),
    "list-of-dates": (lists(DAYS, pa.date32()), (*SCALARS, "numeric_list", "vector")),
    "list-of-lists": (lambda: pa.array([[[i % 3]] for i in range(N)]), rows.ROLES),
    "list-of-structs": (lambda: pa.array([[one, one] for one in _STRUCTS]), rows.ROLES),
    "int64": (scalars(WHOLE, i64), LISTS),
    "bool": (scalars((0, 1), pa.bool_()), (*LISTS, "time")),
    "string": (scalars(TEXTS[1:], text), (*LISTS, *NUMERIC, "time")),
    "dictionary": (scalars(TEXTS, pa.dictionary(pa.int8(), text)), (*LISTS, *NUMERIC, "time")),
    "binary-of-text": (scalars(TEXTS, pa.binary()), (*LISTS, *NUMERIC, "time")),
    "binary": (scalars(BYTES, pa.binary()), (*LISTS, *NUMERIC, "time")),
    "fixed-size-binary": (scalars(BYTES, pa.binary(4)), (*LISTS, *NUMERIC, "time")),
    "date32": (scalars(DAYS, pa.date32()), (*LISTS, *NUMERIC)),
    "timestamp": (scalars(DAYS, pa.timestamp("us")), (*LISTS, *NUMERIC)),
    "time64": (scalars(HOURS, pa.time64("us")), (*LISTS, *NUMERIC, "time")),
    "duration": (scalars(HOURS, pa.duration("us")), (*LISTS, *NUMERIC, "time")),
}


def wrong_cases(doors: tuple[str, ...], *, roles: tuple[str, ...] = rows.ROLES) -> list[Any]:
    found = []
    for name, (make, cannot) in WRONG.items():
        for role in dict.fromkeys(role for role in cannot if role in roles):
            for door in doors:
                if a.passes(door, make().type):
                    found.append(pytest.param(name, role, door, id=f"{name}-{role}-{door}"))
    return found


def with_column(column: pa.Array, name: str) -> pa.Table:
    return rows.base().append_column(name, column)


@pytest.fixture(autouse=True)
def isolated_cache() -> None:
    """Nothing is cached but where a folder is named."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is gone after the case: pytest's own are counted and kept."""
    with TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def bundles() -> Callable[[str], isthmus.Bundle]:
    """A model for each role, over a column of numbers."""
    kind, made = KINDS["int64"], {}

    def bundle(role: str) -> isthmus.Bundle:
        roles = () if role == "unused" else (role,)
        if role not in made:
            content = {one: rows.content(kind, "table")[one] for one in roles}
            table = rows.plain(content, "number") if roles else rows.base()
            given = rows.config(roles, equals=1)
            made[role] = rows.bundle_of(rows.at_fit(given, table))
        return made[role]

    return bundle


@pytest.mark.parametrize(("name", "role", "door"), wrong_cases((*DOORS[:4], "table")))
def test_a_type_that_cannot_play_a_role_is_refused_at_fit(
    name: str, role: str, door: str, folder: Path
) -> None:
    source = a.through(door, [with_column(WRONG[name][0](), f"as_{role}")], folder / "source")
    given = rows.config((role,), equals="7")
    with pytest.raises(SchemaError, match=f"'as_{role}'"):
        isthmus.Dataset.from_table(given.data, source, cache=folder / "cache")


AT_SCORE = (*rows.FEATURES, "domain", "label", "label_equals", "weight", "group")


@pytest.mark.parametrize(
    ("name", "role", "door"), wrong_cases(("csv", "reader", "duckdb"), roles=AT_SCORE)
)
def test_a_type_that_cannot_play_a_role_is_refused_at_score(
    name: str, role: str, door: str, folder: Path, bundles: Callable[[str], isthmus.Bundle]
) -> None:
    source = a.through(door, [with_column(WRONG[name][0](), f"as_{role}")], folder / "source")
    with pytest.raises(SchemaError, match=f"'as_{role}'"):
        rows.at_score(bundles(role), source, (role,))


# ---------------------------------------------------------------- two families


FAMILIES = {
    "number": (WHOLE, i64),
    "decimal": (WHOLE, pa.decimal128(9, 2)),
    "text": (TEXTS, text),
    "bytes": (BYTES, pa.binary()),
    "date": (DAYS, pa.date32()),
    "timestamp": (DAYS, pa.timestamp("us", "UTC")),
    "time": (HOURS, pa.time64("us")),
    "duration": (HOURS, pa.duration("us")),
}
_ALIKE = ({"number", "decimal"}, {"date", "timestamp"}, {"text", "bytes"})
PAIRS = [
    (one, other)
    for one in FAMILIES
    for other in FAMILIES
    # Whether text goes with bytes that are no text is left open.
    if one < other and {one, other} not in _ALIKE
]


@pytest.mark.parametrize("role", rows.ROLES)
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_families_in_one_column_are_refused(
    one: str, other: str, role: str, folder: Path
) -> None:
    make = lists if role in LISTS else scalars
    columns = [make(*FAMILIES[name])()[: N // 2] for name in (one, other)]
    parts = [
        rows.base().slice(i * N // 2, N // 2).append_column(f"as_{role}", column)
        for i, column in enumerate(columns)
    ]
    source = a.through("parquet", parts, folder / "source")
    given = rows.config((role,), equals=7)
    with pytest.raises(SchemaError, match=f"'as_{role}'"):
        isthmus.Dataset.from_table(given.data, source, cache=folder / "cache")


@pytest.mark.parametrize("role", ["categorical", "categorical_list"])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("number", "decimal")])
def test_another_family_than_at_fit_is_refused_at_score(
    name: str, role: str, bundles: Callable[[str], isthmus.Bundle]
) -> None:
    column = (lists if role in LISTS else scalars)(*FAMILIES[name])()
    with pytest.raises(SchemaError, match=f"'as_{role}'"):
        bundles(role).score(with_column(column, f"as_{role}"))


# ---------------------------------------------------------------- unused


def unused_cases() -> Iterator[Any]:
    for name, (make, _) in WRONG.items():
        for door in ("parquet", "csv", "pandas", "lazy", "table", "reader"):
            if a.passes(door, make().type):
                yield pytest.param(name, door, id=f"{name}-{door}")
    for name, kind in KINDS.items():
        if name not in WRONG:
            door = "parquet" if "parquet" in ways(kind) else "reader"
            yield pytest.param(name, door, id=f"{name}-{door}")


def _parts(name: str, door: str) -> list[pa.Table]:
    if name in WRONG:
        return [with_column(WRONG[name][0](), "extra")]
    kind, halves = KINDS[name], []
    beside = kind.beside_values or kind.values
    halves = [(kind.carrier, kind.values)]
    if door in FILES:
        halves.append((kind.beside or a.plain_type(beside, kind.family), beside))
    size = N // len(halves)
    return [
        rows.base()
        .slice(number * size, size)
        .append_column(
            "extra", a.carried([None, *(values[i % len(values)] for i in range(size - 1))], dtype)
        )
        for number, (dtype, values) in enumerate(halves)
    ]


@pytest.mark.parametrize(("name", "door"), list(unused_cases()))
def test_an_unused_column_never_stops_anything(
    name: str, door: str, folder: Path, bundles: Callable[[str], isthmus.Bundle]
) -> None:
    bundle, parts = bundles("unused"), _parts(name, door)
    opened = iter(a.through(door, parts, folder / str(i)) for i in range(9))
    found = inspect_table(next(opened), "tab", "click")
    assert "extra" in {column.name for column in found.columns}
    if name in WRONG:
        seen = rows.at_fit(rows.config(()), next(opened))
        assert seen.encoder.domains == bundle.domains
    try:
        written = _written(bundle, next(opened), folder / "out.parquet")
    except SchemaError:  # one type for two files is asked for, and there may be none
        assert len({part["extra"].type for part in parts}) > 1
        assert not (folder / "out.parquet").exists()
        with pytest.raises(SchemaError, match="column 'extra'"):
            _written(bundle, next(opened), folder / "out.parquet")
        return
    nulls = sum(part["extra"].to_pylist().count(None) for part in parts)
    assert written["extra"].null_count == nulls
    if name not in WRONG:  # nor may two values have become one
        kind = KINDS[name]
        values = kind.values + (kind.beside_values if door in FILES else ())
        column = written["extra"]
        if pa.types.is_time64(column.type):  # Python's times end at microseconds
            column = column.cast(pa.int64())
        assert len(set(column.to_pylist()) - {None}) >= len({a.same(x) for x in values})


@pytest.mark.parametrize("door", ["pandas", "table", "reader"])
def test_a_fit_and_a_score_take_no_notice_of_columns_of_every_kind(
    door: str, folder: Path, bundles: Callable[[str], isthmus.Bundle]
) -> None:
    table, bundle = rows.base(), bundles("unused")
    for name, kind in KINDS.items():
        if a.passes(door, kind.carrier):
            values = [kind.values[i % len(kind.values)] for i in range(N)]
            table = table.append_column(name, a.carried(values, kind.carrier))
    source = a.through(door, [table], folder)
    seen = rows.at_fit(rows.config(()), source)
    assert seen.encoder.domains == bundle.domains
    scores = bundle.score(a.through(door, [table], folder))
    np.testing.assert_allclose(scores, bundle.score(rows.base()), atol=1e-6)


def _written(bundle: isthmus.Bundle, source: Any, path: Path) -> pa.Table:
    """What ``predict_to`` writes: all rows in their order, every column, and the score."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says what Parquet holds as text only
        assert predict_to(bundle, source, path, about={}, progress=lambda _: None) == N
    found = pq.ParquetFile(path).read()
    assert found.column_names == [*rows.base().column_names, "extra", "score"]
    np.testing.assert_allclose(found["score"], bundle.score(rows.base()), atol=1e-6)
    return found


MIXED = [1, "x", None, 2.5, b"\xff", {"a": 1}, [1, 2], (3,)]


def test_an_unused_column_of_objects_never_stops_anything(
    folder: Path, bundles: Callable[[str], isthmus.Bundle]
) -> None:
    frame, bundle = rows.base().to_pandas(), bundles("unused")
    frame["extra"] = pd.Series([MIXED[i % len(MIXED)] for i in range(N)], dtype=object)
    eager = pl.from_pandas(frame.drop(columns="extra")).with_columns(
        pl.Series("extra", frame["extra"].tolist(), dtype=pl.Object)
    )
    scores = bundle.score(rows.base())
    for number, given in enumerate((frame, eager)):
        assert inspect_table(given, "tab", "click").rows == N
        rows.at_fit(rows.config(()), given)
        np.testing.assert_allclose(bundle.score(given), scores, atol=1e-6)
        _written(bundle, given, folder / f"{number}.parquet")


@pytest.mark.parametrize("role", rows.ROLES)
def test_a_column_of_objects_is_refused_by_name_where_it_is_used(role: str) -> None:
    frame = rows.base().to_pandas()
    frame[f"as_{role}"] = pd.Series([MIXED[i % len(MIXED)] for i in range(N)], dtype=object)
    with pytest.raises(SchemaError, match=f"'as_{role}'"):
        rows.at_fit(rows.config((role,), equals=1), frame)
