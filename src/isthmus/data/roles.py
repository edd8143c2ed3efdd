"""Which columns a config needs and of what type each must be, checked before any row is read."""

from collections.abc import Iterable, Mapping

import pyarrow as pa

from isthmus.data import values as v
from isthmus.data.faults import missing_column, wrong_type
from isthmus.schema import Categorical, CategoricalList, DataConfig, NumericList, Vector

_TIME = ("integer", "floating", "date", "timestamp", "null")
_NUMERIC = (*v.NUMBERS, "decimal", "null")


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
    """Name of the vocabulary of a categorical feature: its own, or that of the one it shares."""
    return getattr(config.features[feature], "shares", None) or feature


def check_types(
    config: DataConfig,
    types: Mapping[str, pa.DataType],
    file: str,
    *,
    roles: Iterable[str],
    fitted: Mapping[str, str] | None = None,
) -> None:
    """Raise ``SchemaError`` where a column is missing or of a type that its kind cannot be.

    ``fitted``: kind of the values of each vocabulary, where they are known already.
    """
    roles = tuple(roles)
    for column in needed(config, roles=roles):
        if column not in types:
            raise missing_column(column, types, file)
    for name, feature in config.features.items():
        dtype = types[name]
        got = v.decoded_name(dtype)
        listed = isinstance(feature, CategoricalList | NumericList | Vector)
        if listed and not v.is_list(dtype) and not pa.types.is_null(dtype):
            raise wrong_type(name, "be a list", got, file)
        if not listed and v.is_list(dtype):
            raise wrong_type(name, f"hold one value a row (it is {feature.kind})", got, file)
        have = v.kind(v.item_type(dtype))
        if not isinstance(feature, Categorical | CategoricalList):
            if have not in _NUMERIC:
                what = "be a list of numbers" if listed else "be numeric"
                raise wrong_type(name, what, got, file)
            continue
        if have in ("other", "list"):
            raise wrong_type(name, "hold plain values (it is categorical)", got, file)
        known = None if fitted is None else fitted[vocabulary_name(config, name)]
        if known is not None and not v.comparable(known, have):
            raise wrong_type(name, f"be {known} as when it was fitted", got, file)
    if v.kind(types[config.domain]) in ("list", "other"):
        got = v.decoded_name(types[config.domain])
        raise wrong_type(config.domain, "hold plain values (it is the domain)", got, file)
    _check_roles(config, types, file, roles)


def _check_roles(
    config: DataConfig, types: Mapping[str, pa.DataType], file: str, roles: tuple[str, ...]
) -> None:
    wanted = {
        "label": (config.label.column, "be numeric or boolean (it is the label)", _NUMERIC),
        "weight": (config.weight, "be numeric (it is the weight)", _NUMERIC),
        "time": (config.time, "be a number, a date or a timestamp (it is the time)", _TIME),
    }
    for role in roles:
        column, rule, kinds = wanted.get(role, (None, "", ()))
        if column is not None and v.kind(types[column]) not in kinds:
            raise wrong_type(column, rule, v.decoded_name(types[column]), file)
    if "group" in roles and config.group is not None:
        got = v.kind(types[config.group])
        if got in ("list", "other"):
            raise wrong_type(config.group, "hold plain values (it is the group)", got, file)


def value_kinds(
    config: DataConfig, schemas: Iterable[tuple[str, Mapping[str, pa.DataType]]]
) -> dict[str, str]:
    """Kind of the values of every vocabulary, over all files and all features that share it.

    Numbers of different kinds meet in the wider one: integers and floats are floats. Also checks
    that the domain is of one kind in all files; its kind stands under the key ``""``.
    """
    kinds: dict[str, str] = {"": "null"}
    where: dict[str, str] = {}
    order = {"null": 0, "boolean": 1, "integer": 2, "floating": 3}
    for file, types in schemas:
        found = [("", config.domain, v.kind(types[config.domain]))]
        for name, feature in config.features.items():
            if isinstance(feature, Categorical | CategoricalList):
                have = v.kind(v.item_type(types[name]))
                found.append((vocabulary_name(config, name), name, have))
        for key, column, have in found:
            seen = kinds.setdefault(key, "null")
            if not v.comparable(seen, have):
                rule = f"have one type everywhere ({seen} in {where[key]})"
                raise wrong_type(column, rule, have, file)
            if seen == "null" or order.get(have, 0) > order.get(seen, 9):
                kinds[key], where[key] = have, f"{column!r} of {file}"
    return kinds
