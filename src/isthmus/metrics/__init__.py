"""Metrics of every domain, with intervals, and paired comparisons of models."""

from isthmus.metrics.comparison import compare
from isthmus.metrics.crossed import Replicate
from isthmus.metrics.differences import Comparison, Difference, Pair
from isthmus.metrics.effects import Effect, EffectMetric, Measured, Reader, macro_effect
from isthmus.metrics.equivalence import (
    benjamini_hochberg,
    not_worse,
    same,
    spearman,
    with_holm,
)
from isthmus.metrics.evaluation import DEFINITIONS, Evaluation, evaluate, evaluate_rows
from isthmus.metrics.losses import logloss
from isthmus.metrics.partial import MergedFigures, Partial
from isthmus.metrics.ranking import auc, auc_by_domain
from isthmus.metrics.scopes import Figures
from isthmus.metrics.scored_rows import ScoredRows, align, concatenate
from isthmus.metrics.table import TextTable
from isthmus.metrics.verdict import Verdict, judge

__all__ = [
    "DEFINITIONS",
    "Comparison",
    "Difference",
    "Effect",
    "EffectMetric",
    "Evaluation",
    "Figures",
    "Measured",
    "MergedFigures",
    "Pair",
    "Partial",
    "Reader",
    "Replicate",
    "ScoredRows",
    "TextTable",
    "Verdict",
    "align",
    "auc",
    "auc_by_domain",
    "benjamini_hochberg",
    "compare",
    "concatenate",
    "evaluate",
    "evaluate_rows",
    "judge",
    "logloss",
    "macro_effect",
    "not_worse",
    "same",
    "spearman",
    "with_holm",
]
