"""What windows of several threads and meters add up to, compared with slow and obvious sums."""

from __future__ import annotations

import pytest
from helpers.windows import SECOND, WATTS, ThreadsAtWork
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.energy import Capability, Ledger
from joulefront.search.energy.attribution import MeteredPart, PartitionCache, WindowSnapshot, split
from joulefront.search.energy.windows import WindowUsage

from .conftest import balance


@pytest.mark.slow
@given(
    edges=st.lists(st.tuples(st.integers(0, 3), st.floats(0.5, 5.0)), min_size=2, max_size=14),
    rates=st.lists(st.floats(0.05, 1.0), min_size=4, max_size=4),
    ledgers=st.integers(1, 2),
)
@settings(max_examples=25, deadline=None)
def test_windows_of_threads_add_up_to_the_time_in_which_any_was_open(edges, rates, ledgers, scripted, hand_clock):
    """Four threads open and close windows as they like, also on two ledgers; the oracle adds power times each thread's part."""
    clock = hand_clock(step_ns=0)
    with ThreadsAtWork.on(clock) as threads:
        made = []
        for _ in range(ledgers):
            source = scripted((Capability("cpu:pkg0", "scripted", True, tick_seconds=0.0),), clock, joules=lambda name, t: 50 * t)
            made.append(Ledger([source], interval_seconds=None, clock=clock).start())
            threads.measure(made[-1])
        workers = [threads.start(rate, made[k % ledgers]) for k, rate in enumerate(rates)]
        open_windows, ended, truth = {}, [], {}
        for who, seconds in [*edges, *((k, 1.0) for k in range(4))]:
            worker = workers[who]
            if who in open_windows:
                window = open_windows.pop(who)
                worker.close(window)
                ended.append(window)
            elif len(ended) + len(open_windows) < len(edges):
                window = open_windows[who] = worker.open("trial", devices=())
                truth[window.id] = 0.0
            for _ in range(round(seconds * 2)):
                clock.advance(0.5)
                for ledger in made:
                    ledger.sample()
                busy = sum(rates[k] for k in open_windows)
                for k, window in open_windows.items():
                    truth[window.id] += 25.0 if len(open_windows) == 1 else 25.0 * rates[k] / busy
        ended += list(open_windows.values())
        for who, window in open_windows.items():
            workers[who].close(window)
        for window in ended:
            part = window.record.component("cpu:pkg0")
            if part.joules is not None:
                assert part.joules == pytest.approx(truth[window.id], rel=1e-3, abs=0.1)
        for ledger in made:
            assert abs(balance(ledger.partition())) < 1e-6
            ledger.stop()


def test_a_meter_that_is_lost_keeps_what_it_knew_and_the_rest_is_named(scripted, clock):
    capabilities = tuple(Capability(name, "scripted", True, tick_seconds=0.0) for name in WATTS)
    source = scripted(capabilities, clock, joules=lambda name, t: WATTS[name] * t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        first = ledger.open("first", devices=("gpu:a",))
        for second in range(1, 41):
            clock.advance(1)
            source.silent = frozenset({"gpu:a"} if second > 30 else ())
            ledger.sample()
            if second == 20:
                first.close()
                second_window = ledger.open("second", devices=("gpu:b",))
        second_window.close()
        found = ledger.partition()
        assert first.record.joules == pytest.approx(20 * 350, rel=1e-3)
        assert second_window.record.joules == pytest.approx(20 * 200, rel=1e-3)
        assert ledger.total().joules is None
    assert found.shares[first.id]["gpu:a"].joules == pytest.approx(6000, rel=1e-3)
    assert found.unknown == {"gpu:a": pytest.approx(9, rel=1e-2)}  # a second of reach after the last reading is known
    assert found.total["gpu:a"] == pytest.approx(31 * 300, rel=1e-2)
    assert found.total["gpu:b"] == pytest.approx(40 * 150, rel=1e-2)
    assert found.idle["gpu:a"] == pytest.approx(11 * 300, rel=1e-2)
    assert abs(balance(found)) < 1e-6


@pytest.mark.slow
def test_a_meter_that_is_refreshed_slowly_is_known_to_the_split_as_far_as_to_a_record(scripted, clock):
    source = scripted((Capability("cpu", "scripted", True, tick_seconds=15.0),), clock, joules=lambda name, t: 40.0 * (t // 15 * 15))
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        for _ in range(1000):
            clock.advance(0.1)
            ledger.sample()
            if clock.now_ns % (7 * SECOND) < SECOND // 10:
                ledger.partition()  # what is kept of a instant must not be a guess
        found, total = ledger.partition(), ledger.total()
    assert found.unknown == {}
    assert sum(found.total.values()) == pytest.approx(total.joules, rel=1e-6)


stretches = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(1, 60),
        st.sampled_from(["trial", "overhead", "idle"]),
        st.one_of(st.none(), st.floats(0, 50)),
        st.sampled_from([(), ("gpu:a",), None]),
    ),
    max_size=12,
)


@pytest.mark.slow
@given(raw=stretches, instants=st.lists(st.integers(1, 500), min_size=1, max_size=6), lost=st.one_of(st.none(), st.integers(1, 500)))
@settings(max_examples=60, deadline=None)
def test_what_is_kept_from_look_to_look_equals_a_split_of_everything(raw, instants, lost):
    """Windows come to be known as time goes on; at each instant the kept sums must be those of a split from scratch."""
    every = [WindowUsage(str(k), kind, a * SECOND, (a + b) * SECOND, cpu, devices) for k, (a, b, kind, cpu, devices) in enumerate(raw)]

    def energy(begin, end):
        return 70 * (end - begin) / SECOND if lost is None or end <= lost * SECOND else None

    meters = [
        MeteredPart("gpu:a", energy, extent=None if lost is None else (0, lost * SECOND)),
        MeteredPart("cpu:pkg0", lambda begin, end: 50 * (end - begin) / SECOND, idle_watts=10),
    ]
    kept = PartitionCache()
    for now in sorted(instant * SECOND for instant in instants):

        def view(begin, end):
            known = [usage for usage in every if usage.t0_ns < end and usage.t1_ns > begin]
            current = [
                WindowUsage(c.id, c.kind, c.t0_ns, min(c.t1_ns, end), None if c.t1_ns > end else c.cpu_seconds, c.devices) for c in known
            ]
            begins = [c.t0_ns for c in every if c.t0_ns < end <= c.t1_ns and c.competes]
            return WindowSnapshot(current, min(begins, default=None), None)

        def cpu(begin, end):
            return 4.0 * (end - begin) / SECOND, 2.0 * (end - begin) / SECOND

        found = kept.split(0, now, view, meters, cpu)
        slow = split(view(0, now).usages, 0, now, meters, cpu)
        for name in ("overhead", "idle", "unattributed", "total", "unknown"):
            assert getattr(found, name) == pytest.approx(getattr(slow, name), rel=1e-9, abs=1e-6)
        for id, shares in slow.shares.items():
            assert {n: share.joules for n, share in found.shares[id].items()} == pytest.approx({n: s.joules for n, s in shares.items()})
        assert abs(balance(found)) < 1e-6
