"""Ten recorded GPU power traces (del Rey et al. 2023) replayed through the fake driver, a hundred times as fast."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from helpers.traces import read_trace

from joulefront.search.energy import Ledger
from joulefront.search.energy.sources.nvml import Nvml

TRACES = Path(__file__).resolve().parents[4] / "shared" / "data" / "delrey2023" / "traces"
FILES = sorted(TRACES.glob("*.csv.gz"))


def read(path):
    """Return seconds since the first row, and watts."""
    times, watts = read_trace(path)
    assert len(times) > 1000, f"{path.name} was not understood"
    return times, watts


def trapezoid(times, watts, a, b):
    """Integrate the straight lines between the rows from ``a`` to ``b``: slow and obvious."""

    def at(t):
        for i in range(len(times) - 1):
            if times[i] <= t <= times[i + 1]:
                return watts[i] + (watts[i + 1] - watts[i]) * (t - times[i]) / (times[i + 1] - times[i])
        raise AssertionError(t)

    inner = [(t, w) for t, w in zip(times, watts, strict=True) if a < t < b]
    points = [(a, at(a)), *inner, (b, at(b))]
    return sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in pairwise(points))


@pytest.mark.slow
@pytest.mark.skipif(not FILES, reason="the recorded traces are not here (../shared/data/delrey2023/traces)")
@pytest.mark.parametrize("path", FILES or [Path("none")], ids=lambda path: path.name.split("-gpu-power")[0])
@pytest.mark.parametrize("counter", [1, 0], ids=["counter", "power"])
def test_windows_over_a_recorded_trace_agree_with_its_trapezoid(driver, clock, still, path, counter):
    times, watts = read(path)
    length = min(times[-1], 900.0)
    clock.now_ns = 0
    driver.trace(times, watts).set(counter=counter, tick=0.1).follow(clock)
    ledger = Ledger([Nvml(clock=clock, environment={})], interval_seconds=None, clock=clock).start()
    windows = []
    whole = ledger.open("training")
    step, count = 0.1, 8
    for number in range(count):
        with ledger.window(f"epoch {number}", kind="epoch", parent=whole) as window:
            for _ in range(int(length / count / step) - 1):
                clock.advance(step)
                ledger.sample()
        windows.append(window)
    whole.close()
    for _ in range(3):
        clock.advance(step)
        ledger.sample()
    ledger.stop()
    for window in [whole, *windows]:
        record = window.record
        truth = trapezoid(times, watts, window.t0_ns / 1e9, window.t1_ns / 1e9)
        assert record.joules == pytest.approx(truth, rel=0.002, abs=2 * record.u_random_joules)
        assert record.u_random_joules < 0.011 * truth  # a sensor may hold its power between two readings
    assert sum(window.record.joules for window in windows) <= whole.record.joules * (1 + 1e-9)
