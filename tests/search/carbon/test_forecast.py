"""Forecasts from functions and files."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.carbon.forecast import CalledForecast, IntensityCurve, forecast_of, hours_of, moment_of, read_forecast

DAY = IntensityCurve((0.0, 6.0, 13.0, 19.0), (300.0, 350.0, 120.0, 420.0))


@pytest.mark.slow
@given(st.floats(0.0, 48.0), st.floats(0.0, 20.0))
def test_a_function_has_the_mean_of_the_curve_that_it_draws(start: float, length: float) -> None:
    called = CalledForecast(lambda moment: DAY.at(hours_of(moment)))
    # Kinks between two of its questions are missed by at most a triangle.
    assert called.mean(start, start + length) == pytest.approx(DAY.mean(start, start + length), abs=5.0)


def test_values_that_hold_for_an_hour_have_exact_means() -> None:
    seven = hours_of(datetime(2026, 6, 1, 7, tzinfo=UTC))
    steps = forecast_of(lambda moment: 100.0 if moment.hour < 7 else 500.0)
    assert steps.mean(seven - 1, seven + 1) == pytest.approx(300.0)
    assert steps.mean(seven - 0.5, seven + 0.25) == pytest.approx((0.5 * 100 + 0.25 * 500) / 0.75)
    assert steps.mean(seven - 1 / 120, seven + 1 / 120) == pytest.approx(300.0)  # half a minute on each side
    assert steps.mean(seven, seven) == 500.0


def test_a_forecast_is_named_as_the_source() -> None:
    place = CalledForecast(lambda moment: 100.0, source="my grid", zone="DE").over(5.0, 7.0)
    assert (place.grams_per_kwh, place.zone) == (100.0, "DE")
    assert place.source.startswith("forecast: my grid")


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_function_that_returns_nonsense_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="grams_per_kwh"):
        CalledForecast(lambda moment: value).at(0.0)


def test_a_reversed_window_is_refused() -> None:
    with pytest.raises(ValueError, match="stop_hour"):
        CalledForecast(lambda moment: 1.0).mean(2.0, 1.0)


def test_a_curve_stays_a_curve_and_a_function_becomes_a_forecast() -> None:
    assert forecast_of(DAY) is DAY
    assert forecast_of(lambda moment: 7.0).mean(0.0, 1.0) == 7.0


def test_values_of_a_file_hold_until_the_next(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text("datetime,g_per_kwh\n2026-03-01T00:00,100\n2026-03-01T01:00,200\n")
    curve = read_forecast(file, "FR")
    start = hours_of(datetime(2026, 3, 1, tzinfo=UTC))
    assert curve.mean(start, start + 2.0) == 150.0
    assert curve.span == (start, start + 2.0)
    assert curve.zone == "FR"
    assert moment_of(start) == datetime(2026, 3, 1, tzinfo=UTC)
