"""One call for a stranger: the result, the joules, what is absent."""

import time

import pytest

from joulefront.search.energy import Capability, Discovery, Ledger, Reading, discover, measure
from joulefront.search.energy.calibrate import spin
from joulefront.search.energy.calibrations import calibrate_wall, save_calibration
from joulefront.search.energy.record import Component, Record


class Counter:
    """A counter that follows what the function under test does."""

    name = "bench"

    def __init__(self):
        self.joules, self.open = 0.0, True

    def probe(self):
        return (Capability("soc", self.name, True, tick_seconds=0.0),)

    def read(self):
        return (Reading("soc", time.monotonic_ns(), 0, self.joules),)

    def close(self):
        self.open = False


GONE = Capability("gpu", "nvml", False, reason="no driver")


def test_a_function_is_measured_by_one_call_and_absent_parts_are_in_its_record():
    counter = Counter()

    def work():
        spin(0.05)
        counter.joules += 7.0
        spin(0.05)
        return "done"

    result, record = measure(work, Discovery((counter,), (GONE,)))
    assert result == "done"
    assert record.joules == pytest.approx(7.0, rel=0.05)  # the edges are placed inside of the readings around them
    assert (record.name, record.state) == ("work", "ok")
    assert record.component("gpu").reason == "no driver"
    assert not counter.open


@pytest.mark.slow
def test_twice_the_work_takes_twice_the_joules_on_this_machine():
    def burn(seconds):
        begin = time.thread_time()
        while time.thread_time() - begin < seconds:
            pass

    _, once = measure(lambda: burn(0.1), "cpu_time")
    _, twice = measure(lambda: burn(0.2), "cpu_time")
    assert twice.joules / once.joules == pytest.approx(2, rel=0.1)
    (source,) = discover("cpu_time").sources
    assert once.joules == pytest.approx(source.coefficients.core_watts * 0.1, rel=0.1)


def test_an_error_of_the_function_is_the_callers_and_releases_the_meters():
    counter = Counter()
    with pytest.raises(ZeroDivisionError):
        measure(lambda: 1 / 0, Discovery((counter,), ()))
    assert not counter.open


async def later():
    return 7


@pytest.mark.parametrize("lazy", [later, lambda: later(), lambda: (yield)])
def test_a_function_that_would_work_only_later_is_refused_with_what_to_write(lazy):
    with pytest.raises(ValueError, match=r"whose work comes later; give `lambda: asyncio.run\(f\(\)\)`"):
        measure(lazy, Discovery((Counter(),), ()))


def test_a_ledger_takes_what_discover_found_with_what_is_absent(tmp_path):
    found = discover("cpu_time,rapl", powercap=tmp_path)
    with Ledger(found, absent=[GONE]) as ledger, ledger.window("w") as window:
        spin(0.02)
    assert window.record.joules > 0
    assert window.record.component("gpu").quality == "absent"
    assert {part.source for part in window.record.components if part.quality == "absent"} == {"nvml", "rapl"}


def test_the_kept_line_of_a_wall_meter_stands_beside_the_components(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    _, plain = measure(lambda: spin(0.02), Discovery((Counter(),), ()))
    assert plain.component("wall") is None

    def windows(watts):
        part, wall = Component("soc", watts, "bench"), Component("wall", 2 * watts + 5, "wall", counts=False)
        return Record("1", "w", None, "setup", "ok", "", 0, 10**9, 1.0, (part, wall), plain.hardware_id)

    save_calibration(calibrate_wall([windows(watts) for watts in (1.0, 2.0, 3.0)]))
    counter = Counter()

    def work():
        counter.joules += 2.0
        spin(0.02)

    _, record = measure(work, Discovery((counter,), ()))
    wall = record.component("wall")
    assert wall.joules == pytest.approx(2 * record.joules + 5 * record.seconds)
    assert (wall.quality, wall.counts) == ("estimated", False)
