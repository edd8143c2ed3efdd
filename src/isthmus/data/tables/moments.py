"""Moments taken apart: the hour, the weekday and the day of the year that a clock of a zone shows.

An example: 2024-03-01 23:30 UTC is a Friday of hour 23 in the zone UTC, and a Saturday of hour 0 in
Europe/Berlin. All steps are whole seconds since 1970, so a moment before 1970 is a negative number,
and the floor of a division is right for it too.

A zone is an offset such as ``+05:30``, or a name of the IANA database as `zoneinfo` reads it. Arrow
reads the same files and leaves out their last rule, so its clocks have no summer after 2037. A zone's
offsets are therefore looked up in a table of its changes, which is made once a process.
"""

import re
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64

from isthmus.data.tables.columns import Origin
from isthmus.data.tables.plain import decode, null_mask, numpy_of
from isthmus.schema import TimeUnit

DAY = 86_400
PER_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}
_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):?([0-5][0-9])")
_FIRST, _LAST = -62_135_596_800, 253_402_300_799  # the seconds that the years 1 to 9999 span
_CYCLE = 146_097 * DAY  # 400 years, after which days, weekdays and rules of zones come again
_BEGIN = int(datetime(1840, 1, 1, tzinfo=UTC).timestamp())  # no zone has changed before
_SPARSE = int(datetime(2038, 1, 1, tzinfo=UTC).timestamp())  # changes are weeks apart from here on
_RULED = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())  # no change but those of a yearly rule


class Instants:
    """When the rows of a block are.

    ``seconds``: whole seconds since 1970 UTC; 0 where missing. ``days``: the same in days, with the
    fraction that the column has. ``missing``: None where no row is. ``is_date``: the rows are days,
    which no zone moves.
    """

    __slots__ = ("days", "is_date", "missing", "seconds")

    def __init__(
        self,
        seconds: Int64[np.ndarray, " rows"],
        days: Float64[np.ndarray, " rows"],
        missing: Bool[np.ndarray, " rows"] | None,
        *,
        is_date: bool,
    ) -> None:
        self.seconds = seconds
        self.days = days
        self.missing = missing
        self.is_date = is_date

    def local(self, zone: str) -> Int64[np.ndarray, " rows"]:
        """Seconds since 1970-01-01 00:00 on a clock of the zone; a date is its own midnight."""
        return self.seconds if self.is_date else self.seconds + offsets(self.seconds, zone)


def instants(column: str, array: pa.Array, unit: TimeUnit | None, origin: Origin) -> Instants:
    """Read a plain column of dates, timestamps, or integers that count ``unit`` since 1970 UTC.

    A timestamp without a zone counts as UTC, and a date as its midnight there. Raises ``SchemaError``
    for a row outside of the years 1 to 9999: integers are then of another unit.
    """
    array = decode(array)
    missing = null_mask(array) if array.null_count else None
    if pa.types.is_null(array.type):
        zeros = np.zeros(len(array), dtype=np.int64)
        return Instants(zeros, zeros.astype(np.float64), missing, is_date=False)
    is_date = pa.types.is_date(array.type)
    if is_date:
        array = pc.cast(array, pa.date32()).view(pa.int32())
        ticks, per_day = numpy_of(array, 0).astype(np.int64), 1
        seconds = ticks * DAY
    else:
        if pa.types.is_timestamp(array.type):
            unit, array = array.type.unit, array.view(pa.int64())
        elif array.type != pa.uint64():
            array = pc.cast(array, pa.int64())
        assert unit is not None  # integers without a unit were refused by their type
        ticks, per_day = numpy_of(array, 0), PER_SECOND[unit] * DAY
        # An unsigned integer too large for int64 stays large.
        seconds = (ticks // PER_SECOND[unit]).astype(np.int64, copy=False)
        seconds = np.where(seconds < 0, _LAST + 1, seconds) if ticks.dtype.kind == "u" else seconds
    told = "" if unit is None or is_date else f" ({unit} since 1970)"
    wrong = (seconds < _FIRST) | (seconds > _LAST)
    origin.refuse(column, f"lie in the years 1 to 9999{told}", wrong, ticks)
    return Instants(seconds, ticks / per_day, missing, is_date=is_date)


def hours(local: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
    """The hour of the day, 0 to 23, of local seconds."""
    return local % DAY // 3600


def weekdays(local: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
    """The day of the week of local seconds: 0 is Monday, 6 is Sunday."""
    return (local // DAY + 3) % 7  # 1970 began on a Thursday


def year_angles(local: Int64[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
    """The day of the year of local seconds as an angle: 0 on 1 January, 2 pi a year later.

    ``2 pi (day - 1) / length``, the length of that year in days.
    """
    days = (local // DAY).astype("datetime64[D]")
    years = days.astype("datetime64[Y]")
    first, next_first = years.astype("datetime64[D]"), (years + 1).astype("datetime64[D]")
    return 2 * np.pi * ((days - first) / (next_first - first))


def is_zone(name: str) -> bool:
    """Whether a zone is an offset, or a name that the database of this machine has."""
    try:
        _zone(name)
    except (KeyError, ValueError, OSError):  # OSError: a folder of the database, as "Europe"
        return False
    return True


def offsets(
    seconds: Int64[np.ndarray, " rows"], zone: str
) -> Int64[np.ndarray, " rows"] | Int64[np.ndarray, ""]:
    """Seconds that the zone's clocks are ahead of UTC at these instants, or one for all of them."""
    starts, ahead = _changes(zone)
    if len(ahead) == 1:
        return ahead[0]
    over = np.maximum(seconds - _RULED, 0)
    within = seconds - over // _CYCLE * _CYCLE
    return ahead.take(np.searchsorted(starts, within, side="right"))


def _zone(name: str) -> ZoneInfo | int:
    """The zone, or its one offset in seconds."""
    found = _OFFSET.fullmatch(name)
    if found is None:
        return ZoneInfo(name)
    sign, hour, minute = found.groups()
    return (3600 * int(hour) + 60 * int(minute)) * (-1 if sign == "-" else 1)


@cache
def _changes(name: str) -> tuple[Int64[np.ndarray, " changes"], Int64[np.ndarray, " offsets"]]:
    """When a zone's offset changes, ascending, and its offsets: one more than changes."""
    zone = _zone(name)
    if isinstance(zone, int):
        return np.empty(0, dtype=np.int64), np.array([zone])
    starts, ahead = [], [_ahead(zone, _BEGIN)]
    before = _BEGIN
    for at in (*range(_BEGIN, _SPARSE, DAY), *range(_SPARSE, _RULED + _CYCLE + 7 * DAY, 7 * DAY)):
        offset = _ahead(zone, at)
        if offset != ahead[-1]:
            low, high = before, at  # the change lies behind low, and at high at the latest
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if _ahead(zone, middle) == offset else (middle, high)
            starts.append(high)
            ahead.append(offset)
        before = at
    return np.array(starts, dtype=np.int64), np.array(ahead, dtype=np.int64)


def _ahead(zone: ZoneInfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    assert offset is not None
    return offset.days * DAY + offset.seconds
