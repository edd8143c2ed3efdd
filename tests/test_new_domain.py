"""A new domain, before it exists: planted twins, a domain in conflict, and one that is related to none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import isthmus
from diagnosed import Case, numbers, on_disk, opposed, settings
from isthmus import cli
from isthmus.diagnosis import diagnose, plan_diagnosis
from isthmus.diagnosis import phases as trained
from isthmus.diagnosis.command import prepared
from isthmus.diagnosis.level import LEVELS
from isthmus.diagnosis.measures.new_domain import SUFFIX
from isthmus.diagnosis.study import Study
from isthmus.errors import ConfigError, SchemaError
from isthmus.experiments.arms import extending
from isthmus.experiments.one import _extended  # pyright: ignore[reportPrivateUsage]
from isthmus.experiments.outcome import build
from isthmus.layers.per_domain import domain_tensors
from isthmus.models import ModelConfig
from isthmus.report.diagnosis.day_one import (
    _later,  # pyright: ignore[reportPrivateUsage]
    newcomer_lines,
    rows_to_joint,
)
from isthmus.sources.planted import angles, planted
from isthmus.train import score_rows

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("a", "twin", "against", "alone")
SIZES = (150,)


def twins(rows: int = 2000) -> pa.Table:
    """Two copies, one in conflict with them, one at 90 degrees; a number tells the copies apart."""
    table = planted(
        rows=rows, relation=angles([0, 0, 180, 90]), seed=3, items=40, users=200, strength=2.0,
        user_strength=0.2, names=NAMES,
    ).table  # fmt: skip
    domain = table["domain"].to_numpy(zero_copy_only=False)
    level = np.select([domain == "against", domain == "alone"], [-1.0, 0.0], 1.0)
    noise = np.random.default_rng(0).standard_normal(len(domain))
    return table.append_column("level", pa.array((level + 0.5 * noise).astype(np.float32)))


def config(**more: Any) -> dict[str, Any]:
    raw = settings(adapter=False)
    raw["data"]["features"]["level"] = "numeric"
    raw["model"] = {
        "backbone": {"name": "mlp", "widths": [16], "dropout": 0.0, "norm": "none"},
        "adapter": {"name": "tal"},
    }
    raw["train"] = {"batch_rows": 128, "lr": 0.01, "patience": 1}
    return raw | more


@contextmanager
def small_sizes() -> Iterator[None]:
    """One size of own rows beside all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained, "OWN_ROWS", SIZES)
        yield


def diagnosed(case: Case, out: Path | None = None, **more: Any) -> dict[str, Any]:
    return diagnose(
        case.config, out=out or case.out, level="quick", new_domain=True, cache=case.cache, **more
    ).report


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    made = on_disk(tmp_path_factory.mktemp("twins"), twins(), config())
    with small_sizes():
        for new in (False, True):
            made.plans["new" if new else "old"] = plan_diagnosis(
                made.config, out=made.out, level="quick", new_domain=new, cache=made.cache
            )
        made.reports["new"] = diagnosed(made)
    return made


@pytest.fixture(scope="module")
def study(case: Case) -> Iterator[Study]:
    """The parts of the finished diagnosis."""
    level = LEVELS["quick"].with_newcomers()
    with (
        small_sizes(),
        prepared(case.config, out=case.out, level=level, cache=case.cache) as (made, _),
    ):
        made.choose()
        made.train_arms()
        yield made


def of(case: Case, name: str) -> dict[str, Any]:
    return case.reports["new"]["new_domain"]["domains"][name]


def test_the_plan_counts_every_training_and_the_level_does_not_grow(case: Case):
    new, old = case.plans["new"], case.plans["old"]
    assert case.reports["new"]["plan"]["trainings"] == new.trainings
    assert {**old.phases, "a new domain": new.phases["a new domain"]} == new.phases
    assert "a new domain" not in old.phases
    # By seed and domain: the network without it, the adapted one, the extension on 150 rows and on all,
    # and a solo on 150: that on all is an arm. Forests do not follow the seed.
    forests = len(NAMES) * (case.reports["new"]["new_domain"]["trees"] is None)
    assert new.phases["a new domain"] == 2 * len(NAMES) * 5 + forests
    assert (new.seconds or 0) > (old.seconds or 0)


def test_the_report_has_every_answer_and_each_size(case: Case):
    report = case.reports["new"]
    told = report["new_domain"]
    assert told["replicates"] == 2
    assert list(told["domains"]) == report["plan"]["measured"]
    for name in NAMES:
        one = of(case, name)
        assert {"unknown", "nearest", "mixture"} <= set(one["day_one"])
        assert one["day_one"]["unknown"]["minus_unknown"] is None
        assert one["joint"] == pytest.approx(report["domains"][name]["auc"]["joint"])
        rows = [point["rows"] for point in one["curve"]]
        assert rows == [150, report["domains"][name]["train_rows"]]
        assert [point["all"] for point in one["curve"]] == [False, True]
        last = one["curve"][-1]
        assert last["solo"]["score"] == pytest.approx(report["domains"][name]["auc"]["solo"])
        for arm in ("extended", "solo"):
            lack = last[arm]["minus_joint"]["estimate"]
            assert lack == pytest.approx(last[arm]["score"] - one["joint"])
    held = [of(case, name)["day_one"]["unknown"]["minus_joint"] for name in NAMES]
    assert all(effect["p_holm"] >= effect["p"] for effect in held)


def test_a_copy_of_a_domain_is_best_served_as_that_domain(case: Case):
    """The unknown domain's answer is a mean of all others, one of which is in conflict."""
    for name, other in (("a", "twin"), ("twin", "a")):
        one = of(case, name)
        assert one["nearest"] == [other, other]
        assert one["day_one"]["nearest"]["minus_unknown"]["estimate"] > 0.1
        assert one["day_one"]["nearest"]["score"] > one["joint"] - 0.03
    assert of(case, "twin")["day_one"]["nearest"]["minus_unknown"]["ci"][0] > 0
    lines = dict(newcomer_lines(case.reports["new"]))
    assert "as a row of the nearest domain (a) +" in lines["twin"]


def test_a_domain_that_is_related_to_none_needs_rows_of_its_own(case: Case):
    one = of(case, "alone")
    lack = one["day_one"]["unknown"]["minus_joint"]
    assert lack["ci"][1] < 0
    assert all(
        told["score"] < one["joint"] - 0.1 for arm, told in one["day_one"].items() if arm != "joint"
    )
    few, many = one["curve"]
    assert few["solo"]["score"] < many["solo"]["score"] - 0.05
    assert few["extended"]["score"] < many["extended"]["score"]
    assert many["extended"]["score"] > one["day_one"]["unknown"]["score"] + 0.02


def test_scores_are_those_of_a_slow_recomputation(case: Case, study: Study):
    label = case.table["label"].to_numpy()
    unknown, near = [], []
    for k in range(2):
        outcome = study.engine.outcome(study.phases.without(k, "alone"))
        assert outcome.training.domains == ("a", "against", "twin")
        model, dataset = outcome.model(), outcome.dataset
        rows = dataset.rows("test")
        number = dataset.domain_names.index("alone") + 1
        at = np.flatnonzero(np.asarray(rows.domain) == number)
        batch = rows.arrays.batch(at, dataset.n_domains)
        truth = label[rows.row[at]]
        hidden = batch.hide_domain(torch.ones(len(at), dtype=torch.bool), model.domain_places)
        with torch.no_grad():
            unknown.append(roc_auc_score(truth, model(hidden).numpy()))
            other = of(case, "alone")["nearest"][k]
            column = model.domain_places.categorical[0]
            of_other = np.asarray(rows.domain) == dataset.domain_names.index(other) + 1
            hidden.categorical[:, column] = int(rows.arrays.categorical[of_other, column][0])
            told = replace(hidden, domain=hidden.domain + dataset.domain_names.index(other) + 1)
            near.append(roc_auc_score(truth, model(told).numpy()))
    found = of(case, "alone")["day_one"]
    assert found["unknown"]["score"] == pytest.approx(np.mean(unknown))
    assert found["nearest"]["score"] == pytest.approx(np.mean(near))


def test_an_extension_begins_with_the_answer_of_day_one(study: Study):
    training = study.phases.extended(0, "alone", 150)
    dataset, start = study.arms.dataset(0), training.start
    assert start is not None
    first = study.engine.outcome(start)
    model = build(training, dataset)
    model.load_state_dict(_extended(model, first.weights(), training, dataset))
    rows = training.subset(dataset).scored("test", ("alone",))
    known = start.subset(dataset).scored("test", ("alone",))
    number = dataset.domain_names.index("alone") + 1
    assert set(rows.arrays.domain) == {number}
    assert set(known.arrays.domain) == {0}
    assert np.array_equal(rows.arrays.categorical, known.arrays.categorical)
    np.testing.assert_allclose(
        score_rows(model.eval(), rows), score_rows(first.model(), known), atol=1e-5
    )


OWNING = {
    "towers": {"towers": "per_domain"},
    "norms and heads": {"backbone": {"name": "mlp", "widths": [8], "norm": "domain"}, "head": "per_domain"},
    "a norm of all rows": {"backbone": {"name": "dcn", "widths": [8, 6], "norm": "batch"}},
}  # fmt: skip


@pytest.mark.parametrize("name", OWNING)
def test_so_it_does_where_domains_own_parts_of_the_network(name: str, study: Study):
    model = ModelConfig.model_validate(OWNING[name])
    dataset, of_level = study.arms.dataset(0), study.phases.extended(0, "alone", 150)
    assert of_level.start is not None
    start = replace(of_level.start, model=model)
    training = replace(of_level, start=start, model=extending(model))
    first = build(start, dataset)
    with torch.no_grad():  # as different as training makes the domains' sets
        for place, tensor in enumerate(domain_tensors(first).values()):
            tensor.add_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(place)))
    extended = build(training, dataset)
    extended.load_state_dict(_extended(extended, first.state_dict(), training, dataset))
    left, right = (
        score_rows(one.eval(), of.subset(dataset).scored("test", ("alone",)))
        for one, of in ((extended, training), (first, start))
    )
    np.testing.assert_allclose(left, right, atol=1e-5)


def test_an_extension_moves_nothing_but_what_the_domain_owns(study: Study):
    training = study.phases.extended(0, "alone", None)
    assert training.start is not None
    before = study.engine.outcome(training.start).weights()
    outcome = study.engine.outcome(training)
    after, own = outcome.weights(), set(domain_tensors(outcome.model()))
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    number = outcome.dataset.domain_names.index("alone") + 1
    ours = [name for name in after if name.startswith("adapter.")]
    assert set(ours) <= own
    moved = [torch.equal(after[name][number], after[name][0]) for name in ours]
    assert not all(moved)
    right = after["adapter.cells.input.map.right"]
    others = [place for place in range(len(right)) if place != number]
    assert (right[others] == 0).all()


def test_few_rows_are_watched_by_few(study: Study):
    training = study.phases.few_rows(0, "alone", 150)
    counts = study.arms.dataset(0).summary()
    share = 150 / counts["train"]["alone"].rows
    subset = training.subset(study.arms.dataset(0))
    assert len(subset.rows("train")) == 150
    watched = len(subset.rows("validation"))
    assert watched == round(share * counts["validation"]["alone"].rows)
    assert training.train.monitor == "logloss_pooled"
    larger = replace(training, watch_per_domain=watched + 5).subset(study.arms.dataset(0))
    assert set(subset.rows("validation").row) < set(larger.rows("validation").row)


class Killed(Exception):
    """Stands for the end of a process."""


def test_a_killed_diagnosis_goes_on_to_the_same_report(case: Case, study: Study, tmp_path: Path):
    out = tmp_path / "out"
    shutil.copytree(case.out, out, ignore=shutil.ignore_patterns("*.lock"))
    level = LEVELS["quick"].with_newcomers()
    with prepared(case.config, out=out, level=level, cache=case.cache) as (again, _):
        again.phases.recipes = study.phases.recipes
        for name in ("a", "alone"):
            shutil.rmtree(again.engine.path(again.phases.extended(1, name, None)))
    for kept in (out / "trainings").glob(f"*{SUFFIX}"):
        kept.unlink()

    def die(notice: Any) -> None:
        if "a new domain: 1 of 2" in notice.text:
            raise Killed

    with small_sizes():
        with pytest.raises(Killed):
            diagnosed(case, out, progress=die)
        report = diagnosed(case, out)
    assert report["plan"]["trained"] == 1
    assert numbers(report) == numbers(case.reports["new"])


def test_the_command_plans_it(case: Case, tmp_path: Path):
    told = CliRunner().invoke(
        cli.app,
        ["diagnose", str(case.config), "--out", str(tmp_path), "--level", "quick", "--new-domain",
         "--dry-run", "--jobs", "1"],
        env={"ISTHMUS_CACHE": str(case.cache)},
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "trainings: a new domain" in told.stdout


def test_two_domains_are_refused_by_name(tmp_path: Path):
    made = on_disk(tmp_path, opposed(400), settings())
    with pytest.raises(SchemaError, match=r"at least 3 domains .*, got 2 \('left', 'right'\)"):
        plan_diagnosis(made.config, out=made.out, level="quick", new_domain=True, cache=made.cache)


def test_trees_and_a_learner_are_refused_by_name(tmp_path: Path):
    raw = config(model={"name": "trees"})
    raw["data"]["trees"] = True
    with pytest.raises(ConfigError, match=r"model\.name must be 'network', got 'trees'"):
        plan_diagnosis(raw, twins(50), tmp_path / "out", new_domain=True)
    with pytest.raises(ConfigError, match="new_domain must not be given"):
        isthmus.diagnose(learner=object(), new_domain=True, out=tmp_path / "out")  # pyright: ignore[reportArgumentType]


def test_rows_to_joint_is_the_first_size_that_is_not_worse():
    def lack(low: float) -> dict[str, Any]:
        return {"minus_joint": {"ci90": [low, low + 0.01]}}

    told = {
        "day_one": {"unknown": lack(-0.02)},
        "curve": [
            {"rows": 100, "extended": lack(-0.0051), "solo": lack(-0.3)},
            {"rows": 500, "extended": lack(-0.0049), "solo": lack(-0.2)},
        ],
    }
    assert rows_to_joint(told, "extended", 0.005) == 500
    assert rows_to_joint(told, "solo", 0.005) is None
    assert rows_to_joint(told, "extended", 0.03) == 0
    told["curve"][0]["extended"]["minus_joint"]["ci90"] = None
    assert rows_to_joint(told, "extended", 0.005) == 500


def test_the_sentence_tells_what_both_ways_bring_with_all_rows():
    def effect(estimate: float, high: float) -> dict[str, Any]:
        ends = {"ci": [estimate - 0.1, high], "ci90": [estimate - 0.1, high], "p": 0.01}
        return {"minus_joint": {"estimate": estimate, "p_holm": None, "reason": None, **ends}}

    def told(extended: float, high: float, alone: float) -> str:
        point = {"rows": 900, "extended": effect(extended, high), "solo": effect(alone, 0.0)}
        return _later({"day_one": {"unknown": effect(-0.3, -0.2)}, "curve": [point]}, 0.005)

    first = "extended with all its 900 rows it is still 0.0800 below the joint model, and alone"
    assert told(-0.08, -0.01, -0.02) == f"{first} 0.0200 below it"
    assert told(-0.08, -0.01, 0.01) == f"{first} 0.0100 above it"
    nothing = "up to its 900 rows nothing is shown to be as good as the joint model"
    assert told(-0.08, 0.01, -0.02) == nothing
