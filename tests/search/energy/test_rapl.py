"""RAPL counters in a live powercap tree: wraps, permissions, mirrors and vanishing files."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.sources.rapl import Rapl


@pytest.fixture
def machine(powercap, clock):
    """A two-socket machine whose counters run at the watts given, and a ledger over it."""
    made = []

    def make(zones, start_uj=0):
        folders = {key: powercap.zone(key, name) for key, (name, _) in zones.items()}

        def run(seconds, step=0.1):
            for _ in range(round(seconds / step)):
                clock.advance(step)
                for key, (_, watts) in zones.items():
                    uj[key] += round(watts * step * 1e6)
                    powercap.write(folders[key], uj[key])
                ledger.sample()

        uj = dict.fromkeys(zones, start_uj)
        for key, folder in folders.items():
            powercap.write(folder, uj[key])
        source = Rapl(powercap.root, clock=clock)
        ledger = Ledger([source], interval_seconds=None, clock=clock).start()
        made.append(ledger)
        ledger.folders, ledger.rapl, ledger.drawn = folders, source, uj
        return ledger, run

    yield make
    for ledger in made:
        ledger.stop()


SERVER = {
    "intel-rapl:0": ("package-0", 100),
    "intel-rapl:0:0": ("core", 80),
    "intel-rapl:0:1": ("dram", 15),
    "intel-rapl:1": ("package-1", 60),
    "intel-rapl:1:0": ("dram", 15),
    "intel-rapl:2": ("psys", 230),
    "intel-rapl-mmio:0": ("package-0", 100),
}


def test_two_sockets_with_memory_add_up_and_nothing_counts_twice(machine):
    ledger, run = machine(SERVER)
    with ledger.window("trial") as window:
        run(1.0)
    record = window.record
    assert record.joules == pytest.approx(190, rel=0.001)
    assert [part.name for part in record.counting] == ["cpu:pkg0", "dram:0", "cpu:pkg1", "dram:1"]
    assert {zone.key: zone.reason for zone in ledger.rapl.left_out} == {
        "intel-rapl:0:0": "core is part of its package",
        "intel-rapl:2": "psys contains the packages",
        "intel-rapl-mmio:0": "a second way (MMIO) to the counter of the same name",
    }


def test_a_reading_straight_after_a_wrap_is_exact(machine, powercap):
    ledger, run = machine({"intel-rapl:0": ("package-0", 100)}, start_uj=powercap.range_uj + 1 - 5_000_000)
    with ledger.window("trial") as window:
        run(0.1)  # the counter stands 5 J after zero, and stood 5 J before it
    assert window.record.joules == pytest.approx(10, abs=100 * 0.001)  # the counter's own refresh of 1 ms is all the doubt
    assert window.record.component("cpu:pkg0").wraps == 1


@pytest.mark.slow
@given(range_uj=st.integers(20_000_000, 3 * 10**8), watts=st.integers(1, 90), seconds=st.integers(1, 20))
@settings(max_examples=12, deadline=None)
def test_any_number_of_wraps_is_exact_while_somebody_reads(tmp_path_factory, hand_clock, range_uj, watts, seconds):
    folder = tmp_path_factory.mktemp("tree") / "intel-rapl:0"
    folder.mkdir()
    (folder / "name").write_text("package-0")
    (folder / "max_energy_range_uj").write_text(str(range_uj))
    clock, uj = hand_clock(), 0
    (folder / "energy_uj").write_text("0")
    with Ledger([Rapl(folder.parent, clock=clock)], interval_seconds=None, clock=clock) as ledger, ledger.window("trial") as window:
        for _ in range(seconds * 10):
            clock.advance(0.1)
            uj += watts * 100_000
            (folder / "energy_uj").write_text(str(uj % (range_uj + 1)))
            ledger.sample()
    part = window.record.component("cpu:pkg0")
    assert part.joules == pytest.approx(watts * seconds, abs=watts * 0.001)
    assert part.wraps == uj // (range_uj + 1)


def test_wraps_that_nobody_saw_are_estimated_and_said(machine, powercap):
    powercap.range_uj = 10_000_000
    ledger, run = machine({"intel-rapl:0": ("package-0", 20)})
    with ledger.window("trial") as window:
        run(1.0)
        run(2.3, step=2.3)  # 46 J behind one reading, more than four turns
    part = window.record.component("cpu:pkg0")
    assert part.joules == pytest.approx(66, abs=2 * part.u_random_joules)
    assert part.u_random_joules > 1
    assert "wrapped more than once" in part.reason


def test_a_process_that_was_stopped_for_hours_counts_turns_though_the_counter_came_back_higher(machine):
    ledger, run = machine({"intel-rapl:0": ("package-0", 40)})
    with ledger.window("trial") as window:
        run(10)
        run(10_000, step=10_000)  # 400 kJ behind one reading: a turn and a half
    part = window.record.component("cpu:pkg0")
    assert part.joules == pytest.approx(400_400, rel=0.001)
    assert part.wraps == 1
    assert part.u_random_joules > 100_000  # what was drawn meanwhile may be as different as over any gap
    assert "without a reading" in part.reason
    with ledger.window("after") as window:
        run(10)
        run(5_000, step=5_000)  # 200 kJ: the counter may have turned, by its last power it did not
    part = window.record.component("cpu:pkg0")
    assert (part.joules, part.wraps) == (pytest.approx(200_400, rel=0.001), 1)


def test_what_a_laptop_draws_while_it_sleeps_is_no_work_of_the_window_that_it_interrupts(machine):
    """The monotonic clock stands still meanwhile, and the counter goes on."""
    ledger, run = machine({"intel-rapl:0": ("package-0", 15)})
    with ledger.window("trial") as window:
        run(10)
        ledger.drawn["intel-rapl:0"] += 3600 * 500_000  # an hour at half a watt
        run(10)
    part = window.record.component("cpu:pkg0")
    assert part.joules == pytest.approx(300, abs=2 * part.u_random_joules)
    assert part.resets == 1
    assert "slept" in part.reason


def test_dies_that_mirror_their_socket_are_left_out(machine):
    ledger, run = machine({"intel-rapl:0": ("package-0-die-0", 70), "intel-rapl:1": ("package-0-die-1", 70)})
    assert [zone.reason for zone in ledger.rapl.left_out] == ["mirrors intel-rapl:0"]
    with ledger.window("trial") as window:
        run(1.0)
    assert window.record.joules == pytest.approx(70, rel=0.001)


def test_dies_with_counters_of_their_own_add_up(powercap, clock):
    powercap.zone("intel-rapl:0", "package-0-die-0", uj=1_000)
    powercap.zone("intel-rapl:1", "package-0-die-1", uj=77_000)
    found = Rapl(powercap.root, clock=clock).probe()
    assert [capability.component for capability in found] == ["cpu:pkg0die0", "cpu:pkg0die1"]


def test_psys_stands_in_where_there_is_no_package(powercap, clock):
    powercap.zone("intel-rapl:0", "psys")
    (found,) = Rapl(powercap.root, clock=clock).probe()
    assert found.component == "platform"
    assert set(found.families) == {"cpu", "dram", "platform"}
    with powercap.running():
        assert [source.name for source in discover("auto", powercap=powercap.root).sources] == ["rapl"]


def test_counters_that_never_move_are_left_for_an_estimate(powercap):
    powercap.zone("intel-rapl:0", "package-0", uj=5_000_000)
    powercap.zone("intel-rapl:0:0", "dram")
    found = discover("auto", powercap=powercap.root)
    assert [source.name for source in found.sources] == ["cpu_time"]
    assert ["stands still" in (absent.reason or "") for absent in found.absent if absent.source == "rapl"] == [True, True]


@pytest.fixture
def closed(monkeypatch):
    """Close files as if this process were not root: opening them is refused."""
    paths = set()
    original = os.open

    def guarded(path, *args, **kwargs):
        if str(path) in paths:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr("os.open", guarded)
    return paths


def test_without_permission_the_reason_and_the_remedy_are_given(powercap, clock, closed):
    closed.add(str(powercap.zone("intel-rapl:0", "package-0") / "energy_uj"))
    (found,) = Rapl(powercap.root, clock=clock).probe()
    assert not found.available
    assert found.needs_root
    assert "Permission denied" in found.reason
    assert "chmod" in found.remedy


def test_half_of_the_packages_is_shown_and_not_counted(machine, powercap, closed, clock):
    closed.add(str(powercap.root / "intel-rapl:1" / "energy_uj"))
    ledger, run = machine(SERVER)
    with ledger.window("trial") as window:
        run(1.0)
    record = window.record
    part = record.component("cpu:pkg0")
    assert part.joules == pytest.approx(100, rel=0.001)
    assert not part.counts
    assert "only 1 of 2 packages can be read (cpu:pkg1 cannot)" in part.reason
    assert record.component("cpu:pkg1").joules is None
    # so the CPU is estimated, and memory is still measured
    with powercap.running():
        found = discover("auto", powercap=powercap.root)
    assert [source.name for source in found.sources] == ["rapl", "cpu_time"]


def test_half_of_the_memory_is_shown_and_not_counted(powercap, clock, closed):
    for key, (name, _) in SERVER.items():
        powercap.zone(key, name)
    closed.add(str(powercap.root / "intel-rapl:1" / "intel-rapl:1:0" / "energy_uj"))
    found = {one.component: one for one in Rapl(powercap.root, clock=clock).probe()}
    assert [name for name, one in found.items() if one.counts and one.available] == ["cpu:pkg0", "cpu:pkg1"]
    assert "only 1 of 2 memory counters can be read (dram:1 cannot): not the whole memory" in found["dram:0"].reason


def test_a_counter_that_vanishes_makes_energy_unknown(machine, clock, powercap):
    ledger, run = machine({"intel-rapl:0": ("package-0", 100)})
    with ledger.window("trial") as window:
        run(1.0)
        folder = ledger.folders["intel-rapl:0"]
        powercap.remove(folder)
        for _ in range(30):
            clock.advance(0.1)
            ledger.sample()
    part = window.record.component("cpu:pkg0")
    assert part.joules is None
    assert "No such file" in part.reason
    assert window.record.joules is None


def test_a_counter_that_comes_back_loses_nothing(machine, clock, powercap):
    ledger, run = machine({"intel-rapl:0": ("package-0", 100)})
    folder = ledger.folders["intel-rapl:0"]
    with ledger.window("trial") as window:
        run(1.0)
        value = int((folder / "energy_uj").read_text())
        powercap.remove(folder)
        for _ in range(30):
            clock.advance(0.1)
            ledger.sample()
        powercap.write(folder, value)
        run(3.0)
    part = window.record.component("cpu:pkg0")
    assert part.joules == pytest.approx(400, rel=0.001)
    assert part.gap_seconds == pytest.approx(3.1, abs=0.2)


def test_no_tree_is_a_reason(tmp_path, clock):
    (found,) = Rapl(tmp_path / "nothing", clock=clock).probe()
    assert not found.available
    assert "no RAPL counters" in found.reason


def test_psys_is_not_counted_beside_packages_that_are_reached_by_mmio_alone(powercap, clock):
    powercap.zone("intel-rapl:0", "psys")
    powercap.zone("intel-rapl-mmio:0", "package-0")
    found = Rapl(powercap.root, clock=clock).probe()
    assert [one.component for one in found if one.counts] == ["cpu:pkg0"]
