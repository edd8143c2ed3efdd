"""A fit under a guard, and the bundle of several models that comes out of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

import isthmus
from isthmus import cli
from isthmus.bundle import MANIFEST, Bundle, Part
from isthmus.data import Subset
from isthmus.data.store.rows import stopping_half
from isthmus.errors import BundleError, ConfigError, RunError
from isthmus.models import build_model
from isthmus.run.guard.choosing import ARMS, Guard
from isthmus.run.notice import Notice
from small_runs import clicks, content, settings

ROWS = 900
CHANGES = ("model.calibration=per_domain", "train.patience=1", "train.epochs=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Domains home and search, and mail without a positive row."""
    table = clicks(ROWS)
    mail = np.array(table["tab"].to_pylist()) == "mail"
    click = pa.array(np.where(mail, 0, table["click"].to_numpy()).astype(np.int8))
    return table.set_column(table.column_names.index("click"), "click", click)


@pytest.fixture(scope="module")
def run(folder: Path, table: pa.Table) -> isthmus.Run:
    config = isthmus.load_config(settings(), CHANGES)
    return isthmus.fit(config, table, out=folder / "run", cache=folder / "cache", guard="balanced")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> isthmus.Dataset:
    config = isthmus.load_config(settings())
    return isthmus.Dataset.from_table(config.data, clicks(), cache=folder / "cache")


@pytest.fixture(scope="module")
def bundle(dataset: isthmus.Dataset) -> Bundle:
    """Models that nothing has trained: home and search have their own, mail has none."""
    config = isthmus.load_config(settings())

    def model(seed: int):
        torch.manual_seed(seed)
        made = build_model(config.model, dataset.encoder.fields, dataset.n_domains)
        for table in made.tables():
            torch.nn.init.normal_(table.weight)
        return made

    return Bundle(
        config=config,
        encoder=dataset.encoder,
        model=model(0),
        parts={
            "mine": Part(model(1), config.model, Subset(dataset, domains=["home"]).known),
            "all": Part(model(2), config.model),
        },
        routes={"home": "mine", "search": "all"},
    )


def test_each_half_has_whole_groups_and_about_half_of_the_rows(dataset: isthmus.Dataset):
    rows = dataset.rows("validation")
    stop = stopping_half(rows)
    assert rows.group is not None
    assert not set(rows.group[stop]) & set(rows.group[~stop])
    train = dataset.rows("train")
    train.group, group = None, train.group  # without groups, rows are parted
    alone = stopping_half(train)
    train.group = group
    assert abs(alone.mean() - 0.5) < 0.1


def test_every_row_is_scored_by_the_model_of_its_domain(bundle: Bundle):
    table = clicks().slice(0, 8)
    strange = pa.array(["mars", None] * 4)
    mixed = pa.concat_tables([table, table.set_column(2, "tab", strange)])
    got = bundle.logits(mixed)
    models = {"home": bundle.parts["mine"], "search": bundle.parts["all"]}
    plain = Bundle(config=bundle.config, encoder=bundle.encoder, model=bundle.model)
    for row, tab in enumerate(mixed["tab"].to_pylist()):
        part = models.get(tab)
        one = mixed.slice(row, 1)
        if part is None:
            expected = plain.logits(one)
        else:
            (block,) = plain.score_blocks(one)
            expected = part.logits(block.encoded.batch())
        np.testing.assert_allclose(got[row], expected[0], atol=1e-5)
        np.testing.assert_allclose(bundle.logits(one), expected, atol=1e-5)


def test_a_part_does_not_know_what_its_train_rows_did_not_teach(
    bundle: Bundle, dataset: isthmus.Dataset
):
    part = bundle.parts["mine"]
    assert part.known is not None
    assert part.known.domain.tolist() == [False, True, False, False]
    train = dataset.rows("train")
    users = np.bincount(
        train.arrays.categorical[np.asarray(train.domain) == 1, 0],
        minlength=dataset.encoder.vocabularies["user"].rows,
    )
    # A value of one row alone teaches the unknown.
    assert part.known.categorical[0].tolist() == (users >= 2).tolist()
    assert np.count_nonzero(users == 1) > 0
    # A row of mail, if it came to this part, would be as good as one of an unknown domain.
    places = np.flatnonzero(np.array(clicks()["tab"].to_pylist()) == "mail")[:5]
    mail = clicks().take(pa.array(places))
    mars = mail.set_column(2, "tab", pa.array(["mars"] * 5))
    plain = Bundle(config=bundle.config, encoder=bundle.encoder, model=bundle.model)
    encoded = [next(iter(plain.score_blocks(rows))).encoded.batch() for rows in (mail, mars)]
    np.testing.assert_allclose(part.logits(encoded[0]), part.logits(encoded[1]), atol=1e-6)
    # The batch itself stays as it was.
    assert encoded[0].domain.tolist() == [2] * 5


def test_several_models_are_saved_and_loaded(bundle: Bundle, tmp_path: Path):
    bundle.save(tmp_path / "one")
    again = Bundle.load(tmp_path / "one")
    assert (list(again.parts), again.routes) == (["mine", "all"], bundle.routes)
    np.testing.assert_allclose(again.logits(clicks()), bundle.logits(clicks()), atol=1e-6)
    again.save(tmp_path / "two")
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert json.loads((tmp_path / "one" / MANIFEST).read_text())["format"] == 2
    # One model alone is written as before, so that an older version reads it.
    Bundle(config=bundle.config, encoder=bundle.encoder, model=bundle.model).save(tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / MANIFEST).read_text())
    assert manifest["format"] == 1
    assert "parts" not in manifest
    Bundle.load(tmp_path / "old")
    file = tmp_path / "one" / "parts" / "0.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=r"parts/0\.safetensors is damaged"):
        Bundle.load(tmp_path / "one")
    file.unlink()
    with pytest.raises(BundleError, match=r"parts/0\.safetensors is missing"):
        Bundle.load(tmp_path / "one")


def test_a_route_must_lead_from_a_domain_to_a_part(bundle: Bundle):
    for routes in ({"mars": "mine"}, {"home": "yours"}):
        with pytest.raises(ValueError, match="from a trained domain to a part"):
            Bundle(
                config=bundle.config,
                encoder=bundle.encoder,
                model=bundle.model,
                parts=bundle.parts,
                routes=routes,
            )


def test_the_bundle_scores_as_the_run_did(run: isthmus.Run, table: pa.Table):
    for split in ("validation", "test"):
        scored = run.scored(split)
        np.testing.assert_allclose(run.bundle.logits(table)[scored.row], scored.logits, atol=1e-4)
    assert run.bundle.calibration is not None
    assert run.bundle.profile is not None
    figures = run.evaluate("validation").domains
    for place, name in enumerate(run.bundle.domains, start=1):
        if figures[name].auc is not None:
            assert run.bundle.profile.auc[place] == pytest.approx(figures[name].auc, rel=1e-7)
    alone = np.concatenate([run.bundle.score(table.slice(row, 1)) for row in range(5)])
    np.testing.assert_allclose(alone, run.bundle.score(table)[:5], atol=1e-6)


def test_what_was_chosen_is_what_is_shipped_and_what_is_told(run: isthmus.Run):
    told = json.loads((run.path / "guard.json").read_text())
    assert (told["guard"], told["promise"], told["margin"]) == ("balanced", None, 0.005)
    assert told["trainings"] == {"trained": 12, "cached": 0}
    chosen = {name: domain["arm"] for name, domain in told["domains"].items()}
    assert set(chosen) == {"home", "mail", "search"}
    assert chosen["mail"] == "joint"
    assert "hold 0 positives, both classes are needed" in told["domains"]["mail"]["why"]
    names = {"adapted": "adapted"}
    assert run.bundle.routes == {
        domain: names.get(arm, f"{arm}:{domain}")
        for domain, arm in chosen.items()
        if arm != "joint"
    }
    for domain in ("home", "search"):
        of = told["domains"][domain]
        standings = {arm: one["difference"] for arm, one in of["standings"].items()}
        assert set(standings) == set(ARMS) - {"solo"}
        best = max(standings.values())
        assert (of["arm"] == "solo") == (best <= 0)
        area = run.evaluate().domains[domain].auc
        assert of["test"]["auc"]["served"] == pytest.approx(area, abs=1e-9)
        assert of["test"]["auc"][of["arm"]] == pytest.approx(area, abs=1e-9)
    report = (run.path / "report.md").read_text()
    assert "guard balanced: what serves each domain" in report
    assert "No promise" in report
    strict = {name: domain["other"] for name, domain in told["domains"].items()}
    # So few rows prove nothing: strict leaves each domain alone that can be.
    assert strict == {"home": "solo", "mail": "joint", "search": "solo"}
    assert "served by" in str(run.guard())
    assert run.state.guard == "balanced"
    assert not (run.path / "trainings").exists()


def test_trackers_are_told_of_the_test_rows_alone(run: isthmus.Run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run.path)).Reload()
    (told,) = board.Scalars("test/auc_pooled")
    assert told.value == pytest.approx(run.evaluate().pooled.auc)
    assert not [name for name in board.Tags()["scalars"] if not name.startswith("test/")]


def test_a_stopped_fit_goes_on_and_ends_the_same(run: isthmus.Run, folder: Path, table: pa.Table):
    config = isthmus.load_config(settings(), CHANGES)
    out = folder / "stopped"

    def stop(notice: Notice) -> None:
        if notice.text.startswith("joint, adapted and solo: 7"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        isthmus.fit(config, table, out=out, cache=folder / "cache", guard="balanced", progress=stop)
    for other in (None, "strict"):
        with pytest.raises(RunError, match=r"with the guard it began with, balanced, got "):
            isthmus.fit(config, table, out=out, cache=folder / "cache", guard=other, resume=True)
    again = isthmus.fit(
        config, table, out=out, cache=folder / "cache", guard="balanced", resume=True
    )
    assert json.loads((out / "guard.json").read_text())["trainings"] == {"trained": 5, "cached": 7}
    assert content(again.path / "bundle") == content(run.path / "bundle")
    finished = isthmus.fit(
        config, table, out=out, cache=folder / "cache", guard="balanced", resume=True
    )
    assert finished.path == out
    shutil.rmtree(out)


def test_what_a_guard_cannot_do_is_refused_and_leaves_no_folder(folder: Path, table: pa.Table):
    out = folder / "refused"
    for guard, changes, text in (
        ("weak", [], "guard must be strict or balanced, got 'weak'"),
        ("strict", ["model.adapter.name=hamur_released"], "for reproduction only"),
        ("strict", ["data.weight=day"], "data.weight must be left out, got 'day'"),
    ):
        config = isthmus.load_config(settings(), changes)
        with pytest.raises(ConfigError, match=text):
            isthmus.fit(config, table, out=out, guard=guard)  # pyright: ignore[reportArgumentType]
        assert not out.exists()
    config = isthmus.load_config(settings(), ["train.lr=1e30"])
    with pytest.raises(RunError, match=r"a training on home with seed 0: .* must stay finite"):
        isthmus.fit(config, table, out=out, cache=folder / "cache", guard="strict")
    assert not out.exists()


def test_the_command_line_takes_a_guard(monkeypatch: pytest.MonkeyPatch, run: isthmus.Run):
    asked = {}

    def fit(config, **options) -> isthmus.Run:
        asked.update(options)
        return run

    monkeypatch.setattr(isthmus, "fit", fit, raising=False)
    told = CliRunner().invoke(cli.app, ["fit", "c.yaml", "--guard", "balanced", "--jobs", "2"])
    assert told.exit_code == 0, told.output
    assert (asked["guard"], asked["jobs"]) == ("balanced", 2)
    assert str(run.guard()) in told.stdout
    wrong = CliRunner().invoke(cli.app, ["fit", "c.yaml", "--guard", "lax"])
    assert wrong.exit_code == 2
    assert "--guard must be strict or balanced, got 'lax'" in wrong.output


@pytest.mark.parametrize("guard", ["strict", "balanced"])
def test_strict_says_before_it_trains_where_too_few_rows_decide(
    folder: Path, table: pa.Table, guard: Guard
):
    told: list[str] = []

    def stop(notice: Notice) -> None:
        told.append(str(notice))
        if notice.text.startswith("joint, adapted and solo: 1 "):
            raise KeyboardInterrupt

    config = isthmus.load_config(settings(), CHANGES)
    with pytest.raises(KeyboardInterrupt):
        isthmus.fit(
            config,
            table,
            out=folder / f"few-{guard}",
            cache=folder / "cache",
            guard=guard,
            progress=stop,
        )
    few = [line for line in told if "fewer than 1,000 validation rows to decide by" in line]
    assert len(few) == (guard == "strict")
    if few:
        assert few[0].startswith("train: 2 of 2 domains")
