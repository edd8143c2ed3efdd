"""Training in phases: what is frozen keeps every bit, a phase never makes things worse, all resumes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import isthmus
from by_method import (
    MLORA,
    assert_same,
    by_phases,
    make_dataset,
    make_model,
    moved,
    run,
    settings,
    states,
)
from isthmus.config import validate
from isthmus.data import Dataset
from isthmus.errors import ConfigError
from isthmus.train import Budget, TrainConfig, train
from isthmus.train.course import courses
from isthmus.train.methods import Phase
from resumed import in_pieces
from small_runs import settings as run_settings
from small_runs import write_table

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("cache"))


def norms(name: str) -> bool:
    return any(word in name for word in ("running", "num_batches", "own_", "pooled_"))


@pytest.mark.parametrize("update", ["dense", "lazy"])
@pytest.mark.parametrize(("adapter", "norm"), [("mlora", "batch"), ("hamur", "domain")])
def test_each_phase_moves_its_parts_and_their_norms_alone(
    dataset: Dataset, adapter: str, norm: str, update: str
):
    model = make_model(dataset, adapter, norm=norm)
    config = by_phases(embedding_update=update)
    found = {1: set(), 2: set()}
    before: dict[str, torch.Tensor] | None = None
    kept: set[str] = set()
    for state in states(model, dataset, config):
        if before is not None and state.step > state.phase_step + 1:
            found[state.phase] |= moved(before, state.model)
        before = state.model
        if state.phase == 2:
            kept |= {name.partition(".")[2] for name in state.optimiser}
    own = {name for name in model.state_dict() if name.startswith("adapter.")}
    statistics = {name for name in own if norms(name)}
    assert found[1] == set(model.state_dict()) - own
    assert found[2] == own if adapter == "mlora" else found[2] >= statistics
    assert found[2] <= own
    assert any(norms(name) for name in found[1])
    assert bool(statistics) == (adapter == "hamur")
    assert {name for name in kept if name} <= own, "a frozen part has no optimiser state"


def test_a_frozen_norm_scores_by_its_past_and_dropout_stays(dataset: Dataset):
    model = make_model(dataset)
    batch_norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d)]
    assert batch_norms
    for event in train(model, dataset, by_phases()):
        if getattr(event, "phase", 0) == 2:  # a look: the model is back in training
            assert all(not part.training for part in batch_norms)
            assert model.training
            assert model.backbone.training
            assert all(not p.requires_grad for p in model.backbone.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(part.training for part in model.modules())


def test_a_training_that_is_left_leaves_nothing_frozen(dataset: Dataset):
    model = make_model(dataset)
    model.head.weight.requires_grad_(False)  # by the caller
    events = train(model, dataset, by_phases())
    next(events)
    assert not next(model.adapter.parameters()).requires_grad  # pyright: ignore[reportOptionalMemberAccess]
    events.close()
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["head.weight"]


def test_one_phase_of_everything_is_joint(dataset: Dataset):
    joint, phased = make_model(dataset), make_model(dataset)
    looks, _ = run(joint, dataset, settings(patience=1))
    every = {"trains": ["inputs", "backbone", "adapter", "head"]}
    assert run(phased, dataset, by_phases(every, patience=1))[0] == looks
    assert_same(joint, phased)


def test_a_later_phase_begins_at_the_best_look_and_never_makes_things_worse(dataset: Dataset):
    ruinous = [MLORA[0], {"trains": ["domains"], "lr": 30.0, "epochs": 1}]
    model, first = make_model(dataset), make_model(dataset)
    looks, end = run(model, dataset, by_phases(*ruinous, monitor="logloss_pooled"))
    shared, end_first = run(first, dataset, by_phases(MLORA[0], monitor="logloss_pooled"))
    assert looks[: len(shared)] == shared
    start = looks[len(shared)]
    assert (start.phase, start.start, start.better) == (2, True, True)
    assert start.metrics == end_first.best.metrics
    assert start.loss == end_first.best.loss
    assert not any(look.better for look in looks[len(shared) + 1 :])
    assert len(looks) == len(shared) + 1 + 2
    assert end.best == start
    assert_same(model, first)


def test_each_phase_has_its_own_epochs_rate_and_patience(dataset: Dataset):
    model = make_model(dataset)
    phases = [{"trains": ["backbone"], "epochs": 3}, {"trains": ["head"], "lr": 1e-9}]
    seen = list(states(model, dataset, by_phases(*phases, patience=1)))
    assert [state.optimiser["lr"] for state in (seen[0], seen[-1])] == [0.02, 1e-9]
    steps = dataset.rows("train").steps(100)
    assert seen[-1].phase_step <= 3 * steps
    # A rate of nothing brings no better look: patience ends phase 2 after an epoch's looks.
    assert seen[-1].step - seen[-1].phase_step <= steps
    assert seen[-1].stale_looks in (0, 2)


@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_resuming_in_any_phase_gives_the_same_bits(dataset: Dataset, tmp_path: Path, update: str):
    config = by_phases(
        *MLORA,
        embedding_update=update,
        clip_norm=1.0,
        weighting="uncertainty",
        objectives=[{"name": "domain_classifier", "reverse": True}],
    )
    whole, again = make_model(dataset), make_model(dataset)
    looks, end = run(whole, dataset, config)
    run(again, dataset, config)
    assert_same(whole, again)
    second = next(look.step for look in looks if look.start)
    stops = [1, 4, second, second + 1, second + 4, end.step]
    model, told, last = in_pieces(
        lambda seed: make_model(dataset, seed=seed), dataset, config, stops, tmp_path
    )
    assert told == looks
    assert (last.best, last.history, last.stopped) == (end.best, end.history, end.stopped)
    assert_same(whole, model)


@pytest.mark.parametrize(
    "changes",
    [
        {"weighting": "gradnorm"},
        {"weighting": "uniform", "objectives": [{"name": "domain_classifier"}]},
        {"weighting": "pcgrad"},
        {"domain_sampling": 0.5, "weighting": "dwa"},
    ],
)
def test_phases_go_with_weightings_and_objectives(dataset: Dataset, changes: dict[str, Any]):
    phases = [{"trains": ["inputs", "backbone"]}, {"trains": ["head", "adapter"]}]
    looks, _ = run(make_model(dataset), dataset, by_phases(*phases, **changes))
    assert {look.phase for look in looks} == {1, 2}


def test_a_weighting_that_a_later_phase_cannot_use_is_refused_before_training(dataset: Dataset):
    model = make_model(dataset)
    with pytest.raises(ConfigError, match="'pcgrad' needs dense parameters that domains share"):
        next(train(model, dataset, by_phases(weighting="pcgrad")))
    assert all(p.requires_grad for p in model.parameters())


def test_a_budget_is_shared_among_the_phases(dataset: Dataset):
    phases = [Phase("a", 3, 0.1), Phase("b", 1, 0.1)]
    found = courses(phases, 7, settings(), Budget(steps=9, looks=4))
    assert [one.steps for one in found] == [6, 3]
    assert [len(one.look_steps) for one in found] == [3, 1]
    looks, end = run(make_model(dataset), dataset, by_phases(), Budget(steps=9, looks=4))
    assert (end.step, end.stopped) == (9, "budget")
    assert sum(not look.start for look in looks) == 4
    with pytest.raises(ConfigError, match="a step for each of the 2 phases"):
        courses(phases, 7, settings(), Budget(steps=1, looks=1))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("adaptr", r"phases\[1\].trains must name parts of the network, inputs, backbone, adapter,"
         r" head, domains, got 'adaptr'; did you mean 'adapter'\?"),
        ("adapter.cels", r"got 'adapter.cels'; did you mean 'adapter.cells'\?"),
        ("back", r"got 'back'"),
    ],
)  # fmt: skip
def test_a_part_that_is_not_there_is_named_with_those_that_are(
    dataset: Dataset, part: str, message: str
):
    config = by_phases(MLORA[0], {"trains": [part]})
    with pytest.raises(ConfigError, match=message):
        next(train(make_model(dataset), dataset, config))


def test_domains_of_a_network_that_declares_none_are_refused(dataset: Dataset):
    model = make_model(dataset, "none")
    with pytest.raises(ConfigError, match="inputs, backbone, head, got 'domains'"):
        next(train(model, dataset, by_phases({"trains": ["domains"]})))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "phases"}, "train.method.phases.* is required"),
        ({"name": "phases", "phases": []}, r"train.method.phases .* at least 1"),
        ({"name": "phases", "phases": [{"trains": []}]}, r"phases\[0\].trains .* at least 1"),
        ({"name": "phases", "phases": [{"trains": ["head"], "lr": 0}]}, r"phases\[0\].lr .* 0"),
        ({"name": "phase"}, "did you mean 'phases'"),
        ({"name": "joint", "phases": []}, "unknown key 'train.method.phases'"),
    ],
)
def test_a_bad_section_is_refused(method: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        validate(isthmus.Config, {**run_settings(), "train": {"method": method}})


def test_a_config_without_a_method_is_joint():
    assert TrainConfig().method.name == "joint"
    changed = isthmus.load_config(
        {**run_settings(), "train": {"method": {"name": "phases", "phases": [{"trains": ["a"]}]}}},
        ["train.method.name=joint"],
    )
    assert changed.train == replace_method(changed.train)


def replace_method(train_config: TrainConfig) -> TrainConfig:
    return train_config.model_copy(update={"method": TrainConfig().method})


def test_a_run_says_its_method_and_its_phases(tmp_path: Path):
    table = write_table(tmp_path)
    raw = run_settings()
    raw["model"] = {"backbone": {"name": "mlp", "widths": [8]}, "adapter": {"name": "mlora"}}
    raw["train"] |= {
        "epochs": 2,
        "method": {
            "name": "phases",
            "phases": [MLORA[0], {"trains": ["adapter"], "lr": 1e-12, "epochs": 1}],
        },
    }
    done = isthmus.fit(raw, table, tmp_path / "run", cache=tmp_path / "cache")
    lines = [json.loads(line) for line in (done.path / "metrics.jsonl").read_text().splitlines()]
    assert {line["method"] for line in lines} == {"phases"}
    assert {line["phase"] for line in lines} == {1, 2}
    assert sum(line["start"] for line in lines) == 1
    report = (done.path / "report.md").read_text()
    assert "- Method: phases; phase 1 trains inputs, backbone, head: auc_pooled" in report
    assert "phase 2 trains adapter" in report
    again = isthmus.fit(done.config, table, tmp_path / "again", cache=tmp_path / "cache")
    assert (again.path / "metrics.jsonl").read_text() == (done.path / "metrics.jsonl").read_text()


@pytest.mark.parametrize("method", ["phases", "mamdr"])
def test_what_compares_joint_trainings_refuses_other_methods(tmp_path: Path, method: str):
    raw = run_settings()
    phases = {"phases": [{"trains": ["head"]}]} if method == "phases" else {}
    raw["train"]["method"] = {"name": method, **phases}
    table = write_table(tmp_path)
    with pytest.raises(ConfigError, match=f"train.method must be 'joint', got '{method}'"):
        isthmus.diagnose(raw, table, tmp_path / "diagnosis")
    with pytest.raises(ConfigError, match=f"train.method must be 'joint', got '{method}'"):
        isthmus.fit(raw, table, tmp_path / "run", guard="strict")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_looks_and_states_of_an_earlier_release_are_joint(dataset: Dataset):
    config = settings()
    state = next(states(make_model(dataset), dataset, config))
    older = {name: value for name, value in state.config.items() if name != "method"}
    events = train(make_model(dataset), dataset, config, state=replace(state, config=older))
    assert next(events) is not None
    events.close()
