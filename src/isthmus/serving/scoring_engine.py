"""An engine: one bundle, loaded, probed, and ready to score. A reload makes another one beside it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from isthmus.bundle import Bundle, Part, read_manifest, to_score
from isthmus.data.batch import Batch
from isthmus.data.encoding.encoder import EncodedRows
from isthmus.data.requests import EncodedRequest, RowEncoder
from isthmus.data.tables.faults import missing_column
from isthmus.disk import sha256
from isthmus.errors import BundleError
from isthmus.exporting.drawn_rows import drawn_rows
from isthmus.exporting.export import CONTENT
from isthmus.exporting.graph_file import session_of
from isthmus.exporting.layouts import graph_files
from isthmus.exporting.served_graph import GraphInput, arrays_of, graph_arrays

PROBES = 7  # rows that a new engine must score before it answers


class Encoded(Protocol):
    """Rows as an encoder gives them, whichever."""

    @property
    def categorical(self) -> np.ndarray:
        """(rows, columns) int32."""
        ...

    @property
    def numeric(self) -> np.ndarray:
        """(rows, numbers) float32."""
        ...

    @property
    def lists(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Values and offsets of each list."""
        ...

    @property
    def domain(self) -> np.ndarray:
        """(rows,) int32."""
        ...

    def batch(self) -> Batch:
        """The rows as tensors."""
        ...


Score = Callable[[Encoded], np.ndarray]


class ScoringEngine:
    """A bundle at work. Event loop and threads may share one.

    ``checksum``: of the bundle. ``encoder``: of rows that name their columns. Raises BundleError where a
    score of drawn rows is not a probability.
    """

    def __init__(self, bundle: Bundle, score: Score) -> None:
        assert bundle.checksum is not None
        self.bundle = bundle
        self.checksum: str = bundle.checksum
        self.encoder: RowEncoder = bundle.row_encoder
        self._score = score
        probes = score(_encoded(drawn_rows(bundle.encoder, PROBES)))
        if not ((probes >= 0) & (probes <= 1)).all():
            raise BundleError(
                f"a bundle to serve must give scores from 0 to 1, got {probes.tolist()}"
            )

    def score(self, rows: Encoded) -> np.ndarray:
        """Scores float64 (rows,) of encoded rows."""
        return self._score(rows) if len(rows.domain) else np.empty(0)

    def score_rows(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Scores float64 (rows,) of single rows, each a mapping by column; see `Bundle.score_rows`."""
        return self.score(self.encoder.encode(rows))

    def score_row(self, row: Mapping[str, Any]) -> float:
        """The score of one row; see `score_rows`."""
        return float(self.score_rows([row])[0])

    def encoded(self, table: pa.Table, source: str) -> EncodedRows:
        """The rows of a table. Raises SchemaError as `Encoder.encode` does."""
        columns = [*table.schema.names]
        for name in self.encoder.columns:
            if name not in columns:
                raise missing_column(name, columns, source)
        block = table.select(list(self.encoder.columns)).combine_chunks().to_batches()
        empty = pa.RecordBatch.from_pylist(
            [], schema=table.select(list(self.encoder.columns)).schema
        )
        return self.bundle.encoder.encode(block[0] if block else empty, 0, source, roles=())


def load_engine(folder: str | Path, graphs: str | Path | None = None) -> ScoringEngine:
    """Load a bundle to score rows of requests, without a server: what the server itself scores by.

    >>> engine = isthmus.load_engine("runs/clicks/bundle", "runs/clicks/onnx")  # doctest: +SKIP
    >>> engine.score_row({"user": 7, "tab": "home"})                            # doctest: +SKIP
    0.0431

    ``graphs``: the folder that `isthmus.export` wrote of the bundle, for ONNX Runtime; torch without.
    Raises BundleError, naming the file, where something is missing, damaged, or of another bundle.
    """
    bundle = Bundle.load(folder)
    scored = _by_torch(bundle) if graphs is None else _by_onnx(bundle, Path(graphs))
    return ScoringEngine(bundle, scored)


def _by_torch(bundle: Bundle) -> Score:
    rate = bundle.config.data.negative_rate
    return lambda rows: to_score(bundle.logits_of(rows.batch()), rate)


def has_graphs_of(folder: Path, checksum: str) -> bool:
    """Whether a folder holds the ONNX graphs of the bundle with this checksum, complete."""
    try:
        content = json.loads((folder / CONTENT).read_text(encoding="utf-8"))
        if content["bundle"] != checksum or content["opset"] is None:
            return False
        return all(sha256(folder / name) == right for name, right in content["files"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def bundle_checksum(folder: Path) -> str:
    """The checksum of a bundle, once all its files are checked. Raises BundleError."""
    return read_manifest(folder)["sha256"]


def _by_onnx(bundle: Bundle, graphs: Path) -> Score:
    """Each row by the graph of its domain, on one thread of this process."""
    assert bundle.checksum is not None
    if not has_graphs_of(graphs, bundle.checksum):
        raise BundleError(f"the graphs must be those of the bundle, got others in {graphs}")
    content = json.loads((graphs / CONTENT).read_text(encoding="utf-8"))
    inputs = tuple(
        GraphInput(one["name"], one["dtype"], tuple(one["shape"])) for one in content["inputs"]
    )
    first = Part(bundle.model, bundle.config.model)
    names = graph_files("plain", "onnx", len(bundle.parts))
    served = []
    for name, part in zip(names, (first, *bundle.parts.values()), strict=True):
        served.append((session_of(graphs / name), part))

    def one(number: int, batch: Batch) -> np.ndarray:
        session, part = served[number]
        # Ids are masked inside the graph; what is taught, the bundle writes.
        if part.known is not None:
            batch = replace(batch, numeric=part.read(batch).numeric)
        return session.run(["scores"], graph_arrays(inputs, batch))[0].astype(np.float64)

    def alone(rows: Encoded) -> np.ndarray:
        arrays = arrays_of(
            inputs,
            domain=rows.domain,
            categorical=rows.categorical,
            numeric=rows.numeric,
            lists=rows.lists,
        )
        return served[0][0].run(["scores"], arrays)[0].astype(np.float64)

    if not bundle.parts:
        return alone
    return lambda rows: bundle.router.by_part(rows.batch(), one)


def _encoded(batch: Batch) -> EncodedRequest:
    return EncodedRequest(
        batch.categorical.numpy(),
        batch.numeric.numpy(),
        tuple((column.values.numpy(), column.offsets.numpy()) for column in batch.lists),
        batch.domain.numpy().astype(np.int32),
    )
