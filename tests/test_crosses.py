"""Pairs of columns: their statistics against a slow formula, and what validation rows confirm."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ttest_1samp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from counted_tables import crossed, crossed_config, four, label
from isthmus.data import SPLITS, Dataset
from isthmus.data.encoding.counted import cells
from isthmus.data.encoding.counted.statistics import FOLDS, Statistics, domain_rates
from isthmus.data.encoding.counted.trial import CrossTrial, TrialRows, holm, judge, losses
from isthmus.data.store.counting import confirming, out_of_fold
from isthmus.data.store.rows import stopping_half

PAIR = slice(8, 12)  # behind the numbers of user and author
Row = dict[str, Any]


def statistics(dataset: Dataset) -> Statistics:
    found = dataset.encoder.taught.statistics
    assert found is not None
    return found


# ---------------------------------------------------------------- the slow version


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


class Slow:
    """The formulas of a column or of a pair, value by value.

    ``own(value, domain)``: the rate that a value is measured against in a domain.
    """

    def __init__(
        self,
        rows: list[Row],
        column: str,
        own: Callable[[Any, int], float],
        strengths: tuple[float, float],
        scale: float,
    ) -> None:
        self.scale = scale
        self.n: dict[Any, float] = defaultdict(float)
        self.k: dict[Any, float] = defaultdict(float)
        expected: dict[Any, float] = defaultdict(float)
        for row in rows:
            value, domain = row[column], row["domain"]
            for key in (value, (value, domain)):
                self.n[key] += row["weight"]
                self.k[key] += row["weight"] * row["label"]
            expected[value] += row["weight"] * own(value, domain)
        self.effect, self.within = {}, {}
        for value, total in expected.items():
            n, k, mean = self.n[value], self.k[value], total / self.n[value]
            s = strengths[0]
            self.effect[value] = logit((k + s * mean) / (n + s)) - logit(mean)
        for row in rows:
            value, domain = row[column], row["domain"]
            n, k, s = self.n[value, domain], self.k[value, domain], strengths[1]
            base = logit(own(value, domain))
            prior = sigmoid(base + self.effect[value])
            self.within[value, domain] = logit((k + s * prior) / (n + s)) - base

    def log_count(self, key: Any, rate: float) -> float:
        k = self.k.get(key, 0.0)
        return math.log1p(self.scale * (k + (self.n.get(key, 0.0) - k) / rate))

    def inside(self, value: Any, domain: int) -> float:
        return self.within.get((value, domain), self.effect.get(value, 0.0))

    def numbers(self, value: Any, domain: int, rate: float) -> list[float]:
        return [
            self.effect.get(value, 0.0),
            self.log_count(value, rate),
            self.inside(value, domain),
            self.log_count((value, domain), rate),
        ]


def slow_pairs(rows: list[Row], dataset: Dataset, scale: float = 1.0) -> Slow:
    sums = np.zeros((2, dataset.n_domains + 1))
    for row in rows:
        sums[:, row["domain"]] += row["weight"], row["weight"] * row["label"]
    rates = domain_rates(*sums)
    strengths = {one.column.name: one.effects.strengths for one in statistics(dataset).columns}
    user, author = (
        Slow(rows, name, lambda _, domain: rates[domain], strengths[name], scale)
        for name in ("user", "author")
    )

    def own(pair: tuple[int, int], domain: int) -> float:
        sides = user.inside(pair[0], domain) + author.inside(pair[1], domain)
        return sigmoid(logit(rates[domain]) + sides)

    return Slow(rows, "pair", own, strengths["user x author"], scale)


def as_rows(dataset: Dataset, split: str) -> list[Row]:
    rows = dataset.rows(split)  # type: ignore[arg-type]
    arrays = rows.arrays
    fold = np.zeros(len(rows)) if rows.fold is None else rows.fold
    weight = np.ones(len(rows)) if arrays.weight is None else arrays.weight
    found = []
    for at in range(len(rows)):
        user, author = map(int, arrays.categorical[at, :2])
        row = {"user": user, "author": author, "pair": (user, author), "fold": int(fold[at])}
        row |= {"label": float(arrays.label[at]), "weight": float(weight[at])}
        found.append(row | {"domain": int(arrays.domain[at])})
    return found


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    table = crossed(0, 6000, pair=2.0, side=0.5)
    rng = np.random.default_rng(0)
    table = table.append_column("w", pa.array(rng.choice([0.5, 1.0, 3.0], 6000)))
    config = crossed_config(weight="w", negative_rate=0.25)
    return Dataset.from_table(config, table, cache=tmp_path_factory.mktemp("cache"))


def test_numbers_of_pairs_are_those_of_the_slow_formulas(weighed: Dataset):
    train, rate = as_rows(weighed, "train"), weighed.config.negative_rate
    spread = np.tile(statistics(weighed).columns[2].spread, 2)
    whole = slow_pairs(train, weighed)
    for split in ("validation", "test"):
        rows = as_rows(weighed, split)
        expected = [whole.numbers(row["pair"], row["domain"], rate) for row in rows]
        found = four(weighed, split)[:, PAIR] * spread
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    found = four(weighed, "train")[:, PAIR] * spread
    for fold in range(FOLDS):
        others = [row for row in train if row["fold"] != fold]
        slow = slow_pairs(others, weighed, FOLDS / (FOLDS - 1))
        mine = [n for n, row in enumerate(train) if row["fold"] == fold]
        expected = [slow.numbers(train[n]["pair"], train[n]["domain"], rate) for n in mine]
        np.testing.assert_allclose(found[mine], expected, rtol=1e-3, atol=1e-4)


def test_the_way_of_counting_changes_nothing(weighed: Dataset, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(cells, "DENSE_CELLS", 0)
    monkeypatch.setattr(out_of_fold, "BLOCK", 97)
    table = crossed(0, 6000, pair=2.0, side=0.5)
    rng = np.random.default_rng(0)
    table = table.append_column("w", pa.array(rng.choice([0.5, 1.0, 3.0], 6000)))
    again = Dataset.from_table(weighed.config, table, cache=tmp_path)
    for split in SPLITS:
        np.testing.assert_allclose(four(again, split), four(weighed, split), rtol=1e-4, atol=1e-5)


def test_a_pair_with_an_unknown_value_says_nothing(weighed: Dataset):
    rows = np.zeros((3, 12), dtype=np.float32)
    categorical = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=np.int32)
    statistics(weighed).fill(rows, categorical, (), np.ones(3, dtype=np.int32))
    assert not rows[:2, PAIR].any()
    assert rows[2, PAIR].any()


def test_a_domains_rows_move_no_other_domains_counts_of_a_pair(tmp_path: Path):
    table = crossed(1, pair=2.0)
    click, tab = np.array(table["click"]), np.array(table["tab"])
    at = table.schema.get_field_index("click")
    other = table.set_column(at, "click", pa.array(np.where(tab == "a", 1 - click, click)))
    first, second = (
        statistics(Dataset.from_table(crossed_config(), one, cache=tmp_path)).columns[2].counts
        for one in (table, other)
    )
    mine = first.domain != 1
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_array_equal(first.positives[mine], second.positives[mine])
    assert (first.positives != second.positives)[~mine].any()


# ---------------------------------------------------------------- what is confirmed


def test_a_label_that_follows_the_pair_confirms_it(tmp_path: Path):
    table = crossed(2, pair=2.0)
    with_pair = Dataset.from_table(crossed_config(), table, cache=tmp_path)
    without = Dataset.from_table(crossed_config(crosses=[]), table, cache=tmp_path)
    (trial,) = with_pair.encoder.crosses
    half = stopping_half(with_pair.rows("validation"))
    assert (trial.confirmed, trial.loses, trial.rows) == (True, None, int(half.sum()))
    assert with_pair.encoder.fields[-1].name == "user x author:statistics"
    auc = []
    for made in (without, with_pair):
        model = LogisticRegression().fit(four(made, "train"), label(made, "train"))
        # The other half of the validation rows has said nothing yet.
        score = model.decision_function(four(made, "validation")[~half])
        auc.append(roc_auc_score(label(made, "validation")[~half], score))
        # A train row's own label would show here: the columns without the pair are as they were.
        np.testing.assert_array_equal(four(made, "train")[:, :8], four(without, "train"))
    assert auc[0] < 0.6
    assert auc[1] > auc[0] + 0.1


@pytest.mark.truth
def test_pairs_of_random_labels_are_not_confirmed_and_tell_nothing(tmp_path: Path, monkeypatch):
    confirmed, lifts, gains = 0, [], []
    for seed in range(20):
        table = crossed(10 + seed, 4000)
        made = Dataset.from_table(crossed_config(), table, cache=tmp_path / "real")
        (trial,) = made.encoder.crosses
        confirmed += trial.confirmed
        gains.append(trial.gain)
        # Let the pair in all the same: train rows must see in it no more than validation rows do.
        with monkeypatch.context() as patch:
            patch.setattr(confirming, "judge", _always)
            forced = Dataset.from_table(crossed_config(), table, cache=tmp_path / "forced")
        fitted = LogisticRegression().fit(four(forced, "train"), label(forced, "train"))
        score = fitted.decision_function(four(forced, "validation"))
        lifts.append(roc_auc_score(label(forced, "validation"), score) - 0.5)
    assert confirmed <= 3  # 1 is expected; more than 3 have the chance .016
    assert np.mean(gains) < 0
    assert p_of_mean(lifts, "two-sided") > 0.01


def _always(pair: tuple[str, str], *_: object, **__: object) -> CrossTrial:
    return CrossTrial(*pair, rows=1, gain=1.0, p=0.0, loses=None)


def test_two_sides_without_a_pair_confirm_none(tmp_path: Path):
    trials = [
        Dataset.from_table(
            crossed_config(), crossed(40 + seed, 6000, side=1.0), cache=tmp_path
        ).encoder.crosses[0]
        for seed in range(10)
    ]
    assert sum(trial.confirmed for trial in trials) <= 2
    assert np.mean([trial.gain for trial in trials]) < 1e-3


def test_a_useless_pair_is_no_input_beside_a_useful_one(tmp_path: Path):
    table = crossed(3, pair=2.0)
    rng = np.random.default_rng(3)
    table = table.append_column("coin", pa.array(rng.integers(0, 40, len(table))))
    one = {"kind": "categorical", "statistics": True}
    features = {"user": one, "author": one, "coin": one, "tab": "categorical"}
    crosses = [["coin", "user"], ["user", "author"]]
    config = crossed_config(features=features, crosses=crosses)
    made = Dataset.from_table(config, table, cache=tmp_path)
    assert [trial.confirmed for trial in made.encoder.crosses] == [False, True]
    assert [field.name for field in made.encoder.fields[-1:]] == ["user x author:statistics"]
    assert four(made, "train").shape[1] == 16
    # The one that stays has the numbers that it has alone.
    alone = Dataset.from_table(
        crossed_config(features=features, crosses=crosses[1:]), table, cache=tmp_path
    )
    for split in SPLITS:
        np.testing.assert_array_equal(four(made, split), four(alone, split))


# ---------------------------------------------------------------- the test itself


def p_of_mean(values: Sequence[float] | np.ndarray, alternative: str) -> float:
    return float(ttest_1samp(values, 0, alternative=alternative)[1])  # type: ignore[arg-type]


def trial_rows(count: int, domain: np.ndarray | None = None, clusters: int = 0) -> TrialRows:
    return TrialRows(
        label=np.zeros(count, dtype=np.float32),
        weight=np.ones(count),
        domain=np.ones(count, dtype=np.int32) if domain is None else domain,
        cluster=np.arange(count) % (clusters or count),
    )


def test_p_is_that_of_students_t():
    gain = np.random.default_rng(0).normal(0.1, 1, 300)
    found = judge(("u", "a"), gain, np.zeros(300), trial_rows(300), ["home"])
    assert found.p == pytest.approx(p_of_mean(gain, "greater"))
    assert found.gain == pytest.approx(gain.mean())
    # Rows of one user count as one.
    sums = gain.reshape(-1, 30).sum(0)
    found = judge(("u", "a"), gain, np.zeros(300), trial_rows(300, clusters=30), ["home"])
    assert found.p == pytest.approx(p_of_mean(sums, "greater"))


def test_a_domain_that_loses_forbids_the_pair():
    rng = np.random.default_rng(0)
    domain = np.repeat([1, 2], [900, 100]).astype(np.int32)
    gain = rng.normal(0.5, 1, 1000)
    gain[domain == 2] -= 1.5
    found = judge(("u", "a"), gain, np.zeros(1000), trial_rows(1000, domain), ["home", "mail"])
    assert found.p < 1e-6
    assert found.loses == "mail"
    assert not found.confirmed
    assert not judge(("u", "a"), gain[:1], np.zeros(1), trial_rows(1), ["home"]).confirmed


def test_holms_correction_by_hand():
    ps = [0.02, 0.01, 0.5, 0.04]
    trials = [replace(_always(("u", str(n))), p=p) for n, p in enumerate(ps)]
    assert [trial.p for trial in holm(trials)] == pytest.approx([0.06, 0.04, 0.5, 0.08])


def test_the_regression_is_scikit_learns():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3))
    y = (rng.random(2000) < 1 / (1 + np.exp(-x @ [1.0, -0.5, 0.0]))).astype(np.float32)
    rows = replace(trial_rows(2000), label=y, weight=rng.uniform(0.5, 2, 2000))
    found = losses(x, rows, x, rows)
    # scikit-learn's ridge stands beside the sum of the losses, ours beside their weighted mean.
    c = 2000 / rows.weight.sum()
    other = LogisticRegression(C=c, tol=1e-8).fit(x, y, sample_weight=rows.weight)
    chance = other.predict_proba(x)[:, 1]
    np.testing.assert_allclose(found, -np.log(np.where(y > 0, chance, 1 - chance)), atol=1e-4)
