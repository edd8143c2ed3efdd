"""What the train rows say of one column of numbers: its scale, and the bins of its embedding."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from isthmus.data.encoding.numbers.bins import bin_edges
from isthmus.data.encoding.numbers.drawn import Drawn, hashes, item_hashes
from isthmus.data.encoding.numbers.quantiles import QuantileScaler, quantile_scaler
from isthmus.data.encoding.numbers.scaler import Scaler, ScalerFit
from isthmus.data.tables import columns as c
from isthmus.schema import Numeric, NumericList

AnyScaler = Scaler | QuantileScaler


class NumberFit:
    """Gathers what a column's numbers need, block by block."""

    def __init__(self, name: str, feature: Numeric | NumericList) -> None:
        self._name = name
        self._feature = feature
        self._binned = isinstance(feature, Numeric) and feature.embedding == "piecewise"
        self._moments = None if feature.scale == "quantile" else ScalerFit(feature.scale)
        self._drawn = Drawn() if self._binned or self._moments is None else None

    def add(
        self,
        array: pa.Array,
        rows: Int64[np.ndarray, " train"],
        row: Int64[np.ndarray, " rows"],
        origin: c.Origin,
    ) -> None:
        """Take in one block of the column.

        ``rows``: positions of its train rows. ``row``: number of each row in the table. Raises
        ``SchemaError`` for a number that is not finite, in any row.
        """
        if pa.types.is_null(array.type):
            return
        feature = self._feature
        keep = np.zeros(len(array), dtype=bool)
        keep[rows] = True
        lengths = None
        if isinstance(feature, NumericList):
            array, lengths = c.list_items(array, feature.max_length)
            keep = np.repeat(keep, lengths)
        x, missing = c.numbers_and_missing(array, feature.nan)
        c.check_finite(self._name, x, origin, lengths)
        if missing is not None:
            keep &= ~missing
        if self._moments is not None:
            self._moments.add(x[keep])
        if self._drawn is not None:
            hashed = hashes(row) if lengths is None else item_hashes(hashes(row), lengths)
            self._drawn.add(x[keep], hashed[keep])

    def tables(self) -> dict[str, pa.Table]:
        """What was gathered, by name, for `take_in` of another process."""
        found = {"moments": self._moments, "numbers": self._drawn}
        return {name: one.table() for name, one in found.items() if one is not None}

    def take_in(self, tables: Mapping[str, pa.Table]) -> None:
        """Add what was gathered from the rows that follow in the table."""
        if self._moments is not None:
            self._moments.take_in(tables["moments"])
        if self._drawn is not None:
            self._drawn.take_in(tables["numbers"])

    def fitted(self) -> tuple[AnyScaler, tuple[float, ...]]:
        """The scaler, and the edges of the bins in scaled numbers: none where it has no bins."""
        x = np.empty(0) if self._drawn is None else self._drawn.numbers()
        scaler = quantile_scaler(x) if self._moments is None else self._moments.scaler()
        scaled = scaler.apply(x)
        return scaler, bin_edges(scaled[np.isfinite(scaled)]) if self._binned else ()


def scaler_of(entry: Mapping[str, Any]) -> AnyScaler:
    """The scaler that ``dataclasses.asdict`` described. Raises TypeError or ValueError otherwise."""
    if entry.get("scale") != "quantile":
        return Scaler(**entry)
    lists = {key: tuple(entry[key]) for key in ("values", "scores") if key in entry}
    return QuantileScaler(**{**entry, **lists})
