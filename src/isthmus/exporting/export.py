"""From a run to a folder with its graphs, each compared with the network it is of.

    model.onnx        the network of all rows that no part scores; .pt2 in that format
    parts/N.onnx      where domains have networks of their own: a guarded bundle; other places in the
                      layouts of servers, see `isthmus.exporting.layouts`
    export.json       inputs, outputs, routes, opset, how far each graph is from its network, checksums

Ids and numbers are those that the bundle's encoder makes of a raw row.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from isthmus.bundle import Bundle, Part, is_bundle, to_score
from isthmus.data.batch import Batch
from isthmus.disk import check_place, sha256, whole_folder, writing
from isthmus.errors import BundleError, ConfigError, RunError
from isthmus.exporting.drawn_rows import drawn_rows
from isthmus.exporting.graph_file import (
    COUNTS,
    OPSET,
    TOLERANCE,
    TRACED,
    Parity,
    check_libraries,
    parity_of,
    traced,
    write_onnx,
    write_pt2,
)
from isthmus.exporting.layouts import Layout, graph_files, served_name, write_beside
from isthmus.exporting.served_graph import OUTPUTS, GraphInput, ServedGraph, graph_inputs
from isthmus.run import Run
from isthmus.version import VERSION

Form = Literal["onnx", "pt2"]
CONTENT = "export.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Exported:
    """What `export` wrote. ``parity``: by file, the largest differences that were found."""

    path: Path
    content: Mapping[str, Any]
    parity: Mapping[str, Parity]

    def __str__(self) -> str:
        count = len(self.parity)
        lines = [f"{self.path}: {count} graph{'s' if count > 1 else ''}"]
        for name, found in self.parity.items():
            counts = ", ".join(f"{count:,}" for count in found.rows)
            lines.append(
                f"{name}: within {found.scores:.1e} of the network's scores on {counts} rows"
            )
        return "\n".join(lines)


def export(
    run: str | Path | Run | Bundle,
    out: str | Path | None = None,
    *,
    format: Form = "onnx",
    layout: Layout = "plain",
    table: Any = None,
) -> Exported:
    """Write a run's networks as graphs, and compare each file with its network on real rows.

    ``run``: a run, a bundle, or the folder of either. ``out``: the folder to write, by default ``onnx``,
    ``pt2``, ``triton`` or ``kserve`` in the run's; an export in it is replaced. ``format``: ``onnx``, or
    ``pt2`` for others who load files of torch.export; isthmus loads none, because loading unpickles.
    ``layout``: ``triton`` or ``kserve``, the folder that such a server reads. ``table``: rows for the comparison,
    in place of the run's own table; drawn ids and numbers for a bundle, and for a run of a frame. The
    first 1, 7, 513 and 4,096 rows must agree to `TOLERANCE`; a shorter table is taken again and again.

    Raises ConfigError without the extra ``onnx``, BundleError where a network cannot be exported or
    the file disagrees with it, RunError where the folder cannot be written. Then nothing is written.
    """
    if format not in get_args(Form):
        raise ConfigError(f"format must be one of {', '.join(get_args(Form))}, got {format!r}")
    if layout not in get_args(Layout):
        raise ConfigError(f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}")
    if format == "onnx":
        check_libraries()
    elif layout != "plain":
        raise ConfigError(f"layout {layout} must stand with format onnx, got {format}")
    opened = _opened(run) if isinstance(run, str | Path) else run
    bundle = opened if isinstance(opened, Bundle) else opened.bundle
    if table is None and isinstance(opened, Run) and opened.config.data.table is not None:
        table = opened.state.table
    if out is None and not isinstance(opened, Run):
        raise BundleError("the export of a bundle needs a folder to write, got none")
    name = format if layout == "plain" else layout
    folder = Path(out) if out is not None else opened.path / name  # type: ignore[union-attr]
    _free(folder)
    rows = drawn_rows(bundle.encoder) if table is None else _rows(bundle, table)
    inputs = graph_inputs(bundle.encoder.fields, rows)
    with writing("folder", folder), whole_folder(folder) as place:
        names = graph_files(layout, format, len(bundle.parts))
        parity = _write(bundle, format, names, rows, inputs, place)
        write_beside(layout, names, inputs, place)
        content = _content(bundle, format, layout, inputs, parity, place)
        (place / CONTENT).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return Exported(folder, content, parity)


def _opened(path: str | Path) -> Run | Bundle:
    return Bundle.load(path) if is_bundle(Path(path)) else Run.open(path)


def _free(folder: Path) -> None:
    """Raise RunError where the folder cannot be made, or holds what is no export."""
    with writing("folder", folder):
        check_place(folder)
        if folder.exists() and not (folder / CONTENT).is_file():
            raise RunError(f"folder to write must not exist yet, or hold an export, got {folder}")
        folder.parent.mkdir(parents=True, exist_ok=True)


def _rows(bundle: Bundle, table: Any) -> Batch:
    """The first rows of a table as encoded, taken again and again until they are enough."""
    for scored in bundle.score_blocks(table):
        batch = scored.encoded.batch()
        return batch.take(torch.arange(max(COUNTS)) % batch.rows)
    raise BundleError("the table for the comparison must have rows, got none")


def _write(
    bundle: Bundle,
    form: Form,
    names: list[str],
    rows: Batch,
    inputs: tuple[GraphInput, ...],
    place: Path,
) -> dict[str, Parity]:
    """Write every graph, and compare it with its network."""
    first = Part(bundle.model, bundle.config.model)
    parity = {}
    for name, part in zip(names, (first, *bundle.parts.values()), strict=True):
        graph = ServedGraph(
            part.model,
            inputs,
            calibration=bundle.calibration,
            negative_rate=bundle.config.data.negative_rate,
            known=part.known,
        )
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        program = traced(graph, inputs, _as_given(part, rows.take(torch.arange(TRACED))))
        write = write_pt2 if form == "pt2" else write_onnx
        score = write(program, inputs, place / name)
        parity[name] = parity_of(
            lambda batch, part=part, score=score: score(_as_given(part, batch)),
            lambda batch, part=part: _served(bundle, part, batch),
            rows,
        )
    return parity


def _as_given(part: Part, batch: Batch) -> Batch:
    """Rows as the part's graph reads them: ids as they are, numbers as the part was taught."""
    return replace(batch, numeric=part.read(batch).numeric)


def _served(bundle: Bundle, part: Part, batch: Batch) -> dict[str, np.ndarray]:
    """What the bundle itself answers to rows that this part scores."""
    logits = bundle.calibrated(part.logits(batch), batch.domain.numpy())
    return {"logits": logits, "scores": to_score(logits, bundle.config.data.negative_rate)}


def _content(
    bundle: Bundle,
    form: Form,
    layout: Layout,
    inputs: tuple[GraphInput, ...],
    parity: Mapping[str, Parity],
    place: Path,
) -> dict[str, Any]:
    names = [served_name(layout, file) for file in parity]
    name_of = dict(zip(bundle.parts, names[1:], strict=True))
    files = sorted(file for file in place.rglob("*") if file.is_file())
    return {
        "format": FORMAT,
        "isthmus": VERSION,
        "bundle": bundle.checksum,
        "torch": torch.__version__,
        "opset": OPSET if form == "onnx" else None,
        "inputs": [asdict(one) for one in inputs],
        "outputs": [{"name": name, "dtype": "float32", "shape": ["rows"]} for name in OUTPUTS],
        "categorical": [f.name for f in bundle.encoder.fields if f.kind == "categorical"],
        "numeric": [f.name for f in bundle.encoder.fields if f.numbers],
        "domains": list(bundle.domains),
        "layout": layout,
        "models": dict(zip(names, parity, strict=True)),
        "routes": {domain: name_of[part] for domain, part in bundle.routes.items()},
        "tolerance": TOLERANCE,
        "parity": {name: asdict(found) for name, found in parity.items()},
        "files": {str(file.relative_to(place)): sha256(file) for file in files},
    }
