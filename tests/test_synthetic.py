"""Planted tables hold what was planted: the relation, the logits, the sizes."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.schema import DataConfig
from isthmus.sources.planted import _root, angles, conflict, groups, planted


def column(made, name):
    return made.table.column(name).to_numpy(zero_copy_only=False)


def domain_ids(made):
    return np.searchsorted(np.asarray(made.names), column(made, "domain"))


def test_same_seed_same_table_other_seed_other_table():
    one, same, other = (planted(rows=300, relation=conflict(), seed=seed) for seed in (1, 1, 2))
    assert one.table.equals(same.table)
    np.testing.assert_array_equal(one.logit, same.logit)
    assert not one.table.equals(other.table)


def test_logit_is_the_formula_and_labels_follow_it():
    made = planted(
        rows=(40_000, 20_000),
        relation=angles((0, 60)),
        offsets=(-1.0, 0.5),
        strength=0.8,
        user_strength=0.3,
        seed=3,
    )
    domain = domain_ids(made)
    expected = (
        np.array([-1.0, 0.5])[domain]
        + 0.8 * made.item_effects[domain, column(made, "item_id")]
        + 0.3 * made.user_effects[column(made, "user_id")]
    )
    np.testing.assert_allclose(made.logit, expected)
    assert made.table.column_names == ["user_id", "item_id", "domain", "label"]
    # Labels are drawn from the logits: in each tenth of the rows by logit, the rate agrees.
    chance = 1 / (1 + np.exp(-made.logit))
    for tenth in np.array_split(np.argsort(made.logit), 10):
        error = np.sqrt(np.mean(chance[tenth] * (1 - chance[tenth])) / len(tenth))
        rate = np.mean(column(made, "label")[tenth])
        assert abs(rate - np.mean(chance[tenth])) < 4 * error


def test_item_effects_have_the_planted_cosines():
    relation = angles((0, 50, 90, 180))
    made = planted(rows=50, relation=relation, items=40_000, seed=0)
    np.testing.assert_allclose(np.corrcoef(made.item_effects), relation, atol=0.02)
    np.testing.assert_allclose(made.item_effects.std(axis=1), 1.0, atol=0.02)


def test_conflict_is_the_exact_opposite_and_unrelated_is_not():
    made = planted(rows=100, relation=angles((0, 180, 90)), items=5_000, seed=0)
    north, south, island = made.item_effects
    np.testing.assert_allclose(north, -south)
    assert abs(np.corrcoef(north, island)[0, 1]) < 0.05


def test_sizes_items_and_shuffling():
    made = planted(rows=(4_000, 2_000), relation=conflict(), names=("a", "b"), seed=0)
    assert np.bincount(domain_ids(made)).tolist() == [4_000, 2_000]
    assert made.item_effects.shape == (2, 300)  # a tenth of the mean rows of a domain
    assert made.user_effects.shape == (500,)
    first_half = domain_ids(made)[:3_000]
    assert abs(np.mean(first_half == 0) - 2 / 3) < 0.04


@pytest.mark.parametrize(("draws", "top"), [("uniform", 0.01), ("zipf", 0.1928)])
def test_draws_give_the_top_item_its_share(draws, top):
    made = planted(rows=20_000, relation=conflict(), items=100, draws=draws, seed=0)
    share = np.mean(column(made, "item_id") == 0)
    assert abs(share - top) < 4 * np.sqrt(top * (1 - top) / 40_000)
    assert column(made, "item_id").max() == 99


def test_config_is_accepted():
    made = planted(rows=100, relation=conflict(), seed=0)
    config = DataConfig.model_validate(made.config("synthetic.parquet", seed=7))
    assert (config.table, config.domain, config.group) == ("synthetic.parquet", "domain", "user_id")
    assert set(config.features) == {"user_id", "item_id", "domain"}
    assert config.split.seed == 7
    assert "table" not in made.config()


def test_angles_and_conflict_by_hand():
    np.testing.assert_array_equal(angles((0, 90, 180)), [[1, 0, -1], [0, 1, 0], [-1, 0, 1]])
    np.testing.assert_array_equal(conflict(3), [[1, -1, 1], [-1, 1, -1], [1, -1, 1]])


def test_groups_by_hand():
    np.testing.assert_array_equal(
        groups((2, 1), degrees=180, loners=1),
        [[1, 1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 0], [0, 0, 0, 1]],
    )
    np.testing.assert_allclose(
        groups((2, 1), degrees=60, within=0.8),
        [[1, 0.8, 0.4], [0.8, 1, 0.4], [0.4, 0.4, 1]],
    )


@pytest.mark.parametrize(("n_groups", "degrees"), [(2, 180), (3, 120), (5, 104.47)])
def test_groups_up_to_the_widest_angle(n_groups, degrees):
    planted(rows=10, relation=groups((2,) * n_groups, degrees=degrees), seed=0)
    if n_groups > 2:
        with pytest.raises(ValueError, match=f"{n_groups} groups at one common angle"):
            groups((2,) * n_groups, degrees=degrees + 1)


@given(st.lists(st.floats(0, 360), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
@example([0.0, 6.103515625e-05, 7.0])  # nearly the same direction twice
@example([0.0, 6.0e-04, 90.0])
def test_root_gives_the_relation_back_however_singular(degrees):
    relation = angles(degrees)
    np.testing.assert_allclose(_root(relation) @ _root(relation).T, relation, atol=1e-5)


@pytest.mark.parametrize(
    ("relation", "message"),
    [
        ([[1.0, 0.0]], "square"),
        ([[1.0, 0.5], [0.0, 1.0]], "symmetric"),
        ([[2.0, 0.0], [0.0, 2.0]], "ones on its diagonal"),
        (1.7 * np.eye(3) - 0.7, "negative eigenvalue"),
    ],
)
def test_impossible_relations_are_refused(relation, message):
    with pytest.raises(ValueError, match=message):
        planted(rows=10, relation=relation, seed=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rows": (1, 2, 3)}, "rows must hold 2 values"),
        ({"rows": (5, 0)}, "at least 1 row"),
        ({"offsets": (1.0,)}, "offsets must hold 2 values"),
        ({"items": 0}, "at least 1"),
        ({"draws": "normal"}, "draws must be"),
        ({"names": ("a", "a")}, "2 different names"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        planted(**({"rows": 10, "relation": conflict(), "seed": 0} | wrong))
