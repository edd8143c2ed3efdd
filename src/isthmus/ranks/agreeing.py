"""Whether all ranks see the same: files, settings, versions."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from isthmus.errors import ConfigError
from isthmus.ranks.ranks import Ranks, ToldElsewhereError

MOST = 8  # differences that are told
MISSING = "nothing"


def agree(ranks: Ranks, facts: Mapping[str, Any]) -> None:
    """Raise ConfigError on rank 0, ToldElsewhereError on the others, unless all ranks have equal facts.

    ``facts``: plain values by name, which may be nested. Each difference is named, with its rank.
    """
    first, *others = [dict(_flat("", each)) for each in ranks.tell(facts)]
    found = [
        f"{name}: rank 0 has {first.get(name, MISSING)}, rank {rank} has {other.get(name, MISSING)}"
        for rank, other in enumerate(others, start=1)
        for name in dict.fromkeys((*first, *other))
        if first.get(name, MISSING) != other.get(name, MISSING)
    ]
    if not found:
        return
    if not ranks.is_first:
        raise ToldElsewhereError(f"rank {ranks.rank} ends with the others")
    more = [f"and {len(found) - MOST} more"] if len(found) > MOST else []
    raise ConfigError(
        "all processes of a training must see the same, got:\n" + "\n".join(found[:MOST] + more)
    )


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The values below a name, by their whole names, as text."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, json.dumps(value)
