"""The one look at a whole table: what is counted in full, and what is judged on drawn rows."""

import numpy as np
import pyarrow as pa
import pytest

from isthmus.inspect import inspect_table, look
from isthmus.sources.planted import conflict, planted


def test_rare_values_are_counted_by_domain():
    # "big" has items of 100 rows; half the rows of "small" hold an item of one row.
    item = [f"i{i % 10}" for i in range(1000)] + [f"r{i}" if i % 2 else "i0" for i in range(100)]
    table = pa.table(
        {
            "domain": ["big"] * 1000 + ["small"] * 100,
            "item": item,
            "label": np.random.default_rng(0).integers(2, size=1100),
        }
    )
    big, small = inspect_table(table, "domain", "label").domains
    assert (big.name, big.rare, small.name, small.rare) == ("big", 0.0, "small", 0.5)


def test_a_large_table_is_drawn_from_and_still_counted_in_full(monkeypatch):
    made = planted(rows=(40_000, 20_000), relation=conflict(), items=15_000, seed=0)
    whole = inspect_table(made.table, "domain", "label")
    monkeypatch.setattr(look, "DRAWN_ROWS", 5_000)
    monkeypatch.setattr(look, "_WHOLE_VALUES", 10_000)
    monkeypatch.setattr(look, "_FOLD", 2_000)
    drawn = inspect_table(made.table, "domain", "label")
    assert whole.drawn == 60_000
    assert 4_500 < drawn.drawn < 5_500
    uses = [[column.use for column in found.columns] for found in (whole, drawn)]
    assert uses[0] == uses[1]
    assert "rows drawn at random from 60,000" in str(drawn)
    for one, full in zip(drawn.domains, whole.domains, strict=True):
        assert (one.name, one.rows, one.positives) == (full.name, full.rows, full.positives)
        assert full.rare > 0.1
        assert one.rare == pytest.approx(full.rare, rel=0.1)
