"""Rows without a label: from a file to a batch, where they may stand, and who reads them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import isthmus
from isthmus.config import load_config
from isthmus.data import Dataset, Subset
from isthmus.errors import ConfigError, SchemaError
from isthmus.models import AbstractModel, ModelConfig, build_model
from isthmus.objectives import binary_cross_entropy
from isthmus.schema import DataConfig
from isthmus.train import End, TrainConfig, train
from isthmus.train.weighting.rule import DomainLosses

ROWS = 600
CONSISTENCY = {"name": "consistency", "weight": 0.5}

pytestmark = pytest.mark.usefixtures("one_thread")


def columns(rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    return {
        "tab": rng.choice(["home", "feed", "shop"], rows).tolist(),
        "user": rng.integers(0, 40, rows).tolist(),
        "x": x.tolist(),
        "at": list(range(rows)),
        "click": (rng.random(rows) < 1 / (1 + np.exp(-2 * x))).astype(int).tolist(),
    }


def labelled_then_not(labelled: int = ROWS, unlabelled: int = ROWS) -> tuple[pa.Table, pa.Table]:
    """A table of labelled rows, and the same table with unlabelled rows behind."""
    whole = columns(labelled + unlabelled)
    whole["click"][labelled:] = [None] * unlabelled
    both = pa.table(whole)
    return both.slice(0, labelled), both


def config(**changes: Any) -> DataConfig:
    given = {
        "domain": "tab",
        "label": "click",
        "null_label": "unlabelled",
        "features": {"tab": "categorical", "user": "categorical", "x": "numeric"},
        "split": {"fractions": (0.6, 0.2, 0.2)},
    }
    return DataConfig.model_validate(given | changes)


def net(dataset: Dataset, seed: int = 1, **model: Any) -> AbstractModel:
    raw = {"backbone": {"name": "mlp", "widths": [8, 4], "dropout": 0.1, "norm": "none"}} | model
    torch.manual_seed(seed)
    made = ModelConfig.model_validate(raw)
    return build_model(made, dataset.encoder.fields, dataset.encoder.n_domains)


def settings(**changes: Any) -> TrainConfig:
    given = {"batch_rows": 64, "epochs": 2, "lr": 0.01, "looks_per_epoch": 2, "device": "cpu"}
    return TrainConfig.model_validate(given | changes)


# From a table to a batch


@pytest.mark.parametrize("kind", ["parquet", "csv", "frame"])
@pytest.mark.parametrize("rule", [{}, {"above": 0.5}, {"equals": 1}])
def test_rows_without_a_label_train_apart_with_label_nan(
    kind: str, rule: dict[str, Any], tmp_path: Path
):
    made = columns()
    lost = [row % 3 == 0 for row in range(ROWS)]
    made["click"] = [None if gone else y for gone, y in zip(lost, made["click"], strict=True)]
    table: Any = pa.table(made)
    if kind == "parquet":
        pq.write_table(table, table := tmp_path / "clicks.parquet")
    elif kind == "csv":
        pc.write_csv(table, table := tmp_path / "clicks.csv")
    label = {"column": "click", **rule}
    dataset = Dataset.from_table(config(label=label), table, cache=tmp_path)
    seen = []
    for split in ("train", "validation", "test"):
        rows = dataset.rows(split)
        assert set(np.unique(rows.label)) == {0.0, 1.0}
        assert [made["click"][row] for row in rows.row] == rows.label.tolist()
        seen += rows.row.tolist()
    apart = dataset.unlabelled
    assert apart is not None
    assert np.isnan(apart.label).all()
    batch = next(apart.batches(10))
    assert batch.label.isnan().all()
    assert batch.rows == 10
    assert sorted(seen) == [row for row in range(ROWS) if not lost[row]]
    assert all(lost[row] for row in apart.row)
    assert len(apart) + dataset.unlabelled_left_out == sum(lost)
    names = [dataset.domain_names[one - 1] for one in apart.domain]
    assert names == [made["tab"][row] for row in apart.row]


def test_a_null_label_is_refused_where_nothing_else_is_said(tmp_path: Path):
    _, both = labelled_then_not(30, 1)
    said = (
        r"column 'click' must have a value in every row \(it is the label\), got null in .*, row 30;"
        r" data\.null_label: unlabelled keeps such rows"
    )
    with pytest.raises(SchemaError, match=said):
        Dataset.from_table(config(null_label="refuse"), both, cache=tmp_path)
    with pytest.raises(ConfigError, match="must be 'refuse' or 'unlabelled'"):
        load_config({"data": {**config().content(), "null_label": "keep"}})


def test_the_place_of_a_wrong_label_is_told_among_all_rows(tmp_path: Path):
    made = columns(10)
    made["click"] = [None, None, 0, 1, None, 7, 1, 0, 1, 0]
    with pytest.raises(SchemaError, match=r"must be 0 or 1 .*, got 7 in .*, row 5"):
        Dataset.from_table(config(), pa.table(made), cache=tmp_path)


def test_what_the_key_does_not_change_is_found_as_before():
    assert "null_label" not in config(null_label="refuse").content()
    assert config().content()["null_label"] == "unlabelled"


# Where they may stand


def test_a_row_without_a_label_trains_only_where_the_split_trains(tmp_path: Path):
    """A user of the test rows, and a time behind the train rows, stay unseen."""
    made = columns()
    made["click"] = [None if row % 2 else y for row, y in enumerate(made["click"])]
    for by, role in (("user", "group"), ("time", "time")):
        column = "user" if by == "user" else "at"
        split = {"by": by, "fractions": (0.6, 0.2, 0.2)}
        dataset = Dataset.from_table(
            config(split=split, **{role: column}), pa.table(made), cache=tmp_path
        )
        held = [made[column][row] for row in dataset.rows("test").row]
        held += [made[column][row] for row in dataset.rows("validation").row]
        assert dataset.unlabelled is not None
        unlabelled = [made[column][row] for row in dataset.unlabelled.row]
        assert dataset.unlabelled_left_out > 0
        assert not set(unlabelled) & set(held), by
        if by == "time":
            assert max(unlabelled) < min(held)


def test_time_is_cut_by_the_rows_that_have_a_label(tmp_path: Path):
    labelled, both = labelled_then_not()
    split = {"by": "time", "fractions": (0.6, 0.2, 0.2)}
    found = [
        Dataset.from_table(config(split=split, time="at"), table, cache=tmp_path)
        for table in (labelled, both)
    ]
    for name in ("train", "validation", "test"):
        assert np.array_equal(found[0].rows(name).row, found[1].rows(name).row)
    assert found[1].unlabelled is None  # all of them are later
    assert found[1].unlabelled_left_out == ROWS


def test_nothing_is_fitted_on_rows_without_a_label(tmp_path: Path):
    """Vocabularies, scalers, statistics, forest, label rates: as if the rows were not there."""
    made = columns()
    labelled, _ = labelled_then_not()
    strange = {"tab": ["home"] * 200, "user": [999] * 200, "x": [1e3] * 200}
    more = pa.table({**strange, "at": list(range(200)), "click": pa.nulls(200, pa.int64())})
    both = pa.concat_tables([pa.table(made), more])
    features = {
        "tab": "categorical",
        "user": {"kind": "categorical", "statistics": True},
        "x": "numeric",
    }
    taught = config(features=features, trees={"leaves": 4, "least_rows": 20})
    plain = Dataset.from_table(taught, pa.table(made), cache=tmp_path)
    beside = Dataset.from_table(taught, both, cache=tmp_path)
    for name in ("train", "validation", "test"):
        a, b = plain.rows(name).arrays, beside.rows(name).arrays
        assert np.array_equal(a.categorical, b.categorical)
        assert np.array_equal(a.numeric, b.numeric)
    assert beside.summary() == plain.summary()
    assert beside.unlabelled is not None
    assert (beside.unlabelled.arrays.categorical[:, 1] == 0).all()  # user 999 is unknown
    assert (beside.unlabelled.arrays.numeric[:, 0] > 100).all()
    test = plain.rows("test")
    known = beside.encoder.encode(labelled.slice(0, 5).to_batches()[0], 0, "table")
    assert np.isfinite(beside.unlabelled.arrays.numeric).all()
    assert known.numeric.shape[1] == test.arrays.numeric.shape[1]


@pytest.mark.parametrize("by", ["random", "time"])
def test_a_table_and_a_domain_without_any_label_are_refused_by_name(by: str, tmp_path: Path):
    made = columns()
    changes = {"split": {"by": by}, "time": "at"}
    none = pa.table({**made, "click": pa.nulls(ROWS, pa.int64())})
    with pytest.raises(SchemaError, match="column 'click' must hold a label in some row, got null"):
        Dataset.from_table(config(**changes), none, cache=tmp_path)
    shop = [name == "shop" for name in made["tab"]]
    made["click"] = [None if one else y for one, y in zip(shop, made["click"], strict=True)]
    said = f"every domain must have a row with a label, got domain 'shop' .* all {sum(shop)} rows"
    with pytest.raises(SchemaError, match=said):
        Dataset.from_table(config(**changes), pa.table(made), cache=tmp_path)
    kept = Dataset.from_table(
        config(domains=["home", "feed"], **changes), pa.table(made), cache=tmp_path
    )
    assert kept.domain_names == ("feed", "home")


def test_a_subset_has_the_unlabelled_rows_of_its_domains(tmp_path: Path):
    _, both = labelled_then_not()
    dataset = Dataset.from_table(config(), both, cache=tmp_path)
    part = Subset(dataset, domains=["home"], rows_per_domain=50)
    assert part.unlabelled is not None
    assert {dataset.domain_names[one - 1] for one in part.unlabelled.domain} == {"home"}
    assert len(part.unlabelled) == 50
    whole = Subset(dataset).unlabelled
    assert whole is not None
    assert whole is dataset.unlabelled


# The loss


def test_a_row_without_a_label_has_no_part_in_the_loss():
    nan = math.nan
    logits = torch.tensor([0.3, -1.2, 2.0], requires_grad=True)
    label, weight = torch.tensor([1.0, nan, 0.0]), torch.tensor([1.0, 9.0, 3.0])
    known = torch.tensor([0.3, 2.0], requires_grad=True)
    for mass, kept in ((None, None), (weight, weight[[0, 2]])):
        loss = binary_cross_entropy(logits, label, mass)
        want = binary_cross_entropy(known, label[[0, 2]], kept)
        torch.testing.assert_close(loss, want)
        (slope,), (wanted,) = torch.autograd.grad(loss, logits), torch.autograd.grad(want, known)
        torch.testing.assert_close(slope[[0, 2]], wanted)
        assert slope[1] == 0
        nothing = binary_cross_entropy(logits, torch.full((3,), nan), mass)
        assert nothing.item() == 0
        assert not torch.autograd.grad(nothing, logits)[0].any()


@given(st.integers(0, 10**6), st.integers(1, 3000))
def test_where_all_labels_are_known_no_bit_differs_from_a_plain_mean(seed: int, rows: int):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, generator=generator).requires_grad_()
    label = (torch.rand(rows, generator=generator) < 0.3).float()
    ours, plain = (
        binary_cross_entropy(logits, label),
        F.binary_cross_entropy_with_logits(logits, label),
    )
    assert torch.equal(ours, plain)
    assert torch.equal(*(torch.autograd.grad(each, logits)[0] for each in (ours, plain)))


def test_the_losses_of_domains_count_labelled_rows_alone(tmp_path: Path):
    _, both = labelled_then_not()
    dataset = Dataset.from_table(config(), both, cache=tmp_path)
    assert dataset.unlabelled is not None
    batch = next(dataset.unlabelled.batches(20))
    losses = DomainLosses.of(torch.zeros(20), batch, batch.domain, 4)
    assert not losses.mass.any()
    assert not losses.mean.any()
    assert losses.joined(torch.ones(4, dtype=torch.float64)).item() == 0


# Training


def ends(model: AbstractModel, dataset: Dataset | Subset, train_section: TrainConfig) -> End:
    (end,) = (event for event in train(model, dataset, train_section) if isinstance(event, End))
    return end


@pytest.mark.parametrize("weighting", ["proportional", "uniform", "pcgrad"])
def test_where_no_objective_wants_them_no_bit_differs(weighting: str, tmp_path: Path):
    labelled, both = labelled_then_not()
    found = []
    for table in (labelled, both):
        dataset = Dataset.from_table(config(), table, cache=tmp_path)
        model = net(dataset)
        off = [CONSISTENCY | {"weight": 0.0}] if table is both else []
        end = ends(model, dataset, settings(weighting=weighting, objectives=off))
        found.append((model.state_dict(), [(look.loss, look.metrics) for look in end.history]))
    (weights, looks), (others, other_looks) = found
    assert looks == other_looks
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name


def test_where_one_wants_them_as_many_stand_behind_each_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, both = labelled_then_not()
    dataset = Dataset.from_table(config(), both, cache=tmp_path)
    met = []
    model = net(dataset)
    score = type(model).score

    def watched(self, batch, sites=()):
        if self.training:
            met.append(batch.label.isnan())
        return score(self, batch, sites)

    monkeypatch.setattr(type(model), "score", watched)
    end = ends(model, dataset, settings(objectives=[CONSISTENCY]))
    rows = len(dataset.rows("train"))
    assert len(met) == end.step
    assert [int((~one).sum()) for one in met[: end.step // 2]] == [
        min(64, rows - start) for start in range(0, rows, 64)
    ]
    assert all(one[: int((~one).sum())].logical_not().all() for one in met)  # behind the others
    assert dataset.unlabelled is not None
    every = len(dataset.unlabelled)
    assert [int(one.sum()) for one in met[: every // 64]] == [64] * (every // 64)


def test_one_domain_alone_may_have_none_of_them(tmp_path: Path):
    made = columns()
    made["click"] = [
        None if row % 2 and tab == "home" else y
        for row, (tab, y) in enumerate(zip(made["tab"], made["click"], strict=True))
    ]
    dataset = Dataset.from_table(config(), pa.table(made), cache=tmp_path)
    part = Subset(dataset, domains=["feed"])
    assert part.unlabelled is not None
    assert not len(part.unlabelled)
    end = ends(net(dataset), part, settings(objectives=[CONSISTENCY]))
    assert {look.losses["consistency"] for look in end.history} == {0.0}


def test_an_objective_that_wants_them_needs_a_table_that_has_them(tmp_path: Path):
    labelled, both = labelled_then_not()
    dataset = Dataset.from_table(config(), labelled, cache=tmp_path)
    with pytest.raises(ConfigError, match="'consistency' reads rows without a label, so the table"):
        next(train(net(dataset), dataset, settings(objectives=[CONSISTENCY])))
    dataset = Dataset.from_table(config(), both, cache=tmp_path)
    one_by_one = settings(objectives=[CONSISTENCY], method={"name": "mamdr"})
    with pytest.raises(ConfigError, match=r"beside which no unlabelled rows stand, got .*consist"):
        next(train(net(dataset), dataset, one_by_one))


def test_a_run_says_how_many_there_are_and_evaluates_without_them(tmp_path: Path):
    _, both = labelled_then_not(ROWS, 100)
    raw = {
        "data": config().model_dump(mode="json"),
        "model": {"backbone": {"name": "mlp", "widths": [8, 4]}},
        "train": settings(epochs=1).model_dump(mode="json"),
    }
    heard: list[str] = []
    run = isthmus.fit(raw, both, tmp_path / "run", progress=lambda one: heard.append(one.text))
    dataset = Dataset.from_table(config(), both)
    assert dataset.unlabelled is not None
    kept = len(dataset.unlabelled)
    said = f"{kept} unlabelled train rows, {100 - kept} more were left out by the split"
    assert any(said in text for text in heard)
    assert f"- {said}.\n" in (run.path / "report.md").read_text()
    judged = run.evaluate(data=both)
    assert judged.pooled.rows == ROWS
    assert len(run.predict(both)) == ROWS + 100
    with pytest.raises(SchemaError, match="must hold a row with a label and a weight above 0"):
        run.evaluate(data=both.slice(ROWS))
