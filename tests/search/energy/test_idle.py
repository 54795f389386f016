"""Energy above idle, and what it is uncertain by: the window, the idle power, the scale."""

import math
from dataclasses import replace

import pytest

from joulefront.search.energy import Ledger, Record, add
from joulefront.search.energy.attribution import SPLIT_U, Share, attributed
from joulefront.search.energy.sources.source import Capability, Reading


class Bench:
    """A counter under a power that the test sets, on its own clock."""

    name = "bench"

    def __init__(self, clock):
        self.clock, self.watts, self.joules = clock, 10.0, 0.0

    def probe(self):
        return (Capability("soc", self.name, True, tick_seconds=0.0, gain_u=0.02),)

    def read(self):
        return (Reading("soc", self.clock(), 0, self.joules),)

    def close(self):
        pass

    def run(self, ledger, watts, seconds, kind="trial"):
        with ledger.window(kind, kind=kind) as window:
            for _ in range(10):
                self.clock.advance(seconds / 10)
                self.joules += watts * seconds / 10
                ledger.sample()
        return window.record


@pytest.fixture
def bench(clock):
    return Bench(clock)


@pytest.fixture
def ledger(bench, clock):
    with Ledger([bench], interval_seconds=None, clock=clock) as running:
        yield running


def test_net_energy_carries_the_doubt_of_window_idle_power_and_scale(bench, ledger):
    for watts in (9.0, 10.0, 11.0):
        bench.run(ledger, watts, 10, "idle")
    part = bench.run(ledger, 50.0, 20).component("soc")
    assert part.net_joules == pytest.approx(800, rel=1e-3)
    idle_u = 1.0 / math.sqrt(3)  # standard deviation of 1 W over three windows; the meter's own part is far below
    assert part.u_net_joules == pytest.approx(math.hypot(part.u_random_joules, idle_u * 20, 0.02 * 800), rel=0.01)


def test_one_idle_window_gives_net_energy_without_a_claim_of_its_doubt(bench, ledger):
    bench.run(ledger, 10.0, 10, "idle")
    record = bench.run(ledger, 50.0, 20)
    assert record.net_joules == pytest.approx(800, rel=1e-3)
    assert record.u_net_joules is None


def test_without_an_idle_window_both_are_unknown(bench, ledger):
    record = bench.run(ledger, 50.0, 20)
    assert (record.net_joules, record.u_net_joules) == (None, None)


def test_the_doubt_of_net_energy_survives_file_and_sum(bench, ledger):
    for watts in (9.0, 11.0):
        bench.run(ledger, watts, 10, "idle")
    first, second = bench.run(ledger, 50.0, 20), bench.run(ledger, 60.0, 10)
    data = first.to_json()
    assert data["u_net_joules"] == first.u_net_joules
    assert Record.from_json(data).u_net_joules == first.u_net_joules
    # One idle power and one scale: the errors of both windows go together.
    assert add([first, second]).u_net_joules == pytest.approx(first.u_net_joules + second.u_net_joules)
    whole = first.component("soc")
    half = attributed(whole, Share(whole.joules / 2, whole.net_joules / 2, contested=20.0))
    assert half.u_net_joules == pytest.approx(math.hypot(first.u_net_joules / 2, 20.0 * SPLIT_U))
    guess = attributed(replace(whole, quality="estimated"), Share(whole.joules / 2, whole.net_joules / 2, contested=20.0))
    assert guess.u_random_joules == pytest.approx(whole.u_random_joules / 2)  # an estimate from CPU-seconds is split as it is made
