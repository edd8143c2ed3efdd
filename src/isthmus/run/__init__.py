"""Runs: the only place where data, model, training and bundle meet."""

from isthmus.run.fitting import fit
from isthmus.run.notice import Listener, Notice
from isthmus.run.result import Run, compare

__all__ = ["Listener", "Notice", "Run", "compare", "fit"]
