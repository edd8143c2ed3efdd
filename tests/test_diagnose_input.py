"""Hard tables and wrong arguments: a diagnosis names them, and goes on if it can."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from diagnosed import ADAPTER, added, opposed, outcomes, settings, small_levels
from isthmus.diagnosis import Diagnosis, diagnose, plan_diagnosis
from isthmus.diagnosis import support as measured
from isthmus.diagnosis.measures.curves import weightings
from isthmus.diagnosis.measures.from_joint import gradients
from isthmus.diagnosis.verdicts.advice import Configs
from isthmus.diagnosis.verdicts.verdict import Verdict
from isthmus.disk import only_writer
from isthmus.errors import ConfigError, RunError, SchemaError
from studies import quick, study_of

LISTED = {"kind": "categorical_list", "shares": "item_id"}
ADAPTED = {**ADAPTER, "hyper_widths": (4,)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def test_weights_leave_the_auc_without_an_interval_and_logloss_leads(tmp_path: Path, cache: Path):
    """And lists that share a vocabulary, a split by user, ids that are text."""
    table = opposed(1500)
    rng = np.random.default_rng(3)
    lists = [rng.integers(0, 60, size).tolist() for size in rng.integers(0, 4, len(table))]
    table = table.append_column("seen", pa.array(lists, pa.list_(pa.int32())))
    table = table.append_column("weight", pa.array(rng.uniform(0.5, 2, len(table))))
    config = settings(weight="weight", split={"by": "user"})
    config["data"]["features"]["seen"] = LISTED
    report = quick(config, table, tmp_path, cache).report
    assert any("rows have weights" in note for note in report["plan"]["notes"])
    for domain in report["domains"].values():
        net = domain["auc"]["net"]
        assert net["estimate"] is not None
        assert net["ci"] is None
        assert "weights" in net["reason"]
        assert domain["logloss"]["net"]["ci"] is not None
        assert domain["leading"] == "logloss"
        assert domain["verdict_auc"] == "not enough data"
    assert all(
        cell["ci"] is None
        for row in report["matrix"]["cross_score"].values()
        for cell in row.values()
    )
    tuning = Verdict("adapt", "", "", remedy="tuning")  # which the guard does, on plain rows only
    with study_of(config, table, tmp_path, cache, level="quick") as study:
        configs = Configs(study, tmp_path / "configs")
        assert configs.of("left", tuning) == "configs/joint.yaml"
        assert configs.command("left", tuning) is None


def test_without_groups_rows_are_independent_and_a_cap_is_flagged(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("isthmus.experiments.arms.MAX_EPOCHS", 1)
    config = settings(group=None)
    config["train"]["batch_rows"] = 4096  # more than a domain has
    plan = plan_diagnosis(config, opposed(1500), tmp_path, level="quick", cache=cache)
    report = quick(config, opposed(1500), tmp_path, cache).report
    assert report["plan"]["trained"] == plan.trainings
    assert report["plan"]["clusters"] == "row"
    assert "no group column: rows are taken as independent" in report["plan"]["notes"]
    for domain in report["domains"].values():
        assert domain["clusters"] == domain["rows"]
        assert "2 of 2 solos ended at the epoch cap, not by patience" in domain["flags"]
    tried = report["plan"]["choices"]["joint"]["tried"]
    assert {one["stopped"] for one in tried} == {"epochs"}


def test_a_single_domain_is_refused(tmp_path: Path, cache: Path):
    table = opposed(1500)
    one = table.filter(pa.array([name == "left" for name in table["domain"].to_pylist()]))
    rule = "a diagnosis needs at least 2 domains with enough rows, got"
    with pytest.raises(SchemaError, match=rf"^{rule} 1 \('left'\); left out: 'flat': one class in"):
        plan_diagnosis(settings(), added(one, 400, "flat", 0), tmp_path / "a", cache=cache)
    with pytest.raises(SchemaError, match=rf"^{rule} 1 \('left'\) in all$"):
        plan_diagnosis(settings(), one, tmp_path / "b", cache=cache)
    with pytest.raises(SchemaError, match=rf"^{rule} 0; left out: 'left': .*, 50 are needed$"):
        plan_diagnosis(settings(), one.slice(0, 60), tmp_path / "c", cache=cache)


def test_a_domain_without_train_rows_in_one_fold_is_left_out_of_all(tmp_path: Path, cache: Path):
    """It stands last among that fold's domains, so that numbers mean others there."""
    table = opposed(2000)
    for user in (9997, 9998, 9999):
        lone = added(table.slice(0, 0), 600, f"a lone user, {user}")
        users = pa.array(np.full(600, user, dtype=np.int32))
        table = pa.concat_tables([lone.set_column(0, "user_id", users), table])
    config = settings(split={"by": "user"})
    with study_of(config, table, tmp_path / "lone", cache) as study:
        found = study.measured
        orders = {dataset.domain_names for dataset in study.arms.datasets}
    assert len(orders) > 1
    assert found.names == ("left", "right")
    assert any("train rows of fold" in why for why in found.left_out.values())
    domain = np.array(table["domain"].to_pylist())
    user, label = table["user_id"].to_numpy(), table["label"].to_numpy()
    with study_of(config, table, tmp_path / "lone", cache) as study:
        for name, support in found.support.items():
            rows = np.concatenate([study.rows.replicate(name, k).row for k in range(3)])
            assert set(domain[rows]) <= {name}
            assert support.rows == len(set(rows)) == len(rows)
            assert support.positives == label[rows].sum()
            assert support.clusters == len(set(user[rows]))


@pytest.mark.parametrize("kind", ["text", "number"])
def test_groups_and_items_are_the_tables_whatever_their_keys(
    tmp_path: Path, cache: Path, kind: str
):
    """Text is known by hashes of any sign, and an id means another value in another fold."""
    table = opposed(2000)
    user, item = table["user_id"].to_numpy(), table["item_id"].to_numpy()
    if kind == "text":
        for at, name in ((0, "user_id"), (1, "item_id")):
            values = pa.array([f"{name} {value}" for value in table[name].to_pylist()])
            table = table.set_column(at, name, values)
    else:
        table = table.set_column(0, "user_id", pa.array(user.astype(np.int64) - 150))
    with study_of(settings(), table, tmp_path, cache, item="item_id") as study:
        held = [study.rows.replicate(name, k) for name in ("left", "right") for k in range(3)]
        clusters = study.measured.support["left"].clusters
        left = np.concatenate([user[one.row] for one in held[:3]])
    assert clusters == len(set(left))
    rows = np.concatenate([one.row for one in held])
    for name, wanted in (("cluster", user[rows]), ("item", item[rows])):
        found = np.concatenate([getattr(one, name) for one in held])
        assert found.min() >= 0  # below 0 would be a row of its own
        pairs = set(zip(found.tolist(), wanted.tolist(), strict=True))
        assert len(pairs) == len(set(found.tolist())) == len(set(wanted.tolist()))


def test_what_is_drawn_among_many_domains_is_said(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    table = opposed(1500)
    for rows, name in ((900, "c"), (1000, "d"), (1100, "e")):
        table = added(table, rows, name)
    monkeypatch.setattr(measured, "MAX_DOMAINS", 3)
    with small_levels():
        plan = plan_diagnosis(settings(), table, tmp_path, level="full", cache=cache)
    assert plan.sampled is not None
    assert plan.sampled == "3 of 5 domains are trained alone: half the largest, half drawn"
    assert {"left", "right"} < set(plan.measured)
    assert len(plan.measured) == 3
    assert list(plan.left_out.values()) == ["not drawn: more domains than are trained alone"] * 2
    assert plan.sampled in str(plan)
    assert plan.phases["pairs"] == 3
    monkeypatch.setattr(measured, "MAX_PAIRED", 2)
    monkeypatch.setattr(measured, "MAX_DOMAINS", 4)
    with small_levels():
        plan = plan_diagnosis(settings(), table, tmp_path, level="full", cache=cache)
    assert plan.sampled is not None
    assert "4 of 5 domains are trained alone" in plan.sampled
    assert "2 of 4 are in the pairwise matrix" in plan.sampled
    assert plan.phases["pairs"] == 1
    with small_levels():
        plan = plan_diagnosis(settings(), table, tmp_path, level="quick", cache=cache)
    assert plan.sampled == "4 of 5 domains are trained alone: half the largest, half drawn"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"level": "ful"}, "level must be one of quick, standard, full, got 'ful'"),
        ({"margin": 0.0}, "margin must be above 0 and below 0.5, got 0"),
        ({"margin": 0.5}, "margin must be above 0 and below 0.5, got 0.5"),
        ({"margin": float("nan")}, "margin must be above 0 and below 0.5, got nan"),
        ({"item": "movie"}, "item must be a categorical feature beside .*, item_id, got 'movie'"),
        ({"item": "domain"}, "item must be .* beside domain and group, item_id, got 'domain'"),
        ({"item": "user_id"}, "item must be .* got 'user_id'"),
        ({"set": ["train.loks=3"]}, "unknown key 'train.loks'"),
        (
            {"set": ["model.adapter.name=hamur_released"]},
            "but hamur_released is for reproduction only",
        ),
        ({"set": ["model.adapter.sites=[7]"]}, r"adapter\.sites must lie in -2\.\.1"),
        ({"set": ["data.domains=[left, rigth]"]}, "right"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_trained(
    tmp_path: Path, cache: Path, options: dict[str, Any], fault: str
):
    with pytest.raises((ConfigError, SchemaError), match=fault):
        diagnose(settings(), opposed(1000), tmp_path, cache=cache, **options)
    assert outcomes(tmp_path) == []


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, cache: Path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(RunError, match=f"must be writable at {out}, got: Not a directory$"):
            quick(settings(), opposed(1000), out, cache)
    (tmp_path / "used" / "trainings").mkdir(parents=True)
    with (
        only_writer(tmp_path / "used" / "trainings"),
        pytest.raises(
            RunError, match=r"used/trainings must have one writer at a time, and process"
        ),
    ):
        quick(settings(), opposed(1000), tmp_path / "used", cache)
    with pytest.raises(ConfigError, match="table must be given, got neither"):
        plan_diagnosis(settings(), None, tmp_path)
    with pytest.raises(RunError, match="a diagnosis must be finished"):
        Diagnosis.open(tmp_path)


def test_configs_name_the_table_that_was_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """Wherever they lie; a frame has no name."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(opposed(1000), tmp_path / "clicks.parquet")
    named, other = settings(table="clicks.parquet"), settings(table="other.parquet")
    for config, table in ((named, None), (other, "clicks.parquet"), (other, opposed(1000))):
        with study_of(config, table, tmp_path / "out", cache) as study:
            path = Configs(study, tmp_path / "configs").of("left", Verdict("share", "", ""))
        read = isthmus.load_config(tmp_path / str(path)).data.table
        assert read == (None if isinstance(table, pa.Table) else str(tmp_path / "clicks.parquet"))


def test_a_network_that_shares_nothing_has_reasons_in_place_of_weightings(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """Towers per domain, an adapter in the config; and trainings too short for dwa."""
    monkeypatch.setattr("isthmus.experiments.arms.MAX_EPOCHS", 2)
    config = settings()
    config["model"]["towers"] = "per_domain"
    config["train"]["weighting"] = "uniform"
    with study_of(config, opposed(1000), tmp_path, cache, level="full") as study:
        assert study.phases.together(0, ("right", "left")) == study.phases.joint(0)
        assert study.phases.without(0, "left") == study.phases.solo(0, "right")
        assert study.phases.joint(0).model.adapter.name == "none"
        assert study.phases.joint(0).train.weighting == "proportional"
        assert study.phases.adapted()[0].model.adapter.model_dump().items() >= ADAPTED.items()
        notes = study._told_notes()
        assert any("the config's adapter, hamur, is worn by the adapted arm" in n for n in notes)
        assert any("the config's weighting, uniform" in note for note in notes)
        study.joint = study.engine.run([study.phases.joint(k) for k in study.phases.few], "joint")
        told = {one["name"]: one for one in weightings(study)}
        cells = gradients(study)
    for name in ("gradnorm", "pcgrad", "cagrad"):
        assert "needs dense parameters that domains share" in told[name]["reason"]
        assert told[name]["macro"]["estimate"] is None
        assert told[name]["domains"]["left"]["reason"] == told[name]["reason"]
    for name in ("uniform", "uncertainty", "dwa", "random"):
        assert told[name]["reason"] is None
        assert told[name]["macro"]["estimate"] is not None
    assert "as uniform does for two epochs" in told["dwa"]["note"]
    assert told["dwa"]["domains"] == told["uniform"]["domains"]
    assert told["uniform"]["note"] is None
    assert {cell["estimate"] for row in cells.values() for cell in row.values()} == {None}


def test_too_many_domains_for_gradients_of_each_are_a_reason(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("isthmus.train.weighting.weighting.MAX_DOMAINS", 1)
    with study_of(settings(), opposed(1000), tmp_path, cache, level="full") as study:
        assert set(study.phases.refused) == {"gradnorm", "pcgrad", "cagrad"}
        assert "of at most 1 domains, got 2" in study.phases.refused["cagrad"]
        assert {one.train.weighting for one in study.phases.weightings()} == {
            "uniform", "uncertainty", "dwa", "random"
        }  # fmt: skip
