"""Calibration of the CPU estimate and of the wall meter, on machines whose truth is known."""

import math
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.calibrate import busy_cores, calibrate_cpu, fit_cpu, machine_busy_seconds, reference_for
from joulefront.search.energy.calibrations import CpuCalibration, CpuPoint, cache_folder, load_calibration, save_calibration
from joulefront.search.energy.sources.cpu_time import Tree
from joulefront.search.energy.sources.source import Capability, Reading

NANO = 1_000_000_000


class Machine:
    """A machine of four cores on a clock that the test moves: 12 W idle, 5 W per busy core, a power supply of 80 %."""

    name = "rapl"

    def __init__(self, core_watts=5.0, idle_watts=12.0, dead=False):
        self.ns, self.busy, self.spent, self.joules = 100 * NANO, 0, 0.0, 0.0
        self.core_watts, self.idle_watts, self.dead = core_watts, idle_watts, dead

    def clock(self):
        return self.ns

    def sleep(self, seconds):
        self.ns += round(seconds * NANO)
        self.spent += self.busy * seconds
        self.joules += (self.idle_watts + self.core_watts * self.busy) * seconds

    @contextmanager
    def load(self, count):
        self.busy = count
        yield
        self.busy = 0

    def probe(self):
        return (
            Capability("cpu:pkg0", "rapl", True, tick_seconds=0.0, gain_u=0.02),
            Capability("wall", "rapl", True, tick_seconds=0.0, gain_u=0.01, counts=False),
        )

    def read(self):
        error = "the counter vanished" if self.dead else None
        wall = self.joules / 0.8 + 30 * self.ns / NANO
        return (
            Reading("cpu:pkg0", self.ns, 0, None if self.dead else self.joules, error=error),
            Reading("wall", self.ns, 0, wall),
        )

    def close(self):
        pass


def calibrate(machine, **options):
    with Ledger([machine], interval_seconds=None, clock=machine.clock) as ledger:
        return calibrate_cpu(
            ledger,
            reference_for(machine.probe()),
            cores=4,
            load=machine.load,
            busy_seconds=lambda: machine.spent,
            sleep=machine.sleep,
            **options,
        )


def test_the_machines_watts_are_found_again():
    found = calibrate(Machine())
    assert found.core_watts.value == pytest.approx(5, rel=1e-6)
    assert found.idle_watts.value == pytest.approx(12, rel=1e-6)
    assert found.gain_u == pytest.approx(0.1)  # never better than that: other work loads a core differently
    known = found.coefficients()
    assert (known.core_watts, known.idle_watts) == (pytest.approx(5), pytest.approx(12))
    assert "calibrated against rapl" in known.origin


def test_each_load_is_measured_in_both_orders():
    found = calibrate(Machine(), rounds=2)
    assert [round(point.busy_cores) for point in found.points] == [0, 1, 4, 4, 1, 0]


def test_a_bent_line_widens_the_uncertainty():
    # 8 W for the first core, 4 W each when all run: shared clocks.
    points = [CpuPoint(0, 10, 10), CpuPoint(1, 18, 10), CpuPoint(4, 26, 10)]
    assert fit_cpu(points, hardware_id="h", reference="rapl").gain_u > 0.15


def test_power_that_does_not_grow_with_load_is_refused():
    with pytest.raises(ValueError, match="grow with load"):
        fit_cpu([CpuPoint(0, 20, 10), CpuPoint(4, 10, 10)], hardware_id="h", reference="rapl")


def test_a_machine_that_others_keep_busy_is_not_calibrated():
    # Both cores are taken all the time: idle and all-core windows look alike, and a line through them would be noise.
    with pytest.raises(ValueError, match="half a core"):
        fit_cpu([CpuPoint(1.9, 20, 10), CpuPoint(2.0, 25, 10), CpuPoint(2.0, 19, 10)], hardware_id="h", reference="rapl")


def test_a_reference_that_died_is_named_and_no_zero_is_fitted():
    with pytest.raises(ValueError, match="the counter vanished"):
        calibrate(Machine(dead=True))


def test_without_a_measured_reference_it_says_so_plainly():
    estimate = Capability("cpu", "cpu_time", True, "estimated")
    gpu = Capability("gpu:0", "nvml", True)
    with pytest.raises(LookupError, match="estimate per busy CPU stays"):
        reference_for([estimate, gpu])
    wall = Capability("wall", "wall", True, counts=False)
    assert reference_for([estimate, wall]) is wall
    assert reference_for([wall, Capability("cpu:pkg0", "rapl", True)]).source == "rapl"


def test_a_walls_idle_power_is_not_the_cpus():
    points = [CpuPoint(0, 90, 10), CpuPoint(1, 96, 10), CpuPoint(4, 114, 10)]
    found = fit_cpu(points, hardware_id="h", reference="wall")
    assert found.coefficients().idle_watts is None


def test_calibrated_coefficients_are_used_by_the_estimate(tmp_path):
    found = calibrate(Machine())
    capability = discover("cpu_time", coefficients=found.coefficients()).sources[0].probe()[0]
    assert capability.gain_u == found.gain_u
    assert "calibrated" in capability.reason


def test_a_calibration_is_kept_per_machine(tmp_path):
    found = calibrate(Machine())
    folder = tmp_path / "deep" / "cache"
    path = save_calibration(found, folder)
    assert path.parent == folder
    assert load_calibration(CpuCalibration, found.hardware_id, folder) == found
    assert load_calibration(CpuCalibration, "other", folder) is None
    assert [item.name for item in folder.iterdir()] == [path.name]


def test_infinite_intervals_survive_the_file(tmp_path):
    found = fit_cpu([CpuPoint(0, 10, 10), CpuPoint(2, 18, 10)], hardware_id="h", reference="rapl")
    save_calibration(found, tmp_path)
    assert math.isinf(load_calibration(CpuCalibration, "h", tmp_path).core_watts.half)


def test_a_damaged_or_foreign_file_is_an_error_with_a_remedy(tmp_path):
    found = calibrate(Machine())
    path = save_calibration(found, tmp_path)
    path.rename(tmp_path / "cpu-other.json")
    with pytest.raises(ValueError, match="calibrate again"):
        load_calibration(CpuCalibration, "other", tmp_path)
    for text in ("{}", "[" * 100_000, '{"hardware_id": NaN}', ""):
        (tmp_path / "cpu-other.json").write_text(text)
        with pytest.raises(ValueError, match="delete it"):
            load_calibration(CpuCalibration, "other", tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_what_is_no_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "cpu-pipe.json")
    (tmp_path / "cpu-folder.json").mkdir()
    (tmp_path / "cpu-loop.json").symlink_to("cpu-loop.json")
    for name in ("pipe", "folder", "loop"):
        with pytest.raises(ValueError, match=f"calibration .*cpu-{name}.json cannot be read .*; delete it and run joulefront doctor"):
            load_calibration(CpuCalibration, name, tmp_path)
    (tmp_path / "file").touch()
    assert load_calibration(CpuCalibration, "h", tmp_path / "file") is None


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, Path("/x/joulefront")),
        ("linux", {"XDG_CACHE_HOME": "relative", "HOME": "/home/a"}, Path("/home/a/.cache/joulefront")),
        ("darwin", {"HOME": "/Users/a"}, Path("/Users/a/Library/Caches/joulefront")),
    ],
)
def test_the_cache_lies_where_the_platform_keeps_it(monkeypatch, platform, environment, expected):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == expected


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc/stat")
def test_busy_cores_spend_cpu_time_as_long_as_they_are_wanted_and_end():
    import resource

    def ended():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    tree, machine = Tree(), machine_busy_seconds()
    begin, before = tree.seconds(), ended()
    with busy_cores(1):
        started = tree.seconds() - time.process_time()
        until = time.monotonic() + 60
        while tree.seconds() - time.process_time() < started + 0.1 and time.monotonic() < until:
            time.sleep(0.01)  # however long it takes to get its share of a machine that others use too
    assert ended() - before >= 0.1  # the process has ended, and this is what it used
    assert tree.seconds() - begin >= 0.1
    assert machine_busy_seconds() > machine
    with pytest.raises(ValueError, match="count"), busy_cores(-1):
        pass
