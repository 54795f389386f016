"""Carbon intensity over the day, against brute force."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.carbon.forecast import IntensityCurve, hours_of, moment_of, read_curve

DAY = IntensityCurve((0.0, 6.0, 13.0, 19.0), (300.0, 350.0, 120.0, 420.0), zone="DE")


@st.composite
def curves(draw):
    hours = draw(st.lists(st.integers(0, 95), min_size=1, max_size=8, unique=True).map(sorted))
    values = draw(st.lists(st.floats(0, 900), min_size=len(hours), max_size=len(hours)))
    return IntensityCurve(tuple(hour / 4 for hour in hours), tuple(values), shape=draw(st.sampled_from(["linear", "step"])))


def slow_mean(curve, start, stop, steps=4000):
    width = (stop - start) / steps
    return sum(curve.at(start + (k + 0.5) * width) for k in range(steps)) / steps


def test_values_are_interpolated_and_the_day_repeats():
    assert DAY.at(3.0) == pytest.approx(325)
    assert DAY.at(3.0 + 48) == pytest.approx(325)
    assert DAY.at(21.5) == pytest.approx(360)  # between 19 h and midnight of the next day
    assert DAY.at(-2.5) == DAY.at(21.5)


def test_steps_hold_until_the_next_value():
    steps = IntensityCurve((0.0, 6.0), (100.0, 200.0), shape="step")
    assert [steps.at(hour) for hour in (0, 5.99, 6, 23.9, 24)] == [100, 100, 200, 200, 100]
    assert steps.mean(5, 7) == pytest.approx(150)
    assert steps.mean(0, 24) == pytest.approx((6 * 100 + 18 * 200) / 24)


@pytest.mark.slow
@given(curves(), st.floats(-30, 60), st.floats(0.01, 50))
@settings(max_examples=40, deadline=None)
def test_mean_agrees_with_a_fine_sum(curve, start, length):
    span = max(curve.grams_per_kwh) - min(curve.grams_per_kwh)
    assert curve.mean(start, start + length) == pytest.approx(slow_mean(curve, start, start + length), abs=1e-9 + span * 0.003)


@pytest.mark.slow
@given(curves(), st.floats(-30, 60), st.floats(0.1, 20), st.floats(0.1, 20))
def test_means_of_parts_add_up(curve, start, first, second):
    middle, stop = start + first, start + first + second
    whole = curve.mean(start, stop) * (first + second)
    assert curve.mean(start, middle) * first + curve.mean(middle, stop) * second == pytest.approx(whole, abs=1e-6)


def test_a_mean_over_a_window_keeps_the_place_and_names_the_window():
    midday = DAY.over(12.0, 14.0)
    assert midday.zone == "DE"
    assert midday.grams_per_kwh == DAY.mean(12.0, 14.0)
    assert "mean of hours 12 to 14" in midday.source


def test_a_curve_of_one_stretch_refuses_hours_outside():
    stretch = IntensityCurve((100.0, 101.0, 102.0), (1.0, 2.0, 3.0), None)
    assert stretch.mean(100, 102) == pytest.approx(2)
    assert stretch.at(102) == 3
    for hour in (99.9, 102.1):
        with pytest.raises(ValueError, match="covers hours"):
            stretch.at(hour)


@pytest.mark.parametrize(
    ("hours", "grams", "match"),
    [((), (), "length"), ((1.0, 1.0), (1.0, 2.0), "increasing"), ((0.0, 24.0), (1.0, 2.0), "lie in"), ((0.0,), (-1.0,), ">= 0")],
)
def test_broken_curves_are_refused(hours, grams, match):
    with pytest.raises(ValueError, match=match):
        IntensityCurve(hours, grams)


def test_a_daily_file_repeats_and_a_dated_file_does_not(tmp_path):
    daily = tmp_path / "day.csv"
    daily.write_text("hour,g_per_kwh\n0,300\n12,100\n")
    curve = read_curve(daily, zone="FR")
    assert (curve.period_hours, curve.hours, curve.zone, curve.year) == (24.0, (0.0, 12.0), "FR", None)
    dated = tmp_path / "dated.csv"
    dated.write_text("Datetime (UTC),Carbon intensity gCO2eq/kWh (Life cycle)\n2024-03-01 00:00:00,30\n2024-03-01 01:00:00,40\n")
    curve = read_curve(dated, shape="step")
    start = hours_of(datetime(2024, 3, 1, tzinfo=UTC))
    assert (curve.period_hours, curve.year, curve.source) == (None, 2024, "file dated.csv")
    assert curve.mean(start, start + 2) == pytest.approx(35)


def test_bad_files_name_the_line(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("hour,g_per_kwh\n0,300\n1,much\n")
    with pytest.raises(ValueError, match=r"bad\.csv, line 3"):
        read_curve(path)
    path.write_text("when,what\n")
    with pytest.raises(ValueError, match="header"):
        read_curve(path)


def test_an_instant_needs_a_time_zone():
    with pytest.raises(ValueError, match="time zone"):
        hours_of(datetime(2024, 3, 1))
    there = datetime(2024, 3, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert hours_of(there) == hours_of(datetime(2024, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize("period", [None, 24.0])
@given(seconds=st.floats(1e-4, 1.0), share=st.floats(0.0, 0.999))
def test_the_mean_of_milliseconds_keeps_its_digits(period: float | None, seconds: float, share: float) -> None:
    first = 490_000.0 if period is None else 0.0
    curve = IntensityCurve(tuple(first + k for k in range(24)), tuple(400.0 for _ in range(24)), source="test", period_hours=period)
    start = 490_005.0 + share
    assert curve.mean(start, start + seconds / 3600) == pytest.approx(400.0, rel=1e-12)


@pytest.mark.parametrize(
    ("columns", "scope", "grams"),
    [
        ("Carbon intensity gCO₂eq/kWh (direct),Carbon intensity gCO₂eq/kWh (Life cycle)", "lifecycle", 350),
        ("Carbon Intensity gCO₂eq/kWh (direct),Carbon Intensity gCO₂eq/kWh (LCA)", "lifecycle", 350),
        ("Carbon intensity gCO₂eq/kWh (direct),Carbon-free energy percentage (CFE%)", "direct", 300),
        ("g_per_kwh,note", "unknown", 300),
        ("direct g_per_kwh,g_per_kwh", "unknown", 350),
    ],
)
def test_of_several_columns_the_life_cycle_one_is_taken_and_its_scope_is_named(tmp_path, columns, scope, grams):
    file = tmp_path / "DE_2024_hourly.csv"
    file.write_text(f"Datetime (UTC),Zone id,{columns}\n2024-05-01 00:00:00,DE,300,350\n2024-05-01 01:00:00,DE,300,350\n")
    curve = read_curve(file)
    assert (curve.scope, curve.grams_per_kwh) == (scope, (grams, grams))
    start = curve.hours[0]
    assert curve.over(start, start + 1).scope == scope
    assert (scope if scope != "unknown" else "scope not stated") in curve.over(start, start + 1).describe()


@pytest.mark.parametrize(
    ("column", "grams", "kind"),
    [
        ("g_per_kwh", 0.4, "average"), ("kgCO2_per_kWh", 400.0, "average"), ("CO2 intensity [kg/MWh]", 0.4, "average"),
        ("intensity_lbs_per_mwh", 0.4 * 0.45359237, "average"), ("tCO2eq/MWh", 400.0, "average"), ("marginal_intensity", 0.4, "marginal"),
    ],
)  # fmt: skip
def test_the_unit_and_the_kind_that_a_column_names_are_those_of_its_values(tmp_path, column, grams, kind):
    file = tmp_path / "a.csv"
    file.write_text(f"hour,generation_kwh,charging_kWh,{column}\n0,9,9,0.4\n12,9,9,0.4\n")
    curve = read_curve(file)
    assert curve.grams_per_kwh == pytest.approx((grams, grams))
    assert curve.kind == kind


def test_hours_that_are_missing_in_a_file_are_named(tmp_path):
    file = tmp_path / "a.csv"
    rows = "".join(f"2024-05-01T{hour:02d}:00,300\n" for hour in range(24) if not 5 <= hour < 11)
    file.write_text(f"datetime,g_per_kwh\n{rows}")
    assert read_curve(file).source == "file a.csv (6 hours are missing in it, bridged)"
    file.write_text(file.read_text() + "2024-05-02T00:00,\n2024-05-02T01:00, \n")
    assert read_curve(file).source == "file a.csv (6 hours are missing in it, bridged)"  # without a value it is no hour


def test_hours_without_a_value_are_missing_also_where_every_second_one_is(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("datetime,g_per_kwh\n" + "".join(f"2024-05-01T{hour:02d}:00,{'' if hour % 2 else 300}\n" for hour in range(7)))
    curve = read_curve(file, shape="step")
    assert curve.source == "file a.csv (3 hours are missing in it, bridged)"
    assert curve.span == (curve.hours[0], curve.hours[0] + 7)  # the last value holds for an hour, as the file lists them
    file.write_text("hour,g_per_kwh\n0,300\n1,\n2,100\nSource: a grid,\n")
    assert read_curve(file).source == "file a.csv (1 hours are missing in it, bridged)"
    file.write_text("hour,g_per_kwh\n0,\n")
    with pytest.raises(ValueError, match="at least one row with a value, got 1 without"):
        read_curve(file)


ROWS = "2024-06-01{0}00:00{1},300,350\n2024-06-01{0}01:00{1},{2},{2}\n2024-06-01{0}02:00{1},320,370\n2024-06-01{0}03:00{1},320,370\n"


@pytest.mark.parametrize("nothing", ["", "NaN", "N/A", "null", " "])
@pytest.mark.parametrize(("between", "zone"), [(" ", ""), ("T", "Z"), (" ", " UTC"), ("T", "+00:00")])
@pytest.mark.parametrize("when", ["Datetime (UTC)", "datetime_utc", "timestamp"])
def test_a_download_is_read_in_any_spelling_of_its_times_and_of_what_is_not_there(tmp_path, when, between, zone, nothing):
    file = tmp_path / "DE.csv"
    file.write_text(f"{when},carbon_intensity_direct,carbon_intensity_lca\n" + ROWS.format(between, zone, nothing), encoding="utf-8")
    curve = read_curve(file, shape="step")
    assert (curve.scope, curve.grams_per_kwh) == ("lifecycle", (350, 370, 370))
    assert curve.source == "file DE.csv (1 hours are missing in it, bridged)"
    assert moment_of(curve.hours[0]) == datetime(2024, 6, 1, tzinfo=UTC)


def test_the_hour_that_comes_twice_in_autumn_is_two_hours(tmp_path):
    file = tmp_path / "DE.csv"
    file.write_text("datetime,g_per_kwh\n2024-10-27T02:00:00+02:00,1\n2024-10-27T02:00:00+01:00,2\n2024-10-27T03:00:00+01:00,3\n")
    curve = read_curve(file, shape="step")
    assert curve.hours[2] - curve.hours[0] == 2
    assert curve.source == "file DE.csv"


def test_months_are_a_download_without_gaps_and_one_of_five_minutes_is_read_in_one_go(tmp_path):
    file = tmp_path / "DE.csv"
    file.write_text("Datetime (UTC),g_per_kwh\n" + "".join(f"2024-{month:02}-01 00:00:00,{month}\n" for month in range(1, 13)))
    assert read_curve(file).source == "file DE.csv"
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [f"{begin + k * timedelta(minutes=5)},{k % 7}\n" for k in range(30_000) if k != 77]
    file.write_text("Datetime (UTC),g_per_kwh\n" + "".join(rows))
    assert read_curve(file).source == "file DE.csv (0.0833 hours are missing in it, bridged)"
