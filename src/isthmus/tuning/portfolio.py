"""The portfolio: the recipes that every study tries before it searches on its own.

Networks have one, and trees another. A recipe says what it changes in the config. Everything else stays as the user has it. The first
recipe changes nothing, so that all others are measured against the config as it stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Value = str | int | float


@dataclass(frozen=True, slots=True)
class PortfolioRecipe:
    """A named change of a config.

    ``changes``: values by the names of the search space, see `isthmus.tuning.space`.
    """

    name: str
    changes: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))


def _recipe(name: str, **changes: Value) -> PortfolioRecipe:
    """Write a recipe with ``__`` for the points of its keys."""
    plain = {key.replace("__", "."): value for key, value in changes.items()}
    return PortfolioRecipe(name, MappingProxyType(plain))


PORTFOLIO: tuple[PortfolioRecipe, ...] = (
    _recipe("as it stands"),
    _recipe("no norm", model__backbone__norm="none"),
    _recipe("batch norm", model__backbone__norm="batch"),
    _recipe("small batches", train__batch_rows=1024, model__backbone__norm="none"),
    _recipe("large batches", train__batch_rows=8192),
    _recipe("light penalty", train__embedding_l2=1e-5),
    _recipe("strong penalty", train__embedding_l2=5e-4),
    _recipe("dcn", model__backbone__name="dcn", model__backbone__norm="none"),
    _recipe("deepfm", model__backbone__name="deepfm", model__backbone__norm="none"),
    _recipe("no dropout", model__backbone__dropout=0.0),
    _recipe("more dropout", model__backbone__dropout=0.4),
    _recipe("slow", train__lr=3e-4),
    _recipe("film", model__adapter__name="film"),
    _recipe("hamur", model__adapter__name="hamur"),
    _recipe("towers", model__towers="per_domain"),
)
FOREST_PORTFOLIO: tuple[PortfolioRecipe, ...] = (
    _recipe("as it stands"),
    _recipe("few leaves", data__trees__leaves=15),
    _recipe("many leaves", data__trees__leaves=127),
    _recipe("full leaves", data__trees__least_rows=100, data__trees__l2=10.0),
    _recipe("half the columns", data__trees__columns=0.5),
    _recipe("slow", data__trees__rate=0.025),
)
