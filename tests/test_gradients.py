"""Early gradient agreement: planted conflict, the parameters that count, training left alone."""

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.data import Dataset
from isthmus.diagnosis.measures.gradients import cosines, domain_gradients, early_cosines
from isthmus.diagnosis.measures.sample import sample_rows
from isthmus.layers.tables import FusedTable
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.objectives import binary_cross_entropy
from isthmus.schema import DataConfig
from isthmus.sources.planted import angles, planted
from isthmus.train import End, TrainConfig, train
from small_runs import clicks, settings

QUICK = TrainConfig(batch_rows=64, epochs=3, lr=3e-3)


def encoded(relation: np.ndarray, rows: int, seed: int = 0) -> Dataset:
    table = planted(rows=rows, relation=relation, seed=seed, user_strength=0.0)
    return Dataset.from_table(DataConfig.model_validate(table.config()), table.table)


def a_model(dataset: Dataset, **config: object) -> DomainModel:
    torch.manual_seed(0)
    shape = {"backbone": {"name": "mlp", "widths": [16, 8], "dropout": 0.2}, **config}
    return build_network(
        ModelConfig.model_validate(shape), dataset.encoder.fields, dataset.n_domains
    )


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    config = DataConfig.model_validate(settings()["data"])
    return Dataset.from_table(config, clicks(), cache=tmp_path_factory.mktemp("mixed"))


def by_domain(dataset: Dataset, rows_per_domain: int = 100):
    rows = dataset.rows("train")
    at, domain = sample_rows(rows, dataset.n_domains, rows_per_domain)
    return [
        rows.arrays.batch(at[domain == one], dataset.n_domains) for one in range(dataset.n_domains)
    ]


def test_conflict_is_lower_than_copies():
    for seed in range(3):
        dataset = encoded(angles([0, 0, 180, 180]), 4000, seed)
        place = [dataset.domain_names.index(f"d{number}") for number in range(4)]
        found = early_cosines(a_model(dataset), dataset, QUICK)
        cosine = found.cosine[np.ix_(place, place)]
        copies, conflict = (cosine[0, 1] + cosine[2, 3]) / 2, cosine[:2, 2:].mean()
        assert conflict < copies - 0.1


def test_equals_the_gradients_written_out(mixed: Dataset):
    model = a_model(mixed)
    batches = by_domain(mixed)
    tables = {module.weight for module in model.modules() if isinstance(module, FusedTable)}
    dense = [parameter for parameter in model.parameters() if parameter not in tables]
    slow = []
    model.eval()
    for batch in batches:
        model.zero_grad()
        binary_cross_entropy(model(batch), batch.label).backward()
        slow.append(torch.cat([p.grad.flatten() for p in dense if p.grad is not None]).numpy())
    model.zero_grad()
    fast = domain_gradients(model, batches)
    np.testing.assert_allclose(fast, np.stack(slow), rtol=1e-5, atol=1e-8)
    a, b = slow[0].astype(np.float64), slow[1].astype(np.float64)
    expected = a @ b / np.sqrt(a @ a * (b @ b))
    assert cosines(fast)[0, 1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"head": "per_domain"},
        {"backbone": {"name": "mlp", "widths": [16, 8], "norm": "domain"}},
        {"adapter": {"name": "hamur", "bottleneck": 6, "rank": 3, "hyper_widths": [5]}},
    ],
)
def test_parameters_of_a_domain_are_left_out(mixed: Dataset, config: dict):
    model = a_model(mixed, **config)
    # So that the adapter's own factors have gradients too.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    n = mixed.n_domains
    owned = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.shape[0] == n + 1 and not name.startswith("inputs.")
    )
    report = model.parameter_report()
    found = domain_gradients(model, by_domain(mixed))
    assert owned > 0
    assert found.shape == (n, report.dense - owned)
    assert (np.abs(found).sum(axis=1) > 0).all()


def test_towers_share_nothing_but_the_tables(mixed: Dataset):
    found = domain_gradients(a_model(mixed, towers="per_domain"), by_domain(mixed))
    assert found.shape == (3, 0)
    assert np.isnan(cosines(found)).all()


def test_the_model_and_the_random_numbers_are_left_alone(mixed: Dataset):
    model = a_model(mixed).train()
    model.backbone.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    domain_gradients(model, by_domain(mixed))
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert not model.backbone.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_training_goes_as_it_would_without(mixed: Dataset, update: str):
    config = QUICK.model_copy(update={"embedding_update": update})
    watched, alone = a_model(mixed), a_model(mixed)
    torch.manual_seed(5)
    found = early_cosines(watched, mixed, config, looks=4)
    plain = config.model_copy(update={"epochs": 1, "looks_per_epoch": 4})
    end = list(train(alone, mixed, plain))[-1]
    assert isinstance(end, End)
    assert found.steps == tuple(look.step for look in end.history)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name]), name


def test_cosines_are_averaged_over_the_looks(mixed: Dataset):
    found = early_cosines(a_model(mixed), mixed, QUICK, looks=3, rows_per_domain=50)
    assert found.by_look.shape == (3, 3, 3)
    np.testing.assert_allclose(found.cosine, found.by_look.mean(axis=0))
    np.testing.assert_allclose(found.cosine, found.cosine.T)
    np.testing.assert_array_equal(np.diag(found.cosine), 1.0)
    assert found.names == mixed.domain_names
    assert found.rows.tolist() == [50, 50, 50]


def test_chosen_domains_in_their_order(mixed: Dataset):
    every = early_cosines(a_model(mixed), mixed, QUICK, looks=2)
    names = (mixed.domain_names[2], mixed.domain_names[0])
    two = early_cosines(a_model(mixed), mixed, QUICK, looks=2, domains=names)
    assert two.names == names
    assert two.cosine[0, 1] == pytest.approx(every.cosine[2, 0], abs=1e-6)


def test_cosines_by_hand():
    found = cosines(np.array([[3.0, 4.0], [4.0, -3.0], [-6.0, -8.0], [0.0, 0.0]], np.float32))
    nan = np.nan
    expected = [[1, 0, -1, nan], [0, 1, 0, nan], [-1, 0, 1, nan], [nan, nan, nan, nan]]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    # Tiny gradients do not vanish in a square.
    assert cosines(np.full((2, 3), 1e-30, np.float32))[0, 1] == pytest.approx(1.0)


def test_faults_are_named(mixed: Dataset):
    for domains in (["home"], ["home", "home"], ["home", "nowhere"]):
        with pytest.raises(ValueError, match="two or more different ones of the dataset"):
            early_cosines(a_model(mixed), mixed, QUICK, domains=domains)


def test_any_module_will_do(mixed: Dataset):
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(1, 1)

        def forward(self, batch):
            return self.line(batch.numeric).squeeze(1)

    assert domain_gradients(Plain(), by_domain(mixed)).shape == (3, 2)
