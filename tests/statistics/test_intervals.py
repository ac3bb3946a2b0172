"""Intervals that need no text, and the difference that they could tell."""

import numpy as np
import pytest
from scipy.stats import binom

from atlas.statistics.intervals import difference_interval, least_difference, rate_interval, rate_lower, rate_upper
from atlas.studies.table import flat


@pytest.mark.parametrize("half", [0.01, 0.5, 3.0])
def test_least_difference_is_where_the_interval_of_a_difference_leaves_zero(half):
    told = least_difference(2.0 - half, 2.0 + half)
    for difference, is_told in ((1.01 * told, True), (0.99 * told, False)):
        value = 2.0 + difference
        low, _ = difference_interval(2.0, 2.0 - half, 2.0 + half, value, value - half, value + half)
        assert (low > 0) == is_told


def test_difference_as_large_is_told_in_half_of_the_draws_and_zero_hardly_ever():
    """Measure two values with known errors: the power at the least difference is a half, the size a twentieth."""
    generator, error = np.random.default_rng(0), 0.1
    half = 1.959964 * error
    first, second = generator.normal(0, error, (2, 20_000))
    told = least_difference(-half, half)
    assert (np.abs(second + told - first) > told).mean() == pytest.approx(0.5, abs=0.02)
    assert (np.abs(second - first) > told).mean() == pytest.approx(0.05, abs=0.01)


def test_columns_of_an_interval_hold_its_least_difference():
    found = dict(
        flat("atlas", {"kl": 1.0, "kl_interval": [0.5, 1.5], "fvu_interval": None, "score": {"interval": [0, 2]}})
    )
    assert found["atlas_kl_least_difference"] == pytest.approx(0.5**0.5)
    assert found["atlas_fvu_least_difference"] is None
    assert found["atlas_score_least_difference"] == pytest.approx(2**0.5)


def test_interval_of_a_rate_holds_it():
    low, high = rate_interval(np.array([0, 3, 10]), 10)
    assert low[0] == 0 and high[2] == 1
    assert ((low <= np.array([0, 0.3, 1])) & (np.array([0, 0.3, 1]) <= high)).all()


def test_one_sided_bounds_are_those_of_the_binomial():
    seen, of = np.array([0, 3, 20]), 20
    assert binom.sf(seen[1:] - 1, of, rate_lower(seen, of)[1:]) == pytest.approx(0.05)
    assert binom.cdf(seen[:-1], of, rate_upper(seen, of)[:-1]) == pytest.approx(0.05)
    assert (rate_lower(seen, of)[0], rate_upper(seen, of)[2]) == (0, 1)
