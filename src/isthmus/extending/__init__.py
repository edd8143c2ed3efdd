"""What is done to a run after its fit: a domain comes or goes, newer rows come, two bundles are compared."""

from isthmus.extending.difference import BundleDifference, diff
from isthmus.extending.extension import Extended, extend
from isthmus.extending.pruning import Pruned, prune
from isthmus.extending.refreshing import Refreshed, refresh

__all__ = [
    "BundleDifference",
    "Extended",
    "Pruned",
    "Refreshed",
    "diff",
    "extend",
    "prune",
    "refresh",
]
