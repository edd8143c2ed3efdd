"""A fixed sample of each domain's rows. The same rows always give the same sample."""

import numpy as np
from jaxtyping import Int64

from isthmus.data.store.rows import Rows
from isthmus.data.tables import values as v

CHUNK = 1 << 20  # rows that are looked at together


def sample_rows(
    rows: Rows, n_domains: int, rows_per_domain: int, *, seed: int = 0
) -> tuple[Int64[np.ndarray, " sampled"], Int64[np.ndarray, " sampled"]]:
    """Give the positions of at most ``rows_per_domain`` rows of each domain, and their domains.

    Positions ascend. The rows of a domain with the lowest hashes of their table numbers are taken.
    Domains count from 0: the report id minus 1. Ids above ``n_domains`` are left out. Memory: a
    chunk, and the sample. Raises ValueError for ``rows_per_domain`` below 1.
    """
    if rows_per_domain < 1:
        raise ValueError(f"rows_per_domain must be at least 1, got {rows_per_domain}")
    at = np.zeros(0, dtype=np.int64)
    for start in range(0, len(rows), CHUNK):
        chunk = np.asarray(rows.domain[start : start + CHUNK])
        more = np.flatnonzero((chunk > 0) & (chunk <= n_domains)) + start
        at = _lowest(rows, np.concatenate([at, more]), rows_per_domain, seed)
    at.sort()
    return at, np.asarray(rows.domain[at], dtype=np.int64) - 1


def _lowest(
    rows: Rows, at: Int64[np.ndarray, " candidates"], cap: int, seed: int
) -> Int64[np.ndarray, " kept"]:
    """Take the candidates of each domain with the lowest hashes."""
    domain = np.asarray(rows.domain[at])
    key = v.mix(np.asarray(rows.row[at], dtype=np.int64), seed=seed)
    order = np.lexsort((key, domain))
    ordered = domain[order]
    rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    return at[order[rank < cap]]
