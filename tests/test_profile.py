"""The profile of a bundle: what each domain looked like on the validation rows."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import isthmus
from isthmus.bundle import Bundle, Profile, to_score
from isthmus.bundle.validation_profile import measure_profile
from isthmus.bundle.watched_columns import MOST_IDS, WatchedColumn, watched_columns
from isthmus.data.store.arrays import Arrays
from isthmus.metrics import ScoredRows
from isthmus.schema import FittedField
from small_runs import clicks, content, settings

CHANGES = ["data.negative_rate=0.5", "model.calibration=per_domain", "model.adapter.name=none"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    folder = tmp_path_factory.mktemp("profile")
    config = isthmus.load_config(settings(epochs=1), CHANGES)
    return isthmus.fit(config, clicks(), out=folder / "run", cache=folder / "cache")


@pytest.fixture(scope="module")
def profile(run: isthmus.Run) -> Profile:
    found = run.bundle.profile
    assert found is not None
    return found


def test_the_profile_is_what_the_scored_validation_rows_say(run: isthmus.Run, profile: Profile):
    scored = run.scored("validation")
    assert profile.names == run.bundle.domains
    figures = run.evaluate("validation").domains
    for place, name in enumerate(profile.names, start=1):
        of = scored.domain == scored.names.index(name) + 1
        mass = np.where(scored.label[of], 1.0, 2.0)  # half of the negatives were dropped
        score = to_score(scored.logits[of], 0.5)
        mean = (mass * score).sum() / mass.sum()
        assert profile.rows[place] == of.sum()
        np.testing.assert_allclose(profile.score[place], mean, rtol=1e-8)
        spread = (mass * (score - mean) ** 2).sum() / mass.sum()
        np.testing.assert_allclose(profile.score_spread[place], spread, rtol=1e-8)
        assert scored.group is not None
        sums = Counter()
        for group, part in zip(scored.group[of], mass * (score - mean), strict=True):
            sums[group] += part
        squares = sum(part**2 for part in sums.values()) * len(sums) / (len(sums) - 1)
        np.testing.assert_allclose(
            profile.score_variance[place], squares / mass.sum() ** 2, rtol=1e-7
        )
        assert profile.auc[place] == pytest.approx(figures[name].auc, rel=1e-8)
        assert profile.calibration[place] == pytest.approx(figures[name].calibration, rel=1e-8)
    assert profile.rows[0] == 0
    assert np.isnan(profile.score[0])


def test_the_columns_that_are_watched(profile: Profile):
    kinds = {column.name: column.kind for column in profile.columns}
    assert kinds == {
        "user": "categorical",
        "item": "categorical",
        "history": "categorical_list",
        "age": "numeric",
    }  # and not the domain's own column
    assert all(column.cells <= 20 for column in profile.columns)
    assert profile.cells.shape == (4, sum(column.cells for column in profile.columns))


def test_cells_hold_every_value_once(run: isthmus.Run, profile: Profile):
    rows = run.bundle.encoder.encode  # the raw rows, encoded as at serving
    table = clicks().combine_chunks().to_batches()[0]
    encoded = rows(table, 0, "frame", roles=("label",))
    at = run.scored("validation").row
    assert encoded.label is not None
    mass = np.where(encoded.label > 0, 1.0, 2.0)
    names = [column.name for column in profile.columns]
    starts = dict(zip(names, profile.starts, strict=True))
    for place, column in enumerate(profile.columns):
        counts = profile.cells[:, starts[column.name] :][:, : column.cells]
        slow = np.zeros_like(counts)
        for row in at:
            values = {
                "user": encoded.categorical[row, :1],
                "item": encoded.categorical[row, 1:2],
                "age": encoded.numeric[row, :1],
                "history": encoded.lists[0][0][
                    encoded.lists[0][1][row] : encoded.lists[0][1][row + 1]
                ],
            }[column.name]
            for value in values:
                if column.of_ids:
                    cell = (
                        0
                        if value == 0
                        else 1 + column.ids.index(value)
                        if value in column.ids
                        else column.cells - 1
                    )
                else:
                    cell = 1 + sum(value >= edge for edge in column.edges)
                slow[encoded.domain[row], cell] += mass[row]
        np.testing.assert_allclose(counts, slow)
        assert (profile.mix_values[1:, place] <= counts[1:, 1:].sum(axis=1) + 1e-6).all()
        assert (profile.mix_values[1:, place] > 1).all()
    assert np.isnan(profile.mean[1:, :3]).all()
    assert np.isfinite(profile.mean[1:, 3]).all()


def test_the_profile_travels_with_the_bundle(run: isthmus.Run, profile: Profile, tmp_path: Path):
    folder = run.path / "bundle"
    assert "profile.json" in json.loads((folder / "bundle.json").read_text())["files"]
    run.bundle.save(tmp_path / "again")
    assert content(tmp_path / "again") == content(folder)
    again = Bundle.load(tmp_path / "again").profile
    assert again is not None
    assert again.columns == profile.columns
    np.testing.assert_array_equal(again.cells, profile.cells)
    assert run.bundle.profile is not None
    assert again.baseline()["home"]["auc"] == pytest.approx(
        profile.auc[again.names.index("home") + 1]
    )


def test_a_bundle_without_a_profile_stays_without_one(run: isthmus.Run, tmp_path: Path):
    bundle = run.bundle
    Bundle(
        config=bundle.config,
        encoder=bundle.encoder,
        model=bundle.model,
        calibration=bundle.calibration,
    ).save(tmp_path / "old")
    assert not (tmp_path / "old" / "profile.json").exists()
    assert Bundle.load(tmp_path / "old").profile is None


@pytest.mark.parametrize("change", [{"format": 2}, {"score": [1.0]}])
def test_another_format_is_refused(profile: Profile, change: dict[str, object]):
    text = json.dumps({**json.loads(profile.to_json()), **change})
    with pytest.raises(ValueError, match="must"):
        Profile.from_json(text)


def arrays_of(
    categorical: np.ndarray, domain: np.ndarray, numeric: np.ndarray | None = None
) -> Arrays:
    rows = len(domain)
    return Arrays(
        categorical=categorical.astype(np.int32),
        numeric=np.zeros((rows, 0), np.float32) if numeric is None else numeric.astype(np.float32),
        lists=(),
        domain=domain.astype(np.int32),
        label=np.zeros(rows, np.float32),
        weight=None,
    )


def scored_of(
    domain: np.ndarray, names: tuple[str, ...], group: np.ndarray | None = None
) -> ScoredRows:
    rng = np.random.default_rng(1)
    rows = len(domain)
    return ScoredRows(
        split="validation",
        row=np.arange(rows),
        logits=rng.normal(size=rows),
        label=rng.random(rows) < 0.5,
        domain=domain,
        names=names,
        group=group,
    )


def test_frequent_ids_are_those_of_the_mean_domain():
    # The large domain holds ids 1 to 30; the small one holds 40 only, and has its say.
    domain = np.repeat([1, 2], [3000, 30])
    ids = np.where(domain == 1, np.arange(3030) % 30 + 1, 40)[:, None]
    field = FittedField("item", "categorical", 4, table="item", table_rows=50)
    share = 1 / np.bincount(domain)[domain]
    (column,) = watched_columns([field], arrays_of(ids, domain), np.arange(3030), share)
    assert column.ids[0] == 40
    assert len(column.ids) == MOST_IDS
    table = column.table()
    assert (table[0], table[40], table[50]) == (0, 1, column.cells - 1)


def test_parts_of_a_time_and_the_domain_are_not_watched():
    fields = [
        FittedField("tab", "categorical", 4, table="tab", table_rows=3, is_domain=True),
        FittedField("at:hour", "categorical", 4, table="at:hour", table_rows=25, source="at"),
        FittedField("item", "categorical", 4, table="item", table_rows=3),
        FittedField("at:age", "numeric", 1, source="at"),
        FittedField("price", "numeric", 1),
        FittedField("item:statistics", "statistics", 4, source="item"),
    ]
    rng = np.random.default_rng(0)
    arrays = arrays_of(rng.integers(0, 3, (90, 3)), np.ones(90), rng.normal(size=(90, 6)))
    found = watched_columns(fields, arrays, np.arange(90), np.full(90, 1 / 90))
    assert [(column.name, column.place) for column in found] == [("item", 2), ("price", 1)]
    bins = np.bincount(found[1].cells_of(arrays.numeric[:, 1]))
    assert bins[0] == 0
    assert ((bins[1:] >= 8) & (bins[1:] <= 10)).all()
    assert len(bins) == 11


def test_rows_drawn_together_count_as_one():
    # Twenty users with fifty equal rows each know no more of the mix than twenty rows.
    rng = np.random.default_rng(2)
    users = np.repeat(np.arange(20), 50)
    ids = rng.integers(0, 5, 20)[users][:, None]
    domain = np.ones(1000, dtype=np.int64)
    field = FittedField("item", "categorical", 4, table="item", table_rows=5)
    grouped, alone = (
        measure_profile([field], arrays_of(ids, domain), scored_of(domain, ("a",), group))
        for group in (users, None)
    )
    known = (ids[::50] > 0).sum()
    np.testing.assert_allclose(grouped.mix_values[1], known, rtol=1e-9)
    np.testing.assert_allclose(alone.mix_values[1], known * 50, rtol=1e-9)
    np.testing.assert_allclose(grouped.clusters[1], 20)
    np.testing.assert_allclose(
        grouped.unknown_variance[1], 50 * alone.unknown_variance[1], rtol=1e-9
    )


def test_a_thousand_domains_are_measured_at_once():
    rng = np.random.default_rng(3)
    domain = rng.integers(0, 1001, 20_000)
    ids = rng.integers(0, 100, (20_000, 2))
    fields = [FittedField(name, "categorical", 4, table=name, table_rows=100) for name in "ab"]
    names = tuple(f"d{i}" for i in range(1000))
    found = measure_profile(fields, arrays_of(ids, domain), scored_of(domain, names))
    assert found.cells.shape == (1001, 40)
    np.testing.assert_allclose(found.cells.sum(), 2 * 20_000)
    again = Profile.from_json(found.to_json())
    np.testing.assert_allclose(again.auc_variance, found.auc_variance, rtol=1e-8)


def test_a_profile_that_was_read_is_written_as_it_was():
    domain = np.repeat([1, 2], 40)
    found = measure_profile([], arrays_of(np.zeros((80, 0)), domain), scored_of(domain, ("a", "b")))
    # The second is whole once nine digits are kept.
    found = replace(found, score=np.array([np.nan, 715.00000001, 1 / 3]))
    text = found.to_json()
    assert '"score": [null, 715, 0.333333333]' in text
    assert Profile.from_json(text).to_json() == text


def test_rows_of_no_validation_domain_are_nobodys():
    domain = np.repeat([0, 2], 40)
    found = measure_profile([], arrays_of(np.zeros((80, 0)), domain), scored_of(domain, ("a", "b")))
    assert found.rows.tolist() == [40, 0, 40]
    assert np.isnan(found.score[1])
    nothing = dict.fromkeys(("auc", "auc_se", "calibration", "calibration_se"))
    assert found.baseline()["a"] == {"rows": 0, "clusters": 0, **nothing}


def test_ids_of_later_have_the_cell_of_the_rest():
    column = WatchedColumn("item", "categorical", 0, size=5, ids=(3, 1))
    np.testing.assert_array_equal(
        column.cells_of(np.array([0, 1, 2, 3, 4, 5, 900])), [0, 2, 3, 1, 3, 3, 3]
    )
    assert replace(column, kind="categorical_list").is_list


def test_a_resumed_table_of_arrow_gives_the_same_profile(
    run: isthmus.Run, profile: Profile, tmp_path: Path
):
    config = isthmus.load_config(settings(epochs=1), CHANGES)
    again = isthmus.fit(config, pa.table(clicks()), out=tmp_path / "run", cache=tmp_path / "cache")
    assert content(again.path / "bundle") == content(run.path / "bundle")


def test_a_profile_goes_on_with_other_domains():
    rng = np.random.default_rng(4)
    field = FittedField("item", "categorical", 4, table="item", table_rows=30)

    def measured(
        names: tuple[str, ...], rows: int, columns: tuple[WatchedColumn, ...] | None = None
    ):
        domain = rng.integers(1, len(names) + 1, rows)
        arrays = arrays_of(rng.integers(0, 30, (rows, 1)), domain)
        return measure_profile([field], arrays, scored_of(domain, names), columns)

    first = measured(("a", "b"), 400)
    later = measured(("c", "b"), 300, first.columns)
    found = first.of_domains(("b", "c", "d"), later)
    assert found.names == ("b", "c", "d")
    assert found.rows.tolist() == [0, later.rows[2], later.rows[1], 0]
    np.testing.assert_array_equal(found.cells[1:3], later.cells[[2, 1]])
    np.testing.assert_array_equal(found.auc, [np.nan, later.auc[2], later.auc[1], np.nan])
    again = Profile.from_json(found.to_json())
    np.testing.assert_array_equal(again.cells, found.cells)
    pruned = first.of_domains(("b",))
    np.testing.assert_array_equal(pruned.score, first.score[[0, 2]])
    assert pruned.cells.dtype == first.cells.dtype
    assert pruned.rows.dtype == np.int64
    with pytest.raises(ValueError, match="must have the columns of the first one"):
        first.of_domains(("a",), measured(("a",), 50, ()))
