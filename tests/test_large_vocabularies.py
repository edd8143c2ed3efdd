"""Vocabularies that are mapped from files rather than held in memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus.data import Dataset, Encoder
from isthmus.data.encoding.lookup import vocabulary_file
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.errors import BundleError
from isthmus.schema import DataConfig
from small_datasets import clicks, config, stored
from worlds import HERE, environment

LARGE = 3_000_000


@pytest.fixture
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_file, "LARGE_VALUES", 2)


def test_a_table_is_encoded_as_with_vocabularies_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = Dataset.from_table(config(), clicks(), cache=tmp_path / "plain")
    monkeypatch.setattr(vocabulary_file, "LARGE_VALUES", 2)
    mapped = Dataset.from_table(config(), clicks(), cache=tmp_path / "mapped")
    assert stored(mapped) == stored(plain)
    assert not list((plain.folder / "encoder").glob("*.npy"))
    assert sorted(path.name for path in (mapped.folder / "encoder").iterdir()) == [
        "encoder.json",
        "vocabulary-0.arrow",
        "vocabulary-0.ids.npy",
        "vocabulary-0.keys.npy",
        "vocabulary-0.starts.npy",
        "vocabulary-1.arrow",
        "vocabulary-1.ids.npy",
        "vocabulary-1.keys.npy",
        "vocabulary-1.starts.npy",
        "vocabulary-2.arrow",
        "vocabulary-2.ids.npy",
        "vocabulary-2.keys.npy",
        "vocabulary-2.starts.npy",
    ]
    assert mapped.encoder.vocabularies == plain.encoder.vocabularies


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("integer", pa.array([7, 5, 6, 9])),  # a plain array finds them
        ("integer", pa.array([10**15, -3, 2**62, 0])),
        ("string", pa.array(["", "é", "b" * 300, "c"], pa.large_string())),
        ("binary", pa.array([b"\xff", b"", b"\x00\x01"], pa.large_binary())),
    ],
)
def test_a_mapped_vocabulary_answers_and_grows_as_one_in_memory(
    kind: str, values: pa.Array, tmp_path: Path
):
    made = Vocabulary(kind, values)
    entry = json.loads(json.dumps(vocabulary_file.save_values(tmp_path, "some", made)))
    held, index = vocabulary_file.load_values(tmp_path, entry)
    mapped = Vocabulary(kind, held, index=index)
    assert mapped == made
    more = values.take(pa.array([2, 0, None, 1], pa.int64()))
    assert mapped.ids(more).tolist() == [3, 1, 0, 2]
    news = {"integer": [77, 10**17], "string": ["x", "é "], "binary": [b"x", b"\xfe"]}[kind]
    strange = pa.array(news, values.type)
    assert mapped.ids(strange).tolist() == [0, 0]
    assert mapped.grown(strange).ids(strange).tolist() == [len(values) + 1, len(values) + 2]


@pytest.mark.usefixtures("all_are_large")
def test_a_damaged_file_is_refused(tmp_path: Path):
    dataset = Dataset.from_table(config(), clicks())
    dataset.encoder.save(tmp_path)
    assert Encoder.load(tmp_path).vocabularies == dataset.encoder.vocabularies
    for name in ("vocabulary-0.arrow", "vocabulary-1.ids.npy"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(
            BundleError, match=f"unchanged since it was written, got other in .*{name}"
        ):
            Encoder.load(tmp_path)
        (tmp_path / name).write_bytes(whole)
    described = json.loads((tmp_path / "encoder.json").read_text())
    described["vocabularies"]["user"]["index"]["arrays"].pop("keys")
    (tmp_path / "encoder.json").write_text(json.dumps(described))
    with pytest.raises(BundleError, match="encoder is damaged"):
        Encoder.load(tmp_path)


def test_millions_of_ids_are_looked_up_in_little_memory(tmp_path: Path):
    """Numbers and texts: held in memory, values and index would take 24 + 64 MB and 20 + 41 MB."""
    random = np.random.default_rng(0)
    users = random.permutation(LARGE) * 10**9 + 7
    items = pa.array(np.arange(LARGE // 2), pa.int64()).cast(pa.large_string())
    given = DataConfig.model_validate(
        {
            "domain": "tab",
            "label": "click",
            "features": {"user": "categorical", "item": "categorical"},
        }
    )
    made = {"user": Vocabulary("integer", pa.array(users)), "item": Vocabulary("string", items)}
    Encoder(config=given, vocabularies=made, scalers={}, domains=("a",)).save(tmp_path / "encoder")
    del made
    want = np.stack(
        [random.integers(0, LARGE, 100_000), random.integers(0, LARGE, 100_000)], axis=1
    )
    rows = {"user": users[want[:, 0]], "item": want[:, 1].astype(str), "tab": ["a"] * len(want)}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    done = subprocess.run(
        [sys.executable, HERE / "encodes_in_little_memory.py", tmp_path],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    known = want[:, 1] < len(items)
    ids = np.load(tmp_path / "ids.npy")
    assert (ids[:, 0] == want[:, 0] + 1).all()
    assert (ids[:, 1] == np.where(known, want[:, 1] + 1, 0)).all()
    assert int(done.stdout) < 40_000_000
