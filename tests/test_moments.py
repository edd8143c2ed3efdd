"""Moments taken apart: against `datetime` and `zoneinfo`, over units, zones and 9,998 years."""

import datetime as dt
import math
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.data.tables import moments as m
from isthmus.data.tables.columns import Origin
from isthmus.errors import SchemaError
from isthmus.schema import TimeUnit

FILE = "part-3.parquet"
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# With summer time, half hours, a summer time of half an hour, rules to 2087, and a day left out.
ZONES = [
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"),
    *("Africa/Casablanca", "Pacific/Apia", "Europe/Dublin"),
]
# A day from either end, where a zone's clock could show the year 0 or 10000.
MOMENTS = st.datetimes(dt.datetime(1, 1, 3), dt.datetime(9999, 12, 29), timezones=st.just(dt.UTC))


def read(array: pa.Array, unit: TimeUnit | None = None) -> m.Instants:
    return m.instants("at", array, unit, Origin(FILE, 0))


def ticks(moment: dt.datetime, unit: TimeUnit) -> int:
    """The floor of the moment in a unit since 1970."""
    return (moment - EPOCH) // dt.timedelta(microseconds=1) * m.PER_SECOND[unit] // 10**6


def parts(local: np.ndarray) -> list[tuple[int, int, float]]:
    found = m.hours(local), m.weekdays(local), m.year_angles(local)
    return list(zip(*(each.tolist() for each in found), strict=True))


def slow_parts(clock: dt.datetime) -> tuple[int, int, float]:
    """Hour, weekday and angle of what a clock shows."""
    length = dt.date(clock.year, 12, 31).timetuple().tm_yday
    angle = 2 * math.pi * (clock.timetuple().tm_yday - 1) / length
    return clock.hour, clock.weekday(), pytest.approx(angle)  # pyright: ignore[reportReturnType]


@settings(max_examples=300, deadline=None)
@given(st.lists(MOMENTS, min_size=1, max_size=20), st.sampled_from(["s", "ms", "us"]))
@example([dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)], "us")
@example([dt.datetime(2000, 2, 29, tzinfo=dt.UTC), dt.datetime(1900, 3, 1, tzinfo=dt.UTC)], "s")
def test_parts_are_those_of_datetime_in_every_zone(moments, unit):
    given_ticks = [ticks(moment, unit) for moment in moments]
    whole = read(pa.array(given_ticks, pa.int64()), unit)
    for zone in ZONES:
        found = read(pa.array(given_ticks, pa.timestamp(unit, zone)))
        assert found.seconds.tolist() == whole.seconds.tolist()
        want = [slow_parts(moment.astimezone(ZoneInfo(zone))) for moment in moments]
        assert parts(found.local(zone)) == want
    days = [tick / m.PER_SECOND[unit] / 86_400 for tick in given_ticks]
    np.testing.assert_allclose(whole.days, days, rtol=1e-12, atol=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dates(), min_size=1, max_size=20))
def test_a_date_is_the_same_day_in_every_zone(dates):
    want = [slow_parts(dt.datetime.combine(day, dt.time())) for day in dates]
    for dtype in (pa.date32(), pa.date64()):
        found = read(pa.array(dates, dtype))
        assert parts(found.local("Pacific/Apia")) == want
    assert found.days.tolist() == [(day - dt.date(1970, 1, 1)).days for day in dates]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_nanoseconds_reach_from_end_to_end_of_64_bits(nanos):
    found = read(pa.array(nanos, pa.timestamp("ns", "Europe/Berlin")))
    moments = [EPOCH + dt.timedelta(microseconds=nano // 1000) for nano in nanos]
    want = [slow_parts(moment.astimezone(ZoneInfo("Europe/Berlin"))) for moment in moments]
    assert parts(found.local("Europe/Berlin")) == want


@pytest.mark.parametrize("zone", ZONES)
def test_clocks_change_at_the_second(zone):
    starts, _ = m._changes(zone)
    near = np.concatenate([starts + shift for shift in (-1, 0, 1)])
    near = near[:: max(1, len(near) // 3000)]
    want = [dt.datetime.fromtimestamp(second, ZoneInfo(zone)) for second in near.tolist()]
    found = (near + m.offsets(near, zone)).tolist()
    shown = [(one.replace(tzinfo=dt.UTC) - EPOCH) // dt.timedelta(seconds=1) for one in want]
    assert found == shown


def test_the_worked_example():
    at = pa.array([dt.datetime(2024, 3, 1, 23, 30)], pa.timestamp("s", "UTC"))
    (hour, weekday, angle), *_ = parts(read(at).local("UTC"))
    assert (hour, weekday) == (23, 4)  # a Friday
    assert (math.sin(angle), math.cos(angle)) == pytest.approx((0.857, 0.515), abs=5e-4)
    (hour, weekday, _), *_ = parts(read(at).local("Europe/Berlin"))
    assert (hour, weekday) == (0, 5)
    (hour, *_), *_ = parts(read(at).local("-05:30"))
    assert hour == 18
    (hour, *_), *_ = parts(read(at).local("+0045"))
    assert hour == 0


@pytest.mark.parametrize("dtype", [pa.int8(), pa.int32(), pa.uint8(), pa.uint64()])
def test_integers_of_any_width_count(dtype):
    found = read(pa.array([0, 100, None], dtype), "ms")
    assert found.seconds.tolist() == [0, 0, 0]
    assert found.missing is not None
    assert found.missing.tolist() == [False, False, True]
    np.testing.assert_allclose(found.days[:2] * 86_400_000, [0, 100])


def test_a_column_of_nulls_and_a_dictionary_are_read():
    found = read(pa.nulls(2), None)
    assert found.missing is not None
    assert found.missing.all()
    days = pa.array([dt.date(2024, 1, 1), None, dt.date(2024, 1, 1)]).dictionary_encode()
    assert read(days).days.tolist() == [19723, 0, 19723]


@pytest.mark.parametrize(
    ("array", "unit", "told"),
    [
        (pa.array([0, 1_709_335_800_000]), "s", r"\(s since 1970\), got 1709335800000 in"),
        (pa.array([0, -62_135_596_801]), "s", "got -62135596801 in"),
        (pa.array([0, 2**64 - 1], pa.uint64()), "s", "got 18446744073709551615 in"),
        (pa.array([0, 2**62], pa.timestamp("us")), None, r"\(us since 1970\), got 46116860184273"),
        (pa.array([0, 2_932_897], pa.int32()).view(pa.date32()), None, "9999, got 2932897 in"),
    ],
)
def test_a_row_outside_of_the_calendar_is_refused_with_its_place(array, unit, told):
    with pytest.raises(SchemaError, match=rf"'at' must lie in the years 1 to .*{told}.*row 1"):
        read(array, unit)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *((name, True) for name in ("UTC", "Europe/Berlin", "+05:30", "-0300", "Etc/GMT+5")),
        *((name, False) for name in ("Mars/Base", "+25:00", "Europe", "../passwd", "", "+2")),
    ],
)
def test_a_zone_is_an_offset_or_a_name_of_the_database(name, known):
    assert m.is_zone(name) is known
