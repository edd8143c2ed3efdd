"""MRAN: its network by the formula, its recipe on a small table, resumed with the same bits, refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from bench import mran as study
from torch import Tensor, nn
from torch.nn import functional as F

import isthmus
from isthmus.backbones import SharedPrivate, SharedPrivateConfig
from isthmus.data import Dataset
from isthmus.errors import ConfigError
from isthmus.layers.bank import BankLinear
from isthmus.layers.routing import Routing
from isthmus.recipe import recipe_of
from isthmus.train import End, Look, TrainConfig, train
from resumed import in_pieces
from test_unlabelled import columns, config, net
from test_unlabelled import settings as train_settings

ROWS = 600
OBJECTIVES = recipe_of("mran").settings["train.objectives"]
NETWORK = {
    "name": "shared_private",
    "widths": [8, 6],
    "private_widths": [4],
    "norm": "none",
    "dropout": 0.1,
}

pytestmark = pytest.mark.usefixtures("one_thread")


def made(unlabelled: bool = True) -> pa.Table:
    rows = columns(ROWS)
    if unlabelled:
        rows["click"] = [None if row % 2 else y for row, y in enumerate(rows["click"])]
    return pa.table(rows)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.from_table(config(), made(), cache=tmp_path_factory.mktemp("cache"))


def raw(**changes: Any) -> dict[str, Any]:
    return {
        "data": config(**changes).model_dump(mode="json"),
        "model": {"backbone": {"name": "mlp", "widths": [8, 6]}},
        "train": train_settings().model_dump(mode="json"),
    }


# The network


def test_the_network_is_the_formula_row_by_row():
    """Shared blocks, then the blocks of the row's own domain, side by side."""
    torch.manual_seed(0)
    backbone = SharedPrivate(
        in_width=5, n_domains=3, widths=(7, 6), private_widths=(4, 2), norm="none"
    ).eval()
    assert backbone.site_widths == (7, 6, 8)
    assert backbone.out_width == 8
    for name, parameter in backbone.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    x, domain = torch.randn(9, 5), torch.tensor([0, 1, 2, 3, 3, 2, 1, 0, 1])
    met: dict[Any, Tensor] = {}

    def adapt(site: Any, h: Tensor) -> Tensor:
        met[site] = h
        return h

    out = backbone(x, Routing(domain, 3), adapt)
    assert list(met) == [0, 1, 2]
    for row, d in enumerate(domain.tolist()):
        shared = private = x[row]
        for block in backbone.shared.blocks:
            shared = F.linear(shared, block.linear.weight, block.linear.bias).relu()  # pyright: ignore
        for block in backbone.private.blocks:
            bank = block.linear
            assert isinstance(bank, BankLinear)
            assert bank.bias is not None
            private = (private @ bank.weight[d] + bank.bias[d]).relu()
        torch.testing.assert_close(out[row], torch.cat([shared, private]))
        torch.testing.assert_close(met[1][row], shared)
    assert torch.equal(met[2], out)


def test_a_config_scales_both_parts_and_says_what_it_needs():
    small = SharedPrivateConfig(widths=(8, 4), private_widths=(6,)).scaled(0.5)
    assert small.sizes == (4, 2, 3)
    bad = {"model": {"backbone": NETWORK, "towers": "per_domain"}}
    with pytest.raises(ConfigError, match="towers must be shared for backbone 'shared_private'"):
        isthmus.load_config(raw() | bad)
    empty = {"model": {"backbone": NETWORK | {"private_widths": []}}}
    with pytest.raises(ConfigError, match=r"private_widths is refused: .* at least 1 item"):
        isthmus.load_config(raw() | empty)


# Training


def run(dataset: Dataset, settings: TrainConfig) -> tuple[nn.Module, list[Look], End]:
    model, looks, end = net(dataset, backbone=NETWORK), [], None
    for event in train(model, dataset, settings):
        match event:
            case Look():
                looks.append(event)
            case End():
                end = event
    assert end is not None
    return model, looks, end


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weighting": "uniform", "batch_rows": 100, "epochs": 5},
        {"method": {"name": "phases", "phases": [{"trains": ["inputs", "backbone", "head"]}] * 2}},
    ],
)
def test_a_stopped_training_goes_on_with_the_same_bits(
    dataset: Dataset, changes: dict[str, Any], tmp_path: Path
):
    settings = train_settings(
        objectives=OBJECTIVES, checkpoint_minutes=0, batch_rows=40, domain_dropout=0.2
    )
    settings = TrainConfig.model_validate(settings.model_dump() | changes)
    model, looks, end = run(dataset, settings)
    assert end.step > 8
    other, again, other_end = in_pieces(
        lambda seed: net(dataset, seed, backbone=NETWORK), dataset, settings, [1, 5, 8], tmp_path
    )
    assert again == looks
    assert other_end.best == end.best
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


@pytest.mark.parametrize("off", range(len(OBJECTIVES)))
def test_each_part_can_be_switched_off(dataset: Dataset, off: int):
    """By a weight of 0: an objective that draws is gone, and the others go on to the bit as without."""
    name = OBJECTIVES[off]["name"]
    weighed = [one | {"weight": 0.0 if one["name"] == name else 0.5} for one in OBJECTIVES]
    without = [one for one in weighed if one["name"] != name]
    model, looks, _ = run(dataset, train_settings(objectives=weighed, epochs=1))
    other, other_looks, _ = run(dataset, train_settings(objectives=without, epochs=1))
    told = set(looks[0].losses)
    if name == "domain_classifier":  # it is still told, and its own weights are drawn
        assert name in told
        return
    assert name not in told
    assert looks == other_looks
    for key, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor), key


def test_the_recipe_trains_predicts_and_evaluates(tmp_path: Path):
    fitted = isthmus.fit(raw(), made(), tmp_path / "run", recipe="mran")
    backbone = fitted.config.model.backbone
    assert (backbone.name, fitted.config.train.method.name) == ("shared_private", "joint")
    report = (fitted.path / "report.md").read_text()
    assert "- Recipe: mran (arXiv:2102.00467); it replaced " in report
    assert re.search(r"- \d+ unlabelled train rows, \d+ more were left out", report)
    lines = (fitted.path / "metrics.jsonl").read_text().splitlines()
    for one in OBJECTIVES:
        assert all(json.loads(line)[f"loss_{one['name']}"] >= 0 for line in lines)
    scores = fitted.predict(made())
    assert np.isfinite(scores).all()
    bundle = isthmus.Bundle.load(fitted.path / "bundle")
    assert np.array_equal(bundle.score(made()), scores)
    assert fitted.evaluate().pooled.rows > 0


def test_a_fit_that_was_stopped_is_resumed_with_the_same_weights(tmp_path: Path):
    def stop(notice: Any) -> None:
        if "look at" in notice.text:
            raise KeyboardInterrupt

    asked = raw()
    asked["train"]["checkpoint_minutes"] = 0
    whole = isthmus.fit(asked, made(), tmp_path / "whole", recipe="mran")
    with pytest.raises(KeyboardInterrupt):
        isthmus.fit(asked, made(), tmp_path / "run", recipe="mran", progress=stop)
    resumed = isthmus.fit(tmp_path / "run/config.yaml", made(), tmp_path / "run", resume=True)
    assert np.array_equal(resumed.predict(made()), whole.predict(made()))


# The study on FDU-MTL


def test_the_texts_of_the_study_are_encoded_by_their_own_split(tmp_path: Path):
    """Words that enough labelled train texts hold, and pairs of them; a tenth of these is held out."""
    rng = np.random.default_rng(5)
    rows = 3000
    split = rng.choice(["train", "test", "unlabel"], rows, p=[0.5, 0.2, 0.3])
    good = rng.random(rows) < 0.5
    text = [f"a {'good' if one else 'bad'} film {row}" for row, one in enumerate(good)]
    table = pl.DataFrame(
        {
            "domain": rng.choice(["books", "dvd"], rows),
            "split": split,
            "label": [None if s == "unlabel" else int(g) for s, g in zip(split, good, strict=True)],
            "text": text,
        }
    )
    table.write_parquet(tmp_path / "texts.parquet")
    made = study.texts(tmp_path / "texts.parquet")
    assert made.height == rows
    assert set(made["words"].explode()) == {
        "a", "good", "bad", "film", "a good", "a bad", "good film", "bad film"
    }  # fmt: skip
    assert made["words"][0].to_list() == ["a", "good", "film", "a good", "good film"] or not good[0]
    dataset = study.dataset_of(made, tmp_path)
    counts = [len(dataset.rows(name)) for name in ("train", "validation", "test")]
    assert counts[2] == (split == "test").sum()
    assert 0.05 < counts[1] / (split == "train").sum() < 0.15
    assert sum(counts[:2]) == (split == "train").sum()
    assert dataset.unlabelled is not None
    assert len(dataset.unlabelled) == (split == "unlabel").sum()
    assert {arm: len(study.config_of(arm, dataset, 0).train.objectives) for arm in study.ARMS} == {
        "one network": 0,
        "no objective": 0,
        "mran": 4,
        "without adversary": 2,
        "without domain mixup": 3,
        "without category mixup": 3,
        "without consistency": 3,
    }


@pytest.mark.skipif(not study.DATA.exists(), reason="fdu_mtl.parquet is not there")
def test_the_file_of_the_study_is_the_one_that_was_measured():
    table = pl.read_parquet(study.DATA)
    assert table["domain"].n_unique() == 16
    counts = dict(table.group_by("split").len().iter_rows())
    assert counts == {"train": 25_380, "test": 6_400, "unlabel": 30_475}
    assert table.filter(pl.col("split") == "unlabel")["label"].null_count() == 30_475


# What is refused


def test_a_table_without_such_rows_is_refused_before_training_and_told_the_way_out(
    tmp_path: Path,
):
    said = (
        r"recipe mran needs train rows without a label \(data\.null_label: unlabelled\), table .* has"
        r" none; the recipe goes without them where train\.objectives, given by --set, leaves out"
        r" consistency or gives it weight 0"
    )
    with pytest.raises(ConfigError, match=said):
        isthmus.fit(raw(), made(unlabelled=False), tmp_path / "run", recipe="mran")
    assert not (tmp_path / "run").exists()
    kept = [one for one in OBJECTIVES if one["name"] != "consistency"]
    change = f"train.objectives={json.dumps(kept)}"
    plain = raw(null_label="refuse")
    fitted = isthmus.fit(
        plain, made(unlabelled=False), tmp_path / "run", recipe="mran", set=[change]
    )
    assert len(fitted.config.train.objectives) == 3


def test_a_null_label_and_one_domain_are_refused(tmp_path: Path):
    with pytest.raises(isthmus.SchemaError, match=r"data\.null_label: unlabelled keeps such rows"):
        isthmus.fit(raw(null_label="refuse"), made(), tmp_path / "run", recipe="mran")
    with pytest.raises(ConfigError, match=r"recipe mran needs 2 domains or more, table .* has 1"):
        isthmus.fit(raw(domains=["home"]), made(), tmp_path / "run", recipe="mran")
    assert not (tmp_path / "run").exists()
