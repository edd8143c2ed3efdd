"""Values of a domain's column from the names of domains: the other way round than encoding."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from isthmus.data.tables import values as v

# In which type a column of nulls alone takes the values of a domain of each kind.
_FOR_NULLS: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "floating": pa.float64(),
    "boolean": pa.bool_(),
}


def values_named(names: Sequence[str], kind: str, dtype: pa.DataType) -> pa.Array | None:
    """Values (names,) of a column's type that encode to these domains; None where there are none.

    ``kind``: of the values that the domains were fitted on. ``dtype``: null for a column of nulls alone.
    """
    wanted = pa.array(names, pa.string())
    to = _FOR_NULLS.get(kind) if pa.types.is_null(dtype) else dtype
    try:
        values = None if to is None else wanted.cast(to)
    except pa.ArrowException:
        return None
    if values is None or v.names(values, kind).cast(pa.string()) != wanted:
        return None
    return values
