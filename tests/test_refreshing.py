"""refresh, prune and diff: newer rows, a domain that goes, and what changed between two bundles."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from command_line import isthmus_in_process, told
from grown_tables import as_domain, clicks, new_clicks
from isthmus.bundle import Bundle, Part
from isthmus.data import Subset
from isthmus.errors import BundleError, RunError, SchemaError
from isthmus.extending import diff, extend, prune, refresh
from isthmus.extending.difference import NONE, NOT_TRAINED
from isthmus.extending.pruning.without_domain import pruned_bundle
from isthmus.metrics import auc as area
from isthmus.models import build_model
from small_runs import content, settings

COUNTED = [
    *(f"data.features.{name}.statistics=true" for name in ("user", "item", "history")),
    "data.trees={least_rows: 5}",
    "model.calibration=per_domain",
    "train.epochs=1",
]


def bits(scores: np.ndarray) -> bytes:
    return np.ascontiguousarray(scores).tobytes()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoded")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> isthmus.Run:
    """A run with lists, an adapter, statistics, a forest and calibration."""
    folder = tmp_path_factory.mktemp("runs")
    return isthmus.fit(settings(), clicks(), out=folder / "run", cache=cache, set=COUNTED)


@pytest.fixture(scope="module")
def extended(run: isthmus.Run) -> isthmus.Run:
    return extend(run, new_clicks(300), domain="app", out=run.path.with_name("app")).run


@pytest.mark.parametrize("domain", ["home", "mail", "search"])
def test_a_domain_that_goes_gets_the_unknown_answer_and_the_others_stay(
    run: isthmus.Run, tmp_path: Path, domain: str
):
    before = content(run.path)
    pruned = prune(run, domain=domain, out=tmp_path / "pruned").run
    assert content(run.path) == before
    kept = [name for name in run.bundle.domains if name != domain]
    assert list(pruned.bundle.domains) == kept
    rows = clicks(300, seed=4)
    probe = as_domain(rows, [*kept, None, "never seen"])
    assert bits(run.bundle.logits(probe)) == bits(pruned.bundle.logits(probe))
    gone, nowhere = as_domain(rows, [domain]), as_domain(rows, ["never seen"])
    assert bits(pruned.bundle.logits(gone)) == bits(pruned.bundle.logits(nowhere))
    for name, tensor in pruned.bundle.model.domain_parameters().items():
        assert len(tensor) == len(run.bundle.model.domain_parameters()[name]) - 1
    assert domain not in pruned.evaluate().domains
    watched = pruned.bundle.profile
    assert watched is not None
    assert watched.names == tuple(kept)
    assert (pruned.scored().domain > 0).sum() == (run.scored().domain > 0).sum() - sum(
        run.scored().domain == run.scored().names.index(domain) + 1
    )


def test_a_domain_that_came_can_go_and_another_can_come(extended: isthmus.Run, tmp_path: Path):
    """Each step leaves the others' scores as they were, and the ids of those that went are not reused."""
    new = new_clicks(300, seed=9, domain="web")
    second = extend(extended, new, domain="web", out=tmp_path / "web").run
    pruned = prune(second, domain="app", out=tmp_path / "pruned").run
    third = new_clicks(300, seed=10, domain="tv")
    last = extend(pruned, third, domain="tv", out=tmp_path / "tv").run
    assert last.bundle.domains == ("home", "mail", "search", "web", "tv")
    probe = as_domain(new, ["home", None, "web", "search"])
    for one in (pruned, last):
        assert bits(one.bundle.logits(probe)) == bits(second.bundle.logits(probe))
    assert [record["what"] for record in last.bundle.history] == [
        "extend", "extend", "prune", "extend",
    ]  # fmt: skip
    with pytest.raises(RunError, match="scored rows must exist"):
        prune(extended, domain="app", out=tmp_path / "back").run.scored()


def test_parts_of_domains_that_stay_stay(cache: Path, run: isthmus.Run):
    config = isthmus.load_config(settings(), COUNTED)
    dataset = isthmus.Dataset.from_table(config.data, clicks(), cache=cache)
    models = [
        build_model(config.model, dataset.encoder.fields, dataset.n_domains) for _ in range(3)
    ]
    known = Subset(dataset, domains=["search"]).known
    before = Bundle(
        config=config,
        encoder=dataset.encoder,
        model=models[0],
        parts={
            "solo": Part(models[1], config.model, known),
            "of home": Part(models[2], config.model),
        },
        routes={"search": "solo", "home": "of home"},
    )
    after = pruned_bundle(before, "home")
    assert list(after.parts) == ["solo"]
    probe = as_domain(clicks(200, seed=2), ["mail", "search", None])
    assert bits(before.logits(probe)) == bits(after.logits(probe))
    gone = as_domain(clicks(200, seed=2), ["home"])
    assert bits(after.logits(gone)) == bits(after.logits(as_domain(gone, ["never seen"])))


def test_what_cannot_be_pruned(run: isthmus.Run, tmp_path: Path):
    with pytest.raises(RunError, match="must be one of home, mail, search, got 'app'"):
        prune(run, domain="app", out=tmp_path / "pruned")
    one = pruned_bundle(pruned_bundle(run.bundle, "home"), "mail")
    with pytest.raises(RunError, match="'search' is its last one"):
        pruned_bundle(one, "search")


def newer(rows: int = 900, *, seed: int = 21) -> pa.Table:
    """Rows of two old domains, with new users and items, whose taste has turned."""
    return as_domain(new_clicks(rows, seed=seed), ["home", "mail"])


def test_newer_rows_train_on_and_both_are_compared(run: isthmus.Run, tmp_path: Path):
    before = content(run.path)
    table = newer()
    found = refresh(run, table, out=tmp_path / "new")
    assert content(run.path) == before
    assert found.worse == ()
    assert found.run is not None
    assert list(found.comparison.domains) == ["home", "mail"]
    scored = found.run.scored("test")
    np.testing.assert_allclose(
        found.run.bundle.logits(table)[scored.row], scored.logits, rtol=0, atol=1e-5
    )
    old = run.bundle.logits(table)[scored.row]
    assert found.comparison.pooled.auc.a == pytest.approx(area(old, scored.label))
    assert found.comparison.pooled.logloss.b is not None
    (block,) = found.run.bundle.score_blocks(as_domain(table, ["search"]))
    assert (block.encoded.categorical[:, 0] > 60).any()  # every domain sees the new ids
    record = found.run.bundle.history[-1]
    assert record["what"] == "refresh"
    assert sum(record["rows"].values()) == table.num_rows


def test_ids_of_a_domain_that_came_are_seen_by_all_after_a_refresh(
    extended: isthmus.Run, tmp_path: Path
):
    probe = as_domain(new_clicks(200), ["home"])
    (before,) = extended.bundle.score_blocks(probe)
    assert before.encoded.categorical[:, 0].max() <= 60
    found = refresh(extended, as_domain(new_clicks(600), ["home", "app"]), out=tmp_path / "new")
    if found.run is not None:
        (after,) = found.run.bundle.score_blocks(probe)
        assert after.encoded.categorical[:, 0].max() > 60


def test_a_worse_model_is_not_written(run: isthmus.Run, tmp_path: Path):
    """The newer train rows say the opposite of the validation and test rows: a day that went wrong."""
    table = clicks(6000, seed=33)
    wild = isthmus.Run(
        run.path,
        run.config.model_copy(
            update={
                "train": run.config.train.model_copy(
                    update={"lr": 3.0, "epochs": 1, "embedding_l2": 0.0}
                )
            }
        ),
        run.state,
    )
    found = refresh(wild, table, out=tmp_path / "new")
    assert found.worse
    assert found.run is None
    assert not (tmp_path / "new").exists()
    assert "nothing was written: the new model is worse on" in str(found)


def test_a_refresh_needs_a_trained_domain(run: isthmus.Run, tmp_path: Path):
    with pytest.raises(SchemaError, match="must name a trained domain in some row"):
        refresh(run, new_clicks(100), out=tmp_path / "new")
    forest = isthmus.fit(
        {**settings(), "model": {"name": "trees"}},
        clicks(),
        out=tmp_path / "trees",
        set=["data.trees={least_rows: 5}"],
    )
    with pytest.raises(BundleError, match="one network alone, got a forest alone"):
        refresh(forest, newer(100), out=tmp_path / "new")


def test_what_changed_between_two_bundles(run: isthmus.Run, extended: isthmus.Run):
    table = as_domain(new_clicks(100), ["home", "app", None, "never seen"])
    found = diff(run, extended, table=table)
    assert (found.added, found.removed) == (("app",), ())
    assert found.kept == ("home", "mail", "search")
    users = found.vocabularies["user"]
    assert users.added == users.b - users.a > 0
    assert (users.removed, users.moved) == (0, 0)
    for name in ("home", NONE, NOT_TRAINED):
        assert found.scores[name].same == found.scores[name].rows == 25
        assert (found.scores[name].mean, found.scores[name].largest) == (0, 0)
        assert found.scores[name].rank_correlation == pytest.approx(1)
    ours, theirs = run.bundle.score(table), extended.bundle.score(table)
    app = slice(1, None, 4)
    assert found.scores["app"].mean == pytest.approx((theirs - ours)[app].mean())
    assert found.scores["app"].largest == pytest.approx(np.abs(theirs - ours)[app].max())
    back = diff(extended, run)
    assert back.removed == ("app",)
    assert back.vocabularies["user"].removed == users.added
    assert found.metrics["home"][0] == run.evaluate().domains["home"].auc
    assert found.metrics["app"][0] is None
    assert "app" in str(found)


def test_ids_that_moved_are_counted(run: isthmus.Run, tmp_path: Path, cache: Path):
    other = isthmus.fit(
        settings(epochs=1, lr=0.02), clicks(seed=1), out=tmp_path / "other", cache=cache
    )
    found = diff(run.path / "bundle", other.path / "bundle")
    a, b = (one.bundle.encoder.vocabularies["item"].values.to_pylist() for one in (run, other))
    both = set(a) & set(b)
    assert found.vocabularies["item"].moved == sum(a.index(one) != b.index(one) for one in both)
    assert any("train.lr was 0.01, is 0.02" in text for text in found.config)
    assert not found.metrics


def test_from_the_command_line(run: isthmus.Run, extended: isthmus.Run, tmp_path: Path):
    pq.write_table(newer(400), tmp_path / "newer.parquet")
    target = tmp_path / "pruned"
    done = isthmus_in_process("prune", extended.path, "--domain", "app", "--out", target)
    assert done.exit_code == 0, done.output
    assert "domain 'app' removed" in done.output
    json_file = tmp_path / "diff.json"
    done = isthmus_in_process(
        "diff", run.path, target, "--table", tmp_path / "newer.parquet", "--json", json_file
    )
    assert done.exit_code == 0, done.output
    found: Any = json.loads(json_file.read_text())
    assert found["added"] == found["removed"] == []
    assert found["scores"]["home"]["same"] == 200
    done = isthmus_in_process(
        "refresh", run.path, tmp_path / "newer.parquet", "--out", tmp_path / "new"
    )
    assert done.exit_code in (0, 1), done.output
    assert (tmp_path / "new").exists() == (done.exit_code == 0)
    nothing = isthmus_in_process("diff", run.path, tmp_path / "nothing")
    assert "a run folder or a bundle must exist" in told(nothing)
