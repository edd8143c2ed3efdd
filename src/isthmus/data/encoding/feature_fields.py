"""Which fields a model sees of one feature of the config."""

from collections.abc import Mapping
from dataclasses import replace

from isthmus.data.encoding.clock import Clock
from isthmus.data.encoding.roles import vocabulary_name
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.schema import (
    Categorical,
    DataConfig,
    FittedField,
    Numeric,
    NumericList,
    Time,
    Vector,
    part_fields,
)


def fields_of(
    config: DataConfig,
    name: str,
    vocabularies: Mapping[str, Vocabulary],
    bins: tuple[float, ...],
    clock: Clock | None,
) -> tuple[FittedField, ...]:
    """The fields of one feature: the parts of a time, and a single field of any other kind.

    ``bins``: edges of a piecewise embedding, empty without one. ``clock``: of a time, None of others.
    """
    feature = config.features[name]
    if isinstance(feature, Time):
        assert clock is not None
        return part_fields(name, clock.parts, feature.dim)
    if isinstance(feature, Vector):
        return (FittedField(name=name, kind="vector", width=feature.width),)
    if isinstance(feature, Numeric):
        return (
            FittedField(
                name=name,
                kind="numeric",
                width=feature.width,
                embedding=feature.embedding,
                bins=bins,
            ),
        )
    if isinstance(feature, NumericList):
        return (FittedField(name=name, kind="numeric_list", width=1, pooling=feature.pooling),)
    table = vocabulary_name(config, name)
    looked_up = FittedField(
        name=name,
        kind=feature.kind,
        width=feature.dim,
        table=table,
        table_rows=vocabularies[table].rows,
        is_domain=name == config.domain,
    )
    if isinstance(feature, Categorical):
        return (looked_up,)
    if feature.pooling == "attention":
        assert feature.query is not None
        places = feature.max_length if feature.positions else 0
        return (replace(looked_up, query=feature.query, places=places),)
    return (replace(looked_up, pooling=feature.pooling),)
