"""The diagnosis at its full level: planted groups, matrices, curves, configs that train."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import isthmus
from diagnosed import (
    Case,
    check_contract,
    check_net_plus,
    numbers,
    on_disk,
    paired,
    settings,
    small_levels,
)
from isthmus.diagnosis.verdicts.advice import Configs
from isthmus.diagnosis.verdicts.verdict import Verdict

pytestmark = pytest.mark.truth  # some hundred trainings


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two planted groups at 90 degrees, everything measured."""
    case = on_disk(tmp_path_factory.mktemp("grouped"), paired(), settings())
    with small_levels():
        case.diagnose("full")
        case.diagnose("full", "again")
    return case


def test_the_report_keeps_its_contract(grouped: Case):
    check_contract(grouped.reports["full"], "full")
    check_net_plus(grouped.reports["full"])


def test_nothing_is_trained_twice(grouped: Case):
    first, again = grouped.reports["full"], grouped.reports["again"]
    assert again["plan"]["trained"] == 0
    assert again["plan"]["cached"] == first["plan"]["trainings"]
    assert numbers(again) == numbers(first)


def test_the_matrices_are_those_of_a_slow_recomputation(grouped: Case):
    matrix, label = grouped.reports["full"]["matrix"], grouped.table["label"].to_numpy()
    with grouped.study("full") as study:
        phases, names = study.phases, study.measured.names
        for target, source in (("d0", "d1"), ("d3", "d0")):
            rows = study.rows.replicate(target, 0).row

            def area(training: Any, target: str = target, rows: np.ndarray = rows) -> float:
                logits = study.engine.outcome(training).logits("test", target)
                return float(roc_auc_score(label[rows], logits))

            solo = area(phases.solo(0, target))
            pair = [name for name in names if name in (target, source)]
            gain = area(phases.together(0, pair)) - solo
            assert matrix["pairwise"][target][source]["estimate"] == pytest.approx(gain)
            left = area(phases.joint(0)) - area(phases.without(0, source))
            assert matrix["leave_one_out"][target][source]["estimate"] == pytest.approx(left)
            rows = [study.rows.replicate(target, k).row for k in range(3)]
            crossed = [
                roc_auc_score(label[at], outcome.logits("test", target))
                for at, outcome in zip(rows, study.arm_outcomes[source]["solo"], strict=True)
            ]
            found = matrix["cross_score"][target][source]["estimate"]
            assert found == pytest.approx(np.mean(crossed))
        crossed = matrix["cross_score"]["d3"]
        assert crossed["d0"]["estimate"] < min(crossed[n]["estimate"] for n in ("d2", "d3"))


def test_planted_groups_are_found_and_confirmed(grouped: Case):
    report = grouped.reports["full"]
    groups = report["groups"]
    assert groups["groups"] == [["d0", "d1"], ["d2", "d3"]]
    assert groups["lambda"] == report["margin"]
    confirmed = groups["confirmed"]
    assert confirmed["against_none"]["ci"][0] > 0
    assert len(confirmed["random"]) == 2
    assert confirmed["score"] > max(confirmed["random"])
    assert confirmed["score"] > confirmed["score_none"]
    pairwise = report["matrix"]["pairwise"]
    for one, other, stranger in (("d0", "d1", "d2"), ("d3", "d2", "d1")):
        assert pairwise[one][other]["estimate"] > pairwise[one][stranger]["estimate"] + 0.005
    points = [(point["domain_input"], point["widths"]) for point in report["capacity"]]
    assert points == [(seen, widths) for seen in (True, False) for widths in ([8, 4], [16, 8])]
    assert report["capacity"][1]["parameters"] > report["capacity"][0]["parameters"]


def test_dwa_says_where_it_is_uniform(grouped: Case):
    by_name = {one["name"]: one for one in grouped.reports["full"]["weighting"]}
    assert set(by_name) == {
        "uniform", "uncertainty", "dwa", "gradnorm", "pcgrad", "cagrad", "random"
    }  # fmt: skip
    for one in by_name.values():
        assert set(one) == {"name", "domains", "macro", "reason", "note"}
        values = [effect["estimate"] for effect in one["domains"].values()]
        assert one["macro"]["estimate"] == pytest.approx(np.mean(values))
    equal = by_name["dwa"]["domains"] == by_name["uniform"]["domains"]
    assert (by_name["dwa"]["note"] is not None) == equal


KINDS = {
    "joint": Verdict("share", "", "", finding="same"),
    "adapted": Verdict("adapt", "", "", remedy="adapter"),
    "own-d0": Verdict("own tower", "", ""),
    "group-d0+d1": Verdict("group", "", "", group=("d1",)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_config_is_the_arm_and_trains(grouped: Case, tmp_path: Path, kind: str):
    with grouped.study("full") as study:
        configs = Configs(study, tmp_path / "configs")
        assert configs.of("d0", KINDS[kind]) == f"configs/{kind}.yaml"
        arms, recipe = study.phases.arms, study.phases.recipes[None]
        arm = {
            "joint": study.phases.joint(0),
            "adapted": arms.adapted(0, recipe),
            "own-d0": study.phases.solo(0, "d0"),
            "group-d0+d1": study.phases.together(0, ["d0", "d1"]),
        }[kind]
    path = tmp_path / "configs" / f"{kind}.yaml"
    config = isthmus.load_config(path)
    assert config.data.domains == arm.domains
    assert config.train == arm.train
    assert config.model == arm.model
    features = config.data.features.values()
    assert all(feature.min_count == 2 for feature in features)  # type: ignore[union-attr]
    run = isthmus.fit(path, out=tmp_path / "run", cache=grouped.cache)
    evaluated = run.evaluate()
    assert set(evaluated.domains) == set(arm.domains or ("d0", "d1", "d2", "d3"))
    assert (evaluated.domains["d0"].auc or 0.0) > 0.6
