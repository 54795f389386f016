"""Grams by the hour, against sums by hand."""

import time
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.carbon.forecast import IntensityCurve
from joulefront.search.energy import Record
from joulefront.search.running.carbon_session import CarbonLog, CarbonSession
from joulefront.search.running.clean_hours import WallClock

DAY = IntensityCurve((0.0, 6.0, 13.0, 19.0), (300.0, 350.0, 120.0, 420.0))
STRETCH = IntensityCurve((10.0, 11.0), (100.0, 200.0), None, "step", source="two hours")
KWH = 3.6e6


#: Nothing, or at least a nanojoule: below that floats lose their digits.
SPENT = st.just(0.0) | st.floats(1e-9, 1e6)


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(0.001, 5.0), SPENT), min_size=1, max_size=20))
def test_grams_are_the_sum_over_what_was_spent_between_looks(steps: list[tuple[float, float]]) -> None:
    book, hour, joules, grams = CarbonLog(DAY, 1.2, 8.0), 8.0, 0.0, 0.0
    for length, spent in steps:
        grams += spent / KWH * 1.2 * DAY.mean(hour, hour + length)
        hour, joules = hour + length, joules + spent
        book.see(hour, joules)
    assert book.grams == pytest.approx(grams, rel=1e-6, abs=1e-9)
    place = book.mean_intensity()
    if joules > 0:
        assert place is not None
        assert joules / KWH * 1.2 * place.grams_per_kwh == pytest.approx(grams, rel=1e-6)


def test_energy_too_small_for_a_float_in_kwh_has_no_intensity() -> None:
    book = CarbonLog(DAY, 1.0, 8.0)
    book.see(9.0, 5e-324)
    assert book.mean_intensity() is None


def test_waits_move_later_trainings_back_and_add_up() -> None:
    book = CarbonLog(DAY, 1.0, 0.0)
    for start in (2.0, 9.0, 14.0):
        book.trained(start, start + 1.0, KWH)
        book.waited(start + 1.0, start + 3.0, 0.0)
    found = book.to_json()["trainings"]
    assert found["grams"] == pytest.approx(sum(DAY.mean(start, start + 1.0) for start in (2.0, 9.0, 14.0)))
    assert found["grams_at_once"] == pytest.approx(sum(DAY.mean(start, start + 1.0) for start in (2.0, 7.0, 10.0)))
    assert found["joules"] == 3 * KWH
    assert book.to_json()["hours_waited"] == 6.0


def test_hours_in_which_two_workers_wait_are_paid_once_and_an_unknown_energy_stays_unknown() -> None:
    book = CarbonLog(DAY, 1.0, 0.0)
    book.waited(2.0, 4.0, KWH)
    book.waited(3.0, 5.0, KWH)
    book.waited(3.0, 4.5, KWH)
    found = book.to_json()
    assert found["wait_joules"] == pytest.approx(1.5 * KWH)
    assert found["wait_grams"] == pytest.approx(DAY.mean(2.0, 4.0) + DAY.mean(4.0, 5.0) / 2)
    book.waited(1.0, 7.0, 3 * KWH)  # the others ended within it
    found = book.to_json()
    assert found["wait_joules"] == pytest.approx(3 * KWH)
    assert found["wait_grams"] == pytest.approx(
        sum(DAY.mean(*span) * hours for span, hours in (((2, 4), 1), ((4, 5), 0.5), ((1, 2), 0.5), ((5, 7), 1)))
    )
    book.waited(6.0, 8.0, None)
    assert book.to_json()["wait_joules"] is None


@pytest.mark.slow
@given(st.floats(0.0, 40.0), st.floats(0.0, 7.0), st.floats(1.0, 1e7))
def test_the_hours_of_the_trainings_add_up_to_their_energy(start: float, length: float, joules: float) -> None:
    book = CarbonLog(DAY, 1.0, start)
    book.trained(start, start + length, joules)
    hours = book.to_json()["hours"]
    if length > 1e-6:
        assert sum(hour["joules"] for hour in hours) == pytest.approx(joules, rel=1e-6)


def test_hours_that_the_forecast_does_not_cover_are_unknown_and_stay_so() -> None:
    book = CarbonLog(STRETCH, 1.0, 10.0)
    book.see(11.0, KWH)
    assert book.grams == pytest.approx(100.0)
    book.see(13.0, 2 * KWH)
    book.see(13.5, 2 * KWH)
    assert book.grams is None
    assert book.mean_intensity() is None
    assert book.over(9.0, 10.5) is None
    book.trained(11.5, 12.5, KWH)
    assert book.to_json()["trainings"]["grams"] is None


def test_an_unknown_energy_makes_the_grams_unknown() -> None:
    book = CarbonLog(DAY, 1.0, 0.0)
    book.trained(1.0, 2.0, None)
    book.see(2.0, None)
    assert book.grams is None
    assert book.to_json()["trainings"] == {"joules": None, "grams": None, "grams_at_once": None}


def test_earlier_sessions_count() -> None:
    book = CarbonLog(DAY, 1.0, 0.0, [{"joules": KWH, "grams": 50.0}])
    book.see(1.0, KWH)
    assert book.all_grams == pytest.approx(50.0 + DAY.mean(0.0, 1.0))
    place = book.mean_intensity()
    assert place is not None
    assert place.grams_per_kwh == pytest.approx((50.0 + DAY.mean(0.0, 1.0)) / 2)
    assert CarbonLog(DAY, 1.0, 0.0, [{"joules": KWH, "grams": None}]).all_grams is None


def test_grams_by_the_hour_keep_what_kind_of_intensity_the_forecast_is_of():
    book = CarbonLog(IntensityCurve((0.0, 12.0), (400.0, 500.0), kind="marginal", scope="lifecycle", zone="FR", year=2026), 1.0, 0.0)
    book.see(2.0, KWH)
    for found in (book.over(0.0, 1.0), book.mean_intensity()):
        assert found is not None
        assert (found.kind, found.scope, found.zone, found.year) == ("marginal", "lifecycle", "FR", 2026)
        assert found.source.startswith("forecast: ")


def test_a_window_before_a_laptop_slept_is_priced_at_the_hour_in_which_it_was() -> None:
    """The monotonic clock says that it ended a moment ago."""
    now = time.monotonic_ns()
    evening = Record("a.1", "epoch 0", None, "epoch", "ok", "2026-03-01T18:00:00.000+00:00", now - 3600 * 10**9, now, 3600.0)
    session = CarbonSession(cast(Any, None), WallClock(), CarbonLog(DAY, 1.0, 0.0), None, None, False)
    found = session.over(evening)
    assert found is not None
    assert found.grams_per_kwh == pytest.approx(DAY.mean(18.0, 19.0))
