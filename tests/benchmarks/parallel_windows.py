"""The table of parallel windows: what trials that run at once have together, over what all of it took; ours and CodeCarbon's.

    python tests/benchmarks/parallel_windows.py [--seconds 2]

Each trial hashes for so many CPU-seconds, the last for twice as many as the first, in a thread or in a process of its own. First every
trial has a window of one ledger, and a query around all of them is the whole; then every trial has a tracker of CodeCarbon's, and one
around all of them is the whole. What the trials used is what the kernel says of their threads or processes. Beside trials in processes
this process works, too: it reads the meters and waits for the children. That is no trial's but overhead, a named part of the bill. Three
minutes; exit code 1 when the windows are not within 2 % of what the trials used, or windows and overhead not within 2 % of the whole.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier
from typing import Any

from bars_live import tracker

from joulefront.search.energy import Ledger, Window
from joulefront.search.energy.sources.cpu_time import CpuTime

COUNTS = (1, 2, 4)
BLOCK = bytes(2**20)
#: What a trial's process does: it says when it is ready, and what it used by our count and by the kernel's, or what CodeCarbon saw.
CHILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from parallel_windows import hashes, ready_tracker
from joulefront.search.energy.sources.cpu_time import Tree
meter, tree = ready_tracker() if sys.argv[3] == "codecarbon" else None, Tree()
print("ready", flush=True); input()
if meter is None:
    began, before = time.process_time(), tree.seconds()
    hashes(float(sys.argv[2]))
    print(tree.seconds() - before, time.process_time() - began, flush=True)
else:
    meter.start(); hashes(float(sys.argv[2])); meter.stop()
    print(meter.final_emissions_data.cpu_energy, flush=True)
input()
"""


def codecarbon() -> Any:
    """Return a tracker of the machine's CPU by its load."""
    return tracker(measure_power_secs=1, allow_multiple_runs=True, force_mode_cpu_load=True, tracking_mode="machine")


def ready_tracker() -> Any:
    """Return one after another has run: the first of a process imports and asks for two CPU-seconds, which is no trial's work."""
    first = codecarbon()
    first.start()
    first.stop()
    return codecarbon()


def hashes(seconds: float) -> None:
    """Use this many CPU-seconds of this thread; the interpreter's lock is free most of the time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        hashlib.sha256(BLOCK).digest()


def in_thread(ledger: Ledger | None, seconds: float, wait: Callable[[], object]) -> tuple[Window, float] | float:
    """Run a trial here; return its window and the CPU-seconds that it used, or without a ledger CodeCarbon's energy in kWh."""
    if ledger is not None:
        wait()
        with ledger.window("trial") as window:
            before = time.thread_time()
            hashes(seconds)
            used = time.thread_time() - before
        return window, used
    meter = codecarbon()
    wait()
    meter.start()
    hashes(seconds)
    meter.stop()
    return float(meter.final_emissions_data.cpu_energy)


def in_process(ledger: Ledger | None, seconds: float, wait: Callable[[], object]) -> tuple[Window, float] | float:
    """Run a trial in a process of its own, as the search's workers do; return the same."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(seconds), "codecarbon" if ledger is None else "ours"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        wait()
        window = None if ledger is None else ledger.open("trial", devices=(), processes=True)
        if window is not None:
            window.work_by(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        told = [float(word) for word in process.stdout.readline().split()]
        if window is not None:
            window.close(cpu_seconds=told[0])
        process.communicate("\n")
    return told[-1] if window is None else (window, told[-1])


def at_once(trial: Callable[..., Any], ledger: Ledger | None, count: int, seconds: float, begin: Callable[[], object]) -> list[Any]:
    """Run so many trials at once; ``begin`` is called when all are ready."""
    start = Barrier(count, action=begin)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda k: trial(ledger, seconds * (1 + k / max(count - 1, 1)), start.wait), range(count)))


def ours(trial: Callable[..., Any], count: int, seconds: float) -> tuple[float, float, float, set[str]]:
    """Return the windows over what the trials used and over the whole, the overhead over the whole, and how the windows were attributed."""
    source = CpuTime()
    with Ledger([source]) as ledger:
        windows, used = zip(*at_once(trial, ledger, count, seconds, lambda: None), strict=True)
        begin, end = min(w.t0_ns for w in windows), max(w.t1_ns or 0 for w in windows)
        whole, overhead = ledger.query(begin, end).joules or 0.0, sum(ledger.partition(begin, end).overhead.values())
        records = [window.record for window in windows]
    parts = sum(record.joules if record.joules is not None else float("nan") for record in records)
    true = sum(used) * source.coefficients.core_watts
    return parts / true, parts / whole, overhead / whole, {part.attribution.split("(")[0] for record in records for part in record.counting}


def theirs(trial: Callable[..., Any], count: int, seconds: float) -> float:
    """Return the sum of CodeCarbon's trackers over the one around them."""
    whole = ready_tracker()
    found = at_once(trial, None, count, seconds, whole.start)
    whole.stop()
    return float(sum(found) / whole.final_emissions_data.cpu_energy)


def main() -> int:
    """Print the table; return 1 when a sum of ours is more than 2 % off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU-seconds of the shortest trial")
    seconds = parser.parse_args().seconds
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} logical CPUs, load {os.getloadavg()[0]:.1f} before\n")
    head = ("trials at once", "in", "windows / used", "windows / whole", "overhead / whole", "both", "says", "CodeCarbon: sum / whole")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    good = True
    for name, trial in (("threads", in_thread), ("processes", in_process)):
        for count in COUNTS:
            fair, windows, overhead, says = ours(trial, count, seconds)
            good = good and abs(fair - 1) <= 0.02 and abs(windows + overhead - 1) <= 0.02
            parts = f"{fair:.3f} | {windows:.3f} | {overhead:.3f} | {windows + overhead:.3f} | {', '.join(sorted(says))}"
            print(f"| {count} | {name} | {parts} | {theirs(trial, count, seconds):.2f} |", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
