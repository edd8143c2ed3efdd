"""The interval over seeds and test rows: hand-worked, against simulation, and its edges."""

import numpy as np
import pytest

from isthmus.metrics.crossed import cluster_variance, crossed_interval


def test_cluster_variance_by_hand():
    influence = np.array([1.0, 2.0, -1.0, -2.0])
    # Four clusters of one row: 4/3 * (1 + 4 + 1 + 4).
    assert cluster_variance(influence, None) == pytest.approx(4 / 3 * 10)
    # Two clusters, sums 3 and -3: 2/1 * (9 + 9).
    assert cluster_variance(influence, np.array([7, 7, 9, 9])) == pytest.approx(36)
    assert np.isnan(cluster_variance(influence, np.zeros(4, dtype=np.int64)))


def test_crossed_interval_by_hand():
    values = np.array([0.1, 0.3])
    influence = np.array([[1.0, -1.0, 0.0], [1.0, -1.0, 0.0]]) / 10
    result = crossed_interval(values, influence)
    # The seeds agree on every row, so W = A = 3/2 * 0.02 = 0.03 and c = (2 * 0.03 - 0.03) / 1.
    assert result.estimate == pytest.approx(0.2)
    assert result.standard_error**2 == pytest.approx(0.02 / 2 + 0.03)
    assert result.degrees_of_freedom == pytest.approx(0.04**2 / (0.01**2 / 1 + 0.03**2 / 2))


@pytest.mark.parametrize("clustered", [False, True])
def test_covers_a_planted_mean(clustered: bool):
    """Difference of seed k = its own shift + the mean over rows of row luck and noise."""
    rng = np.random.default_rng(5)
    seeds, rows, repeats, covered = 5, 400, 400, 0
    cluster = np.arange(rows) // 4 if clustered else None
    for _ in range(repeats):
        luck = rng.normal(size=rows // 4).repeat(4) if clustered else rng.normal(size=rows)
        rows_by_seed = 0.3 + luck + rng.normal(size=(seeds, rows))
        values = rows_by_seed.mean(axis=1) + rng.normal(scale=0.05, size=seeds)
        influence = (rows_by_seed - rows_by_seed.mean(axis=1, keepdims=True)) / rows
        result = crossed_interval(values, influence, cluster)
        covered += result.low <= 0.3 <= result.high
    assert 0.92 <= covered / repeats <= 0.98


def test_edges():
    with pytest.raises(ValueError, match="at least 2"):
        crossed_interval(np.array([1.0]), np.zeros((1, 3)))
    still = crossed_interval(np.zeros(3), np.zeros((3, 4)))
    assert (still.low, still.high, still.p) == (0.0, 0.0, 1.0)
