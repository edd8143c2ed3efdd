"""Value statistics: against a slow formula, on planted tables, and from fit to served score."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ks_2samp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from counted_tables import WITH, four, label, planted, planted_config
from isthmus.data import SPLITS, Dataset
from isthmus.data.encoding.counted import cells
from isthmus.data.encoding.counted.statistics import FOLDS, STRENGTHS, strength
from isthmus.data.store.counting import out_of_fold
from small_parts import data_config, make_table

COLUMNS = ("user", "city", "history")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    config = data_config(features=WITH, negative_rate=0.25)
    return Dataset.from_table(config, make_table(), cache=tmp_path_factory.mktemp("cache"))


def numbers(dataset: Dataset, split: str) -> np.ndarray:
    """The statistics of a split's rows, (rows, 4 a column)."""
    return np.asarray(dataset.rows(split).arrays.numeric)[:, -4 * len(COLUMNS) :]  # type: ignore[arg-type]


# ---------------------------------------------------------------- the slow version


Cell = tuple[float, float]  # rows, positives


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def slow_strength(cells: list[tuple[float, float, float]], used: float = 0.0) -> float:
    pearson = room = 0.0
    for n, k, mean in cells:
        pearson += (k - n * mean) ** 2 / (n * mean * (1 - mean)) - 1
        room += n - 1
    rho = (pearson + used) / room if room > 0 else 0.0
    return min(max(1 / rho - 1, STRENGTHS[0]), STRENGTHS[1]) if rho > 0 else STRENGTHS[1]


class Slow:
    """The formulas of the module, value by value. ``whole``: the same of all rows."""

    def __init__(
        self,
        rows: list[dict[str, Any]],
        column: str,
        rate: float,
        scale: float = 1.0,
        whole: "Slow | None" = None,
    ) -> None:
        self.scale, self.rate = scale, rate
        of_domain: dict[int, Cell] = defaultdict(lambda: (0.0, 0.0))
        self.value: dict[int, Cell] = defaultdict(lambda: (0.0, 0.0))
        self.pair: dict[tuple[int, int], Cell] = defaultdict(lambda: (0.0, 0.0))
        for row in rows:
            one, positive = row["weight"], row["weight"] * row["label"]
            n, k = of_domain[row["domain"]]
            of_domain[row["domain"]] = (n + one, k + positive)
            for value in row[column]:
                if value == 0:
                    continue
                n, k = self.value[value]
                self.value[value] = (n + one, k + positive)
                n, k = self.pair[value, row["domain"]]
                self.pair[value, row["domain"]] = (n + one, k + positive)
        base = sum(k for _, k in of_domain.values()) / sum(n for n, _ in of_domain.values())
        s = slow_strength([(n, k, base) for n, k in of_domain.values()])
        self.p = {d: (k + s * base) / (n + s) for d, (n, k) in of_domain.items()}
        mean = {
            value: sum(self.pair[v, d][0] * self.p[d] for v, d in self.pair if v == value) / n
            for value, (n, _) in self.value.items()
        }
        s = slow_strength([(n, k, mean[value]) for value, (n, k) in self.value.items()])
        s = self.of_values = s if whole is None else whole.of_values
        self.effect = {
            value: logit((k + s * mean[value]) / (n + s)) - logit(mean[value])
            for value, (n, k) in self.value.items()
        }
        used = sum(n / (n + s) for n, _ in self.value.values())
        prior = {
            (value, d): 1 / (1 + math.exp(-logit(self.p[d]) - self.effect[value]))
            for value, d in self.pair
        }
        s = slow_strength([(n, k, prior[pair]) for pair, (n, k) in self.pair.items()], used)
        s = self.of_pairs = s if whole is None else whole.of_pairs
        self.within = {
            (value, d): logit((k + s * prior[value, d]) / (n + s)) - logit(self.p[d])
            for (value, d), (n, k) in self.pair.items()
        }

    def log_count(self, cell: Cell) -> float:
        n, k = cell
        return math.log1p(self.scale * (k + (n - k) / self.rate))

    def numbers(self, items: list[int], domain: int) -> np.ndarray:
        found = [np.zeros(4)]
        for value in items:
            if value in self.value:
                effect = self.effect[value]
                own = self.pair.get((value, domain), (0.0, 0.0))
                within = self.within.get((value, domain), effect)
                found.append(
                    np.array(
                        [effect, self.log_count(self.value[value]), within, self.log_count(own)]
                    )
                )
            else:
                found.append(np.zeros(4))
        return np.sum(found, axis=0) / max(1, len(items))


def as_rows(dataset: Dataset, split: str) -> list[dict[str, Any]]:
    rows = dataset.rows(split)  # type: ignore[arg-type]
    arrays = rows.arrays
    values, offsets = arrays.lists[0]
    names = [f.name for f in dataset.encoder.fields if f.kind == "categorical"]
    fold = np.zeros(len(rows)) if rows.fold is None else rows.fold
    weight = np.ones(len(rows)) if arrays.weight is None else arrays.weight
    return [
        {
            "user": [int(arrays.categorical[at, names.index("user")])],
            "city": [int(arrays.categorical[at, names.index("city")])],
            "history": values[offsets[at] : offsets[at + 1]].tolist(),
            "domain": int(arrays.domain[at]) if arrays.domain[at] <= dataset.n_domains else 0,
            "label": float(arrays.label[at]),
            "weight": float(weight[at]),
            "fold": int(fold[at]),
        }
        for at in range(len(rows))
    ]


def test_numbers_are_those_of_the_slow_formulas(dataset: Dataset):
    rate = dataset.config.negative_rate
    train = as_rows(dataset, "train")
    assert dataset.encoder.taught.statistics is not None
    for place, column in enumerate(COLUMNS):
        spread = np.tile(dataset.encoder.taught.statistics.columns[place].spread, 2)
        at = slice(4 * place, 4 * place + 4)
        whole = Slow(train, column, rate)
        for split in ("validation", "test"):
            expected = [
                whole.numbers(row[column], row["domain"]) for row in as_rows(dataset, split)
            ]
            found = numbers(dataset, split)[:, at] * spread
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        found = numbers(dataset, "train")[:, at] * spread
        scale = FOLDS / (FOLDS - 1)
        for fold in range(FOLDS):
            others = Slow([row for row in train if row["fold"] != fold], column, rate, scale, whole)
            mine = [n for n, row in enumerate(train) if row["fold"] == fold]
            expected = [others.numbers(train[n][column], train[n]["domain"]) for n in mine]
            np.testing.assert_allclose(found[mine], expected, rtol=1e-4, atol=1e-5)


def test_the_way_of_counting_changes_nothing(dataset: Dataset, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(cells, "DENSE_CELLS", 0)
    monkeypatch.setattr(out_of_fold, "BLOCK", 17)
    again = Dataset.from_table(dataset.config, make_table(), cache=tmp_path)
    for split in SPLITS:
        np.testing.assert_allclose(numbers(again, split), numbers(dataset, split), rtol=1e-5)


def test_the_strength_of_a_planted_beta_binomial_is_found():
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.1, 0.6, 20_000)
    rows = np.maximum(1.0, rng.geometric(0.03, len(mean)))
    for true in (4.0, 30.0, 200.0):
        chance = rng.beta(true * mean, true * (1 - mean))
        positives = rng.binomial(rows.astype(int), chance).astype(float)
        assert strength(rows, positives, mean) == pytest.approx(true, rel=0.15)
    alike = rng.binomial(rows.astype(int), mean).astype(float)
    assert strength(rows, alike, mean) > 1000


# ---------------------------------------------------------------- planted tables


def in_sample(dataset: Dataset) -> np.ndarray:
    """What train rows would be told if they were not kept out of their own numbers."""
    arrays = dataset.rows("train").arrays
    found = np.zeros((len(arrays.domain), 4), dtype=np.float32)
    assert dataset.encoder.taught.statistics is not None
    dataset.encoder.taught.statistics.fill(found, arrays.categorical, (), np.asarray(arrays.domain))
    return found


def test_a_random_label_gives_no_lift(tmp_path: Path):
    lifts, leaks = [], []
    for seed in range(20):
        made = Dataset.from_table(planted_config(), planted(seed), cache=tmp_path)
        y = label(made, "train")
        model = LogisticRegression().fit(four(made, "train"), y)
        score = model.decision_function(four(made, "validation"))
        lifts.append(roc_auc_score(label(made, "validation"), score) - 0.5)
        # Shrinking hides a leak where values differ no more than chance, so look at plain rates.
        user = np.asarray(made.rows("train").arrays.categorical)[:, 0]
        rate = np.bincount(user, y) / np.maximum(np.bincount(user), 1)
        leaks.append(roc_auc_score(y, rate[user]))
    assert abs(np.mean(lifts)) < 3 * np.std(lifts, ddof=1) / math.sqrt(20) + 1e-3
    assert min(leaks) > 0.6


def test_what_train_rows_see_is_distributed_as_what_test_rows_see(tmp_path: Path):
    for seed, by in enumerate(("random", "time")):
        config = planted_config(split={"by": by, "fractions": [0.6, 0.2, 0.2]})
        made = Dataset.from_table(config, planted(seed, 40_000, spread=1.0), cache=tmp_path)
        train, test, leaky = four(made, "train"), four(made, "test"), in_sample(made)
        np.testing.assert_allclose(train.mean(0), test.mean(0), atol=0.05)
        np.testing.assert_allclose(train.std(0), test.std(0), rtol=0.08)
        # Counts out of fold are a coarser lattice than those of test rows; effects are no lattice.
        assert float(ks_2samp(train[:, 0], test[:, 0])[0]) < 0.04  # type: ignore[arg-type]
        # The label follows the number as it does in test rows, and closer than that in sample.
        auc = [
            roc_auc_score(label(made, split), x[:, 0])
            for split, x in (("train", train), ("test", test), ("train", leaky))
        ]
        assert abs(auc[0] - auc[1]) < 0.015
        assert auc[2] > auc[1] + 0.03


def test_under_a_split_by_time_folds_are_stretches_of_time(tmp_path: Path):
    table = planted(6, 3000)
    rng = np.random.default_rng(6)
    shuffled = table.take(pa.array(rng.permutation(3000)))
    config = planted_config(split={"by": "time", "fractions": [0.6, 0.2, 0.2]})
    rows = Dataset.from_table(config, shuffled, cache=tmp_path).rows("train")
    assert rows.fold is not None
    time = np.array(shuffled["at"])[rows.row]
    np.testing.assert_array_equal(rows.fold, time * FOLDS // 1800)
    # Rows of one time stay together.
    days = shuffled.set_column(4, "at", pa.array(np.array(shuffled["at"]) // 500))
    rows = Dataset.from_table(config, days, cache=tmp_path).rows("train")
    assert rows.fold is not None
    time = np.array(days["at"])[rows.row]
    assert len(set(zip(time.tolist(), rows.fold.tolist(), strict=True))) == len(set(time.tolist()))


def test_under_a_split_by_user_folds_are_of_whole_users(tmp_path: Path):
    config = planted_config(split={"by": "user", "fractions": [0.6, 0.2, 0.2]})
    table = planted(0, spread=2.0).append_column("one", pa.array(np.arange(6000) % 3))
    made = Dataset.from_table(config, table, cache=tmp_path)
    # A value is of one user here, so nobody has met a row's value in another fold.
    assert not four(made, "train").any()
    assert not four(made, "test").any()


def test_a_domains_rows_move_no_other_domains_counts(tmp_path: Path):
    table = planted(1, spread=1.0)
    flipped = np.where(
        np.array(table["tab"]) == "a", 1 - np.array(table["click"]), np.array(table["click"])
    )
    other = table.set_column(3, "click", pa.array(flipped))
    counts = []
    for one in (table, other):
        made = Dataset.from_table(planted_config(), one, cache=tmp_path)
        assert made.encoder.taught.statistics is not None
        counts.append(made.encoder.taught.statistics.columns[0].counts)
    mine = counts[0].domain != 1
    for of in ("value", "domain", "rows", "positives"):
        first, second = (getattr(count, of) for count in counts)
        np.testing.assert_array_equal(first[mine], second[mine])
    assert (counts[0].positives != counts[1].positives)[~mine].any()


def test_a_row_of_weight_two_counts_as_two_rows(tmp_path: Path):
    table = planted(2, 800, 60, spread=1.0)
    weighed = table.append_column("w", pa.array(np.full(800, 2.0)))
    config = {"split": {"by": "time", "fractions": [0.6, 0.2, 0.2]}}
    twice = pa.concat_tables([table, table]).sort_by("at")
    one = Dataset.from_table(planted_config(weight="w", **config), weighed, cache=tmp_path)
    two = Dataset.from_table(planted_config(**config), twice, cache=tmp_path)
    assert one.encoder.taught.statistics is not None
    assert two.encoder.taught.statistics is not None
    first, second = (
        each.columns[0].counts
        for each in (one.encoder.taught.statistics, two.encoder.taught.statistics)
    )
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_array_equal(first.positives, second.positives)


def test_weights_of_any_size_leave_finite_numbers(tmp_path: Path):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        table = planted(seed, 1500, 500, spread=1.0)
        weight = 10.0 ** rng.uniform(-7, 4, 1500)
        made = Dataset.from_table(
            planted_config(weight="w"), table.append_column("w", pa.array(weight)), cache=tmp_path
        )
        for split in SPLITS:
            found = four(made, split)
            assert np.isfinite(found).all()
            assert np.abs(found).max() < 100
            # Counts are at least 0, and no greater in the domain than in all domains.
            assert found[:, 3].min() >= 0
            assert (found[:, 3] <= found[:, 1] + 1e-4).all()


def test_thinned_negatives_are_counted_as_they_were(tmp_path: Path):
    table = planted(3, 200_000, 40, spread=1.0)
    rng = np.random.default_rng(0)
    kept = (np.array(table["click"]) == 1) | (rng.random(200_000) < 0.25)
    thin = table.filter(pa.array(kept))
    split = {"by": "time", "fractions": [0.6, 0.2, 0.2]}
    whole = Dataset.from_table(planted_config(split=split), table, cache=tmp_path)
    config = planted_config(negative_rate=0.25, split=split)
    thinned = Dataset.from_table(config, thin, cache=tmp_path)
    found = []
    for made in (whole, thinned):
        statistics = made.encoder.taught.statistics
        assert statistics is not None
        values = made.encoder.vocabularies["user"].values.to_numpy()
        by_value = statistics.columns[0].effects.by_value[1:]
        found.append(by_value[np.argsort(values)])
    assert np.abs(found[0][:, 0] - found[1][:, 0]).max() < 0.2
    assert np.abs(found[0][:, 1] - found[1][:, 1]).max() < 0.15
