"""One file of a graph: how it is written, and how it is compared with the network."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim

from isthmus.data.batch import Batch
from isthmus.errors import BundleError, ConfigError
from isthmus.exporting.served_graph import OUTPUTS, GraphInput, ServedGraph, graph_arrays

OPSET = 20
TOLERANCE = 1e-5  # of a score, and of a logit over the larger of its size and 1
COUNTS = (1, 7, 513, 4096)  # rows of the comparison
TRACED = 7  # rows of the example: more than one, so that no size of 1 is built in
Scorer = Callable[[Batch], dict[str, np.ndarray]]  # outputs by name
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


def check_libraries() -> None:
    """Raise ConfigError where a library of the extra is missing."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"an export to ONNX needs {missing[0]}, which is not installed: pip install 'isthmus[onnx]'"
        )


def traced(
    graph: ServedGraph, inputs: Sequence[GraphInput], example: Batch
) -> torch.export.ExportedProgram:
    """The graph as a program, its numbers of rows and of items free.

    ``example``: a few rows, more than one, so that no size of 1 is built in. Raises BundleError where
    the network cannot be traced.
    """
    free: dict[str, Any] = {"rows": Dim("rows", min=1)}
    sizes = (size for one in inputs for size in one.shape if isinstance(size, str))
    for number, size in enumerate(sizes):
        free.setdefault(size, Dim(f"items_{number}", min=0))
    shapes = tuple(
        {axis: free[size] for axis, size in enumerate(one.shape) if isinstance(size, str)}
        for one in inputs
    )
    given = tensors(inputs, example)
    try:
        return torch.export.export(graph.eval(), given, dynamic_shapes=(shapes,))
    except (RuntimeError, ValueError) as fault:  # what torch raises for a guard on a free size
        raise BundleError(f"the network cannot be exported: {fault}") from fault


def tensors(inputs: Sequence[GraphInput], batch: Batch) -> tuple[Tensor, ...]:
    """A batch as the tensors of the inputs, in their order."""
    arrays = graph_arrays(tuple(inputs), batch)
    return tuple(torch.from_numpy(arrays[one.name]) for one in inputs)


def write_onnx(
    program: torch.export.ExportedProgram, inputs: Sequence[GraphInput], path: Path
) -> Scorer:
    """Write a traced graph as ONNX; give the file at work in ONNX Runtime, on one thread.

    Raises BundleError where an operation has no counterpart there, and where the file does not run.
    """
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), _quiet():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        try:
            written = torch.onnx.export(
                program,
                input_names=[one.name for one in inputs],
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as fault:
            raise BundleError(f"the network cannot be exported to ONNX: {fault}") from fault
    assert written is not None
    written.save(path)
    session = session_of(path)

    def score(batch: Batch) -> dict[str, np.ndarray]:
        try:
            found = session.run(list(OUTPUTS), graph_arrays(tuple(inputs), batch))
        except InvalidArgument as fault:
            raise BundleError(f"the exported graph does not run: {fault}") from fault
        return dict(zip(OUTPUTS, found, strict=True))

    return score


def write_pt2(
    program: torch.export.ExportedProgram, inputs: Sequence[GraphInput], path: Path
) -> Scorer:
    """Write a traced graph for torch.export.load of others; give the program itself at work.

    Nothing here loads such a file: loading unpickles.
    """
    torch.export.save(program, path)
    run = program.module()

    def score(batch: Batch) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = run(*tensors(inputs, batch))
        return {name: one.numpy() for name, one in zip(OUTPUTS, found, strict=True)}

    return score


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a file is from the network. ``rows``: of each comparison; the rest: the worst of all."""

    rows: tuple[int, ...]
    logits: float  # over the larger of the logit's size and 1
    scores: float


def parity_of(score: Scorer, right: Scorer, rows: Batch) -> Parity:
    """Compare a file at work with the network on the same rows, output by output, by name.

    ``rows``: at least as many as the largest of `COUNTS`. Raises BundleError above `TOLERANCE`.
    """
    worst = dict.fromkeys(OUTPUTS, 0.0)
    for count in COUNTS:
        batch = rows.take(torch.arange(count))
        found, expected = score(batch), right(batch)
        for name, truth in expected.items():
            scale = np.maximum(1, np.abs(truth)) if name == "logits" else 1.0
            away = float((np.abs(found[name] - truth) / scale).max())
            if not away <= TOLERANCE:
                raise BundleError(
                    f"the exported graph must give the network's {name} to {TOLERANCE:g}, got a"
                    f" difference of {away:.3g} on {count:,} rows"
                )
            worst[name] = max(worst[name], away)
    return Parity(COUNTS, **worst)


def session_of(path: Path, threads: int = 1) -> Any:
    """A session of ONNX Runtime, which reads no environment variable for its threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs each operator of a library that is not there."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
