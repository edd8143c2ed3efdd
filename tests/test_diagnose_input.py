"""What a diagnosis does with hard tables and wrong arguments: it names them, and goes on if it can."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from diagnosed import ADAPTER, added, opposed, outcomes, settings, small_levels
from isthmus.diagnosis import Diagnosis, arms, diagnose, diagnosing, measured, plan_diagnosis
from isthmus.diagnosis.advice import Configs, group_slug, slug
from isthmus.diagnosis.curves import weightings
from isthmus.diagnosis.diagnosing import prepared
from isthmus.diagnosis.level import LEVELS
from isthmus.diagnosis.likenesses import gradients
from isthmus.diagnosis.study import Study
from isthmus.diagnosis.verdict import Verdict
from isthmus.disk import only_writer
from isthmus.errors import ConfigError, RunError, SchemaError
from isthmus.run.notice import silent

NAMES = ("Küche / Bad", "..")
FLAT = "no validation positives"
LISTED = {"kind": "categorical_list", "shares": "item_id"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@contextmanager
def study_of(
    config: dict[str, Any],
    table: Any,
    out: Path,
    cache: Path,
    *,
    level: str = "standard",
    item: str | None = None,
) -> Iterator[Study]:
    """A prepared diagnosis; nothing is trained yet."""
    with (
        small_levels(),
        prepared(config, table, out, LEVELS[level], (), 0.005, item, 1, cache, silent) as (
            study,
            _,
        ),
    ):
        yield study


def quick(config: dict[str, Any], table: Any, out: Path, cache: Path, **options: Any) -> Diagnosis:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosing, "write_figures", lambda *_: None)
        return diagnose(config, table, out, level="quick", cache=cache, **options)


def odd_table() -> pa.Table:
    """Two sound domains with odd names, and every kind of domain that must be left out.

    In the middle of the table, where validation rows will be, `FLAT` has no positive.
    """
    table = opposed(1500, names=NAMES)
    for rows, name, label in ((400, "all 0", 0), (400, "null", 1), (60, "few", None)):
        table = added(table, rows, name, label)
    table = added(table, 800, FLAT)
    table = table.take(np.random.default_rng(0).permutation(len(table)))
    early, late = (added(table.slice(0, 0), 300, name) for name in ("early", "late"))
    table = pa.concat_tables([early, table, late])
    place = np.arange(len(table))
    middle = (place > 0.59 * len(table)) & (place < 0.81 * len(table))
    flat = middle & (np.array(table["domain"].to_pylist()) == FLAT)
    label = np.where(flat, 0, table["label"].to_numpy()).astype(np.int8)
    table = table.set_column(table.column_names.index("label"), "label", pa.array(label))
    return table.append_column("day", pa.array(place))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Diagnosis, Study]:
    """Split by time, so that replicates are seeds; negatives were thinned."""
    config = settings(
        time="day",
        split={"by": "time", "fractions": [0.6, 0.2, 0.2]},
        negative_rate=0.25,
        features={"user_id": "categorical", "item_id": {"kind": "categorical", "hash_buckets": 50}},
    )
    out = tmp_path_factory.mktemp("odd")
    made = quick(config, odd_table(), out, cache)
    with study_of(config, odd_table(), out, cache, level="quick") as study:
        study.choose()
        study.train_arms()
        assert study.engine.trained == 0
    return made, study


def test_every_unsound_domain_is_named_with_its_reason(odd: tuple[Diagnosis, Study]):
    report = odd[0].report
    left_out = report["plan"]["left_out"]
    assert report["plan"]["measured"] == sorted([*NAMES, FLAT])
    assert set(left_out) == {"all 0", "null", "few", "early", "late"}
    for name in ("all 0", "null"):
        assert left_out[name].startswith("one class in its ")
    assert left_out["few"].startswith("not testable: ")
    assert left_out["early"] == "0 validation rows, 2 are needed"
    assert left_out["late"] == "0 train rows, 2 are needed"
    assert report["domains"]["late"]["train_rows"] == 0
    assert report["domains"]["late"]["rows"] == 300
    for name, why in left_out.items():
        domain = report["domains"][name]
        assert domain["verdict"] == "not enough data"
        assert domain["auc"] is None
        assert domain["logloss"] is None
        assert domain["why"] == f"Left out: {why}."
        assert all(name not in cells for cells in report["matrix"]["cross_score"].values())
    assert set(report["domains"]) == {*NAMES, FLAT, *left_out}


def test_a_solo_whose_validation_rows_have_one_class_is_chosen_by_logloss(
    odd: tuple[Diagnosis, Study], cache: Path, tmp_path: Path
):
    """And says so; its config, on the same split, does as it did."""
    report, study = odd[0].report, odd[1]
    told = "solo chosen by logloss: auc_pooled is undefined on its validation rows"
    assert [told in report["domains"][name]["flags"] for name in (*NAMES, FLAT)] == [0, 0, 1]
    choice = report["plan"]["choices"]["solo"][FLAT]
    best = min(choice["tried"], key=lambda one: one["validation"])
    assert (choice["batch_rows"], choice["lr"]) == (best["batch_rows"], best["lr"])
    path = Configs(study, tmp_path / "configs").of(FLAT, Verdict("own tower", "", ""))
    config = isthmus.load_config(tmp_path / str(path))
    assert config.train.monitor == "logloss_pooled"
    assert isthmus.fit(config, odd_table(), out=tmp_path / "run", cache=cache).evaluate()


def test_a_time_split_keeps_its_rows_for_every_seed(odd: tuple[Diagnosis, Study]):
    report, study = odd[0].report, odd[1]
    assert report["plan"]["replicates"] == "seeds"
    assert report["plan"]["split"] == "time"
    assert not any("small table" in note for note in report["plan"]["notes"])
    for name in NAMES:
        rows = [study.rows.replicate(name, k).row for k in range(2)]
        np.testing.assert_array_equal(rows[0], rows[1])


def test_a_domain_that_is_no_feature_is_hidden(odd: tuple[Diagnosis, Study]):
    assert "the domain is no feature: no arm sees it as an input" in odd[0].report["plan"]["notes"]
    assert odd[1].phases.joint(0).hide_domain


def test_thinned_negatives_count_as_in_evaluate(odd: tuple[Diagnosis, Study]):
    """-log p of the corrected logit, negatives weighted by 1 / rate; the AUC does not move."""
    report, study = odd[0].report, odd[1]
    assert any("negatives were thinned to 0.25" in note for note in report["plan"]["notes"])
    for name in NAMES:
        label = study.rows.replicate(name, 0).label
        losses = []
        for outcome in study.arm_outcomes[name]["joint"]:
            logit = outcome.logits("test", name) + np.log(0.25)
            chance = 1 / (1 + np.exp(-logit))
            loss = -np.log(np.where(label, chance, 1 - chance))
            losses.append(np.average(loss, weights=np.where(label, 1.0, 4.0)))
        told = report["domains"][name]["logloss"]
        assert told["joint"] == pytest.approx(np.mean(losses))
        assert told["net"]["estimate"] == pytest.approx(told["solo"] - told["joint"])
        assert told["net"]["ci"] is not None


def test_weird_names_have_files_of_their_own(odd: tuple[Diagnosis, Study], tmp_path: Path):
    study = odd[1]
    configs = Configs(study, tmp_path / "configs")
    own = [str(configs.of(name, Verdict("own tower", "", ""))) for name in NAMES]
    own.append(str(configs.of(NAMES[0], Verdict("group", "", "", group=(NAMES[1],)))))
    assert len(set(own)) == 3
    assert sorted(own) == sorted(f"configs/{path.name}" for path in configs.folder.iterdir())
    for path, domains in zip(own, ([NAMES[0]], [NAMES[1]], sorted(NAMES)), strict=True):
        config = isthmus.load_config(tmp_path / path)
        assert config.data.domains == tuple(domains)
        assert "domain" not in config.data.features
        assert config.data.split.by == "time"
    # What an earlier diagnosis wrote does not outlive its verdict.
    (configs.folder / "mine.yaml").write_text("kept")
    Configs(study, configs.folder)
    assert [path.name for path in configs.folder.iterdir()] == ["mine.yaml"]


def test_file_names_stay_apart():
    odd = ["", " ", "a", "A", "a/b", "a-b", "a b", "..", "null", "ü", "x" * 80, "x" * 81, "a+b"]
    names = {slug(text) for text in odd}
    assert len(names) == len(odd)
    for name in names:
        assert name
        assert len(name) < 60
        assert all(c.isascii() and (c.isalnum() or c == "-") for c in name)
    assert slug("movie-1") == "movie-1"
    groups = [
        ["a-b", "c"],
        ["a", "b-c"],
        ["a", "b", "c"],
        ["a+b", "c"],
        ["a", "b+c"],
        ["x" * 50] * 2,
    ]
    assert len({group_slug(group) for group in groups}) == len(groups)
    assert group_slug(["a", "b"]) == "group-a+b"


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
    monkeypatch.setattr(arms, "MAX_EPOCHS", 1)
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
    with pytest.raises(SchemaError, match=r"needs at least 2 domains with enough rows, got 1 \("):
        plan_diagnosis(settings(), added(one, 400, "flat", 0), tmp_path / "a", cache=cache)
    with pytest.raises(SchemaError, match="got 1"):
        plan_diagnosis(settings(), one, tmp_path / "b", cache=cache)


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
        ({"set": ["model.adapter.name=hamur_released"]}, "must not be 'hamur_released'"),
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
        with pytest.raises(RunError, match=f"must be writable at {out}"):
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
    monkeypatch.setattr(arms, "MAX_EPOCHS", 2)
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


ADAPTED = {**ADAPTER, "hyper_widths": (4,)}


def test_too_many_domains_for_gradients_of_each_are_a_reason(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("isthmus.train.weighting.build.MAX_DOMAINS", 1)
    with study_of(settings(), opposed(1000), tmp_path, cache, level="full") as study:
        assert set(study.phases.refused) == {"gradnorm", "pcgrad", "cagrad"}
        assert "of at most 1 domains, got 2" in study.phases.refused["cagrad"]
        assert {one.train.weighting for one in study.phases.weightings()} == {
            "uniform", "uncertainty", "dwa", "random"
        }  # fmt: skip
