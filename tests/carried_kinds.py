"""One line for every way to hold a column: a type, its values, and what the second file holds."""

import pyarrow as pa

import carriers as a
from carriers import ARROW, DAY, DOORS, FILES, SECOND, Kind

WHOLE, TENTHS, HUNDREDS = (0, 1, 2, 3, 7, 100), (0.1, 0.5, 2.5, -0.25, 3, 100), (0, 100, 700, 1200)
NEAR = (2**53 + 1, 2**53, 2**62 + 1, 2**63 - 1, -1, 0)  # float64 makes the first two one
HUGE = (2**64 - 1, 2**63, 2**63 - 1, 2**53 + 1, 2**53, 0)
POWERS, EXACT = (2**53, 2**62, 2**63, 1e22, 0.1), (2**53, 2**62, -1, 0.5)
BEYOND = (10**22 + 1, 10**22, 2**64 - 1, 2**64, 5)
TEXTS, ASCII = ("", "007", "7", "ä", "a b", "日本, 1"), ("007", "7", "a", "ä", "日本, 1")
BYTES = (b"\xff\x00\xfe\x01", b"\x00\x00\x00\x00", b"abcd", b"\xff\x00\xfe\x02")
UUIDS = tuple(bytes([i]) * 16 for i in (255, 0, 97))
DAYS = tuple(DAY * i for i in (19_753, -1, 0, 19_754))  # 2024-01-31, 1969-12-31 ..
CLOCK = (DAY * 19_753 + 36_000 * SECOND, DAY * 19_753, -SECOND, DAY + SECOND)
MICROS = (*CLOCK, DAY * 19_753 + 123_456_000, -1000)
NANOS = (*CLOCK, DAY * 19_753 + 123_456_789, -1)
HOURS = (0, 36_000 * SECOND, SECOND, DAY - SECOND)

i8, i16, i32, i64 = pa.int8(), pa.int16(), pa.int32(), pa.int64()
u8, u16, u32, u64 = pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()
f16, f32, f64, bit = pa.float16(), pa.float32(), pa.float64(), pa.bool_()
text, raw, date32, date64, ts = pa.string(), pa.binary(), pa.date32(), pa.date64(), pa.timestamp
d32, d64, d128, d256 = pa.decimal32, pa.decimal64, pa.decimal128, pa.decimal256
code, runs, utc, berlin = pa.dictionary, pa.run_end_encoded, "UTC", "Europe/Berlin"

_KINDS = [
    Kind("bool", bit, (0, 1)),
    Kind("bool-alone", bit, (0, 1), bit),
    *[Kind(str(dtype), dtype, WHOLE) for dtype in (i8, i64, u64)],
    *[Kind(str(dtype), dtype, WHOLE, doors=("parquet", "polars")) for dtype in (i16, u8, u32)],
    *[Kind(str(dtype), dtype, WHOLE, doors=("table",)) for dtype in (i32, u16)],
    *[Kind(f"{dtype}-whole", dtype, WHOLE, doors=(*FILES, "pandas", "table")) for dtype in (f16, f32, f64)],
    *[Kind(f"{dtype}-tenths", dtype, TENTHS) for dtype in (f16, f32, f64)],
    Kind("float16-float32", f16, TENTHS, f32, doors=FILES),
    Kind("decimal32-whole", d32(9, 0), WHOLE),
    Kind("decimal32-scale3", d32(9, 3), TENTHS, f32),
    Kind("decimal64-whole-scale1", d64(12, 1), WHOLE, d64(14, 2)),
    Kind("decimal64-scale4", d64(18, 4), TENTHS, f16),
    Kind("decimal128-whole", d128(38, 0), WHOLE, f64),
    Kind("decimal128-whole-scale3", d128(20, 3), WHOLE),
    Kind("decimal128-scale9", d128(38, 9), TENTHS),
    Kind("decimal128-hundreds", d128(5, -2), HUNDREDS),
    Kind("decimal256-whole", d256(60, 0), WHOLE),
    Kind("decimal256-scale30", d256(76, 30), TENTHS, d128(38, 3)),
    Kind("dictionary-int8-int64", code(i8, i64), WHOLE),
    Kind("dictionary-uint16-float32", code(u16, f32), TENTHS),
    Kind("dictionary-int32-decimal", code(i32, d128(9, 3)), TENTHS),
    Kind("run-ends-int64", runs(i32, i64), WHOLE),
    Kind("run-ends-float32", runs(i16, f32), TENTHS),
    Kind("int64-near", i64, NEAR),
    Kind("uint64-huge", u64, HUGE),
    Kind("float64-powers", f64, POWERS),
    Kind("decimal128-huge", d128(38, 0), HUGE, u64),
    Kind("decimal128-near-scale2", d128(38, 2), NEAR, i64),
    Kind("decimal256-beyond", d256(60, 0), BEYOND, d128(38, 3)),
    Kind("dictionary-int8-uint64", code(i8, u64), HUGE),
    Kind("int64-beside-uint64", i64, NEAR, u64, HUGE, FILES),
    Kind("int64-beside-float64", i64, NEAR, f64, EXACT, FILES),
    Kind("uint64-beside-float64", u64, HUGE, f64, POWERS, FILES),
    Kind("int64-beside-decimal", i64, NEAR, d128(38, 1), (*NEAR, 0.5), FILES),
    Kind("uint64-beside-decimal", u64, HUGE, d256(76, 2), (*BEYOND, 0.1, -1), FILES),
    Kind("float64-beside-decimal", f64, POWERS, d128(38, 1), (*BEYOND, 0.1), FILES),
    Kind("bool-beside-float64", bit, (0, 1), f64, (0, 1, 2.5), FILES),
    Kind("string", text, ASCII),
    *[Kind(f"{dtype}-empty", dtype, TEXTS) for dtype in (text, pa.large_string(), pa.string_view())],
    *[Kind(f"dictionary-{i}-string", code(i, text), TEXTS, doors=("parquet",)) for i in (i16, i64, u16)],
    *[Kind(f"dictionary-{i}-string", code(i, text), TEXTS, doors=("table",)) for i in (i32, u8, u32)],
    Kind("dictionary-int8-string", code(i8, text), TEXTS),
    Kind("dictionary-uint64-string", code(u64, text), TEXTS, code(i8, pa.large_string())),
    Kind("dictionary-int8-large_string", code(i8, pa.large_string()), TEXTS),
    Kind("dictionary-int32-string_view", code(i32, pa.string_view()), TEXTS),
    *[Kind(f"run-ends-{i}-string", runs(i, text), TEXTS, doors=ARROW) for i in (i16, i32, i64)],
    *[Kind(f"{dtype}-of-text", dtype, TEXTS) for dtype in (raw, pa.large_binary(), pa.binary_view())],
    Kind("dictionary-int8-binary-of-text", code(i8, raw), TEXTS, pa.string_view()),
    *[Kind(str(dtype), dtype, BYTES) for dtype in (raw, pa.large_binary(), pa.binary_view())],
    Kind("dictionary-int8-binary", code(i8, raw), BYTES),
    Kind("fixed-size-binary", pa.binary(4), BYTES),
    Kind("uuid", pa.uuid(), UUIDS, pa.binary(16)),
    Kind("date32", date32, DAYS, date32),
    Kind("date64", date64, DAYS, date32),
    Kind("dictionary-int8-date32", code(i8, date32), DAYS),
    Kind("date32-beside-timestamp", date32, DAYS, ts("us"), MICROS, FILES),
    Kind("date64-beside-timestamp-zone", date64, DAYS, ts("ns", berlin), NANOS, FILES),
    *[Kind(f"timestamp-{unit}", ts(unit), CLOCK) for unit in ("s", "ms", "us", "ns")],
    Kind("timestamp-us-fine", ts("us"), MICROS, ts("ns")),
    Kind("timestamp-ns-fine", ts("ns"), NANOS, ts("us"), MICROS),
    Kind("timestamp-us-utc", ts("us", utc), MICROS),
    Kind("timestamp-s-berlin", ts("s", berlin), CLOCK, ts("ms", "+05:30")),
    Kind("timestamp-ns-berlin", ts("ns", berlin), NANOS, ts("ns")),
    Kind("dictionary-int8-timestamp", code(i8, ts("ms", utc)), CLOCK),
    Kind("run-ends-timestamp", runs(i32, ts("us")), MICROS),
    Kind("time32-s", pa.time32("s"), HOURS, pa.time32("ms")),
    Kind("time32-ms", pa.time32("ms"), HOURS, pa.time64("ns")),
    Kind("time64-us", pa.time64("us"), (*HOURS, 1000)),
    Kind("time64-ns", pa.time64("ns"), HOURS),
    Kind("time64-ns-fine", pa.time64("ns"), (*HOURS, 1000, 1), doors=("parquet", "polars", "table")),
    Kind("duration-ns-fine", pa.duration("ns"), (*HOURS, 1000, 1), doors=("parquet", "pandas", "table")),
    *[Kind(f"duration-{unit}", pa.duration(unit), (*HOURS, -SECOND)) for unit in ("s", "ns")],
    *[Kind(f"duration-{unit}", pa.duration(unit), HOURS, doors=("parquet", "table")) for unit in ("ms", "us")],
]  # fmt: skip
KINDS = {kind.name: kind for kind in _KINDS}


def ways(kind: Kind) -> list[str]:
    """The doors that a kind can reach, but for those behind which it is the same as another kind."""
    beside = kind.beside or kind.carrier
    found = []
    for door in kind.doors:
        if door == "csv" and "" in kind.values:
            continue  # an empty cell is a null
        if door in ("polars", "lazy", "duckdb") and a.becomes_another(kind.carrier):
            continue
        if a.passes(door, kind.carrier) and (door not in FILES or a.passes(door, beside)):
            found.append(door)
    return found


def ways_to_score(kind: Kind) -> list[str]:
    """The same, where polars, its lazy frames and duckdb take turns: they hold much the same types."""
    return _in_turns(kind, ("polars", "lazy", "duckdb"))


def ways_to_fit(kind: Kind) -> list[str]:
    """Files, and all frames in turns: a fit takes ten times as long as a score."""
    return _in_turns(kind, tuple(door for door in DOORS if door not in FILES))


def _in_turns(kind: Kind, doors: tuple[str, ...]) -> list[str]:
    found = ways(kind)
    turns = [door for door in found if door in doors]
    turn = turns[_KINDS.index(kind) % len(turns)] if turns else ""
    return [door for door in found if door == turn or door not in turns]
