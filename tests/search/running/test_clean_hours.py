"""The timetable against slow and obvious answers."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.carbon.forecast import STEP_HOURS, CalledForecast, IntensityCurve
from joulefront.search.running.clean_hours import LEAST_SAVING, Timetable, check_cover, deadline_of, text_of

DAY = IntensityCurve((0.0, 6.0, 13.0, 19.0), (300.0, 350.0, 120.0, 420.0))
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@st.composite
def hourly(draw: st.DrawFn) -> IntensityCurve:
    values = draw(st.lists(st.integers(1, 60), min_size=24, max_size=24))
    return IntensityCurve(tuple(float(hour) for hour in range(24)), tuple(10.0 * value for value in values), shape="step")


def carry_out(curve: IntensityCurve, deadline: float, work: float, training: float) -> tuple[list[float], float]:
    """Train one after another whenever the timetable allows; return the starts and the end."""
    now, left, starts = 0.0, work, []
    while left > 1e-9:
        table = Timetable(curve, now, deadline, left, training)
        if not table.clean:
            now = table.next_clean_hour
            continue
        starts.append(now)
        now, left = now + min(training, left), left - training
    return starts, now


@pytest.mark.slow
@given(hourly(), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_work_that_can_be_cut_takes_the_cleanest_hours(curve: IntensityCurve, hours: int) -> None:
    # The slow answer: the n cleanest hours of the day. Pieces of a step of the grid fill them.
    piece = STEP_HOURS
    starts, _ = carry_out(curve, 24.0, float(hours), piece)
    grams = sum(curve.mean(start, start + piece) * piece for start in starts)
    best = sum(sorted(curve.grams_per_kwh)[:hours])
    # What the rule gives away: the tolerance, and the pieces at the edges of the valleys.
    assert best - 1e-6 <= grams <= best * (1 + LEAST_SAVING) + 3 * piece * 600.0


@pytest.mark.slow
@given(hourly(), st.floats(0.1, 8.0))
@settings(max_examples=25, deadline=None)
def test_one_training_alone_waits_for_its_cleanest_start(curve: IntensityCurve, hours: float) -> None:
    table = Timetable(curve, 0.0, 24.0, hours, hours)
    start = table.next_clean_hour
    steps = 2000
    means = [curve.mean(first, first + hours) for first in ((24.0 - hours) * k / steps for k in range(steps + 1))]
    # The grid may miss the best start by a step, which changes the mean by at most the step's share of the jump.
    slack = 600.0 * STEP_HOURS / max(hours, STEP_HOURS)
    assert curve.mean(start, start + hours) <= min(means) * (1 + LEAST_SAVING) + slack


@pytest.mark.slow
@given(hourly(), st.floats(0.5, 20.0), st.floats(0.05, 4.0))
@settings(max_examples=25, deadline=None)
def test_work_whose_length_is_known_is_done_by_the_deadline(curve: IntensityCurve, work: float, training: float) -> None:
    _, end = carry_out(curve, 24.0, work, min(training, work))
    # The last piece of a training that does not divide the work evenly may hang over.
    assert end <= 24.0 + training + STEP_HOURS


@pytest.mark.slow
@given(hourly(), st.floats(0.0, 30.0), st.floats(0.0, 6.0), st.floats(0.0, 23.9))
@settings(max_examples=80, deadline=None)
def test_a_timetable_never_points_to_the_past_nor_beyond_the_deadline(
    curve: IntensityCurve, needed: float, training: float, now: float
) -> None:
    table = Timetable(curve, now, 24.0, needed, training)
    assert now <= table.next_clean_hour <= 24.0
    assert table.clean == (table.next_clean_hour == now)
    later = Timetable(curve, table.next_clean_hour, 24.0, needed, training)
    assert later.clean or later.next_clean_hour - later.now_hour <= STEP_HOURS  # when it comes, the hour is still clean


def test_a_morning_waits_for_the_valley_and_the_valley_does_not() -> None:
    morning = Timetable(DAY, 8.0, 24.0, 2.0, 0.5)
    assert not morning.clean
    assert 11.0 < morning.next_clean_hour < 13.0
    later = morning.next_clean_hour
    assert DAY.mean(later, later + 0.5) < DAY.at(8.0) / 1.5
    assert Timetable(DAY, 12.8, 24.0, 2.0, 0.5).clean


def test_more_work_makes_more_hours_clean() -> None:
    thresholds = [Timetable(DAY, 0.0, 24.0, float(hours)).threshold for hours in range(1, 24)]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[-1]


def test_when_the_time_just_holds_the_work_every_hour_is_good_enough() -> None:
    assert Timetable(DAY, 18.0, 24.0, 6.0).clean
    assert Timetable(DAY, 18.0, 24.0, 1.0, 7.0).threshold == math.inf
    assert Timetable(DAY, 30.0, 24.0, 0.1).clean
    assert not Timetable(DAY, 18.0, 24.0, 1.0).clean


def test_equal_valleys_are_not_waited_for_in_turn() -> None:
    # Two days: the noon of the second is as clean, and no reason to wait.
    curve = IntensityCurve((0.0, 12.0, 14.0), (400.0, 100.0, 400.0), shape="step")
    starts, end = carry_out(curve, 48.0, 2.0, 0.5)
    assert starts == pytest.approx([12.0, 12.5, 13.0, 13.5], abs=STEP_HOURS)
    assert end == pytest.approx(14.0, abs=STEP_HOURS)


def test_a_saving_under_five_percent_is_not_waited_for() -> None:
    for later, waits in ((96.0, False), (90.0, True)):
        curve = IntensityCurve((0.0, 12.0), (100.0, later), shape="step")
        assert Timetable(curve, 1.0, 24.0, 1.0).clean != waits


def test_a_function_and_its_curve_give_one_timetable() -> None:
    called = CalledForecast(lambda moment: DAY.at(moment.timestamp() / 3600.0))
    one, two = (Timetable(forecast, 8.0, 24.0, 2.0, 0.5) for forecast in (DAY, called))
    assert two.next_clean_hour == pytest.approx(one.next_clean_hour, abs=2 * STEP_HOURS)


def test_negative_work_is_refused() -> None:
    with pytest.raises(ValueError, match="needed_hours=-1"):
        Timetable(DAY, 0.0, 24.0, -1.0)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("24h", "2026-03-02T00:00:00+00:00"),
        ("2d", "2026-03-03T00:00:00+00:00"),
        ("90m", "2026-03-01T01:30:00+00:00"),
        ("2026-03-01T06:00", "2026-03-01T06:00:00+00:00"),
        ("2026-03-01T06:00+02:00", "2026-03-01T06:00:00+02:00"),
    ],
)
def test_deadlines_are_lengths_or_instants(text: str, iso: str) -> None:
    assert deadline_of(text, NOW).isoformat() == iso


@pytest.mark.parametrize("text", ["", "h", "0h", "nanh", "infh", "tomorrow", "24", "1e300h", "-2d"])
def test_other_deadlines_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--deadline must be"):
        deadline_of(text, NOW)


def test_cover_is_checked_at_both_ends() -> None:
    curve = IntensityCurve((10.0, 20.0), (1.0, 1.0), None)
    check_cover(curve, 10.0, 20.0)
    check_cover(curve, 15.0, None)
    for now, deadline, message in (
        (9.0, 12.0, "begins at"),
        (15.0, 21.0, "the deadline is"),
        (21.0, None, "it is"),
        (15.0, 15.0, "has passed"),
    ):
        with pytest.raises(ValueError, match=message):
            check_cover(curve, now, deadline)
    assert text_of(0.0) == "1970-01-01 00:00 UTC"
