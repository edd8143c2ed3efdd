"""Times at the first look: features with parts, but for the one to split by or that gives the label away."""

import datetime as dt

import numpy as np
import pyarrow as pa
import yaml

from click_logs import ROWS, clicks, data_section, note, uses
from isthmus.config import load_config
from isthmus.inspect import Inspection, inspect_table
from isthmus.schema import DataConfig, Time


def uncommented(found: Inspection) -> DataConfig:
    """The data section with the time to split by as a feature."""
    text = found.config_text().replace(f"    # {found.time}: ", f"    {found.time}: ")
    return load_config(yaml.safe_load(text)).data


def test_every_time_is_a_feature_and_the_one_to_split_by_is_one_where_its_line_is_uncommented():
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
    assert "at" not in features
    assert uncommented(found).features["at"] == Time(parts=("hour", "weekday"))
    assert features["event_ms"] == Time(unit="ms")
    assert features["day_of_sale"] == features["seen_at"] == Time()
    days = np.datetime64("2024-01-01") + np.arange(ROWS) // 10
    data = uncommented(inspect_table(clicks(at=days), "tab", "clicked"))
    assert (data.time, data.features["at"]) == ("at", Time(parts=("weekday",)))


def test_a_time_that_only_positive_rows_have_is_left_out():
    rows = clicks()
    clicked = rows["clicked"].to_numpy() > 0
    at = pa.array([dt.datetime(2024, 1, 1 + i % 9) for i in range(ROWS)], mask=~clicked)
    found = inspect_table(rows.append_column("clicked_at", at), "tab", "clicked")
    assert uses(found)["clicked_at"] == "drop"
    assert "gives the label away" in note(found, "clicked_at")
