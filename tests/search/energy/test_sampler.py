"""Burst polling by the thread: as little as places a refresh, and none missed when an edge comes at a bad moment."""

from __future__ import annotations

import random
import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest

from joulefront.search.energy.background import BURST_SECONDS, Sampler
from joulefront.search.energy.meters import MeterSet
from joulefront.search.energy.sources.nvml import Nvml

from .conftest import Bench

GPU = "gpu:GPU-00000000-fake"


@pytest.fixture
def square(driver, clock):
    """The meters of a GPU whose load comes and goes, with their channel of it."""
    driver.set(kind="square", low=60.0, high=350.0, period=0.9, tick=0.1, phase=0.033).follow(clock)
    meters = MeterSet([Nvml(clock=clock, environment={})], (), clock)
    meters.open()
    meters.read()
    Bench(SimpleNamespace(burst=meters.burst, sample=meters.read), clock, driver, begin_ns=clock.now_ns).run(3)
    yield meters, meters.channels[GPU]
    meters.close()


def polls(meters, clock, seconds, every):
    """Let windows of one length follow one another, and sleep as the thread would until polling is worth it; return how often it polled."""
    end, count, pause = clock.now_ns + round(seconds * 1e9), 0, None
    while clock.now_ns < end:
        meters.read()
        meters.edge()
        ends = clock.now_ns + round(every * 1e9)
        while (left := (ends - clock.now_ns) / 1e9) > 0:
            before = len(meters.channels[GPU].reads)
            if pause is None or pause <= 0:
                pause = meters.burst()
                count += len(meters.channels[GPU].reads) - before
            step = min(left, pause or left)
            clock.advance(step)
            pause = None if pause is None else pause - step
        meters.read()
        meters.edge()
    return count


@pytest.mark.parametrize("every", [0.01, 0.1])
def test_once_the_refresh_is_learnt_few_polls_still_place_it(square, driver, clock, every):
    meters, channel = square
    polls(meters, clock, 2.0, every)
    count = polls(meters, clock, 5.0, every)
    curve = channel.curve
    assert count <= 6 * 5 / max(every, 0.1)  # one poll every 2 ms would make 2500 of them
    assert sorted(curve.half)[len(curve) // 2] <= 2_000_000  # and most refreshes are known to within a poll or so
    truth = [driver.joules(curve.t[0], t_ns) for t_ns in curve.t]
    off = [abs(curve.joules[i] - curve.joules[-40] - truth[i] + truth[-40]) for i in range(len(curve) - 40, len(curve))]
    assert max(off) <= 350 * 0.003


@pytest.mark.slow
def test_windows_between_random_edges_stay_as_exact(bench):
    machine = bench(kind="square", low=60.0, high=350.0, period=2.7, duty=0.6, tick=0.1, phase=0.033)
    machine.run(5)
    random.seed(3)
    errors = []
    for _ in range(40):
        machine.run(random.uniform(0.2, 0.7))
        window = machine.ledger.open("w")
        machine.run(random.uniform(0.95, 1.05))
        window.close()
        machine.run(0.3)
        errors.append(abs(window.record.joules / machine.driver.joules(window.t0_ns, window.t1_ns) - 1))
    assert sorted(errors)[37] <= 0.025


def sampler(burst):
    return Sampler(lambda: None, burst, lambda: None, print, interval_seconds=5.0, checkpoint_seconds=5.0)


def test_an_edge_during_a_burst_gets_a_burst_of_its_own():
    begun, go_on, count = threading.Event(), threading.Event(), []

    def burst():
        count.append(1)
        if len(count) == 1:
            begun.set()
            go_on.wait(5)
        return None

    thread = sampler(burst)
    thread.start()
    assert begun.wait(5)
    thread.nudge()
    go_on.set()
    until = time.monotonic() + 5
    while len(count) < 2 and time.monotonic() < until:
        time.sleep(0.001)
    thread.stop()
    assert len(count) >= 2


def test_an_edge_before_a_burst_that_is_due_anyway_does_not_wake_the_thread():
    count = []

    def burst():
        count.append(1)
        return 60.0

    thread = sampler(burst)
    thread.start()
    time.sleep(20 * BURST_SECONDS)
    for _ in range(100):
        thread.nudge()
        time.sleep(0.0005)
    thread.stop()
    assert len(count) == 1


@pytest.mark.slow
def test_checkpoints_are_never_further_apart_than_promised():
    times = []
    thread = Sampler(
        lambda: None, lambda: None, lambda: times.append(time.monotonic()), print, interval_seconds=0.05, checkpoint_seconds=0.3
    )
    thread.start()
    time.sleep(2.0)
    thread.stop()
    assert len(times) >= 6
    # The thread may get its turn late; what it decides is when the next checkpoint would come too late.
    assert sorted(b - a for a, b in pairwise(times))[len(times) // 2] <= 0.3
