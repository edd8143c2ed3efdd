"""Methods: which batches a training takes, what each step trains, and what happens between steps.

A new method is one file here, and its config class in the union below.
"""

from typing import Annotated

from isthmus.family import Family
from isthmus.train.methods.in_phases import InPhases, PhaseConfig, PhasesConfig
from isthmus.train.methods.joint import Joint, JointConfig
from isthmus.train.methods.mamdr import Mamdr, MamdrConfig
from isthmus.train.methods.method import AbstractMethod, AbstractMethodConfig, Lesson, Phase
from isthmus.train.methods.priority import Priority, PriorityConfig
from isthmus.train.methods.pseudo_domains import PseudoDomains, PseudoDomainsConfig

MethodConfig = Annotated[
    JointConfig | PhasesConfig | MamdrConfig | PseudoDomainsConfig,
    Family("isthmus.methods"),
]  # fmt: skip
"""The config of any method, told apart by its ``name``."""

__all__ = [
    "AbstractMethod",
    "AbstractMethodConfig",
    "InPhases",
    "Joint",
    "JointConfig",
    "Lesson",
    "Mamdr",
    "MamdrConfig",
    "MethodConfig",
    "Phase",
    "PhaseConfig",
    "PhasesConfig",
    "Priority",
    "PriorityConfig",
    "PseudoDomains",
    "PseudoDomainsConfig",
]
