"""One column in every role: the rows of a `Kind`, a table of them, and what they are once encoded.

The roles are tried together, each in a column of its own (``as_domain``, ``as_weight``), for one
encoding of a table takes longer than all else; where that fails, each is tried alone, so that a
fault of one role is told of that one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import torch

import carriers as a
import isthmus
from isthmus.data import SPLITS, Dataset
from isthmus.models import build_model

ROWS = 160
FEATURES: dict[str, dict[str, Any]] = {
    "categorical": {"kind": "categorical"},
    "categorical_list": {"kind": "categorical_list"},
    "numeric": {"kind": "numeric"},
    "numeric_list": {"kind": "numeric_list", "scale": "none"},
    "vector": {"kind": "vector", "width": 2},
}
LISTS = ("categorical_list", "numeric_list", "vector")
NUMERIC = ("numeric", "numeric_list", "vector")
IDS = ("categorical", "categorical_list", "domain", "group")
ROLES = (*FEATURES, "domain", "group", "time", "label", "label_equals", "weight")
READ = ("label", "weight", "group")  # what a labelled table is read for, besides its features


def base(rows: int = ROWS) -> pa.Table:
    """Columns that are the same in every table: a domain, a label and a feature."""
    random = np.random.default_rng(5)
    return pa.table(
        {
            "tab": random.choice(["a", "b", "c"], rows).tolist(),
            "click": random.integers(0, 2, rows),
            "x": random.normal(size=rows),
        }
    )


def config(roles: Sequence[str], *, by: str | None = None, equals: Any = None) -> isthmus.Config:
    """A config with a column ``as_ROLE`` in each of these roles."""
    column = {role: f"as_{role}" for role in roles}
    label: Any = column.get("label", "click")
    if "label_equals" in roles:
        label = {"column": "as_label_equals", "equals": equals}
    found = {"time": "time", "group": "user"}
    by = by or next((found[role] for role in found if role in roles), "random")
    data = {
        "domain": column.get("domain", "tab"),
        "label": label,
        "features": {"x": "numeric"}
        | {column[role]: FEATURES[role] for role in roles if role in FEATURES},
        "split": {"by": by, "fractions": [0.6, 0.2, 0.2]},
        **{role: column[role] for role in ("group", "time", "weight") if role in roles},
    }
    model = {"backbone": {"name": "mlp", "widths": [4]}, "adapter": {"name": "none"}}
    return isthmus.load_config({"data": data, "model": model | {"towers": "per_domain"}})


# ---------------------------------------------------------------- rows


def playable(kind: a.Kind, door: str) -> tuple[str, ...]:
    """The roles that a kind can play behind a door."""
    roles = ["categorical", "categorical_list", "domain", "group"]
    if kind.family == "number":
        roles = [role for role in ROLES if role != "time" or not is_boolean(kind)]
    if kind.family == "moment":
        roles.append("time")
    if kind.family == "text":
        roles.append("label_equals")
    for role in tuple(roles):
        item = a.list_type(kind.carrier)
        cannot = role in LISTS and (door == "csv" or not a.passes(door, item))
        # A second encoding; the other doors bring the same arrays as these.
        second = role in in_second(kind) and door not in ("parquet", "csv", "table")
        no_label = role == "label" and not a.holds(kind.carrier, 1)
        if cannot or second or no_label:
            roles.remove(role)
    return tuple(roles)


def in_second(kind: a.Kind) -> tuple[str, ...]:
    """The roles for which one config with all the others has no place: it has one label, one split."""
    return ("time",) if kind.family == "text" else ("time", "label_equals")


def is_boolean(kind: a.Kind) -> bool:
    """Whether the kind is of booleans: those are no times, and too few groups for a split."""
    return kind.carrier == pa.bool_()


def _filler(kind: a.Kind) -> list[Any]:
    """Further values, for roles where a handful would leave a split empty."""
    carrier = a.scalar_type(kind.carrier)
    if kind.family == "number":
        step = 10 ** max(0, -getattr(carrier, "scale", 0))
        return [] if is_boolean(kind) else [step * i for i in range(40)]
    if kind.family == "text":
        return [f"g{i}" for i in range(40)]
    if kind.family == "bytes":
        width = next(len(value) for value in kind.values if value)
        return [bytes([255, i]).ljust(width, b"k") for i in range(40)]
    return [i * (a.DAY if kind.family == "moment" else a.SECOND) for i in range(40)]


def _pool(kind: a.Kind, values: Sequence[Any], role: str) -> list[Any]:
    if role == "label":
        return [0, 1]
    if role == "weight":
        return [value for value in values if value > 0]
    return [*values, *(_filler(kind) if role in ("group", "time") else [])]


def content(kind: a.Kind, door: str) -> dict[str, list[Any]]:
    """Rows of every playable role; the same for kinds of the same values."""
    halves = [kind.values, kind.values]
    if door in a.FILES and kind.beside_values:
        halves[1] = kind.beside_values
    # What pandas holds with a null becomes float64, before this package sees it.
    all_small = all(isinstance(v, str | bytes) or abs(v) <= 2**24 for v in sum(halves, ()))
    nulls = door != "pandas" or kind.family != "number" or all_small
    found = {}
    for role in playable(kind, door):
        random = np.random.default_rng(crc32(role.encode()))
        rows: list[Any] = []
        for values in halves:
            pool = _pool(kind, values, role)
            share = np.ones(len(pool)) / len(pool)
            if role in ("categorical", "domain"):  # some are more frequent than others
                share = 1 / np.arange(1, len(pool) + 1)
            picks = random.choice(len(pool), (ROWS // 2, 3), p=share / share.sum()).tolist()
            sizes = random.integers(0, 4, ROWS // 2).tolist()
            for pick, size in zip(picks, sizes, strict=True):
                items = [pool[i] for i in pick]
                if role in LISTS:
                    rows.append(items[:2] if role == "vector" else items[:size])
                else:
                    rows.append(items[0])
        may_be_null = role in FEATURES and nulls
        found[role] = [None if may_be_null and i % 17 == 5 else row for i, row in enumerate(rows)]
    return found


def parts(
    rows: Mapping[str, Sequence[Any]],
    types: Sequence[pa.DataType | Callable[[str], pa.DataType]],
    *,
    layout: str = "list",
) -> list[pa.Table]:
    """The rows as one table for each type; a function gives the type of each role."""
    size = max((len(column) for column in rows.values()), default=ROWS)
    whole, step = base(size), -(-size // len(types))
    made = []
    for number, dtype in enumerate(types):
        start, stop = number * step, min((number + 1) * step, size)
        columns = dict(
            zip(whole.column_names, whole.slice(start, stop - start).columns, strict=True)
        )
        for role, column in rows.items():
            of = dtype(role) if callable(dtype) else dtype
            piece = list(column[start:stop])
            columns[f"as_{role}"] = (
                a.listed(piece, of, layout) if role in LISTS else a.carried(piece, of)
            )
        made.append(pa.table(columns))
    return made


def values_in(column: Sequence[Any]) -> list[Any]:
    """The values of a column, those of lists one by one, without nulls."""
    flat = [x for row in column for x in (row if isinstance(row, list) else [row])]
    return [value for value in flat if value is not None]


def plain(
    rows: Mapping[str, Sequence[Any]], of: str, *, dates: bool = False, booleans: bool = False
) -> pa.Table:
    """The plain form: one Arrow table, each column in the plainest type that holds its values.

    ``dates``, ``booleans``: the domain is a column of such, and its names are spelled so.
    """

    def of_role(role: str) -> pa.DataType:
        named = {"dates": dates, "booleans": booleans} if role == "domain" else {}
        return a.plain_type(values_in(rows[role]), of, **named)

    return parts(rows, [of_role])[0]


# ---------------------------------------------------------------- encoded


@dataclass(frozen=True)
class Seen:
    """What a table is once encoded: for each role, and ``split``, one entry a row, in its order."""

    by_role: dict[str, list[Any]]
    encoder: Any
    config: isthmus.Config


def _by_role(given: isthmus.Config, piece: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """Encoded rows, of a dataset or of a block to score. ``names``: of the domain's ids from 1."""
    kinds = {name: feature.kind for name, feature in given.data.features.items()}
    categorical = [name for name, kind in kinds.items() if kind == "categorical"]
    numeric = [name for name, kind in kinds.items() if kind == "numeric"]
    lists = [name for name, kind in kinds.items() if kind.endswith("_list")]
    found: dict[str, list[Any]] = {}
    for name, kind in kinds.items():
        if kind == "categorical":
            found[name] = piece.categorical[:, categorical.index(name)].tolist()
        elif kind == "numeric":
            found[name] = piece.numeric[:, numeric.index(name)].tolist()
        elif kind == "vector":
            found[name] = piece.numeric[:, len(numeric) :].tolist()
        else:
            values, offsets = piece.lists[lists.index(name)]
            found[name] = [
                np.asarray(values[start:stop]).tolist() for start, stop in pairwise(offsets)
            ]
    roles = {name.removeprefix("as_"): column for name, column in found.items()}
    roles["domain"] = [names[i - 1] if i else None for i in piece.domain.tolist()]
    for role in ("label", "weight"):
        column = getattr(piece, role)
        roles[role] = [] if column is None else column.tolist()
    roles["label_equals"] = roles["label"]
    return roles


def joined(pieces: Sequence[dict[str, list[Any]]], order: np.ndarray) -> dict[str, list[Any]]:
    """Pieces of rows put together, in this order of them all."""
    found = {}
    for role in pieces[0]:
        column = [entry for piece in pieces for entry in piece[role]]
        found[role] = [column[i] for i in order] if column else []
    return found


def at_fit(given: isthmus.Config, source: Any) -> Seen:
    """Encode a table as a fit does, and keep no file of it."""
    with TemporaryDirectory() as cache:
        dataset = Dataset.from_table(given.data, source, cache=cache)
        pieces, row = [], []
        for number, split in enumerate(SPLITS):
            rows = dataset.rows(split)
            piece = _by_role(given, rows.arrays, dataset.domain_names)
            piece["domain"] = [dataset.domain_names[i - 1] for i in rows.domain.tolist()]
            piece["group"] = [] if rows.group is None else rows.group.tolist()
            piece["split"] = piece["time"] = [number] * len(rows)
            pieces.append(piece)
            row += rows.row.tolist()
    assert sorted(row) == list(range(len(row)))
    return Seen(joined(pieces, np.argsort(row)), dataset.encoder, given)


def at_score(bundle: isthmus.Bundle, source: Any, roles: Sequence[str] = ()) -> dict[str, list]:
    """Encode and score a table as `Bundle.score` and ``evaluate`` do; ``scores`` are the logits."""
    read = tuple(role for role in READ if role in roles or f"{role}_equals" in roles)
    pieces = []
    for scored in bundle.score_blocks(source, roles=read):  # type: ignore[arg-type]
        encoded = scored.encoded
        piece = _by_role(bundle.config, encoded, bundle.domains)
        piece["group"] = [] if encoded.group is None else encoded.group.tolist()
        pieces.append(piece | {"scores": scored.logits.tolist()})
    return joined(pieces, np.arange(sum(len(piece["scores"]) for piece in pieces)))


def bundle_of(seen: Seen) -> isthmus.Bundle:
    """A model without training, whose weights are large enough for each id to show in the score."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build_model(seen.config.model, seen.encoder.fields, seen.encoder.n_domains)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.5)
    return isthmus.Bundle(config=seen.config, encoder=seen.encoder, model=model)


# ---------------------------------------------------------------- what must be


def check_same(found: list[Any], plain: list[Any], role: str) -> None:
    """Assert that rows are encoded as their plain form is."""
    assert found
    if role in (*NUMERIC, "scores"):
        _check_close(found, plain, 1e-5)
    else:
        assert found == plain


def _check_close(found: list[Any], wanted: list[Any], tolerance: float) -> None:
    """Numbers, or lists of them, row by row."""
    if found and isinstance(found[0], list):
        assert [len(row) for row in found] == [len(row) for row in wanted]
        found, wanted = (list(chain.from_iterable(column)) for column in (found, wanted))
    as_floats = [float(value) for value in wanted]
    np.testing.assert_allclose(found, as_floats, rtol=tolerance, atol=tolerance)


def check_values(
    seen: Mapping[str, list[Any]], values: Sequence[Any], role: str, equals: Any = None
) -> None:
    """Assert that rows are encoded as their values ask, whatever the plain form became."""
    found, split = seen[role], seen["split"]
    if role == "time":
        moments: list[list[Any]] = [[], [], []]
        for value, number in zip(values, found, strict=True):
            moments[number].append(a.same(value))
        assert max(moments[0]) < min(moments[1])
        assert max(moments[1]) < min(moments[2])
    elif role == "label":
        assert found == list(values)
    elif role == "label_equals":
        assert found == [a.same(value) == a.same(equals) for value in values]
        assert 0 < sum(found) < len(found)
    elif role in ("weight", "vector", "numeric_list"):
        empty = [0.0, 0.0] if role == "vector" else []
        _check_close(found, [empty if value is None else value for value in values], 1e-6)
    elif role == "numeric":
        known = np.array(
            [float(v) for v, at in zip(values, split, strict=True) if v is not None and at == 0]
        )
        spread = known.std() if known.std() > 1e-9 * abs(known).max() else 1.0
        wanted = [0.0 if v is None else (float(v) - known.mean()) / spread for v in values]
        _check_close(found, wanted, 1e-4)
    else:
        _check_ids(found, values, split, role)


def _check_ids(found: list[Any], values: Sequence[Any], split: list[int], role: str) -> None:
    """One value, one id, and the other way round; 0 for what no train row holds."""
    meaning: dict[Any, Any] = {}
    for trained in (True, False):
        for got, row, number in zip(found, values, split, strict=True):
            if (number == 0) != trained and role in FEATURES:
                continue
            entries = zip(got, row or (), strict=True) if role in LISTS else [(got, row)]
            for one, value in entries:
                if trained or role not in FEATURES:
                    assert meaning.setdefault(a.same(value), one) == one
                    assert role not in FEATURES or (one == 0) == (value is None)
                else:
                    assert one == meaning.get(a.same(value), 0)
    known = [one for value, one in meaning.items() if value is not None]
    assert len(set(known)) == len(known)
