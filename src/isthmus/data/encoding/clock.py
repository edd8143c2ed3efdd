"""Clocks: how the rows of a time become hours, weekdays, days of the year and ages.

What a clock keeps is fitted on train rows: the newest of their instants, from which ages are counted,
and the scale of the ages. All else follows from the column's type.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int64

from isthmus.data.encoding.numbers.drawn import Drawn, hashes
from isthmus.data.encoding.numbers.scaler import Scaler, ScalerFit
from isthmus.data.tables import moments as m
from isthmus.data.tables.columns import Origin
from isthmus.data.tables.faults import wrong_type
from isthmus.data.tables.kinds import MOMENTS, decoded_name, item_type, kind
from isthmus.schema import Time, TimePart, TimeUnit

UTC = "UTC"
AGE_SCALE = "log"


@dataclass(frozen=True, slots=True)
class Clock:
    """How one time is taken apart.

    ``parts``: which fields it gives. ``unit``: what its integers count, None of dates and timestamps.
    ``zone``: of the train rows' timestamps; a row of another zone is brought to this one. ``newest``:
    the newest train instant in days since 1970 UTC, None where no train row has a time. ``age``: the
    scale of the days before ``newest``.
    """

    parts: tuple[TimePart, ...]
    unit: TimeUnit | None
    zone: str
    newest: float | None
    age: Scaler

    def fill(
        self, into: Mapping[str, np.ndarray], name: str, array: pa.Array, origin: Origin
    ) -> None:
        """Write the parts of a block's rows into the columns of their fields.

        ``into``: by name of the field, ids int32 (rows,) or numbers float32 (rows, 1). A missing time
        has id 0, the day 0, 0 (the middle of the circle), and the mean age. A time after the newest
        train instant has age 0. Raises ``SchemaError`` for a row that is no time of a calendar.
        """
        found = m.instants(name, array, self.unit, origin)
        local = found.local(self.zone)
        missing = found.missing
        for part, numbers in (("hour", m.hours), ("weekday", m.weekdays)):
            if part in self.parts:
                ids = into[f"{name}:{part}"]
                ids[:] = numbers(local) + 1
                if missing is not None:
                    ids[missing] = 0
        if "day" in self.parts:
            angles = m.year_angles(local)
            for side, wave in (("sin", np.sin), ("cos", np.cos)):
                x = into[f"{name}:day_{side}"][:, 0]
                x[:] = wave(angles)
                if missing is not None:
                    x[missing] = 0
        if "age" in self.parts:
            x = into[f"{name}:age"][:, 0]
            x[:] = self._ages(found.days)
            if missing is not None:
                x[missing] = self.age.fill

    def _ages(self, days: Float64[np.ndarray, " rows"]) -> Float32[np.ndarray, " rows"]:
        if self.newest is None:
            return np.full(len(days), self.age.fill, dtype=np.float32)
        return self.age.apply(np.maximum(self.newest - days, 0))

    def to_entry(self) -> dict[str, Any]:
        """Plain values of what `of_entry` cannot take from the config."""
        return {
            "parts": list(self.parts),
            "zone": self.zone,
            "newest": self.newest,
            "age": asdict(self.age),
        }

    @classmethod
    def of_entry(cls, name: str, feature: Time, entry: Mapping[str, Any]) -> "Clock":
        """Read `to_entry`. Raises KeyError, TypeError or ValueError, by name, for other values."""
        parts, zone, newest = tuple(entry["parts"]), entry["zone"], entry["newest"]
        known = get_args(TimePart) if feature.parts is None else feature.parts
        if feature.parts not in (None, parts) or not parts or not set(parts) <= set(known):
            raise ValueError(f"the parts of {name!r} must be {', '.join(known)}, got {list(parts)}")
        if not isinstance(zone, str) or not m.is_zone(zone):
            raise ValueError(f"the zone of {name!r} must be known, got {zone!r}")
        if newest is not None and not (isinstance(newest, float) and np.isfinite(newest)):
            raise ValueError(f"the newest time of {name!r} must be a finite number, got {newest!r}")
        age = Scaler(**entry["age"])
        numbers = (age.shift, age.spread, age.fill)
        if age.scale != AGE_SCALE or not np.isfinite(numbers).all() or not age.spread > 0:
            raise ValueError(f"the age of {name!r} must have a finite log scale, got {age}")
        return cls(parts, feature.unit, zone, newest, age)


class ClockFit:
    """Gathers what a clock needs, block by block. ``kind``: of the column over all files."""

    def __init__(self, name: str, feature: Time, kind: str) -> None:
        self._name = name
        self._feature = feature
        self._parts = feature.parts or parts_of(kind)
        self._zone = UTC
        self._newest = -np.inf
        self._drawn = Drawn()

    def add(
        self,
        array: pa.Array,
        rows: Int64[np.ndarray, " train"],
        row: Int64[np.ndarray, " rows"],
        origin: Origin,
    ) -> None:
        """Take in one block of the column.

        ``rows``: positions of its train rows. ``row``: number of each row in the table. Raises
        ``SchemaError`` for a row, of any split, that is no time of a calendar.
        """
        self._zone = zone_of(array.type) or self._zone
        found = m.instants(self._name, array, self._feature.unit, origin)
        if found.missing is not None:
            rows = rows[~found.missing[rows]]
        days = found.days[rows]
        if len(days):
            self._newest = max(self._newest, float(days.max()))
            self._drawn.add(days, hashes(row[rows]))

    def tables(self) -> dict[str, pa.Table]:
        """What was gathered, by name, for `take_in` of another process."""
        said = pa.table({"zone": [self._zone], "newest": [float(self._newest)]})
        return {"days": self._drawn.table(), "clock": said}

    def take_in(self, tables: Mapping[str, pa.Table]) -> None:
        """Add what was gathered from the rows that follow in the table."""
        (said,) = tables["clock"].to_pylist()
        self._zone = said["zone"] if said["zone"] != UTC else self._zone
        self._newest = max(self._newest, said["newest"])
        self._drawn.take_in(tables["days"])

    def clock(self) -> Clock:
        """The fitted clock."""
        fit = ScalerFit(AGE_SCALE)
        fit.add(self._newest - self._drawn.numbers())
        newest = float(self._newest) if np.isfinite(self._newest) else None
        return Clock(self._parts, self._feature.unit, self._zone, newest, fit.scaler())


def parts_of(kind: str) -> tuple[TimePart, ...]:
    """The parts that a column of this kind has: a date has no hour."""
    return tuple(part for part in get_args(TimePart) if kind != "date" or part != "hour")


def zone_of(dtype: pa.DataType) -> str | None:
    """The zone of timestamps; None of timestamps without one, and of other types."""
    dtype = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    return dtype.tz if pa.types.is_timestamp(dtype) else None


def check_time(name: str, feature: Time, dtype: pa.DataType, file: str) -> str:
    """The kind of a column's values. Raises ``SchemaError`` for a type that no clock reads."""
    got, have = decoded_name(dtype), kind(dtype)
    if have == "integer":
        if feature.unit is None:
            rule = "have a unit, s, ms, us or ns, as in {kind: time, unit: ms}, where it holds integers"
            raise wrong_type(name, rule, got, file)
    elif have in MOMENTS:
        if feature.unit is not None:
            rule = f"hold integers, since its time has the unit {feature.unit!r}"
            raise wrong_type(name, rule, got, file)
        zone = zone_of(item_type(dtype))
        if zone is not None and not m.is_zone(zone):
            raise wrong_type(name, "have a time zone that is known here", repr(zone), file)
    elif have != "null":
        rule = "be a date, a timestamp, or integers with a unit (it is a time)"
        raise wrong_type(name, rule, got, file)
    return have


def check_times(
    times: Mapping[str, Time],
    schemas: Sequence[tuple[str, Mapping[str, pa.DataType]]],
    kinds: Mapping[str, str],
) -> None:
    """Check what only all files together say. Raises ``SchemaError`` for an hour of dates, and for
    timestamps of two zones. ``kinds``: of each column over all files.
    """
    for name, feature in times.items():
        if "hour" in (feature.parts or ()) and kinds[name] == "date":
            file, types = schemas[0]
            rule = "hold times of day, since its parts have 'hour'"
            raise wrong_type(name, rule, decoded_name(types[name]), file)
        seen: dict[str, str] = {}
        for file, types in schemas:
            if kind(types[name]) != "timestamp":
                continue
            zone = zone_of(item_type(types[name])) or UTC
            seen.setdefault(zone, file)
            if len(seen) > 1:
                (first, where), _ = seen.items()
                rule = f"have one time zone in all files ({first} in {where})"
                raise wrong_type(name, rule, zone, file)
