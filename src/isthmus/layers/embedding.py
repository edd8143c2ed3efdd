"""Embeddings: a batch's ids and numbers in, one row of floats each out."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.data.batch import Batch, Jagged
from isthmus.layers.inputs.attention import TargetAttention
from isthmus.layers.inputs.numbers import NumberEmbeddings
from isthmus.layers.tables import INIT_STD, Tables, pool
from isthmus.schema import FittedField, Pooling

_NUMBERS = ("vector", "statistics", "trees")  # behind the single numbers, in this order


class FeatureEmbedding(nn.Module):
    """All features of a batch as one row of floats, in the config's order.

    Categorical: its embedding. Lists: pooled embeddings (mean, sum, max, or weighted by what the
    ``query`` of the field is in the row; an empty list is 0). Numbers: as they are, or embedded
    (`NumberEmbeddings`). Vectors, statistics, trees: as they are. ``columns[name]`` is a feature's
    slice of the output. Raises ``ValueError`` where features of one table disagree on its rows or its
    width, and for a query that is no categorical feature of its list's width.

    ``spare``: so many columns of zeros follow the features, for an adapter at site ``input`` to fill.
    """

    def __init__(
        self, *, fields: tuple[FittedField, ...], std: float = INIT_STD, spare: int = 0
    ) -> None:
        if not fields:
            raise ValueError("a model needs at least one field, got none")
        super().__init__()
        self.fields = fields
        self.tables = Tables(tables=_logical_tables(fields), std=std)
        self.columns: dict[str, slice] = {}
        self.width = 0
        for field in fields:
            self.columns[field.name] = slice(self.width, self.width + field.width)
            self.width += field.width
        self.spare = spare
        self.width += spare
        self.attention = nn.ModuleList(
            TargetAttention(dim=field.width, places=field.places) for field in fields if field.query
        )
        self._lookups = _Lookups(fields, self.tables)
        embedded = any(field.embedding != "none" for field in fields)
        self.numbers = NumberEmbeddings(fields=fields) if embedded else None
        self._pieces = _plan(fields)

    def forward(self, batch: Batch) -> Float[Tensor, "rows width"]:
        """Embed a batch."""
        found = self._lookups(batch.categorical, self.tables)
        numbers = {} if self.numbers is None else self.numbers(batch.numeric)
        parts: list[Tensor] = []
        for piece in self._pieces:
            if piece.source == "categorical":
                part = found[piece.dim][:, piece.start : piece.stop].flatten(1)
            elif piece.source in ("piecewise", "periodic"):
                part = numbers[piece.source, piece.dim][:, piece.start : piece.stop].flatten(1)
            elif piece.source == "numeric":
                part = batch.numeric[:, piece.start : piece.stop]
            else:
                part = self._pool_list(batch.lists[piece.start], piece, found)
            parts.append(part)
        if self.spare:
            parts.append(parts[0].new_zeros(parts[0].shape[0], self.spare))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _pool_list(
        self, column: Jagged, piece: "_Piece", found: dict[int, Tensor]
    ) -> Float[Tensor, "rows dim"]:
        if piece.source == "numeric_list":
            return pool(column.values.unsqueeze(1), column.offsets, piece.pooling)
        store = self.tables.store(piece.dim)
        ids = column.values.to(store.id_dtype) + store.first_row(piece.table)
        if piece.unit is None:
            return store.pooled(ids, column.offsets, piece.pooling)
        query = found[piece.dim][:, piece.query]
        return self.attention[piece.unit](query, store(ids), column.offsets)

    def field_matrix(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows fields dim"]:
        """The embedded features of ``x``, the output of ``forward``, stacked for an FM.

        Raises ``ValueError`` unless all embedded features have one width.
        """
        names, dim = self.embedded_fields()
        first, last = self.columns[names[0]].start, self.columns[names[-1]].stop
        if last - first == dim * len(names):  # side by side: a view, no copy
            return x[:, first:last].unflatten(1, (len(names), dim))
        return torch.stack([x[:, self.columns[name]] for name in names], dim=1)

    def embedded_fields(self) -> tuple[tuple[str, ...], int]:
        """Names of the features that have an embedding, and their one width.

        Raises ``ValueError`` when there is none or when their widths differ.
        """
        widths = {field.name: field.width for field in self.fields if field.table}
        if len(set(widths.values())) != 1:
            raise ValueError(
                f"every categorical feature must have the same dim here, and one must exist,"
                f" got {widths}"
            )
        return tuple(widths), next(iter(widths.values()))


class _Piece:
    """Some neighbouring output columns that come from one place."""

    def __init__(self, field: FittedField, start: int, stop: int) -> None:
        self.source = "numeric" if field.kind in _NUMBERS else field.kind
        if field.embedding != "none":
            self.source = field.embedding
        self.dim = field.width
        self.table = field.table
        self.pooling: Pooling = field.pooling
        self.start = start
        self.stop = stop
        self.unit: int | None = None  # of a list with a query: its place among such lists
        self.query = 0  # and the query's place among the looked up features of its width

    def joins(self, other: "_Piece") -> bool:
        """Whether the other piece continues this one."""
        return (
            self.source == other.source
            and self.source in ("categorical", "numeric", "piecewise", "periodic")
            and (self.source == "numeric" or self.dim == other.dim)
            and self.stop == other.start
        )


class _Lookups(nn.Module):
    """One lookup per table width for all single-valued categorical features."""

    def __init__(self, fields: tuple[FittedField, ...], tables: Tables) -> None:
        super().__init__()
        categorical = [field for field in fields if field.kind == "categorical"]
        self.dims: tuple[int, ...] = tuple(dict.fromkeys(field.width for field in categorical))
        self.every = len(self.dims) == 1
        for dim in self.dims:
            store = tables.store(dim)
            mine = [i for i, field in enumerate(categorical) if field.width == dim]
            first = [store.first_row(categorical[i].table) for i in mine]
            self.register_buffer(f"_columns_{dim}", torch.tensor(mine), persistent=False)
            self.register_buffer(
                f"_first_{dim}", torch.tensor(first, dtype=store.id_dtype), persistent=False
            )

    def forward(self, categorical: Tensor, tables: Tables) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        for dim in self.dims:
            ids = categorical
            if not self.every:
                ids = ids.index_select(1, self.get_buffer(f"_columns_{dim}"))
            found[dim] = tables.store(dim)(ids + self.get_buffer(f"_first_{dim}"))
        return found


def _logical_tables(fields: tuple[FittedField, ...]) -> dict[str, tuple[int, int]]:
    tables: dict[str, tuple[int, int]] = {}
    for field in fields:
        if not field.table:
            continue
        shape = (field.table_rows, field.width)
        if tables.setdefault(field.table, shape) != shape:
            raise ValueError(
                f"features of table {field.table!r} must agree on (rows, dim),"
                f" got {tables[field.table]} and {shape}"
            )
    return tables


def _plan(fields: tuple[FittedField, ...]) -> list[_Piece]:
    """Where each stretch of output columns comes from, neighbours joined."""
    singles: dict[int, int] = {}
    embedded: dict[tuple[str, int], int] = {}
    lists = 0
    units = 0
    numeric = 0
    vector = sum(field.kind == "numeric" for field in fields)  # vectors follow the numbers
    pieces: list[_Piece] = []
    for field in fields:
        if field.kind == "categorical":
            start = singles.get(field.width, 0)
            stop = singles[field.width] = start + 1
        elif field.kind == "numeric":
            start, stop = numeric, numeric + 1
            numeric = stop
            if field.embedding != "none":  # counts among those of its kind and width
                key = field.embedding, field.width
                start = embedded.get(key, 0)
                stop = embedded[key] = start + 1
        elif field.kind in _NUMBERS:  # the fields of statistics and trees come last
            start, stop = vector, vector + field.width
            vector = stop
        else:
            start, stop = lists, lists + 1
            lists = stop
        piece = _Piece(field, start, stop)
        if field.query:
            piece.unit, piece.query = units, _query_place(field, fields)
            units += 1
        if pieces and pieces[-1].joins(piece):
            pieces[-1].stop = stop
        else:
            pieces.append(piece)
    return pieces


def _query_place(field: FittedField, fields: tuple[FittedField, ...]) -> int:
    names = [f.name for f in fields if f.kind == "categorical" and f.width == field.width]
    if field.query not in names:
        raise ValueError(
            f"the query of {field.name!r} must be a categorical feature of dim {field.width},"
            f" among {names}, got {field.query!r}"
        )
    return names.index(field.query)
