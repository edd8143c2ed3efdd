"""Layers: the parts that backbones, adapters and models are made of, each about one screen."""

from isthmus.layers.bank import BankLinear, DomainEmbedding
from isthmus.layers.blocks import DeepBlock, Norm, Towers
from isthmus.layers.cross import CrossV1, CrossV2, pairwise_products
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.dropout import Dropout
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.gates import AbstractGate, Experts, Gate, mixed
from isthmus.layers.hyper_network import HyperNetwork
from isthmus.layers.inputs import NumberEmbeddings, TargetAttention, Wide
from isthmus.layers.per_domain import domain_parameters, domain_tensors
from isthmus.layers.routing import Routing
from isthmus.layers.sites import INPUT, Site, SiteSpec
from isthmus.layers.tables import AbstractTable, FusedTable, Tables, logical_tables, tables_of

__all__ = [
    "INPUT",
    "AbstractGate",
    "AbstractTable",
    "BankLinear",
    "CrossV1",
    "CrossV2",
    "DeepBlock",
    "DomainEmbedding",
    "DomainNorm",
    "Dropout",
    "Experts",
    "FeatureEmbedding",
    "FusedTable",
    "Gate",
    "HyperNetwork",
    "Norm",
    "NumberEmbeddings",
    "Routing",
    "Site",
    "SiteSpec",
    "Tables",
    "TargetAttention",
    "Towers",
    "Wide",
    "domain_parameters",
    "domain_tensors",
    "logical_tables",
    "mixed",
    "pairwise_products",
    "tables_of",
]
