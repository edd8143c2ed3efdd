"""The rows of one split, domain by domain: any rows of one domain as a batch.

A block shuffle reads neighbouring rows, which belong to many domains. Here the numbers of all rows are
sorted by domain once, and a batch copies its rows from wherever they lie. The order takes 8 bytes a row.
"""

import numpy as np
from jaxtyping import Int64

from isthmus.data.batch import Batch
from isthmus.data.store.rows import Rows


class RowsByDomain:
    """The rows of a split by the domain that the model reads: 0 the unknown, 1 to ``n_domains``.

    ``counts``: (n_domains + 1,) rows of each domain.
    """

    def __init__(self, rows: Rows, n_domains: int) -> None:
        self._arrays, self._n_domains = rows.arrays, n_domains
        domain = np.array(rows.arrays.domain, dtype=np.int64)
        domain[domain > n_domains] = 0
        self.counts: Int64[np.ndarray, " domains"] = np.bincount(domain, minlength=n_domains + 1)
        self._order = np.argsort(domain, kind="stable")
        self._starts = np.cumsum(self.counts) - self.counts

    def __len__(self) -> int:
        return len(self._order)

    def batch(self, domain: int | None, at: Int64[np.ndarray, " chosen"]) -> Batch:
        """Rows ``at`` of the ``counts[domain]`` rows of a domain; None: of all rows.

        The rows stand in the order of the split, whatever the order of ``at``.
        """
        start = 0 if domain is None else self._starts[domain]
        return self._arrays.batch(np.sort(self._order[start + at]), self._n_domains)
