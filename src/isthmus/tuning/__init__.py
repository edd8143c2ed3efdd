"""Tuning: which recipe suits a table, found within a budget, and fair to every domain."""

from isthmus.tuning.running import Tuning, tune

__all__ = ["Tuning", "tune"]
