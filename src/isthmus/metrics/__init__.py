"""Metrics of every domain, with intervals, and paired comparisons of models."""

from isthmus.metrics.comparison import Comparison, Difference, Pair, compare
from isthmus.metrics.crossed import Replicate
from isthmus.metrics.effects import Effect, MeasuredArm, Reader, macro_effect
from isthmus.metrics.equivalence import (
    benjamini_hochberg,
    not_worse,
    same,
    spearman,
    with_holm,
)
from isthmus.metrics.evaluation import DEFINITIONS, Evaluation, Figures, evaluate, evaluate_rows
from isthmus.metrics.formulas import EffectMetric
from isthmus.metrics.formulas.auc import auc, auc_by_domain
from isthmus.metrics.formulas.logloss import logloss
from isthmus.metrics.scored_rows import ScoredRows, align, concatenate
from isthmus.metrics.shards import MergedFigures, Partial
from isthmus.metrics.text_table import TextTable
from isthmus.metrics.winner import Winner, judge

__all__ = [
    "DEFINITIONS",
    "Comparison",
    "Difference",
    "Effect",
    "EffectMetric",
    "Evaluation",
    "Figures",
    "MeasuredArm",
    "MergedFigures",
    "Pair",
    "Partial",
    "Reader",
    "Replicate",
    "ScoredRows",
    "TextTable",
    "Winner",
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
