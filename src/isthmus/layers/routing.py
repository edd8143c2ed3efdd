"""Routing: how the rows of one batch find the parameters of their domain.

Rows are sorted by domain and laid out in tiles: fixed-length runs of rows of one domain, the last
run of a domain filled up with copies of its last row. One batched product over tiles then serves
every domain: no Python step per domain, and work that follows the rows, not the number of domains,
whether sizes are equal or Zipf. (One tile as long as the largest domain would cost 30 times more.)

Parameters and rows are gathered with ``index_select`` only, whose backward is an ``index_add``:
repeatable on any number of threads, unlike that of ``weight[ids]``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Lengths a tile may have, and what a tile costs beside its rows (fetching one matrix, adding one
# gradient), in rows. Measured on CPU, forward and backward, matrices of 8 x 32 to 113 x 256:
# 4096 rows of 10,000 domains are quickest in tiles of 1, of 1,000 in tiles of 4, of 3 in 128 to 512.
TILE_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TILE_COST = 4
# The lengths in a graph and on a GPU, where the domains of a batch are not read: of few sets, of many.
GRAPH_LENGTHS = (32, 4)
MANY_SETS = 32


@dataclass(frozen=True, slots=True)
class Tiles:
    """Where each row of a batch stands in the tiles; a pure function of the batch's domains."""

    length: int  # rows in a tile
    domain: Int[Tensor, " tiles"]  # int64: whose rows a tile holds, ascending
    source: Int[Tensor, " slots"]  # int64: the row in each of tiles * length slots
    slot: Int[Tensor, " rows"]  # int64: the slot of each row; other slots hold copies

    def split(self, h: Float[Tensor, "rows width"]) -> Float[Tensor, "tiles length width"]:
        """Lay rows out in tiles."""
        return h.index_select(0, self.source).unflatten(0, (-1, self.length))

    def join(self, tiled: Float[Tensor, "tiles length width"]) -> Float[Tensor, "rows width"]:
        """Put tiles back into rows; what stands in copies is dropped and gets no gradient."""
        return tiled.flatten(0, 1).index_select(0, self.slot)

    def pick(self, bank: Float[Tensor, "sets *shape"]) -> Float[Tensor, "tiles *shape"]:
        """The parameter set of each tile, from a bank with one set per domain."""
        return pick_sets(bank, self.domain)


class Routing:
    """Which domain each row of a batch belongs to, and the layout that follows from it.

    ``domain``: (rows,) int64, 0 for the unknown domain, 1..n_domains for the trained ones; so a
    bank holds ``n_domains + 1`` parameter sets. Build it once per batch; the tiles are laid out
    when first asked for. Raises ``ValueError`` for a domain outside the range.

    >>> routing = Routing(torch.tensor([2, 0, 2]), n_domains=2)
    >>> weight = torch.tensor([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    >>> routing.apply(torch.ones(3, 1), weight).flatten()
    tensor([100.,   1., 100.])
    """

    def __init__(self, domain: Int[Tensor, " rows"], n_domains: int) -> None:
        if domain.ndim != 1 or domain.dtype != torch.int64:
            raise ValueError(
                f"domain must be int64 of shape (rows,), got {domain.dtype}, {tuple(domain.shape)}"
            )
        self.domain = domain
        self.n_domains = n_domains
        # Elsewhere a bad domain fails as an index.
        if not shapes_are_fixed(domain):
            _check(domain, n_domains)
        self._tiles: Tiles | None = None
        self._present: tuple[Tensor, Routing] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.domain.shape[0]

    @property
    def tiles(self) -> Tiles:
        """The layout of this batch."""
        if self._tiles is None:
            fixed = in_graph() or (shapes_are_fixed(self.domain) and self.rows)
            lay_out = _lay_out_fixed if fixed else _lay_out
            self._tiles = lay_out(self.domain, self.n_domains)
        return self._tiles

    @property
    def present(self) -> "tuple[Int[Tensor, ' present'], Routing]":
        """The domains that this batch holds, ascending, and its routing when they alone are counted.

        Work for each domain of the batch, where domains without a row would cost more than its rows.
        """
        if self._present is None:
            domain, place = torch.unique(self.domain, return_inverse=True)
            self._present = domain, Routing(place, len(domain) - 1)
        return self._present

    def counts(self) -> Int[Tensor, " sets"]:
        """Rows of each domain in this batch, the unknown one first; (n_domains + 1,) int64."""
        if shapes_are_fixed(self.domain):
            return _counts_fixed(self.domain, self.n_domains)
        return torch.bincount(self.domain, minlength=self.n_domains + 1)

    def apply(
        self, h: Float[Tensor, "rows width"], weight: Float[Tensor, "sets width out"]
    ) -> Float[Tensor, "rows out"]:
        """Every row times its own domain's matrix."""
        tiles = self.tiles
        return tiles.join(torch.bmm(tiles.split(h), tiles.pick(weight)))

    def take(self, table: Float[Tensor, "sets width"]) -> Float[Tensor, "rows width"]:
        """Every row's own line of a table with one line per domain."""
        return table.index_select(0, self.domain)

    def sums(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "sets width"]:
        """Sum of the rows of each domain; 0 where a domain is absent."""
        return x.new_zeros(self.n_domains + 1, x.shape[1]).index_add(0, self.domain, x)


def needed(routing: Routing | None) -> Routing:
    """The routing, or ``ValueError`` when the caller gave none to a part with domains."""
    if routing is None:
        raise ValueError("a part with parameters per domain needs the batch's routing, got None")
    return routing


def pick_sets(
    bank: Float[Tensor, "sets *shape"], sets: Int[Tensor, " picked"]
) -> Float[Tensor, "picked *shape"]:
    """Parameter sets from a bank, each as often as it is asked for."""
    return bank.flatten(1).index_select(0, sets).unflatten(1, bank.shape[1:])


def in_graph() -> bool:
    """Whether a graph is being made, by compilation or export: no shape may hang on a value."""
    return torch.compiler.is_compiling()


def shapes_are_fixed(at: Tensor) -> bool:
    """Whether no shape may hang on a value of a tensor that lies where ``at`` does.

    Reading a value would break a compiled graph in two, and let the queue of a GPU run dry.
    """
    return in_graph() or at.device.type != "cpu"


def _check(domain: Tensor, n_domains: int) -> None:
    if domain.numel():
        low, high = (int(bound) for bound in domain.aminmax())
        if low < 0 or high > n_domains:
            raise ValueError(f"domain must lie in 0..{n_domains}, got {low}..{high}")


def _lay_out(domain: Tensor, n_domains: int) -> Tiles:
    counts = torch.bincount(domain, minlength=n_domains + 1)
    lengths = torch.tensor(TILE_LENGTHS, device=domain.device).unsqueeze(1)
    cost = ((counts + lengths - 1) // lengths).sum(dim=1) * (lengths.squeeze(1) + TILE_COST)
    length = TILE_LENGTHS[int(cost.argmin())]

    order = torch.argsort(domain, stable=True)
    first_row = counts.cumsum(0) - counts  # where each domain starts among the sorted rows
    n_tiles = (counts + length - 1) // length
    first_tile = n_tiles.cumsum(0) - n_tiles
    sets = torch.arange(n_domains + 1, device=domain.device)
    tile_domain = torch.repeat_interleave(sets, n_tiles)

    # A copy is of the same domain as its tile: it can never carry a fault from one to another.
    place = torch.arange(tile_domain.shape[0], device=domain.device) - first_tile[tile_domain]
    place = place.unsqueeze(1) * length + torch.arange(length, device=domain.device)
    place = place.minimum(counts[tile_domain].unsqueeze(1) - 1)
    source = order[first_row[tile_domain].unsqueeze(1) + place].flatten()

    owner = domain[order]
    place = torch.arange(domain.shape[0], device=domain.device) - first_row[owner]
    slot = torch.empty_like(order)
    slot[order] = first_tile[owner] * length + place
    return Tiles(length=length, domain=tile_domain, source=source, slot=slot)


def _counts_fixed(domain: Tensor, n_domains: int) -> Tensor:
    """The counts of each set without `bincount`, whose shape is a value."""
    return domain.new_zeros(n_domains + 1).index_add(0, domain, torch.ones_like(domain))


def _lay_out_fixed(domain: Tensor, n_domains: int) -> Tiles:
    """The same layout with as many tiles as any batch of so many rows may need.

    The tiles that are left over hold copies of the first row. Tiles are short, so that few slots are
    left over: one or two a row, also where every row is of another domain.
    """
    rows, sets = domain.shape[0], n_domains + 1
    row = torch.arange(rows, device=domain.device)
    if torch.compiler.is_exporting():
        # No exporter folds a free number of tiles back into rows. Every row is a tile of its own, at
        # the price of a matrix a row, which the batches of a server can pay.
        return Tiles(length=1, domain=domain, source=row, slot=row)
    length = GRAPH_LENGTHS[sets > MANY_SETS]
    counts = _counts_fixed(domain, n_domains)
    n_tiles = (counts + length - 1) // length
    first_row, first_tile = counts.cumsum(0) - counts, n_tiles.cumsum(0) - n_tiles
    order = torch.argsort(domain, stable=True)
    owner = domain.index_select(0, order)
    place = first_tile.index_select(0, owner) * length + row - first_row.index_select(0, owner)
    slot = torch.zeros_like(order).scatter(0, order, place)

    most = (rows + min(rows, sets) * (length - 1)) // length
    tile = torch.arange(most, device=domain.device)
    tile_domain = torch.searchsorted(n_tiles.cumsum(0), tile, right=True)
    used = tile_domain <= n_domains
    tile_domain = torch.where(used, tile_domain, domain[:1])
    place = (tile - first_tile.index_select(0, tile_domain)).unsqueeze(1) * length
    place = place + torch.arange(length, device=domain.device)
    place = place.minimum(counts.index_select(0, tile_domain).unsqueeze(1) - 1)
    place = torch.where(used.unsqueeze(1), place, 0)
    source = first_row.index_select(0, tile_domain).unsqueeze(1) + place
    return Tiles(
        length=length,
        domain=tile_domain,
        source=order.index_select(0, source.flatten()),
        slot=slot,
    )
