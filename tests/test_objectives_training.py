"""Objectives in a training: what they add, what they leave alone, where they are kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import isthmus
from isthmus.data import Dataset
from isthmus.data.batch import Batch
from isthmus.diagnosis.recipes import ArmTrainings, Recipe
from isthmus.errors import ConfigError, RunError
from isthmus.family import members
from isthmus.layers.sites import SiteSpec
from isthmus.models import AbstractModel, ModelConfig, Output, build_model
from isthmus.objectives import (
    DomainClassifier,
    DomainClassifierConfig,
    ObjectiveConfig,
    Objectives,
)
from isthmus.run.guard.candidates import Candidates
from isthmus.schema import DataConfig
from isthmus.train import CheckpointDue, End, Look, TrainConfig, train
from resumed import in_pieces
from small_runs import clicks, settings
from weighed import NAMES, build, net

ROWS = 3000
CLASSIFIER = {"name": "domain_classifier", "weight": 0.5, "hidden_widths": [8]}


def make_table(rows: int = ROWS) -> pa.Table:
    """Three domains; the label follows ``x`` and, a little, the domain."""
    rng = np.random.default_rng(0)
    tab = rng.choice(["home", "feed", "shop"], rows)
    x = rng.normal(size=rows)
    chance = 1 / (1 + np.exp(-(1.5 * x + np.where(tab == "shop", 0.7, -0.3))))
    return pa.table({"tab": tab, "x": x, "click": (rng.random(rows) < chance).astype(np.int64)})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    config = DataConfig.model_validate(
        {
            "domain": "tab",
            "label": "click",
            "features": {"tab": {"kind": "categorical", "dim": 4}, "x": "numeric"},
            "split": {"fractions": (0.6, 0.3, 0.1)},
        }
    )
    return Dataset.from_table(config, make_table(), cache=tmp_path_factory.mktemp("cache"))


def make_model(dataset: Dataset, seed: int = 1, **sections: Any) -> AbstractModel:
    raw = {"backbone": {"name": "mlp", "widths": [16, 8], "dropout": 0.1}} | sections
    torch.manual_seed(seed)
    return build_model(
        ModelConfig.model_validate(raw), dataset.encoder.fields, dataset.encoder.n_domains
    )


def config(**changes: Any) -> TrainConfig:
    given = {"batch_rows": 256, "epochs": 3, "lr": 0.01, "looks_per_epoch": 2, "patience": 9}
    return TrainConfig.model_validate(given | {"objectives": [CLASSIFIER]} | changes)


def run(model: nn.Module, dataset: Dataset, settings: TrainConfig) -> tuple[list[Look], End]:
    looks, end = [], None
    for event in train(model, dataset, settings):
        match event:
            case Look():
                looks.append(event)
            case End():
                end = event
    assert end is not None
    return looks, end


# The mechanism


def test_an_objective_of_weight_0_moves_no_bit_of_the_model(dataset: Dataset):
    plain, watched = make_model(dataset), make_model(dataset)
    without, _ = run(plain, dataset, config(objectives=[]))
    beside, _ = run(watched, dataset, config(objectives=[CLASSIFIER | {"weight": 0.0}]))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[name], tensor), name
    assert [look.metrics for look in beside] == [look.metrics for look in without]
    assert all(not look.losses for look in without)
    assert all(set(look.losses) == {"domain_classifier"} for look in beside)


def test_the_gradient_is_that_of_the_rows_plus_the_weighted_objectives(dataset: Dataset):
    model = make_model(dataset).eval()
    batch = next(dataset.rows("train").batches(200))
    configs = [
        DomainClassifierConfig(weight=0.3, site="input"),
        DomainClassifierConfig(weight=2.0, reverse=True),
    ]
    torch.manual_seed(3)
    objectives = Objectives(configs, model.spec)
    assert list(objectives.members) == ["domain_classifier", "domain_classifier-2"]
    for name in NAMES:
        found = []
        for beside in (False, True):
            model.zero_grad()
            output = model.score(batch, objectives.sites)
            losses = objectives(output.hidden, batch, batch.domain)
            total = objectives.total(losses) if beside else None
            build(name, model).backward(output.logits, batch, batch.domain, total)
            found.append({n: p.grad for n, p in model.named_parameters()})
        model.zero_grad()
        output = model.score(batch, objectives.sites)
        first, second = objectives(output.hidden, batch, batch.domain).values()
        (0.3 * first + 2.0 * second).backward()
        for n, parameter in model.named_parameters():
            rows, both = found[0][n], found[1][n]
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert rows is not None
            assert both is not None
            torch.testing.assert_close(both, rows + own, rtol=1e-4, atol=1e-6, msg=f"{name}, {n}")


def test_objectives_meet_the_true_domain_though_dropout_hides_it(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    met: list[Tensor] = []
    forward = DomainClassifier.forward

    def watched(self, hidden, batch: Batch, domain: Tensor) -> Tensor:
        met.append(torch.stack([domain, batch.domain]))
        return forward(self, hidden, batch, domain)

    monkeypatch.setattr(DomainClassifier, "forward", watched)
    run(make_model(dataset), dataset, config(epochs=1, domain_dropout=0.5))
    true, seen = torch.cat(met, dim=1)
    assert (true > 0).all()
    assert 0.4 < (seen == 0).float().mean() < 0.6


def test_the_norm_that_is_clipped_is_that_of_all_gradients(dataset: Dataset):
    model = make_model(dataset)
    loose, _ = run(model, dataset, config(clip_norm=1e6, epochs=1))
    tight, _ = run(make_model(dataset), dataset, config(clip_norm=1e-3, epochs=1))
    assert loose[-1].losses != tight[-1].losses


@pytest.mark.parametrize("weighting", ["proportional", "pcgrad"])
def test_a_stopped_training_goes_on_with_the_same_bits(
    dataset: Dataset, weighting: str, tmp_path: Path
):
    settings = config(weighting=weighting, checkpoint_minutes=0, clip_norm=1.0)
    whole = make_model(dataset)
    looks, end = run(whole, dataset, settings)
    model, again, other = in_pieces(
        lambda seed: make_model(dataset, seed), dataset, settings, [2, 9], tmp_path
    )
    assert again == looks
    assert all("domain_classifier" in look.losses for look in looks)
    assert other.best == end.best
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_a_state_of_other_objectives_is_refused(dataset: Dataset):
    settings = config(checkpoint_minutes=0)
    state = next(
        event.state
        for event in train(make_model(dataset), dataset, settings)
        if isinstance(event, CheckpointDue)
    )
    other = config(checkpoint_minutes=0, objectives=[])
    with pytest.raises(RunError, match=r"must be resumed with train\.objectives as it began"):
        next(train(make_model(dataset), dataset, other, state=state))


class Balanced(AbstractModel):
    """A model with a loss of its own: half the square of its one weight."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.fields = dataset.encoder.fields
        self.spec = SiteSpec((), dataset.n_domains)
        self.weight = nn.Parameter(torch.ones(1))

    def score(self, batch: Batch, sites=()) -> Output:
        return Output(batch.numeric[:, 0] * self.weight, {}, {"size": self.weight.square().sum()})

    def start_at(self, logit: float) -> None:
        raise NotImplementedError

    def parameter_report(self):
        raise NotImplementedError


def test_a_models_own_loss_is_added(dataset: Dataset):
    model = Balanced(dataset)
    batch = next(dataset.rows("train").batches(100))
    looks, _ = run(model, dataset, config(objectives=[], epochs=1, batch_rows=10**6))
    assert looks[0].losses == {"size": 1.0}
    fresh = Balanced(dataset)
    total = Objectives((), fresh.spec).total(fresh.score(batch).losses)
    build("proportional", fresh).backward(fresh(batch), batch, batch.domain, total)
    assert fresh.weight.grad is not None
    slope = ((fresh(batch).sigmoid() - batch.label) * batch.numeric[:, 0]).mean()
    torch.testing.assert_close(fresh.weight.grad[0], slope + 2.0)


# What is refused


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "domain_clasifier"}, r"train\.objectives\[0\]\.name must be one of"),
        ({"name": "domain_classifier", "revers": True}, r"'train\.objectives\[0\]\.revers'; did"),
        ({"name": "domain_classifier", "weight": -1}, r"train\.objectives\[0\]\.weight must be"),
    ],
)
def test_a_wrong_objective_is_refused_by_name(change: dict[str, Any], text: str):
    with pytest.raises(ConfigError, match=text):
        isthmus.load_config(settings() | {"train": {"objectives": [change]}})


def test_a_site_that_is_not_there_is_refused_before_training(dataset: Dataset):
    asked = config(objectives=[{"name": "domain_classifier", "site": 2}])
    with pytest.raises(ConfigError, match=r"objectives.site must lie in -2\.\.1 .* got 2"):
        next(train(make_model(dataset), dataset, asked))


def test_a_module_without_sites_is_refused(dataset: Dataset):
    with pytest.raises(ConfigError, match="need a model whose hidden states can be met"):
        next(train(net(), dataset, config()))


def test_every_objective_says_what_weight_is_and_is_built():
    for kind in members(ObjectiveConfig).values():
        objective = kind.model_validate({"name": kind.model_fields["name"].default})
        built = Objectives([objective], SiteSpec((4, 3), 2, input_width=5))  # pyright: ignore[reportArgumentType]
        assert built.sites


# Guard and diagnosis


def test_a_guard_trains_joint_with_the_objective_and_solo_without(dataset: Dataset):
    asked = isthmus.load_config(
        settings() | {"data": dataset.encoder.config.model_dump(), "train": config().model_dump()}
    )
    candidates = Candidates(asked, dataset)
    assert candidates.joint.train.objectives == asked.train.objectives
    assert candidates.adapted is not None
    assert candidates.adapted.train.objectives == asked.train.objectives
    solos = [choice for grid in candidates.grids.values() for choice in grid]
    assert len(solos) == 12
    assert all(choice.train.objectives == () for choice in solos)


def test_a_diagnosis_trains_all_and_pairs_with_it_and_one_domain_without(dataset: Dataset):
    asked = isthmus.load_config(
        settings() | {"data": dataset.encoder.config.model_dump(), "train": config().model_dump()}
    )
    arms = ArmTrainings(asked, [dataset], hide_domain=False)
    recipe = Recipe(128, 0.01)
    joint = arms.joint(0, recipe)
    assert joint.train.objectives == asked.train.objectives
    assert arms.joint(0, recipe, domains=("home", "feed")).train.objectives
    assert arms.solo(0, "home", recipe).train.objectives == ()
    assert arms.stage_two(joint, "home", recipe, own=True).train.objectives == ()
    assert arms.stage_two(joint, "home", recipe, own=False).train.objectives


# What it does: planted


def probed(model: AbstractModel, dataset: Dataset) -> float:
    """How often a logistic regression tells a validation row's domain from the last site."""
    model.eval()
    states, domains = [], []
    for batch in dataset.rows("validation").batches(4096):
        with torch.no_grad():
            states.append(model.score(batch, {1}).hidden[1])
        domains.append(batch.domain)
    x, d = torch.cat(states).numpy(), torch.cat(domains).numpy()
    half = len(d) // 2
    told = LogisticRegression(max_iter=2000).fit(x[:half], d[:half])
    return float(told.score(x[half:], d[half:]))


@pytest.mark.truth
def test_reversed_it_takes_the_domain_out_of_the_site_and_plain_it_puts_it_in(tmp_path: Path):
    """The label follows ``x``; ``z`` tells the domain and nothing else."""
    rng = np.random.default_rng(0)
    d, x = rng.integers(0, 3, ROWS), rng.normal(size=ROWS)
    table = pa.table(
        {
            "tab": np.array(["home", "feed", "shop"])[d],
            "x": x,
            "z": 2.0 * (d - 1) + 0.7 * rng.normal(size=ROWS),
            "click": (rng.random(ROWS) < 1 / (1 + np.exp(-1.5 * x))).astype(np.int64),
        }
    )
    data = DataConfig.model_validate(
        {
            "domain": "tab",
            "label": "click",
            "features": {"x": "numeric", "z": "numeric"},
            "split": {"fractions": (0.6, 0.3, 0.1)},
        }
    )
    dataset = Dataset.from_table(data, table, cache=tmp_path)
    backbone = {"name": "mlp", "widths": [16, 8], "dropout": 0.0, "norm": "none"}
    found: dict[str, list[float]] = {"none": [], "plain": [], "reversed": []}
    for seed in range(3):
        for name, told in found.items():
            classifier = {"name": "domain_classifier", "reverse": name == "reversed"}
            settings = config(
                objectives=[] if name == "none" else [classifier],
                seed=seed,
                lr=0.001,
                epochs=40,
                patience=40,
                looks_per_epoch=1,
                domain_dropout=0.0,
            )
            model = make_model(dataset, seed, backbone=backbone)
            last: Look | None = None
            weights: dict[str, Tensor] = {}
            for event in train(model, dataset, settings):
                if isinstance(event, Look):
                    last = event
                    weights = {n: t.clone() for n, t in model.state_dict().items()}
            assert last is not None
            assert last.metrics["auc_pooled"] is not None
            assert last.metrics["auc_pooled"] > 0.8  # what does not tell the domain is still learnt
            model.load_state_dict(weights)
            told.append(probed(model, dataset))
    # Three domains of a third each: chance is .33. The best answer from z alone is about .9.
    assert np.mean(found["plain"]) > 0.88
    assert np.mean(found["none"]) > 0.7
    assert np.mean(found["reversed"]) < 0.55


# Not shipped


def test_the_bundle_and_the_report_hold_no_classifier(tmp_path: Path):
    asked = settings() | {"train": settings()["train"] | {"objectives": [CLASSIFIER]}}
    run = isthmus.fit(asked, clicks(), out=tmp_path / "run")
    plain = isthmus.fit(settings(), clicks(), out=tmp_path / "plain")
    names = {}
    for one in (run, plain):
        with safe_open(one.path / "bundle" / "weights.safetensors", framework="numpy") as file:
            names[one.path.name] = set(file.keys())
    assert names["run"] == names["plain"]
    assert not any("classifier" in name for name in names["run"])
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["loss_domain_classifier"] > 0 for line in lines)
    lines = (plain.path / "metrics.jsonl").read_text().splitlines()
    assert not any(key.startswith("loss_") for line in lines for key in json.loads(line))
    assert np.isfinite(isthmus.Bundle.load(run.path / "bundle").score(clicks())).all()
