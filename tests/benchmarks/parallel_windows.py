"""The table of parallel windows: what trials that run at once have together, over what all of it took; ours and CodeCarbon's.

    python tests/benchmarks/parallel_windows.py [--seconds 2]

Each trial hashes for so many CPU-seconds, the last for twice as many as the first, in a thread or in a process of its own. Every trial has
a window of one ledger and a tracker of CodeCarbon's; a query and a tracker around all of them are the whole. Beside trials in processes
this process works, too, with CodeCarbon's tracker and the ledger's thread: that is the overhead, a named part of the bill. Two minutes;
exit code 1 when the parts are not within 2 % of the whole.
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
#: What a trial's process does: it says when it is ready, what it has used, and what CodeCarbon has seen.
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from parallel_windows import hashes, ready_tracker
from joulefront.search.energy.sources.cpu_time import Tree
meter, tree = ready_tracker(), Tree()
print("ready", flush=True); input()
before = tree.seconds()
meter.start()
hashes(float(sys.argv[2]))
meter.stop()
print(tree.seconds() - before, meter.final_emissions_data.cpu_energy, flush=True); input()
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


def in_thread(ledger: Ledger, seconds: float, wait: Callable[[], object]) -> tuple[Window, float]:
    """Run a trial here; return its window and CodeCarbon's energy in kWh."""
    meter = codecarbon()
    wait()
    with ledger.window("trial") as window:
        meter.start()
        hashes(seconds)
        meter.stop()
    return window, float(meter.final_emissions_data.cpu_energy)


def in_process(ledger: Ledger, seconds: float, wait: Callable[[], object]) -> tuple[Window, float]:
    """Run a trial in a process of its own, as the search's workers do; return its window and CodeCarbon's energy in kWh."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        wait()
        window = ledger.open("trial", devices=(), processes=True)
        window.work_by(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        used, theirs = map(float, process.stdout.readline().split())
        window.close(cpu_seconds=used)
        process.communicate("\n")
    return window, theirs


def cell(trial: Callable[..., tuple[Window, float]], count: int, seconds: float) -> tuple[float, float, float, set[str]]:
    """Run so many trials at once; return our sum over the whole, this process's overhead, CodeCarbon's sum, how ours were attributed."""
    whole = ready_tracker()
    with Ledger([CpuTime()]) as ledger, ThreadPoolExecutor(count) as pool:
        start = Barrier(count, action=whole.start)
        lengths = [seconds * (1 + k / max(count - 1, 1)) for k in range(count)]
        found = list(pool.map(lambda length: trial(ledger, length, start.wait), lengths))
        whole.stop()
        windows = [window for window, _ in found]
        begin, end = min(w.t0_ns for w in windows), max(w.t1_ns or 0 for w in windows)
        all_of_it, overhead = ledger.query(begin, end).joules or 0.0, sum(ledger.partition(begin, end).overhead.values())
        records = [window.record for window in windows]
    ours = sum(record.joules if record.joules is not None else float("nan") for record in records) / all_of_it
    theirs = sum(kwh for _, kwh in found) / whole.final_emissions_data.cpu_energy
    return ours, overhead / all_of_it, theirs, {part.attribution.split("(")[0] for record in records for part in record.counting}


def main() -> int:
    """Print the table; return 1 when a sum of ours is more than 2 % off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU-seconds of the shortest trial")
    seconds = parser.parse_args().seconds
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} logical CPUs, load {os.getloadavg()[0]:.1f} before\n")
    print("| trials at once | in | ours: sum / whole | with the overhead | says | CodeCarbon: sum / whole |\n|---|---|---|---|---|---|")
    good = True
    for name, trial in (("threads", in_thread), ("processes", in_process)):
        for count in COUNTS:
            ours, overhead, theirs, says = cell(trial, count, seconds)
            good = good and abs(ours + overhead - 1) <= 0.02
            print(f"| {count} | {name} | {ours:.3f} | {ours + overhead:.3f} | {', '.join(sorted(says))} | {theirs:.2f} |", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
