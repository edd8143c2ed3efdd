"""Runs. Data, model, training and bundle meet here and nowhere else."""

from isthmus.run.fitting import fit
from isthmus.run.notice import Listener, Notice
from isthmus.run.result import Run, compare

__all__ = ["Listener", "Notice", "Run", "compare", "fit"]
