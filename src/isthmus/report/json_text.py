"""JSON of any result, and places in it."""

import json
from collections.abc import Iterable

from isthmus.metrics import Comparison, Evaluation


def to_json(result: Evaluation | Comparison) -> str:
    """Render ``to_dict()`` as JSON text; never NaN or Infinity, which JSON does not have."""
    return json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)


def pointer(path: Iterable[str | int]) -> str:
    """A path as a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)
