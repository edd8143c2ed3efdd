"""A table on several processes by TorchRec: whole logical tables, or columns of all tables, on each.

Source: Ivchenko et al., TorchRec: a PyTorch Domain Library for Recommendation Systems, RecSys 2022.
Departure: TorchRec updates a table within the backward pass, by an optimiser of its own. Here TorchRec
finds, sends and looks up rows, and brings gradients back. The gradient then waits at the rows as a sparse
one, so the package's Adam moves the table as it moves any other: with the same numbers, once a step.
"""

import importlib
import warnings
from importlib import metadata
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch import distributed as dist

from isthmus.errors import ConfigError
from isthmus.layers.tables import Box, FusedTable
from isthmus.sharding.dealt_table import AbstractDealtTable
from isthmus.sharding.row_wise import KeptGradient

Columns = Literal["table_wise", "column_wise"]

WANTED = "torchrec==1.8.0 with fbgemm-gpu-cpu==1.8.0, for torch 2.13, both installed with --no-deps"
OF_FBGEMM = ("fbgemm-gpu", "fbgemm-gpu-cpu", "fbgemm-gpu-genai")
MULTIPLE = 4  # fbgemm reads so many numbers at once


def check_torchrec() -> None:
    """Raise ConfigError where TorchRec cannot be used: it is absent, clashes, or does not load.

    The CUDA and the CPU package of fbgemm fill one folder, so that the later one breaks the other.
    """
    found = {}
    for name in OF_FBGEMM:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if len(found) > 1:
        named = " and ".join(f"{name} {version}" for name, version in found.items())
        raise ConfigError(
            f"one package of fbgemm must be installed, since all fill one folder, got {named};"
            " uninstall all of them, then install one"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("torchrec.distributed.embedding")
    except (ImportError, OSError, AttributeError, RuntimeError) as fault:
        raise ConfigError(
            f"tables by TorchRec need {WANTED}, got torch {torch.__version__} and: {fault}"
        ) from fault


def can_hold(dim: int, world: int, way: Columns) -> bool:
    """Whether TorchRec's kernels take the columns that each process would hold."""
    return dim % (MULTIPLE * world if way == "column_wise" else MULTIPLE) == 0


class TorchRecTable(AbstractDealtTable["_EngineLookup"]):
    """The logical tables of one storage on the processes of ``group``, by TorchRec.

    ``way``: ``table_wise`` gives every process some neighbouring whole tables; ``column_wise`` gives
    each the same columns of every table. ``weight``: (rows here, columns here). ``table`` must be
    the same on every process. Raises ConfigError as `check_torchrec` does; ``ValueError`` where the
    columns of a process are no multiple of 4.
    """

    def __init__(self, table: FusedTable, *, group: dist.ProcessGroup, way: Columns) -> None:
        super().__init__()
        sizes = {name: rows.stop - rows.start for name, rows in table.slices.items()}
        total = self.lay_out(sizes, table.dim)
        self.sparse, self.owned, self.id_dtype = table.sparse, table.owned, torch.int64
        self.group, self.rank = group, dist.get_rank(group)
        world = dist.get_world_size(group)
        width = self.dim // world if way == "column_wise" else self.dim
        if not can_hold(self.dim, world, way):
            raise ValueError(
                f"the columns of a process must be a multiple of {MULTIPLE},"
                f" got dim {self.dim} on {world} processes, {way}"
            )
        check_torchrec()
        holders = _holders(sizes, world)
        self._here = range(total), range(self.rank * width, (self.rank + 1) * width)
        if way == "table_wise":
            mine = [self.slices[name] for name, holder in holders.items() if holder == self.rank]
            rows = range(mine[0].start, mine[-1].stop) if mine else range(0)
            self._here = rows, range(self.dim)
        plan = {
            name: _planned(rows, width, way, holders[name], world) for name, rows in sizes.items()
        }
        # Hidden from torch: its weights are a view of `weight`, which is what is trained and saved.
        self._engine = (_engine(sizes, self.dim, plan, group),)
        own = self.weight_box().of(table.weight.detach())
        self.weight = nn.Parameter(
            _view_of_all(self._engine[0], self._names_here(), own), table.weight.requires_grad
        )
        starts = torch.tensor([rows.start for rows in self.slices.values()])
        self._starts = nn.Buffer(starts, persistent=False)
        self._lookups = []

    def _names_here(self) -> list[str]:
        rows, _ = self._here
        return [n for n, s in self.slices.items() if len(rows) and s.start in rows]

    def _fetch(self, ids: Int[Tensor, " items"]) -> tuple[Tensor, Tensor]:
        """Every row that is needed, once, and the place of each id's row among them."""
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.rows:
            raise IndexError(
                f"ids of a table with {self.rows} rows must lie in 0 to {self.rows - 1},"
                f" got {int(ids.min())} to {int(ids.max())}"
            )
        asked, place = torch.unique(ids.long(), return_inverse=True)  # in order, so by table
        ends = torch.cat([self._starts, self._starts.new_tensor([self.rows])])
        lengths = torch.searchsorted(asked, ends).diff()
        values = asked - self._starts.repeat_interleave(lengths)
        trained = torch.is_grad_enabled() and self.weight.requires_grad
        with torch.set_grad_enabled(trained):
            lookup = _EngineLookup(self, values, lengths)
        if trained:
            self._lookups.append(lookup)
        return KeptGradient.apply(self.weight, lookup.found.detach(), lookup), place

    def _brought(self, lookups: "list[_EngineLookup]") -> tuple[Tensor, Tensor]:
        for lookup in lookups:
            lookup.send_back()
        rows = torch.cat([lookup.rows for lookup in lookups])
        return rows, torch.cat([lookup.gradient_of_rows() for lookup in lookups])

    def table(self, name: str) -> Tensor:
        """A view of the rows and columns of one logical table that lie here: see `box`."""
        rows, whole = self._here[0], self.slices[name]
        if not len(self.box(name).rows):
            return self.weight[:0]
        return self.weight[whole.start - rows.start : whole.stop - rows.start]

    def box(self, name: str) -> Box:
        """Which part of the logical table ``name`` lies here."""
        size = self.slices[name].stop - self.slices[name].start
        here = name in self._names_here()
        return Box((size, self.dim), range(size if here else 0), self._here[1])

    def weight_box(self) -> Box:
        """Which part of the whole storage lies here."""
        return Box((self.rows, self.dim), *self._here)


class _EngineLookup:
    """One look-up: the rows that were asked for here, and those that were found here for others."""

    def __init__(self, table: TorchRecTable, values: Tensor, lengths: Tensor) -> None:
        torchrec = importlib.import_module("torchrec")
        engine = table._engine[0]
        names = list(table.slices)
        asked = torchrec.KeyedJaggedTensor(keys=names, values=values, lengths=lengths)
        context = engine.create_context()
        given = engine.input_dist(context, asked).wait().wait()
        with torch.no_grad():
            self.leaves: list[Tensor] = [t.detach() for t in engine.compute(context, given)]
        for leaf in self.leaves:
            leaf.requires_grad_(torch.is_grad_enabled())
        found = engine.output_dist(context, self.leaves).wait()
        self.found = torch.cat([found[name].values() for name in names])
        self.gradient: Tensor | None = None
        self.width = table.weight.shape[1]
        begin = table._here[0].start if len(table._here[0]) else 0
        first = {name: table.slices[name].start - begin for name in names}
        rows = [_rows_of(features, first) for features in given]
        self.rows = torch.cat(rows) if rows else values[:0]

    def send_back(self) -> None:
        """Run TorchRec's own way back, with what the loss made of the rows."""
        gradient = torch.zeros_like(self.found) if self.gradient is None else self.gradient
        sums = importlib.import_module("torchrec.distributed.comm_ops")
        divides = sums.get_gradient_division()
        sums.set_gradient_division(False)  # a mean over processes is no sum over the batch
        try:
            with torch.enable_grad():
                torch.autograd.backward([self.found], [gradient])
        finally:
            sums.set_gradient_division(divides)

    def gradient_of_rows(self) -> Tensor:
        """The gradient of ``rows``, (rows, columns)."""
        parts = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self.leaves]
        return torch.cat([part.reshape(-1) for part in parts])[: len(self.rows) * self.width].view(
            -1, self.width
        )


def _rows_of(features: Any, first: dict[str, int]) -> Tensor:
    """Rows of ``weight`` that a process was asked for, in TorchRec's order."""
    if not features.keys():  # no table lies here
        return features.values()[:0]
    starts = features.values().new_tensor([first[name] for name in features.keys()])  # noqa: SIM118
    lengths = features.lengths().view(len(starts), -1).sum(1).long()
    return features.values() + starts.repeat_interleave(lengths)


def _holders(sizes: dict[str, int], world: int) -> dict[str, int]:
    """The process of each whole table: neighbours together, so that each has about as many rows."""
    total, before, holders = sum(sizes.values()), 0, {}
    for name, rows in sizes.items():
        holders[name] = min(int((before + rows / 2) / total * world), world - 1)
        before += rows
    return holders


def _planned(rows: int, width: int, way: Columns, holder: int, world: int) -> Any:
    types = importlib.import_module("torchrec.distributed.types")
    ranks = [holder] if way == "table_wise" else list(range(world))
    shards = [
        types.ShardMetadata(
            shard_offsets=[0, at * width], shard_sizes=[rows, width], placement=f"rank:{rank}/cpu"
        )
        for at, rank in enumerate(ranks)
    ]
    spec = types.EnumerableShardingSpec(shards)
    return types.ParameterSharding(way, "fused", ranks, spec)


def _engine(sizes: dict[str, int], dim: int, plan: dict[str, Any], group: dist.ProcessGroup) -> Any:
    torchrec = importlib.import_module("torchrec")
    embedding = importlib.import_module("torchrec.distributed.embedding")
    types = importlib.import_module("torchrec.distributed.types")
    optim = importlib.import_module("torch.distributed.optim")
    configs = [
        torchrec.EmbeddingConfig(
            name=name, num_embeddings=rows, embedding_dim=dim, feature_names=[name]
        )
        for name, rows in sizes.items()
    ]
    collection = torchrec.EmbeddingCollection(tables=configs, device=torch.device("meta"))
    # A fused kernel wants an optimiser; no gradient ever comes to it.
    optim._apply_optimizer_in_backward(torch.optim.SGD, collection.parameters(), {"lr": 0.0})
    env = types.ShardingEnv.from_process_group(group)
    device = torch.device("cpu")
    return embedding.EmbeddingCollectionSharder().shard(collection, plan, env, device)


def _view_of_all(engine: Any, names: list[str], own: Tensor) -> Tensor:
    """One view (rows, columns) of the weights of all tables here, filled with ``own``."""
    if not names:
        return own.clone()
    state = engine.state_dict()
    parts = [state[f"embeddings.{name}.weight"].local_shards()[0].tensor for name in names]
    first = parts[0]
    whole = first.as_strided(own.shape, (own.shape[1], 1), first.storage_offset())
    at = first.data_ptr()
    for part in parts:
        if part.data_ptr() != at or not part.is_contiguous():
            raise RuntimeError("TorchRec must store the tables of one width one below the other")
        at += part.numel() * part.element_size()
    return whole.detach().copy_(own)
