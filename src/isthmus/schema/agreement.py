"""Whether the features of a config fit each other. Each check raises ``ValueError``, by name."""

import difflib
from collections.abc import Iterable, Mapping
from typing import get_args

from isthmus.schema.features import Categorical, CategoricalList, Feature, Numeric, Time, TimePart
from isthmus.schema.fitted_field import cross_name, part_fields, statistics_name


def check_dim(name: str, feature: Feature) -> None:
    """Refuse a dim of a number that is not embedded."""
    if isinstance(feature, Numeric) and feature.embedding == "none" and feature.dim:
        raise ValueError(
            f"feature {name!r} must have an embedding where it has a dim, got dim"
            f" {feature.dim} and embedding 'none'"
        )


def check_shares(name: str, feature: Feature, features: Mapping[str, Feature]) -> None:
    """Refuse a vocabulary to share that is not there, or whose table has another width."""
    if not isinstance(feature, Categorical | CategoricalList) or feature.shares is None:
        return
    shared = feature.shares
    if feature.min_count > 1 or feature.hash_buckets is not None:
        raise ValueError(
            f"feature {name!r} shares the vocabulary of {shared!r}, so min_count and"
            " hash_buckets must stand there, not here"
        )
    other = features.get(shared)
    if not isinstance(other, Categorical | CategoricalList) or other.shares is not None:
        raise ValueError(
            f"feature {name!r} shares {shared!r}, which must be a categorical feature"
            " with a vocabulary of its own"
        )
    if other.dim != feature.dim:
        raise ValueError(
            f"feature {name!r} has dim {feature.dim} but shares the table of {shared!r},"
            f" whose dim is {other.dim}"
        )


def check_parts(name: str, feature: Feature, features: Mapping[str, Feature]) -> None:
    """Refuse a feature that has the name of a time's part."""
    if not isinstance(feature, Time):
        return
    for field in part_fields(name, feature.parts or get_args(TimePart), feature.dim):
        if field.name in features:
            raise ValueError(
                f"feature {name!r} has a part that is called {field.name!r}: no other feature must"
                " have that name"
            )


def check_attention(name: str, feature: Feature, features: Mapping[str, Feature]) -> None:
    """Refuse a pooling, a query and positions of a list that do not fit together."""
    if not isinstance(feature, CategoricalList):
        return
    if feature.pooling != "attention":
        if feature.query is not None or feature.positions:
            given = f"query {feature.query!r}" if feature.query is not None else "positions true"
            raise ValueError(
                f"feature {name!r} must have pooling 'attention' where it has {given},"
                f" got {feature.pooling!r}"
            )
        return
    if feature.query is None:
        raise ValueError(
            f"feature {name!r} has pooling 'attention', so query must name the categorical feature"
            " that its items are weighted by, got none"
        )
    other = features.get(feature.query)
    if other is None:
        near = difflib.get_close_matches(feature.query, features, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(features)}"
        raise ValueError(
            f"the query of feature {name!r} must be a feature too, got {feature.query!r}{hint}"
        )
    if not isinstance(other, Categorical):
        raise ValueError(
            f"the query of feature {name!r} must be categorical, got {feature.query!r},"
            f" which is {other.kind}"
        )
    if other.dim != feature.dim:
        raise ValueError(
            f"feature {name!r} must have the dim of its query {feature.query!r}, {other.dim},"
            f" got {feature.dim}"
        )


def check_crosses(
    crosses: Iterable[tuple[str, str]], features: Mapping[str, Feature], domain: str
) -> None:
    """Refuse a pair of columns that has no statistics of its own, or is there twice."""
    seen: set[frozenset[str]] = set()
    for left, right in crosses:
        pair = f"data.crosses pairs {left!r} with {right!r}"
        for name in (left, right):
            feature = features.get(name)
            if feature is None:
                raise ValueError(f"{pair}, which both must be features, got no feature {name!r}")
            if name == domain:
                raise ValueError(
                    f"{pair}, but a pair must not hold the domain {name!r}: statistics within the"
                    " domain are those of the pair"
                )
            if not isinstance(feature, Categorical):
                raise ValueError(
                    f"{pair}, which both must be categorical, got {feature.kind!r} for {name!r}"
                )
            if not feature.statistics:
                raise ValueError(
                    f"{pair}, which both must have statistics: true, got none for {name!r}"
                )
        if left == right:
            raise ValueError(f"{pair}, but a pair must be of two columns, got one twice")
        if frozenset((left, right)) in seen:
            raise ValueError(f"{pair}, but each pair must be there once, got it twice")
        seen.add(frozenset((left, right)))
        if (name := statistics_name(cross_name(left, right))) in features:
            raise ValueError(
                f"{pair}, whose statistics are called {name!r}: no feature must have that name"
            )
