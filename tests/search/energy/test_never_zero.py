"""Nothing in a record is ever a silent zero: every source fails in every way, and what is found is null with a reason."""

from __future__ import annotations

import math
from functools import partial

import pytest

from joulefront.search.energy import Capability, Ledger, Reading
from joulefront.search.energy.sources.cpu_time import CpuTime, CpuUse
from joulefront.search.energy.sources.nvml import Nvml
from joulefront.search.energy.sources.rapl import Rapl


def run(sources, clock, seconds=5.0, spoil=None):
    ledger = Ledger(sources, interval_seconds=None, clock=clock).start()
    window = ledger.open("trial")
    for step in range(round(seconds / 0.1)):
        if spoil is not None and step == 10:
            spoil()
        clock.advance(0.1)
        ledger.sample()
    window.close()
    ledger.stop()
    return window.record


def holds(record):
    """Every component without energy has a reason; a zero has doubt; the sum is unknown as soon as a part of it is."""
    for part in record.components:
        if part.joules is None:
            assert part.reason
            assert part.quality == "absent"
            assert part.u_random_joules is None
            assert part.net_joules is None
        else:
            assert math.isfinite(part.joules)
            assert part.joules >= 0
            assert part.u_random_joules > 0
    if any(part.joules is None for part in record.counting) or not record.counting:
        assert record.joules is None
    assert record.to_json()["joules"] == record.joules


WAYS = ["raises", "error", "no number", "nan", "infinite", "negative", "silent", "dies", "dies and says nothing"]


@pytest.mark.parametrize("kind", ["joules", "watts"])
@pytest.mark.parametrize("way", WAYS)
def test_any_source_that_fails_gives_null_with_a_reason(scripted, clock, kind, way):
    capability = Capability("soc", "scripted", True, tick_seconds=0.0)
    value = {"nan": math.nan, "infinite": math.inf, "negative": -3.0}.get(way, 7.0)
    source = scripted((capability,), clock, **{kind: lambda name, t: value * (t if math.isfinite(value) and kind == "joules" else 1)})
    if way == "raises":
        source.fails = RuntimeError("bus error")
    if way == "error":
        source.fails = "cable pulled"
    if way == "no number":
        source.joules = source.watts = None
    if way == "silent":
        source.silent = frozenset({"soc"})
    spoil = None
    if way == "dies":

        def spoil():
            source.fails = "cable pulled"

    if way == "dies and says nothing":

        def spoil():
            source.silent = frozenset({"soc"})

    record = run([source], clock, spoil=spoil)
    holds(record)
    assert record.joules is None
    assert record.quality == "absent"


def test_a_counter_that_really_stands_still_is_zero_with_doubt(scripted, clock):
    capability = Capability("soc", "scripted", True, tick_seconds=0.0, resolution_joules=0.01)
    record = run([scripted((capability,), clock, joules=lambda name, t: 5.0)], clock)
    holds(record)
    assert record.joules == 0.0
    assert record.below_resolution


GPU_FAULTS = [
    {"lost_at": 0.0},
    {"lost_at": 1001.0},
    {"counter": 0},
    {"counter": 0, "instant": 0},
    {"counter": 0, "instant": 0, "usage": 0},
    {"counter_until": 1001.0},
    {"frozen_at": 1001.0},
    {"frozen_at": 1001.0, "instant": 0, "usage": 0},
    {"reset_at": 1001.0},
    {"gain": 0.0},
    {"mig": 1, "instances": 2},
    {"virtualisation": 2},
]


@pytest.mark.parametrize("fault", GPU_FAULTS, ids=str)
def test_every_fault_of_a_gpu_is_null_or_a_number_with_doubt(driver, clock, fault):
    clock.now_ns = 1000 * 10**9
    driver.set(**fault).follow(clock)
    record = run([Nvml(clock=clock, environment={})], clock)
    holds(record)
    part = record.components[0]
    if part.counts and part.joules is not None and "reset_at" not in fault:
        assert part.joules == pytest.approx(1000, rel=0.05)


def test_a_gpu_counter_that_freezes_without_a_power_sensor_is_not_a_measured_zero(driver, clock):
    clock.now_ns = 1000 * 10**9
    driver.set(frozen_at=0.0, instant=0, usage=0).follow(clock)
    record = run([Nvml(clock=clock, environment={})], clock)
    holds(record)
    assert record.joules is None
    assert "read" in record.components[0].reason


@pytest.mark.parametrize("fault", ["no tree", "empty", "no number", "letters", "vanishes", "turns to letters"])
def test_every_fault_of_a_powercap_tree_is_null_with_a_reason(powercap, clock, fault):
    root, spoil = powercap.root, None
    if fault == "no tree":
        root = root / "nothing"
    if fault not in ("no tree", "empty"):
        folder = powercap.zone("intel-rapl:0", "package-0", uj=10)
        energy = folder / "energy_uj"
        if fault == "no number":
            energy.write_text("")
        if fault == "letters":
            energy.write_text("many")
        if fault == "vanishes":
            spoil = partial(powercap.remove, folder)
        if fault == "turns to letters":

            def spoil():
                energy.write_text("many")

    record = run([Rapl(root, clock=clock)], clock, spoil=spoil)
    holds(record)
    assert record.joules is None


def test_cpu_time_of_nothing_is_zero_with_doubt(clock):
    class Idle:
        def read(self, *, exact=True):
            return CpuUse(1.0, 0.0)

    record = run([CpuTime(clock=clock, tree=Idle())], clock)
    holds(record)
    assert record.joules == 0.0


def test_a_power_meter_that_goes_negative_is_refused_and_not_summed(scripted, clock):
    capability = Capability("soc", "scripted", True, tick_seconds=0.0)
    level = [100.0]
    source = scripted((capability,), clock, watts=lambda name, t: level[0])

    def spoil():
        level[0] = -1e6

    record = run([source], clock, spoil=spoil)
    holds(record)
    assert record.joules is None
    assert "must give finite values >= 0, got -1000000.0; refused" in record.components[0].reason


def test_readings_of_unknown_components_are_ignored(clock):
    class Confused:
        name = "confused"

        def probe(self):
            return (Capability("soc", self.name, True, tick_seconds=0.0),)

        def read(self):
            return (Reading("soc", clock(), counter_joules=clock.now_ns / 1e9), Reading("moon", clock(), counter_joules=1e9))

        def close(self):
            pass

    record = run([Confused()], clock)
    assert record.joules == pytest.approx(5.0, rel=1e-3)
    assert [part.name for part in record.components] == ["soc"]
