"""Levels: how much a diagnosis may cost, what each level measures, and how often."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from isthmus.errors import ConfigError

LevelName = Literal["quick", "standard", "full"]
FOLDS = 5  # test parts of a small table; a lower level takes the first of them
MIN_FOLDS = 3
SMALL_TABLE = 100_000  # rows below which replicates are folds, where the split allows it
MAX_DOMAINS = 40  # domains that get trainings of their own
MAX_PAIRED = 14  # domains in the pairwise matrix: 91 pairs
WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the config's widths, on the capacity curve
RANDOM_GROUPINGS = 5
STAGE_TWO_EPOCHS = 2  # of the domain's own rows
STAGE_TWO_LOOKS = 8
NEWCOMERS = 3  # replicates of what is measured of a new domain, at most
MIN_NEWCOMERS = 3  # domains: one is left out, and two are trained together
OWN_ROWS = (100, 500, 2000)  # of a new domain, on the curve of its rows; then all that it has


@dataclass(frozen=True, slots=True)
class Level:
    """What a level measures.

    ``seeds``: the number of replicates of N, T and I. ``few``: the number of replicates of all that
    is dearer. ``newcomers``: the number of replicates of what is measured of a new domain, which no
    level has unless it is asked for.
    """

    name: LevelName
    seeds: int
    few: int
    stages: bool  # transfer and interference, likeness, early gradients
    adapted: bool  # a joint model with adapters
    dear: bool  # pairs, leave-one-out, groups
    network: bool = True  # capacity and weightings, where the level is dear
    newcomers: int = 0

    def for_trees(self) -> "Level":
        """Give the level for a model without parameters: what is left are trainings from the start."""
        return replace(self, stages=False, adapted=False, network=False)

    def with_newcomers(self) -> "Level":
        """Give the level with a new domain."""
        return replace(self, newcomers=min(self.seeds, NEWCOMERS))


LEVELS: dict[str, Level] = {
    "quick": Level("quick", seeds=2, few=0, stages=False, adapted=False, dear=False),
    "standard": Level("standard", seeds=5, few=0, stages=True, adapted=True, dear=False),
    "full": Level("full", seeds=5, few=3, stages=True, adapted=True, dear=True),
}


def level_named(name: str) -> Level:
    """Give the level of that name. Raises ConfigError where there is none."""
    if name not in LEVELS:
        raise ConfigError(f"level must be one of {', '.join(get_args(LevelName))}, got {name!r}")
    return LEVELS[name]
