"""Weightings in a training: it resumes, shares what domains share, and refuses the rest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from isthmus.data import Dataset
from isthmus.data.batch import Batch
from isthmus.errors import ConfigError
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.schema import DataConfig, FittedField
from isthmus.train import Look, TrainConfig, train
from isthmus.train.weighting import Weighting, WeightingName, build_weighting, shared_parameters
from isthmus.train.weighting.shares import GradNorm
from resumed import in_pieces
from weighed import NAMES, PER_DOMAIN, build, gradients, gradients_by_hand, net, take

ROWS = 1500


def make_table(n_domains: int = 3) -> pa.Table:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 80, ROWS), rng.zipf(1.3, ROWS).clip(max=60)
    names = np.array([f"d{i}" for i in range(n_domains)])
    tab = rng.choice(names, ROWS, p=np.arange(1, n_domains + 1) / (n_domains * (n_domains + 1) / 2))
    logit = np.sin(user) + np.where(tab == "d0", -1, 1) * np.cos(item)
    return pa.table(
        {
            "user": user,
            "item": item,
            "tab": tab,
            "x": rng.normal(size=ROWS),
            "w": rng.random(ROWS) + 0.5,
            "click": (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.int64),
        }
    )


def make_dataset(table: pa.Table, cache: Path) -> Dataset:
    config = DataConfig.model_validate(
        {
            "domain": "tab",
            "label": "click",
            "weight": "w",
            "features": {
                "user": {"kind": "categorical", "dim": 4},
                "item": {"kind": "categorical", "dim": 4},
                "tab": {"kind": "categorical", "dim": 4},
                "x": "numeric",
            },
            "split": {"by": "random", "fractions": (0.7, 0.15, 0.15)},
        }
    )
    return Dataset.from_table(config, table, cache=cache)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(make_table(), tmp_path_factory.mktemp("cache"))


def make_model(dataset: Dataset, seed: int, adapter: str = "hamur", **backbone) -> DomainModel:
    config = ModelConfig.model_validate(
        {
            "backbone": {"name": "mlp", "widths": [8, 4], "dropout": 0.3, **backbone},
            "adapter": {"name": adapter},
        }
    )
    torch.manual_seed(seed)
    return build_network(config, dataset.encoder.fields, dataset.n_domains)


def config(**changes) -> TrainConfig:
    given = {"batch_rows": 250, "epochs": 3, "lr": 0.01, "domain_dropout": 0.1, "patience": 9}
    given |= {"looks_per_epoch": 1, "device": "cpu"}
    return TrainConfig(**{**given, **changes})


def run(
    model: nn.Module, dataset: Dataset, settings: TrainConfig
) -> tuple[dict[str, Tensor], list[Look]]:
    events = list(train(model, dataset, settings))
    return model.state_dict(), [event for event in events if isinstance(event, Look)]


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("embedding_update", ["dense", "lazy"])
@pytest.mark.parametrize("name", NAMES)
def test_resuming_gives_the_same_bits(
    dataset: Dataset, tmp_path: Path, name: WeightingName, embedding_update: str
):
    settings = config(
        weighting=name, embedding_update=embedding_update, clip_norm=1.0, checkpoint_minutes=0
    )
    adapter = "hamur" if embedding_update == "lazy" else "none"
    whole = make_model(dataset, 1, adapter)
    weights, looks = run(whole, dataset, settings)
    steps = dataset.rows("train").steps(settings.batch_rows)
    model, told, _ = in_pieces(
        lambda seed: make_model(dataset, seed, adapter),
        dataset,
        settings,
        [1, steps, 2 * steps + 1],
        tmp_path,
    )
    assert told == looks
    assert_same(model.state_dict(), weights)


def test_weightings_train_different_models_from_the_same_start(dataset: Dataset):
    found = {name: run(make_model(dataset, 1), dataset, config(weighting=name)) for name in NAMES}
    for name, (weights, looks) in found.items():
        assert all(tensor.isfinite().all() for tensor in weights.values()), name
        for other, (_, others) in found.items():
            assert name == other or looks[-1].metrics != others[-1].metrics, (name, other)
    # In the first two epochs dwa has no ratio yet, and is uniform.
    equal = [a == b for a, b in zip(found["dwa"][1], found["uniform"][1], strict=True)]
    assert equal == [True, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_one_domain_leaves_nothing_to_weigh(
    name: WeightingName, tmp_path_factory: pytest.TempPathFactory
):
    alone = make_dataset(make_table(1), tmp_path_factory.mktemp("alone"))
    wanted, _ = run(make_model(alone, 1), alone, config(epochs=1))
    found, _ = run(make_model(alone, 1), alone, config(epochs=1, weighting=name))
    assert_same(found, wanted)


def test_a_row_whose_domain_is_hidden_counts_for_its_domain(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    seen = []

    def backward(
        self: Weighting,
        logits: Tensor,
        batch: Batch,
        domain: Tensor,
        beside: Tensor | None,
        mass: Tensor | None,
    ) -> Tensor:
        assert beside is None
        assert mass is None
        seen.append(((batch.domain == 0).float().mean().item(), int((domain == 0).sum())))
        return logits.detach().mean()

    monkeypatch.setattr(Weighting, "backward", backward)
    run(make_model(dataset, 1), dataset, config(epochs=1, domain_dropout=0.5, weighting="uniform"))
    hidden, unknown = zip(*seen, strict=True)
    assert np.mean(hidden) == pytest.approx(0.5, abs=0.1)
    assert set(unknown) == {0}


def test_uniform_serves_a_small_domain_that_wants_the_opposite():
    # Two domains with opposite slopes and a model that cannot tell them apart: the larger one wins
    # by rows, and by domains neither does.
    x = torch.linspace(-1, 1, 400).unsqueeze(1)
    domain = torch.tensor(([1] * 9 + [2]) * 40)
    label = ((x[:, 0] > 0) == (domain == 1)).float()
    batch = Batch(torch.zeros(400, 0, dtype=torch.int32), x, (), domain, label)
    slopes = {}
    names: tuple[WeightingName, ...] = ("proportional", "uniform")
    for name in names:
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        weighting = build(name, model, n_domains=2)
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        for _ in range(300):
            optimiser.zero_grad()
            weighting.backward(model(x).squeeze(1), batch, domain)
            optimiser.step()
        slopes[name] = model.weight.item()
    assert slopes["proportional"] > 2
    assert slopes["uniform"] == pytest.approx(0, abs=0.2)


# Which parameters are shared


def test_shared_parameters_are_dense_and_not_one_domains():
    model = net()
    assert shared_parameters(model) == [*model.first.parameters(), *model.last.parameters()]
    wide = net(n_domains=3)
    assert (
        len(wide.last.weight) == wide.n_domains + 1
    )  # a layer as wide as there are sets is shared


def test_a_shared_weight_as_long_as_a_bank_is_shared():
    """Three domains and four numbers: the wide part's shared weights are (4, 1), as a bank is."""
    fields = tuple(FittedField(f"x{i}", "numeric", 1) for i in range(4))
    model = build_network(
        ModelConfig.model_validate({"backbone": {"name": "wide_deep", "widths": [4]}}), fields, 3
    )
    wide = dict(model.named_parameters())["backbone.wide.numbers"]
    assert wide.shape == (4, 1)
    assert any(parameter is wide for parameter in shared_parameters(model))
    assert "backbone.wide.numbers" not in model.domain_parameters()
    # Equal rows of two domains pull in opposite ways, one twice as hard: PCGrad leaves nothing.
    batch = Batch(
        categorical=torch.zeros(8, 0, dtype=torch.int32),
        numeric=torch.ones(8, 4),
        lists=(),
        domain=torch.tensor([1, 2] * 4),
        label=torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]),
    )
    model.eval()
    nn.init.zeros_(model.head.weight)
    mean = gradients_by_hand(model, batch, {1: 0.5, 2: 0.5})["backbone.wide.numbers"]
    torch.testing.assert_close(mean, torch.full((4, 1), -0.125))
    found = take(build("pcgrad", model), model, batch)["backbone.wide.numbers"]
    torch.testing.assert_close(found, torch.zeros(4, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("towers", ["shared", "per_domain"])
@pytest.mark.parametrize("adapter", ["hamur", "none"])
def test_what_counts_as_shared_is_moved_by_two_domains(dataset: Dataset, towers: str, adapter: str):
    sections = {"towers": towers, "head": "per_domain", "adapter": {"name": adapter}}
    sections |= {"backbone": {"name": "mlp", "widths": [8, 4], "norm": "none"}}
    torch.manual_seed(0)
    model = build_network(
        ModelConfig.model_validate(sections), dataset.encoder.fields, dataset.n_domains
    )
    for parameter in model.parameters():  # nothing that starts at zero stops a gradient
        nn.init.normal_(parameter)
    model.eval()  # in training a domain norm's statistics are those of all rows, in part
    moved: dict[str, int] = {}
    overlap: dict[str, Tensor] = {}
    for domain in range(1, dataset.n_domains + 1):
        model.zero_grad()
        batch = next(dataset.rows("train").batches(600))
        logits = model(batch)
        logits[batch.domain == domain].square().sum().backward()
        for name, gradient in gradients(model).items():
            moved[name] = moved.get(name, 0) + bool(gradient.any())
            overlap[name] = overlap.get(name, torch.zeros_like(gradient)) + (gradient != 0)
    shared = {id(parameter) for parameter in shared_parameters(model)}
    tables = {id(table.weight) for table in model.tables()}
    for name, parameter in model.named_parameters():
        if id(parameter) in shared:
            assert moved[name] == dataset.n_domains, name
            assert overlap[name].max() > 1, name
        elif id(parameter) not in tables:
            assert overlap[name].max() <= 1, name
    assert bool(shared) == (towers == "shared" or adapter == "hamur")


def test_gradnorm_looks_at_the_last_shared_layer(dataset: Dataset):
    model = make_model(dataset, 1)
    rule = build("gradnorm", model).rule
    assert isinstance(rule, GradNorm)
    assert rule.layer is model.head.weight
    model = net()
    rule = build("gradnorm", model).rule
    assert isinstance(rule, GradNorm)
    assert rule.layer is model.last.weight


# What is refused


@pytest.mark.parametrize("name", PER_DOMAIN)
def test_gradients_per_domain_have_their_limits(name: WeightingName, dataset: Dataset):
    model = make_model(dataset, 1)

    def asked(n_domains: int, compiled: bool) -> Callable[[], Weighting]:
        return lambda: build_weighting(
            name, model, n_domains=n_domains, lr=0.1, seed=0, compiled=compiled
        )

    asked(64, False)()
    with pytest.raises(ConfigError, match=f"train.weighting '{name}' .* 64 domains, got 65"):
        asked(65, False)()
    with pytest.raises(ConfigError, match=r"train\.compile false, got true"):
        asked(3, True)()


@pytest.mark.parametrize("name", PER_DOMAIN)
def test_a_model_that_shares_only_tables_is_refused(name: WeightingName, dataset: Dataset):
    sections = {"backbone": {"name": "mlp", "widths": [8]}, "towers": "per_domain"}
    model = build_network(
        ModelConfig.model_validate({**sections, "adapter": {"name": "none"}}),
        dataset.encoder.fields,
        dataset.n_domains,
    )
    with pytest.raises(ConfigError, match="needs dense parameters that domains share"):
        next(train(model, dataset, config(weighting=name)))


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="weighting"):
        config(weighting="dwq")
