"""Which columns a config needs and of what type each must be, checked before any row is read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from isthmus.data.encoding.clock import check_time, check_times
from isthmus.data.tables import Table, Way, refuse_empty
from isthmus.data.tables.faults import missing_column, wrong_type
from isthmus.data.tables.kinds import (
    MOMENTS,
    NUMBERS,
    TEXTS,
    UNUSABLE,
    comparable,
    decoded_name,
    is_list,
    item_type,
    joined,
    kind,
)
from isthmus.errors import SchemaError
from isthmus.schema import (
    Categorical,
    CategoricalList,
    DataConfig,
    Numeric,
    NumericList,
    Time,
    Vector,
)

ROLES = ("label", "weight", "time", "group")
DOMAIN = ""
"""Under which key the kind of the domain column stands among those of the vocabularies."""

_NUMERIC = (*NUMBERS, "null")
_TIME = ("integer", "floating", "decimal", *MOMENTS, "null")
_KNOWN: dict[str, Way] = {
    **dict.fromkeys(NUMBERS, "known_number"),
    **dict.fromkeys(MOMENTS, "known_moment"),
    **dict.fromkeys(TEXTS, "text"),
}


def needed(config: DataConfig, *, roles: Iterable[str]) -> list[str]:
    """Columns to read: the features, the domain, and the columns of these roles, each once."""
    found = {
        "label": config.label.column,
        "weight": config.weight,
        "time": config.time,
        "group": config.group,
    }
    extra = [found[role] for role in roles]
    columns = [*config.features, config.domain, *(name for name in extra if name is not None)]
    return list(dict.fromkeys(columns))


def vocabulary_name(config: DataConfig, feature: str) -> str:
    """Name of a categorical feature's vocabulary: the feature, or the feature that it shares with."""
    return getattr(config.features[feature], "shares", None) or feature


def as_used(table: Table, config: DataConfig, fitted: Mapping[str, str] | None = None) -> Table:
    """The table with its CSV columns read as the config uses them.

    ``fitted``: kind of the values of each vocabulary and of the domain, once they are known: the
    ids of a file that holds digits only are then text where the model was fitted on text.
    """
    ways: dict[str, Way] = {}
    for name, feature in config.features.items():
        if isinstance(feature, Numeric):
            ways[name] = "number"
        elif isinstance(feature, Categorical) and fitted is not None:
            known = fitted[vocabulary_name(config, name)]
            ways |= {name: _KNOWN[known]} if known in _KNOWN else {}
    if fitted is not None and fitted[DOMAIN] in _KNOWN:
        ways[config.domain] = _KNOWN[fitted[DOMAIN]]
    for column in (config.label.column if config.label.equals is None else None, config.weight):
        if column is not None:
            ways[column] = "number"
    return table.reading(ways)


def check_types(
    config: DataConfig,
    types: Mapping[str, pa.DataType],
    file: str,
    *,
    roles: Iterable[str],
    fitted: Mapping[str, str] | None = None,
) -> list[tuple[str, str, str]]:
    """Raise ``SchemaError`` where a column is missing or of a type that its kind cannot be.

    ``fitted``: kind of the values of each vocabulary and of the domain, once they are known. Gives
    what the file has of them, the domain first: name of the vocabulary (or `DOMAIN`), column, kind.
    A time stands among them by its own name.
    """
    roles = tuple(roles)
    for column in needed(config, roles=roles):
        if column not in types:
            raise missing_column(column, types, file)
    found: list[tuple[str, str, str]] = []
    for name, feature in config.features.items():
        dtype = types[name]
        got = decoded_name(dtype)
        listed = isinstance(feature, CategoricalList | NumericList | Vector)
        if listed and not is_list(dtype) and not pa.types.is_null(dtype):
            raise wrong_type(name, "be a list", got, file)
        if not listed and is_list(dtype):
            raise wrong_type(name, f"hold one value a row (it is {feature.kind})", got, file)
        if isinstance(feature, Time):
            found.append((name, name, check_time(name, feature, dtype, file)))
            continue
        have = kind(item_type(dtype))
        if not isinstance(feature, Categorical | CategoricalList):
            if have not in _NUMERIC:
                what = "be a list of numbers" if listed else "be numeric"
                raise wrong_type(name, what, got, file)
            continue
        if have in UNUSABLE:
            raise wrong_type(name, "hold plain values (it is categorical)", got, file)
        key = vocabulary_name(config, name)
        if fitted is not None and not comparable(fitted[key], have):
            raise wrong_type(name, f"be {fitted[key]} as when it was fitted", got, file)
        found.append((key, name, have))
    got, have = decoded_name(types[config.domain]), kind(types[config.domain])
    if have in UNUSABLE:
        raise wrong_type(config.domain, "hold plain values (it is the domain)", got, file)
    _check_roles(config, types, file, roles)
    return [(DOMAIN, config.domain, have), *found]


def _check_roles(
    config: DataConfig, types: Mapping[str, pa.DataType], file: str, roles: tuple[str, ...]
) -> None:
    label = config.label.column
    wanted = {
        "label": (label, "be numeric or boolean (it is the label)", _NUMERIC),
        "weight": (config.weight, "be numeric (it is the weight)", _NUMERIC),
        "time": (config.time, "be a number, a date or a timestamp (it is the time)", _TIME),
    }
    if config.label.equals is not None:
        usable = (*NUMBERS, *TEXTS, *MOMENTS, "null")
        wanted["label"] = (label, "hold plain values (it is the label)", usable)
    for role in roles:
        column, rule, kinds = wanted.get(role, (None, "", ()))
        if column is not None and kind(types[column]) not in kinds:
            fault = wrong_type(column, rule, decoded_name(types[column]), file)
            if role == "label" and config.label.equals is None:
                way_out = f"label: {{column: {label}, equals: VALUE}}"
                raise SchemaError(f"{fault}; a value makes a row positive with {way_out}")
            raise fault
    if "group" in roles and config.group is not None and kind(types[config.group]) in UNUSABLE:
        got = decoded_name(types[config.group])
        raise wrong_type(config.group, "hold plain values (it is the group)", got, file)


def value_kinds(
    config: DataConfig,
    schemas: Iterable[tuple[str, Mapping[str, pa.DataType]]],
    *,
    roles: Iterable[str],
) -> dict[str, str]:
    """Kind of the values of every vocabulary and time, over all files and all features that share it.

    Kinds of one family meet in the wider one: integers and floats are floats. The kind of the
    domain, which must be of one family in all files, stands under the key `DOMAIN`. Raises
    ``SchemaError`` as `check_types` does, of each file, and where two files disagree.
    """
    roles, schemas = tuple(roles), list(schemas)
    found = [(file, check_types(config, types, file, roles=roles)) for file, types in schemas]
    kinds: dict[str, str] = {DOMAIN: "null"}
    where: dict[str, str] = {}
    for file, columns in found:
        for key, column, have in columns:
            seen = kinds.setdefault(key, "null")
            if not comparable(seen, have):
                rule = f"have one type everywhere ({seen} in {where[key]})"
                raise wrong_type(column, rule, have, file)
            kinds[key] = joined(seen, have)
            if kinds[key] != seen:
                where[key] = f"{column!r} of {file}"
    times = {name: one for name, one in config.features.items() if isinstance(one, Time)}
    check_times(times, schemas, kinds)
    return kinds


@dataclass(frozen=True, slots=True)
class Usage:
    """How a config uses a table: all that follows from the two before a row is encoded.

    ``table``: with its CSV columns read as the config uses them. ``kinds``: `value_kinds` of the
    table; the domain's is the kind by which its values are named. ``moments``: whether ``data.time``
    holds dates or timestamps rather than numbers.
    """

    config: DataConfig
    table: Table
    kinds: Mapping[str, str]
    moments: bool

    @classmethod
    def of(cls, config: DataConfig, table: Table) -> "Usage":
        """Decide it. Raises ``SchemaError`` for a table without a row, or of other columns."""
        refuse_empty(table)
        table = as_used(table, config)
        table.check_usable(needed(config, roles=ROLES))
        kinds = value_kinds(config, table.schemas, roles=ROLES)
        times = {kind(types[config.time]) for _, types in table.schemas} if config.time else ()
        return cls(
            config=config,
            table=table,
            kinds={**kinds, DOMAIN: table.name_kind(config.domain)},
            moments=any(found in MOMENTS for found in times),
        )
