"""CPU-seconds times watts: every child counted, no neighbour counted, the estimate labelled."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.processes import Machine, Tree
from joulefront.search.energy.sources.cpu_time import DEFAULT, CpuCoefficients, CpuTime, from_cpu_watts

BURN = """
import sys, time
begin = time.process_time()
while time.process_time() - begin < float(sys.argv[1]): pass
"""


def burn(seconds):
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        pass


class FixedTree(Tree):
    def __init__(self, rate, clock):
        super().__init__()
        self._rate, self._clock = rate, clock

    def seconds(self):
        return self._rate * self._clock.now_ns / 1e9


def test_joules_are_cpu_seconds_times_watts(clock):
    source = CpuTime(CpuCoefficients(5.0, origin="test"), clock=clock, tree=FixedTree(2.0, clock))
    with Ledger([source], interval_seconds=None, clock=clock) as ledger, ledger.window("trial") as window:
        clock.advance(10)
    part = window.record.component("cpu")
    assert part.joules == pytest.approx(100, rel=1e-4)
    assert part.quality == "estimated"
    assert part.u_systematic_joules == pytest.approx(50, rel=1e-3)
    assert "5 W per CPU-second above idle (test)" in part.reason


def test_idle_power_is_a_line_of_its_own_outside_of_the_sum(clock):
    source = CpuTime(CpuCoefficients(5.0, idle_watts=8.0), clock=clock, tree=FixedTree(1.0, clock))
    with Ledger([source], interval_seconds=None, clock=clock) as ledger, ledger.window("trial") as window:
        clock.advance(10)
    assert window.record.joules == pytest.approx(50, rel=1e-3)
    assert window.record.component("cpu:idle").joules == pytest.approx(80, rel=1e-3)
    assert not window.record.component("cpu:idle").counts


def test_short_lived_children_are_counted():
    tree = Tree()
    own = time.process_time()
    before = tree.seconds()
    children = [subprocess.Popen([sys.executable, "-S", "-c", BURN, "0.15"]) for _ in range(4)]
    seen = []
    while any(child.poll() is None for child in children):
        seen.append(tree.seconds())
        time.sleep(0.02)
    found = tree.seconds() - before
    mine = time.process_time() - own
    assert found - mine >= 0.98 * 4 * 0.15
    assert seen == sorted(seen)


def test_children_of_children_are_counted_while_they_live():
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {BURN!r}, '0.3'])"
    tree = Tree()
    before = tree.seconds()
    child = subprocess.Popen([sys.executable, "-S", "-c", nested])
    most_alive = 0.0
    while child.poll() is None:
        most_alive = max(most_alive, tree.seconds() - before)
        time.sleep(0.02)
    assert most_alive >= 0.2
    assert tree.seconds() - before >= 0.3


def test_a_hog_beside_us_is_not_our_energy():
    hog = subprocess.Popen([sys.executable, "-S", "-c", BURN, "30"], start_new_session=True)
    try:
        found = []

        class Own(Tree):  # the hog is a stranger: only this process's own seconds are its energy
            def _alive(self, pid, depth):
                return 0.0

        with Ledger([CpuTime(CpuCoefficients(10.0), tree=Own())], interval_seconds=None) as ledger:
            for _ in range(5):
                with ledger.window("trial") as window:
                    burn(0.2)
                found.append(window.record.joules)
        mean = sum(found) / 5
        spread = (sum((joules - mean) ** 2 for joules in found) / 4) ** 0.5
        assert mean == pytest.approx(2.0, rel=0.02)
        assert spread / mean <= 0.02
    finally:
        hog.kill()
        hog.wait()


def test_the_machine_is_at_least_as_busy_as_we_are():
    machine, tree = Machine(), Tree()
    before = machine.seconds(), tree.seconds()
    if before[0] is None:
        pytest.skip("no /proc/stat on this system")
    burn(0.3)
    assert machine.seconds() - before[0] >= tree.seconds() - before[1] - 0.05


def test_coefficients_come_from_the_user_or_say_that_they_are_a_guess():
    assert "default of" in DEFAULT.origin
    assert from_cpu_watts(64.0, 16).core_watts == 4.0
    assert "--cpu-watts 64 over 16" in from_cpu_watts(64.0, 16).origin
    with pytest.raises(ValueError, match="cpu_watts must be > 0"):
        from_cpu_watts(0)
    with pytest.raises(ValueError, match="core_watts must be > 0"):
        CpuCoefficients(-1.0)
    with pytest.raises(ValueError, match="idle_watts must be >= 0"):
        CpuCoefficients(1.0, idle_watts=-1.0)


def test_discover_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="meter must be auto or among nvml, rapl, cpu_time"):
        discover("sundial")
    found = discover("cpu_time", cpu_watts=100.0, powercap=tmp_path)
    assert [source.name for source in found.sources] == ["cpu_time"]
    assert [capability.component for capability in found.present] == ["cpu"]
