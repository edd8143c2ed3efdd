"""The graph that leaves the package: encoded rows in, logits and scores out.

    domain          (rows,) int64: 1 to n_domains, 0 for the unknown domain
    categorical     (rows, columns) int64: ids, a column a categorical feature; where there are some
    numeric         (rows, columns) float32: numbers as the encoder scales them; where there are some
    NAME.values     (items,) int64 ids or float32 numbers of a list feature
    NAME.lengths    (rows,) int64: how many of the items belong to each row, in their order

    logits          (rows,) float32, calibrated
    scores          (rows,) float32 = sigmoid(logits + log(negative_rate))

An id outside of its table, and a domain outside of the trained ones, is taken for the unknown: a
runtime would read another table's row, or stop.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.bundle.calibration import Calibration
from isthmus.data.batch import Batch, Jagged
from isthmus.data.store.subset import Known
from isthmus.models import AbstractModel
from isthmus.schema import FittedField

OUTPUTS: tuple[str, ...] = ("logits", "scores")


@dataclass(frozen=True, slots=True)
class GraphInput:
    """One input. ``shape``: sizes, or the names of free ones: ``rows``, ``NAME.items``."""

    name: str
    dtype: Literal["int64", "float32"]
    shape: tuple[int | str, ...]


def graph_inputs(fields: tuple[FittedField, ...], batch: Batch) -> tuple[GraphInput, ...]:
    """The inputs of a network with these fields, in their order. ``batch``: rows of the kind."""
    found = [GraphInput("domain", "int64", ("rows",))]
    if columns := batch.categorical.shape[1]:
        found.append(GraphInput("categorical", "int64", ("rows", columns)))
    if columns := batch.numeric.shape[1]:
        found.append(GraphInput("numeric", "float32", ("rows", columns)))
    for field in _listed(fields):
        kind: Literal["int64", "float32"] = (
            "int64" if field.kind == "categorical_list" else "float32"
        )
        found.append(GraphInput(f"{field.name}.values", kind, (f"{field.name}.items",)))
        found.append(GraphInput(f"{field.name}.lengths", "int64", ("rows",)))
    return tuple(found)


def graph_arrays(inputs: tuple[GraphInput, ...], batch: Batch) -> dict[str, np.ndarray]:
    """A batch as the inputs of the graph, by name."""
    return arrays_of(
        inputs,
        domain=batch.domain.numpy(),
        categorical=batch.categorical.numpy(),
        numeric=batch.numeric.numpy(),
        lists=[(column.values.numpy(), column.offsets.numpy()) for column in batch.lists],
    )


def arrays_of(
    inputs: tuple[GraphInput, ...],
    *,
    domain: np.ndarray,
    categorical: np.ndarray,
    numeric: np.ndarray,
    lists: Iterable[tuple[np.ndarray, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Encoded rows as the inputs of the graph, by name. ``lists``: values and offsets of each."""
    held = {"domain": domain, "categorical": categorical, "numeric": numeric}
    listed = (each for values, offsets in lists for each in (values, np.diff(offsets)))
    return {
        one.name: np.ascontiguousarray(
            held[one.name] if one.name in held else next(listed), dtype=one.dtype
        )
        for one in inputs
    }


class ServedGraph(nn.Module):
    """A network with its calibration, and with the ids that it knows. Tensors in order of ``inputs``.

    ``known``: as in `isthmus.bundle.parts.Part`; all other ids become unknown. What the numbers of
    ``numeric`` tell must be made for the part beforehand.
    """

    def __init__(
        self,
        model: AbstractModel,
        inputs: tuple[GraphInput, ...],
        *,
        calibration: Calibration | None,
        negative_rate: float,
        known: Known | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(one.name for one in inputs)
        self.log_rate = math.log(negative_rate)
        self.n_domains = model.n_domains
        self.fields = model.fields
        singles = [field for field in model.fields if field.kind == "categorical"]
        self._own("sizes", np.array([field.table_rows for field in singles], dtype=np.int64))
        self.calibrated = calibration is not None
        if calibration is not None:
            self._own("slope", calibration.slope.astype(np.float32))
            self._own("offset", calibration.offset.astype(np.float32))
        self.masked = known is not None
        self.tables: Mapping[str, str] = {}
        if known is not None:
            self._own("known_domain", known.domain)
            masks = known.tables(model.fields)
            self.tables = {table: f"known_{place}" for place, table in enumerate(masks)}
            for table, mask in masks.items():
                self._own(self.tables[table], mask)

    def _own(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)))

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and scores of encoded rows, each (rows,) float32."""
        held = dict(zip(self.names, given, strict=True))
        domain = held["domain"]
        domain = torch.where((domain >= 0) & (domain <= self.n_domains), domain, 0)
        reported = domain
        if self.masked:
            domain = torch.where(self.get_buffer("known_domain")[domain], domain, 0)
        rows = domain.shape[0]
        categorical = held.get("categorical")
        if categorical is None:
            categorical = domain.new_zeros(rows, 0)
        numeric = held.get("numeric")
        if numeric is None:
            numeric = torch.zeros(rows, 0)
        batch = Batch(
            categorical=self._checked(categorical),
            numeric=numeric,
            lists=tuple(
                Jagged(
                    self._checked_list(field, held[f"{field.name}.values"]),
                    _offsets(held[f"{field.name}.lengths"]),
                )
                for field in _listed(self.fields)
            ),
            domain=domain,
            label=torch.zeros(rows),
        )
        logits = self.model(batch)
        if self.calibrated:
            slope, offset = self.get_buffer("slope"), self.get_buffer("offset")
            logits = slope.index_select(0, reported) * logits + offset.index_select(0, reported)
        return logits, torch.sigmoid(logits + self.log_rate)

    def _checked(self, ids: Tensor) -> Tensor:
        """Ids (rows, columns), unknown where they are not of their tables, or not known here."""
        sizes = self.get_buffer("sizes")
        if not len(sizes):
            return ids
        ids = torch.where((ids >= 0) & (ids < sizes), ids, 0)
        if not self.masked:
            return ids
        singles = [field for field in self.fields if field.kind == "categorical"]
        columns = [
            self._known(field, ids[:, place]).unsqueeze(1) for place, field in enumerate(singles)
        ]
        return torch.cat(columns, dim=1)

    def _checked_list(self, field: FittedField, values: Tensor) -> Tensor:
        if field.kind == "numeric_list":
            return values
        ids = torch.where((values >= 0) & (values < field.table_rows), values, 0)
        return self._known(field, ids) if self.masked else ids

    def _known(self, field: FittedField, ids: Tensor) -> Tensor:
        mask = self.get_buffer(self.tables[field.table])
        return torch.where(mask.index_select(0, ids), ids, 0)


def _listed(fields: tuple[FittedField, ...]) -> list[FittedField]:
    return [field for field in fields if field.kind in ("categorical_list", "numeric_list")]


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
