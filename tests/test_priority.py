"""Domains that lag come more often: the rule by hand, exact shares, the same bits after a stop."""

from pathlib import Path

import numpy as np
import pytest
import torch

from by_method import MLORA, assert_same, make_dataset, make_model, run, settings, states
from isthmus.data import Dataset
from isthmus.errors import ConfigError
from isthmus.train import train
from isthmus.train.methods import Priority, PriorityConfig
from resumed import in_pieces

PRESSED = {"name": "priority", "pressure": 40.0}


def test_the_rule_by_hand():
    rule = Priority(PriorityConfig(pressure=10.0, reference={"b": 0.8}), ("a", "b", "c"))
    assert rule.next_epoch().tolist() == [1.0, 1.0, 1.0, 1.0]
    rule.note(np.array([np.nan, 0.70, 0.75, np.nan]))
    np.testing.assert_allclose(rule.next_epoch(), [1.0, 1.0, np.exp(0.5), 1.0])
    rule.note(np.array([0.6, 0.65, 0.9, np.nan]))  # a is .05 below its best, b above its reference
    np.testing.assert_allclose(rule.factor, [1.0, 1.0, np.exp(0.5), 1.0])  # the epoch goes on
    np.testing.assert_allclose(rule.next_epoch(), [1.0, np.exp(0.5), 1.0, 1.0])
    rule.note(np.array([0.6, 0.1, 0.9, np.nan]))
    np.testing.assert_allclose(rule.next_epoch(), [1.0, 4.0, 1.0, 1.0])  # at most 4 times


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("cache"))


def test_an_epoch_is_shared_out_exactly(dataset: Dataset):
    rows = dataset.rows("train")
    have = np.bincount(rows.arrays.domain, minlength=4)
    factor = np.array([1.0, 1.0, 3.0, 0.5])
    drawn = np.zeros(4, dtype=np.int64)
    for batch in rows.batches(len(rows), seed=0, sampling=factor):
        drawn += np.bincount(batch.domain, minlength=4)
    wanted = have * factor / (have * factor).sum() * have.sum()
    assert drawn.sum() == len(rows)
    np.testing.assert_allclose(drawn, wanted, atol=1)
    equal = [b.domain.tolist() for b in rows.batches(64, seed=0, sampling=np.full(4, 2.0))]
    assert equal == [b.domain.tolist() for b in rows.batches(64, seed=0)]


@pytest.mark.parametrize("factor", [[1.0, 0.0], [1.0, np.inf], [np.nan, 1.0]])
def test_shares_without_a_size_are_refused(dataset: Dataset, factor: list[float]):
    with pytest.raises(ValueError, match="sampling must hold positive numbers"):
        next(dataset.rows("train").batches(10, seed=0, sampling=np.array(factor)))
    with pytest.raises(ValueError, match="sampling needs a seed"):
        next(dataset.rows("train").batches(10, sampling=np.ones(4)))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("phases", [None, MLORA])
def test_a_stopped_training_goes_on_with_the_same_bits(
    dataset: Dataset, tmp_path: Path, phases: list | None
):
    method = {"name": "joint"} if phases is None else {"name": "phases", "phases": phases}
    reference = {"home": 0.9, "shop": 0.99}
    want = settings(domain_sampling={**PRESSED, "reference": reference}, method=method, epochs=3)
    whole = make_model(dataset)
    looks, end = run(whole, dataset, want)
    stops = [1, 5, 6, 7, end.step - 1]
    pieced, told, last = in_pieces(
        lambda seed: make_model(dataset, seed=seed), dataset, want, stops, tmp_path
    )
    assert (told, last.best) == (looks, end.best)
    assert_same(whole, pieced)


@pytest.mark.usefixtures("one_thread")
def test_without_pressure_it_is_proportional_to_the_bit(dataset: Dataset):
    pressed, plain = make_model(dataset), make_model(dataset)
    run(pressed, dataset, settings(domain_sampling={"name": "priority", "pressure": 0.0}))
    run(plain, dataset, settings())
    assert_same(pressed, plain)


def test_a_domain_behind_its_reference_gets_more_rows_from_the_second_epoch_on(dataset: Dataset):
    reference = {"home": 0.0, "feed": 0.0, "shop": 1.0}
    want = settings(domain_sampling={**PRESSED, "reference": reference}, epochs=2)
    factors = [s.method["factor"].tolist() for s in states(make_model(dataset), dataset, want)]
    place = 1 + dataset.domain_names.index("shop")
    half = len(factors) // 2
    assert all(factor == [1.0] * 4 for factor in factors[:half])
    wanted = [4.0 if at == place else 1.0 for at in range(4)]
    assert all(factor == wanted for factor in factors[half:])


def test_what_does_not_fit_is_refused_before_a_step(dataset: Dataset):
    torch.manual_seed(0)
    for reference, said in (
        ({"shopp": 0.7}, "must name domains of the table, .*shop.*, got 'shopp'"),
        ({"shop": 70.0}, "must hold an AUC from 0 to 1 of 'shop', got 70"),
    ):
        want = settings(domain_sampling={**PRESSED, "reference": reference})
        with pytest.raises(ConfigError, match=said):
            next(train(make_model(dataset), dataset, want))
    mamdr = settings(method={"name": "mamdr"}, domain_sampling=PRESSED)
    with pytest.raises(ConfigError, match=r"train\.domain_sampling must be 'proportional'"):
        next(train(make_model(dataset), dataset, mamdr))
