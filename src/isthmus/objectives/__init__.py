"""What training minimises: the loss of the rows, and objectives beside it.

A new objective is one file here, and its config class in the union below.
"""

from typing import Annotated

from isthmus.family import Family
from isthmus.objectives.category_mixup import CategoryMixup, CategoryMixupConfig
from isthmus.objectives.consistency import Consistency, ConsistencyConfig
from isthmus.objectives.domain_classifier import DomainClassifier, DomainClassifierConfig
from isthmus.objectives.domain_contrast import DomainContrast, DomainContrastConfig
from isthmus.objectives.domain_mixup import DomainMixup, DomainMixupConfig
from isthmus.objectives.mixing import Answers, Pairs
from isthmus.objectives.objective import AbstractObjective, AbstractObjectiveConfig
from isthmus.objectives.row_loss import binary_cross_entropy
from isthmus.objectives.together import Objectives
from isthmus.objectives.virtual_classifier import VirtualClassifier, VirtualClassifierConfig

ObjectiveConfig = Annotated[
    DomainClassifierConfig
    | DomainContrastConfig
    | VirtualClassifierConfig
    | DomainMixupConfig
    | CategoryMixupConfig
    | ConsistencyConfig,
    Family("isthmus.objectives"),
]  # fmt: skip
"""The config of any objective, told apart by its ``name``."""

__all__ = [
    "AbstractObjective",
    "AbstractObjectiveConfig",
    "Answers",
    "CategoryMixup",
    "CategoryMixupConfig",
    "Consistency",
    "ConsistencyConfig",
    "DomainClassifier",
    "DomainClassifierConfig",
    "DomainContrast",
    "DomainContrastConfig",
    "DomainMixup",
    "DomainMixupConfig",
    "ObjectiveConfig",
    "Objectives",
    "Pairs",
    "VirtualClassifier",
    "VirtualClassifierConfig",
    "binary_cross_entropy",
]
