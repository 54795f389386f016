"""Parallel trials: every joule in one place, against a slow and obvious oracle."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.energy import Capability, Ledger
from joulefront.search.energy.attribution import MeteredPart, split
from joulefront.search.energy.windows import WindowUsage

from .conftest import balance

SECOND = 10**9


def steady(watts):
    return lambda begin, end: watts * (end - begin) / SECOND


def cores(busy, own):
    return lambda begin, end: (busy * (end - begin) / SECOND, own * (end - begin) / SECOND)


@pytest.mark.slow
def test_two_trials_share_the_cpu_by_seconds_and_its_rest_by_time():
    usages = [WindowUsage("a", "trial", 0, 10 * SECOND, 30.0, ()), WindowUsage("b", "trial", 0, 10 * SECOND, 10.0, ())]
    found = split(usages, 0, 10 * SECOND, [MeteredPart("cpu:pkg0", steady(100), idle_watts=20)], cores(4.0, 4.0))
    # 200 J of idle in halves, 800 J of work three to one
    assert found.shares["a"]["cpu:pkg0"].joules == pytest.approx(100 + 600)
    assert found.shares["b"]["cpu:pkg0"].joules == pytest.approx(100 + 200)
    assert found.overhead == found.unattributed == found.idle == {}


def test_a_gpu_belongs_to_the_trial_that_holds_it():
    usages = [WindowUsage("a", "trial", 0, 4 * SECOND, 1.0, ("gpu:0",)), WindowUsage("b", "trial", 2 * SECOND, 6 * SECOND, 1.0, ("gpu:1",))]
    found = split(usages, 0, 8 * SECOND, [MeteredPart("gpu:0", steady(300)), MeteredPart("gpu:1", steady(200))], cores(1.0, 1.0))
    assert found.shares["a"]["gpu:0"].joules == pytest.approx(1200)
    assert found.shares["b"]["gpu:1"].joules == pytest.approx(800)
    assert "gpu:1" not in found.shares["a"]
    assert found.idle == {"gpu:0": pytest.approx(1200), "gpu:1": pytest.approx(800)}


def test_own_work_outside_is_overhead_and_foreign_work_is_unattributed():
    usages = [WindowUsage("a", "trial", 0, 10 * SECOND, 10.0, ())]
    found = split(usages, 0, 10 * SECOND, [MeteredPart("cpu:pkg0", steady(100), idle_watts=20)], cores(4.0, 2.0))
    assert found.shares["a"]["cpu:pkg0"].joules == pytest.approx(200 + 200)
    assert found.overhead["cpu:pkg0"] == pytest.approx(200)
    assert found.unattributed["cpu:pkg0"] == pytest.approx(400)


def test_trials_that_state_nothing_share_by_time():
    usages = [WindowUsage("a", "trial", 0, 4 * SECOND), WindowUsage("b", "trial", 0, 4 * SECOND)]
    found = split(usages, 0, 4 * SECOND, [MeteredPart("cpu", steady(10), tree=True)], cores(2.0, 2.0))
    assert found.shares["a"]["cpu"].joules == found.shares["b"]["cpu"].joules == pytest.approx(20)


def oracle(usages, t1, meters, busy, own):
    """Step through time in milliseconds and hand every one out."""
    got = {usage.id: 0.0 for usage in usages}
    rest = 0.0
    step = SECOND // 1000
    for t in range(0, t1, step):
        active = [usage for usage in usages if usage.t0_ns <= t < usage.t1_ns]
        for name, watts, idle in meters:
            joules = watts / 1000
            if name.startswith("gpu:"):
                holders = [usage for usage in active if usage.devices is None or name in usage.devices]
                for usage in holders:
                    got[usage.id] += joules / len(holders)
                rest += 0 if holders else joules
                continue
            resting = min(idle / 1000, joules)
            rates = {usage.id: usage.cpu_seconds / (usage.t1_ns - usage.t0_ns) * SECOND for usage in active}
            base = max(busy, sum(rates.values()))
            for usage in active:
                got[usage.id] += resting / len(active) + (
                    (joules - resting) * rates[usage.id] / base if base else (joules - resting) / len(active)
                )
            rest += joules - sum(resting / len(active) for _ in active)
            rest -= sum((joules - resting) * rates[c.id] / base if base else (joules - resting) / len(active) for c in active)
    return got, rest


claims_of = st.lists(
    st.tuples(st.integers(0, 900), st.integers(1, 600), st.just(0.0) | st.floats(1e-6, 4), st.sampled_from([(), ("gpu:0",), None])),
    max_size=6,
)


@pytest.mark.slow
@given(
    raw=claims_of,
    package=st.floats(0, 300),
    idle=st.floats(0, 100),
    gpu=st.floats(0, 400),
    busy=st.just(0.0) | st.floats(1e-3, 8),
    part=st.floats(0, 1),
)
@settings(max_examples=80, deadline=None)
def test_the_split_equals_a_walk_through_every_millisecond_and_loses_nothing(raw, package, idle, gpu, busy, part):
    step = SECOND // 1000
    usages = [WindowUsage(str(i), "trial", a * step, (a + b) * step, cpu, devices) for i, (a, b, cpu, devices) in enumerate(raw)]
    meters = [MeteredPart("cpu:pkg0", steady(package), idle_watts=idle), MeteredPart("gpu:0", steady(gpu))]
    t1 = 1600 * step
    found = split(usages, 0, t1, meters, cores(busy, busy * part))
    slow, rest = oracle(usages, t1, [("cpu:pkg0", package, idle), ("gpu:0", gpu, 0)], busy, busy * part)
    for usage in usages:
        got = sum(share.joules for share in found.shares[usage.id].values())
        assert got == pytest.approx(slow[usage.id], rel=1e-6, abs=1e-6)
    named = sum(joules for bucket in (found.overhead, found.idle, found.unattributed) for joules in bucket.values())
    assert named == pytest.approx(rest, rel=1e-6, abs=1e-6)
    assert abs(balance(found)) <= 1e-9 * max(sum(found.total.values()), 1.0)
    for bucket in (found.overhead, found.idle, found.unattributed):
        assert all(joules >= -1e-9 for joules in bucket.values())


@pytest.mark.slow
@given(raw=claims_of)
@settings(max_examples=25, deadline=None)
def test_parallel_trials_on_one_ledger_add_up_to_its_total(raw, scripted, hand_clock):
    clock = hand_clock()
    capabilities = (
        Capability("cpu:pkg0", "scripted", True, tick_seconds=0.0),
        Capability("gpu:0", "scripted", True, tick_seconds=0.0),
    )
    source = scripted(capabilities, clock, joules=lambda name, t: (90 if name == "gpu:0" else 40) * t)
    ledger = Ledger([source], interval_seconds=None, clock=clock).start()
    for _ in range(20):
        clock.advance(0.1)
        ledger.sample()
    begin = ledger.t0_ns
    records = [ledger.query(begin + a * 10**6, begin + (a + b) * 10**6, cpu_seconds=cpu, devices=devices) for a, b, cpu, devices in raw]
    found = ledger.partition()
    ledger.stop()
    total = sum(found.total.values())
    shares = sum(share.joules for shares in found.shares.values() for share in shares.values())
    rest = sum(sum(bucket.values()) for bucket in (found.overhead, found.idle, found.unattributed))
    assert shares + rest == pytest.approx(total, rel=1e-9)
    assert total == pytest.approx(ledger.query(begin, begin + round((total / 130) * 1e9)).joules, rel=1e-3)
    assert all(record.known_joules <= total * 1.001 for record in records)


def test_a_parallel_record_says_how_it_was_split_and_doubts_it(scripted, clock):
    source = scripted((Capability("cpu:pkg0", "scripted", True, tick_seconds=0.0),), clock, joules=lambda name, t: 100 * t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        first = ledger.open("a", devices=())
        second = ledger.open("b", devices=())
        clock.advance(10)
        second.close(cpu_seconds=1e6)
        first.close(cpu_seconds=3e6)
        a, b = first.record.component("cpu:pkg0"), second.record.component("cpu:pkg0")
        assert a.joules == pytest.approx(750, rel=1e-3)
        assert b.joules == pytest.approx(250, rel=1e-3)
        assert "shared(idle by wall time, the rest by CPU-seconds)" in a.attribution
        assert a.u_random_joules == pytest.approx(0.15 * 750, rel=0.01)


def test_a_gpu_held_by_another_trial_is_out_of_the_sum(scripted, clock):
    capabilities = tuple(Capability(name, "scripted", True, tick_seconds=0.0) for name in ("gpu:0", "gpu:1"))
    source = scripted(capabilities, clock, joules=lambda name, t: {"gpu:0": 100, "gpu:1": 50}[name] * t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        first = ledger.open("a", devices=("gpu:0",))
        second = ledger.open("b", devices=("gpu:1",))
        clock.advance(10)
        first.close()
        second.close()
        assert first.record.joules == pytest.approx(1000, rel=1e-3)
        assert second.record.joules == pytest.approx(500, rel=1e-3)
        assert first.record.component("gpu:1").joules is None
        assert "held by another trial" in first.record.component("gpu:1").reason
        assert first.record.component("gpu:0").attribution == "exclusive"


def test_two_trials_on_one_gpu_are_split_with_a_wide_doubt(scripted, clock):
    source = scripted((Capability("gpu:0", "scripted", True, tick_seconds=0.0),), clock, joules=lambda name, t: 100 * t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        windows = [ledger.open(name, devices=("gpu:0",)) for name in "ab"]
        clock.advance(10)
        for window in windows:
            window.close()
        part = windows[0].record.component("gpu:0")
        assert part.joules == pytest.approx(500, rel=1e-3)
        assert part.u_random_joules >= 0.3 * 499
        assert "shared" in part.attribution


def test_the_epochs_of_a_parallel_trial_hold_its_devices_and_add_up_to_it(scripted, clock):
    capabilities = tuple(Capability(name, "scripted", True, tick_seconds=0.0) for name in ("gpu:0", "gpu:1"))
    source = scripted(capabilities, clock, joules=lambda name, t: {"gpu:0": 100, "gpu:1": 50}[name] * t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        first, second = ledger.open("a", devices=("gpu:0",)), ledger.open("b", devices=("gpu:1",))
        epochs = []
        for number in range(3):
            with ledger.window(f"epoch {number}", kind="epoch", parent=first) as epoch:
                clock.advance(2)
            epochs.append(epoch)
        first.close()
        second.close()
        assert sum(epoch.record.joules for epoch in epochs) == pytest.approx(first.record.joules, rel=1e-3)
        assert first.record.joules == pytest.approx(600, rel=1e-3)
