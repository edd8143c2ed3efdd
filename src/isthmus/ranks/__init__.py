"""Several processes at one training: which of them this one is, and what they tell each other."""

from isthmus.ranks.agreeing import agree
from isthmus.ranks.group import leave, start_ranks
from isthmus.ranks.norms import over_ranks
from isthmus.ranks.ranks import ALONE, RankError, Ranks, ToldElsewhereError

__all__ = [
    "ALONE",
    "RankError",
    "Ranks",
    "ToldElsewhereError",
    "agree",
    "leave",
    "over_ranks",
    "start_ranks",
]
