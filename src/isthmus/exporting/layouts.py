"""Where the graphs of an export stand, and what a server wants to read beside them.

    plain    model.onnx, parts/N.onnx
    triton   isthmus/1/model.onnx and isthmus/config.pbtxt, for each part isthmus-N in the same way
    kserve   the same below models/, and inference-service.yaml

In Triton and KServe each graph is a model of its own, and the client sends a row to the model of its domain:
``routes`` in ``export.json`` says which. All other rows go to ``isthmus``.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from isthmus.exporting.served_graph import OUTPUTS, GraphInput

Layout = Literal["plain", "triton", "kserve"]
NAME = "isthmus"  # of the model that scores all rows without a part of their own
MODEL, PARTS, MODELS, SERVICE = "model", "parts", "models", "inference-service.yaml"
_TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32"}
_SERVICE = f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {NAME}
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
      # Without this line KServe finds no runtime for ONNX.
      protocolVersion: v2
      # Where you copied the folder {MODELS}/ to: s3://, gs://, or pvc:// with the name of a claim.
      storageUri: pvc://CLAIM/{MODELS}
"""


def graph_files(layout: Layout, suffix: str, parts: int) -> list[str]:
    """The file of the model below the folder of the export, then that of each part."""
    if layout == "plain":
        return [f"{MODEL}.{suffix}", *(f"{PARTS}/{number}.{suffix}" for number in range(parts))]
    names = [NAME, *(f"{NAME}-{number}" for number in range(parts))]
    above = f"{MODELS}/" if layout == "kserve" else ""
    return [f"{above}{name}/1/{MODEL}.{suffix}" for name in names]


def served_name(layout: Layout, file: str) -> str:
    """The name that a server has for a graph; the file itself where no server is meant."""
    return file if layout == "plain" else PurePosixPath(file).parts[-3]


def write_beside(
    layout: Layout, files: Sequence[str], inputs: Sequence[GraphInput], folder: Path
) -> None:
    """Write the configurations of a server that stand beside the graphs."""
    if layout == "plain":
        return
    for file in files:
        text = triton_config(served_name(layout, file), inputs)
        (folder / file).parents[1].joinpath("config.pbtxt").write_text(text, encoding="utf-8")
    if layout == "kserve":
        (folder / SERVICE).write_text(_SERVICE, encoding="utf-8")


def triton_config(name: str, inputs: Sequence[GraphInput]) -> str:
    """A graph's ``config.pbtxt``.

    ``max_batch_size: 0`` keeps Triton from putting requests together: the items of a list are
    not counted by rows. So the rows are a dimension like any other.
    """
    given = [_tensor(one.name, _TYPES[one.dtype], one.shape) for one in inputs]
    told = [_tensor(output, "TYPE_FP32", ("rows",)) for output in OUTPUTS]
    return (
        f"name: {json.dumps(name)}\n"
        'platform: "onnxruntime_onnx"\n'
        "max_batch_size: 0\n"
        f"input [\n{_listed(given)}\n]\n"
        f"output [\n{_listed(told)}\n]\n"
    )


def _tensor(name: str, dtype: str, shape: Sequence[int | str]) -> str:
    dims = ", ".join(str(size) if isinstance(size, int) else "-1" for size in shape)
    quoted = json.dumps(name, ensure_ascii=False)
    return f"  {{ name: {quoted} data_type: {dtype} dims: [ {dims} ] }}"


def _listed(tensors: Sequence[str]) -> str:
    return ",\n".join(tensors)
