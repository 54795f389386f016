"""Intervals against scipy's, and against the share of truths that they hold."""

import random

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.energy.intervals import Difference, Spread

values = st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), min_size=2, max_size=12).filter(lambda found: len(set(found)) > 1)


@given(values)
def test_the_interval_of_a_mean_is_students(sample: list[float]) -> None:
    spread = Spread.of(sample)
    assert spread is not None
    oracle = scipy.stats.ttest_1samp(sample, 0.0).confidence_interval(0.95)
    assert (spread.low, spread.high) == (pytest.approx(oracle.low, rel=1e-6, abs=1e-6), pytest.approx(oracle.high, rel=1e-6, abs=1e-6))
    assert spread.n == len(sample)
    assert (spread.least, spread.most) == (min(sample), max(sample))


@given(values, values)
def test_the_interval_of_a_difference_is_welchs(one: list[float], two: list[float]) -> None:
    found = Difference.of(Spread.of(one), Spread.of(two))
    assert found is not None
    test = scipy.stats.ttest_ind(two, one, equal_var=False)
    oracle = test.confidence_interval(0.95)
    scale = abs(oracle.high - oracle.low) + 1e-9
    assert found.low == pytest.approx(oracle.low, abs=1e-5 * scale)
    assert found.high == pytest.approx(oracle.high, abs=1e-5 * scale)
    assert found.df == pytest.approx(test.df, rel=1e-6)
    assert found.clear == (test.pvalue < 0.05) or test.pvalue == pytest.approx(0.05, abs=1e-4)


def test_one_value_has_a_mean_and_no_interval_and_none_has_nothing() -> None:
    assert Spread.of([]) is None
    one = Spread.of([2.0])
    assert one is not None
    assert (one.n, one.mean, one.sd, one.low, one.high) == (1, 2.0, None, None, None)
    assert Difference.of(one, Spread.of([1.0, 2.0])) is None
    assert Difference.of(None, Spread.of([1.0, 2.0])) is None


def test_samples_without_any_spread_differ_exactly_when_their_means_do() -> None:
    same, other = Spread.of([0.5, 0.5]), Spread.of([0.7, 0.7, 0.7])
    found, none = Difference.of(same, other), Difference.of(same, same)
    assert found is not None
    assert none is not None
    assert found.clear
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.2))
    assert not none.clear


def test_of_equal_models_one_in_twenty_looks_different() -> None:
    draw, wrong, n = random.Random(0), 0, 2000
    for _ in range(n):
        one = Spread.of(draw.gauss(0, 1) for _ in range(5))
        two = Spread.of(draw.gauss(0, 1) for _ in range(5))
        found = Difference.of(one, two)
        assert found is not None
        wrong += found.clear
    assert 0.03 < wrong / n < 0.06


def test_of_a_sixth_value_of_the_same_kind_one_in_three_lies_outside_of_five() -> None:
    draw, outside, n = random.Random(1), 0, 3000
    for _ in range(n):
        spread = Spread.of(draw.gauss(0, 1) for _ in range(5))
        assert spread is not None
        outside += spread.outside(draw.gauss(0, 1))
    assert outside / n == pytest.approx(2 / 6, abs=0.03)
