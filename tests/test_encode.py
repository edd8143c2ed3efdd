"""The encoder: fitted on train rows only, the same numbers at fit and at serve."""

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.data import Encoder
from isthmus.data.encoding.encoder import EncodedRows
from isthmus.data.encoding.gathering.encoder_fit import EncoderFit
from isthmus.data.encoding.numbers.scaler import ScalerFit
from isthmus.data.encoding.roles import value_kinds
from isthmus.data.tables import values as v
from isthmus.data.tables.columns import Origin
from isthmus.errors import BundleError, SchemaError
from isthmus.schema import DataConfig

FILE = "part-3.parquet"


# ---------------------------------------------------------------- scaling


@pytest.mark.parametrize("scale", ["standard", "log", "min_max", "none"])
@settings(max_examples=30, deadline=None)
@given(
    # Squares of what is smaller are no float64 any more.
    st.lists(
        st.floats(-1e6, 1e6).filter(lambda x: not 0 < abs(x) < 1e-150), min_size=1, max_size=50
    ),
    st.integers(1, 20),
)
@example([0.0, 2.2e-67], 1)  # log(1 + x) is x here, not 0: one is -1, the other 1
def test_scalers_equal_numpy_over_all_rows(scale, numbers: list[float], block: int) -> None:
    fit = ScalerFit(scale)
    x = np.array(numbers)
    for start in range(0, len(x), block):
        fit.add(x[start : start + block])
    scaler = fit.scaler()
    y = np.sign(x) * np.log1p(np.abs(x)) if scale == "log" else x
    if scale in ("standard", "log"):
        want = (y - y.mean()) / (
            y.std() if y.max() > y.min() and y.std() > 1e-9 * abs(y).max() else 1
        )
        fill = 0.0
    elif scale == "min_max":
        want = (y - y.min()) / ((y.max() - y.min()) or 1)
        fill = want.mean()
    else:
        want, fill = y, y.mean()
    if y.std() > 1e-6 * abs(y).max() or y.max() == y.min():
        np.testing.assert_allclose(scaler.apply(x), want, rtol=1e-4, atol=1e-4)
        assert scaler.fill == pytest.approx(fill, rel=1e-6, abs=1e-6)


# ---------------------------------------------------------------- the encoder


def config(features: dict | None = None, **changes) -> DataConfig:
    settings = {
        "domain": "tab",
        "label": "click",
        "features": features or {"user": "categorical", "price": "numeric"},
    }
    return DataConfig.model_validate(settings | changes)


def table(**columns) -> pa.RecordBatch:
    rows = {"user": [1, 2, 1, 3], "price": [1.0, 3.0, None, 5.0], "tab": ["a", "b", "a", "c"]}
    rows |= {"click": [0, 1, 1, 0]} | columns
    return pa.record_batch(
        {name: pa.array(x) if isinstance(x, list) else x for name, x in rows.items()}
    )


def fit(given: DataConfig, batch: pa.RecordBatch, train: list[int] | None = None) -> Encoder:
    types = {field.name: field.type for field in batch.schema}
    kinds = value_kinds(given, [(FILE, types)], roles=("label", "weight", "group"))
    fitting = EncoderFit(given, kinds)
    rows = np.arange(batch.num_rows) if train is None else np.array(train)
    fitting.add(batch, rows, Origin(FILE, 0), row=np.arange(batch.num_rows))
    return fitting.encoder()


def encode(encoder: Encoder, batch: pa.RecordBatch, **options) -> EncodedRows:
    return encoder.encode(batch, 0, FILE, **options)


def test_everything_is_fitted_on_train_rows_only() -> None:
    encoder = fit(config(), table(price=[1.0, 3.0, None, 500.0]), train=[0, 1, 2])
    assert encoder.domains == ("a", "b")
    rows = encode(encoder, table())
    assert rows.categorical[:, 0].tolist() == [1, 2, 1, 0]
    np.testing.assert_allclose(rows.numeric[:, 0], [-1, 1, 0, 3])  # mean 2, spread 1; null 0
    assert rows.domain.tolist() == [1, 2, 1, 0]
    assert rows.label is not None
    assert rows.label.tolist() == [0, 1, 1, 0]
    assert rows.row.tolist() == [0, 1, 2, 3]


def test_fields_tell_a_model_what_it_needs_in_the_order_of_the_config() -> None:
    given = config(
        {
            "price": "numeric",
            "tags": {"kind": "categorical_list", "shares": "tag", "dim": 4, "pooling": "max"},
            "tab": "categorical",
            "tag": {"kind": "categorical", "dim": 4},
            "item": {"kind": "vector", "width": 2},
            "open": {"kind": "categorical", "hash_buckets": 7},
        }
    )
    batch = table(
        tag=[9, 8, None, 8],
        tags=[[8, 7], None, [], [8]],
        item=[[1.0, 2.0]] * 4,
        open=["x", "y", "z", None],
    )
    encoder = fit(given, batch)
    fields = {field.name: field for field in encoder.fields}
    assert list(fields) == list(given.features)
    assert (fields["tag"].table, fields["tag"].table_rows) == ("tag", 4)
    assert (fields["tags"].table, fields["tags"].table_rows, fields["tags"].pooling) == (
        "tag",
        4,
        "max",
    )
    assert [name for name, field in fields.items() if field.is_domain] == ["tab"]
    assert (fields["open"].table_rows, fields["item"].width, fields["price"].width) == (8, 2, 1)
    rows = encode(encoder, batch)
    # 8 occurs four times over both columns, then 7 and 9 once each.
    values, offsets = rows.lists[0]
    assert values.tolist() == [1, 2, 1]
    assert offsets.tolist() == [0, 2, 2, 2, 3]
    assert rows.categorical[:, 1].tolist() == [3, 1, 0, 1]
    assert rows.categorical[3, 2] == 0
    assert rows.numeric[:, 1:].tolist() == [[1.0, 2.0]] * 4


def test_lists_keep_their_last_values() -> None:
    given = config(
        {"history": {"kind": "categorical_list", "max_length": 2}, "gaps": "numeric_list"}
    )
    batch = table(
        history=[[1, 2, 3], [4], None, [3, None, 2, 3]], gaps=[[1.0, None], [3.0], [], None]
    )
    for dtype in (pa.list_(pa.int64()), pa.large_list(pa.int32())):
        made = batch.set_column(4, "history", batch["history"].cast(dtype))
        encoder = fit(given, made)
        # Kept: 2 3 | 4 | | 2 3, so 2 and 3 are the frequent ones and 1 was never kept.
        assert encoder.vocabularies["history"].values.to_pylist() == [2, 3, 4]
        rows = encode(encoder, made.slice(1))
        values, offsets = rows.lists[0]
        assert values.tolist() == [3, 1, 2]
        assert offsets.tolist() == [0, 1, 1, 3]
    numbers, offsets = encode(encoder, made).lists[1]
    assert numbers.tolist() == [-1, 0, 1]  # mean 2, spread 1; a null is the mean
    assert offsets.tolist() == [0, 2, 3, 3, 3]


def test_vectors_are_used_as_they_are() -> None:
    given = config({"item": {"kind": "vector", "width": 2}})
    plain = [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]]
    want = [[1, 2], [0, 0], [3, 4], [5, 6]]
    for dtype in (pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.int64())):
        batch = table(item=pa.array(plain).cast(dtype))
        assert encode(fit(given, batch), batch).numeric.tolist() == want
        assert encode(fit(given, batch), batch.slice(1)).numeric.tolist() == want[1:]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([10, 9, 10, 2], ("2", "9", "10")),
        ([True, False, True, True], ("False", "True")),
        ([dt.date(2020, 1, 2), dt.date(2020, 1, 1)] * 2, ("2020-01-01", "2020-01-02")),
        ([1.5, 10.0, 9.0, 9.0], ("1.5", "9", "10")),
        (["b", "a", "b", "B"], ("B", "a", "b")),
    ],
)
def test_domains_are_names(values: list, names: tuple[str, ...]) -> None:
    batch = table(tab=values)
    encoder = fit(config(), batch)
    assert encoder.domains == names
    found = encode(encoder, batch).domain
    of_rows = [names[i - 1] for i in found]
    assert of_rows == [f"{x:g}" if isinstance(x, float) else str(x) for x in values]
    as_text = table(tab=of_rows)
    assert encode(encoder, as_text).domain.tolist() == found.tolist()


def test_domains_of_integers_survive_a_frame_that_made_them_floats() -> None:
    encoder = fit(config(), table(tab=[7, 8, 7, 7]))
    rows = encode(encoder, table(tab=[8.0, None, 7.0, 9.5]), roles=())
    assert rows.domain.tolist() == [2, 0, 1, 0]
    assert rows.domain_codes[1] == -1
    assert rows.domain_names[int(rows.domain_codes[3])].as_py() == "9.5"


def test_scoring_needs_no_label_weight_or_group() -> None:
    given = config(weight="w", group="user")
    encoder = fit(given, table(w=[1.0, 2.0, 1.0, 1.0]))
    bare = table().drop_columns(["click"])
    rows = encode(encoder, bare, roles=())
    assert rows.label is None
    assert rows.weight is None
    assert rows.group is None
    assert rows.batch().label.isnan().all()
    with pytest.raises(SchemaError, match="column 'click' must be in the table"):
        encode(encoder, bare)


def test_groups_are_numbers_or_stable_hashes() -> None:
    numbers = table(user=[7, 8, 7, -1])
    plain = encode(fit(config(group="user"), numbers), numbers).group
    assert plain is not None
    assert plain.tolist() == [7, 8, 7, -1]
    text = table(user=["x", "y", "x", "z"])
    found = encode(fit(config(group="user"), text), text).group
    assert found is not None
    assert found[0] == found[2] == v.hash_text(pa.array(["x"]))[0]
    assert len(set(found.tolist())) == 3


INF, NAN = float("inf"), float("nan")
SINGLE = {"user": "categorical", "price": {"kind": "numeric", "scale": "none"}}
LISTS = {"item": {"kind": "vector", "width": 2}}


@pytest.mark.parametrize(
    ("given", "columns", "message"),
    [
        ({}, {"price": [1.0, NAN, 2.0, INF]}, r"column 'price' must be finite, got nan in part-3.parquet, row 1"),
        ({}, {"price": [1.0, 2.0, 2.0, -INF]}, r"column 'price' must be finite, got -inf in part-3.parquet, row 3"),
        ({"features": SINGLE}, {"price": [1.0, 1e300, 1.0, 1.0]}, r"'price' must fit in 32-bit floats once scaled, got 1e\+300 .* row 1"),
        ({}, {"price": ["a"] * 4}, r"column 'price' must be numeric, got string in part-3.parquet$"),
        ({}, {"price": [[1.0]] * 4}, r"column 'price' must hold one value a row \(it is numeric\), got list<"),
        ({"features": {"user": "categorical_list"}}, {}, r"column 'user' must be a list, got int64 in part-3"),
        ({"features": {"user": "numeric_list"}}, {"user": [["a"]] * 4}, r"column 'user' must be a list of numbers, got list<"),
        ({"features": {"user": "numeric_list"}}, {"user": [[1.0], [], [1.0, NAN], []]}, r"'user' must be finite, got nan in part-3.parquet, row 2"),
        ({"features": LISTS}, {"item": [[1.0, 2.0], [1.0], [], []]}, r"column 'item' must hold 2 numbers, got 1 in part-3.parquet, row 1"),
        ({"features": LISTS}, {"item": [[1.0, 2.0]] * 3 + [[1.0, INF]]}, r"'item' must be finite, got inf in part-3.parquet, row 3"),
        ({"features": LISTS}, {"item": [[1.0, 2.0]] * 3 + [[None, 1.0]]}, r"'item' must hold no null, got null in part-3.parquet, row 3"),
        ({"features": {"userid": "categorical"}}, {}, r"column 'userid' must be in the table, got none in part-3.parquet; the nearest is 'user'"),
        ({}, {"click": [0, 1, 2, 0]}, r"column 'click' must be 0 or 1 .*, got 2 in part-3.parquet, row 2"),
        ({}, {"click": [0, 1, None, 0]}, r"column 'click' must have a value in every row \(it is the label\), got null in part-3.parquet, row 2"),
        ({}, {"click": [0.0, NAN, 1.0, 0.0]}, r"column 'click' must be a number .*, got nan in part-3.parquet, row 1"),
        ({"label": {"column": "click", "above": 0}}, {"click": [0.0, NAN, 1.0, 0.0]}, r"column 'click' must be a number .*, got nan in part-3.parquet, row 1"),
        ({}, {"click": ["0", "1", "0", "0"]}, r"column 'click' must be numeric or boolean \(it is the label\), got string in part-3"),
        ({"weight": "w"}, {"w": [1.0, -1.0, 1.0, 1.0]}, r"column 'w' must be 0 or more and finite \(it is the weight\), got -1 in part-3.parquet, row 1"),
        ({"weight": "w"}, {"w": [1.0, 1.0, None, 1.0]}, r"column 'w' must have a value in every row \(it is the weight\), got null in part-3.parquet, row 2"),
        ({"weight": "w"}, {"w": [1.0, 1.0, 1.0, INF]}, r"column 'w' must be 0 or more and finite .* got inf in part-3.parquet, row 3"),
        ({"group": "g"}, {"g": ["x", None, "y", "y"]}, r"column 'g' must have a value in every row \(it is the group\), got null in part-3.parquet, row 1"),
        ({"domain": "item"}, {"item": [[1]] * 4}, r"column 'item' must hold plain values \(it is the domain\), got list<"),
    ],
)  # fmt: skip
def test_bad_input_names_file_column_row_and_value(
    given: dict, columns: dict, message: str
) -> None:
    batch = table(**columns)
    with pytest.raises(SchemaError, match=message):
        encode(
            fit(
                config(
                    given.get("features"), **{k: x for k, x in given.items() if k != "features"}
                ),
                batch,
            ),
            batch,
        )


def test_rows_in_errors_are_counted_within_the_file() -> None:
    encoder = fit(config(), table())
    with pytest.raises(SchemaError, match=r"row 107$"):
        encoder.encode(table(price=[1.0, 1.0, 1.0, NAN]), 5000, FILE, file_row=104)


def test_a_column_of_another_type_than_when_it_was_fitted_is_refused() -> None:
    encoder = fit(config(), table())
    with pytest.raises(
        SchemaError, match="'user' must be integer as when it was fitted, got string"
    ):
        encode(encoder, table(user=["1", "2", "1", "3"]))
    shared = config({"user": "categorical", "past": {"kind": "categorical_list", "shares": "user"}})
    with pytest.raises(
        SchemaError,
        match=r"'past' must have one type everywhere \(integer in 'user' of part-3.parquet\), got string",
    ):
        fit(shared, table(past=[["a"]] * 4))


# ---------------------------------------------------------------- on disk


@pytest.fixture
def rich() -> tuple[Encoder, pa.RecordBatch]:
    given = config(
        {
            "user": {"kind": "categorical", "min_count": 2},
            "name": "categorical",
            "day": "categorical",
            "open": {"kind": "categorical", "hash_buckets": 9},
            "past": {"kind": "categorical_list", "shares": "user"},
            "price": {"kind": "numeric", "scale": "log"},
            "size": {"kind": "numeric", "scale": "min_max"},
        }
    )
    batch = table(
        name=["x", "ü", None, "x"],
        day=[dt.date(2020, 1, 1), dt.date(2021, 1, 1), None, dt.date(2020, 1, 1)],
        open=["p", "q", "r", None],
        past=[[1, 2], [], None, [3, 4, 3]],
        size=[1, 2, None, 4],
    )
    return fit(given, batch), batch


def test_an_encoder_survives_the_disk(rich: tuple[Encoder, pa.RecordBatch], tmp_path: Path) -> None:
    encoder, batch = rich
    encoder.save(tmp_path / "encoder")
    again = Encoder.load(tmp_path / "encoder")
    assert again.config == encoder.config
    assert again.fields == encoder.fields
    assert again.domains == encoder.domains
    assert again.scalers == encoder.scalers
    one, two = encode(encoder, batch), encode(again, batch)
    np.testing.assert_array_equal(one.categorical, two.categorical)
    np.testing.assert_array_equal(one.numeric, two.numeric)
    np.testing.assert_array_equal(one.lists[0][0], two.lists[0][0])
    np.testing.assert_array_equal(one.domain, two.domain)


def test_a_damaged_encoder_says_so(rich: tuple[Encoder, pa.RecordBatch], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    rich[0].save(whole)
    with pytest.raises(BundleError, match="cannot be read"):
        Encoder.load(tmp_path / "nowhere")
    for path in sorted(whole.iterdir()):
        for change in ("cut", "flip", "remove"):
            broken = tmp_path / f"{path.name}-{change}"
            shutil.copytree(whole, broken)
            content = bytearray(path.read_bytes())
            if change == "remove":
                (broken / path.name).unlink()
            elif change == "cut":
                (broken / path.name).write_bytes(content[: len(content) // 2])
            else:
                content[10] ^= 0xFF
                (broken / path.name).write_bytes(content)
            with pytest.raises(BundleError, match=r"encoder|vocabulary"):
                Encoder.load(broken)
    described = json.loads((whole / "encoder.json").read_text())
    (whole / "encoder.json").write_text(json.dumps(described | {"version": 99}))
    with pytest.raises(BundleError, match="of version 4, got 99"):
        Encoder.load(whole)
