"""Windows of threads at work: what they have together is what the process took, on one ledger and on one for each call."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from joulefront.search.energy import Discovery, Ledger, Record, Window, measure
from joulefront.search.energy.sources.cpu_time import CpuTime, Tree

pytestmark = pytest.mark.slow
linux = pytest.mark.skipif(sys.platform != "linux", reason="a thread's time can be read by another thread on Linux alone")

BURN = "import sys, time\nwhile time.process_time() < float(sys.argv[1]): pass"
MEBIBYTE = bytes(2**20)


def python(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(500))


def hashes(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        hashlib.sha256(MEBIBYTE).digest()


def arrays(seconds: float) -> None:
    until, values = time.thread_time() + seconds, np.arange(200_000.0)
    while time.thread_time() < until:
        np.sqrt(values).sum()


def child(seconds: float) -> None:
    subprocess.run([sys.executable, "-S", "-c", BURN, str(seconds)], check=True)


def spread(count: int) -> list[float]:
    """CPU-seconds of each thread, the last three times those of the first."""
    return [0.2 * (1 + 2 * k / (count - 1)) for k in range(count)]


@linux
@pytest.mark.parametrize(("work", "count"), [(python, 2), (hashes, 4), (arrays, 2)])  # what holds the interpreter, and what does not
def test_windows_of_threads_add_up_to_the_whole_and_each_has_its_own(work: Callable[[float], None], count: int) -> None:
    source = CpuTime()
    with Ledger([source]) as ledger:
        start = Barrier(count)

        def trial(seconds: float) -> Window:
            start.wait()
            with ledger.window("trial") as window:
                work(seconds)
            return window

        for _ in range(10):  # where nobody looked for a while on a busy machine, nothing tells whose it was, as the records then say
            with ThreadPoolExecutor(count) as pool:
                windows = list(pool.map(trial, spread(count)))
            whole = ledger.query(min(w.t0_ns for w in windows), max(w.t1_ns for w in windows))
            found = [window.record for window in windows]
            if all(record.joules is not None for record in found):
                break
    assert sum(record.joules for record in found) == pytest.approx(whole.joules, rel=0.02)
    for record, seconds in zip(found, spread(count), strict=True):
        assert record.component("cpu").attribution.startswith("shared")
        # Equal parts would be half or more away; looks that come late on a busy machine move a tenth from one thread to another.
        assert record.joules == pytest.approx(seconds * source.coefficients.core_watts, rel=0.25)


@linux
@pytest.mark.parametrize("count", [2, 4])
def test_calls_of_measure_in_threads_know_each_other(count: int) -> None:
    tree, start = Tree(), Barrier(count)

    def call(seconds: float) -> Record:
        start.wait()
        return measure(lambda: hashes(seconds), Discovery((CpuTime(),), ()))[1]

    before = tree.seconds()
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(call, spread(count)))
    used = tree.seconds() - before
    watts = CpuTime().coefficients.core_watts
    assert sum(spread(count)) <= sum(record.joules for record in found) / watts * 1.02
    assert sum(record.joules for record in found) / watts <= used * 1.02
    assert all(record.component("cpu").attribution.startswith("shared") for record in found)


@linux
def test_the_children_of_a_thread_are_its_own() -> None:
    source = CpuTime()
    with Ledger([source]) as ledger:

        def trial(seconds: float) -> Window:
            with ledger.window("trial") as window:
                child(seconds)
            return window

        with ThreadPoolExecutor(2) as pool:
            windows = list(pool.map(trial, (0.3, 0.9)))
        whole = ledger.query(min(w.t0_ns for w in windows), max(w.t1_ns for w in windows))
        found = [window.record for window in windows]
    assert sum(record.joules for record in found) == pytest.approx(whole.joules, rel=0.02)
    for record, seconds in zip(found, (0.3, 0.9), strict=True):
        assert record.joules == pytest.approx(seconds * source.coefficients.core_watts, rel=0.25)


@linux
def test_a_measured_call_inside_of_a_window_is_a_part_of_it_also_beside_another_thread() -> None:
    with Ledger([CpuTime()]) as ledger, ThreadPoolExecutor(1) as pool:
        start = Barrier(2)

        def other() -> None:
            start.wait()
            with ledger.window("other"):
                hashes(0.6)

        beside = pool.submit(other)
        start.wait()
        with ledger.window("outer") as outer:
            hashes(0.2)
            inner = measure(lambda: hashes(0.4), Discovery((CpuTime(),), ()))[1]
        beside.result()
        record = outer.record
    assert inner.joules == pytest.approx(0.4 * CpuTime().coefficients.core_watts, rel=0.25)
    assert record.joules == pytest.approx(0.6 * CpuTime().coefficients.core_watts, rel=0.25)


@linux
@pytest.mark.parametrize("count", [2, 4])
def test_windows_of_processes_are_what_the_processes_used_and_with_the_overhead_the_whole(count: int) -> None:
    """As the search's workers do it: each process states its CPU-seconds at the end."""
    watts = CpuTime().coefficients.core_watts
    with Ledger([CpuTime()]) as ledger:
        before = time.process_time()

        def trial(seconds: float) -> Window:
            window = ledger.open("trial", devices=(), processes=True)
            code = BURN + "\nprint(time.process_time(), flush=True)\ninput()"
            with subprocess.Popen(
                [sys.executable, "-S", "-c", code, str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as process:
                window.work_by(process.pid)
                assert process.stdout is not None
                window.close(cpu_seconds=float(process.stdout.readline()))
                process.communicate(b"\n")
            return window

        with ThreadPoolExecutor(count) as pool:
            windows = list(pool.map(trial, spread(count)))
        found = [window.record for window in windows]
        split, here = ledger.partition(), time.process_time() - before
    for window, record in zip(windows, found, strict=True):  # whatever the others did by when
        assert record.joules == pytest.approx(window.cpu_seconds * watts, rel=0.02)
    # What this process did meanwhile, and what the children did before and after their trials.
    assert here * 0.9 <= sum(split.overhead.values()) / watts <= here + 0.1 * count
    assert sum(record.joules for record in found) + sum(split.overhead.values()) == pytest.approx(sum(split.total.values()), rel=1e-3)


def test_a_fork_inside_of_a_window_knows_nothing_of_the_parents_windows() -> None:
    with Ledger([CpuTime()]) as ledger, ledger.window("outer"):
        pid = os.fork()
        if pid == 0:
            record = measure(lambda: python(0.05), "cpu_time")[1]
            os._exit(0 if record.component("cpu").attribution == "exclusive" else 1)
        assert os.waitpid(pid, 0)[1] == 0
