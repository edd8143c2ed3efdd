"""prune(): a run without a domain, or without ids that newer rows no longer have."""

from isthmus.extending.pruning.pruned_run import Pruned, prune

__all__ = ["Pruned", "prune"]
