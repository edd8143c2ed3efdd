"""Requests that nobody means: each is answered or refused, and none breaks the server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from isthmus.bundle import Bundle
from isthmus.serving.doors.arrow_stream import MEDIA
from rows_of_every_kind import drawn, frame, run_of_every_kind
from served import Served, as_json, served, stream

TRIES = 350  # of each door: a thousand in all
FUZZ = settings(
    max_examples=TRIES,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    return run_of_every_kind(folder, integers=False).path / "bundle"


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[Served]:
    with served(bundle_path, "--backend", "torch") as started:
        before = started.workers
        yield started
        assert started.workers == before  # none died and came back
        assert "Traceback" not in "".join(started.lines)


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def table(bundle_path: Path) -> pl.DataFrame:
    names = Bundle.load(bundle_path).domains
    return frame(drawn(5, 8), pl.Series([names[at % 3] for at in range(5)]))


@pytest.fixture(scope="module")
def streams(table: pl.DataFrame) -> list[bytes]:
    """A sound stream, plain and compressed."""
    return [stream(table, compression=one) for one in (None, "lz4", "zstd")]


@FUZZ
@given(data=st.data())
def test_streams_with_other_bytes(client: httpx.Client, streams: list[bytes], data: st.DataObject):
    body = bytearray(data.draw(st.sampled_from(streams)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        body = body[: data.draw(st.integers(0, len(body)))]
    found = client.post("/v1/score", content=bytes(body), headers={"content-type": MEDIA})
    assert found.status_code in (200, 400, 413, 422), found.text
    if found.status_code == 200:
        scores = pa.ipc.open_stream(found.content).read_all()["score"].to_numpy()
        assert ((scores >= 0) & (scores <= 1)).all()
    else:
        assert found.json()["error"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@FUZZ
@given(data=st.data())
def test_requests_of_version_2_with_other_values(
    client: httpx.Client, table: pl.DataFrame, data: st.DataObject
):
    inputs: list[Any] = [
        {
            "name": name,
            "shape": [5],
            "datatype": "BYTES",
            "data": [as_json({"v": v})["v"] for v in table[name].to_list()],
        }
        for name in table.columns
    ]
    one = data.draw(st.sampled_from(inputs))
    key = data.draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]))
    one[key] = data.draw(
        anything
        | st.lists(st.integers(-2, 6), max_size=3)
        | st.sampled_from(["INT64", "FP32", "BOOL"])
        | st.fixed_dictionaries({"binary_data_size": anything})
    )
    body = json.dumps({"inputs": inputs}).encode()
    behind = data.draw(st.binary(max_size=40))
    headers = {}
    if data.draw(st.booleans()):
        length = data.draw(st.sampled_from([len(body), 0, len(body) + 1000, -1]))
        headers["inference-header-content-length"] = str(length)
    found = client.post("/v2/models/isthmus/infer", content=body + behind, headers=headers)
    assert found.status_code in (200, 400, 413), found.text
    if found.status_code == 200:
        scores = np.array(found.json()["outputs"][0]["data"])
        assert ((scores >= 0) & (scores <= 1)).all()
    else:
        assert found.json()["error"]


def test_requests_made_of_the_document(server: Served):
    """Schemathesis reads the document, and sends what it allows and what it forbids."""
    words = ["run", f"{server.url}/openapi.json", "--phases", "examples,coverage,fuzzing"]
    words += ["--max-examples", "60", "--seed", "1", "--workers", "1", "--no-color"]
    words += ["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]
    words += ["--checks", "response_schema_conformance"]
    done = subprocess.run(
        [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
