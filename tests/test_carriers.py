"""A value keeps its identity whatever carries it: every kind, in every role, through every door.

Each case is compared twice: with the plain form of the same values (one Arrow table of int64, float64,
text, date32 or timestamp[us]), and with the Python values themselves, so that two equal mistakes are
no agreement.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import carried_rows as rows
import carriers as a
import isthmus
from carried_kinds import KINDS, ways_to_fit, ways_to_score
from carriers import FILES, Kind
from isthmus.data import SPLITS
from small_runs import weights


def cases(ways: Callable[[Kind], list[str]]) -> list[Any]:
    return [
        pytest.param(name, role, door, id=f"{name}-{role}-{door}")
        for name, kind in KINDS.items()
        for door in ways(kind)
        for role in (*rows.playable(kind, door), "scores")
    ]


# ---------------------------------------------------------------- all roles at once, or one


class Carried:
    """What is encoded and scored, kept: the cases of one kind and door ask for it role by role."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[Any, Any] = {}
        self._sources = 0

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Make something, or fail, once."""
        if key not in self._made:
            try:
                self._made[key] = make()
            except Exception as fault:  # noqa: BLE001 it is raised for each case that asks
                self._made[key] = fault
        found = self._made[key]
        if isinstance(found, Exception):
            raise found
        return found

    def source(self, kind: Kind, door: str, content: dict[str, list[Any]]) -> Any:
        """The content in its carriers, at the door."""
        types = [kind.carrier]
        if door in FILES:
            beside = kind.beside_values or kind.values
            types.append(kind.beside or a.plain_type(beside, kind.family))
        self._sources += 1
        return a.through(door, rows.parts(content, types), self.folder / f"source-{self._sources}")

    def names(self, kind: Kind, door: str) -> dict[str, bool]:
        """How the domains of a fit on this kind are spelled: by what every file holds."""
        types = [kind.carrier, kind.beside or a.plain_type(kind.values, kind.family)]
        types = types if door in FILES else types[:1]
        return {
            "dates": all(a.lands_as_date(door, dtype) for dtype in types),
            "booleans": all(dtype == pa.bool_() for dtype in types),
        }

    def content(self, kind: Kind, door: str, roles: Sequence[str]) -> dict[str, list[Any]]:
        """Rows of these roles, and no others."""
        found = self.once(("content", kind.name, door), lambda: rows.content(kind, door))
        return {role: found[role] for role in roles}

    def plain(self, kind: Kind, door: str, roles: Sequence[str], **names: bool) -> rows.Seen:
        """The plain form of a kind's rows, as a fit encodes them."""

        def make() -> rows.Seen:
            content = self.content(kind, door, roles)
            given = rows.config(roles, by=self.split_of(kind, roles), equals=equals(kind))
            table = rows.plain(content, kind.family, **names)
            # Kinds of the same values have one plain form.
            key = ("encoded", kind.family, repr(content), repr(names))
            return self.once(key, lambda: rows.at_fit(given, table))

        return self.once(("plain", kind.name, door, roles, repr(names)), make)

    def bundle(self, kind: Kind, door: str, roles: Sequence[str]) -> isthmus.Bundle:
        """A model over the plain form of a kind's rows."""
        seen = self.plain(kind, door, roles)
        return self.once(("bundle", id(seen)), lambda: rows.bundle_of(seen))

    def scored(self, kind: Kind, door: str, roles: Sequence[str]) -> dict[str, list]:
        """The plain form of a kind's rows, as that model scores them."""
        bundle = self.bundle(kind, door, roles)

        def make() -> dict[str, list]:
            table = rows.plain(self.content(kind, door, roles), kind.family)
            return rows.at_score(bundle, table, roles)

        return self.once(("scored", id(bundle)), make)

    @staticmethod
    def split_of(kind: Kind, roles: Sequence[str]) -> str | None:
        return "random" if rows.is_boolean(kind) and "group" in roles else None


def equals(kind: Kind) -> Any:
    """The value of the positive rows, for a label that equals one."""
    return bool(kind.values[1]) if rows.is_boolean(kind) else kind.values[1]


def together(kind: Kind, door: str, role: str) -> list[tuple[str, ...]]:
    """The roles to try with this one: all that one config can hold, then the one alone."""
    second = rows.in_second(kind)
    joint = tuple(x for x in rows.playable(kind, door) if (x in second) == (role in second))
    return [joint] if role == "scores" else [joint, (role,)]


def first_whole(tries: Sequence[tuple[str, ...]], make: Callable[[tuple[str, ...]], Any]) -> Any:
    for roles in tries[:-1]:
        try:
            return make(roles)
        except Exception:  # noqa: BLE001 some role is at fault: perhaps another one
            continue
    return make(tries[-1])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Carried:
    return Carried(tmp_path_factory.mktemp("carried"))


@pytest.fixture(autouse=True)
def isolated_cache() -> None:
    """Nothing is cached but where a folder is named: a folder for each case takes longer than it."""


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(("name", "role", "door"), cases(ways_to_fit))
def test_a_value_is_itself_at_fit(name: str, role: str, door: str, world: Carried) -> None:
    kind = KINDS[name]

    def fitted(roles: tuple[str, ...]) -> tuple[rows.Seen, rows.Seen, dict[str, list]]:
        def make() -> tuple[rows.Seen, rows.Seen, dict[str, list]]:
            given = rows.config(roles, by=world.split_of(kind, roles), equals=equals(kind))
            chosen = world.content(kind, door, roles)
            seen = rows.at_fit(given, world.source(kind, door, chosen))
            plain = world.plain(kind, door, roles, **world.names(kind, door))
            # The encoder of one with the model of the other: ids must mean the same to both.
            model = world.bundle(kind, door, roles).model
            mixed = isthmus.Bundle(config=given, encoder=seen.encoder, model=model)
            return seen, plain, rows.at_score(mixed, rows.plain(chosen, kind.family))

        return world.once(("fit", name, door, roles), make)

    tries = together(kind, door, role)
    seen, plain, scored = first_whole(tries, fitted)
    if role == "scores":
        want = world.scored(kind, door, tries[0])["scores"]
        np.testing.assert_allclose(scored["scores"], want, rtol=1e-5, atol=1e-5)
        return
    rows.check_same(seen.by_role[role], plain.by_role[role], role)
    assert seen.by_role["split"] == plain.by_role["split"]
    assert seen.encoder.domains == plain.encoder.domains
    values = world.content(kind, door, (role,))[role]
    rows.check_values(seen.by_role, values, role, equals(kind))
    if role == "group" and not rows.is_boolean(kind):  # who is tested has not trained
        parted = set(zip(seen.by_role[role], seen.by_role["split"], strict=True))
        assert len(parted) == len(set(seen.by_role[role]))
    if role == "domain":
        spelled = world.names(kind, door)
        names = [a.named(x, kind.family, **spelled) for x in values]
        found = seen.by_role[role]
        assert found == [
            had if name is None else name for name, had in zip(names, found, strict=True)
        ]


@pytest.mark.parametrize(
    ("name", "role", "door"), [case for case in cases(ways_to_score) if case.values[1] != "time"]
)
def test_a_value_is_itself_at_score(name: str, role: str, door: str, world: Carried) -> None:
    kind = KINDS[name]

    def scored(roles: tuple[str, ...]) -> tuple[dict[str, list], dict[str, list]]:
        def make() -> tuple[dict[str, list], dict[str, list]]:
            bundle = world.bundle(kind, door, roles)
            source = world.source(kind, door, world.content(kind, door, roles))
            return rows.at_score(bundle, source, roles), world.scored(kind, door, roles)

        return world.once(("score", name, door, roles), make)

    found, plain = first_whole(together(kind, door, role), scored)
    if role == "group":  # what evaluate makes of keys: their order
        found, plain = (
            {role: np.unique(x[role], return_inverse=True)[1].tolist()} for x in (found, plain)
        )
    rows.check_same(found[role], plain[role], role)
    assert role != "scores" or len(set(found[role])) > rows.ROWS / 2


# ---------------------------------------------------------------- lists of every layout


LISTED = (
    *("int8", "bool", "halffloat-tenths", "decimal32-scale3", "uint64-huge", "decimal128-scale9"),
    *("dictionary-int8-int64", "run-ends-int64", "string", "string_view-empty", "uuid", "binary"),
    *("dictionary-int8-string", "dictionary-uint64-string", "run-ends-int32-string", "date64"),
    *("binary-of-text", "fixed-size-binary", "date32", "timestamp-ns-fine", "timestamp-s-berlin"),
    *("dictionary-int8-timestamp", "time32-s", "duration-s"),
)


@pytest.mark.parametrize("layout", a.LAYOUTS)
@pytest.mark.parametrize("name", LISTED)
def test_lists_are_the_same_in_every_layout(name: str, layout: str, world: Carried) -> None:
    kind = KINDS[name]
    roles = rows.LISTS if kind.family == "number" else ("categorical_list",)
    pairs = [[x, kind.values[0]] for x in (kind.values * rows.ROWS)[: rows.ROWS - 1]]
    content: dict[str, list[Any]] = {role: [None, *pairs] for role in roles}
    given, plain = rows.config(roles), rows.plain(content, kind.family)
    want = world.once(("listed", name), lambda: rows.at_fit(given, plain))
    parts = rows.parts(content, [kind.carrier], layout=layout)
    if layout in ("fixed_size_list", "list_view"):  # the large ones differ in widths alone
        seen = rows.at_fit(given, parts[0])
        for role in roles:
            rows.check_same(seen.by_role[role], want.by_role[role], role)
            rows.check_values(seen.by_role, content[role], role)
    bundle = world.once(("listed", name, "bundle"), lambda: rows.bundle_of(want))
    scores = world.once(("listed", name, "scores"), lambda: bundle.score(plain))
    for door in ("parquet", "pandas", "polars", "reader", "duckdb"):
        if a.passes(door, a.list_type(kind.carrier, layout)):
            source = a.through(door, parts, world.folder / f"{name}-{layout}-{door}")
            np.testing.assert_allclose(bundle.score(source), scores, rtol=1e-5)


# ---------------------------------------------------------------- what has no plain form


@pytest.mark.parametrize("dtype", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_nan_is_a_null_in_a_category(dtype: pa.DataType, world: Carried) -> None:
    values = np.array([1.0, np.nan, 2.5, 3.0] * 40)
    column = pa.array(values.astype(dtype.to_pandas_dtype()), from_pandas=False)
    assert column.null_count == 0
    given = rows.config(("categorical", "categorical_list"))
    lists = pa.ListArray.from_arrays(pa.array(range(161), pa.int32()), column)
    table = rows.base().append_column("as_categorical", column)
    table = table.append_column("as_categorical_list", lists)
    seen = rows.at_fit(given, table).by_role
    nothing = [None if np.isnan(value) else value for value in values.tolist()]
    rows.check_values(seen, nothing, "categorical")
    assert seen["categorical_list"] == [[one] for one in seen["categorical"]]


@pytest.mark.parametrize(("dtype", "width"), [(pa.binary(4), 4), (pa.uuid(), 16)], ids=str)
def test_bytes_of_one_length_are_bytes_though_they_spell_a_text(
    dtype: pa.DataType, width: int, world: Carried
) -> None:
    values = [letter * width for letter in (b"a", b"b", b"c")]
    column = a.carried([values[i % 3] for i in range(rows.ROWS)], dtype)
    table = rows.base().append_column("as_domain", column)
    seen = rows.at_fit(rows.config(("domain",)), table)
    assert seen.encoder.domains == tuple(value.hex() for value in values)


def test_rows_to_score_that_happen_to_spell_a_text_are_the_bytes_they_were(world: Carried) -> None:
    values = [b"\xff\x00\x01", b"abc", b"ab", b""]
    column = a.carried([values[i % 4] for i in range(rows.ROWS)], pa.binary())
    table = rows.base().append_column("as_domain", column).append_column("as_categorical", column)
    seen = rows.at_fit(rows.config(("domain", "categorical")), table)
    bundle = rows.bundle_of(seen)
    texts = table.filter(pa.array([i % 4 > 0 for i in range(rows.ROWS)]))
    want = bundle.score(table)[[i for i in range(rows.ROWS) if i % 4]]
    np.testing.assert_allclose(bundle.score(texts), want, rtol=1e-6)
    alone = rows.at_fit(rows.config(("domain",)), texts)
    assert alone.encoder.domains == ("", "ab", "abc")  # a column of such values only is text


@pytest.mark.parametrize(
    "name", ["int64", "halffloat-tenths", "decimal64-scale4", "float-whole", "date64"]
)
def test_chosen_domains_are_found_in_every_carrier(name: str, world: Carried) -> None:
    kind = KINDS[name]
    values = [kind.values[i % 4] for i in range(rows.ROWS)]
    table = rows.base().append_column("as_domain", a.carried(values, kind.carrier))
    names = [a.named(value, kind.family, dates=kind.family == "moment") for value in values]
    given = rows.config(("domain",)).data.model_copy(update={"domains": (names[1], names[2])})
    dataset = isthmus.Dataset.from_table(given, table, cache=world.folder / "cache")
    kept = sorted(i for split in SPLITS for i in dataset.rows(split).row)
    assert kept == [i for i in range(rows.ROWS) if i % 4 in (1, 2)]
    assert set(dataset.domain_names) == {names[1], names[2]}


@pytest.mark.parametrize("name", ["int64-beside-float64", "decimal128-whole", "bool", "uuid"])
def test_a_whole_fit_has_the_same_weights_and_scores(
    name: str, world: Carried, tmp_path: Path, one_thread: None
) -> None:
    kind = KINDS[name]
    roles = ("categorical", "domain", "group")
    content, names = world.content(kind, "parquet", roles), world.names(kind, "parquet")
    given = rows.config(roles, by=world.split_of(kind, roles))
    given = given.model_copy(update={"train": given.train.model_copy(update={"epochs": 1})})
    files = world.source(kind, "parquet", content)
    plain = rows.plain(content, kind.family, **names)
    runs = [
        isthmus.fit(given, source, tmp_path / place, cache=tmp_path / "cache")
        for place, source in (("files", files), ("plain", plain))
    ]
    assert runs[0].bundle.domains == runs[1].bundle.domains
    assert weights(runs[0]) == weights(runs[1])
    assert runs[0].predict(files).tolist() == runs[1].predict(plain).tolist()
    assert runs[0].evaluate().pooled == runs[1].evaluate().pooled
