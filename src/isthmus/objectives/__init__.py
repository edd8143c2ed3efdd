"""What training minimises: the loss of the rows, and objectives beside it.

A new objective is one file here, and its config class in the union below.
"""

from typing import Annotated

from isthmus.family import Family
from isthmus.objectives.domain_classifier import DomainClassifier, DomainClassifierConfig
from isthmus.objectives.domain_contrast import DomainContrast, DomainContrastConfig
from isthmus.objectives.objective import AbstractObjective, AbstractObjectiveConfig
from isthmus.objectives.row_loss import binary_cross_entropy
from isthmus.objectives.together import Objectives
from isthmus.objectives.virtual_classifier import VirtualClassifier, VirtualClassifierConfig

ObjectiveConfig = Annotated[
    DomainClassifierConfig
    | DomainContrastConfig
    | VirtualClassifierConfig,
    Family("isthmus.objectives"),
]  # fmt: skip

__all__ = [
    "AbstractObjective",
    "AbstractObjectiveConfig",
    "DomainClassifier",
    "DomainClassifierConfig",
    "DomainContrast",
    "DomainContrastConfig",
    "ObjectiveConfig",
    "Objectives",
    "VirtualClassifier",
    "VirtualClassifierConfig",
    "binary_cross_entropy",
]
