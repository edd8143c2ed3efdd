"""A training on several ranks: what it must not ask for, and what the ranks sum in each step."""

from isthmus.train.ranked.refused import check_ranks
from isthmus.train.ranked.shared_step import SharedStep, copy_from_first

__all__ = ["SharedStep", "check_ranks", "copy_from_first"]
