"""What training minimises: logits and labels in, one number out."""

import torch
from torch import Tensor
from torch.nn import functional

# Smaller than any sum of weights that float32 tells from 0 beside a weight of 1.
LEAST_WEIGHT = 1e-30


def binary_cross_entropy(
    logits: Tensor, label: Tensor, weight: Tensor | None = None, *, mass: Tensor | None = None
) -> Tensor:
    """Mean of ``-label log p - (1 - label) log(1 - p)`` with ``p = sigmoid(logits)``, in nats.

    ``logits``, ``label``: (rows,) float, labels in [0, 1], or nan where the label is not known;
    ``weight``: (rows,) float >= 0. With weights the mean is ``sum(weight * loss) / sum(weight)``, so a
    row of weight 2 counts as two equal rows of weight 1, and the unit in which weights are given does
    not matter. A row without a label does not count. The result is a scalar (); it is finite for any
    finite logit, and 0 where no row with a label has any weight. ``mass``: () what the sum is divided by
    in place of these rows' weights: for a part of a batch, the sum over the batch, see `known_mass`.

    >>> import torch
    >>> round(binary_cross_entropy(torch.zeros(2), torch.tensor([0.0, 1.0])).item(), 4)
    0.6931
    >>> round(binary_cross_entropy(torch.zeros(2), torch.tensor([0.0, torch.nan])).item(), 4)
    0.6931
    """
    if mass is not None:
        label, weight = known_rows(label, weight)
        total = functional.binary_cross_entropy_with_logits(
            logits, label, weight=weight, reduction="sum"
        )
        return total / mass.to(total).clamp(min=LEAST_WEIGHT)
    if weight is None:
        label, known = known_rows(label)
        mean = functional.binary_cross_entropy_with_logits(logits, label, weight=known)
        # Where all labels are known the divisor is 1, and no bit of loss or gradient differs from those
        # of a plain mean.
        return mean / (known.sum().clamp(min=1.0) / len(label))
    label, weight = known_rows(label, weight)
    total = functional.binary_cross_entropy_with_logits(
        logits, label, weight=weight, reduction="sum"
    )
    return total / weight.sum().clamp(min=LEAST_WEIGHT)


def known_rows(label: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Labels and weights (rows,) in which a row without a label has label 0 and weight 0."""
    known = ~label.isnan()
    weight = torch.ones_like(label) if weight is None else weight
    return torch.where(known, label, 0.0), torch.where(known, weight, 0.0)


def known_mass(label: Tensor, weight: Tensor | None = None) -> Tensor:
    """The sum () float64 of the weights of the rows with a label."""
    return known_rows(label, weight)[1].double().sum()
