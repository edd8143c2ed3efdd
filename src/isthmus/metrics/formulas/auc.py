"""AUC: the chance that a random positive outscores a random negative, of many segments at once.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), the placement values; the
sorting form is Sun and Xu, IEEE SPL 21 (2014). Departures: rows may be split into segments, all
solved together, so that a thousand domains cost what one does; ties are runs that count half.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int

from isthmus.metrics.crossed import Replicate
from isthmus.metrics.formulas.metric import InReplicate, Metric
from isthmus.metrics.formulas.ranking import Ranking, Segments
from isthmus.metrics.scored_rows import ScoredRows


def segment_auc(
    ranking: Ranking,
    label: Bool[np.ndarray, " rows"],
    weight: Float64[np.ndarray, " rows"] | None = None,
    *,
    influence: bool = False,
) -> Segments:
    """Chance that a random positive of the segment outscores a random negative; ties count half.

    ``weight``: rows are drawn in proportion to it. ``influence``: also give DeLong's psi per row,
    (share of negatives below - AUC) / positives for a positive and (share of positives above
    - AUC) / negatives for a negative, 0 in a segment without an AUC. They sum to 0 and their
    squares to the variance of the AUC; they hold without weights only, and are refused with them.
    """
    if influence and weight is not None:
        raise ValueError("influence values of an AUC hold for rows without weights only")
    positive = ranking.run_sums(label if weight is None else label * weight)
    negative = ranking.run_sums(~label if weight is None else ~label * weight)
    positives, negatives = ranking.segment_sums(positive), ranking.segment_sums(negative)
    lower = ranking.below(negative)
    del negative  # as long as the rows, where scores seldom tie
    won = ranking.segment_sums(positive * lower)
    pairs = positives * negatives
    safe = np.where(pairs > 0, pairs, 1.0)
    value = np.where(pairs > 0, won / safe, np.nan)
    if not influence:
        return Segments(value)
    # Both kinds of placement on the scale of pairs, made where the counts lay; divided once.
    higher = ranking.below(positive)
    del positive
    np.subtract(positives[ranking.run_segment], higher, out=higher)
    lower -= (won / safe * negatives)[ranking.run_segment]
    higher -= (won / safe * positives)[ranking.run_segment]
    scale = np.where(pairs > 0, 1.0 / safe, 0.0)[ranking.run_segment]
    lower *= scale
    higher *= scale
    del scale
    psi = np.empty(len(label))
    psi[ranking.order] = np.where(label[ranking.order], lower[ranking.run], higher[ranking.run])
    return Segments(value, psi)


def _segments(rows: ScoredRows, ranking: Ranking) -> tuple[Segments]:
    """AUC of each segment; influence values by DeLong, all 0 where rows have weights."""
    if rows.weight is None:
        return (segment_auc(ranking, rows.label, influence=True),)
    value = segment_auc(ranking, rows.label, rows.weight).value
    return (Segments(value, np.broadcast_to(0.0, len(rows))),)


def _in_replicate(rows: Replicate, logits: np.ndarray) -> tuple[float, np.ndarray]:
    """AUC and DeLong's placement values, which are 0 where rows have weights."""
    weight = rows.weight
    found = segment_auc(Ranking.of(logits), rows.label, weight, influence=weight is None)
    psi = np.zeros(len(rows)) if found.influence is None else found.influence
    return float(found.value[0]), psi


AUC = Metric(
    name="auc",
    label="AUC",
    definition="chance that a random positive outscores a random negative, ties half; weighted by"
    " the weight column, unmoved by negative_rate; interval by DeLong's influence values, clustered"
    " by group where there is one; none with weights",
    larger_is_better=True,
    undefined=lambda counts: counts.missing_class or "one class has weight 0 only",
    segments=_segments,
    in_replicate=InReplicate(_in_replicate, nowhere="no replicate has both classes"),
    scale="logit",
    with_weights="rows have weights: DeLong's variance holds for rows without",
    rough_of_few=True,
    interval_in_table=True,
)


def auc(
    score: Float64[np.ndarray, " rows"],
    label: Bool[np.ndarray, " rows"] | Int[np.ndarray, " rows"] | Float64[np.ndarray, " rows"],
    weight: Float64[np.ndarray, " rows"] | None = None,
) -> float:
    """Chance that a random positive outscores a random negative; ties count half.

    ``score`` takes any real numbers. The result is nan when one class is missing: a domain with no
    clicks has no AUC. ``weight``: at least 0; rows are drawn in proportion to it. Raises
    ValueError for a score that is not a number.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    return float(_auc_of(score, label, weight)[0])


def auc_by_domain(
    score: Float64[np.ndarray, " rows"],
    label: Bool[np.ndarray, " rows"] | Int[np.ndarray, " rows"] | Float64[np.ndarray, " rows"],
    domain: Int[np.ndarray, " rows"],
    n_domains: int,
    weight: Float64[np.ndarray, " rows"] | None = None,
) -> Float64[np.ndarray, " domains"]:
    """AUC of domains 1..n_domains; nan where undefined.

    Rows of domain 0 belong to none. The function is for a monitor inside training, where intervals
    are not wanted. Raises ValueError for a score that is not a number.
    """
    return _auc_of(score, label, weight, np.asarray(domain), n_domains + 1)[1:]


def _auc_of(
    score: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None,
    segment: np.ndarray | None = None,
    n_segments: int = 1,
) -> Float64[np.ndarray, " segments"]:
    score = np.asarray(score, dtype=np.float64)
    if np.isnan(score).any():
        raise ValueError(f"score must be a number, got nan in row {int(np.isnan(score).argmax())}")
    if weight is not None:
        weight = np.asarray(weight, dtype=np.float64)
    ranking = Ranking.of(score, segment, n_segments)
    return segment_auc(ranking, np.asarray(label) > 0, weight).value
