"""What an H100 and an H200 showed (driver 580, recorded by `tests/hardware/check.py`): their counters, and the ledger on them."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from joulefront.search.energy import Capability, Ledger, Reading
from joulefront.search.energy.sources.nvml import MEASURED_LAG_SECONDS
from joulefront.search.energy.sources.replay import read_traces

from .conftest import Bench, HandClock

FOLDER = Path(__file__).parents[2] / "data" / "gpu"
TRACES = {f"{path.stem} {trace.component}": trace for path in sorted(FOLDER.glob("*.json")) for trace in read_traces(path)}
NANO = 1_000_000_000
#: Pulses near the sensor's refresh of 0.1 s, or much shorter: where it looks decides on what it sees.
PULSED = [name for name in TRACES if "pulses of 0.02" in name or "pulses of 0.099" in name]


def changes(values):
    """Indices at which a value is another one than before."""
    return np.flatnonzero(np.diff(values) != 0) + 1


@dataclass
class AsRecorded:
    """Gives at each instant what the driver showed then, as a driver does: the last refresh, whenever it is asked."""

    trace: object
    clock: HandClock
    start_ns: int
    rest_seconds: float = 0.0
    name: str = "nvml"

    def probe(self):
        return (
            Capability(
                self.trace.component,
                self.name,
                True,
                lag_seconds=0.125,
                resolution_joules=0.01,
                counter_lag_seconds=MEASURED_LAG_SECONDS,
                sees=0.25,
                rest_seconds=self.rest_seconds,
            ),
        )

    def read(self):
        at = int(np.searchsorted(self.trace.t_ns, self.clock() - self.start_ns, side="right")) - 1
        at = min(max(at, 0), len(self.trace.t_ns) - 1)
        return (Reading(self.trace.component, self.clock(), 0, self.trace.joules[at], self.trace.watts[at]),)

    def truth(self, t0_ns, t1_ns):
        """Straight between the refreshes of the counter."""
        at = changes(self.trace.joules)
        times, joules = np.array(self.trace.t_ns)[at], np.array(self.trace.joules)[at]
        first, last = np.interp([t0_ns - self.start_ns, t1_ns - self.start_ns], times, joules)
        return last - first

    def close(self):
        pass


def test_the_traces_of_both_cards_are_there():
    assert len(TRACES) == 18
    assert len(PULSED) == 4


@pytest.mark.parametrize("name", TRACES)
def test_the_counter_is_refreshed_every_tenth_of_a_second_give_or_take_a_hundredth(name):
    trace = TRACES[name]
    periods = np.diff(np.array(trace.t_ns)[changes(trace.joules)]) / NANO
    assert np.median(periods) == pytest.approx(0.1, abs=0.002)
    assert np.percentile(periods, 90) < 0.13


@pytest.mark.parametrize("name", PULSED)
def test_under_pulses_in_step_with_the_sensor_the_counter_shows_one_power_and_the_sensor_many(name):
    trace = TRACES[name]
    t, joules, watts = np.array(trace.t_ns) / NANO, np.array(trace.joules), np.array(trace.watts)
    at = changes(joules)
    begin = t[at][np.flatnonzero(np.diff(joules[at]) / np.diff(t[at]) > 250)[0]] + 1.0  # the load has begun
    stretches = [(begin + k, begin + k + 1) for k in range(3)]
    counted = [float(np.diff(np.interp(edges, t[at], joules[at]))[0]) for edges in stretches]
    seen = [watts[(t > a) & (t < b)].mean() for a, b in stretches]
    assert (max(counted) - min(counted)) / np.mean(counted) < 0.12, "joules of three seconds, watts if nothing is missed"
    assert max(abs(s / c - 1) for s, c in zip(seen, counted, strict=True)) > 0.1, "the sensor alone would be wrong"


@pytest.mark.slow
@pytest.mark.parametrize("rest_seconds", [0.0, 1.7])
def test_the_ledger_on_real_refreshes_states_what_it_does_not_know(rest_seconds):
    within, errors = [], []
    for number, (name, trace) in enumerate(TRACES.items()):
        rng, clock = random.Random(name), HandClock(now_ns=1000 * NANO)
        source = AsRecorded(trace, clock, clock.now_ns, rest_seconds)
        ledger = Ledger([source], interval_seconds=None, clock=clock).start()
        bench = Bench(ledger, clock, None, 0.1, clock.now_ns)
        end_ns = clock.now_ns + trace.t_ns[-1] - NANO // 2
        bench.run(rng.uniform(0.6, 0.9) + 0.05 * (number % 3))
        windows = []
        while (left := (end_ns - clock.now_ns) / NANO) > 1.0:
            with ledger.window("w") as window:
                bench.run(min(rng.uniform(0.3, 1.5), left - 0.3))
            windows.append(window)
            bench.run(rng.uniform(0.0, 0.2))
        bench.run(0.3)
        for window in windows:
            truth = source.truth(window.t0_ns, window.t1_ns)
            record = window.record
            within.append(abs(record.joules - truth) <= 2 * record.u_random_joules)
            errors.append(abs(record.joules / truth - 1))
        ledger.stop()
    assert len(within) > 90
    assert sum(within) / len(within) >= 0.95
    assert np.median(errors) < 0.02
