"""Tables that no run has seen, scored."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isthmus.bundle import Bundle, DetectBy, ScoredBlock, to_score
from isthmus.data.tables import Table, open_table, refuse_empty
from isthmus.errors import SchemaError
from isthmus.metrics import ScoredRows
from isthmus.metrics.text_table import count_text
from isthmus.printable import printable
from isthmus.run.notice import Listener, Notice

NAMED = 5  # untrained domains that a message names


@dataclass(slots=True)
class Untrained:
    """The domains of a table that were not trained.

    ``column``: the column of domains. ``rows``: the number of rows of each such domain. ``first``:
    the file and the row where each domain comes first.
    """

    column: str
    rows: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, scored: ScoredBlock) -> None:
        """Count the rows of one block."""
        encoded = scored.encoded
        unknown = encoded.domain == 0
        if not unknown.any():
            return
        codes = encoded.domain_codes[unknown]
        places = np.flatnonzero(unknown)
        for code, at, count in zip(
            *np.unique(codes, return_index=True, return_counts=True), strict=True
        ):
            name = "null" if code < 0 else repr(encoded.domain_names[int(code)].as_py())
            row = scored.block.file_row + int(places[at])
            self.rows[name] = self.rows.get(name, 0) + int(count)
            self.first.setdefault(name, f"{scored.block.file}, row {row}")

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """What `recall` reads."""
        return {"rows": self.rows, "first": self.first}

    def recall(self, told: Mapping[str, Any]) -> None:
        """Go on from what `to_dict` gave."""
        self.rows, self.first = dict(told["rows"]), dict(told["first"])

    def warn(self) -> None:
        """Warn once of all domains that were not trained, where there are any."""
        if self.rows:
            warnings.warn(str(self), UserWarning, stacklevel=3)

    def __str__(self) -> str:
        ordered = sorted(self.rows, key=lambda name: -self.rows[name])
        told = [
            f"{name} ({count_text(self.rows[name], 'row')}, first in {self.first[name]})"
            for name in ordered[:NAMED]
        ]
        more = f" and {len(ordered) - NAMED:,} more" if len(ordered) > NAMED else ""
        return (
            f"column {self.column!r} holds domains that were never trained: {', '.join(told)}{more};"
            " their rows get the answer that was trained for the unknown domain"
        )


def score_external(bundle: Bundle, table: Any, *, source: str, progress: Listener) -> ScoredRows:
    """Score a whole labelled table. The split is named ``external``.

    Domains that were not trained are reported under their own names. Rows of weight 0 are left out,
    and so are rows without a label where ``data.null_label`` keeps them. Raises SchemaError where no
    row is left.
    """
    opened = open_table(table)
    refuse_empty(opened)
    config = bundle.encoder.config
    roles = ("label", "weight", "group")
    untrained = Untrained(config.domain)
    names = {name: place for place, name in enumerate(bundle.domains, start=1)}
    parts: dict[str, list[np.ndarray]] = {}
    for scored in bundle.score_blocks(opened, roles=roles):
        untrained.add(scored)
        encoded = scored.encoded
        for name in encoded.domain_names.to_pylist():
            if name is not None:
                names.setdefault(name, len(names) + 1)
        ids = [*(names.get(name, 0) for name in encoded.domain_names.to_pylist()), 0]
        values = {
            "row": encoded.row,
            "logits": scored.logits,
            "label": encoded.label,
            "domain": np.array(ids, dtype=np.int64)[encoded.domain_codes],
            "weight": encoded.weight,
            "group": encoded.group,
        }
        assert encoded.label is not None
        kept = ~np.isnan(encoded.label)  # nothing can be measured of a row without a label
        if encoded.weight is not None:
            kept &= encoded.weight > 0
        for name, value in values.items():
            if value is not None:
                value = value if kept.all() else value[kept]
                parts.setdefault(name, []).append(value)
        tell_rows(progress, scored, opened)
    untrained.warn()
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    if not len(joined["label"]):
        raise SchemaError(
            f"a table to evaluate must hold a row with a label and a weight above 0, got none in"
            f" {printable(opened.source)}"
        )
    return ScoredRows(
        split="external",
        row=joined["row"],
        logits=joined["logits"],
        label=joined["label"],
        domain=joined["domain"],
        names=tuple(names),
        weight=joined.get("weight"),
        group=group_numbers(joined.get("group")),
        negative_rate=config.negative_rate,
        fingerprint=fingerprint(opened),
        source=source,
    )


def predict(bundle: Bundle, table: Any, *, detect_domain: DetectBy | None = None) -> np.ndarray:
    """Give probabilities, (rows,) float64. Warns of domains that were not trained."""
    untrained = Untrained(bundle.config.data.domain)
    parts = []
    for scored in bundle.score_blocks(table, detect_domain=detect_domain):
        untrained.add(scored)
        parts.append(to_score(scored.logits, bundle.config.data.negative_rate))
    untrained.warn()
    return np.concatenate([np.empty(0), *parts])


def group_numbers(group: np.ndarray | None) -> np.ndarray | None:
    """Number the groups from 0, int64. Their keys are hashes, which may be negative."""
    if group is None:
        return None
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def fingerprint(table: Table) -> str:
    """Give what tells a table from others, wherever it lies: the sizes and footers of its files."""
    parts = [
        {name: value for name, value in file.items() if name not in ("path", "time", "etag")}
        for file in table.files
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def tell_rows(progress: Listener, scored: ScoredBlock, table: Table) -> None:
    """Tell how far the scoring of a table came."""
    done = scored.block.first_row + scored.block.batch.num_rows
    text = f"{done:,} of {table.rows:,} rows"
    progress(Notice("score", text, done / table.rows))
