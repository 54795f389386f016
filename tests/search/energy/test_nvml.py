"""NVIDIA's own binding over a driver in C: counters that tick, freeze, restart, vanish and belong to somebody else."""

from __future__ import annotations

import os

import pytest
from helpers.nvml_records import GPU, part

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.sources.nvml import Nvml

SQUARE = {"kind": "square", "low": 60, "high": 350, "period": 0.73, "duty": 0.6}


def test_the_counter_is_read_in_joules_by_uuid(driver, clock):
    driver.reset(2).set(0, high=200).set(1, high=100).follow(clock)
    with Ledger([Nvml(clock=clock, environment={})], interval_seconds=None, clock=clock) as ledger:
        window = ledger.open("trial")
        for _ in range(100):
            clock.advance(0.1)
            ledger.sample()
        record = window.close()
    assert part(record).joules == pytest.approx(2000, rel=0.01)
    assert part(record, "gpu:GPU-00000001-fake").joules == pytest.approx(1000, rel=0.01)
    assert record.joules == pytest.approx(3000, rel=0.01)
    assert record.hardware["devices"][GPU]["name"] == "Fake GPU"


@pytest.mark.parametrize("tick", [0.02, 0.05, 0.1, 0.5])
def test_the_refresh_period_is_learnt(bench, tick):
    machine = bench(tick=tick, phase=0.013)
    machine.run(8)
    for _ in range(8):
        with machine.ledger.window("epoch", kind="epoch") as window:
            machine.run(1.3)
    assert part(window.record).tick_seconds == pytest.approx(tick, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "bar"), [(1, 0.025), (3, 0.010), (10, 0.003)])
def test_windows_are_better_than_the_counters_refresh(bench, seconds, bar):
    machine = bench(**SQUARE, tick=0.1, phase=0.037)
    machine.run(1.0)
    errors = []
    windows = []
    for i in range(60):
        machine.run(0.05 + 0.618 * i % 0.3)
        with machine.ledger.window("trial") as window:
            machine.run(seconds)
        windows.append(window)
    machine.run(0.5)
    for window in windows:
        truth = machine.driver.joules(window.t0_ns, window.t1_ns)
        errors.append(abs(window.record.joules - truth) / truth)
    assert sorted(errors)[int(0.95 * len(errors))] <= bar


@pytest.mark.slow
def test_a_late_refresh_makes_an_earlier_window_better(bench):
    machine = bench(**SQUARE, tick=0.1)
    machine.run(2.03)
    errors = []
    for i in range(40):
        machine.run(0.3 + 0.618 * i % 0.3)
        with machine.ledger.window("trial") as window:
            machine.run(1.0)
        truth = machine.driver.joules(window.t0_ns, window.t1_ns)
        early = part(window.record)
        machine.run(1.0)
        late = part(window.record)
        errors.append((abs(early.joules - truth), abs(late.joules - truth), 2 * early.u_random_joules, 2 * late.u_random_joules))
    first, second, first_bound, second_bound = zip(*errors, strict=True)
    assert sum(second) < 0.5 * sum(first)
    assert sum(error <= bound for error, bound in zip(first, first_bound, strict=True)) >= 38
    assert sum(error <= bound for error, bound in zip(second, second_bound, strict=True)) >= 38
    machine.run(5.0)
    assert part(window.record) == late


@pytest.mark.slow
def test_a_window_shorter_than_the_refresh_says_so_and_its_interval_holds(bench):
    machine = bench(**SQUARE, tick=0.1)
    machine.run(1.0)
    inside = 0
    for i in range(60):
        machine.run(0.1 + 0.618 * i % 0.3)
        with machine.ledger.window("trial") as window:
            machine.run(0.01 + 0.02 * (i % 2))
        machine.run(0.3)
        found = part(window.record)
        assert found.below_resolution
        assert window.record.below_resolution
        inside += abs(found.joules - machine.driver.joules(window.t0_ns, window.t1_ns)) <= 2 * found.u_random_joules
    assert inside >= 57


def test_without_a_counter_power_is_integrated_and_said(bench):
    machine = bench(high=200, counter=0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules == pytest.approx(2000, rel=1e-3)
    assert "no energy counter (Not Supported): instant power is integrated" in found.reason
    assert found.u_systematic_joules > 0.05 * found.joules


def test_a_step_of_power_is_within_its_interval(bench):
    machine = bench(kind="step", low=50, high=200, at=1003.0, counter=0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    truth = machine.driver.joules(window.t0_ns, window.t1_ns)
    assert found.joules == pytest.approx(truth, rel=0.03)
    assert abs(found.joules - truth) <= 2 * found.u_random_joules


def test_averaged_power_is_the_last_resort_and_less_trusted(bench):
    machine = bench(high=200, counter=0, instant=0)
    with machine.ledger.window("trial") as window:
        machine.run(5)
    found = part(window.record)
    assert found.joules == pytest.approx(1000, rel=1e-3)
    assert "averaged by the driver" in found.reason
    assert found.u_systematic_joules == pytest.approx(0.15 * found.joules)


def test_a_frozen_counter_is_replaced_by_power_from_where_it_stopped(bench):
    machine = bench(high=200, frozen_at=1004.0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules == pytest.approx(2000, rel=0.01)
    assert "stood still" in found.reason
    assert found.quality == "measured"


def test_a_counter_that_vanishes_is_replaced_by_power(bench):
    machine = bench(high=200, counter_until=1004.0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    assert part(window.record).joules == pytest.approx(2000, rel=0.01)


def test_an_impossible_counter_is_dropped(bench):
    machine = bench(high=200, gain=0.2)
    machine.run(7)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules == pytest.approx(2000, rel=0.01)
    assert "the counter gave 0.20 of the integrated power" in found.reason


def test_a_doubtful_counter_is_kept_and_flagged(bench):
    machine = bench(high=200, gain=0.57)
    machine.run(1)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules == pytest.approx(1140, rel=0.01)
    assert found.cross_check == pytest.approx(0.57, rel=0.02)
    assert "0.57 of its integrated power" in found.reason


def test_agreeing_meters_raise_no_flag(bench):
    machine = bench(**SQUARE)
    machine.run(1)
    with machine.ledger.window("trial") as window:
        machine.run(20)
    assert part(window.record).reason is None


def test_a_counter_that_restarts_loses_nothing_of_what_follows(bench):
    machine = bench(high=200, reset_at=1005.0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.resets == 1
    assert found.joules >= 0
    assert abs(found.joules - 2000) <= 2 * found.u_random_joules
    assert "started again at zero" in found.reason


def test_a_gpu_that_is_lost_makes_energy_unknown_with_the_reason(bench):
    machine = bench(high=200, lost_at=1003.0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules is None
    assert "GPU is lost" in found.reason
    assert window.record.joules is None
    assert window.record.quality == "absent"


def test_temperature_clocks_and_throttling_are_noted_at_the_edges(bench):
    machine = bench(temperature=55, throttle=0x4 | 0x20)
    with machine.ledger.window("trial") as window:
        machine.run(1)
        machine.driver.set(temperature=71)
    edges = window.record.edges
    assert edges["begin"][GPU] == {"temperature_celsius": 55, "clock_mhz": 1500, "throttle": "power cap, thermal (software)"}
    assert edges["end"][GPU]["temperature_celsius"] == 71


def test_other_processes_on_the_gpu_are_contention_and_our_own_are_not(bench):
    machine = bench()
    machine.driver.set(pid=os.getpid())
    with machine.ledger.window("trial") as window:
        machine.run(0.5)
        machine.ledger.checkpoint()
    assert "foreign_gpu_pids" not in (window.record.contended or {})
    machine.driver.set(pid=2**22 + 1)  # a number that only another process namespace can have
    machine.driver.set(pid=1)
    with machine.ledger.window("trial") as window:
        machine.run(0.5)
        machine.ledger.checkpoint()
        machine.run(0.5)
    assert window.record.contended["foreign_gpu_pids"] == {GPU: [1]}


def test_a_short_measurement_beside_another_process_is_marked_too(bench):
    """No checkpoint comes within its few seconds."""
    machine = bench(pid=1)
    with machine.ledger.window("trial") as window:
        machine.run(0.5)
    assert window.record.contended == {"foreign_gpu_pids": {GPU: [1]}}


def test_discover_finds_the_gpu_and_the_cpu(driver, tmp_path):
    found = discover("auto", powercap=tmp_path)
    assert [source.name for source in found.sources] == ["nvml", "cpu_time"]
    assert [capability.source for capability in found.absent] == ["rapl"]
    for source in found.sources:
        source.close()


@pytest.mark.slow
def test_the_thread_reads_the_same_driver_in_real_time(driver):
    driver.set(**SQUARE, tick=0.02).run(1.0)
    with Ledger([Nvml(environment={})], interval_seconds=0.05) as ledger:
        origin = driver.library.fake_clock()
        with ledger.window("trial") as window:
            import time

            begin = time.monotonic_ns()
            time.sleep(1.0)
        window.close()
        record = window.close(settle=True)
        offset = origin - begin / 1e9
        truth = driver.joules(window.t0_ns + offset * 1e9, window.t1_ns + offset * 1e9)
        assert record.joules == pytest.approx(truth, rel=0.1)
        assert part(record).reads >= 5
