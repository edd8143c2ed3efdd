"""The AUC that one column reaches alone, and the names that tell whom a row belongs to."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from isthmus.inspect.guess import auc, group_rank, lone_auc


def test_lone_auc_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    label = rng.random(2_000) < 0.4
    score = np.round(rng.normal(size=2_000) + label, 1)
    assert auc(score, label) == pytest.approx(roc_auc_score(label, score))
    found = lone_auc(pl.Series(np.r_[-score]), label, categorical=False)
    assert found == pytest.approx(roc_auc_score(label, score), abs=0.03)
    assert auc(score[:15], label[:15]) == 0.5  # too few to accuse


def test_a_category_is_scored_on_rows_it_was_not_fitted_on():
    rng = np.random.default_rng(0)
    label = rng.random(4_000) < 0.5
    twice = pl.Series(rng.permutation(4_000) // 2)
    assert lone_auc(twice, label, categorical=True) < 0.55
    told = pl.Series(rng.integers(100, size=4_000) * 2 + label)
    assert lone_auc(told, label, categorical=True) > 0.99


def test_the_group_is_the_best_name():
    assert group_rank("user_id") == group_rank("userId") == 0
    ranked = sorted(["session_id", "user_age", "user_id"], key=lambda name: group_rank(name) or 0)
    assert ranked == ["user_id", "user_age", "session_id"]
    assert group_rank("price") is None
