"""Intervals from the standard library against scipy, and against their own promise."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.energy.intervals import fit_line, mean_interval, student_t

stats = pytest.importorskip("scipy.stats")


@given(st.floats(0.001, 0.9995), st.integers(1, 400))
def test_students_quantile_agrees_with_scipy(probability, dof):
    assert student_t(probability, dof) == pytest.approx(stats.t.ppf(probability, dof), rel=1e-8, abs=1e-8)


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
