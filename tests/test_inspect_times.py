"""Times at the first look: features with parts, but for the one that splits or gives the label away."""

import datetime as dt

import numpy as np
import pyarrow as pa

from click_logs import ROWS, clicks, data_section, note, uses
from isthmus.inspect import inspect_table
from isthmus.schema import Time


def test_every_time_is_a_feature_and_the_one_to_split_by_has_no_age():
    more = {
        "event_ms": 1_700_000_000_000 + 7 * (np.arange(ROWS) % 50),
        "float_ts": 1_700_000_000.5 + np.arange(ROWS) % 40,
        "day_of_sale": [dt.date(2024, 1, 1 + i % 9) for i in range(ROWS)],
        "seen_at": pa.array(
            [dt.datetime(2024, 1, 1 + i % 9) for i in range(ROWS)], mask=np.arange(ROWS) % 7 == 0
        ),
    }
    found = inspect_table(clicks(**more), "tab", "clicked")
    features = data_section(found).features
    assert found.time == "at"
    assert uses(found)["float_ts"] == "drop"
    assert "integers with a unit" in note(found, "float_ts")
    told = {name: features[name].model_dump(exclude_defaults=True) for name in ("at", "event_ms")}
    assert told == {"at": {"parts": ("hour", "weekday")}, "event_ms": {"unit": "ms"}}
    assert features["day_of_sale"] == features["seen_at"] == Time()
    days = np.datetime64("2024-01-01") + np.arange(ROWS) // 10
    data = data_section(inspect_table(clicks(at=days), "tab", "clicked"))
    assert (data.time, data.features["at"]) == ("at", Time(parts=("weekday",)))


def test_a_time_that_only_positive_rows_have_is_left_out():
    rows = clicks()
    clicked = rows["clicked"].to_numpy() > 0
    at = pa.array([dt.datetime(2024, 1, 1 + i % 9) for i in range(ROWS)], mask=~clicked)
    found = inspect_table(rows.append_column("clicked_at", at), "tab", "clicked")
    assert uses(found)["clicked_at"] == "drop"
    assert "gives the label away" in note(found, "clicked_at")
