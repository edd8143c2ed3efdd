"""Many trainings on parts of one dataset. Each is a value, is run once, and is kept by content."""

from isthmus.experiments.engine import Engine
from isthmus.experiments.outcome import Outcome
from isthmus.experiments.peers import Sharing
from isthmus.experiments.training import Training

__all__ = ["Engine", "Outcome", "Sharing", "Training"]
