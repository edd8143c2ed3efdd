"""Weighting: how the losses of a batch's domains become one gradient.

A domain's loss L_d is the mean over its rows in the batch, each with its weight. Every weighting but
the surgeries is a convex combination ``sum_d a_d L_d`` over the domains in the batch, ``a_d >= 0``
and ``sum_d a_d = 1``: the whole keeps its scale, so that ``lr``, ``embedding_l2`` and ``clip_norm``
mean what they mean elsewhere, and with one domain every weighting is the same.

============  =====================================================================================
proportional  a_d = the domain's share of the batch's row weights: the mean over all rows
uniform       a_d = 1 / (domains in the batch)
uncertainty   a_d ~ exp(-s_d), s_d learnt: Kendall et al., CVPR 2018, arXiv:1705.07115
dwa           a_d ~ exp(r_d / 2), r_d = L_d(epoch - 1) / L_d(epoch - 2): Liu et al., CVPR 2019,
              arXiv:1803.10704, temperature 2
gradnorm      a_d ~ w_d, learnt: Chen et al., ICML 2018, arXiv:1711.02257, algorithm 1, alpha 1.5
random        a_d ~ exp(z_d), z_d ~ N(0, 1) anew at each step: Lin et al., arXiv:2111.10603
pcgrad        each domain's gradient loses what opposes another's: Yu et al., NeurIPS 2020,
              arXiv:2001.06782, algorithm 1
cagrad        the mean gradient turned towards the worst-off domain: Liu et al., NeurIPS 2021,
              arXiv:2110.14048, algorithm 1, c = 0.5
============  =====================================================================================

Departures: weights are normed over the domains that are in the batch. ``uncertainty`` norms
exp(-s_d), which the paper does not, and learns s_d from the paper's loss ``exp(-s) L + s / 2``.
``s_d`` and ``w_d`` take their own Adam steps at ``train.lr``, only when their domain is in the batch.
``gradnorm`` keeps ``w_d`` above 0.01. The surgeries give the mean, not the sum, of the domains'
gradients; ``cagrad`` is divided by 1 + c, one of the rescalings in its authors' code, so that equal
gradients stay as they are. They change the dense parameters that domains share; embedding tables
(whose gradients may be sparse) and the sets that one domain owns take the mean of the domains'
gradients.
"""

from isthmus.train.weighting.rule import AbstractRule, DomainLosses
from isthmus.train.weighting.weighting import (
    Weighting,
    WeightingName,
    build_weighting,
    shared_parameters,
)

__all__ = [
    "AbstractRule",
    "DomainLosses",
    "Weighting",
    "WeightingName",
    "build_weighting",
    "shared_parameters",
]
