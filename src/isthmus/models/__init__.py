"""Models: a batch in, one logit a row out."""

from isthmus.models.build import build_model
from isthmus.models.config import ModelConfig
from isthmus.models.domain_model import DomainModel, Head, ParameterReport

__all__ = ["DomainModel", "Head", "ModelConfig", "ParameterReport", "build_model"]
