"""Lines, means and differences against scipy's, and against the share of truths that their intervals hold."""

from __future__ import annotations

import math
import random

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.energy.intervals import Difference, Spread, fit_line, mean_interval, student_t

stats = pytest.importorskip("scipy.stats")


@given(st.floats(0.001, 0.9995), st.integers(1, 400))
def test_students_quantile_agrees_with_scipy(probability, dof):
    assert student_t(probability, dof) == pytest.approx(stats.t.ppf(probability, dof), rel=1e-8, abs=1e-8)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000)), min_size=3, max_size=30))
def test_lines_agree_with_scipy(points):
    x, y = [float(a) for a, _ in points], [float(b) for _, b in points]
    if len(set(x)) < 2:
        with pytest.raises(ValueError, match="x must vary"):
            fit_line(x, y)
        return
    line, theirs = fit_line(x, y), stats.linregress(x, y)
    t = stats.t.ppf(0.975, len(x) - 2)
    assert line.slope.value == pytest.approx(theirs.slope, rel=1e-9, abs=1e-9)
    assert line.intercept.value == pytest.approx(theirs.intercept, rel=1e-9, abs=1e-6)
    if line.residual_sd > 1e-6:  # scipy derives the error from 1 - r^2, which loses its digits on a perfect line
        assert line.slope.half == pytest.approx(t * theirs.stderr, rel=1e-5)
        assert line.intercept.half == pytest.approx(t * theirs.intercept_stderr, rel=1e-5)
    if line.r is not None:
        assert line.r == pytest.approx(theirs.rvalue, abs=1e-9)


def test_intervals_hold_the_truth_as_often_as_they_promise():
    random.seed(3)
    slope = prediction = mean = 0
    x = [0.0, 1.0, 2.0, 4.0, 8.0]
    for _ in range(600):
        y = [3 * a + 5 + random.gauss(0, 2) for a in x]
        line = fit_line(x, y)
        slope += 3 in line.slope
        prediction += (3 * 6 + 5 + random.gauss(0, 2)) in line.predict(6)
        mean += 7 in mean_interval([random.gauss(7, 2) for _ in range(4)])
    # 600 draws at 95 %: 570 expected, standard deviation 5.3; five of them are 27.
    for count in (slope, prediction, mean):
        assert 543 <= count <= 597


def test_too_little_data_is_said_by_infinite_bounds():
    line = fit_line([0, 1], [0, 2])
    assert line.slope.value == 2
    assert (line.slope.low, line.slope.high) == (-math.inf, math.inf)
    assert line.predict(5).value == 10
    assert math.isinf(line.predict(5).half)
    assert math.isinf(mean_interval([1.0]).half)


@pytest.mark.parametrize(("x", "y"), [([1], [1]), ([1, 2], [1]), ([1, math.nan], [1, 2]), ([3, 3, 3], [1, 2, 3])])
def test_lines_through_nothing_are_refused(x, y):
    with pytest.raises(ValueError, match="x"):
        fit_line(x, y)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="empty"):
        mean_interval([])
    with pytest.raises(ValueError, match="probability"):
        student_t(1.0, 3)
    with pytest.raises(ValueError, match="dof"):
        student_t(0.9, 0)


values = st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), min_size=2, max_size=12).filter(lambda found: len(set(found)) > 1)


@pytest.mark.slow
@given(values)
def test_the_interval_of_a_mean_is_students(sample: list[float]) -> None:
    spread = Spread.of(sample)
    assert spread is not None
    oracle = scipy.stats.ttest_1samp(sample, 0.0).confidence_interval(0.95)
    assert (spread.low, spread.high) == (pytest.approx(oracle.low, rel=1e-6, abs=1e-6), pytest.approx(oracle.high, rel=1e-6, abs=1e-6))
    assert spread.n == len(sample)
    assert (spread.least, spread.most) == (min(sample), max(sample))


@pytest.mark.slow
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


@pytest.mark.slow
def test_of_equal_models_one_in_twenty_looks_different() -> None:
    draw, wrong, n = random.Random(0), 0, 2000
    for _ in range(n):
        one = Spread.of(draw.gauss(0, 1) for _ in range(5))
        two = Spread.of(draw.gauss(0, 1) for _ in range(5))
        found = Difference.of(one, two)
        assert found is not None
        wrong += found.clear
    assert 0.03 < wrong / n < 0.06


@pytest.mark.slow
def test_of_a_sixth_value_of_the_same_kind_one_in_three_lies_outside_of_five() -> None:
    draw, outside, n = random.Random(1), 0, 3000
    for _ in range(n):
        spread = Spread.of(draw.gauss(0, 1) for _ in range(5))
        assert spread is not None
        outside += spread.outside(draw.gauss(0, 1))
    assert outside / n == pytest.approx(2 / 6, abs=0.03)
