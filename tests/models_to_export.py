"""Every backbone and adapter as an exported graph: what `test_exported_models` runs without shape checks.

``python models_to_export.py DOMAINS`` checks them all, or those in `LARGE`, and prints what each said.
"""

import json
import sys
from typing import Any

import torch

from fake_batches import EVEN, MIXED, make_batch
from isthmus.adapters import AdapterConfig
from isthmus.backbones import BackboneConfig
from isthmus.family import members
from isthmus.models import AbstractModel, ModelConfig, build_network
from isthmus.testing import check_exported_equals_eager

SIZES = {"widths": (9, 7), "width": 9, "bottleneck": 6, "rank": 3}
BACKBONES = members(BackboneConfig)
ADAPTERS = {name: kind for name, kind in members(AdapterConfig).items() if kind.unsound is None}
# With many domains too: banks, gathers and norms of every kind.
MANY = 1000
LARGE = ("mlp, towers", "mlp, norm", "star", "m2m", "ple", "hamur", "mlora")


def small(kind: Any, name: str) -> dict[str, Any]:
    return {"name": name} | {key: at for key, at in SIZES.items() if key in kind.model_fields}


def cases(n_domains: int) -> dict[str, dict[str, Any]]:
    """Model sections by name: backbones, then adapters on the MLP, then its other forms."""
    mlp = small(BACKBONES["mlp"], "mlp")
    every = {
        **{name: {"backbone": small(kind, name)} for name, kind in BACKBONES.items()},
        **{
            name: {"backbone": mlp, "adapter": small(kind, name)}
            for name, kind in ADAPTERS.items()
            if name != "none"
        },
        "mlp, towers": {"backbone": mlp, "towers": "per_domain"},
        "mlp, norm": {"backbone": mlp | {"norm": "domain"}, "head": "per_domain"},
        "mlp, every column": {"backbone": mlp},
    }
    return every if n_domains < MANY else {name: every[name] for name in LARGE}


def said(name: str, section: dict[str, Any], n_domains: int) -> str:
    """Nothing, or how the check failed."""
    fields = MIXED if name == "mlp, every column" else EVEN

    def make(n_domains: int) -> AbstractModel:
        torch.manual_seed(0)
        return build_network(ModelConfig.model_validate(section), fields, n_domains)

    try:
        check_exported_equals_eager(
            make, lambda n: make_batch(fields, 60, n), n_domains=(n_domains,)
        )
    except (AssertionError, RuntimeError, ValueError) as fault:
        return f"{type(fault).__name__}: {fault}"
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    number = int(sys.argv[1])
    outcomes = {name: said(name, section, number) for name, section in cases(number).items()}
    sys.stdout.write(json.dumps(outcomes))
