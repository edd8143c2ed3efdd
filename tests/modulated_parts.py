"""Small networks of `isthmus.backbones.modulated`, and rows for them: shared by their tests."""

from typing import Any

import torch
from torch import Tensor

from fake_batches import EVEN
from isthmus.backbones import AbstractBackbone, AbstractBackboneConfig, BackboneConfig, BackboneSpec
from isthmus.family import members
from isthmus.layers.embedding import FeatureEmbedding

NAMES = ("star", "sar_net", "m2m", "adasparse", "adaptdhm", "epnet", "ppnet", "pepnet")
GATED = ("epnet", "ppnet", "pepnet")
# Sizes that keep a test quick; a network takes those that it has.
SMALL = {"widths": (9, 7), "width": 7, "token_dim": 6, "dropout": 0.1}
N_DOMAINS = 4


def small_config(name: str, **options: Any) -> AbstractBackboneConfig:
    """The config of a network with small sizes and these options."""
    kind = members(BackboneConfig)[name]
    assert issubclass(kind, AbstractBackboneConfig)
    sizes = {key: size for key, size in SMALL.items() if key in kind.model_fields}
    return kind.model_validate({"name": name} | sizes | options)


def small_network(name: str, n_domains: int = N_DOMAINS, **options: Any) -> AbstractBackbone:
    """A network that reads rows of the features EVEN."""
    torch.manual_seed(0)
    inputs = FeatureEmbedding(fields=EVEN)
    return small_config(name, **options).build(BackboneSpec(inputs, "shared", n_domains))


def normal_rows(backbone: AbstractBackbone, rows: int, seed: int = 1) -> Tensor:
    """Embedded rows, all values normal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, backbone.in_width, generator=generator)
