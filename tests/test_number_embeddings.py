"""Embeddings of numbers in a model: their formulas, their place, the contracts, the whole walk."""

import copy
import json
import math
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import isthmus
from fake_batches import make_batch, many, single
from isthmus.config import Config
from isthmus.data.batch import Batch
from isthmus.errors import BundleError
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.inputs.numbers import NumberEmbeddings
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.optimisers import build_optimiser
from isthmus.run.scores import read_scores
from isthmus.schema import FittedField
from isthmus.testing import check_model
from small_runs import content


def number(name: str, embedding, width: int = 4, bins: tuple[float, ...] = ()) -> FittedField:
    return FittedField(name, "numeric", width, embedding=embedding, bins=bins)


FEW, MANY = (-1.0, 0.0, 0.5), (-2.0, -0.1, 0.0, 0.1, 2.0)
FIELDS = (
    single("user", 9),
    number("few", "piecewise", bins=FEW),
    FittedField("plain", "numeric", 1),
    number("many", "piecewise", bins=MANY),
    number("wave", "periodic"),
    many("history", 7),
    number("wide", "piecewise", 6, FEW),
    FittedField("vector", "vector", 3),
    single("tab", 4, is_domain=True),
)


def embedding() -> FeatureEmbedding:
    torch.manual_seed(0)
    made = FeatureEmbedding(fields=FIELDS, std=1.0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("linear.weight"):
                parameter.normal_()
    return made


def code(x: float, edges: tuple[float, ...]) -> list[float]:
    """Equation 1 of the paper, within the bins."""
    return [min(max((x - low) / (high - low), 0.0), 1.0) for low, high in pairwise(edges)]


def test_piecewise_equals_the_formula_written_out():
    made = embedding()
    state, numbers = made.state_dict(), make_batch(FIELDS, 50)
    found = made(numbers)
    for name, place, row, edges in (("few", 0, 0, FEW), ("many", 2, 1, MANY)):
        pre = "numbers.kinds.piecewise_4.embeddings."
        for r, x in enumerate(numbers.numeric[:, place].tolist()):
            x = min(max(x, edges[0]), edges[-1])
            told = code(x, edges)
            weight = state[pre + "linear.weight"][row]
            # The library keeps the last bin last, and leaves those between it and the others empty.
            weight = torch.cat([weight[: len(told) - 1], weight[-1:]])
            want = state[pre + "linear0.weight"][row] * x + state[pre + "linear0.bias"][row]
            want = want + torch.tensor(told) @ weight
            torch.testing.assert_close(found[r, made.columns[name]], want, rtol=1e-4, atol=1e-5)


def test_periodic_equals_the_formula_written_out():
    made = embedding()
    state, batch = made.state_dict(), make_batch(FIELDS, 20)
    pre = "numbers.kinds.periodic_4."
    angle = 2 * math.pi * batch.numeric[:, 3:4] * state[pre + "periodic.weight"]
    want = torch.cat([angle.cos(), angle.sin()], 1) @ state[pre + "linear.weight"][0]
    want = F.relu(want + state[pre + "linear.bias"][0])
    torch.testing.assert_close(made(batch)[:, made.columns["wave"]], want)


def test_every_feature_keeps_its_place():
    made, batch = embedding(), make_batch(FIELDS, 30)
    assert made.width == sum(field.width for field in FIELDS)
    found = made(batch)
    torch.testing.assert_close(found[:, made.columns["plain"]], batch.numeric[:, 1:2])
    torch.testing.assert_close(found[:, made.columns["vector"]], batch.numeric[:, 5:])
    for place, name in enumerate(("few", "plain", "many", "wave", "wide")):
        moved = batch.numeric.clone()
        moved[:, place] = moved[:, place].roll(1)
        other = made(replace(batch, numeric=moved)) != found
        changed = {one for one, at in made.columns.items() if other[:, at].any()}
        assert changed == {name}


def test_a_number_outside_of_its_bins_is_their_nearest_end():
    made = NumberEmbeddings(fields=(number("few", "piecewise", bins=FEW),))
    x = torch.tensor([[-1.0], [-50], [0.5], [1e30]])
    low, lower, high, higher = made(x)["piecewise", 4]
    torch.testing.assert_close(low, lower)
    torch.testing.assert_close(high, higher)


def test_a_fresh_piecewise_embedding_is_linear_and_its_bins_can_learn():
    made = NumberEmbeddings(fields=(number("many", "piecewise", bins=MANY),))
    x = torch.linspace(-2, 2, 9).unsqueeze(1)
    out = made(x)["piecewise", 4][:, 0]
    torch.testing.assert_close(out.diff(dim=0), out.diff(dim=0)[:1].expand(8, 4))
    (out * torch.randn(4)).square().sum().backward()
    for parameter in made.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


def test_a_piecewise_field_without_bins_is_refused():
    with pytest.raises(ValueError, match="'price' must have two bins or more"):
        NumberEmbeddings(fields=(number("price", "piecewise"),))


def test_state_copies_and_exports(tmp_path: Path):
    made, batch = embedding().eval(), make_batch(FIELDS, 8)
    save_file(made.state_dict(), tmp_path / "state.safetensors")
    torch.manual_seed(1)
    again = FeatureEmbedding(fields=FIELDS)
    again.load_state_dict(load_file(tmp_path / "state.safetensors"))
    want = made(batch)
    torch.testing.assert_close(again(batch), want, rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(made)(batch), want, rtol=0, atol=0)
    exported = torch.export.export(made.numbers, (batch.numeric,)).module()  # type: ignore[arg-type]
    for key, found in exported(batch.numeric).items():
        torch.testing.assert_close(found, made.numbers(batch.numeric)[key])  # type: ignore[misc]


CONFIGS = [
    {"backbone": {"name": "mlp", "widths": [8], "norm": "none"}},
    {"backbone": {"name": "dcn", "widths": [8]}},
    {"backbone": {"name": "deepfm", "widths": [8]}},
    {"backbone": {"name": "wide_deep", "widths": [8]}},
    {
        "backbone": {"name": "mlp", "widths": [8]},
        "adapter": {"name": "hamur", "condition": ["few", "wave"], "bottleneck": 4, "rank": 2},
    },
]


@pytest.mark.parametrize("given", CONFIGS, ids=["mlp", "dcn", "deepfm", "wide_deep", "hamur"])
def test_models_with_embedded_numbers_keep_the_contracts(given):
    def fields_of(n_domains: int) -> tuple[FittedField, ...]:
        tab = single("tab", n_domains + 1, is_domain=True)
        return tuple(tab if field.is_domain else field for field in FIELDS)

    def make(n_domains: int) -> DomainModel:
        return build_network(ModelConfig.model_validate(given), fields_of(n_domains), n_domains)

    def batch(n_domains: int) -> Batch:
        return make_batch(fields_of(n_domains), 48, n_domains)

    torch.manual_seed(0)
    check_model(make, batch)
    model = make(3)
    report = model.parameter_report()
    assert report.total == sum(parameter.numel() for parameter in model.parameters())
    assert model.inputs.numbers is not None
    assert report.inputs == sum(p.numel() for p in model.inputs.numbers.parameters())
    assert report.inputs > 0


def test_the_l2_of_tables_leaves_embedded_numbers_alone():
    torch.manual_seed(0)
    model = build_network(ModelConfig.model_validate(CONFIGS[0]), FIELDS, 3)
    optimiser = build_optimiser(model, lr=1e-3, embedding_l2=0.1)
    assert optimiser.dense is not None
    decayed = [
        id(p)
        for group in optimiser.dense.param_groups
        if group["weight_decay"]
        for p in group["params"]
    ]
    assert decayed == [id(table.weight) for table in model.inputs.tables.all_stores()]


# ---------------------------------------------------------------- the whole walk


def islands(rows: int = 6000, seed: int = 0) -> pa.Table:
    """Clicks only where the price is exactly 0, or in a narrow band of the others."""
    rng = np.random.default_rng(seed)
    price = np.where(rng.random(rows) < 0.4, 0.0, rng.lognormal(sigma=2, size=rows))
    likely = (price == 0) | ((price > 1) & (price < 2.5))
    return pa.table(
        {
            "price": pa.array(price, mask=rng.random(rows) < 0.02),
            "age": rng.integers(18, 90, rows),
            "tab": rng.choice(["a", "b"], rows),
            "click": (rng.random(rows) < np.where(likely, 0.9, 0.1)).astype(np.int8),
        }
    )


def walk_config(price: dict, **data) -> Config:
    return Config.model_validate(
        {
            "data": {
                "domain": "tab",
                "label": "click",
                "features": {"price": price, "age": "numeric", "tab": "categorical"},
                **data,
            },
            "model": {
                "backbone": {"name": "mlp", "widths": [8], "norm": "none", "dropout": 0.0},
                "adapter": {"name": "none"},
            },
            "train": {"epochs": 6, "batch_rows": 128, "lr": 0.005},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("numbers")


def fit(folder: Path, name: str, price: dict, guard=None) -> isthmus.Run:
    torch.manual_seed(0)
    return isthmus.fit(
        walk_config(price), islands(), out=folder / name, cache=folder / "cache", guard=guard
    )


def pooled(run: isthmus.Run) -> float:
    auc = run.evaluate().pooled.auc
    assert auc is not None
    return auc


def test_bins_find_what_a_scaled_number_hides(folder: Path):
    plain = pooled(fit(folder, "plain", {"kind": "numeric"}))
    found = pooled(fit(folder, "found", {"kind": "numeric", "embedding": "piecewise", "dim": 8}))
    assert found > 0.88
    assert found > plain + 0.05


@pytest.fixture(scope="module", params=[None, pytest.param("strict", marks=pytest.mark.soak)])
def run(request: pytest.FixtureRequest, folder: Path) -> isthmus.Run:
    price = {"kind": "numeric", "embedding": "piecewise", "dim": 4, "scale": "quantile"}
    return fit(folder, f"run-{request.param}", price, guard=request.param)


def test_a_raw_row_gets_the_score_that_was_evaluated(run: isthmus.Run):
    bundle = isthmus.Bundle.load(run.path / "bundle")
    logits = bundle.logits(islands())
    for split in ("validation", "test"):
        scored = read_scores(run.path / "scores" / f"{split}.parquet")
        np.testing.assert_allclose(logits[scored.row], scored.logits, atol=1e-5)
    far = islands(20).set_column(0, "price", pa.array([1e300, -1e300, None, 0.0] * 5))
    assert np.isfinite(bundle.logits(far)).all()


def test_a_bundle_that_is_written_again_is_the_same(run: isthmus.Run, tmp_path: Path):
    isthmus.Bundle.load(run.path / "bundle").save(tmp_path / "again")
    assert content(tmp_path / "again") == content(run.path / "bundle")


def test_a_bundle_with_other_bins_is_refused(run: isthmus.Run, tmp_path: Path):
    shutil.copytree(run.path / "bundle", tmp_path / "broken")
    path = tmp_path / "broken" / "encoder" / "encoder.json"
    told = json.loads(path.read_text())
    told["bins"]["price"] = [0.0, 1.0, 2.0]
    path.write_text(json.dumps(told))
    with pytest.raises(BundleError):
        isthmus.Bundle.load(tmp_path / "broken")


@pytest.mark.truth
def test_a_diagnosis_trains_every_arm_with_embedded_numbers(folder: Path):
    table = folder / "islands.parquet"
    pq.write_table(islands(3000), table)
    given = walk_config({"kind": "numeric", "embedding": "periodic", "dim": 4}, table=str(table))
    found = isthmus.diagnose(given, out=folder / "out", level="quick", cache=folder / "cache")
    assert all(one["auc"]["net"] is not None for one in found.report["domains"].values())
