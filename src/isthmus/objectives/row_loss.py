"""What training minimises: logits and labels in, one number out."""

from torch import Tensor
from torch.nn import functional


def binary_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of ``-label log p - (1 - label) log(1 - p)`` with ``p = sigmoid(logits)``, in nats.

    ``logits``, ``label``: (rows,) float, labels in [0, 1]; ``weight``: (rows,) float >= 0, not all 0.
    With weights the mean is ``sum(weight * loss) / sum(weight)``, so a row of weight 2 counts as two
    equal rows of weight 1, and the unit in which weights are given does not matter. The result is a
    scalar (); it is finite for any finite logit, and nan where a label is nan.

    >>> import torch
    >>> round(binary_cross_entropy(torch.zeros(2), torch.tensor([0.0, 1.0])).item(), 4)
    0.6931
    """
    if weight is None:
        return functional.binary_cross_entropy_with_logits(logits, label)
    total = functional.binary_cross_entropy_with_logits(
        logits, label, weight=weight, reduction="sum"
    )
    return total / weight.sum()
