"""A bundle that the first release wrote scores as it did then, whatever carries the values now."""

import json
import shutil
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from isthmus.data.encoding import older
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.tables import values as v
from isthmus.data.tables.kinds import BOTH_SIGNS
from isthmus.errors import BundleError

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return pq.read_table(DATA / "bundle-0.1-scores.parquet")


def test_scores_are_what_they_were(rows: pa.Table) -> None:
    bundle = isthmus.Bundle.load(DATA / "bundle-0.1")
    np.testing.assert_allclose(bundle.score(rows), rows["score"].to_numpy(), rtol=1e-6)
    assert bundle.domains == ("1", "2.5", "10")


def test_another_carrier_of_the_same_values_scores_the_same(rows: pa.Table) -> None:
    carried = {
        "tab": pa.array([Decimal(str(x)) for x in rows["tab"].to_pylist()]),
        "whole": rows["whole"].cast(pa.float64()),
        "tariff": rows["tariff"].cast(pa.decimal128(20, 6)),
        "day": rows["day"].cast(pa.timestamp("ms")),
        "flag": rows["flag"].cast(pa.int8()),
    }
    table = rows
    for name, column in carried.items():
        table = table.set_column(table.column_names.index(name), name, column)
    bundle = isthmus.Bundle.load(DATA / "bundle-0.1")
    np.testing.assert_allclose(bundle.score(table), bundle.score(rows), rtol=1e-6)


def test_a_bundle_that_is_written_again_scores_the_same(rows: pa.Table, tmp_path: Path) -> None:
    isthmus.Bundle.load(DATA / "bundle-0.1").save(tmp_path / "again")
    again = isthmus.Bundle.load(tmp_path / "again")
    np.testing.assert_allclose(again.score(rows), rows["score"].to_numpy(), rtol=1e-6)


def test_a_config_of_the_first_release_is_accepted() -> None:
    config = isthmus.load_config(DATA / "config-0.1.yaml")
    assert config.data.null_domain == "refuse"
    assert config.model.adapter.name == "hamur"


def test_keys_of_every_kind_are_brought_up() -> None:
    floats = pa.array(np.array([0.1, 2.0]).view(np.int64))
    assert older.vocabulary("floating", floats)[1].equals(v.keys(pa.array([0.1, 2.0])))
    kind, keys = older.vocabulary("decimal", pa.array(["1.00", "1.0", "2.50"], pa.large_string()))
    assert kind == "decimal"
    assert keys[0].as_py() == 1
    assert len(set(keys.to_pylist())) == 3
    assert keys[2].as_py() == v.keys(pa.array([2.5]))[0].as_py()
    assert older.vocabulary("date", pa.array([1]))[1].to_pylist() == [86_400_000_000]
    assert older.vocabulary("integer", pa.array([3, 1]))[0] == "integer"
    assert older.vocabulary("integer", pa.array([3, -1]))[0] == BOTH_SIGNS
    assert v.canonical(pa.array([2**64 - 1], pa.uint64()), BOTH_SIGNS).to_pylist() == [-1]
    assert older.domain_names(["1.0", "2.5"], "floating") == ["1", "2.5"]
    assert older.domain_names(["1.0", "1.00"], "decimal") == ["1.0", "1.00"]


def test_hashed_values_whose_hash_changed_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(DATA / "bundle-0.1" / "encoder", folder)
    content = json.loads((folder / "encoder.json").read_text())
    content["vocabularies"]["real"] |= {"hash_buckets": 10}
    (folder / "encoder.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="must hash no floating values"):
        Encoder.load(folder)
