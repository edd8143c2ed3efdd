"""What a table's columns mean: the ``data`` section of a config, and the fields a model sees.

No torch here, no files: a schema is read from YAML, checked, and carried from fit to serve.
"""

from isthmus.schema.data_config import DataConfig, Label, Split
from isthmus.schema.features import (
    EMBEDDING_DIM,
    Categorical,
    CategoricalList,
    Feature,
    ListPooling,
    NotANumber,
    NumberEmbedding,
    Numeric,
    NumericList,
    Pooling,
    Scale,
    Section,
    Time,
    TimePart,
    TimeUnit,
    Vector,
)
from isthmus.schema.fitted_field import (
    STATISTICS_WIDTH,
    TREES,
    TREES_WIDTH,
    FittedField,
    cross_name,
    part_fields,
    statistics_field,
    statistics_name,
)
from isthmus.schema.forest import Forest

__all__ = [
    "EMBEDDING_DIM",
    "STATISTICS_WIDTH",
    "TREES",
    "TREES_WIDTH",
    "Categorical",
    "CategoricalList",
    "DataConfig",
    "Feature",
    "FittedField",
    "Forest",
    "Label",
    "ListPooling",
    "NotANumber",
    "NumberEmbedding",
    "Numeric",
    "NumericList",
    "Pooling",
    "Scale",
    "Section",
    "Split",
    "Time",
    "TimePart",
    "TimeUnit",
    "Vector",
    "cross_name",
    "part_fields",
    "statistics_field",
    "statistics_name",
]
