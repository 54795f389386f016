"""The sockets of NVIDIA's Grace in a fake tree of sensors: which of their meters counts, and that no joule counts twice."""

from __future__ import annotations

import pytest

from joulefront.search.energy import Capability, Ledger, Reading, discover
from joulefront.search.energy.sources.rapl import Grace


@pytest.fixture
def meter(tmp_path):
    """Make one ACPI power meter of a watts value, under its ``device`` or beside its name as newer kernels do; return its power's file."""

    def make(number, label, watts, interval="50", inside="device"):
        place = tmp_path / f"hwmon{number}" / inside
        place.mkdir(parents=True)
        (place / "power1_oem_info").write_text(f"{label}\n")
        (place / "power1_average_interval").write_text(f"{interval}\n")
        (place / "power1_average").write_text(f"{round(watts * 1e6)}\n")
        return place / "power1_average"

    make(0, "ACPI", 900)
    (tmp_path / "hwmon9").mkdir()
    return make


@pytest.fixture
def superchip(meter):
    """The meters of a GH200 as its firmware names them: of 590 W the module draws 120 W are Grace's."""
    meter(1, "Module Power Socket 0", 590)
    meter(2, "Grace Power Socket 0", 120)
    meter(3, "CPU Power Socket 0", 70)
    meter(4, "SysIO Power Socket 0", 15)


def watched(tmp_path, clock, *before, seconds=4.0, change=lambda: None):
    """Return the record of some seconds under a Grace and the meters ``before`` it."""
    ledger = Ledger([*before, Grace(tmp_path, clock)], interval_seconds=None, clock=clock).start()
    for _ in range(20):
        clock.advance(0.05)
        ledger.sample()
    with ledger.window("trial") as window:
        change()
        for _ in range(round(seconds / 0.05)):
            clock.advance(0.05)
            ledger.sample()
    for _ in range(20):
        clock.advance(0.05)
        ledger.sample()
    ledger.stop()
    return window.record


def test_of_a_socket_its_own_power_counts_and_neither_the_module_nor_a_rail_besides(superchip, tmp_path, clock):
    record = watched(tmp_path, clock)
    (part,) = record.components
    assert (part.name, part.source, part.quality, part.counts) == ("cpu:grace0", "grace", "measured", True)
    assert record.joules == pytest.approx(120 * record.seconds, rel=1e-3)
    assert part.boundary == "Grace socket: CPU and its memory"
    (found,) = Grace(tmp_path, clock).probe()
    assert (found.mean_seconds, found.tick_seconds, found.families) == (0.05, 0.05, ("cpu", "dram"))


def test_a_change_of_the_load_is_in_the_energy_and_its_uncertainty(meter, tmp_path, clock):
    file = meter(1, "Grace Power Socket 0", 50)
    record = watched(tmp_path, clock, change=lambda: file.write_text("150000000"))
    assert abs(record.joules - 150 * record.seconds) <= 2 * record.u_random_joules + 0.05 * 100
    assert record.u_random_joules < 0.05 * record.joules


def test_two_sockets_add_up_also_where_newer_kernels_show_them(meter, tmp_path, clock):
    meter(7, "Grace Power Socket 1", 80, inside=".")
    meter(8, "Grace Power Socket 0", 40, interval="?", inside=".")
    record = watched(tmp_path, clock)
    assert [part.name for part in record.components] == ["cpu:grace0", "cpu:grace1"]
    assert record.joules == pytest.approx(120 * record.seconds, rel=1e-3)
    assert [found.mean_seconds for found in Grace(tmp_path, clock).probe()] == [1.0, 0.05]  # unknown: the longest


def test_where_only_the_rail_of_the_cores_is_told_the_boundary_says_so(meter, tmp_path, clock):
    meter(1, "CPU Power Socket 0", 70)
    meter(2, "SysIO Power Socket 0", 15)
    record = watched(tmp_path, clock)
    assert record.joules == pytest.approx(70 * record.seconds, rel=1e-3)
    assert record.components[0].boundary == "rail of the CPU's cores on Grace"
    assert Grace(tmp_path, clock).probe()[0].families == ("cpu",)


def test_a_socket_that_cannot_be_read_is_named_and_the_others_are_no_whole_cpu(superchip, meter, tmp_path, clock):
    meter(5, "Grace Power Socket 1", 80).unlink()
    shown, lost = Grace(tmp_path, clock).probe()
    assert (shown.component, shown.available, shown.counts) == ("cpu:grace0", True, False)
    assert shown.reason == "only 1 of 2 sockets can be read (cpu:grace1 cannot): not the whole CPU, so not counted"
    assert (lost.component, lost.available) == ("cpu:grace1", False)
    assert "cannot be read" in lost.reason
    assert "cpu" not in {family for one in discover("grace", hwmon=tmp_path).present if one.counts for family in one.families}


def test_a_meter_of_less_never_stands_in_for_one_that_cannot_be_read(superchip, tmp_path, clock):
    (tmp_path / "hwmon2" / "device" / "power1_average").write_text("nonsense")
    (lost,) = Grace(tmp_path, clock).probe()
    assert (lost.component, lost.available) == ("cpu:grace0", False)


def test_a_socket_that_vanishes_is_unknown_with_the_reason_and_never_zero(superchip, tmp_path, clock):
    record = watched(tmp_path, clock, change=lambda: (tmp_path / "hwmon2" / "device" / "power1_average").unlink())
    (part,) = record.components
    assert (part.joules, part.quality, record.joules) == (None, "absent", None)
    assert "cannot be read" in part.reason


class Chip:
    """A GPU whose counter is its module's, or its own."""

    name = "nvml"

    def __init__(self, clock, covers):
        self.clock, self.covers, self.began_ns = clock, covers, clock()

    def probe(self):
        return (Capability("gpu:0", self.name, True, tick_seconds=0.0, covers=self.covers),)

    def read(self):
        now = self.clock()
        return (Reading("gpu:0", now, counter_joules=470 * (now - self.began_ns) / 1e9),)

    def close(self):
        pass


@pytest.mark.parametrize(("covers", "watts"), [((), 470 + 120), (("gpu:0", "cpu", "dram"), 470)])
def test_beside_a_gpu_its_sockets_count_and_beside_a_module_they_are_a_part_of_it(superchip, tmp_path, clock, covers, watts):
    record = watched(tmp_path, clock, Chip(clock, covers))
    assert record.joules == pytest.approx(watts * record.seconds, rel=1e-3)
    assert record.component("cpu:grace0").joules == pytest.approx(120 * record.seconds, rel=1e-3)


def test_auto_finds_a_grace_in_place_of_the_estimate_and_nothing_where_there_is_none(superchip, tmp_path):
    nothing = tmp_path / "nothing"
    found = discover("auto", environment={}, powercap=nothing, hwmon=tmp_path)
    assert [source.name for source in found.sources if source.name != "nvml"] == ["grace"]
    other = discover("auto", environment={}, powercap=nothing, hwmon=nothing)
    assert "grace" not in {one.source for one in other.absent} | {source.name for source in other.sources}
    assert [(one.source, one.reason) for one in discover("grace", hwmon=nothing).absent] == [("grace", "this machine has no grace")]
