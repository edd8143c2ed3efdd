"""Embeddings of numbers: one scaled number in, ``dim`` learned numbers out.

Source: Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022,
arXiv:2203.05556: ``piecewise`` is eq. 1 and a linear map, ``periodic`` is eq. 2 and 3, a linear map
and a ReLU. The library is the authors' ``rtdl-num-embeddings``, which the extra ``numbers`` installs.

Departures
- Piecewise: the library's version B, of the paper of TabM (Gorishniy et al., ICLR 2025,
  arXiv:2410.24210). A fresh embedding is linear in the number; the bins begin at 0.
- Piecewise: a number outside of the bins counts as their nearest end. The paper's first and last bins
  go on for ever, and a narrow one would make thousands of a number a little outside.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.schema import FittedField


class NumberEmbeddings(nn.Module):
    """The numbers of a batch that ask for an embedding, all of one kind and width in one call.

    ``fields``: all fields of the batch; those whose ``embedding`` is ``none`` are left out. Parameters
    are drawn from torch's global generator. Raises ``ValueError`` where a piecewise field has no
    bins.
    """

    def __init__(self, *, fields: tuple[FittedField, ...]) -> None:
        super().__init__()
        numeric = [field for field in fields if field.kind == "numeric"]
        wanted = [(field.embedding, field.width) for field in numeric]
        self.keys = tuple(dict.fromkeys(key for key in wanted if key[0] != "none"))
        self.kinds = nn.ModuleDict()
        for key in self.keys:
            mine = [place for place, other in enumerate(wanted) if other == key]
            name = "{}_{}".format(*key)
            self.register_buffer(f"_columns_{name}", torch.tensor(mine), persistent=False)
            self.kinds[name] = (
                _Piecewise([numeric[place] for place in mine])
                if key[0] == "piecewise"
                else _periodic(len(mine), key[1])
            )

    def forward(
        self, numeric: Float[Tensor, "rows numbers"]
    ) -> dict[tuple[str, int], Float[Tensor, "rows columns dim"]]:
        """Embed ``Batch.numeric``; by kind and width, the columns in the order of the fields."""
        found = {}
        for key in self.keys:
            name = "{}_{}".format(*key)
            found[key] = self.kinds[name](
                numeric.index_select(1, self.get_buffer(f"_columns_{name}"))
            )
        return found


class _Piecewise(nn.Module):
    """Piecewise-linear embeddings of columns with one width, cut off at the ends of their bins."""

    def __init__(self, fields: list[FittedField]) -> None:
        from rtdl_num_embeddings import PiecewiseLinearEmbeddings

        super().__init__()
        for field in fields:
            if len(field.bins) < 3:
                raise ValueError(
                    f"field {field.name!r} must have two bins or more for its embedding,"
                    f" got the edges {field.bins}"
                )
        bins = [torch.tensor(field.bins, dtype=torch.float32) for field in fields]
        self.register_buffer("_low", torch.stack([edges[0] for edges in bins]), persistent=False)
        self.register_buffer("_high", torch.stack([edges[-1] for edges in bins]), persistent=False)
        self.embeddings = PiecewiseLinearEmbeddings(
            bins, fields[0].width, activation=False, version="B"
        )

    def forward(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns dim"]:
        """Embed scaled numbers."""
        low, high = self.get_buffer("_low"), self.get_buffer("_high")
        return self.embeddings(torch.minimum(torch.maximum(x, low), high))


def _periodic(columns: int, dim: int) -> nn.Module:
    """Periodic embeddings: 48 frequencies a column, each column with a linear map of its own."""
    from rtdl_num_embeddings import PeriodicEmbeddings

    return PeriodicEmbeddings(columns, dim, lite=False)
