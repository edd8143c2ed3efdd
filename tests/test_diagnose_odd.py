"""One odd table, diagnosed: domains left out, thinned negatives, a split by time, weird names."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import isthmus
from diagnosed import added, opposed, settings
from isthmus.diagnosis import Diagnosis
from isthmus.diagnosis.study import Study
from isthmus.diagnosis.verdicts.advice import Configs, group_slug, slug
from isthmus.diagnosis.verdicts.verdict import Verdict
from studies import quick, study_of

NAMES = ("Küche / Bad", "..")
FLAT = "no validation positives"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


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
