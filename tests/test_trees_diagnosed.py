"""A diagnosis of trees alone: N is measured, and what needs a network is named as not measured."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import roc_auc_score

from diagnosed import QUICK_HAS, Case, on_disk, outcomes, small_levels
from forest_rows import forest_config, forest_table
from isthmus.config import load_config
from isthmus.data.store import teaching
from isthmus.diagnosis import diagnose
from isthmus.diagnosis import finished as diagnosing
from isthmus.diagnosis.abstract_reading import EFFECTS

LEVELS = ("quick", "standard", "full")
NOT_MEASURED = "transfer T and interference I are not measured"
NO_CAPACITY = "capacity and weightings are not measured"


FEATURES = {"x": "numeric", "city": "categorical", "user": "categorical", "tab": "categorical"}


def two_domains() -> pa.Table:
    """Domains a and c, whose cities mean the opposite."""
    table = forest_table(6000)
    return table.filter(pc.not_equal(table["tab"], "b"))  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def quickly() -> Iterator[None]:
    """Few replicates, small forests, and no figures."""
    with small_levels(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosing, "write_figures", lambda *_: None)
        patch.setattr(teaching, "PATIENCE", 10)
        yield


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """One table at every level, each level in the folder of the one before."""
    config = forest_config(features=FEATURES)
    case = on_disk(tmp_path_factory.mktemp("trees"), two_domains(), config)
    with quickly():
        for level in LEVELS:
            case.plan(level)
            case.diagnose(level)
            for kind in ("md", "html"):
                case.told[f"{level}.{kind}"] = (case.out / f"report.{kind}").read_text()
    return case


@pytest.mark.parametrize("level", LEVELS)
def test_n_is_measured_and_the_rest_is_null(case: Case, level: str):
    for domain in case.reports[level]["domains"].values():
        for metric in ("auc", "logloss"):
            told = domain[metric]
            assert told["net"]["estimate"] is not None
            assert told["net"]["p_holm"] is not None
            assert [key for key in EFFECTS if told[key] is not None] == ["net"]
            assert {key for key, value in told.items() if value is not None} == QUICK_HAS


def test_n_is_that_of_a_slow_recomputation(case: Case):
    label = case.table["click"].to_numpy()
    report = case.reports["standard"]
    with case.study("standard") as study:
        for name in study.measured.names:
            rows = [study.rows.replicate(name, k).row for k in range(3)]
            joint, solo = (
                [
                    roc_auc_score(label[at], outcome.logits("test", name))
                    for at, outcome in zip(rows, study.arm_outcomes[name][arm], strict=True)
                ]
                for arm in ("joint", "solo")
            )
            found = report["domains"][name]["auc"]
            assert found["net"]["estimate"] == pytest.approx(np.mean(joint) - np.mean(solo))
            assert found["solo"] == pytest.approx(np.mean(solo))
            assert np.mean(solo) > 0.6


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_not_measured_is_named_in_text_json_and_page(case: Case, level: str):
    notes = " ".join(case.reports[level]["plan"]["notes"])
    for text in (notes, case.told[f"{level}.md"], case.told[f"{level}.html"]):
        assert (NOT_MEASURED in text) == (level != "quick")  # quick measures neither of anything
        assert (NO_CAPACITY in text) == (level == "full")


def test_full_trains_pairs_and_groups_and_no_widths(case: Case):
    report = case.reports["full"]
    there = {name for name, cells in report["matrix"].items() if cells is not None}
    assert there == {"cross_score", "pairwise", "pairwise_matched", "leave_one_out", "spearman"}
    assert report["groups"] is not None
    assert [report[name] for name in ("capacity", "weighting", "likeness")] == [None] * 3


def test_the_plan_is_what_is_trained(case: Case):
    quick, standard, full = (case.plans[level].phases for level in LEVELS)
    assert quick == {"choices of batch and rate": 3}  # no grid, and two seeds are one
    assert standard == {"choices of batch and rate": 3, "solo and joint": 6}  # two folds more
    assert full == {**standard, "pairs of equal rows": 1}  # the pair itself is joint
    trained = [case.reports[level]["plan"]["trained"] for level in LEVELS]
    assert trained == [3, 6, 1]
    assert (case.plans["quick"].seconds or 0) > 0


def test_no_batch_and_no_rate_are_told(case: Case):
    plan = case.reports["standard"]["plan"]
    assert plan["choices"] == {"joint": {}, "solo": {"a": {}, "c": {}}}
    assert plan["stage_two"] is None
    for text in (case.told["standard.md"], case.told["standard.html"]):
        assert "learning rate 0" not in text
        assert "rows a batch, " not in text


def test_the_config_of_an_advice_is_of_trees(case: Case):
    with quickly():  # by a margin that is wide enough for any verdict
        made = diagnose(case.config, out=case.out, level="standard", margin=0.4, cache=case.cache)
    domains = made.report["domains"]
    assert {domain["verdict"] for domain in domains.values()} == {"share"}
    assert {domain["config"] for domain in domains.values()} == {"configs/joint.yaml"}
    advised = load_config(case.out / "configs" / "joint.yaml")
    assert advised.model.is_trees
    assert advised.data.trees
    assert NOT_MEASURED in " ".join(str(made).split())


def test_seeds_are_one_training(tmp_path: Path):
    by_time = {"by": "time", "fractions": [0.6, 0.2, 0.2]}
    case = on_disk(tmp_path, two_domains(), forest_config(features=FEATURES, split=by_time))
    with quickly():
        report = case.diagnose("quick")
    assert report["plan"]["replicates"] == "seeds"
    assert report["plan"]["trained"] == 3
    assert any("trees are the same under every seed" in note for note in report["plan"]["notes"])
    told = [json.loads(path.read_text()) for path in outcomes(case.out)]
    assert {one["training"]["train"]["seed"] for one in told} == {0}
    for domain in report["domains"].values():
        assert domain["auc"]["net"]["ci"] is not None
