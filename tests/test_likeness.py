"""Domain vectors: against a slow version, on copies and strangers, and the map of distances."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from isthmus.data import Dataset
from isthmus.diagnosis.measures.likeness import (
    DomainVectors,
    agreement,
    distances,
    domain_vectors,
    flat_map,
)
from isthmus.diagnosis.measures.sample import sample_rows
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.schema import DataConfig
from isthmus.sources.planted import groups, planted
from isthmus.train import End, TrainConfig, train
from small_runs import clicks, settings


def encoded(table: pa.Table, config: dict) -> Dataset:
    return Dataset.from_table(DataConfig.model_validate(config), table)


def a_model(dataset: Dataset, widths: tuple[int, ...] = (16, 8)) -> DomainModel:
    torch.manual_seed(0)
    config = ModelConfig.model_validate(
        {"backbone": {"name": "mlp", "widths": widths, "dropout": 0.2}}
    )
    return build_network(config, dataset.encoder.fields, dataset.n_domains)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Every kind of column."""
    config = DataConfig.model_validate(settings()["data"])
    return Dataset.from_table(config, clicks(), cache=tmp_path_factory.mktemp("mixed"))


def slow_entries(model: DomainModel, dataset: Dataset) -> dict[str, np.ndarray]:
    """Statistics of each row of the train split by part, one row and one domain at a time."""
    rows = dataset.rows("train")
    batch = rows.arrays.batch(np.arange(len(rows)), dataset.n_domains)
    seen: list[torch.Tensor] = []
    handle = model.head.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()))
    model.eval()(batch)
    handle.remove()
    h = seen[0].double().numpy()
    h = h - h.mean(axis=0)
    h[:, h.std(axis=0) < 1e-8] = 0.0
    y = np.asarray(rows.label, dtype=np.float64)
    by_label = np.empty_like(h)
    for one in np.unique(rows.domain):
        mine = rows.domain == one
        by_label[mine] = (h[mine] - h[mine].mean(axis=0)) * (y[mine] - y[mine].mean())[:, None]
    return {
        "hidden mean": h,
        "hidden second moment": h**2,
        "hidden by label": by_label,
        "label rate": y[:, None],
    }


def test_vectors_are_means_over_rows_in_standard_deviations(mixed: Dataset):
    model = a_model(mixed)
    vectors = domain_vectors(model, mixed, rows_per_domain=10**6)
    domain = np.asarray(mixed.rows("train").domain)
    for part, statistic in slow_entries(model, mixed).items():
        spread = statistic.std(axis=0)
        for place in range(3):
            mine = statistic[domain == place + 1]
            expected = np.divide(mine.mean(axis=0), spread, where=spread > 0, out=0 * spread)
            found = vectors.values[place, vectors.parts[part]]
            np.testing.assert_allclose(found, expected, atol=2e-4)
    assert vectors.names == mixed.domain_names
    np.testing.assert_array_equal(vectors.rows, np.bincount(domain)[1:])


def test_marginals_hold_numbers_ids_and_lists_but_not_the_domain(mixed: Dataset):
    vectors = domain_vectors(a_model(mixed), mixed, rows_per_domain=10**6, buckets=8)
    part = vectors.parts["feature marginals"]
    # age: mean and second moment; user, item and history: 8 buckets each; tab is left out.
    assert part.stop - part.start == 2 + 3 * 8
    assert list(vectors.parts)[-1] == "feature marginals"
    rows = mixed.rows("train")
    age = np.asarray(rows.arrays.numeric, dtype=np.float64)[:, 0]
    for place in range(3):
        mine = np.asarray(rows.domain) == place + 1
        expected = age[mine].mean() / age.std(), (age[mine] ** 2).mean() / (age**2).std()
        np.testing.assert_allclose(vectors.values[place, part][:2], expected, atol=1e-6)
        # Before they are scaled, a row's shares sum to 1 and a list's to its mean length.
        lengths = np.diff(rows.arrays.lists[0][1])[mine]
        shares = vectors.values[place, part][2:].reshape(3, 8)
        assert (shares >= 0).all()
        assert lengths.mean() > 0


def test_a_hidden_unit_that_never_moves_says_nothing(mixed: Dataset):
    model = a_model(mixed)
    norm = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)][-1]
    with torch.no_grad():
        norm.weight[0], norm.bias[0] = 0.0, 0.3
    vectors = domain_vectors(model, mixed)
    for part in ("hidden mean", "hidden second moment", "hidden by label"):
        found = vectors.values[:, vectors.parts[part]]
        assert (found[:, 0] == 0).all()
        assert (found[:, 1:] != 0).any()


def test_many_domains_share_the_sample(mixed: Dataset, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("isthmus.diagnosis.measures.likeness.SAMPLE_ROWS", 90)
    assert domain_vectors(a_model(mixed), mixed).rows.tolist() == [30, 30, 30]


def test_many_batches_are_one_pass(mixed: Dataset, monkeypatch: pytest.MonkeyPatch):
    model = a_model(mixed)
    whole = domain_vectors(model, mixed)
    monkeypatch.setattr("isthmus.diagnosis.measures.likeness.SCORE_ROWS", 50)
    np.testing.assert_allclose(domain_vectors(model, mixed).values, whole.values, atol=1e-4)


def test_the_model_is_left_as_it_was(mixed: Dataset):
    model = a_model(mixed).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    domain_vectors(model, mixed)
    assert model.training
    assert not model.head._forward_pre_hooks
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_sample_is_capped_fixed_and_moves_with_its_seed(
    mixed: Dataset, monkeypatch: pytest.MonkeyPatch
):
    rows = mixed.rows("train")
    at, domain = sample_rows(rows, 3, 40)
    monkeypatch.setattr("isthmus.diagnosis.measures.sample.CHUNK", 100)  # however it is read
    np.testing.assert_array_equal(at, sample_rows(rows, 3, 40)[0])
    assert np.bincount(domain).tolist() == [40, 40, 40]
    assert (np.diff(at) > 0).all()
    np.testing.assert_array_equal(domain, rows.domain[at] - 1)
    np.testing.assert_array_equal(at, sample_rows(rows, 3, 40)[0])
    assert not np.array_equal(at, sample_rows(rows, 3, 40, seed=1)[0])
    assert set(sample_rows(rows, 3, 20)[0]) < set(at)
    np.testing.assert_array_equal(sample_rows(rows, 3, 10**6)[0], np.arange(len(rows)))
    with pytest.raises(ValueError, match="rows_per_domain must be at least 1, got 0"):
        sample_rows(rows, 3, 0)


def test_a_domain_without_rows_has_no_vector(mixed: Dataset):
    vectors = domain_vectors(a_model(mixed), mixed)
    rows = vectors.rows.copy()
    rows[1] = 0
    values = vectors.values.copy()
    values[1] = np.nan
    lacking = replace(vectors, values=values, rows=rows)
    distance = distances(lacking)
    assert np.isnan(distance[1]).all()
    assert np.isnan(distance[:, 1]).all()
    assert distance[0, 2] >= 0
    places = flat_map(distance)
    assert np.isnan(places[1]).all()
    assert np.isfinite(places[[0, 2]]).all()


def vectors_of(values: np.ndarray, parts: dict[str, slice], rows: int = 10**9) -> DomainVectors:
    return DomainVectors(
        values=values,
        noise=np.ones(values.shape[1]),
        parts=parts,
        rows=np.full(len(values), rows),
        names=tuple(map(str, range(len(values)))),
    )


def test_distances_by_hand():
    # Part a: squared differences 1 and 9, mean 5; part b: 4. Root of their mean.
    values = np.array([[0.0, 0.0, 0.0], [1.0, 3.0, 2.0]])
    vectors = vectors_of(values, {"a": slice(0, 2), "b": slice(2, 3)})
    np.testing.assert_allclose(distances(vectors), [[0, 4.5**0.5], [4.5**0.5, 0]], atol=1e-6)
    one = replace(vectors, parts={"b": slice(2, 3)})
    np.testing.assert_allclose(distances(one), [[0, 2], [2, 0]], atol=1e-6)
    # What chance makes of 10 rows each is taken off.
    few = replace(vectors, rows=np.array([10, 10]))
    assert distances(few)[0, 1] == pytest.approx((4.5 - 0.2) ** 0.5)


def test_draws_of_one_domain_are_at_no_distance():
    """Copies: the squared distance is 0 in the mean, whatever the rows; without the debit it is not."""
    table = planted(rows=[300, 300, 1500, 1500], relation=np.ones((4, 4)), seed=0)
    config = table.config()
    del config["features"]["domain"]
    dataset = encoded(table.table, config)
    vectors = domain_vectors(a_model(dataset), dataset)
    plain = distances(replace(vectors, rows=np.full(4, 10**9)))
    above = np.triu_indices(4, 1)
    taken_off = 1 / vectors.rows[:, None] + 1 / vectors.rows[None, :]
    assert (plain[above] ** 2).mean() == pytest.approx(taken_off[above].mean(), rel=0.5)
    assert (distances(vectors)[above] ** 2).mean() < 0.5 * taken_off[above].mean()


@pytest.mark.truth
def test_members_of_a_planted_group_lie_nearer_than_strangers():
    hits = []
    for seed in range(3):
        table = planted(rows=4000, relation=groups([2, 2]), seed=seed)
        dataset = encoded(table.table, table.config())
        model = a_model(dataset, (32, 16))
        events = list(train(model, dataset, TrainConfig(batch_rows=256, epochs=6, lr=3e-3)))
        assert isinstance(events[-1], End)
        distance = distances(domain_vectors(model, dataset))
        place = [dataset.domain_names.index(name) for name in table.names]
        distance = distance[np.ix_(place, place)]
        within = max(distance[0, 1], distance[2, 3])
        hits.append(within < distance[:2, 2:].min())
    assert all(hits)


def test_the_map_keeps_distances_of_a_plane():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(9, 2))
    distance = squareform(pdist(points))
    places = flat_map(distance)
    np.testing.assert_allclose(squareform(pdist(places)), distance, atol=1e-9)
    np.testing.assert_allclose(places.mean(axis=0), 0, atol=1e-12)
    assert places[:, 0].var() >= places[:, 1].var()
    # The largest coordinate of each axis is on the positive side, whatever the solver gives.
    assert (places.max(axis=0) == np.abs(places).max(axis=0)).all()


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_the_map_of_few_domains(n: int):
    distance = 1.0 - np.eye(n)
    places = flat_map(distance)
    assert places.shape == (n, 2)
    assert np.isfinite(places).all()
    if n == 2:
        np.testing.assert_allclose(sorted(places[:, 0]), [-0.5, 0.5])
        np.testing.assert_allclose(places[:, 1], 0)


def test_the_map_without_any_distance():
    assert np.isnan(flat_map(np.full((3, 3), np.nan))).all()


def test_agreement_is_spearman_over_measured_pairs():
    rng = np.random.default_rng(1)
    distance = squareform(rng.random(10))
    pairwise = rng.normal(size=(5, 5))
    above = np.triu_indices(5, 1)
    benefit = (pairwise + pairwise.T)[above] / 2
    expected = spearmanr(distance[above], benefit)[0]
    assert agreement(distance, pairwise) == pytest.approx(expected)
    assert agreement(distance, -distance) == pytest.approx(-1)
    pairwise[:] = np.nan
    pairwise[0, 1] = pairwise[0, 2] = 1.0
    assert agreement(distance, pairwise) is None


def test_faults_are_named(mixed: Dataset):
    with pytest.raises(ValueError, match="buckets must be at least 2, got 1"):
        domain_vectors(a_model(mixed), mixed, buckets=1)
