"""A line from the components to the socket: fitted, kept, and stated beside the components of later records."""

from dataclasses import replace

import pytest

from joulefront.search.energy.calibrations import WallCalibration, calibrate_wall, load_calibration, save_calibration, with_wall
from joulefront.search.energy.doctor import diagnose_machine
from joulefront.search.energy.intervals import fit_line
from joulefront.search.energy.record import Component, Record

NANO = 1_000_000_000


def record(watts, wall=None, seconds=10, hardware_id="h", source="rapl", **facts):
    parts = [Component("cpu:pkg0", watts * seconds, source, u_random_joules=0.1, u_systematic_joules=0.0)]
    if wall is not None:
        u = 0.01 * wall * seconds
        plug = Component("wall", wall * seconds, "wall", boundary="socket", counts=False, u_random_joules=0.1, u_systematic_joules=u)
        parts.append(replace(plug, **facts))
    return Record("1", "w", None, "setup", "ok", "", 0, seconds * NANO, seconds, tuple(parts), hardware_id)


@pytest.fixture
def calibration():
    return calibrate_wall([record(watts, 1.25 * watts + 30 + noise) for watts, noise in ((10, 0.5), (10, -0.5), (40, 0.5), (40, -0.5))])


def test_the_line_is_found_whatever_the_windows_lengths():
    found = calibrate_wall([record(watts, 1.25 * watts + 30, seconds) for watts, seconds in ((10, 10), (20, 5), (50, 20), (30, 7))])
    assert found.line.slope.value == pytest.approx(1.25)
    assert found.line.intercept.value == pytest.approx(30)
    assert found.parts == ("cpu by rapl",)
    assert found.gain_u == pytest.approx(0.01)


def test_too_few_windows_mixed_meters_and_a_falling_line_are_refused():
    with pytest.raises(ValueError, match="at least 3 windows with both meters, got 2"):
        calibrate_wall([record(10, 40), record(20, 50), record(30), record(40, 60, quality="estimated")])
    with pytest.raises(ValueError, match="same meters"):
        calibrate_wall([record(10, 40), record(20, 50), record(30, 60, source="cpu_time")])
    with pytest.raises(ValueError, match="must grow"):
        calibrate_wall([record(10, 60), record(20, 50), record(30, 40)])
    with pytest.raises(ValueError, match=r"must grow.*was the machine left alone"):  # others kept it busy: the line is flat but for chance
        calibrate_wall([record(watts, wall) for watts, wall in ((0, 37.0), (2, 36.9), (3, 37.1), (0, 36.9), (2, 37.2), (3, 36.95))])


def test_order_of_models_survives_any_positive_slope():
    components = [1.0, 2.0, 5.0, 9.0]
    line = fit_line(components, [2.1, 3.9, 10.2, 17.8])
    assert line.slope.low > 0
    predicted = [line.predict(value).value for value in components]
    assert predicted == sorted(predicted)


def test_a_record_states_the_energy_at_the_wall_as_an_estimate_outside_of_the_sum(calibration, tmp_path):
    save_calibration(calibration, tmp_path)
    assert load_calibration(WallCalibration, "h", tmp_path) == calibration
    plain = record(20, seconds=60)
    found = with_wall(plain, tmp_path)
    wall = found.component("wall")
    assert wall.joules == pytest.approx((1.25 * 20 + 30) * 60)
    assert (wall.quality, wall.counts, wall.boundary) == ("estimated", False, "socket")
    assert wall.u_random_joules == pytest.approx(calibration.line.predict(20).half / 2 * 60, rel=1e-3)
    assert wall.u_systematic_joules == pytest.approx(0.01 * wall.joules)
    assert "1.25 times the components and 30 W" in wall.reason
    assert found.joules == plain.joules
    assert "outside of the 10 to 40 W" in with_wall(record(90), tmp_path).component("wall").reason


def test_no_wall_energy_is_made_up_where_the_line_does_not_hold(calibration, tmp_path):
    save_calibration(calibration, tmp_path)
    for other in (record(20, hardware_id="elsewhere"), record(20, source="cpu_time"), record(20, 55)):
        assert with_wall(other, tmp_path) is other
    shared = replace(record(20), components=(replace(record(20).components[0], joules=100.0, attribution="shared(CPU-seconds)"),))
    assert with_wall(shared, tmp_path) is shared
    lost = record(20)
    lost = replace(lost, components=(replace(lost.components[0], joules=None),))
    assert with_wall(lost, tmp_path) is lost
    gone = replace(record(20), components=(*record(20).components, Component("wall", None, "wall", "absent", counts=False)))
    assert [part.quality for part in with_wall(gone, tmp_path).components] == ["measured", "estimated"]


def test_a_damaged_line_is_an_error_with_a_remedy(calibration, tmp_path):
    save_calibration(calibration, tmp_path).write_text("[]")
    with pytest.raises(ValueError, match="delete it and run joulefront doctor --compare-meters"):
        with_wall(record(20), tmp_path)


def test_the_diagnosis_names_the_line_where_no_wall_meter_is(calibration, tmp_path):
    here = diagnose_machine("cpu_time", folder=tmp_path)
    assert next(item for item in here.findings if item.subject == "wall").quality == "absent"
    save_calibration(replace(calibration, hardware_id=here.machine["hardware id"]), tmp_path)
    wall = next(item for item in diagnose_machine("cpu_time", folder=tmp_path).findings if item.subject == "wall")
    assert (wall.quality, wall.counts) == ("estimated", False)
    assert "1.25 times the components" in wall.reason
