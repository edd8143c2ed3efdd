"""Tables and models for tests of what comes after a fit: a new domain, with values that nobody had seen."""

from typing import Any

import numpy as np
import pyarrow as pa

from isthmus.adapters import AdapterConfig
from isthmus.backbones import BackboneConfig
from isthmus.family import members
from small_runs import clicks, settings

SIZES = {"widths": (9, 7), "width": 9, "bottleneck": 6, "rank": 3}
NEW_USERS, NEW_ITEMS = 30, 20


def new_clicks(rows: int = 500, *, seed: int = 5, domain: str = "app") -> pa.Table:
    """Rows of a new domain. Half of the users and items are new, and what is liked is turned round."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(30, 60 + NEW_USERS, rows), rng.integers(20, 40 + NEW_ITEMS, rows)
    logit = -0.15 * (item - 40)
    history = [rng.integers(20, 40 + NEW_ITEMS, size).tolist() for size in rng.integers(0, 4, rows)]
    return pa.table(
        {
            "user": user.astype(np.int32),
            "item": [f"item {number}" for number in item],
            "tab": [domain] * rows,
            "age": rng.normal(40, 10, rows),
            "history": [[f"item {number}" for number in row] for row in history],
            "day": np.arange(rows) // 100,
            "click": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8),
        }
    )


def as_domain(table: pa.Table, names: list[str | None]) -> pa.Table:
    """The rows as rows of these domains, in turn."""
    told = [names[row % len(names)] for row in range(table.num_rows)]
    return table.set_column(table.schema.get_field_index("tab"), "tab", pa.array(told, pa.string()))


def small(kind: Any, name: str) -> dict[str, Any]:
    return {"name": name} | {key: at for key, at in SIZES.items() if key in kind.model_fields}


def model_sections() -> dict[str, dict[str, Any]]:
    """Every backbone, then every adapter that can be served on the MLP, then the MLP's other forms."""
    backbones, adapters = members(BackboneConfig), members(AdapterConfig)
    mlp = small(backbones["mlp"], "mlp")
    return {
        **{name: {"backbone": small(kind, name)} for name, kind in backbones.items()},
        **{
            name: {"backbone": mlp, "adapter": small(kind, name)}
            for name, kind in adapters.items()
            if name != "none" and kind.unsound is None
        },
        "towers": {"backbone": mlp, "towers": "per_domain"},
        "norm": {"backbone": mlp | {"norm": "domain"}, "head": "per_domain"},
        "hamur and towers": {
            "backbone": mlp,
            "towers": "per_domain",
            "adapter": small(adapters["hamur"], "hamur"),
        },
        "exact and hashed crosses": {
            "backbone": small(backbones["wide_deep"], "wide_deep")
            | {"crosses": [["item", "tab"], ["user", "item", "tab"]], "cross_buckets": 600}
        },
    }


def config_of(model: dict[str, Any], **train: Any) -> dict[str, Any]:
    """A config for `clicks` that takes a few steps."""
    content = settings(**{"epochs": 3, "looks_per_epoch": 1, "batch_rows": 256, **train})
    for feature in content["data"]["features"].values():
        if isinstance(feature, dict):
            feature["dim"] = 4  # one width, as a factorisation machine wants
    return content | {"model": model}


__all__ = ["as_domain", "clicks", "config_of", "model_sections", "new_clicks", "small"]
