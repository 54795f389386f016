"""CPU-seconds times watts: every child counted, no neighbour counted, the estimate labelled."""

from __future__ import annotations

import hashlib
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time

import pytest

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.sources.cpu_coefficients import DEFAULT, CpuCoefficients, from_cpu_watts
from joulefront.search.energy.sources.cpu_time import CpuTime, CpuUse, Machine, Tree, process_seconds

pytestmark = pytest.mark.slow

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

    def read(self, *, exact=True):
        return CpuUse(self._rate * self._clock.now_ns / 1e9, 0.0)


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


def test_a_system_that_does_not_list_children_is_said_to_show_them_late(tmp_path):
    said = [CpuTime(tree=tree).probe()[0].reason for tree in (Tree(tmp_path), Tree())]
    assert ["living child processes" in text for text in said] == [True, False]


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


GONE = f"""
import os, signal, subprocess, sys, time
from joulefront.search.energy.sources.cpu_time import Tree

def burn(seconds):
    begin = time.thread_time()
    while time.thread_time() - begin < seconds: pass

def seen(tree, until):
    before = tree.seconds()
    while not until():
        tree.seconds()
        time.sleep(0.02)
    return tree.seconds() - before

BURN = {BURN!r}
"""


def printed(code):
    found = subprocess.run([sys.executable, "-c", GONE + code], capture_output=True, text=True, timeout=60, check=True)
    return [float(number) for number in found.stdout.split()]


linux = pytest.mark.skipif(sys.platform != "linux", reason="living children are seen on Linux alone")


@linux
def test_work_after_a_child_that_nobody_waited_for_costs_what_it_costs():
    code = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
tree = Tree()
child = os.fork()
if child == 0:
    burn(0.6)
    os._exit(0)
print(seen(tree, lambda: not os.path.exists(f"/proc/{child}")))
before = tree.seconds()
burn(0.3)
print(tree.seconds() - before)
"""
    child, own = printed(code)
    assert 0.5 <= child <= 0.7
    assert own == pytest.approx(0.3, abs=0.02)


@linux
def test_a_worker_that_outlives_its_parent_is_followed_and_makes_nothing_free():
    code = """
tree = Tree()
before = tree.seconds()
shell = subprocess.Popen(["sh", "-c", f"'{sys.executable}' -S -c '{BURN}' 0.8 & echo $!; sleep 0.3"], stdout=subprocess.PIPE)
worker = int(shell.stdout.readline())
print(seen(tree, lambda: shell.poll() is not None))
print(seen(tree, lambda: not os.path.exists(f"/proc/{worker}") or open(f"/proc/{worker}/stat").read().rpartition(")")[2].split()[0] == "Z"))
own = tree.seconds()
burn(0.3)
print(tree.seconds() - own)
"""
    with_shell, alone, own = printed(code)
    assert 0.7 <= with_shell + alone <= 1.0
    assert alone > 0.05
    assert own == pytest.approx(0.3, abs=0.02)


@linux
def test_grandchildren_that_end_fast_are_counted_once():
    nested = (
        "import os\nfor _ in range(60):\n    if (pid := os.fork()) == 0:\n        sum(range(100_000)); os._exit(0)\n    os.waitpid(pid, 0)"
    )
    tree = Tree()
    before, ended = tree.seconds() - time.process_time(), os.times()
    child = subprocess.Popen([sys.executable, "-S", "-c", nested])
    while child.poll() is None:
        tree.seconds()
        time.sleep(0.001)
    found = tree.seconds() - time.process_time() - before
    after = os.times()
    truth = after.children_user + after.children_system - ended.children_user - ended.children_system
    assert found == pytest.approx(truth, abs=0.03)


@linux
def test_own_threads_are_counted_up_to_now():
    stop = threading.Event()

    def spin():
        block = bytes(8_000_000)
        while not stop.is_set():
            hashlib.sha256(block).digest()  # lets other threads run meanwhile

    tree, late = Tree(), []
    thread = threading.Thread(target=spin)
    thread.start()
    try:
        for _ in range(100):
            seen, own = tree.seconds(), time.thread_time()
            late.append(time.clock_gettime(~thread.native_id << 3 | 6) + own - seen)  # a thread's own clock is never late
            time.sleep(0.003)
    finally:
        stop.set()
        thread.join()
    # All else that was ever counted is the same at each look; time that waits for a tick of the kernel would come and go.
    assert statistics.median(late) - min(late) < 5e-4


LATE = """
import subprocess, sys, time
from joulefront.search.energy.sources.cpu_time import CpuTime, TICK

def late_ns():
    before = time.monotonic_ns()
    (reading,) = source.read()
    return reading.half_width_ns - (time.monotonic_ns() - before) / 2  # beyond half of the time that it can have taken

source = CpuTime()
assert late_ns() <= 0
child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
try:
    if sys.platform == "linux":
        assert source.read()[0].half_width_ns >= TICK * 1e9
finally:
    child.stdin.close()
    child.wait()
assert late_ns() <= 0
"""


def test_a_reading_shows_how_late_the_work_of_a_living_child_may_appear():
    # The tests' own process may have children, and one that was forked for a test has the server of its workers.
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_short_windows_beside_a_child_that_shows_late_are_flagged_or_hold_the_truth(clock):
    class LateTree(Tree):
        def read(self, *, exact=True):  # one busy child, added up every 4 ms
            return CpuUse(clock.now_ns // 4_000_000 * 0.004, 0.004)

    draw, missed = random.Random(1), 0
    with Ledger([CpuTime(CpuCoefficients(2.8), clock=clock, tree=LateTree())], interval_seconds=None, clock=clock) as ledger:
        for _ in range(400):
            clock.advance(draw.uniform(0.001, 0.1))
            ledger.sample()
            seconds = draw.uniform(0.005, 0.03)
            with ledger.window("trial") as window:
                clock.advance(seconds)
            part = window.record.component("cpu")
            missed += not part.below_resolution and abs(part.joules - 2.8 * seconds) > 2 * part.u_random_joules
    assert missed <= 0.05 * 400


def test_a_hog_beside_us_is_not_our_energy():
    hog = subprocess.Popen([sys.executable, "-S", "-c", BURN, "30"], start_new_session=True)
    try:
        found = []

        class Own(Tree):  # the hog is a stranger: only this process's own seconds are its energy
            def _walk(self):
                return {}

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
    for watts in (0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"cpu_watts \(--cpu-watts\) must be > 0 and finite"):
            from_cpu_watts(watts)
    with pytest.raises(ValueError, match="core_watts must be > 0"):
        CpuCoefficients(-1.0)
    with pytest.raises(ValueError, match="idle_watts must be >= 0"):
        CpuCoefficients(1.0, idle_watts=-1.0)


def test_discover_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match=r"meter \(--meter\) must be auto or among nvml, rapl, grace, cpu_time"):
        discover("sundial")
    found = discover("cpu_time", cpu_watts=100.0, powercap=tmp_path)
    assert [source.name for source in found.sources] == ["cpu_time"]
    assert [capability.component for capability in found.present] == ["cpu"]


def test_a_process_that_is_followed_counts_with_its_children_as_if_it_had_been_started_here() -> None:
    busy = f"{sys.executable} -S -c 'import time\nwhile time.process_time() < 0.35: pass'"
    shell = f"({busy}; {busy}; exec sleep 60) >/dev/null 2>&1 & echo $!"
    parent = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    pid, tree, until = int(parent.stdout), Tree(), time.monotonic() + 60.0
    before = tree.seconds()
    try:
        while (process_seconds(pid) or 0.0) < 0.6 and time.monotonic() < until:
            time.sleep(0.05)
        assert tree.seconds() - before < 0.5, "it is no child of this process"
        tree.follow(pid)
        assert tree.seconds() - before >= 0.6
    finally:
        os.kill(pid, signal.SIGKILL)
    assert tree.seconds() - before >= 0.6, "what it has used stays counted"
