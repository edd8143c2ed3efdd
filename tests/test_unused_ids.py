"""prune --unused: ids that newer rows no longer have leave vocabularies and embedding tables."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import isthmus
from command_line import isthmus_in_process, told
from grown_tables import as_domain, clicks, new_clicks
from isthmus.bundle import Bundle, Part
from isthmus.data import Dataset, Subset
from isthmus.errors import BundleError, RunError, SchemaError
from isthmus.extending import extend, prune
from isthmus.extending.pruning.without_ids import bundle_without_ids, kept_ids
from isthmus.models import build_model
from small_runs import content, settings

LAST_USER, LAST_ITEM = 20, 15  # of the newer rows


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoded")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> isthmus.Run:
    """A run with a list that shares its table, an adapter and calibration."""
    folder = tmp_path_factory.mktemp("runs")
    changes = ["model.calibration=per_domain", "train.epochs=1"]
    return isthmus.fit(settings(), clicks(), out=folder / "run", cache=cache, set=changes)


def newer(rows: int = 700, *, seed: int = 3) -> pa.Table:
    """Rows of some of the users and items: item 0 stands in lists only, and user 99 is new."""
    table = clicks(rows, seed=seed)
    user = table["user"].to_numpy() % LAST_USER
    user = np.where(np.arange(rows) == 5, 99, user).astype(np.int32)
    number = np.array([int(text.split()[1]) for text in table["item"].to_pylist()])
    number = 1 + number % (LAST_ITEM - 1)
    lists = [
        [f"item {int(one.split()[1]) % LAST_ITEM}" for one in row]
        for row in table["history"].to_pylist()
    ]
    for name, values in (
        ("user", pa.array(user)),
        ("item", pa.array([f"item {one}" for one in number])),
        ("history", pa.array(lists, pa.list_(pa.string()))),
    ):
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def occurrences(table: pa.Table) -> tuple[Counter, Counter]:
    """How often each user, and each item in its column and in lists, stands in a table."""
    listed = [one for row in table["history"].to_pylist() for one in row]
    return Counter(table["user"].to_pylist()), Counter([*table["item"].to_pylist(), *listed])


def bits(scores: np.ndarray) -> bytes:
    return np.ascontiguousarray(scores).tobytes()


def with_values(table: pa.Table, **changes: Any) -> pa.Table:
    for name, value in changes.items():
        place = table.column_names.index(name)
        array = pa.array([value] * len(table), table.schema.field(place).type)
        table = table.set_column(place, name, array)
    return table


@pytest.mark.parametrize("least", [1, 30])
def test_ids_that_newer_rows_lack_go_and_all_others_keep_their_bits(
    run: isthmus.Run, least: int, tmp_path: Path
):
    before = content(run.path)
    table = newer()
    found = prune(run, unused=table, least=least, out=tmp_path / "used")
    assert content(run.path) == before
    old, new = run.bundle, found.run.bundle
    for name, counts in zip(("user", "item"), occurrences(table), strict=True):
        known = old.encoder.vocabularies[name].values.to_pylist()
        want = [value for value in known if counts[value] >= least]
        assert 0 < len(want) < len(known)
        assert new.encoder.vocabularies[name].values.to_pylist() == want
        told = found.content["ids"][name]
        assert told == {"before": len(known), "dropped": len(known) - len(want)}
        assert f"{told['dropped']} of {len(known)} of {name!r}" in str(found)
    assert new.encoder.vocabularies["tab"] == old.encoder.vocabularies["tab"]
    rows = [one["before"] - one["dropped"] for one in found.content["ids"].values()]
    width = 4
    lost = found.content["parameters"]["before"] - found.content["parameters"]["after"]
    assert lost == width * sum(one["dropped"] for one in found.content["ids"].values())
    assert sum(rows) == sum(new.encoder.vocabularies[name].rows - 1 for name in ("user", "item"))
    kept = {
        name: set(new.encoder.vocabularies[name].values.to_pylist()) for name in ("user", "item")
    }
    lists = table["history"].to_pylist()
    stays = [
        user in kept["user"] and item in kept["item"] and set(row) <= kept["item"]
        for user, item, row in zip(
            table["user"].to_pylist(), table["item"].to_pylist(), lists, strict=True
        )
    ]
    probe = as_domain(table.filter(pa.array(stays)), ["home", None, "mail", "search", "never seen"])
    assert probe.num_rows > 100
    assert bits(new.logits(probe)) == bits(old.logits(probe))
    gone = next(one for one in range(60) if one not in kept["user"])
    assert bits(new.logits(with_values(probe, user=gone))) == bits(
        old.logits(with_values(probe, user=-1))
    )


def test_what_was_dropped_is_told_and_kept(run: isthmus.Run, tmp_path: Path):
    pq.write_table(newer(), tmp_path / "newer.parquet")
    done = isthmus_in_process(
        "prune", run.path, "--unused", tmp_path / "newer.parquet", "--out", tmp_path / "used"
    )
    assert done.exit_code == 0, done.output
    assert "ids that 700 rows do not have at least once removed:" in done.output
    pruned = isthmus.Run.open(tmp_path / "used")
    (record,) = pruned.bundle.history
    assert record == json.loads((tmp_path / "used" / "pruning.json").read_text())
    assert record["unused"] == {"rows": 700, "least": 1}
    assert record["proof"]["probe_rows"] == 4096
    assert pruned.state.parameters == record["parameters"]["after"]
    assert str(tmp_path) not in json.dumps(record)
    assert "Removed: ids that 700 rows" in (tmp_path / "used" / "report.md").read_text()
    with pytest.raises(RunError, match="scored rows must exist"):
        pruned.scored()
    assert pruned.evaluate(data=clicks(300, seed=8)).pooled.auc is not None
    again = prune(pruned, unused=newer(300, seed=4), least=15, out=tmp_path / "again").run
    assert [one["what"] for one in again.bundle.history] == ["prune", "prune"]


def test_the_watched_cells_move_with_their_ids(run: isthmus.Run, tmp_path: Path):
    """The mass of an id that goes counts as unknown; no other mass moves."""
    pruned = prune(run, unused=newer(), out=tmp_path / "used").run
    old, new = run.bundle.profile, pruned.bundle.profile
    assert old is not None
    assert new is not None
    values = pruned.bundle.encoder.vocabularies["user"].values.to_pylist()
    known = run.bundle.encoder.vocabularies["user"].values.to_pylist()
    place = [column.name for column in old.columns].index("user")
    before, after = old.columns[place], new.columns[place]
    held = [known[id - 1] for id in before.ids]
    assert [values[id - 1] for id in after.ids] == [one for one in held if one in values]
    assert (before.size, after.size) == (len(known) + 1, len(values) + 1)
    of = [profile.cells[:, start : start + column.cells] for profile, start, column in (
        (old, old.starts[place], before), (new, new.starts[place], after)
    )]  # fmt: skip
    gone = [at for at, one in enumerate(held, start=1) if one not in values]
    np.testing.assert_allclose(of[1][:, 0], of[0][:, 0] + of[0][:, gone].sum(axis=1))
    np.testing.assert_allclose(of[1].sum(axis=1), of[0].sum(axis=1))
    assert new.cells.shape[1] == sum(column.cells for column in new.columns)


def test_ids_of_a_domain_that_came_later_stay_its_own(run: isthmus.Run, tmp_path: Path):
    extended = extend(run, new_clicks(2000), domain="app", out=tmp_path / "app").run
    rows = pa.concat_tables([newer(), new_clicks(100, seed=7)])
    pruned = prune(extended, unused=rows, out=tmp_path / "used").run
    old, new = extended.bundle.encoder, pruned.bundle.encoder
    assert old.growth is not None
    assert new.growth is not None
    of_fit = set(old.vocabularies["user"].values.to_pylist()[: old.growth.rows["user"] - 1])
    users = new.vocabularies["user"].values.to_pylist()
    assert new.growth.rows["user"] == 1 + sum(one in of_fit for one in users)
    assert 0 < len([one for one in users if one not in of_fit]) < 30
    users, items = (set(new.vocabularies[name].values.to_pylist()) for name in ("user", "item"))
    some = new_clicks(600, seed=9)
    stays = pc.call_function(
        "is_in", [some["user"]], pc.SetLookupOptions(pa.array(users, pa.int32()))
    )
    probe = some.filter(stays)
    listed = [
        item in items and set(row) <= items
        for item, row in zip(probe["item"].to_pylist(), probe["history"].to_pylist(), strict=True)
    ]
    probe = as_domain(probe.filter(pa.array(listed)), ["app", "home", None])
    assert probe.num_rows > 50
    assert bits(pruned.bundle.logits(probe)) == bits(extended.bundle.logits(probe))


def test_parts_of_domains_lose_the_same_rows(cache: Path):
    config = isthmus.load_config(settings(), ["model.calibration=per_domain", "train.epochs=1"])
    dataset = Dataset.from_table(config.data, clicks(), cache=cache)
    models = [
        build_model(config.model, dataset.encoder.fields, dataset.n_domains) for _ in range(2)
    ]
    known = Subset(dataset, domains=["search"]).known
    before = Bundle(
        config=config,
        encoder=dataset.encoder,
        model=models[0],
        parts={"solo": Part(models[1], config.model, known)},
        routes={"search": "solo"},
    )
    kept, rows = kept_ids(before.encoder, newer(), 1)
    after = bundle_without_ids(before, kept)
    assert rows == 700
    probe = as_domain(newer(200, seed=5), ["search", "home"])
    users, items = (
        set(after.encoder.vocabularies[name].values.to_pylist()) for name in ("user", "item")
    )
    assert users <= set(range(LAST_USER))
    assert items <= {f"item {number}" for number in range(LAST_ITEM)}
    assert bits(after.logits(probe)) == bits(before.logits(probe))


def test_the_wide_part_loses_the_same_rows_but_no_crosses(cache: Path):
    def bundle(crosses: list[list[str]]) -> Bundle:
        settled = settings()
        settled["model"] = {
            "backbone": {"name": "wide_deep", "widths": [8], "crosses": crosses},
            "adapter": {"name": "none"},
        }
        config = isthmus.load_config(settled)
        dataset = Dataset.from_table(config.data, clicks(), cache=cache)
        model = build_model(config.model, dataset.encoder.fields, dataset.n_domains)
        for parameter in model.parameters():
            parameter.data.normal_()
        return Bundle(config=config, encoder=dataset.encoder, model=model)

    plain, crossed = bundle([]), bundle([["tab", "item"]])
    kept, _ = kept_ids(plain.encoder, newer(), 1)
    probe = newer(200, seed=5)
    assert bits(bundle_without_ids(plain, kept).logits(probe)) == bits(plain.logits(probe))
    with pytest.raises(BundleError, match=r"no crosses of their columns.*got 'item'"):
        bundle_without_ids(crossed, kept)
    assert (
        bundle_without_ids(crossed, {"user": kept["user"]}).encoder.vocabularies["user"].rows < 61
    )


def test_what_cannot_be_pruned(run: isthmus.Run, tmp_path: Path):
    out = tmp_path / "out"
    for fault, message, changes in (
        (
            RunError,
            "each stands at least 1 times in the 9,000 rows",
            {"unused": clicks(9_000, seed=2)},
        ),
        (RunError, "value of 'user' that stays", {"unused": with_values(newer(), user=77)}),
        (RunError, "least must be 1 or more, got 0", {"unused": newer(), "least": 0}),
        (RunError, "a domain or a table of newer rows", {}),
        (RunError, "a domain or a table of newer rows", {"unused": newer(), "domain": "home"}),
        (SchemaError, "column 'age' must be in", {"unused": newer().drop_columns(["age"])}),
    ):
        with pytest.raises(fault, match=message):
            prune(run, out=out, **changes)
    assert "one of --domain and --unused" in told(isthmus_in_process("prune", run.path))
    assert not out.exists()


def test_statistics_of_values_rest_on_all_of_them(cache: Path):
    config = isthmus.load_config(settings(), ["data.features.user.statistics=true"])
    dataset = Dataset.from_table(config.data, clicks(), cache=cache)
    model = build_model(config.model, dataset.encoder.fields, dataset.n_domains)
    kept, _ = kept_ids(dataset.encoder, newer(), 1)
    with pytest.raises(BundleError, match="no statistics of values and no forest"):
        bundle_without_ids(Bundle(config=config, encoder=dataset.encoder, model=model), kept)
