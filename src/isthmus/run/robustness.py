"""How much a run's scores hang on the domain: its rows scored again with the domain hidden or permuted.

Source: Chirkova et al., Investigating the potential of Sparse Mixtures-of-Experts for multi-domain
neural machine translation, 2024, arXiv:2407.01126, which scores a translation model with missing and
with wrong domain tags. ``hidden``: the domain's column is null in every row, as in a request that does
not name it. ``permuted``: each row bears the domain of another row, drawn with a seed; domains are then
as frequent as before. ``detected``: the column is null, and the detector tells the domain of each row by
itself (`isthmus.bundle.detector`). Whatever the encoder makes of the column follows: ids, crosses, statistics within
the domain, a forest's score. Rows are counted in the domain that they belong to.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from isthmus.bundle import Bundle, DetectBy
from isthmus.data import Table
from isthmus.data.encoding.roles import as_used, needed
from isthmus.errors import SchemaError
from isthmus.metrics import Comparison, Evaluation, ScoredRows, compare, evaluate_rows
from isthmus.run.notice import Listener, Notice

DomainAs = Literal["hidden", "permuted", "detected"]


@dataclass(frozen=True, slots=True)
class Robustness:
    """``evaluation``: of the rows with the changed domain. ``comparison``: these minus the ordinary ones.

    ``seed``: of the permutation; None where there was none. The interval of the comparison is
    that of rows, for this one permutation.
    """

    domain_as: DomainAs
    seed: int | None
    evaluation: Evaluation
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {
            "domain_as": self.domain_as,
            "seed": self.seed,
            "evaluation": self.evaluation.to_dict(),
            "comparison": self.comparison.to_dict(),
        }

    def __str__(self) -> str:
        return f"{self.evaluation}\n\n{self.comparison}"


def robustness(
    bundle: Bundle,
    opened: Table,
    ordinary: ScoredRows,
    domain_as: DomainAs,
    *,
    seed: int,
    progress: Listener,
) -> Robustness:
    """Score the rows of ``ordinary`` again. ``opened``: the table that they stand in.

    Memory: a block, and for ``permuted`` the domain's column of these rows. Raises SchemaError where
    that column has different types in different files.
    """
    as_said = {
        "hidden": "domain hidden",
        "permuted": f"domains permuted among rows, seed {seed}",
        "detected": "domain told row by row",
    }
    drawn = seed if domain_as == "permuted" else None
    told: DetectBy | None = "row" if domain_as == "detected" else None
    changed = replace(
        ordinary,
        logits=_logits(bundle, opened, ordinary.row, drawn, told, progress),
        source=f"{ordinary.source}, {as_said[domain_as]}",
    )
    return Robustness(
        domain_as=domain_as,
        seed=drawn,
        evaluation=evaluate_rows(changed),
        comparison=compare(ordinary, changed),
    )


def _logits(
    bundle: Bundle,
    opened: Table,
    rows: Int64[np.ndarray, " rows"],
    seed: int | None,
    told: DetectBy | None,
    progress: Listener,
) -> Float64[np.ndarray, " rows"]:
    """Calibrated logits of these rows of a table.

    ``seed``: of a permutation; None hides the domain, which the detector may tell: ``told``.
    """
    config = bundle.encoder.config
    order = np.argsort(rows, kind="stable")
    used = as_used(opened, config, bundle.encoder.kinds)
    donors, permutation = None, np.empty(0, dtype=np.int64)
    if seed is not None:
        donors = _domains(used, config.domain, rows[order])
        permutation = np.random.default_rng(seed).permutation(len(rows))
    logits = np.empty(len(rows), dtype=np.float64)
    for batch, start, end in _chosen(used, needed(config, roles=()), rows[order]):
        place = batch.schema.get_field_index(config.domain)
        column: Any = pa.nulls(end - start, batch.schema.field(place).type)
        if donors is not None:
            column = donors.take(pa.array(permutation[start:end])).combine_chunks()
        changed = pa.Table.from_batches([batch]).set_column(place, config.domain, column)
        logits[order[start:end]] = bundle.logits(changed, detect_domain=told)
        progress(Notice("score", f"{end:,} of {len(rows):,} rows", end / len(rows)))
    return logits


def _chosen(table: Table, columns: list[str], rows: Int64[np.ndarray, " rows"]) -> Any:
    """Record batches of these rows, ascending numbers in the table, each with its start and end in them."""
    for block in table.blocks(columns):
        ends = (block.first_row, block.first_row + block.batch.num_rows)
        start, end = (int(place) for place in np.searchsorted(rows, ends))
        if start < end:
            yield block.batch.take(pa.array(rows[start:end] - block.first_row)), start, end


def _domains(table: Table, column: str, rows: Int64[np.ndarray, " rows"]) -> pa.ChunkedArray:
    parts = [batch.column(0) for batch, _, _ in _chosen(table, [column], rows)]
    kinds = {str(part.type) for part in parts}
    if len(kinds) > 1:
        raise SchemaError(
            f"column {column!r} must have one type in all files to be permuted, got"
            f" {', '.join(sorted(kinds))}"
        )
    return pa.chunked_array(parts)
