"""What a server keeps of its rows: drift of a domain, over two workers, and a log for the monitor."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from isthmus.bundle import Bundle
from isthmus.monitoring import read_score_log
from isthmus.serving.doors.arrow_stream import MEDIA
from rows_of_every_kind import drawn, frame, run_of_every_kind
from served import Served, as_json, served, stream

REQUESTS, EACH = 200, 12  # more than the watch looks at


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watch") / "run"
    return run_of_every_kind(folder, integers=False, rows=6000).path / "bundle"


def rows_of(bundle: Bundle) -> list[dict[str, Any]]:
    """Rows as in training, but the second domain's cities are all new."""
    n = REQUESTS * EACH
    table = frame(drawn(n, 17), pl.Series([bundle.domains[at % 3] for at in range(n)]))
    rows = [as_json(row) for row in table.to_dicts()]
    for row in rows:
        if row["shop"] == bundle.domains[1]:
            row["city"] = f"new {row['city']}"
    return rows


def asked(server: Served, rows: list[dict[str, Any]]) -> list[float]:
    scores = []
    for number in range(REQUESTS):
        some = rows[number * EACH : (number + 1) * EACH]
        found = server.post("/v1/score", {"rows": some, "id": f"r-{number}"})
        assert found.status_code == 200, found.text
        scores += found.json()["scores"]
    return scores


def test_a_domain_that_drifts_is_flagged_and_its_scores_are_logged(
    bundle_path: Path, tmp_path: Path
):
    bundle = Bundle.load(bundle_path)
    rows = rows_of(bundle)
    words = ("--workers", 2, "--backend", "torch", "--log", tmp_path / "scores.log", "--log-values")
    with served(bundle_path, *words) as server:
        assert server.get("/v1/model").json()["drift"] == []
        scores = asked(server, rows)
        told = server.get("/v1/model").json()
        table_row = frame(drawn(1, 9), pl.Series([bundle.domains[0]]))
        headers = {"content-type": MEDIA, "x-request-id": "by arrow"}
        assert server.post("/v1/score", stream(table_row), headers=headers).status_code == 200
        table_row = table_row.to_dicts()[0]
        text = server.get("/metrics").text
    flags = {(one["domain"], one["what"]) for one in told["drift"]}
    assert flags == {(bundle.domains[1], "unknown_rate:city")}
    (flag,) = told["drift"]
    assert flag["seen"] == 1.0
    assert 0 == flag["interval"][0] < flag["interval"][1] < flag["seen"]
    line = f'isthmus_drift{{domain="{bundle.domains[1]}",what="unknown_rate:city"}} 1.0'
    assert [one for one in text.splitlines() if one.startswith("isthmus_drift{")] == [line]
    assert set(told["validation"]) == set(bundle.domains)
    held = read_score_log(tmp_path / "scores.log")
    assert held.torn == 0
    assert set(held.baselines) == {bundle.checksum}
    frame_of = (
        held.frame.filter(pl.col("id") != "by arrow")
        .with_columns(at=pl.col("id").str.strip_prefix("r-").cast(pl.Int64) * EACH + pl.col("row"))
        .sort("at")
    )
    assert frame_of["at"].to_list() == list(range(len(rows)))
    np.testing.assert_allclose(frame_of["score"], scores, rtol=1e-8)
    assert frame_of["domain"].to_list() == [row["shop"] for row in rows]
    text = (tmp_path / "scores.log").read_text(encoding="utf-8")
    written = [json.loads(line) for line in text.splitlines()]
    kept = [one["values"] for one in written if one.get("id") == "r-3"]
    assert kept == rows[3 * EACH : 4 * EACH]
    (by_arrow,) = [one["values"] for one in written if one.get("id") == "by arrow"]
    assert by_arrow["city"] == table_row["city"]
    assert by_arrow["shop"] == table_row["shop"]
