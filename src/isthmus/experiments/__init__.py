"""Many trainings on parts of one dataset: described, cached by content, run side by side."""

from isthmus.experiments.engine import Engine
from isthmus.experiments.outcome import Outcome
from isthmus.experiments.training import Training

__all__ = ["Engine", "Outcome", "Training"]
