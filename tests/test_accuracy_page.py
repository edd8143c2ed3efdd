"""The page of accuracy: who is chosen without a table, what keys hold, and the lines of the summary."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from bench.accuracy.alone import Measured, is_finished, noted, run_alone, take_note, write_note
from bench.accuracy.contestants import (
    INIT,
    OLD,
    PLAIN_FOREST,
    RECIPES,
    TOLD_FOREST,
    TUNED,
    TUNED_FOREST,
    config_of,
    names_of,
    written_by_init,
)
from bench.accuracy.finished import Cost, Found, best_recipe, chosen_without
from bench.accuracy.forests import SEARCHED, grow, tune_alone
from bench.accuracy.page import least_pooled, missed, summary, write
from bench.accuracy.shelf import Shelf, code_digest, key_of
from bench.accuracy.tables import TUNED_UP_TO, Subject
from bench.accuracy.trainings import search
from bench.chart import Bar, drawn

from isthmus.data import Dataset
from isthmus.errors import RunError
from isthmus.metrics import ScoredRows
from isthmus.sources.planted import planted


def subject_of(
    folder: Path, *, source: str = "planted", rows: int = 1500, seed: int = 1
) -> Subject:
    """A planted table with 300 items, more than `init` takes as they are."""
    path = folder / f"{source}-{seed}.parquet"
    made = planted(rows=rows, relation=np.eye(2), items=300, users=50, seed=seed)
    pq.write_table(made.table, path)
    data = made.config(str(path))
    return Subject(source, source, f"Table {source}", 2 * rows, data)


def found_of(subject: Subject, validation: dict[str, float], auc_of_init: float = 1.0) -> Found:
    """Results whose scores are the label, or, for what `init` writes, the label turned for some."""
    label = np.tile([0, 1], 50)
    domain = np.repeat([1, 2], 50)
    best = np.where(label == 1, 1.0, -1.0) + np.linspace(0, 0.1, 100)
    worse = np.where(np.arange(100) < round(100 * auc_of_init), best, -best)

    def rows(name: str, logits: np.ndarray) -> list[ScoredRows]:
        return [
            ScoredRows(
                split="test",
                row=np.arange(100),
                logits=logits,
                label=label,
                domain=domain,
                names=("a", "b"),
                source=name,
            )
        ]

    scored = {name: rows(name, worse if name == INIT else best) for name in names_of(subject)}
    costs = {name: Cost(2.0, 300.0) for name in scored}
    return Found(subject, scored, costs, validation, frozenset({"abc"}))


def test_the_lowest_mean_rank_is_chosen():
    tables = {"one": [{"a": 0.9, "b": 0.8, "c": 0.7}], "two": [{"a": 0.5, "b": 0.8, "c": 0.6}]}
    # Ranks: a 1 and 3, b 2 and 1, c 3 and 2.
    assert best_recipe(["a", "b", "c"], tables) == "b"


def test_of_equal_ranks_the_first_is_chosen():
    tables = {"one": [{"a": 0.9, "b": 0.8}], "two": [{"a": 0.8, "b": 0.9}]}
    assert best_recipe(["a", "b"], tables) == "a"
    assert best_recipe(["b", "a"], tables) == "b"


def test_a_source_counts_once_however_many_tables_it_has():
    tables = {
        "many": [{"a": 0.9, "b": 0.8, "c": 0.7}] * 5,
        "one": [{"b": 0.9, "c": 0.8, "a": 0.7}],
        "other": [{"b": 0.9, "c": 0.8, "a": 0.7}],
    }
    assert best_recipe(["a", "b", "c"], tables) == "b"


def test_neither_a_table_nor_its_source_has_a_say(tmp_path: Path):
    first, last = RECIPES[0].name, RECIPES[-1].name
    likes_last = {one.name: float(place) for place, one in enumerate(RECIPES)}
    likes_first = {name: -auc for name, auc in likes_last.items()}
    same = [subject_of(tmp_path, source="same", seed=seed) for seed in (1, 2)]
    other = subject_of(tmp_path, source="other")
    held = [found_of(one, likes_last) for one in same] + [found_of(other, likes_first)]
    assert chosen_without(same[0], held) == first
    assert chosen_without(other, held) == last
    assert chosen_without(other, held[2:]) is None


def test_bounds_are_met_at_their_value():
    data: dict[str, Any] = {}
    plain = Subject("x", "x", "X", 10, data)
    films = Subject("y", "movielens", "Y", 10, data)
    assert missed(plain, pooled=-0.002, macro=-0.004, old=-0.001) == []
    assert missed(plain, pooled=-0.0021, macro=-0.0041, old=-0.0011) == ["pooled", "macro", "0.1"]
    assert least_pooled(films) == 0.025
    assert missed(films, pooled=0.024, macro=0.0, old=0.0) == ["pooled"]


def test_the_summary_has_a_row_a_table_with_its_verdict(tmp_path: Path):
    validation = {one.name: 0.7 for one in RECIPES}
    good = found_of(subject_of(tmp_path, source="good"), validation)
    bad = found_of(subject_of(tmp_path, source="bad"), validation, auc_of_init=0.5)
    rows = [line for line in summary([good, bad]) if line.startswith("| Table")]
    assert rows[0].startswith("| Table good | columns as they are | +0.0000")
    assert rows[0].endswith("| meets |")
    assert rows[1].endswith("| **misses** pooled, macro, 0.1 |")


def test_the_page_folds_every_table_and_names_what_is_missing(tmp_path: Path):
    found = found_of(subject_of(tmp_path), {one.name: 0.7 for one in RECIPES})
    page = write([found], ["Another"])
    assert page.count("<details>") == page.count("</details>") == 1
    assert f"| {TUNED} | 1.0000 | 1.0000 | 1.0000 |" in page
    assert "| 2 | 300 |" in page
    assert "Measured with commit `abc`" in page
    assert page.endswith("Not run yet: Another.\n")


def test_the_picture_is_the_same_for_the_same_bars():
    bars = [Bar("near", 0.01, (-0.01, 0.03), -0.002), Bar("far", -0.2, (-0.3, -0.1), -0.002)]
    first = drawn(bars, "pooled AUC", 0.04)
    assert first == drawn(bars, "pooled AUC", 0.04)
    assert "near" in first
    assert "0.200" in first  # a point beyond the edge is told in numbers


def test_a_large_table_has_nothing_tuned():
    small, large = (Subject("x", "x", "X", rows, {}) for rows in (TUNED_UP_TO, TUNED_UP_TO + 1))
    assert {TUNED, TUNED_FOREST} <= set(names_of(small))
    assert not {TUNED, TUNED_FOREST} & set(names_of(large))


def test_the_configs_are_those_of_init_and_depart_as_they_are_called(tmp_path: Path):
    written = written_by_init(subject_of(tmp_path))
    configs = {one.name: config_of(written, one, 3) for one in RECIPES}
    init, old = configs[INIT], configs[OLD]
    assert init.data.with_statistics == ("item_id",)
    assert init.data.trees
    assert init.data.group == "user_id"
    assert {config.train.seed for config in configs.values()} == {3}
    assert configs["the same without trees"].data.with_statistics == ("item_id",)
    assert configs["the same without statistics and trees"].data.with_statistics == ()
    assert configs["the same with HAMUR"].model.adapter.name == "hamur"
    assert configs["the same with batch norm"].model.backbone.norm == "batch"
    assert (old.train.batch_rows, old.train.looks_per_epoch) == (4096, 4)
    assert old.model.backbone.norm == "batch"
    assert not old.data.trees


def test_a_key_holds_config_and_table_but_no_seed(tmp_path: Path):
    subject = subject_of(tmp_path)
    written = written_by_init(subject)
    key = key_of(subject, config_of(written, RECIPES[0], 0))
    assert key == key_of(subject, config_of(written, RECIPES[0], 1))
    assert key != key_of(subject, config_of(written, RECIPES[1], 0))
    assert key != key_of(subject, config_of(written, RECIPES[0], 0), "more")
    again = subject_of(tmp_path, seed=2)  # another table under another name
    same_config = again.data | {"table": subject.data["table"]}
    moved = Subject("other", "other", "Other", again.rows, same_config)
    assert key == key_of(moved, config_of(written_by_init(moved), RECIPES[0], 0))
    assert key != key_of(again, config_of(written_by_init(again), RECIPES[0], 0))


def test_the_digest_of_code_leaves_out_what_changes_no_result(tmp_path: Path):
    def digest(name: str, **files: str) -> str:
        package = tmp_path / name / "package"
        package.mkdir(parents=True)
        for file, source in files.items():
            (package / f"{file}.py").write_text(source)
        return code_digest(package)

    plain = digest("plain", train='"""Old."""\nx = 1  # a remark\n')
    assert plain == digest("prose", train='"""New."""\n\n\nx = 1\n')
    assert plain != digest("other", train="x = 2\n")
    assert plain != digest("moved", data="x = 1\n")
    one = tmp_path / "plain" / "package" / "train.py"
    assert code_digest(one) != code_digest(tmp_path / "other" / "package" / "train.py")


def much_memory(folder: Path, mebibytes: int) -> None:
    held = np.ones(mebibytes * 2**20, dtype=np.uint8)
    take_note(folder, float(held[-1]), 0.5)


def failing() -> None:
    raise SystemExit(3)


def test_a_process_is_measured_alone(tmp_path: Path):
    ballast = np.ones(500 * 2**20, dtype=np.uint8)  # of this process, not of the child
    for name, mebibytes in {"small": 1, "large": 201}.items():
        run_alone(much_memory, tmp_path / name, mebibytes)
    assert ballast[-1] == 1
    small, large = (noted(tmp_path / name).mebibytes for name in ("small", "large"))
    assert 150 < large - small < 250
    assert noted(tmp_path / "small").seconds == 1.0


def test_work_that_fails_is_not_finished(tmp_path: Path):
    with pytest.raises(RunError, match="failing must end well, got exit code 3"):
        run_alone(failing)
    assert not is_finished(tmp_path)


def test_a_tuned_forest_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.accuracy.forests.TRIALS", 3)
    monkeypatch.setattr("bench.accuracy.forests.MOST_TREES", 20)
    shelf = Shelf(tmp_path, subject_of(tmp_path))
    config = shelf.config(RECIPES[1])
    out = tmp_path / "out"
    tune_alone(shelf.cache, config, TOLD_FOREST, out)
    settings = [json.loads((out / f"trial-0{n}" / "settings.json").read_text()) for n in range(3)]
    assert settings[0]["num_leaves"] == 63
    assert all(set(one) == set(SEARCHED) for one in settings)
    aucs = [noted(out / f"trial-0{n}").auc for n in range(3)]
    assert noted(out).auc == max(auc for auc in aucs if auc is not None)
    logits = np.load(out / "logits.npy")
    # Killed after the second trial: the first two are not trained again, the third is the same.
    for path in ("measured.json", "trial-02/measured.json", "trial-02/settings.json"):
        (out / path).unlink()
    write_note(out / "trial-00", Measured(1000.0, 1.0, "x", aucs[0]))
    tune_alone(shelf.cache, config, TOLD_FOREST, out)
    assert json.loads((out / "trial-02" / "settings.json").read_text()) == settings[2]
    np.testing.assert_array_equal(np.load(out / "logits.npy"), logits)
    assert noted(out).seconds > 1000


def test_a_forest_with_statistics_does_not_read_large_columns(tmp_path: Path):
    shelf = Shelf(tmp_path, subject_of(tmp_path))
    dataset = Dataset.from_table(shelf.config(RECIPES[1]).data, cache=shelf.cache)
    few = {"num_leaves": 4, "learning_rate": 0.1}
    told, plain = (grow(dataset, few, told=told) for told in (True, False))
    assert told.logits.shape == (len(dataset.rows("test")),)
    assert not np.array_equal(told.logits, plain.logits)
    assert 0.0 <= told.auc <= 1.0


def test_the_search_is_that_of_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def stand_in(config: Any, *, out: Path, trials: int) -> None:
        asked.append((config, trials))
        out.mkdir()
        (out / "best.yaml").write_text(yaml.safe_dump({"found": True}))

    monkeypatch.setattr("isthmus.tune", stand_in, raising=False)
    config = config_of(written_by_init(subject_of(tmp_path)), RECIPES[0], 0)
    best = search(config, tmp_path / "study")
    assert yaml.safe_load(best.read_text()) == {"found": True}
    assert asked == [(config, 20)]


def test_places_differ_by_contestant(tmp_path: Path):
    shelf = Shelf(tmp_path, subject_of(tmp_path))
    places = [shelf.network(one, 0) for one in RECIPES]
    places += [shelf.forest(name, {}) for name in (PLAIN_FOREST, TOLD_FOREST)]
    assert len(set(places)) == len(places)
    assert shelf.encoding(RECIPES[0]) == shelf.encoding(RECIPES[3])  # the same inputs
    assert shelf.encoding(RECIPES[0]) != shelf.encoding(RECIPES[1])


def test_the_rule_of_the_label_is_kept(tmp_path: Path):
    path = tmp_path / "few.parquet"
    pq.write_table(pa.table({"d": ["a", "b"] * 5, "x": [1.5] * 10, "y": [0, 1] * 5}), path)
    data = {
        "table": str(path),
        "domain": "d",
        "label": {"column": "y", "above": 0.5},
        "features": {"d": "categorical", "x": "numeric"},
        "split": {"by": "random", "fractions": [0.8, 0.1, 0.1]},
    }
    config = config_of(written_by_init(Subject("few", "few", "Few", 10, data)), RECIPES[0], 0)
    assert config.data.label.above == 0.5
    assert list(config.data.features) == ["d", "x"]
