"""The second order of a factorisation machine, in linear time.

Source: Rendle, Factorization Machines, ICDM 2010, lemma 3.1; as a part of Guo et al., DeepFM,
IJCAI 2017, arXiv:1703.04247, eq. 2.
"""

from jaxtyping import Float
from torch import Tensor


def pairwise_products(v: Float[Tensor, "rows fields dim"]) -> Float[Tensor, " rows"]:
    """Sum of the inner products of all pairs of fields: ``sum_{i<j} v_i . v_j``.

    By the square trick ``((sum v)^2 - sum v^2) / 2``: linear, not quadratic, in the fields.
    """
    total = v.sum(dim=1)
    return 0.5 * (total.square().sum(dim=1) - v.square().sum(dim=(1, 2)))
