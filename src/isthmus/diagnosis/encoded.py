"""How a diagnosis encodes a table: for its networks, in folds or whole, and for trees."""

from collections.abc import Sequence
from pathlib import Path

from isthmus.benchmarking.shared_rows import data_for_trees
from isthmus.data.store.dataset import Dataset
from isthmus.data.tables import Table
from isthmus.diagnosis.level import FOLDS, MIN_FOLDS, SMALL_TABLE, Level
from isthmus.run.notice import Listener, encoding
from isthmus.schema import Categorical, CategoricalList, DataConfig

MIN_COUNT = 2  # values of one train row alone teach the unknown, in every arm


def encoded_as(data: DataConfig) -> DataConfig:
    """Give the data section of a diagnosis: the domain can be an input, and the unknown is trained.

    A value of a single train row is unknown to every arm, so solo and joint alike train the
    unknown. A domain that is no feature is encoded too, and hidden from the arms.
    """
    features = dict(data.features)
    for name, feature in features.items():
        own = isinstance(feature, Categorical | CategoricalList) and not (
            feature.shares or feature.hash_buckets
        )
        if own and feature.min_count < MIN_COUNT:  # type: ignore[union-attr]
            features[name] = feature.model_copy(update={"min_count": MIN_COUNT})
    features.setdefault(data.domain, Categorical())
    return data.model_copy(update={"features": features})


def replicated(data: DataConfig, rows: int, level: Level) -> list[DataConfig]:
    """Give one data section for each fold of a small table, and a single one for any other table.

    Replicates are seeds where there is a single data section. Two folds would leave one degree of
    freedom, so a level of two replicates takes two seeds of the first fold.
    """
    if data.split.by == "time" or rows >= SMALL_TABLE:
        return [data]
    validation = min(data.split.fractions[1], 0.5 - 1 / FOLDS)
    fractions = (1 - validation - 1 / FOLDS, validation, 1 / FOLDS)
    return [
        data.model_copy(
            update={
                "split": data.split.model_copy(
                    update={"fractions": fractions, "rotation": k / FOLDS}
                )
            }
        )
        for k in range(level.seeds if level.seeds >= MIN_FOLDS else 1)
    ]


def forests_of(
    replicates: Sequence[DataConfig],
    opened: Table,
    cache: str | Path | None,
    tell: Listener,
) -> tuple[list[Dataset], str | None]:
    """Encode the rows of each replicate as trees read them, or say why there are no trees."""
    found = []
    for one in replicates:
        of_trees = data_for_trees(one)
        if isinstance(of_trees, str):
            return [], of_trees
        found.append(Dataset.from_table(of_trees, opened, cache=cache, progress=encoding(tell)))
    return found, None
