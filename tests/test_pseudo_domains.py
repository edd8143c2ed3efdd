"""Pseudo-domains: weights by hand, copies of the right rows, resumed bit for bit, what is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from by_method import assert_same, make_dataset, make_model, run, settings, states
from isthmus.data import Batch, Dataset
from isthmus.data.batch import DomainPlaces
from isthmus.errors import ConfigError
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.schema import DataConfig
from isthmus.train import TrainConfig
from isthmus.train.methods import PseudoDomains
from resumed import in_pieces

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ("one", "two", "three")


def by_pseudo_domains(**changes: Any) -> TrainConfig:
    return settings(method={"name": "pseudo_domains"}, **changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("cache"))


def planted_table(rows: int = 4_000, *, weighted: bool = False) -> pa.Table:
    """The large domain's rows are copies of small ones, told by ``place`` in 9 rows of 10."""
    rng = np.random.default_rng(5)
    hidden = rng.integers(0, 3, rows)
    place = np.where(rng.random(rows) < 0.9, hidden, rng.integers(0, 3, rows))
    tab = np.where(rng.random(rows) < 0.2, np.array(SMALL)[hidden], "big")
    columns = {
        "place": place,
        "item": rng.integers(0, 30, rows),
        "price": rng.normal(size=rows) + hidden,
        "truth": hidden,
        "tab": tab,
        "click": rng.integers(0, 2, rows),
    }
    if weighted:
        columns["mass"] = rng.uniform(1, 3, rows)
    return pa.table(columns)


def planted_dataset(cache: Path, *, weighted: bool = False) -> Dataset:
    section = {
        "domain": "tab",
        "label": "click",
        "features": {
            "place": {"kind": "categorical", "dim": 4},
            "item": {"kind": "categorical", "dim": 4},
            "tab": {"kind": "categorical", "dim": 4},
            "price": "numeric",
        },
        "split": {"by": "random", "fractions": (0.6, 0.2, 0.2)},
    }
    if weighted:
        section["weight"] = "mass"
    config = DataConfig.model_validate(section)
    return Dataset.from_table(config, planted_table(weighted=weighted), cache=cache)


def ple(dataset: Dataset, seed: int = 1) -> DomainModel:
    config = ModelConfig.model_validate(
        {"backbone": {"name": "ple", "widths": [8], "dropout": 0.2}}
    )
    torch.manual_seed(seed)
    return build_network(config, dataset.encoder.fields, dataset.n_domains)


def method_of(dataset: Dataset, **changes: Any) -> PseudoDomains:
    train = by_pseudo_domains(**changes)
    return train.method.build(
        ple(dataset),
        dataset.rows("train"),
        train,
        n_domains=dataset.n_domains,
        places=DomainPlaces.of(dataset.encoder.fields),
    )  # pyright: ignore[reportReturnType]  # the config above names it


def whole(dataset: Dataset) -> Batch:
    (batch,) = dataset.rows("train").batches(len(dataset.rows("train")))
    return batch


def test_weights_by_hand(dataset: Dataset):
    """Two batches of confidences; the second is weighed by mean and variance of both."""
    partition = method_of(dataset).partition
    first = partition.weigh(torch.tensor([0.4, 0.6]))
    # mean .5, variance .01: the lower row is one deviation below.
    assert first.tolist() == pytest.approx([math.exp(-0.5), 1.0])
    second = partition.weigh(torch.tensor([0.9, 0.5, 0.7]))
    mean = (0.5 + 0.7) / 2
    square = ((0.16 + 0.36) / 2 + (0.81 + 0.25 + 0.49) / 3) / 2
    low = math.exp(-((0.5 - mean) ** 2) / (2 * (square - mean**2)))
    assert second.tolist() == pytest.approx([1.0, low, 1.0])
    assert partition.seen.tolist() == pytest.approx([mean, square, 2])


def test_equal_confidences_all_count_in_full(dataset: Dataset):
    partition = method_of(dataset).partition
    assert partition.weigh(torch.full((4,), 0.3)).tolist() == pytest.approx([1.0] * 4)


def test_from_a_thousand_batches_on_the_mean_moves(dataset: Dataset):
    partition = method_of(dataset).partition
    partition.seen.copy_(torch.tensor([0.5, 0.26, 5_000.0], dtype=torch.float64))
    partition.weigh(torch.tensor([1.0]))
    assert partition.seen.tolist() == pytest.approx([0.5005, 0.26074, 5_001])


@pytest.mark.parametrize("weighted", [False, True])
def test_copies_of_the_large_domain_stand_behind_the_batch(tmp_path: Path, weighted: bool):
    data = planted_dataset(tmp_path, weighted=weighted)
    method = method_of(data)
    partition = method.partition
    names = data.domain_names
    big = names.index("big") + 1
    assert partition.dominant == big
    assert partition.small.tolist() == [d for d in range(1, 5) if d != big]
    partition.learn()
    batch = whole(data)
    lesson = partition.lesson(batch)
    rows, copies = batch.rows, int((batch.domain == big).sum())
    assert lesson.batch.rows == rows + copies
    assert lesson.domain is lesson.batch.domain
    head = lesson.batch.take(torch.arange(rows))
    assert torch.equal(head.categorical, batch.categorical)
    assert torch.equal(head.domain, batch.domain)
    tail = lesson.batch.take(torch.arange(rows, rows + copies))
    twins = batch.take((batch.domain == big).nonzero().squeeze(1))
    assert torch.equal(tail.label, twins.label)
    assert torch.equal(tail.numeric, twins.numeric)
    assert torch.equal(tail.categorical[:, :2], twins.categorical[:, :2])
    assert set(tail.domain.tolist()) == set(partition.small.tolist())
    # The feature that is the domain says what the row is taken for.
    own = {int(d): int(i) for d, i in zip(batch.domain, batch.categorical[:, 2], strict=True)}
    assert tail.categorical[:, 2].tolist() == [own[d] for d in tail.domain.tolist()]
    assert tail.weight is not None
    assert head.weight is not None
    if twins.weight is None:
        assert torch.equal(head.weight, torch.ones(rows))
        weight = tail.weight
    else:
        assert batch.weight is not None
        assert torch.equal(head.weight, batch.weight)
        weight = tail.weight / twins.weight
    assert weight.min() > 0
    assert weight.max() == pytest.approx(1.0)
    assert lesson.told["pseudo_weight"] == pytest.approx(float(weight.mean()), rel=1e-5)


def test_the_right_rows_get_the_right_domain_and_the_weight(tmp_path: Path):
    data = planted_dataset(tmp_path)
    partition = method_of(data).partition
    partition.learn()
    assert partition.accuracy > 0.85
    batch = whole(data)
    table = planted_table()
    truth = np.array(SMALL)[table["truth"].to_numpy()[data.rows("train").row]]
    lesson = partition.lesson(batch)
    here = batch.domain == partition.dominant
    pseudo = np.array(data.domain_names)[lesson.domain[batch.rows :].numpy() - 1]
    right = pseudo == truth[here.numpy()]
    assert lesson.batch.weight is not None
    weight = lesson.batch.weight[batch.rows :].numpy()
    assert right.mean() > 0.85
    assert weight[right].mean() > weight[~right].mean() + 0.2, "who is doubtful counts less"


def test_the_classifier_reads_no_domain(tmp_path: Path):
    data = planted_dataset(tmp_path)
    partition = method_of(data).partition
    partition.learn()
    batch = whole(data)
    places = DomainPlaces.of(data.encoder.fields)
    hidden = batch.hide_domain(torch.ones(batch.rows, dtype=torch.bool), places)
    for a, b in zip(partition.judge(batch), partition.judge(hidden), strict=True):
        assert torch.equal(a, b)


def test_a_batch_without_the_large_domain_stays_as_it_is(dataset: Dataset):
    partition = method_of(dataset).partition
    batch = whole(dataset)
    others = batch.take((batch.domain != partition.dominant).nonzero().squeeze(1))
    lesson = partition.lesson(others)
    assert lesson.batch is others
    assert partition.seen[2] == 0


def test_rows_of_the_large_domain_move_what_small_ones_own(tmp_path: Path):
    """With every small row taken out of the step, jointly nothing of theirs would move."""
    data = planted_dataset(tmp_path)
    model = ple(data)
    partition = method_of(data).partition
    partition.learn()
    batch = whole(data)
    big = batch.take((batch.domain == partition.dominant).nonzero().squeeze(1))
    for lesson_batch, moved in ((big, False), (partition.lesson(big).batch, True)):
        model.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(
            model(lesson_batch), lesson_batch.label, weight=lesson_batch.weight
        ).backward()
        head = model.head.weight.grad
        assert head is not None
        for domain in partition.small.tolist():
            assert bool(head[domain].abs().sum() > 0) is moved


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_training_resumes_bit_for_bit(dataset: Dataset, tmp_path: Path, norm: str):
    config = by_pseudo_domains(domain_dropout=0.2, domain_sampling="uniform", weighting="uniform")

    def make(seed: int) -> DomainModel:
        return make_model(dataset, norm=norm, seed=seed)

    model = make(1)
    looks, _ = run(model, dataset, config)
    steps = len(list(states(make(1), dataset, config)))
    stops = (1, steps // 2, steps // 2 + 1, steps - 1)
    resumed, again, _ = in_pieces(make, dataset, config, stops, tmp_path)
    assert_same(model, resumed)
    assert [look.metrics for look in again] == [look.metrics for look in looks]
    assert [look.told for look in again] == [look.told for look in looks]
    assert 0 < looks[-1].told["pseudo_weight"] <= 1
    assert 0 < looks[-1].told["pseudo_accuracy"] <= 1


def test_two_trainings_are_equal_and_the_caller_draws_what_it_would_have_drawn(dataset: Dataset):
    torch.manual_seed(3)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    models = [make_model(dataset), make_model(dataset)]
    for model in models:
        torch.manual_seed(3)
        run(model, dataset, by_pseudo_domains(epochs=1))
        assert torch.equal(torch.rand(2), drawn)
    assert_same(*models)


def test_a_network_in_which_domains_own_nothing_is_refused(dataset: Dataset):
    said = "needs parameters that domains own, .* got a model with none"
    with pytest.raises(ConfigError, match=said):
        run(make_model(dataset, "none"), dataset, by_pseudo_domains())


def test_two_domains_are_refused(tmp_path: Path):
    two = planted_table().filter(pc.field("tab").isin(["big", "one"]))
    config = DataConfig.model_validate(
        {"domain": "tab", "label": "click", "features": {"item": "categorical"}}
    )
    data = Dataset.from_table(config, two, cache=tmp_path)
    with pytest.raises(ConfigError, match="at least 2 small ones with train rows, got 2 domains"):
        run(make_model(data), data, by_pseudo_domains())


def test_too_few_small_rows_are_refused(tmp_path: Path):
    table = planted_table(60)
    config = DataConfig.model_validate(
        {"domain": "tab", "label": "click", "features": {"item": "categorical"}}
    )
    data = Dataset.from_table(config, table, cache=tmp_path)
    with pytest.raises(ConfigError, match="needs 20 train rows of small domains, got"):
        run(make_model(data), data, by_pseudo_domains())


def test_no_feature_beside_the_domain_is_refused(tmp_path: Path):
    config = DataConfig.model_validate(
        {"domain": "tab", "label": "click", "features": {"tab": "categorical"}}
    )
    data = Dataset.from_table(config, planted_table(), cache=tmp_path)
    with pytest.raises(ConfigError, match="by other features, got none beside the domain"):
        run(make_model(data), data, by_pseudo_domains())


def test_an_objective_that_compares_domains_is_refused(dataset: Dataset):
    objectives = [{"name": "domain_classifier", "site": -1}]
    with pytest.raises(ConfigError, match=r"got train\.objectives 'domain_classifier'"):
        run(make_model(dataset), dataset, by_pseudo_domains(objectives=objectives))
