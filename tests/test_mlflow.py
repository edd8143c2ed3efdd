"""A package for MLflow, loaded by MLflow itself in a process of its own."""

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import isthmus
from command_line import ISTHMUS, isthmus_in_process, told
from isthmus.bundle import Bundle
from isthmus.errors import SchemaError
from isthmus.exporting.pyfunc_model import _load_pyfunc
from small_runs import ROWS, clicks, content, settings

QUIET = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}


def table() -> pa.Table:
    """Every kind of column that a config knows."""
    rng = np.random.default_rng(5)
    start = dt.datetime(2024, 1, 1)
    return (
        clicks()
        .append_column("seen", pa.array([start + dt.timedelta(hours=i) for i in range(ROWS)]))
        .append_column("vip", pa.array(rng.random(ROWS) < 0.5))
        .append_column("text", pa.array(rng.normal(size=(ROWS, 3)).tolist()))
        .append_column("prices", pa.array([[1.5 * i, 2.0] for i in range(ROWS)]))
        .append_column("rate", pa.array(rng.choice([0.5, 1.25], ROWS)))
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[isthmus.Run, Path]:
    """A run, and its package as the command writes it."""
    folder = tmp_path_factory.mktemp("mlflow")
    config = settings(epochs=1)
    config["data"]["features"] |= {
        "seen": "time",
        "vip": "categorical",
        "text": {"kind": "vector", "width": 3},
        "prices": "numeric_list",
        "rate": "categorical",
    }
    run = isthmus.fit(config, table(), out=folder / "run", cache=folder / "cache")
    words = [*ISTHMUS, "mlflow-package", str(run.path)]
    done = subprocess.run(words, capture_output=True, text=True, env=QUIET)
    assert done.returncode == 0, done.stderr
    assert f"wrote an MLflow model: {run.path / 'mlflow'}" in done.stdout
    return run, run.path / "mlflow"


SCRIPT = """
import json, sys
import mlflow, numpy as np, pandas as pd
from isthmus.errors import SchemaError
folder, frame, out = sys.argv[1:]
model = mlflow.pyfunc.load_model(folder)
frame = pd.read_parquet(frame)
example = model.input_example
faults = {}
for name, values in {"item": 7, "vip": "yes", "seen": "noon", "age": np.inf, "text": [[1.0]] * len(frame)}.items():
    try:
        model.predict(frame.assign(**{name: values}))
    except (mlflow.exceptions.MlflowException, SchemaError) as fault:
        faults[name] = f"{type(fault).__name__}: {fault}"
try:
    model.predict(frame.drop(columns=["age"]))
except mlflow.exceptions.MlflowException as fault:
    faults["missing"] = str(fault)
np.savez(out, scores=model.predict(frame), alone=model.predict(frame[7:8]), example=model.predict(example))
print(json.dumps({"faults": faults, "signature": model.metadata.signature.to_dict()}))
"""


def test_mlflow_gives_the_scores_of_the_bundle(package: tuple[isthmus.Run, Path], tmp_path: Path):
    run, folder = package
    strange = table().slice(0, 300)
    tabs: list[Any] = strange["tab"].to_pylist()
    tabs[0], tabs[1] = "mars", None
    histories: list[Any] = strange["history"].to_pylist()
    histories[2], histories[3] = None, ["never seen"]
    strange = strange.set_column(2, "tab", pa.array(tabs))
    strange = strange.set_column(4, "history", pa.array(histories, pa.list_(pa.string())))
    pq.write_table(strange, tmp_path / "rows.parquet")
    words = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / "rows.parquet")]
    done = subprocess.run(
        [*words, str(tmp_path / "found.npz")], capture_output=True, text=True, env=QUIET
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    right = run.bundle.score(strange)
    np.testing.assert_allclose(found["scores"], right, atol=1e-7)
    np.testing.assert_allclose(found["alone"], right[7:8], atol=1e-6)
    assert found["example"].shape == (3,)
    answer = json.loads(done.stdout.splitlines()[-1])
    faults = answer["faults"]
    # Types by MLflow's signature, values by the bundle: nothing is guessed.
    assert faults["item"].startswith("MlflowException")
    assert "Incompatible input types for column item" in faults["item"]
    assert "Incompatible input types for column vip" in faults["vip"]
    assert "MlflowException" in faults["seen"]
    assert "SchemaError: column 'age' must be finite, got inf" in faults["age"]
    assert "SchemaError: column 'text' must hold 3 numbers, got 1" in faults["text"]
    assert "missing inputs ['age']" in faults["missing"]
    inputs = {one["name"]: one for one in json.loads(answer["signature"]["inputs"])}
    assert {name: one["type"] for name, one in inputs.items()} == {
        "user": "long", "item": "string", "history": "array", "tab": "string", "age": "double",
        "seen": "datetime", "vip": "boolean", "text": "array", "prices": "array", "rate": "double",
    }  # fmt: skip
    assert inputs["history"]["items"] == {"type": "string"}
    outputs = json.loads(answer["signature"]["outputs"])
    assert outputs == [
        {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}},
    ]


def test_the_package_holds_the_bundle_and_neither_pickle_nor_code(
    package: tuple[isthmus.Run, Path],
):
    run, folder = package
    assert content(folder / "data" / "bundle") == content(run.path / "bundle")
    rest = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert rest == {"", ".json", ".yaml", ".txt", ".parquet", ".safetensors"}
    model = yaml.safe_load((folder / "MLmodel").read_text())
    flavour = model["flavors"]["python_function"]
    assert set(model["flavors"]) == {"python_function"}
    assert flavour["loader_module"] == "isthmus.exporting.pyfunc_model"
    assert flavour["data"] == "data/bundle"
    assert not flavour.get("code")
    assert "python_model" not in flavour
    needed = (folder / "requirements.txt").read_text().splitlines()
    assert f"isthmus[mlflow]=={isthmus.__version__}" in needed
    for name, held in content(folder).items():
        assert str(run.path.parent).encode() not in held, name


def test_the_model_itself_refuses_what_a_bundle_refuses(package: tuple[isthmus.Run, Path]):
    """As behind a loader that enforces no signature."""
    model = _load_pyfunc(str(package[1] / "data" / "bundle"))
    frame = table().slice(0, 20).to_pandas()
    assert model.predict(frame).shape == (20,)
    with pytest.raises(SchemaError, match="column 'item' must be string as when it was fitted"):
        model.predict(frame.assign(item=np.arange(20)))
    assert isinstance(frame, pd.DataFrame)


def test_what_cannot_be_packaged_is_refused(
    package: tuple[isthmus.Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, _ = package
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    words = ("mlflow-package", run.path, "-o", tmp_path / "mine")
    assert "must not exist yet, or hold an MLflow model, got" in told(isthmus_in_process(*words))
    bundle = ("mlflow-package", run.path / "bundle")
    assert "needs a folder to write, got none" in told(isthmus_in_process(*bundle))
    assert "must exist" in told(isthmus_in_process("mlflow-package", tmp_path / "none"))
    monkeypatch.setattr("isthmus.exporting.pyfunc_package.find_spec", lambda name: None)
    assert "pip install 'isthmus[mlflow]'" in told(isthmus_in_process(*words))
    assert content(tmp_path) == {"mine/letter.txt": b"keep"}
    assert Bundle.load(run.path / "bundle").domains
