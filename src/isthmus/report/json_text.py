"""JSON of any result."""

import json

from isthmus.metrics import Comparison, Evaluation


def to_json(result: Evaluation | Comparison) -> str:
    """Render ``to_dict()`` as JSON text; never NaN or Infinity, which JSON does not have."""
    return json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
