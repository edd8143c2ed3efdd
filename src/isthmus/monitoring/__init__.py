"""After shipping: do served rows still look as in training, and what became of their scores?"""

from isthmus.monitoring.drift import DriftWatch
from isthmus.monitoring.flagging import Drift

__all__ = ["Drift", "DriftWatch"]
