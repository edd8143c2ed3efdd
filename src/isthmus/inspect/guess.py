"""What a column probably is, judged by its type, its name and the values that were drawn.

Every judgement carries a note in words, so that a reader of the config can disagree with it.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
from scipy.stats import rankdata

from isthmus.data.tables.kinds import UNUSABLE, family, item_type, kind
from isthmus.data.tables.moments import PER_SECOND
from isthmus.inspect.template import MANY
from isthmus.schema import TimeUnit

Use = Literal[
    "categorical", "categorical_list", "numeric", "numeric_list", "vector", "time", "weight", "drop"
]

LEAK = 0.98  # AUC that no honest column reaches on its own
_SALT = 0x1574
FEW_VALUES = 50  # an integer column with so few is a code rather than a quantity
_TEXT_LENGTH = 50  # mean characters of free text

_IDS = {
    *{"id", "ids", "uid", "sid", "pid", "aid", "uuid", "guid", "key", "code", "zip", "hash", "tab"},
    *{"user", "item", "movie", "video", "product", "author", "brand", "category", "cate", "tag"},
    *{"ad", "campaign", "creative", "shop", "seller", "store", "city", "region", "country"},
}
_QUANTITIES = {
    *{"count", "counts", "cnt", "num", "n", "price", "amount", "age", "ms", "sec", "seconds"},
    *{"duration", "length", "size", "score", "qty", "quantity", "days", "hours", "minutes"},
    *{"width", "height", "rate", "ratio", "total", "sum", "avg", "mean", "year", "distance"},
}
_TIMES = {"time", "timestamp", "ts", "date", "datetime", "day", "ms", "at"}
_WEIGHTS = {"w", "weight", "weights", "sampleweight", "importanceweight"}
_GROUPS = ("user", "uid", "visitor", "customer", "member", "account", "session", "query")


@dataclass(slots=True)
class Facts:
    """What all rows of a column say, not only the drawn ones."""

    nulls: int = 0
    nan: int = 0  # numbers, or items of lists, that are NaN
    infinite: int = 0
    lowest: float = np.inf
    highest: float = -np.inf
    shortest: int | None = None  # lengths of lists; a null list counts as none
    longest: int = 0
    item_nulls: int = 0


@dataclass(frozen=True, slots=True)
class Guess:
    """How to use a column: ``settings`` of its feature and, in ``note``, why."""

    use: Use
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def guess(name: str, dtype: pa.DataType, facts: Facts, drawn: pl.Series, *, rows: int) -> Guess:
    """Judge one column that is neither domain nor label.

    ``drawn``: its values in the drawn rows; of a list column the lengths. ``rows``: of the table.
    """
    found = kind(dtype)
    if found == "null" or facts.nulls == rows:
        return Guess("drop", "holds nothing but nulls")
    if found == "list":
        return _listed(kind(item_type(dtype)), facts)
    if found in (*UNUSABLE, "time", "duration"):
        return Guess("drop", f"is {dtype}: turn it into text, a category or a number first")
    if facts.infinite:
        return Guess("drop", f"holds infinity in {facts.infinite:,} rows: make them null")
    present = drawn.drop_nulls()
    values = present.n_unique()
    if values + bool(facts.nulls) <= 1:
        return Guess("drop", f"holds one value ({_short(present)}) in all {len(drawn):,} rows read")
    many = f"{'' if len(drawn) == rows else 'at least '}{values:,} values"
    if family(found) == "moment":
        return Guess("time", "a point in time")
    if unit := _epoch_unit(name, found, present):
        return Guess("time", "a point in time", {"unit": unit})
    if found == "boolean":
        return Guess("categorical", "true or false")
    if family(found) == "text":
        return _text(present, values, rows, many)
    if _is_weight(name, facts):
        return Guess("weight", "named a weight, and 0 or more everywhere")
    judged = _number(name, found, present, values, rows, many)
    if facts.nan and judged.use == "numeric":
        settings = {**judged.settings, "nan": "missing"}
        note = f"{judged.note}; NaN in {facts.nan:,} rows counts as missing"
        return replace(judged, note=note, settings=settings)
    return judged


def group_rank(name: str) -> int | None:
    """How well a column's name fits whom rows belong to; lower is better, None is not at all."""
    words = set(_words(name))
    for rank, word in enumerate(_GROUPS):
        if word in words or name.lower() in (f"{word}id", f"{word}_id"):
            # `user_id` before `user_age`.
            return 2 * rank + (not words & {"id", "uid", "key"} and len(words) > 1)
    return None


def lone_auc(drawn: pl.Series, label: np.ndarray, *, categorical: bool, seed: int = 0) -> float:
    """AUC that one column reaches alone, in either direction; 0.5 where it cannot be told.

    Numbers: the AUC of the value, and that of being null. Categories (and numbers with few
    values): the label's mean per value on a random half of the rows scores the other half, so that
    a value which occurs once knows nothing of its own row. ``label``: (rows,) bool.
    """
    found = [0.5, _either_way(drawn.is_null().to_numpy(), label)]
    if not categorical:
        present = drawn.is_not_null().to_numpy()
        number = drawn.cast(pl.Float64).to_numpy()
        found.append(_either_way(number[present], label[present]))
    if categorical or drawn.n_unique() <= 1000:
        # Salted: labels that a user drew with the same plain seed must not decide the halves.
        fitted = np.random.default_rng([seed, _SALT]).random(len(label)) < 0.5
        frame = pl.DataFrame({"value": drawn, "label": label.astype(np.float64)})
        prior = frame["label"].mean()
        means = (
            frame.filter(fitted)
            .group_by("value")
            .agg(score=(pl.col("label").sum() + prior) / (pl.len() + 1))
        )
        scored = frame.filter(~fitted).join(
            means, on="value", how="left", nulls_equal=True, maintain_order="left"
        )
        found.append(auc(scored["score"].fill_null(prior).to_numpy(), label[~fitted]))
    return max(found)


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """Chance that a random positive outscores a random negative; ties count half.

    0.5 with fewer than 10 rows of either class: too few to accuse a column of leaking.
    """
    positives = int(label.sum())
    negatives = len(label) - positives
    if min(positives, negatives) < 10:
        return 0.5
    ranks = rankdata(score)
    return float((ranks[label].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _either_way(score: np.ndarray, label: np.ndarray) -> float:
    found = auc(score, label)
    return max(found, 1 - found)


def _listed(item: str, facts: Facts) -> Guess:
    if facts.longest == 0:
        return Guess("drop", "holds empty lists only")
    if item in ("floating", "decimal"):
        even = facts.shortest == facts.longest and facts.longest > 1
        wrong = facts.infinite + facts.item_nulls + (facts.nan if even else 0)
        if wrong:
            return Guess("drop", f"its lists hold NaN, infinity or null {wrong:,} times")
        if even:
            return Guess("vector", "a given embedding", {"width": facts.longest})
        settings = {"nan": "missing"} if facts.nan else {}
        return Guess("numeric_list", f"up to {facts.longest} numbers a row", settings)
    if item in ("string", "binary", "integer", "boolean", "date"):
        return Guess("categorical_list", f"up to {facts.longest} values a row")
    return Guess("drop", f"is a list of {item} values, which no kind of feature takes")


def _text(present: pl.Series, values: int, rows: int, many: str) -> Guess:
    if _own_value_a_row(present, values, rows):
        return Guess("drop", "has a value of its own in (nearly) every row: nothing can be learnt")
    lengths = present.str.len_chars() if present.dtype == pl.String else present.bin.size()
    mean_length = lengths.mean()
    if isinstance(mean_length, float) and mean_length > _TEXT_LENGTH and values > len(present) / 2:
        return Guess("drop", f"looks like free text ({mean_length:.0f} characters on average)")
    return _category(values, many)


def _category(values: int, many: str) -> Guess:
    """A category; where it has many values, their statistics are inputs too."""
    return Guess("categorical", many, {"statistics": True} if values > MANY else {})


def _number(name: str, kind: str, present: pl.Series, values: int, rows: int, many: str) -> Guess:
    number = present.cast(pl.Float64).to_numpy()
    whole = kind == "integer" or bool((number == np.floor(number)).all())
    words = _words(name)
    if whole:
        span = float(number.max() - number.min()) + 1
        dense = values >= 100 and span <= 2 * values
        coded = bool(words) and words[-1] in _IDS
        quantity = bool(set(words) & _QUANTITIES) and not coded
        if _own_value_a_row(present, values, rows) and not quantity and (coded or dense):
            return Guess(
                "drop", "has a value of its own in (nearly) every row: nothing can be learnt"
            )
        hashed = float(np.abs(number).max()) > 2.0**40
        few = values <= FEW_VALUES
        if coded or (not quantity and (few or dense or hashed)):
            return _category(values, many)
    middle, high = np.quantile(number, [0.5, 0.99])
    if number.min() >= 0 and high > 10 * max(middle, 1e-12):
        note = f"a long tail: half below {middle:g}, 1 % above {high:g}"
        return Guess("numeric", note, {"scale": "log"})
    return Guess("numeric", f"{number.min():g} to {number.max():g}")


def _own_value_a_row(present: pl.Series, values: int, rows: int) -> bool:
    """Whether repeats among the drawn rows are rarer than if most values stood in two rows."""
    drawn = len(present)
    return drawn >= 20 and drawn - values <= 0.05 * drawn * min(1.0, drawn / rows)


def _epoch_unit(name: str, kind: str, present: pl.Series) -> TimeUnit | None:
    """What numbers that are named like a time count since 1970; None where they are no such time."""
    if kind not in ("integer", "floating") or not set(_words(name)) & _TIMES:
        return None
    low, high = float(present.min()), float(present.max())  # pyright: ignore[reportArgumentType]
    years = (5e8, 4e9)  # 1985 to 2096, in seconds
    for unit, ticks in PER_SECOND.items():
        if years[0] * ticks <= low and high <= years[1] * ticks:
            return unit
    return None


def _is_weight(name: str, facts: Facts) -> bool:
    named = "".join(_words(name)) in _WEIGHTS
    return named and facts.nulls == 0 and facts.lowest >= 0 and facts.highest > 0


def _words(name: str) -> list[str]:
    """Words of a name, lower case: ``userId``, ``user_id`` and ``USER-ID`` give user, id."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _short(present: pl.Series) -> str:
    text = repr(present[0]) if len(present) else "null"
    return text if len(text) <= 40 else f"{text[:37]}..."
