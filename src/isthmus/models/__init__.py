"""Models: a batch in, one logit a row out."""

from isthmus.models.abstract_model import AbstractModel, Output, ParameterReport
from isthmus.models.build import build_model
from isthmus.models.domain_model import DomainModel, Head
from isthmus.models.model_config import ModelConfig

__all__ = [
    "AbstractModel",
    "DomainModel",
    "Head",
    "ModelConfig",
    "Output",
    "ParameterReport",
    "build_model",
]
