"""Training: planted data whose best answer is known, early stop, and the same bits twice."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from isthmus.data.batch import Batch
from isthmus.errors import ConfigError, RunError, SchemaError
from isthmus.metrics import evaluate
from isthmus.train import End, Look, Progress, TrainConfig, score_rows, watch_metrics
from planted_rows import (
    Constant,
    Deep,
    Linear,
    assert_same,
    begin,
    config,
    fit,
    planted,
    split,
    states,
    weights,
)

# What training reaches


def test_planted_data_is_learnt_as_well_as_it_can_be():
    data = planted(rows=20_000, validation=20_000)
    end, _ = fit(Linear(), data, epochs=5, domain_dropout=0.0)
    best = watch_metrics(data.truth, split(data), 3)
    for name, reached in end.best.metrics.items():
        wanted = best[name]
        assert reached is not None
        assert wanted is not None
        assert reached == pytest.approx(wanted, abs=0.004), name


def test_looks_stand_evenly_in_an_epoch_and_at_its_end():
    end, looks = fit(Linear(), planted(rows=7 * 256), epochs=2)
    assert [look.step for look in looks] == [2, 4, 6, 7, 9, 11, 13, 14]
    assert looks[3].epoch == 1.0
    assert end.history == tuple(looks)
    assert end.stopped == "epochs"
    # An epoch with fewer steps than looks has one at each step.
    assert [look.step for look in fit(Linear(), planted(rows=300), epochs=1)[1]] == [1, 2]


def test_looks_tell_the_loss_of_the_steps_since_the_last_one():
    data = planted()
    data.train.label[:] = data.validation.label[:] = np.arange(4000) % 2
    _, looks = fit(Constant(), data, epochs=1)
    assert [look.loss for look in looks] == pytest.approx([math.log(2)] * 4)


def test_patience_counts_epochs_of_looks_without_a_better_one():
    for patience, looks_per_epoch in ((1, 4), (2, 3)):
        end, looks = fit(
            Constant(), planted(), epochs=9, patience=patience, looks_per_epoch=looks_per_epoch
        )
        assert len(looks) == 1 + patience * looks_per_epoch
        assert [look.better for look in looks] == [True] + [False] * (len(looks) - 1)
        assert end.stopped == "patience"
        assert end.best == looks[0]


@pytest.mark.parametrize("monitor", ["auc_pooled", "logloss_pooled"])
@pytest.mark.parametrize("stopped", ["patience", "epochs"])
def test_the_best_weights_come_back_whatever_stops_training(monitor: str, stopped: str):
    data = planted(rows=512, validation=2000)
    torch.manual_seed(0)
    model = Deep()
    kept = []
    limits = {"epochs": 60, "patience": 2} if stopped == "patience" else {"epochs": 20}
    settings = config(lr=0.03, monitor=monitor, **{"patience": 60, **limits})
    end = None
    for event in begin(model, data, settings):
        if isinstance(event, Look):
            kept.append((event.metrics[monitor], weights(model)))
        end = event
    assert isinstance(end, End)
    assert end.stopped == stopped
    values = [value for value, _ in kept]
    best = np.argmax(values) if monitor == "auc_pooled" else np.argmin(values)
    assert best < len(kept) - 1, "the last weights must not be the best, or this shows nothing"
    assert_same(weights(model), kept[best][1])
    assert end.best.metrics[monitor] == values[best]
    after = watch_metrics(score_rows(model, split(data)), split(data), 3)
    assert after == end.best.metrics


def test_watched_metrics_are_those_of_evaluate():
    rng = np.random.default_rng(0)
    data = planted(validation=600)
    rows = data.validation
    rows.domain = rng.choice([0, 1, 2, 3], 600, p=[0.1, 0.5, 0.3, 0.1])
    rows.label[rows.domain == 3] = 0
    logits = rng.normal(size=600).round(1)
    for weight in (None, rng.random(600).astype(np.float32) + 0.5):
        rows.weight = weight
        watched = watch_metrics(logits, split(data), 3)
        full = evaluate(
            split="validation",
            logits=logits,
            label=rows.label,
            domain=rows.domain,
            names=("a", "b", "c"),
            weight=None if weight is None else weight.astype(np.float64),
        )
        for scope in ("pooled", "macro", "weighted", "worst"):
            assert watched[f"auc_{scope}"] == pytest.approx(getattr(full, scope).auc), scope
        assert watched["logloss_pooled"] == pytest.approx(full.pooled.logloss)
        assert watched["logloss_macro"] == pytest.approx(full.macro.logloss)
        of_domains = [of.logloss for of in full.domains.values() if of.logloss is not None]
        assert watched["logloss_worst"] == pytest.approx(max(of_domains))


def test_weights_of_rows_reach_the_loss():
    # Domain a wants the opposite of the others; a heavy weight on it decides.
    data = planted()
    rows = data.train
    rows.label = (rows.x[:, 0] > 0).astype(np.float32)
    rows.label[rows.domain == 1] = 1 - rows.label[rows.domain == 1]
    rows.weight = np.where(rows.domain == 1, 100, 1).astype(np.float32)
    model = Linear()
    fit(model, data, epochs=1, monitor="logloss_pooled")
    heavy = model.weight[0].item()
    rows.weight = np.ones(len(rows), dtype=np.float32)
    model = Linear()
    fit(model, data, epochs=1, monitor="logloss_pooled")
    assert heavy < 0 < model.weight[0].item()


def test_clip_norm_bounds_the_step():
    data = planted()
    clipped, free = Linear(), Linear()
    fit(clipped, data, epochs=1, clip_norm=1e-9)
    fit(free, data, epochs=1)
    # Adam divides by the gradient's size, except where that is as small as its epsilon, 1e-8.
    assert 0 < clipped.weight.abs().max() < 0.2 * free.weight.abs().max()


def test_compile_wraps_the_step_and_not_the_scoring(monkeypatch: pytest.MonkeyPatch):
    modes = []

    def compiled(model):
        def forward(batch):
            modes.append(model.training)
            return model(batch)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    fit(Linear(), planted(), epochs=1, compile=True)
    assert modes == [True] * 16


# The unknown domain


def test_domain_dropout_trains_the_unknown_domain():
    data = planted(rows=20_000)
    data.train.label[:] = 1  # every offset should rise
    trained, untrained = Linear(), Linear()
    fit(trained, data, domain_dropout=0.05, epochs=1)
    fit(untrained, data, domain_dropout=0.0, epochs=1)
    assert trained.offset.weight[0].item() > 0.5
    assert untrained.offset.weight[0].item() == 0
    data.validation.domain[:] = 9  # never trained: the model sees 0
    assert np.isfinite(score_rows(trained, split(data))).all()


def test_domain_dropout_hides_the_stated_share_from_the_model_altogether():
    seen = []

    class Spy(Linear):
        def forward(self, batch: Batch) -> torch.Tensor:
            if self.training:
                assert torch.equal(batch.categorical[:, 0].long(), batch.domain)
                seen.append((batch.domain == 0).float().mean().item())
            return super().forward(batch)

    data = planted(rows=20_000)
    fit(Spy(), data, domain_dropout=0.1, epochs=1)
    assert np.mean(seen) == pytest.approx(0.1, abs=0.01)
    assert len(set(seen)) > 10


# The same bits


def test_one_seed_gives_one_result_and_leaves_the_callers_numbers_alone():
    data = planted()
    first, second, other = Linear(dropout=0.5), Linear(dropout=0.5), Linear(dropout=0.5)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(first, data)
    assert torch.rand(1) == expected
    for _ in begin(second, data, config()):
        torch.manual_seed(int(torch.randint(1000, ())))  # must not matter
    fit(other, data, seed=1)
    assert_same(weights(first), weights(second))
    assert not torch.equal(first.weight, other.weight)


def test_a_loop_that_is_left_gives_the_callers_numbers_back():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    events = begin(Linear(dropout=0.5), planted(), config())
    next(events)
    events.close()
    assert torch.rand(1) == expected


def test_checkpoints_come_when_they_are_due(monkeypatch: pytest.MonkeyPatch):
    data = planted()
    steps = [state.step for state in states(Linear(), data, config(checkpoint_minutes=0))]
    assert steps == list(range(1, 49))
    assert not list(states(Linear(), data, config()))
    clock = iter(np.arange(0, 10_000, 2.0))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    steps = [state.step for state in states(Linear(), data, config(checkpoint_minutes=2))]
    assert 1 < len(steps) < 24


def test_progress_tells_where_training_stands(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("isthmus.train.stopwatch.PROGRESS_SECONDS", 0)
    events = list(begin(Linear(), planted(), config(epochs=1)))
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.step for event in progress] == [i for i in range(1, 17) if i % 4]
    assert progress[0].steps == 16
    assert progress[-1].epoch == 15 / 16
    assert all(event.rows_per_second > 0 and math.isfinite(event.loss) for event in progress)


# What is refused


def test_a_loss_that_is_not_finite_stops_training():
    data = planted()
    data.train.x[100] = np.nan
    with pytest.raises(RunError, match="loss must stay finite, got nan by step"):
        fit(Linear(), data)
    data = planted()
    data.validation.x[100] = np.inf
    with pytest.raises(RunError, match="validation logits must stay finite"):
        fit(Linear(), data)


def test_a_monitor_that_the_labels_do_not_allow_is_refused_before_training():
    data = planted()
    data.validation.label[:] = 1
    model = Linear()
    with pytest.raises(ConfigError, match="do not allow 'auc_macro'"):
        next(begin(model, data, config(monitor="auc_macro")))
    assert not model.weight.any()
    assert fit(model, data, monitor="logloss_pooled")[0].best.metrics["auc_pooled"] is None


def test_splits_without_rows_are_refused():
    for data in (planted(rows=1), planted(validation=0)):
        with pytest.raises(SchemaError, match=r"split must hold at least 2 rows, got [01]"):
            next(begin(Linear(), data, config()))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dataset_key": "other"}, "began with, other, got planted"),
        ({"config": {"lr": 9.0}}, "train.batch_rows as it began, None, got 256"),
        ({"model": {"weight": torch.zeros(2)}}, r"'offset.weight' has shape None, got \(4, 1\)"),
        ({"threads": 99}, "thread count that it began with, 99, got"),
        ({"torch_version": "0.1"}, "torch that it began with, 0.1, got"),
    ],
)
def test_a_state_of_another_training_is_refused(change: dict, text: str):
    data, settings = planted(), config(checkpoint_minutes=0)
    state = replace(next(states(Linear(), data, settings)), **change)
    with pytest.raises(RunError, match=text):
        next(begin(Linear(), data, settings, state=state))
    if "threads" in change or "torch_version" in change:
        *_, end = begin(Linear(), data, settings, state=state, exact=False)
        assert isinstance(end, End)


@pytest.mark.parametrize(
    "change",
    [{"batch_rows": 1}, {"monitor": "auc"}, {"domain_sampling": 2.0}, {"learning_rate": 1}],
)
def test_wrong_settings_are_refused(change: dict):
    with pytest.raises(ValueError):
        TrainConfig(**change)
