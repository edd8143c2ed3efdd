"""Encoders of version 1, in which a value's key followed the type that carried it.

Floats were kept by their bits, decimals by their text with its scale, dates by days, and integers of
64 bits without regard to sign. Here they become the keys of today, so that bundles of 0.1 score on.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.data.tables import values as v
from isthmus.data.tables.kinds import BOTH_SIGNS

REHASHED = ("floating", "decimal", "date")


def vocabulary(kind: str, values: pa.Array) -> tuple[str, pa.Array]:
    """Kind and values of a vocabulary as they are kept today; ids stay what they were."""
    if kind == "integer" and len(values) and pc.call_function("min", [values]).as_py() < 0:
        return BOTH_SIGNS, values
    if kind == "floating":
        return kind, v.keys(values.view(pa.float64()))
    if kind == "date":
        return kind, v.keys(pc.cast(pc.cast(values, pa.int32()), pa.date32()))
    if kind == "decimal":
        keys = v.digit_keys(v.plain_digits(values))
        # Two scales of one number were two values: the first, the more frequent one, stands for it.
        first = np.zeros(len(keys), dtype=bool)
        first[np.unique(keys, return_index=True)[1]] = True
        gone = v.mix(np.arange(len(keys), dtype=np.int64), seed=0x01D).view(np.int64)
        return kind, pa.array(np.where(first, keys, gone))
    return kind, values


def domain_names(names: Sequence[str], kind: str) -> list[str]:
    """Names of domains as they are written today: ``1.0`` is ``1``; one that would double stays."""
    if kind not in ("floating", "decimal"):
        return list(names)
    today = [str(int(float(name))) if float(name).is_integer() else name for name in names]
    if kind == "decimal":
        today = v.plain_digits(pa.array(names, pa.large_string())).to_pylist()
    return [old if today.count(new) > 1 else new for old, new in zip(names, today, strict=True)]
