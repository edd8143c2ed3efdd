"""The settings of the forest that `isthmus.data.encoding.trees` speaks of, in LightGBM's meaning."""

from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from isthmus.schema.features import Section

RATE = 0.05
LEAST_ROWS = 20


class Forest(Section):
    """How the trees of a forest are grown.

    ``leaves``: the most leaves of a tree (``num_leaves``); None for one for each 2,000 train rows,
    between 31 and 127. ``rate``: the share of each tree that counts (``learning_rate``).
    ``least_rows``: train rows of a leaf (``min_data_in_leaf``). ``columns``: the share of the columns
    that a tree may read (``feature_fraction``). ``l2``: the penalty on what a leaf says
    (``lambda_l2``). How many trees there are follows from the validation rows.
    """

    leaves: int | None = Field(default=None, ge=2, le=131_072)
    rate: float = Field(default=RATE, gt=0, le=1)
    least_rows: int = Field(default=LEAST_ROWS, ge=1)
    columns: float = Field(default=1.0, gt=0, le=1)
    l2: float = Field(default=0.0, ge=0)


def _form(value: Any) -> str:
    return "section" if isinstance(value, dict | Forest) else "switch"


def _shortest(value: bool | Forest) -> bool | Forest:
    """``true`` for a forest as it is without settings, so that both are one table to the cache."""
    return True if value == Forest() else value


TreesKey = Annotated[
    Annotated[bool, Tag("switch")] | Annotated[Forest, Tag("section")],
    Discriminator(_form),
    AfterValidator(_shortest),
]
