"""Names of domains that a person would read as one."""

from collections.abc import Iterator, Mapping

SHOWN = 5


def alike(column: str, rows: Mapping[str, int]) -> Iterator[str]:
    """A warning for domains that differ by blanks or by case only, with the rows of each.

    >>> list(alike("tab", {"home": 70, "Home ": 2}))
    ["column 'tab' holds domains that differ by blanks or case only: 'home' (70 rows), 'Home ' (2 rows)"]
    """
    found: dict[str, list[str]] = {}
    for name in rows:
        found.setdefault("".join(name.split()).casefold(), []).append(name)
    pairs = [names for names in found.values() if len(names) > 1]
    for names in pairs[:SHOWN]:
        told = ", ".join(f"{name!r} ({rows[name]:,} rows)" for name in names)
        yield f"column {column!r} holds domains that differ by blanks or case only: {told}"
    if len(pairs) > SHOWN:
        yield f"column {column!r} holds {len(pairs) - SHOWN:,} more such sets of domains"
