"""A small multi-path network and its parts, shared by its tests."""

from typing import Any

import torch

from isthmus.backbones import MultiPath
from isthmus.backbones.experts.multi_path import PathGate, PathLayer

N_DOMAINS = 3
WIDTH = 6
SMALL = {"width": 8, "layers": 2, "blocks": (1.0, 1.0, 0.5, 0.0)}
ESTIMATORS = ("gumbel", "reinforce")


def net(n_domains: int = N_DOMAINS, **options: Any) -> MultiPath:
    torch.manual_seed(0)
    options = {**SMALL, "dropout": 0.0, "norm": "none"} | options
    return MultiPath(in_width=WIDTH, n_domains=n_domains, **options)


def gates_of(network: MultiPath) -> list[PathGate]:
    return [gate for gate in network.paths if isinstance(gate, PathGate)]


def layers_of(network: MultiPath) -> list[PathLayer]:
    return [layer for layer in network.layers if isinstance(layer, PathLayer)]
