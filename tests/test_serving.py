"""The own door of the server: scores, errors, limits, the token, and what it counts."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from prometheus_client.parser import text_string_to_metric_families

from command_line import isthmus_in_process, told
from isthmus.bundle import Bundle
from isthmus.serving.application import routes_of
from isthmus.serving.doors.arrow_stream import MEDIA
from rows_of_every_kind import ROWS, drawn, frame, run_of_every_kind
from served import BEARER, TOKEN, Served, as_json, served, stream
from steady_load import memory_of, put_load

MOST_ROWS = 600


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "run"
    return run_of_every_kind(folder, integers=False).path / "bundle"


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.load(bundle_path)


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[Served]:
    with served(bundle_path, "--max-rows", MOST_ROWS) as started:
        yield started


def table_of(bundle: Bundle, rows: int, seed: int = 8) -> pl.DataFrame:
    return frame(drawn(rows, seed), pl.Series([bundle.domains[at % 3] for at in range(rows)]))


def by_arrow(server: Served, table: pl.DataFrame) -> np.ndarray:
    found = server.post("/v1/score", stream(table), headers={"content-type": MEDIA})
    assert found.status_code == 200, found.text
    assert found.headers["content-type"] == MEDIA
    return pa.ipc.open_stream(found.content).read_all()["score"].to_numpy()


# --- scores -----------------------------------------------------------------


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    # A request a try is too slow to shrink by.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(rows=ROWS)
def test_a_row_has_one_score_whichever_door_it_takes(
    server: Served, bundle: Bundle, rows: list[dict[str, Any]]
):
    shops = [None if row["shop"] is None else f"shop {row['shop']}" for row in rows]
    # JSON has no nan; the column takes a null for the same.
    rows = [
        {**row, "shop": shop, "price": None if row["price"] != row["price"] else row["price"]}
        for row, shop in zip(rows, shops, strict=True)
    ]
    table = frame(
        {name: [row[name] for row in rows] for name in rows[0]}, pl.Series(shops, dtype=pl.String)
    )
    right = bundle.score(table)
    close = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(bundle.score_rows(rows), right, **close)
    np.testing.assert_allclose([bundle.score_row(row) for row in rows], right, **close)
    given = [as_json(row) for row in rows]
    if np.isfinite(right).all():
        np.testing.assert_allclose(server.scores(given), right, **close)
        np.testing.assert_allclose(by_arrow(server, table), right, **close)
        return
    # Numbers near 1e30 overflow in the network: no door makes up a score.
    first = int(np.argmax(np.isnan(right)))
    text = f"a row must have a score, got nan in the request, row {first}"
    for body, media in ((json.dumps({"rows": given}), "application/json"), (stream(table), MEDIA)):
        found = httpx.post(f"{server.url}/v1/score", content=body, headers={"content-type": media})
        assert (found.status_code, found.json()["error"]) == (422, text)


def test_many_rows_have_the_scores_of_the_bundle(server: Served, bundle: Bundle):
    table = table_of(bundle, MOST_ROWS)
    right = bundle.score(table)
    assert np.ptp(right) > 0.01
    rows = [as_json(row) for row in table.to_dicts()]
    np.testing.assert_allclose(server.scores(rows), right, rtol=0, atol=1e-5)
    np.testing.assert_allclose(by_arrow(server, table), right, rtol=0, atol=1e-5)
    assert server.scores([]) == []


def test_every_answer_names_the_bundle(server: Served, bundle: Bundle):
    row = as_json(table_of(bundle, 1).to_dicts()[0])
    found = server.post("/v1/score", {"rows": [row]})
    assert found.json()["bundle"] == bundle.checksum
    answers = [found, server.get("/healthz"), server.get("/nowhere"), server.post("/v1/score", {})]
    assert [one.status_code for one in answers] == [200, 200, 404, 422]
    assert {one.headers["x-isthmus-bundle"] for one in answers} == {bundle.checksum}
    model = server.get("/v1/model").json()
    assert model["bundle"] == bundle.checksum
    assert model["domains"] == list(bundle.domains)
    assert {one["name"]: one["kind"] for one in model["columns"]}["seen"] == "categorical_list"


# --- what is refused --------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text", "column"),
    [
        (
            {"user": "7"},
            "must be true or false or an integer or a number or null, got a text",
            "user",
        ),
        ({"city": 7}, "must be a text or null, got an integer in the request, row 1", "city"),
        ({"price": "1,234.5"}, "or a number or null, got a text in the request, row 1", "price"),
        ({"seen": [1, "x"]}, "got a text in the request, row 1", "seen"),
        ({"embedding": [1.0]}, "must hold 2 numbers, got 1 in the request, row 1", "embedding"),
        ({"at": "soon"}, "must be a date or a time as ISO 8601 has it, got 'soon'", "at"),
        ({"raw": 1e300}, "must fit in 32-bit floats once scaled, got 1e+300", "raw"),
        (
            {"embedding": [3e38, 3e38]},
            "a row must have a score, got nan in the request, row 1",
            None,
        ),
        ({"clock": 10**17}, "must lie in the years 1 to 9999 (ms since 1970)", "clock"),
    ],
)
def test_a_fault_names_column_and_row(
    server: Served, bundle: Bundle, change: dict[str, Any], text: str, column: str | None
):
    rows = [as_json(row) for row in table_of(bundle, 2).to_dicts()]
    found = server.post("/v1/score", {"rows": [rows[0], {**rows[1], **change}]})
    assert found.status_code == 422
    assert (found.json().get("column"), found.json()["row"]) == (column, 1)
    assert text in found.json()["error"]


def test_a_row_without_a_column_is_refused(server: Served, bundle: Bundle):
    row = as_json(table_of(bundle, 1).to_dicts()[0])
    del row["city"]
    found = server.post("/v1/score", {"rows": [row]})
    assert found.status_code == 422
    assert found.json() == {
        "error": "column 'city' must be in every row, got none in the request, row 0",
        "column": "city",
        "row": 0,
    }


def test_bodies_that_are_no_request_are_refused(server: Served, bundle: Bundle):
    def sent(body: bytes, media: str = "application/json", **headers: str) -> tuple[int, str]:
        given = {"content-type": media, **headers}
        found = httpx.post(f"{server.url}/v1/score", content=body, headers=given)
        return found.status_code, found.json()["error"]

    assert sent(b"{")[0] == 400
    assert sent(b"[1]") == (422, "a request must be valid: Expected `object`, got `array`")
    assert sent(b"[" * 100_000)[0] in (400, 422)
    assert sent(b"rows", "text/plain")[0] == 415
    assert sent(b"", **{"content-encoding": "gzip"})[0] == 415
    assert sent(b"no stream", MEDIA)[0] == 400
    status, text = sent(b'{"rows": []}' + b" " * (33 << 20))
    assert (status, text.startswith("a body must have at most 33,554,432 bytes")) == (413, True)
    rows = [as_json(row) for row in table_of(bundle, 1).to_dicts()] * (MOST_ROWS + 1)
    found = server.post("/v1/score", {"rows": rows})
    assert found.status_code == 422
    assert f"length <= {MOST_ROWS}" in found.json()["error"]
    assert server.get("/v1/score").status_code == 405


def test_arrow_beyond_a_limit_is_refused(server: Served, bundle: Bundle):
    def sent(table: Any, **options: Any) -> tuple[int, str]:
        body = stream(table, **options)
        found = httpx.post(f"{server.url}/v1/score", content=body, headers={"content-type": MEDIA})
        return found.status_code, found.json()["error"]

    table = table_of(bundle, 3)
    assert sent(table_of(bundle, MOST_ROWS + 1))[0] == 413
    # 400 MB of one letter are a body of some KB.
    bomb = table.to_arrow().append_column("more", pa.array(["x" * (200 << 20)] * 2 + [""]))
    status, text = sent(bomb, compression="zstd")
    assert (status, text) == (413, "a body must unpack to at most 33,554,432 bytes, got more")
    long = table.with_columns(seen=pl.Series([[1] * 20_000, [], []]))
    assert sent(long) == (413, "a list must have at most 10,000 items, got 20,000 in column 'seen'")
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([3], pa.int32()), pa.array([1.0]))
    status, text = sent(table.to_arrow().append_column("runs", runs))
    assert (status, text.startswith("column 'runs' must be of a plain type")) == (422, True)
    for zone, status in ((b"Europe/B\xffrlin", 400), (b"Europe/Nowhere"[:13], 422)):
        body = stream(table).replace(b"Europe/Berlin", zone)
        headers = {"content-type": MEDIA}
        found = httpx.post(f"{server.url}/v1/score", content=body, headers=headers)
        assert found.status_code == status, found.text
    status, text = sent(table.drop("city"))
    assert (status, "column 'city' must be in the table" in text) == (422, True)
    # The compressed stream of a sound table is taken.
    found = httpx.post(
        f"{server.url}/v1/score",
        content=stream(table, compression="lz4"),
        headers={"content-type": MEDIA, "accept": "application/json"},
    )
    np.testing.assert_allclose(found.json()["scores"], bundle.score(table), rtol=0, atol=1e-5)


# --- what is counted --------------------------------------------------------


def samples(server: Served) -> dict[tuple[str, ...], float]:
    """Values by name and labels."""
    families = text_string_to_metric_families(server.get("/metrics").text)
    return {
        (one.name, *one.labels.values()): one.value for each in families for one in each.samples
    }


def test_the_metrics_count_rows_scores_and_unknown_ids(server: Served, bundle: Bundle):
    before = samples(server)
    rows = [as_json(row) for row in table_of(bundle, 30).to_dicts()]
    for row in rows[:12]:
        row["city"] = "no such city"
    for row in rows[:5]:
        row["shop"] = "no such shop"
    scores = server.scores(rows)
    server.post("/v1/score", {"rows": [{}]})
    grown = {key: value - before.get(key, 0.0) for key, value in samples(server).items()}
    assert grown["isthmus_requests_total", "score", "200"] == 1
    assert grown["isthmus_requests_total", "score", "422"] == 1
    assert grown["isthmus_rows_total", "score"] == 30
    assert grown["isthmus_domain_rows_total", "(unknown)"] == 5
    assert sum(grown["isthmus_domain_rows_total", name] for name in bundle.domains) == 25
    assert grown["isthmus_domain_scores_total", "(unknown)"] == pytest.approx(sum(scores[:5]))
    assert grown["isthmus_unknown_ids_total", "city"] >= 12
    assert grown["isthmus_ids_total", "city"] == 30
    assert grown["isthmus_ids_total", "seen"] == sum(len(row["seen"][-3:]) for row in rows)
    assert grown["isthmus_request_seconds_count", "score"] == 2
    assert 0 < grown["isthmus_request_seconds_sum", "score"] < 60


# --- who may ask ------------------------------------------------------------


def test_a_token_is_asked_for(bundle_path: Path, bundle: Bundle, tmp_path: Path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    row = as_json(table_of(bundle, 1).to_dicts()[0])
    words = (bundle_path, "--token-file", tmp_path / "token", "--backend", "torch")
    with served(*words) as server:
        assert server.get("/healthz").status_code == 200
        for headers in ({}, {"authorization": "Bearer other"}, {"authorization": TOKEN}):
            for path in ("/v1/score", "/v1/model/reload", "/invocations"):
                found = server.post(path, {"rows": [row]}, headers=headers)
                assert found.status_code == 401
                assert found.headers["www-authenticate"] == "Bearer"
        np.testing.assert_allclose(
            server.scores([row], headers=BEARER), bundle.score_rows([row]), rtol=0, atol=1e-12
        )
        assert server.get("/v1/model", headers=BEARER).json()["backend"] == "torch"
        assert server.post("/v1/model/reload", headers=BEARER).json() == {"bundle": bundle.checksum}


def test_without_a_token_nothing_is_reloaded(server: Served):
    found = server.post("/v1/model/reload")
    assert (found.status_code, found.json()["error"]) == (
        403,
        "a reload needs a server with a token, got one started without",
    )


def test_settings_out_of_range_are_refused(bundle_path: Path, tmp_path: Path):
    def said(*words: Any) -> str:
        return told(isthmus_in_process("serve", *words))

    (tmp_path / "short").write_text("1234")
    assert "token must have at least 16" in said(bundle_path, "--token-file", tmp_path / "short")
    assert "token file must be readable" in said(bundle_path, "--token-file", tmp_path / "none")
    assert "port must be 0 to 65535, got 70000" in said(bundle_path, "--port", 70000)
    assert "workers must be 1 to 512, got 0" in said(bundle_path, "--workers", 0)
    assert "--backend must be onnx or torch, got 'tensorrt'" in said(
        bundle_path, "--backend", "tensorrt"
    )
    assert "name must be letters, digits" in said(bundle_path, "--name", "a/b")
    assert "log_share must be more than 0 and at most 1, got 2.0" in said(
        bundle_path, "--log-share", 2
    )
    assert "log_values must stand with log" in said(bundle_path, "--log-values")
    assert "bundle folder must exist" in said(tmp_path / "nowhere", "--port", 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "cannot listen on 127.0.0.1" in said(bundle_path, "--port", port)


def test_the_document_describes_what_is_read(server: Served):
    document = server.get("/openapi.json").json()
    row = document["components"]["schemas"]["Row"]
    assert set(row["required"]) == {*row["properties"]}
    assert "shop" in row["properties"]
    assert json.dumps(row["properties"]["seen"]).count("array") == 1
    said = {(method, path) for path, of in document["paths"].items() for method in of}
    routes = routes_of(Mock(), "isthmus")
    had = {
        (method.lower(), route.path)
        for route in routes
        for method in route.methods or {"GET"}  # what a function that answers has by default
        if method != "HEAD"
    }
    assert said == had


# --- a long load ------------------------------------------------------------


@pytest.mark.parametrize("seconds", [30, pytest.param(600, marks=pytest.mark.soak)])
def test_under_a_steady_load_nothing_fails_and_memory_stays(
    server: Served, bundle: Bundle, seconds: int
):
    rows = [as_json(row) for row in table_of(bundle, 50).to_dicts()]
    body = json.dumps({"rows": rows}).encode()
    put_load(server.url, body, seconds=3)  # caches, and the allocator's first pages
    capacity = put_load(server.url, body, seconds=5)
    assert not capacity.faults
    (worker,) = server.workers
    memory = []
    for _ in range(5):
        load = put_load(server.url, body, seconds=seconds / 5, rate=0.8 * capacity.answered / 5)
        assert not load.faults
        assert load.answered > 10 * seconds / 5
        memory.append(memory_of(worker))
    assert max(memory) <= 1.05 * memory[0]
