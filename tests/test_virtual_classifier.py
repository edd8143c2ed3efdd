"""The virtual classifier: its classes, its soft targets by hand, its windows, and what it finds."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import isthmus
from isthmus.adapters import AdapterConfig, InstanceModulation
from isthmus.data import Dataset
from isthmus.errors import ConfigError
from isthmus.family import members
from isthmus.layers.routing import Routing
from isthmus.layers.sites import LATENT, SiteSpec
from isthmus.models import ModelConfig, build_network
from isthmus.objectives import DomainClassifier, VirtualClassifier, VirtualClassifierConfig
from isthmus.objectives.virtual_classifier import pair_classes
from isthmus.schema import DataConfig
from isthmus.train import CheckpointDue, End, TrainConfig, train
from resumed import in_pieces
from small_runs import clicks, settings
from test_objectives_training import config, make_model, make_table
from weighed import batch_of

ADAPTER = {"name": "instance_modulation", "hidden_width": 8, "branches": 2, "rank": 2}
LATENT_ONLY = ADAPTER | {"condition": "without_domain"}


@given(st.integers(2, 14))
def test_pairs_are_numbered_behind_the_domains(n: int):
    classes = pair_classes(n)
    for i in range(n):
        assert classes[i, i] == i
    for number, (i, j) in enumerate(combinations(range(n), 2)):
        assert classes[i, j] == classes[j, i] == n + number
    assert sorted(set(classes.flatten().tolist())) == list(range(n + n * (n - 1) // 2))


def objective(n_domains: int = 3, **changes: Any) -> VirtualClassifier:
    torch.manual_seed(0)
    spec = SiteSpec(site_widths=(4,), n_domains=n_domains)
    return VirtualClassifier(spec=spec, **changes)


def answering(one: VirtualClassifier, chances: list[float]) -> VirtualClassifier:
    """The objective, with these chances of the classes for every row."""
    with torch.no_grad():
        one.linear.weight.zero_()
        one.linear.bias.copy_(torch.tensor(chances).log())
    return one


def test_soft_targets_by_hand():
    """3 domains, classes 0, 1, 2, 01, 02, 12; half of a target is what was predicted."""
    one = objective(start=0, window=1, alpha=0.5, growth=1, temperature=0.5)
    answering(one, [0.4, 0.2, 0.1, 0.15, 0.1, 0.05])
    first = one({0: torch.randn(4, 4)}, batch_of([1] * 4), torch.tensor([1, 1, 2, 0]))
    # One-hot targets: two rows of domain 0, one of domain 1, and one that does not count.
    assert first.item() == pytest.approx(-(2 * np.log(0.4) + np.log(0.2)) / 3, abs=1e-6)
    one.end_epoch()
    # Domain 0: pair 01 has its own .15 and the .2 of class 1; pair 02 its own .1 and .1 of class 2.
    raised = [0.4, 0.2, 0.1, 0.15 + 0.2, 0.1 + 0.1, 0.05]
    mixed = 0.5 * np.array(raised) + 0.5 * np.eye(6)[0]
    np.testing.assert_allclose(mixed, [0.7, 0.1, 0.05, 0.175, 0.1, 0.025])
    expected = np.exp(mixed / 0.5) / np.exp(mixed / 0.5).sum()
    np.testing.assert_allclose(one.target[0], expected, atol=1e-6)
    # Domain 1: pair 01 has .15 and the .4 of class 0; pair 12 has .05 and the .1 of class 2.
    mixed = 0.5 * np.array([0.4, 0.2, 0.1, 0.55, 0.1, 0.15]) + 0.5 * np.eye(6)[1]
    np.testing.assert_allclose(
        one.target[1], np.exp(mixed / 0.5) / np.exp(mixed / 0.5).sum(), atol=1e-6
    )
    # The mass: rows of 0 have .15 in the pair with 1; domain 2 had no row.
    found = one.between_domains().numpy()
    np.testing.assert_allclose(found, [[0.4, 0.15, 0.1], [0.15, 0.2, 0.05], [0, 0, 0]], atol=1e-6)


def slow_targets(
    predicted: list[np.ndarray], domain: list[int], n: int, share: float, temperature: float
) -> np.ndarray:
    """As the authors write them: row by row, the chance of each other domain to the pair with it."""
    pairs = list(combinations(range(n), 2))
    of_domain: list[list[np.ndarray]] = [[] for _ in range(n)]
    for p, d in zip(predicted, domain, strict=True):
        raised = p.copy()
        for j in range(n):
            if j != d:
                raised[n + pairs.index((min(d, j), max(d, j)))] += p[j]
        of_domain[d].append(raised)
    targets = []
    for d in range(n):
        one_hot = np.eye(n + len(pairs))[d]
        z = (share * np.mean(of_domain[d], axis=0) + (1 - share) * one_hot) / temperature
        targets.append(np.exp(z) / np.exp(z).sum())
    return np.array(targets)


@pytest.mark.parametrize("temperature", [0.2, 10.0])
def test_targets_and_loss_equal_the_slow_version(temperature: float):
    n, rng = 4, np.random.default_rng(1)
    one = objective(n, start=1, window=2, alpha=0.4, growth=4, temperature=temperature)
    predicted: list[np.ndarray] = []
    domains: list[int] = []
    shares = []
    for epoch in range(7):
        for _ in range(2):
            h = torch.from_numpy(rng.normal(size=(12, 4)).astype(np.float32))
            domain = torch.tensor([*range(1, n + 1), 0, *rng.integers(0, n + 1, 7)])
            z = one.scores(h).log_softmax(1).detach().numpy()
            batch = batch_of([1] * 12)
            loss = one({0: h}, batch, domain).item()
            kept = [r for r in range(12) if domain[r] > 0]
            slow = np.mean([-(one.target[domain[r] - 1].numpy() * z[r]).sum() for r in kept])
            assert loss == pytest.approx(slow, rel=1e-5)
            predicted += [np.exp(z[r]) for r in kept]
            domains += [int(domain[r]) - 1 for r in kept]
        one.end_epoch()
        since = epoch + 1 - 1
        if since % 2:
            continue
        if since > 0:
            shares.append(0.4 * min(since / 4, 1))
            slow = slow_targets(predicted, domains, n, shares[-1], temperature)
            np.testing.assert_allclose(one.target.numpy(), slow, atol=1e-6)
        else:
            torch.testing.assert_close(one.target, torch.eye(n, n + 6))
        predicted, domains = [], []
    assert shares == [0.2, 0.4, 0.4]


def test_weights_count():
    one = objective()
    h, domain = torch.randn(7, 4), torch.tensor([1, 3, 0, 2, 2, 1, 0])
    batch = batch_of([1] * 7, weighted=True)
    assert batch.weight is not None
    told = one.scores(h).log_softmax(1)
    mass = batch.weight * (domain > 0)
    each = torch.stack([-told[r, max(int(domain[r]) - 1, 0)] for r in range(7)])
    torch.testing.assert_close(one({0: h}, batch, domain), (mass * each).sum() / mass.sum())
    assert one.counts.tolist() == pytest.approx(
        [float(batch.weight[domain == d].sum()) for d in (1, 2, 3)]
    )
    nobody = one({0: h}, batch, torch.zeros(7, dtype=torch.int64))
    assert nobody == 0


def test_what_is_found_before_a_window_ends_is_of_the_rows_so_far():
    one = answering(objective(2, window=5), [0.5, 0.2, 0.3])
    one({0: torch.randn(2, 4)}, batch_of([1] * 2), torch.tensor([1, 2]))
    np.testing.assert_allclose(one.between_domains(), [[0.5, 0.3], [0.3, 0.2]], atol=1e-6)


# What it reads


def test_it_reads_the_latent_where_there_is_one_and_else_the_last_block():
    plain = SiteSpec((6, 4), 3, input_width=9)
    with_latent = SiteSpec((6, 4), 3, input_width=9, latent_width=5)
    built = VirtualClassifierConfig().build(with_latent)
    assert built.sites == (LATENT,)
    assert built.linear.in_features == 5
    assert VirtualClassifierConfig().build(plain).sites == (1,)
    assert VirtualClassifierConfig(site="input").build(with_latent).sites == ("input",)
    assert DomainClassifier(spec=with_latent, site="latent").sites == (LATENT,)
    assert with_latent.resolve(("latent", -1, "input")) == ("input", 1, "latent")


@pytest.mark.parametrize("name", members(AdapterConfig))
def test_an_adapter_with_a_latent_shares_it_row_by_row(name: str):
    """Whoever says how wide the latent is hands it over for each row."""
    kind = members(AdapterConfig)[name]
    if name == "none":
        return
    spec = SiteSpec((6, 4), 3, 48, linears={0: (48, 6), 1: (6, 4)})
    adapter = kind.model_validate({"name": name}).build(spec, condition_width=9)  # pyright: ignore
    if adapter.latent_width is None:
        assert name not in ("film", "instance_modulation")
        return
    shared = adapter.prepare(torch.randn(5, 9), Routing(torch.tensor([1, 0, 3, 1, 2]), 3)).shared
    assert shared.shape == (5, adapter.latent_width)
    assert not adapter.tiled


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    data = DataConfig.model_validate(
        {
            "domain": "tab",
            "label": "click",
            "features": {"tab": {"kind": "categorical", "dim": 4}, "x": "numeric"},
            "split": {"fractions": (0.6, 0.3, 0.1)},
        }
    )
    return Dataset.from_table(data, make_table(), cache=tmp_path_factory.mktemp("cache"))


def test_the_latent_of_a_model_moves_with_the_row_and_not_with_its_domain(dataset: Dataset):
    batch = next(dataset.rows("train").batches(50))
    places = make_model(dataset).domain_places
    hidden = batch.hide_domain(torch.ones(50, dtype=torch.bool), places)
    found = {}
    for condition in ("all", "without_domain"):
        model = make_model(dataset, adapter=ADAPTER | {"condition": condition}).eval()
        assert model.spec.latent_width == 8
        with torch.no_grad():  # tables start near 0
            model.tables()[0].weight.normal_()
        found[condition] = [
            model.score(one, {LATENT}).hidden[LATENT].detach() for one in (batch, hidden)
        ]
    assert torch.equal(*found["without_domain"])
    assert not torch.equal(*found["all"])
    assert (found["without_domain"][0].std(dim=0) > 0).any()


@pytest.mark.parametrize("weighting", ["proportional", "pcgrad"])
def test_a_stopped_training_goes_on_with_the_same_bits(
    dataset: Dataset, weighting: str, tmp_path: Path
):
    """Stopped inside a window of one-hot targets, and inside one of soft targets."""
    settings = config(
        objectives=[{"name": "virtual_classifier", "start": 1, "window": 2, "growth": 3}],
        weighting=weighting,
        checkpoint_minutes=0,
        epochs=5,
    )

    def make(seed: int) -> Any:
        return make_model(dataset, seed, adapter=LATENT_ONLY)

    whole = make(1)
    events = list(train(whole, dataset, settings))
    end = events[-1]
    assert isinstance(end, End)
    steps = end.step // 5
    states = [event.state for event in events if isinstance(event, CheckpointDue)]
    target = states[-1].objectives["members.virtual_classifier.target"]
    assert not torch.equal(target, torch.eye(3, 6))
    model, _, other = in_pieces(make, dataset, settings, [2, steps + 3, 3 * steps + 2], tmp_path)
    assert other.best == end.best
    assert other.history == end.history
    assert torch.equal(
        other.between_domains["virtual_classifier"], end.between_domains["virtual_classifier"]
    )
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


# What is refused


@pytest.mark.parametrize("n_domains", [1, 101])
def test_one_domain_and_too_many_are_refused_by_name(n_domains: int):
    with pytest.raises(ValueError, match=f"virtual_classifier needs 2 to 100 .* got {n_domains}"):
        VirtualClassifierConfig().build(SiteSpec((4,), n_domains))
    assert VirtualClassifierConfig.compares_domains


def test_a_latent_that_is_not_there_is_refused(dataset: Dataset):
    asked = config(objectives=[{"name": "virtual_classifier", "site": "latent"}])
    with pytest.raises(ConfigError, match=r"objectives\.site may be 'latent' where"):
        next(train(make_model(dataset), dataset, asked))
    fields = dataset.encoder.fields
    with pytest.raises(ConfigError, match=r"model\.adapter\.sites\[0\] must be .*input"):
        isthmus.load_config(settings() | {"model": {"adapter": ADAPTER | {"sites": ["latent"]}}})
    with pytest.raises(ValueError, match=r"adapter\.sites may be 'latent' where an objective"):
        InstanceModulation(site_widths=(4,), condition_width=3, n_domains=2, sites=("latent",))
    with pytest.raises(ValueError, match="'without_domain' must leave a feature"):
        build_network(
            ModelConfig.model_validate({"adapter": LATENT_ONLY}),
            tuple(field for field in fields if field.is_domain),
            3,
        )


# What it finds


def two_camps(seed: int, rows: int = 6000) -> pa.Table:
    """Domains a, b draw ``x`` about -1 and c, d about 1; two of a camp draw from nearly one place."""
    rng = np.random.default_rng(seed)
    d = rng.integers(0, 4, rows)
    x = np.array([-1.2, -0.8, 0.8, 1.2])[d] + 0.7 * rng.normal(size=rows)
    sign = np.where(d < 2, 1.0, -1.0)
    click = rng.random(rows) < 1 / (1 + np.exp(-1.5 * sign * x))
    return pa.table({"tab": np.array(list("abcd"))[d], "x": x, "click": click.astype(np.int64)})


def camps_dataset(seed: int, cache: Path) -> Dataset:
    features = {"tab": {"kind": "categorical", "dim": 4}, "x": "numeric"}
    data = {"domain": "tab", "label": "click", "features": features}
    data |= {"split": {"fractions": (0.6, 0.3, 0.1)}}
    return Dataset.from_table(DataConfig.model_validate(data), two_camps(seed), cache=cache)


@pytest.mark.truth
def test_the_mass_on_pairs_is_larger_within_a_camp(tmp_path: Path):
    for seed in range(3):
        dataset = camps_dataset(seed, tmp_path / str(seed))
        model = make_model(dataset, seed, adapter=LATENT_ONLY)
        asked: TrainConfig = config(
            objectives=[{"name": "virtual_classifier"}], epochs=12, patience=12, seed=seed
        )
        *_, end = train(model, dataset, asked)
        assert isinstance(end, End)
        mass: Tensor = end.between_domains["virtual_classifier"]
        order = [dataset.domain_names.index(name) for name in "abcd"]
        found = mass.numpy()[np.ix_(order, order)]
        within = [found[0, 1], found[1, 0], found[2, 3], found[3, 2]]
        assert min(within) > max(*found[:2, 2:].flatten(), *found[2:, :2].flatten())
        assert (found.sum(axis=1) <= 1 + 1e-6).all()


# In a run


def test_a_run_keeps_the_mass_and_ships_no_classifier(tmp_path: Path):
    run = isthmus.fit(settings(epochs=4), clicks(), out=tmp_path / "run", recipe="mdknet")
    (found,) = run.between_domains()
    assert found.objective == "virtual_classifier"
    assert set(found.domains) <= set(run.state.domains)
    assert found.values.shape == (len(found.domains),) * 2
    assert ((found.values > 0) & (found.values < 1)).all()
    report = (run.path / "report.md").read_text()
    assert r"what virtual\_classifier found between domains" in report
    assert "loss_virtual_classifier" in (run.path / "metrics.jsonl").read_text()
    bundle = isthmus.Bundle.load(run.path / "bundle")
    assert not any("virtual" in name for name in bundle.model.state_dict())
    assert np.isfinite(bundle.score(clicks())).all()
    plain = isthmus.fit(settings(epochs=1), clicks(), out=tmp_path / "plain")
    assert plain.between_domains() == ()
    (run.path / "between_domains.json").write_text("[{}]")
    with pytest.raises(isthmus.errors.RunError, match=r"between_domains\.json is damaged"):
        run.between_domains()
