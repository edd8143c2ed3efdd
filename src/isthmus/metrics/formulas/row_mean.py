"""A mean over rows: any metric that gives each row one value, such as accuracy or squared error."""

import numpy as np
from jaxtyping import Float64

from isthmus.metrics.crossed import Replicate
from isthmus.metrics.formulas.metric import InReplicate, Metric


def row_mean(name: str, label: str, *, larger_is_better: bool) -> Metric:
    """Declare a mean over rows, of which two models can be compared.

    A reader takes the rows' values in place of logits. The influence of a row is (value - mean) /
    rows. The labels of a replicate are not read, and may all be False.
    """
    return Metric(
        name=name,
        label=label,
        definition=f"mean over rows of {label}",
        larger_is_better=larger_is_better,
        undefined=lambda _: "no rows",
        in_replicate=InReplicate(mean_and_influence, nowhere="no rows", two_classes=False),
        scale="plain",
    )


def mean_and_influence(
    rows: Replicate, values: Float64[np.ndarray, " rows"]
) -> tuple[float, np.ndarray]:
    """Mean, and (value - mean) / rows; weights count a row so many times."""
    weight = np.ones(len(values)) if rows.weight is None else rows.weight
    total = float(weight.sum())
    if total == 0:
        return float("nan"), np.zeros(len(values))
    mean = float(weight @ values) / total
    return mean, weight * (values - mean) / total
