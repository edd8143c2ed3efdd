"""Models: a batch in, one logit a row out."""

from isthmus.models.abstract_model import AbstractModel, Output, ParameterReport
from isthmus.models.build import build_model, build_network, sized
from isthmus.models.domain_model import DomainModel, Head
from isthmus.models.model_config import ModelConfig
from isthmus.models.sizing import SizesConfig
from isthmus.models.trees_model import TreesModel

__all__ = [
    "AbstractModel",
    "DomainModel",
    "Head",
    "ModelConfig",
    "Output",
    "ParameterReport",
    "SizesConfig",
    "TreesModel",
    "build_model",
    "build_network",
    "sized",
]
