"""Exports as Triton and KServe lay them out: read as those servers read them, and run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

import isthmus
from command_line import isthmus_in_process, told
from isthmus.bundle import Part
from isthmus.errors import ConfigError
from isthmus.exporting import export
from isthmus.exporting.graph_file import session_of
from isthmus.exporting.layouts import triton_config
from isthmus.exporting.served_graph import GraphInput, graph_arrays
from isthmus.models import build_model
from small_runs import clicks, settings

TRITON: Any = model_config_pb2  # its classes are made when it is imported


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    """A run with a list, whose bundle serves one domain by a part."""
    folder = tmp_path_factory.mktemp("layouts")
    pq.write_table(clicks(), folder / "clicks.parquet")
    changes = [f"data.table={folder / 'clicks.parquet'}", "model.adapter={name: none}"]
    config = isthmus.load_config(settings(epochs=1), changes)
    made = isthmus.fit(config, out=folder / "run", cache=folder / "cache")
    whole = made.bundle
    other = build_model(whole.config.model, whole.encoder.fields, whole.encoder.n_domains).eval()
    isthmus.Bundle(
        config=whole.config,
        encoder=whole.encoder,
        model=whole.model,
        parts={"own": Part(other, whole.config.model)},
        routes={whole.domains[1]: "own"},
    ).save(folder / "run" / "bundle")
    return isthmus.Run.open(folder / "run")


SCRIPT = """
import sys, isthmus
from isthmus.cli import app
run = isthmus.Run.open(sys.argv[1])
whole = run.bundle
alone = isthmus.Bundle(config=whole.config, encoder=whole.encoder, model=whole.model)
isthmus.export(alone, sys.argv[1] + "/kserve", layout="kserve")
app(["export", sys.argv[1], "--layout", "triton"], prog_name="isthmus")
"""


@pytest.fixture(scope="module")
def exported(run: isthmus.Run) -> Path:
    """Both layouts, from a process of their own: the shape checks of this one cannot be traced."""
    words = [sys.executable, "-c", SCRIPT, str(run.path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return run.path


def config_of(folder: Path) -> Any:
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, TRITON.ModelConfig())


TYPES = {"tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}


def dims(shape: list[int | str]) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in shape]


def check_repository(repository: Path, run: isthmus.Run, told: dict[str, Any]) -> None:
    """A folder for each model, with a version and a config that says what the graph itself says."""
    models = list(told["models"])
    assert sorted(path.name for path in repository.iterdir() if path.is_dir()) == models
    for name in models:
        assert sorted(path.name for path in (repository / name).iterdir()) == ["1", "config.pbtxt"]
        config = config_of(repository / name)
        assert config.name == name
        assert config.platform == "onnxruntime_onnx"
        assert config.max_batch_size == 0  # the items of a list are not counted by rows
        session = session_of(repository / name / "1" / "model.onnx")
        for written, graph in (
            (config.input, session.get_inputs()),
            (config.output, session.get_outputs()),
        ):
            types = {tensor.name: TYPES[tensor.type] for tensor in graph}
            assert {t.name: TRITON.DataType.Name(t.data_type) for t in written} == types
            shapes = {tensor.name: dims(tensor.shape) for tensor in graph}
            assert {t.name: list(t.dims) for t in written} == shapes
        assert {"history.values", "history.lengths"} <= {t.name for t in config.input}
    # The client sends each row to the model of its domain.
    rows = clicks(50)
    (scored,) = run.bundle.score_blocks(rows)
    inputs = tuple(GraphInput(o["name"], o["dtype"], tuple(o["shape"])) for o in told["inputs"])
    arrays = graph_arrays(inputs, scored.encoded.batch())
    answers = {
        name: session_of(repository / name / "1" / "model.onnx").run(["scores"], arrays)[0]
        for name in models
    }
    sent = [told["routes"].get(tab, "isthmus") for tab in rows["tab"].to_pylist()]
    found = [answers[name][row] for row, name in enumerate(sent)]
    # The bundle of the run has the part; the other model alone is what kserve was given.
    bundle = run.bundle
    if not told["routes"]:
        bundle = isthmus.Bundle(config=bundle.config, encoder=bundle.encoder, model=bundle.model)
    np.testing.assert_allclose(found, bundle.score(rows), atol=1e-5)


def test_triton(run: isthmus.Run, exported: Path):
    folder = exported / "triton"
    told = json.loads((folder / "export.json").read_text())
    assert told["routes"] == {run.bundle.domains[1]: "isthmus-0"}
    assert told["layout"] == "triton"
    assert told["models"] == {
        "isthmus": "isthmus/1/model.onnx", "isthmus-0": "isthmus-0/1/model.onnx",
    }  # fmt: skip
    check_repository(folder, run, told)


def test_kserve(run: isthmus.Run, exported: Path):
    folder = exported / "kserve"
    told = json.loads((folder / "export.json").read_text())
    assert (told["layout"], told["routes"]) == ("kserve", {})
    assert sorted(path.name for path in folder.iterdir()) == [
        "export.json", "inference-service.yaml", "models",
    ]  # fmt: skip
    check_repository(folder / "models", run, told)
    service = yaml.safe_load((folder / "inference-service.yaml").read_text())
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["kind"] == "InferenceService"
    assert service["metadata"] == {"name": "isthmus"}
    model = service["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "onnx"}
    assert model["protocolVersion"] == "v2"  # else KServe finds no runtime
    assert model["storageUri"].endswith("/models")


@pytest.mark.parametrize(
    "name", ["a.values", 'a "quoted" \\ name', "größe", "tab\tand\nline", "\x01"]
)
def test_any_name_of_a_column_is_written(name: str):
    text = triton_config(name, [GraphInput(name, "float32", ("rows", 3))])
    config = text_format.Parse(text, TRITON.ModelConfig())
    assert (config.name, config.input[0].name) == (name, name)
    assert list(config.input[0].dims) == [-1, 3]


def test_what_is_no_layout_is_refused(run: isthmus.Run, tmp_path: Path):
    words = ("export", run.path, "-o", tmp_path / "made", "--layout")
    assert "--layout must be plain, triton or kserve, got 'seldon'" in told(
        isthmus_in_process(*words, "seldon")
    )
    assert "layout triton must stand with format onnx, got pt2" in told(
        isthmus_in_process(*words, "triton", "--format", "pt2")
    )
    with pytest.raises(ConfigError, match="layout must be one of plain, triton, kserve, got 'x'"):
        export(run, tmp_path / "made", layout="x")  # type: ignore[arg-type]
    assert not (tmp_path / "made").exists()
