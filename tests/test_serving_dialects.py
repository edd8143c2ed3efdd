"""The dialects of other servers, asked by their own clients."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from isthmus.bundle import Bundle
from rows_of_every_kind import KINDS, drawn, frame, run_of_every_kind
from served import Served, as_json, served

# The clients warn of their own libraries, so each asks in a process of its own.
TRITON = """
import sys, json
import numpy as np
import tritonclient.http as client
url, binary, columns = sys.argv[1], sys.argv[2] == "binary", json.loads(sys.stdin.read())
server = client.InferenceServerClient(url)
assert server.is_server_live() and server.is_server_ready() and server.is_model_ready("isthmus")
inputs = []
for one in server.get_model_metadata("isthmus")["inputs"]:
    values = columns[one["name"]]
    if one["datatype"] == "BYTES":
        texts = [v if isinstance(v, str) else json.dumps(v) for v in values]
        array = np.array([text.encode() for text in texts], dtype=object)
    else:
        array = np.array(values, dtype={"FP64": "f8", "FP32": "f4", "INT64": "i8"}[one["datatype"]])
    given = client.InferInput(one["name"], list(array.shape), one["datatype"])
    given.set_data_from_numpy(array, binary_data=binary)
    inputs.append(given)
found = server.infer("isthmus", inputs, request_id="r-1")
print(json.dumps(found.as_numpy("score").tolist()))
"""
MLFLOW = """
import sys, json
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
url, columns = sys.argv[1], json.loads(sys.stdin.read())
host, port = url.removeprefix("http://").split(":")
found = ScoringServerClient(host, int(port)).invoke(pd.DataFrame(columns))
print(json.dumps(found.get_predictions().iloc[:, 0].tolist()))
"""


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dialects") / "run"
    return run_of_every_kind(folder, integers=False).path / "bundle"


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[Served]:
    with served(bundle_path, "--backend", "torch") as started:
        yield started


@pytest.fixture(scope="module")
def table(bundle_path: Path) -> pl.DataFrame:
    domains = Bundle.load(bundle_path).domains
    return frame(drawn(20, 8), pl.Series([domains[at % 3] for at in range(20)]))


@pytest.fixture(scope="module")
def right(bundle_path: Path, table: pl.DataFrame) -> np.ndarray:
    return Bundle.load(bundle_path).score(table)


def columns_of(table: pl.DataFrame) -> dict[str, list]:
    rows = [as_json(row) for row in table.to_dicts()]
    return {name: [row[name] for row in rows] for name in table.columns}


def asked(script: str, server: Served, table: pl.DataFrame, *words: str) -> list[float]:
    url = server.url.removeprefix("http://") if script is TRITON else server.url
    done = subprocess.run(
        [sys.executable, "-c", script, url, *words],
        input=json.dumps(columns_of(table)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", ["binary", "json"])
def test_triton_s_client_gets_the_scores(
    server: Served, table: pl.DataFrame, right: np.ndarray, form: str
):
    np.testing.assert_allclose(asked(TRITON, server, table, form), right, rtol=0, atol=1e-6)


def test_mlflow_s_client_gets_the_scores(server: Served, table: pl.DataFrame, right: np.ndarray):
    np.testing.assert_allclose(asked(MLFLOW, server, table), right, rtol=0, atol=1e-6)


def test_every_form_of_a_frame_is_taken(server: Served, table: pl.DataFrame, right: np.ndarray):
    rows, columns = [as_json(row) for row in table.to_dicts()], columns_of(table)
    split = {"columns": [*columns], "data": [[*row.values()] for row in rows]}
    bodies = [
        {"dataframe_split": split},
        {"dataframe_records": rows},
        {"instances": rows},
        {"inputs": columns},
    ]
    for body in bodies:
        found = server.post("/invocations", body)
        assert found.status_code == 200, found.text
        np.testing.assert_allclose(found.json()["predictions"], right, rtol=0, atol=1e-6)


def test_csv_is_taken(server: Served, table: pl.DataFrame, right: np.ndarray):
    lists = [
        name for name, kind in KINDS.items() if "list" in kind["kind"] or kind["kind"] == "vector"
    ]
    texts = [pl.Series(name, [str(list(v)) for v in table[name]]) for name in lists]
    at = table["at"].dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    body = table.with_columns(*texts, at.alias("at")).write_csv().encode()
    found = httpx.post(
        f"{server.url}/invocations", content=body, headers={"content-type": "text/csv"}
    )
    assert found.status_code == 200, found.text
    np.testing.assert_allclose(found.json()["predictions"], right, rtol=0, atol=1e-6)


def test_faults_speak_the_dialect(server: Served, table: pl.DataFrame):
    found = server.post("/invocations", {"dataframe_records": [], "inputs": {}})
    assert found.status_code == 400
    assert set(found.json()) == {"error_code", "message"}
    assert "exactly one of" in found.json()["message"]
    assert (
        server.post("/invocations", b"x", headers={"content-type": "text/plain"}).status_code == 415
    )
    given = {"name": "user", "shape": [2], "datatype": "FP64", "data": [1]}
    found = server.post("/v2/models/isthmus/infer", {"inputs": [given]})
    assert (found.status_code, found.json()["error"]) == (
        400,
        "an input must have 2 values, as its shape, got 1 of 'user'",
    )
    found = server.post("/v2/models/isthmus/infer", {"inputs": []})
    assert found.status_code == 400
    assert "column 'user' must be in the table, got none" in found.json()["error"]
    assert server.post("/v2/models/isthmus/versions/2/infer", {"inputs": []}).status_code == 404
    assert server.get("/v2/models/other").status_code == 404
