"""The arms: said once for guard and diagnosis."""

from typing import Any

import pytest

from isthmus.adapters import FilmConfig, HamurConfig, NoAdapterConfig
from isthmus.data.store.dataset import DomainCount
from isthmus.experiments import Training
from isthmus.experiments.arms import LOWER_LR, choices, joint_and_adapted, of_few, patient
from isthmus.models import ModelConfig
from isthmus.objectives import DomainClassifierConfig
from isthmus.train import Monitor, TrainConfig

COUNTS = {"a": DomainCount(10, 4), "b": DomainCount(6, 0), "c": DomainCount(3, 3)}


def training(domains: tuple[str, ...] | None = ("a",), **train: Any) -> Training:
    return Training(model=ModelConfig(), train=TrainConfig(**train), domains=domains)


def test_joint_goes_without_an_adapter_and_adapted_wears_the_configs_or_hamur():
    for named, worn in ((FilmConfig(hidden_width=3), FilmConfig(hidden_width=3)), (None, None)):
        section = ModelConfig(towers="per_domain", adapter=named or NoAdapterConfig())
        joint, adapted = joint_and_adapted(section)
        assert joint.adapter == NoAdapterConfig()
        assert adapted.adapter == (worn or HamurConfig())
        assert joint.towers == adapted.towers == "per_domain"


def test_patience_stops_an_arm_and_rows_weigh_alike():
    found = patient(TrainConfig(epochs=3, looks_per_epoch=2, weighting="pcgrad", patience=5))
    assert (found.epochs, found.looks_per_epoch, found.weighting) == (200, 4, "proportional")
    assert found.patience == 5
    assert patient(TrainConfig(looks_per_epoch=9)).looks_per_epoch == 9


@pytest.mark.parametrize(
    ("domains", "monitor", "expected"),
    [
        (("a",), "auc_pooled", "auc_pooled"),
        (("b",), "auc_pooled", "logloss_pooled"),
        (("c",), "auc_worst", "logloss_pooled"),
        (("b", "c"), "auc_pooled", "auc_pooled"),  # together they have both classes
        (("b", "c"), "auc_macro", "logloss_pooled"),  # neither alone has
        (("a", "c"), "auc_macro", "auc_macro"),
        (("b",), "logloss_worst", "logloss_worst"),
        (None, "auc_pooled", "auc_pooled"),
    ],
)
def test_a_monitor_that_is_undefined_gives_way(
    domains: tuple[str, ...] | None, monitor: Monitor, expected: str
):
    assert of_few(training(domains, monitor=monitor), COUNTS).train.monitor == expected


def test_one_domain_alone_has_no_objective_that_compares_domains():
    objectives = (DomainClassifierConfig(reverse=True),)
    alone = of_few(training(("a",), objectives=objectives, domain_sampling=0.5), COUNTS)
    pair = of_few(training(("a", "c"), objectives=objectives), COUNTS)
    assert alone.train.objectives == ()
    assert alone.train.domain_sampling == "proportional"
    assert pair.train.objectives == objectives
    assert training(None, objectives=objectives).train.objectives == objectives


def test_choices_are_two_batches_by_two_rates():
    found = choices(training(batch_rows=4096, lr=0.01), rows=10_000)
    assert [(one.train.batch_rows, one.train.lr) for one in found] == [
        (4096, 0.01), (4096, 0.01 * LOWER_LR), (200, 0.01), (200, 0.01 * LOWER_LR)
    ]  # fmt: skip
    assert [one.train.batch_rows for one in choices(training(batch_rows=2), rows=2)] == [2, 2]
