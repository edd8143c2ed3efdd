"""Many trainings on parts of one dataset: described, cached by content, run side by side."""

from isthmus.trainings.engine import Engine
from isthmus.trainings.outcome import Outcome
from isthmus.trainings.training import Training

__all__ = ["Engine", "Outcome", "Training"]
